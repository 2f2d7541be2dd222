"""The daemon's end of connections from other machines: libzmq's ROUTER, with CURVE.

It is drained without waiting, in the loop's own thread.  Its file descriptor is an edge (see ``libzmq``):
so whoever is about to sleep asks ``is_ready`` first, which asks libzmq only if a call may have taken it away.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Sequence

import zmq

from jobd.model.errors import ConfigError
from jobd.wire.libzmq import MORE, NOWAIT, has_more, prepare
from jobd.wire.router import GUESTS

SHAKE_HANDS_S = 2.0
"""Who does not shake hands in that time is hung up on: a stranger keeps a file no longer."""

ZAP = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
DOMAIN = b"jobd"

ARRIVED = 100_000
"""Frames of one peer that libzmq reads ahead of us: with few its thread has to wait for us, and be woken."""

HELD_BYTES = 64 * 1024 * 1024
"""Frames of paused peers that are kept here, as libzmq reads on: with more, nobody is read."""

UNREAD_FRAMES = 256
"""For a peer that does not read; it is asked for nothing more while it has ``Clients.UNREAD_BYTES`` unread."""

_GONE, _FULL = int(zmq.EHOSTUNREACH), int(zmq.EAGAIN)


class TcpRouter:
    """The socket for clients on other machines: nobody whose key is not known.

    A peer's name begins with ``PREFIX`` and the number of its key among those that are let in, which libzmq
    tells with each frame: so whatever name a client gives itself, it is never another key's.

    There may be a bound on how many there are, as in ``Router``; but libzmq hangs up on nobody for us, so who
    is sent away is forgotten, and a stranger again if he says something more.

    Attributes:
        elsewhere: as ``Router.elsewhere``.
    """

    PREFIX = b"\0r"
    _HEAD = len(PREFIX) + 2

    def __init__(
        self,
        endpoint: str,
        max_message_bytes: int,
        secret: bytes,
        keys: Sequence[bytes],
        most: int | None = None,
    ) -> None:
        """Bind ``tcp://host:port``; ``keys`` are the public ones that are let in, ``most`` as in ``Router``.

        Raises:
            ConfigError: it cannot be bound.
        """
        self._context = zmq.Context()
        self._zap = self._context.socket(zmq.REP)
        self._zap.set(zmq.LINGER, 0)
        self._zap.bind(ZAP)  # before anybody can come
        self._numbers = {key: b"%02x" % number for number, key in enumerate(keys)}
        self._socket = router = self._context.socket(zmq.ROUTER)
        prepare(router, max_message_bytes, UNREAD_FRAMES, ARRIVED)
        router.set(zmq.ROUTER_MANDATORY, 1)  # else a frame for nobody would vanish without a word
        router.set(zmq.HANDSHAKE_IVL, int(SHAKE_HANDS_S * 1000))
        router.set(zmq.CURVE_SERVER, 1)
        router.set(zmq.CURVE_SECRETKEY, secret)
        router.set(zmq.ZAP_DOMAIN, DOMAIN)
        self._monitor = router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._epoll = select.epoll()
        self._zap_fd, self._monitor_fd = self._zap.FD, self._monitor.FD
        for fd in (router.FD, self._zap_fd, self._monitor_fd):
            self._epoll.register(fd, select.EPOLLIN)
        for one in (self._zap, self._monitor):
            has_more(one)  # libzmq tells only him of what comes who has found nothing before
        try:
            router.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot listen at {endpoint}: {error.strerror}",
                "is it taken, or no tcp://HOST:PORT?",
            ) from None
        self._unread: dict[bytes, int] = {}
        """Bytes that were sent to a peer since it was heard last; those who are connected have an entry."""
        self._most = most
        self.elsewhere: Callable[[], int] = lambda: 0
        self._new: set[bytes] = set()
        """Those that were heard and not admitted yet."""
        self._guests: set[bytes] = set()
        self._held: dict[bytes, deque[bytes]] = {}
        """Frames of those that are paused."""
        self._resumed: deque[tuple[bytes, bytes]] = deque()
        self._held_bytes = 0
        self._has_lost = self._lost_lately = False
        self._is_touched = True
        """Whether something was done with the socket since it was asked whether there is more."""
        self._has_frames = False
        """What it answered."""

    @property
    def fd(self) -> int:
        """What becomes readable when there may be something to drain; see ``is_ready``."""
        return self._epoll.fileno()

    @property
    def is_ready(self) -> bool:
        """Whether there is something to drain, whatever ``fd`` says."""
        if self._is_touched:
            self._has_more()
        return (
            self._has_lost
            or bool(self._resumed)
            or (self._has_frames and self._held_bytes < HELD_BYTES)
        )

    def drain(self, most: int) -> list[tuple[bytes, bytes]]:
        """Return (peer, frame) that have arrived, up to ``most``; answers who wants to be let in."""
        self._hear_libzmq()
        self._is_touched = True  # maybe nobody asks for more here, and the edge has to go
        found = [self._resumed.popleft() for _ in range(min(most, len(self._resumed)))]
        recv = self._socket.recv
        while len(found) < most and self._held_bytes < HELD_BYTES and self._has_more():
            self._is_touched = True
            name, body = recv(NOWAIT), recv(NOWAIT, copy=False)
            if body.more:
                self._skip_message()
                continue
            peer = self.PREFIX + str(body.get("User-Id")).encode() + name
            frame = body.bytes
            if self._most is not None and peer not in self._unread:
                self._new.add(peer)
            self._unread[peer] = 0
            if peer in self._held:
                self._held[peer].append(frame)
                self._held_bytes += len(frame)
            else:
                found.append((peer, frame))
        return found

    def send(self, identity: bytes, frame: bytes) -> bool:
        """Send a frame; return False if the peer is gone or does not keep up."""
        return self.reaches(identity, frame)[1]

    def reaches(self, identity: bytes, frame: bytes) -> tuple[bool, bool]:
        """Send a frame; return whether the peer is connected, and whether it gets the frame."""
        self._is_touched = True
        try:
            self._socket.send(identity[self._HEAD :], MORE)
            self._socket.send(frame, NOWAIT)
        except zmq.ZMQError as error:
            if error.errno == _FULL:
                return True, False
            if error.errno != _GONE:
                raise
            self._forget(identity)
            return False, False
        if identity in self._unread:  # else it was sent away, and this is an answer from before
            self._unread[identity] += len(frame)
        return True, True

    def key_of(self, identity: bytes) -> int:
        """Return the number of a peer's key."""
        return int(identity[len(self.PREFIX) : self._HEAD], 16)

    def unsent(self, identity: bytes) -> int:
        """Return how many bytes a peer may not have read yet: those since it was heard last."""
        return self._unread.get(identity, 0)

    def pause(self, identity: bytes) -> None:
        """Return nothing more of a peer until it is resumed."""
        self._held.setdefault(identity, deque())

    def resume(self, identity: bytes) -> None:
        """Return again what a peer sends."""
        for frame in self._held.pop(identity, ()):
            self._resumed.append((identity, frame))
            self._held_bytes -= len(frame)

    # -- those for whom there may be no room; each as in ``Router`` --

    @property
    def has_strangers(self) -> bool:
        """Whether there is anybody who is not admitted."""
        return bool(self._new or self._guests)

    @property
    def admitted(self) -> int:
        """How many peers are admitted."""
        return len(self._unread) - len(self._new) - len(self._guests)

    def admits(self, identity: bytes) -> bool:
        """Whether this peer is one of those that are admitted; it is, from now on, if there is room."""
        if identity not in self._new and identity not in self._guests:
            return True
        if self._most is not None and self.admitted + self.elsewhere() >= self._most:
            return False
        self._forget_stranger(identity)
        return True

    def stays(self, identity: bytes) -> bool:
        """Let a peer stay that is not admitted; return whether it may: a few can."""
        if identity in self._guests:
            return True
        if len(self._guests) >= GUESTS:
            return False
        self._forget_stranger(identity)
        self._guests.add(identity)
        return True

    def dismiss(self, identity: bytes) -> None:
        """Forget a peer: it is to hang up by itself."""
        self._forget(identity)

    # -- those who leave --

    def take_suspects(self) -> list[bytes]:
        """Return the peers that may be gone, as somebody is: whether one is ``reaches`` tells."""
        if not self._has_lost:
            return []
        self._has_lost = False
        return list(self._unread)

    def look(self) -> None:
        """Suspect everybody once more: the end is told before nothing can be sent; called every second."""
        if self._lost_lately:
            self._lost_lately = False
            self._has_lost = True

    def close(self) -> None:
        """Let peers read what waits for them, for a moment, and close."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._zap.close()
        self._epoll.close()
        self._socket.close()
        self._context.term()

    def _has_more(self) -> bool:
        self._is_touched = False
        self._has_frames = has_more(self._socket)
        return self._has_frames

    def _skip_message(self) -> None:
        """Read what is left of a message of several frames: it is none of jobd's."""
        while self._socket.recv(NOWAIT, copy=False).more:
            pass

    def _hear_libzmq(self) -> None:
        """Take in what libzmq asks, or tells; these edges stay until we come, as nobody else touches them."""
        ready = dict(self._epoll.poll(0))
        if self._zap_fd in ready:
            while has_more(self._zap):
                self._judge(self._zap.recv_multipart(NOWAIT))
        if self._monitor_fd in ready:
            while has_more(self._monitor):
                self._monitor.recv_multipart(NOWAIT)
                self._has_lost = self._lost_lately = True

    def _judge(self, request: list[bytes]) -> None:
        """Answer whether somebody is let in (RFC 27, ZAP)."""
        number = self._numbers.get(request[6]) if len(request) == 7 else None
        code, text = (b"400", b"this key is not allowed") if number is None else (b"200", b"")
        self._zap.send_multipart([ZAP_VERSION, request[1], code, text, number or b"", b""])

    def _forget_stranger(self, identity: bytes) -> None:
        self._new.discard(identity)
        self._guests.discard(identity)

    def _forget(self, identity: bytes) -> None:
        self._forget_stranger(identity)
        self._unread.pop(identity, None)
        for frame in self._held.pop(identity, ()):
            self._held_bytes -= len(frame)
