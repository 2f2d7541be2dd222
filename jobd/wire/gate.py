"""The gate of the pool's socket: our workers come through it, and nobody else.

libzmq accepts by itself, in its own thread, whoever connects; when the kernel has no file left for one
more, it aborts the process (``ipc_listener.cpp``).  So it listens at a socket without a name, and only the
daemon can connect to that.  What has the name is the gate, which the loop looks after.  A worker that comes
says its identity there; the gate makes sure that it is one (the kernel tells its pid) and that there are
files enough, connects for it, and hands it the connection (``SCM_RIGHTS``).  From then on libzmq and
the worker have nobody between them.

Strangers have a few places to wait in, which others take from them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobd.wire.stale import remove_stale

log = logging.getLogger("jobd")

BACKLOG = 1024
PLACES = 32
"""Peers that may wait at once to be let in; one more, and the first of them is sent away."""

RETRY_S = 0.1
"""Who was sent away, as a worker may be in a crowd of strangers, comes again after so long."""

AT_ONCE = 64
"""So many are accepted before others have their turn."""

PATIENCE_S = 10.0
"""A worker that was forked a moment ago may be here before the zygote has told of it."""

ACCEPTED_S = 1.0
"""How long libzmq's thread may take to accept; it takes about 100 µs."""

SPARE_FILES = 8
"""So many files have to be free for a worker to be let in: it takes two, and other threads open some too."""

MAX_IDENTITY_BYTES = 255
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid

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
    """A listening Unix socket, and behind it one without a name at which libzmq listens.

    Attributes:
        knows: tells our workers from strangers; until it is set nobody is let in.
        is_short: whether somebody waits for whom there are no files.
    """

    def __init__(self, path: str) -> None:
        """Bind both; the caller holds the lock of this path.

        Raises:
            ConfigError, AlreadyRunning: something is there that is not ours to remove.
        """
        self.path = path
        self.knows: Knows = lambda _identity, _pid: False
        self.is_short = False
        remove_stale(path)
        inner = _listener(path)
        # By this descriptor it can be connected to, without its name.
        self._inside = os.open(path, os.O_PATH | os.O_CLOEXEC)
        os.unlink(path)
        self.inner_fd = inner.detach()
        """Where libzmq is to listen; its to close."""
        self._listener = _listener(path)
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

    def has_news(self) -> bool:
        """Whether somebody has come, or said something."""
        return bool(self._epoll.poll(0))

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
        os.close(self._inside)
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
            visitor = _Visitor(accepted, _pid_of(accepted))
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
        """Connect for a worker, and hand it the connection; for want of files it waits on."""
        try:
            connected = self._connect()
        except OSError as error:
            self._lack(error)
            return
        with connected, contextlib.suppress(OSError):  # it has left meanwhile
            socket.send_fds(visitor.socket, [b"."], [connected.fileno()])
        self._dismiss(visitor)

    def _connect(self) -> socket.socket:
        """Return a connection that libzmq has accepted: its greeting is there."""
        _refuse_lack()
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.settimeout(ACCEPTED_S)
            connected.connect(f"/proc/self/fd/{self._inside}")
            poll = select.poll()
            poll.register(connected, select.POLLIN)
            is_accepted = poll.poll(ACCEPTED_S * 1000)
            connected.setblocking(False)
        except BaseException:
            connected.close()
            raise
        if not is_accepted:
            connected.close()
            raise TimeoutError("libzmq does not accept")
        return connected

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


def _listener(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(BACKLOG)
    return listener


def _pid_of(accepted: socket.socket) -> int:
    data = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(data)[0]
    return pid


def _refuse_lack() -> None:
    """Raise OSError unless a few files can be opened: libzmq would not survive it."""
    opened: list[int] = []
    try:
        for _ in range(SPARE_FILES):
            opened.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))  # noqa: PERF401  # those before one that fails are to be closed
    finally:
        for fd in opened:
            os.close(fd)
