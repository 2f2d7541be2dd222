"""The daemon's ends of its two sockets: ROUTERs, drained without waiting, in the loop's own thread.

A frame goes out at once or waits in line while the peer reads; to a peer that is
gone, or whose line is full, it does not go at all: the daemon waits for nobody.  A
client that missed something learns it from the count in ``Pong``.

The protocol is ZMTP (``jobd.zmtp``), so that any ZeroMQ library can be at the other
end.  It is not libzmq's ROUTER here, because that reads and writes in a thread of its
own: for each message it wakes that thread and is woken by it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import time
from collections import deque

from jobd.wire.stale import remove_stale
from jobd.zmtp import Connection, ProtocolError

log = logging.getLogger("jobd")

HIGH_WATER = 1_000
"""Frames that wait for a peer that does not read."""

BACKLOG = 1024
READ_BYTES = 16 * 1024
"""Read at once from a peer; so the frames of a drain are bounded, and no peer makes others wait long."""

READ_LARGE_BYTES = 1024 * 1024
"""As much of a frame that is known to be large."""

LINGER_S = 0.5
"""How long the end may take, so that the last words are read."""


class _Peer:
    """A connection, and what waits to go out on it."""

    __slots__ = ("connection", "fd", "identity", "line", "socket")

    def __init__(self, accepted: socket.socket, max_message_bytes: int) -> None:
        self.socket = accepted
        self.fd = accepted.fileno()
        self.connection = Connection(max_message_bytes=max_message_bytes, is_router=True)
        self.identity = b""
        """By which it can be reached; "": not yet, or no more."""
        self.line: deque[bytes | memoryview] = deque()


class Router:
    """A listening Unix socket and the peers that have connected to it."""

    def __init__(self, path: str, max_message_bytes: int) -> None:
        """Bind; the caller holds the lock of this path.

        Raises:
            ConfigError, AlreadyRunning: something is there that is not ours to remove.
        """
        self.path = path
        self._max_message_bytes = max_message_bytes
        remove_stale(path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(BACKLOG)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._is_listening = True
        self._by_fd: dict[int, _Peer] = {}
        self._reached: dict[bytes, _Peer] = {}
        """Those that have shaken hands, by identity."""
        self._new: set[_Peer] = set()
        self._late: set[_Peer] = set()
        """Those of ``_new`` that were it at the last look."""
        self._events: deque[tuple[int, int]] = deque()
        self._nameless = 0

    @property
    def fd(self) -> int:
        """What becomes readable when there is something to drain."""
        return self._epoll.fileno()

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
                if fd == self._listener.fileno():
                    self._accept()
                continue
            if event & select.EPOLLOUT:
                self._flush(peer)
            if event & ~select.EPOLLOUT:
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

    def look(self) -> None:
        """Hang up on whoever has not shaken hands from one look to the next; called every second."""
        late, self._late, self._new = self._late, self._new, set()
        for peer in late:
            self._drop(peer)
        if not self._is_listening:
            self._epoll.register(self._listener, select.EPOLLIN)
            self._is_listening = True

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
        self._listener.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass  # somebody has removed it

    # -- inside --

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
                self._epoll.register(accepted, select.EPOLLIN)
            except BlockingIOError:
                return
            except OSError as error:  # no more files, most likely
                log.warning("nobody can connect for a moment: %s", error.strerror)
                self._epoll.unregister(self._listener)  # it would not let the loop sleep
                self._is_listening = False
                return
            accepted.setblocking(False)
            peer = _Peer(accepted, self._max_message_bytes)
            self._by_fd[peer.fd] = peer
            self._new.add(peer)
            self._put(peer, peer.connection.greeting())

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
        self._new.discard(peer)
        self._late.discard(peer)
        identity = peer.connection.peer
        if not identity:
            self._nameless += 1
            identity = b"\0" + self._nameless.to_bytes(8, "big")
        old = self._reached.get(identity)
        if old is not None:
            self._drop(old)
        peer.identity = identity
        self._reached[identity] = peer

    def _put(self, peer: _Peer, data: bytes) -> bool:
        """Write, or put in line; return False if there is no room, or nobody there."""
        line = peer.line
        if line:
            if len(line) >= HIGH_WATER:
                return False
            line.append(data)
            return True
        written = self._write(peer, data)
        if written == len(data):
            return True
        if written < 0:
            return False
        line.append(memoryview(data)[written:])
        self._epoll.modify(peer.fd, select.EPOLLIN | select.EPOLLOUT)
        return True

    def _flush(self, peer: _Peer) -> None:
        """Write what waits in line, as much as the peer takes."""
        line = peer.line
        while line:
            data = line[0]
            written = self._write(peer, data)
            if written < len(data):
                if written > 0:
                    line[0] = memoryview(data)[written:]
                return
            line.popleft()
        self._epoll.modify(peer.fd, select.EPOLLIN)

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

    def _drop(self, peer: _Peer) -> None:
        """Close a connection; what it has not sent whole never was."""
        self._forget(peer)
        self._new.discard(peer)
        self._late.discard(peer)
        del self._by_fd[peer.fd]
        peer.socket.close()  # epoll forgets it by itself
