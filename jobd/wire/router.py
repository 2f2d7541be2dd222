"""The daemon's end of its clients' socket: a ROUTER, drained without waiting, in the loop's own thread.

A frame goes out at once or waits in line while the peer reads; to a peer that is
gone, or whose line is full, it does not go at all: the daemon waits for nobody.  A
client that missed something learns it from the count in ``Pong``.

A peer that asks and does not read what it is answered can be paused: nothing more is read
from it until it is resumed.  And there may be a bound on how many peers there are: who comes
beyond that shakes hands all the same, so that it can be told why it is sent away, or be
heard for a moment (``admits``, ``stays``, ``dismiss``).

The protocol is ZMTP (``jobd.wire.zmtp``), so that any ZeroMQ library can be at the other end.  It
is not libzmq's ROUTER, which would end the daemon when a crowd of clients uses up its files.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable

from jobd.wire.stale import listener
from jobd.wire.zmtp import Connection, ProtocolError

log = logging.getLogger("jobd")

HIGH_WATER = 1_000
LINE_BYTES = 64 * 1024 * 1024
"""Frames, and bytes, that wait for a peer that does not read: with more than that it gets no further one."""

NEWCOMERS = 256
NEWCOMERS_IN_NEED = 8
"""Peers that are not admitted (yet): while there are files enough, and when those are all spoken for."""

GUESTS = 4
"""Peers beyond the bound that may stay for what they have to ask."""

HASTE_S = 0.1
"""Who has said nothing in that time, or is there in vain, makes room for others that wait."""

READ_BYTES = 16 * 1024
"""Read at once from a peer; so the frames of a drain are bounded, and no peer makes others wait long."""

READ_LARGE_BYTES = 1024 * 1024
"""As much of a frame that is known to be large."""

LINGER_S = 0.5
"""How long the end may take, so that the last words are read."""


class _Peer:
    """A connection, and what waits to go out on it."""

    __slots__ = (
        "borrowed",
        "came_at",
        "connection",
        "fd",
        "has_spoken",
        "identity",
        "leaves",
        "line",
        "paused",
        "socket",
        "unsent",
    )

    def __init__(self, accepted: socket.socket, max_message_bytes: int) -> None:
        self.socket = accepted
        self.fd = accepted.fileno()
        self.connection = Connection(max_message_bytes=max_message_bytes, is_router=True)
        self.identity = b""
        """By which it can be reached; "": not yet, or no more."""
        self.line: deque[bytes | memoryview] = deque()
        self.unsent = 0
        """Bytes in the line."""
        self.paused = False
        self.leaves = False
        """It is hung up on as soon as it has been sent what is in the line."""
        self.came_at = time.monotonic()
        self.has_spoken = False
        self.borrowed = False
        """It has the spare file: there is none to keep it for long."""


class Router:
    """A listening Unix socket and the peers that have connected to it.

    Attributes:
        most_files: peers whose file descriptors have this number, or a higher one, are not admitted
            (the kernel gives the lowest that is free, so a number tells how many are in use).
        farewell: the frame that is sent to who is hung up on because there is no room.
        is_short: whether there are no files left to accept anybody with.
        is_pressed: whether somebody waits to be accepted until ``relieve`` has made room.
        elsewhere: tells how many were admitted another way, of those that the bound is for.
    """

    def __init__(self, path: str, max_message_bytes: int, most: int | None = None) -> None:
        """Bind; the caller holds the lock of this path; "": nobody can come but by ``take_in``.

        ``most`` is how many peers are admitted; None: all.

        Raises:
            ConfigError, AlreadyRunning: something is there that is not ours to remove.
        """
        self.path = path
        self.most_files = 1 << 31
        self.farewell = b""
        self.is_pressed = False
        self.elsewhere: Callable[[], int] = lambda: 0
        self._most = most
        self._max_message_bytes = max_message_bytes
        self._listener = listener(path) if path else None
        self._epoll = select.epoll()
        if self._listener is not None:
            self._epoll.register(self._listener, select.EPOLLIN)
        self._is_listening = True
        self._by_fd: dict[int, _Peer] = {}
        self.lagging: set[int] = set()
        """The file numbers of those for whom something waits in line; most of the time nobody."""
        self._reached: dict[bytes, _Peer] = {}
        """Those that have shaken hands, by identity."""
        self._new: dict[_Peer, None] = {}
        """Those that are not admitted yet, in the order in which they came."""
        self._late: set[_Peer] = set()
        """Those of ``_new`` that were it at the last look."""
        self._guests: set[_Peer] = set()
        self._gone: list[bytes] = []
        self._events: deque[tuple[int, int]] = deque()
        self._nameless = 0
        self._spare = _spare() if most is not None else None
        """A file that can be given up to accept somebody when no others are left."""
        self.is_short = False

    @property
    def fd(self) -> int:
        """What becomes readable when there is something to drain."""
        return self._epoll.fileno()

    @property
    def is_ready(self) -> bool:
        """Whether there is something to drain of which ``fd`` does not tell: it tells of everything."""
        return False

    def drain(self, most: int) -> list[tuple[bytes, bytes]]:
        """Return (peer, frame) that have arrived: about ``most``, the rest with the next call."""
        found: list[tuple[bytes, bytes]] = []
        events = self._events
        if not events:
            events.extend(self._epoll.poll(0))
        # Those that are not reached now come first the next time.
        while events and len(found) < most:
            fd, event = events.popleft()
            peer = self._by_fd.get(fd)
            if peer is None:
                self._look_at(fd)
                continue
            if event & select.EPOLLOUT:
                self._flush(peer)
                if fd not in self._by_fd:
                    continue
            # A paused one that has hung up is read to its end: that is no more than the kernel has of it.
            if event & ~select.EPOLLOUT and not (peer.paused and not event & select.EPOLLHUP):
                self._read(peer, found)
        return found

    def send(self, identity: bytes, frame: bytes) -> bool:
        """Send a frame; return False if the peer is gone or does not keep up."""
        peer = self._reached.get(identity)
        return peer is not None and self._put(peer, peer.connection.send(frame))

    def reaches(self, identity: bytes, frame: bytes) -> tuple[bool, bool]:
        """Send a frame; return whether the peer is connected, and whether it gets the frame."""
        gets_it = self.send(identity, frame)
        return identity in self._reached, gets_it

    def unsent(self, identity: bytes) -> int:
        """Return how many bytes wait for a peer to read; 0 if it is gone."""
        peer = self._reached.get(identity)
        return 0 if peer is None else peer.unsent

    def pause(self, identity: bytes) -> None:
        """Read nothing more from a peer until it is resumed."""
        self._set_paused(identity, paused=True)

    def resume(self, identity: bytes) -> None:
        """Read again from a peer."""
        self._set_paused(identity, paused=False)

    def take_gone(self) -> list[bytes]:
        """Return the peers that have hung up, or were hung up on, since the last time."""
        gone, self._gone = self._gone, []
        return gone

    # -- those for whom there may be no room --

    @property
    def has_strangers(self) -> bool:
        """Whether there is anybody who is not admitted."""
        return bool(self._new or self._guests)

    @property
    def admitted(self) -> int:
        """How many peers are admitted."""
        return len(self._by_fd) - len(self._new) - len(self._guests)

    def admits(self, identity: bytes) -> bool:
        """Whether this peer is one of those that are admitted; it is, from now on, if there is room."""
        peer = self._reached.get(identity)
        if peer is None or not (peer in self._new or peer in self._guests):
            return True
        if not self._has_room(peer):
            return False
        self._forget_stranger(peer)
        return True

    def stays(self, identity: bytes) -> bool:
        """Let a peer stay that is not admitted; return whether it may: a few can."""
        peer = self._reached.get(identity)
        if peer is None or peer in self._guests:
            return True
        if len(self._guests) >= GUESTS:
            return False
        self._forget_stranger(peer)
        self._guests.add(peer)
        return True

    def dismiss(self, identity: bytes) -> None:
        """Hang up on a peer once it has been sent what it was to be sent; it is not read any more."""
        peer = self._reached.get(identity)
        if peer is not None:
            peer.leaves = True
            if peer.line:
                self.pause(identity)
            else:
                self._drop(peer)

    def relieve(self) -> None:
        """Hang up on those who say nothing, or are here in vain, if others wait in front of the door."""
        if not self.is_pressed:
            return
        late = time.monotonic() - HASTE_S
        for peer in list(self._new):
            if peer.came_at < late and (peer.identity or not peer.has_spoken):
                self._send_away(peer)
        self._listen()

    def look(self) -> None:
        """Hang up on whoever has not shaken hands from one look to the next; called every second."""
        late, self._late = self._late, set(self._new)
        for peer in late & self._late:
            self._send_away(peer)
        self._listen()

    def close(self) -> None:
        """Let peers read what waits for them, for a moment; close, and remove the path."""
        deadline = time.monotonic() + LINGER_S
        while waiting := [peer for peer in self._by_fd.values() if peer.line]:
            poll = select.poll()
            for peer in waiting:
                poll.register(peer.fd, select.POLLOUT)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                break
            for peer in waiting:
                self._flush(peer)
        for peer in list(self._by_fd.values()):
            self._drop(peer)
        self._epoll.close()
        if self._spare is not None:
            os.close(self._spare)
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(FileNotFoundError):  # somebody has removed it
                os.unlink(self.path)

    def take_in(self, connected: socket.socket) -> None:
        """Have somebody as a peer whose connection was made by somebody else."""
        self._epoll.register(connected, select.EPOLLIN)
        self._add(connected)

    # -- inside --

    def _look_at(self, fd: int) -> None:
        """Something is up with a file that is no peer's, or is none any more."""
        if self._listener is not None and fd == self._listener.fileno():
            self._accept(self._listener)

    def _add(self, connected: socket.socket, *, borrowed: bool = False) -> None:
        connected.setblocking(False)
        peer = _Peer(connected, self._max_message_bytes)
        peer.borrowed = borrowed
        self._by_fd[peer.fd] = peer
        self._new[peer] = None
        self._put(peer, peer.connection.greeting())

    def _accept(self, listener: socket.socket) -> None:
        borrowed = False
        while self._may_come():
            try:
                accepted, _ = listener.accept()
                self._epoll.register(accepted, select.EPOLLIN)
            except BlockingIOError:
                return
            except OSError as error:
                if self._spare is not None and error.errno in (errno.EMFILE, errno.ENFILE):
                    os.close(self._spare)
                    self._spare = None
                    borrowed = True
                    continue
                if not self.is_short:
                    log.warning("nobody can connect for a moment: %s", error.strerror)
                self.is_short = True
                break
            self._add(accepted, borrowed=borrowed)
            borrowed = False
        self._epoll.unregister(listener)  # it would not let the loop sleep
        self._is_listening = False
        self.is_pressed = True

    def _may_come(self) -> bool:
        """Whether one more may be accepted, be it only to be told that there is no room."""
        if self._most is None:
            return True
        newest = next(reversed(self._new), None)
        in_need = newest is not None and newest.fd >= self.most_files
        return len(self._new) < (NEWCOMERS_IN_NEED if in_need else NEWCOMERS)

    def _listen(self) -> None:
        """Accept again, if that was given up."""
        if self._most is not None and self._spare is None:
            self._spare = _spare()
        if self._is_listening:
            self.is_short = False
            return
        assert self._listener is not None
        self._epoll.register(self._listener, select.EPOLLIN)
        self._is_listening = True
        self.is_pressed = False

    def _has_room(self, peer: _Peer) -> bool:
        """Whether one more can be admitted."""
        if self._most is None:
            return True
        if self.admitted + self.elsewhere() >= self._most:
            return False
        return peer.fd < self.most_files and not peer.borrowed

    def _forget_stranger(self, peer: _Peer) -> None:
        self._new.pop(peer, None)
        self._late.discard(peer)
        self._guests.discard(peer)

    def _send_away(self, peer: _Peer) -> None:
        """Hang up on somebody who has not come far enough; who can be told why is told."""
        if peer.identity and self.farewell:
            self._put(peer, peer.connection.send(self.farewell))
        if peer.fd in self._by_fd:
            self._drop(peer)

    def _set_paused(self, identity: bytes, *, paused: bool) -> None:
        peer = self._reached.get(identity)
        if peer is not None and peer.paused is not paused:
            peer.paused = paused
            self._watch(peer)

    def _watch(self, peer: _Peer) -> None:
        """Have the kernel tell of what is waited for with this peer; that it hangs up is told in any case."""
        reads = 0 if peer.paused else select.EPOLLIN
        self._epoll.modify(peer.fd, reads | select.EPOLLOUT if peer.line else reads)

    def _read(self, peer: _Peer, found: list[tuple[bytes, bytes]]) -> None:
        """Read once, and take what has become complete."""
        connection = peer.connection
        size = min(max(READ_BYTES, connection.missing), READ_LARGE_BYTES)
        try:
            data = peer.socket.recv(size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return
        peer.has_spoken = True
        try:
            frames = connection.receive(data)
        except ProtocolError as error:
            log.debug("hung up on a peer: %s", error)
            self._drop(peer)
            return
        output = connection.take_output()
        if output:
            self._put(peer, output)
        if connection.ready and not peer.identity:
            self._welcome(peer)
        identity = peer.identity
        found += [(identity, frame) for frame in frames]

    def _welcome(self, peer: _Peer) -> None:
        """A peer has shaken hands; one that comes again takes the place of its old connection."""
        if self._has_room(peer):
            self._forget_stranger(peer)
        identity = peer.connection.peer
        if not identity:
            self._nameless += 1
            identity = b"\0" + self._nameless.to_bytes(8, "big")
        old = self._reached.get(identity)
        peer.identity = identity
        self._reached[identity] = peer
        if old is not None:
            self._drop(old)

    def _put(self, peer: _Peer, data: bytes) -> bool:
        """Write, or put in line; return False if there is no room, or nobody there."""
        line = peer.line
        if line:
            if len(line) >= HIGH_WATER or peer.unsent >= LINE_BYTES:
                return False
            line.append(data)
            peer.unsent += len(data)
            return True
        written = self._write(peer, data)
        if written == len(data):
            return True
        if written < 0:
            return False
        line.append(memoryview(data)[written:])
        peer.unsent = len(data) - written
        self.lagging.add(peer.fd)
        self._watch(peer)
        return True

    def _flush(self, peer: _Peer) -> None:
        """Write what waits in line, as much as the peer takes."""
        line = peer.line
        while line:
            data = line[0]
            written = self._write(peer, data)
            peer.unsent -= max(0, written)
            if written < 0 and peer.leaves:
                break
            if written < len(data):
                if written > 0:
                    line[0] = memoryview(data)[written:]
                return
            line.popleft()
        self.lagging.discard(peer.fd)
        if peer.leaves:
            self._drop(peer)
        else:
            self._watch(peer)

    def _write(self, peer: _Peer, data: bytes | memoryview) -> int:
        """Write what the socket takes; -1: the peer reads no more, but what it said is still to be read."""
        try:
            return peer.socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except (
            OSError
        ):  # it is gone, or the kernel has no memory for this: then it is to come again
            self._forget(peer)
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_WR)
            return -1

    def _forget(self, peer: _Peer) -> None:
        """Nothing can be sent to this peer any more."""
        if self._reached.get(peer.identity) is peer:
            del self._reached[peer.identity]
        peer.line.clear()
        peer.unsent = 0
        self.lagging.discard(peer.fd)

    def _drop(self, peer: _Peer) -> None:
        """Close a connection; what it has not sent whole never was."""
        if self._most is not None and self._reached.get(peer.identity, peer) is peer:
            self._gone.append(peer.identity)  # else it has come again
        self._forget(peer)
        self._forget_stranger(peer)
        del self._by_fd[peer.fd]
        peer.socket.close()  # epoll forgets it by itself
        if self.is_pressed:
            self._listen()


def _spare() -> int | None:
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # at the next look, maybe
