"""What a worker has of objects of ``multiprocessing`` that are in its owner's process.

The other side is ``jobd.executor.sharing``.
"""

from __future__ import annotations

import os
import threading
from multiprocessing import connection, reduction
from multiprocessing.process import current_process
from typing import Any

RECURSIVE = 0
"""The kind of a lock that may be taken again by who has it: ``RECURSIVE``."""


def prove(channel: Any, *, first: bool) -> None:
    """Show that we have the key, and see that the other one has it.

    Raises:
        AuthenticationError: it has not.
    """
    key = bytes(current_process().authkey)
    steps = [connection.deliver_challenge, connection.answer_challenge]
    for step in steps if first else reversed(steps):
        step(channel, key)


class SharedFd:
    """A file descriptor of the process that has pickled this."""

    def __init__(self, address: str, number: int) -> None:
        self._address = address
        self._number = number

    def detach(self) -> int:
        """Return a copy of it, which is the caller's."""
        with _connect(self._address, self._number) as channel:
            return reduction.recv_handle(channel)


class RemoteSemaphore:
    """A semaphore of another process, as ``multiprocessing.synchronize`` uses its own.

    Whose it is, of a lock that may be taken again by who has it, is known here, by thread.
    """

    handle = 0
    name = None

    def __init__(self, address: str, number: int, kind: int, maxvalue: int) -> None:
        self._where = (address, number)
        self.kind = kind
        self.maxvalue = maxvalue
        self._local = threading.local()
        self._times = 0
        """How often this process has taken it and not given it back."""
        self._taker = (0, 0)
        """The process and the thread that have taken it last."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:  # noqa: FBT001, FBT002  # as it is there
        """Take it, waiting for it if need be; return whether it was had."""
        if self.kind == RECURSIVE and self._is_mine():
            self._times += 1
            return True
        left_s = 0.0 if not block else None if timeout is None else max(0.0, timeout)
        taken = bool(self._ask("acquire", left_s))
        if taken:
            self._times = self._count() + 1
            self._taker = (os.getpid(), threading.get_ident())
        return taken

    def release(self) -> None:
        """Give it back."""
        if self.kind == RECURSIVE:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._times > 1:
                self._times -= 1
                return
        times, self._times = self._count(), self._count() - 1
        try:
            self._ask("release")
        except BaseException:
            self._times = times
            raise

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    def _count(self) -> int:
        return self._times if self._taker[0] == os.getpid() else 0

    def _is_mine(self) -> bool:
        return self._count() > 0 and self._taker[1] == threading.get_ident()

    def _get_value(self) -> int:
        return int(self._ask("_get_value"))

    def _is_zero(self) -> bool:
        return bool(self._ask("_is_zero"))

    def _ask(self, name: str, *args: object) -> Any:
        """Ask in a connection of this thread's own, as another one may wait in its."""
        mine, pid = self._local, os.getpid()
        if getattr(mine, "pid", 0) != pid:  # also a fork's: two would read the same answers
            mine.channel, mine.pid = _connect(*self._where), pid
        mine.channel.send((name, args))
        value, error = mine.channel.recv()
        if error is not None:
            raise error
        return value


def _connect(address: str, number: int) -> Any:
    channel = connection.Client(address, "AF_UNIX")
    prove(channel, first=False)
    channel.send((number, os.getpid()))
    return channel


def rebuild(kind: type, address: str, number: int, sort: int, maxvalue: int) -> Any:
    """Make a lock or semaphore whose state is in another process."""
    lock: Any = object.__new__(kind)
    lock._semlock = RemoteSemaphore(address, number, sort, maxvalue)  # noqa: SLF001  # what it is made of
    lock._make_methods()  # noqa: SLF001  # as above
    lock._is_fork_ctx = False  # noqa: SLF001  # as above
    return lock
