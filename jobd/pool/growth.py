"""What jobs may leave that does not show at once: files that are open, native threads, memory.

Each is no harm to the next job by itself; but a process has limits, and at one of them every later
job fails for want of what others have taken.  So a worker that comes near to one is replaced:
when less than half is left of what it had at first, of memory a quarter.

Files are not counted: the kernel gives the lowest number that is free, so that number tells how
many are open, in half a microsecond.
"""

from __future__ import annotations

import os
import resource

from jobd.pool.parts import Part

THREADS = 512
"""As many native threads more are a leak where no limit is lower."""

_PAGE = os.sysconf("SC_PAGESIZE")


def parts(files: Files) -> list[Part]:
    """Return them; memory is one only where a limit is set."""
    threads = Threads()
    found = [
        Part("files", files.is_low, _nothing, loss=lambda *_: files.loss()),
        Part("native threads", threads.is_low, _nothing, loss=lambda *_: threads.loss()),
    ]
    for limit, field in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        if resource.getrlimit(limit)[0] != resource.RLIM_INFINITY:
            memory = Memory(limit, field)
            found.append(
                Part("memory", memory.is_low, _nothing, loss=lambda *_, m=memory: m.loss())
            )
    return found


class Files:
    """The file descriptors that are open."""

    def __init__(self) -> None:
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        first = _lowest_free()
        self._bound = first + (self._most - first) // 2

    def is_low(self) -> bool:
        """Whether more than half of those are free that were it at first."""
        return _lowest_free() < self._bound

    def loss(self) -> str:
        """Say how many are open."""
        return f"it left {_lowest_free()} files open, of {self._most} that a worker may have"


class Threads:
    """Threads of any kind; those of Python that a job leaves are looked at one by one elsewhere."""

    def __init__(self) -> None:
        soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        self._first = _thread_count()
        room = THREADS if soft == resource.RLIM_INFINITY else min(THREADS, soft // 2)
        self._bound = self._first + room

    def is_low(self) -> bool:
        """Whether there are not many more than at first."""
        return _thread_count() < self._bound

    def loss(self) -> str:
        """Say how many there are."""
        return f"it left {_thread_count()} threads in its process, {self._first} at first"


class Memory:
    """Memory, where the process has a limit of it."""

    def __init__(self, limit: int, field: int) -> None:
        """``field`` is where /proc/self/statm has what the limit counts, in pages."""
        self._field = field
        self._most = resource.getrlimit(limit)[0]
        self._bound = self._most - (self._most - self._used()) // 4

    def is_low(self) -> bool:
        """Whether more than a quarter of what was free at first still is."""
        return self._used() < self._bound

    def loss(self) -> str:
        """Say how much is used."""
        mib = 1 << 20
        used, most = self._used() // mib, self._most // mib
        return f"it left {used} MiB of memory in use, of {most} that a worker may have"

    def _used(self) -> int:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[self._field]) * _PAGE


def _lowest_free() -> int:
    """Return the lowest free file descriptor; as many as there may be if none is."""
    try:
        fd = os.dup(0)
    except OSError:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.close(fd)
    return fd


def _thread_count() -> int:
    try:
        return os.stat("/proc/self/task").st_nlink - 2
    except OSError:
        return 0  # there is no /proc, and so no way to tell


def _nothing(_was: object) -> None:
    """It cannot be undone."""
