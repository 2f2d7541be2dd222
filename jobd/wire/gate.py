"""The gate of the pool's socket: our workers come through it, and nobody else.

A worker that comes says its identity here; the gate makes sure that it is one (the kernel tells its pid)
and hands it one end of a new connection (``SCM_RIGHTS``), of which the router gets the other.  From
then on the two have nobody between them.

Strangers have a few places to wait in, which others take from them: they cannot use up files.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobd.credentials import credentials
from jobd.wire.stale import listener

log = logging.getLogger("jobd")

PLACES = 32
"""Peers that may wait at once to be let in; one more, and the first of them is sent away."""

RETRY_S = 0.1
"""Who was sent away, as a worker may be in a crowd of strangers, comes again after so long."""

AT_ONCE = 64
"""So many are accepted before others have their turn."""

PATIENCE_S = 10.0
"""A worker that was forked a moment ago may be here before the zygote has told of it."""

MAX_IDENTITY_BYTES = 255

Knows = Callable[[bytes, int], bool]
"""Whether the peer with this identity and pid is a worker of ours."""


@dataclass(eq=False)
class _Visitor:
    """Somebody at the gate."""

    socket: socket.socket
    pid: int
    identity: bytes = b""
    came_at: float = field(default_factory=time.monotonic)


class Gate:
    """A listening Unix socket; ``take_in`` gets the connections of those who are let in.

    Attributes:
        knows: tells our workers from strangers; until it is set nobody is let in.
        is_short: whether somebody waits for whom there are no files.
    """

    def __init__(self, path: str, take_in: Callable[[socket.socket], None]) -> None:
        """Bind; the caller holds the lock of this path.

        Raises:
            ConfigError, AlreadyRunning: something is there that is not ours to remove.
        """
        self.path = path
        self.knows: Knows = lambda _identity, _pid: False
        self.is_short = False
        self._take_in = take_in
        self._listener = listener(path)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._is_listening = True
        self._visitors: dict[int, _Visitor] = {}

    @property
    def fd(self) -> int:
        """What becomes readable when somebody comes."""
        return self._epoll.fileno()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody is here who may be let in by now."""
        return bool(self._visitors)

    def open(self) -> None:
        """Let in whoever can be let in now; never waits for anybody who is not here."""
        if self._is_listening:
            self._accept()
        for visitor in list(self._visitors.values()):
            if not visitor.identity:
                self._hear(visitor)
            elif self.knows(visitor.identity, visitor.pid):
                self._let_in(visitor)

    def look(self) -> None:
        """Send those away who have waited for too long, and accept again; called every second."""
        late = time.monotonic() - PATIENCE_S
        for visitor in list(self._visitors.values()):
            if visitor.came_at < late:
                log.warning("pid %d is no worker of ours: it is not let in", visitor.pid)
                self._dismiss(visitor)
        self.is_short = False
        self._listen()

    def close(self) -> None:
        """Close, and remove the path."""
        for visitor in list(self._visitors.values()):
            self._dismiss(visitor)
        self._epoll.close()
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):  # somebody has removed it
            os.unlink(self.path)

    # -- inside --

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._lack(error)
                self._epoll.unregister(self._listener)  # it would not let the loop sleep
                self._is_listening = False
                return
            accepted.setblocking(False)
            visitor = _Visitor(accepted, credentials(accepted)[0])
            self._visitors[accepted.fileno()] = visitor
            self._epoll.register(accepted, select.EPOLLIN)
            self._hear(visitor)
            if len(self._visitors) > PLACES:
                self._dismiss(next(iter(self._visitors.values())))

    def _listen(self) -> None:
        if not self._is_listening:
            self._epoll.register(self._listener, select.EPOLLIN)
            self._is_listening = True

    def _hear(self, visitor: _Visitor) -> None:
        try:
            said = visitor.socket.recv(MAX_IDENTITY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._dismiss(visitor)
            return
        visitor.identity = said
        self._epoll.unregister(visitor.socket)  # it has nothing more to say
        if self.knows(said, visitor.pid):
            self._let_in(visitor)

    def _let_in(self, visitor: _Visitor) -> None:
        """Make a connection for a worker; for want of files it waits on."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX)
        except OSError as error:
            self._lack(error)
            return
        try:
            socket.send_fds(visitor.socket, [b"."], [theirs.fileno()])
        except OSError:
            ours.close()  # it has left meanwhile
        else:
            self._take_in(ours)
        theirs.close()
        self._dismiss(visitor)

    def _lack(self, error: OSError) -> None:
        if not self.is_short:
            log.warning("no worker can connect for a moment: %s", error.strerror or error)
        self.is_short = True

    def _dismiss(self, visitor: _Visitor) -> None:
        del self._visitors[visitor.socket.fileno()]
        visitor.socket.close()  # epoll forgets it by itself
        self._listen()


def pass_gate(path: str, identity: bytes, deadline: float) -> socket.socket:
    """Return a worker's connection to the daemon at ``path``, in exchange for its identity.

    Raises:
        OSError: nobody listens there; ``TimeoutError``: the gate is not opened by ``deadline`` (monotonic).
    """
    while True:
        with socket.socket(socket.AF_UNIX) as outside:
            outside.settimeout(max(0.01, deadline - time.monotonic()))
            outside.connect(path)
            try:
                outside.sendall(identity)
                _, fds, _, _ = socket.recv_fds(outside, 1, 1)
            except (BrokenPipeError, ConnectionResetError):
                fds = []
        if fds:
            return socket.socket(fileno=fds[0])
        if time.monotonic() > deadline:
            raise TimeoutError("the daemon does not let us in")
        # There was no room, or the daemon has ended: then nobody listens the next time.
        time.sleep(RETRY_S)
