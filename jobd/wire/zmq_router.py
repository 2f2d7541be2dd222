"""A ROUTER of libzmq, drained without waiting in the loop's own thread: for the pool, and for other machines.

libzmq reads and writes in a thread of its own.  What it costs is asking it: so a look at ``EVENTS``
comes before each ``recv`` (an exception for "nothing is there" costs more), and nothing is asked twice.

Its file descriptor is an edge: it becomes readable when something *may* have changed, and is
silent about what was there before.  Every call may take that edge away.  So whoever is about
to sleep asks ``is_ready`` first.
"""

from __future__ import annotations

import select
from collections.abc import Callable

import zmq

from jobd.wire.gate import Gate, Knows

LINGER_S = 0.5
"""How long the end may take, so that the last words are read."""

HIGH_WATER = 1_000
"""Frames that wait for a peer that does not read: with so many it gets no further one."""

ARRIVED = 100_000
"""Frames of one peer that libzmq reads ahead of us: with few its thread has to wait for us, and be woken."""

_EVENTS = zmq.EVENTS
_IN = zmq.POLLIN
_NOWAIT = zmq.NOBLOCK
_MORE = zmq.NOBLOCK | zmq.SNDMORE


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
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def reaches(self, identity: bytes, frame: bytes) -> tuple[bool, bool]:
        """Send a frame; return whether the peer is connected, and whether it gets the frame."""
        try:
            self._send(identity, _MORE)
            self._send(frame, _NOWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return error.errno == zmq.EAGAIN, False
        return True, True

    def close(self) -> None:
        """Let peers read what waits for them, for a moment, and close."""
        self._epoll.close()
        self.socket.close()
        self.context.term()


class PoolRouter(ZmqRouter):
    """The pool's socket: workers come to it through a gate, with the names that they have."""

    def __init__(self, path: str, max_message_bytes: int) -> None:
        """Bind; the caller holds the lock of this path.

        Raises:
            ConfigError, AlreadyRunning: something is there that is not ours to remove.
        """
        self._gate = Gate(path)
        super().__init__(max_message_bytes)
        self.socket.set(zmq.ROUTER_HANDOVER, 1)  # a worker that comes again keeps its name
        self.socket.set(zmq.USE_FD, self._gate.inner_fd)
        self.socket.bind(f"ipc://{path}")
        self.watch(self._gate.fd)

    @property
    def is_short(self) -> bool:
        """Whether there are no files left to let a worker in."""
        return self._gate.is_short

    @property
    def is_ready(self) -> bool:
        """Whether there is something to drain, whatever ``fd`` says."""
        if self._gate.is_awaited:
            self._gate.open()
        return bool(self._get(_EVENTS) & _IN)

    def let_in(self, knows: Knows) -> None:
        """From now on let in whomever ``knows`` calls a worker of ours."""
        self._gate.knows = knows

    def drain(self, most: int) -> list[tuple[bytes, bytes]]:
        """Let in who waits at the gate; return (peer, frame) that have arrived, up to ``most``."""
        self._gate.open()
        return super().drain(most)

    def look(self) -> None:
        """Send away who has waited at the gate in vain; called every second."""
        self._gate.look()

    def close(self) -> None:
        """Let workers read what waits for them, for a moment; close, and remove the path."""
        self._gate.close()
        super().close()
