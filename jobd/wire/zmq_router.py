"""A ROUTER of libzmq, drained without waiting in the loop's own thread: for clients on other machines.

libzmq reads and writes in a thread of its own.  What it costs is asking it: so a look at ``EVENTS``
comes before each ``recv`` (an exception for "nothing is there" costs more), and nothing is asked twice.

Its file descriptor is an edge: it becomes readable when something *may* have changed, and is
silent about what was there before.  Every call may take that edge away.  So whoever is about
to sleep asks ``is_ready`` first.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Sequence

import zmq

from jobd.model.errors import ConfigError

LINGER_S = 0.5
"""How long the end may take, so that the last words are read."""

HIGH_WATER = 1_000
"""Frames that wait for a peer that does not read: with so many it gets no further one."""

ARRIVED = 100_000
"""Frames of one peer that libzmq reads ahead of us: with few its thread has to wait for us, and be woken."""

# Plain numbers: pyzmq's are enums, with which each look would cost three times as much.
_EVENTS = int(zmq.EVENTS)
_IN = int(zmq.POLLIN)
_NOWAIT = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_GONE, _FULL = int(zmq.EHOSTUNREACH), int(zmq.EAGAIN)


class ZmqRouter:
    """A socket of libzmq and the peers that have connected to it.

    Attributes:
        lagging: as ``Router.lagging``; always empty, as libzmq does not tell.
    """

    def __init__(self, max_message_bytes: int) -> None:
        """Make the socket; whoever derives from this has it bound."""
        self.lagging: set[int] = set()
        self.context = zmq.Context()
        self.socket = socket = self.context.socket(zmq.ROUTER)
        socket.set(zmq.LINGER, int(LINGER_S * 1000))
        socket.set(zmq.MAXMSGSIZE, max_message_bytes)
        socket.set(zmq.SNDHWM, HIGH_WATER)
        socket.set(zmq.RCVHWM, ARRIVED)
        socket.set(zmq.ROUTER_MANDATORY, 1)  # else a frame for nobody would vanish without a word
        self._get: Callable[[int], int] = socket.get  # type: ignore[assignment]  # what we ask for are numbers
        self._recv, self._send = socket.recv, socket.send
        self._epoll = select.epoll()
        self.watch(self._get(zmq.FD))

    @property
    def fd(self) -> int:
        """What becomes readable when there may be something to drain; see ``is_ready``."""
        return self._epoll.fileno()

    def watch(self, fd: int) -> None:
        """Have ``fd`` (the property) become readable with this one too."""
        self._epoll.register(fd, select.EPOLLIN)

    @property
    def is_ready(self) -> bool:
        """Whether there is something to drain, whatever ``fd`` says."""
        return bool(self._get(_EVENTS) & _IN)

    def drain(self, most: int) -> list[tuple[bytes, bytes]]:
        """Return (peer, frame) that have arrived, up to ``most``."""
        found: list[tuple[bytes, bytes]] = []
        get, recv = self._get, self._recv
        while len(found) < most and get(_EVENTS) & _IN:
            found.append((recv(_NOWAIT), recv(_NOWAIT)))
        return found

    def send(self, identity: bytes, frame: bytes) -> bool:
        """Send a frame; return False if the peer is gone or does not keep up."""
        try:
            self._send(identity, _MORE)
            self._send(frame, _NOWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (_GONE, _FULL):
                raise
            return False
        return True

    def reaches(self, identity: bytes, frame: bytes) -> tuple[bool, bool]:
        """Send a frame; return whether the peer is connected, and whether it gets the frame."""
        try:
            self._send(identity, _MORE)
            self._send(frame, _NOWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (_GONE, _FULL):
                raise
            return error.errno == _FULL, False
        return True, True

    def close(self) -> None:
        """Let peers read what waits for them, for a moment, and close."""
        self._epoll.close()
        self.socket.close()
        self.context.term()


BEAT_S = 1.0
SILENT_S = 3.0
"""A peer that has not answered a heartbeat for so long is gone."""

SHAKE_HANDS_S = 2.0
"""Who does not shake hands in that time is hung up on: a stranger keeps a file no longer."""

ZAP = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
DOMAIN = b"jobd"

HELD_BYTES = 64 * 1024 * 1024
"""Frames of paused peers that are kept here, as libzmq reads on: with more, nobody is read."""

UNREAD_FRAMES = 256
"""For a peer on another machine; it is asked for nothing more while it has ``Clients.UNREAD_BYTES`` unread."""


class TcpRouter(ZmqRouter):
    """The socket for clients on other machines: CURVE, and nobody whose key is not known.

    A peer's name begins with ``PREFIX`` and the number of its key among those that are let in, which libzmq
    tells with each frame: so whatever name a client gives itself, it is never another key's.
    """

    PREFIX = b"\0r"
    _HEAD = len(PREFIX) + 2

    def __init__(
        self, endpoint: str, max_message_bytes: int, secret: bytes, keys: Sequence[bytes]
    ) -> None:
        """Bind ``tcp://host:port``; ``keys`` are the public ones that are let in.

        Raises:
            ConfigError: it cannot be bound.
        """
        super().__init__(max_message_bytes)
        self._zap = self.context.socket(zmq.REP)
        self._zap.set(zmq.LINGER, 0)
        self._zap.bind(ZAP)  # before anybody can come
        self._numbers = {key: b"%02x" % number for number, key in enumerate(keys)}
        for option, value in (
            (zmq.SNDHWM, UNREAD_FRAMES),
            (zmq.CURVE_SERVER, 1),
            (zmq.HANDSHAKE_IVL, int(SHAKE_HANDS_S * 1000)),
            (zmq.HEARTBEAT_IVL, int(BEAT_S * 1000)),
            (zmq.HEARTBEAT_TIMEOUT, int(SILENT_S * 1000)),
            (zmq.HEARTBEAT_TTL, int(SILENT_S * 1000)),
        ):
            self.socket.set(option, value)
        self.socket.set(zmq.CURVE_SECRETKEY, secret)
        self.socket.set(zmq.ZAP_DOMAIN, DOMAIN)
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot listen at {endpoint}: {error.strerror}",
                "is it taken, or no tcp://HOST:PORT?",
            ) from None
        for one in (self._zap, self._monitor):
            self.watch(one.FD)
        self._unread: dict[bytes, int] = {}
        """Bytes that were sent to a peer since it was heard last; those who are connected have an entry."""
        self._held: dict[bytes, deque[bytes]] = {}
        """Frames of those that are paused."""
        self._resumed: deque[tuple[bytes, bytes]] = deque()
        self._held_bytes = 0
        self._has_lost = False

    @property
    def is_ready(self) -> bool:
        """Whether there is something to drain, whatever ``fd`` says; answers who wants to be let in."""
        while _has_more(self._zap):
            self._judge(self._zap.recv_multipart(_NOWAIT))
        while _has_more(self._monitor):
            self._monitor.recv_multipart(_NOWAIT)
            self._has_lost = True
        has_more = _has_more(
            self.socket
        )  # asked in any case: else the edge would not let the loop sleep
        return self._has_lost or bool(self._resumed) or (has_more and self._held_bytes < HELD_BYTES)

    def drain(self, most: int) -> list[tuple[bytes, bytes]]:
        """Return (peer, frame) that have arrived, up to ``most``."""
        found = [self._resumed.popleft() for _ in range(min(most, len(self._resumed)))]
        while len(found) < most and self._held_bytes < HELD_BYTES and _has_more(self.socket):
            parts = self.socket.recv_multipart(_NOWAIT, copy=False)
            if len(parts) != 2:
                continue  # no frame of jobd's
            peer = self.PREFIX + str(parts[1].get("User-Id")).encode() + parts[0].bytes
            frame = parts[1].bytes
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
        found = super().reaches(identity[self._HEAD :], frame)
        if not found[0]:
            self._forget(identity)
        elif found[1]:
            self._unread[identity] = self._unread.get(identity, 0) + len(frame)
        return found

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

    def take_suspects(self) -> list[bytes]:
        """Return the peers that may be gone, as somebody is: whether one is ``reaches`` tells."""
        if not self._has_lost:
            return []
        self._has_lost = False
        return list(self._unread)

    def close(self) -> None:
        """Let peers read what waits for them, for a moment, and close."""
        self.socket.disable_monitor()
        self._monitor.close(0)
        self._zap.close()
        super().close()

    def _judge(self, request: list[bytes]) -> None:
        """Answer whether somebody is let in (RFC 27, ZAP)."""
        number = self._numbers.get(request[6]) if len(request) == 7 else None
        code, text = (b"400", b"this key is not allowed") if number is None else (b"200", b"")
        self._zap.send_multipart([ZAP_VERSION, request[1], code, text, number or b"", b""])

    def _forget(self, identity: bytes) -> None:
        self._unread.pop(identity, None)
        for frame in self._held.pop(identity, ()):
            self._held_bytes -= len(frame)


def _has_more(one: zmq.Socket[bytes]) -> bool:
    return bool(one.get(_EVENTS) & _IN)  # type: ignore[operator]  # a number
