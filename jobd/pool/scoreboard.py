"""What a worker is doing, in a small mapped file that outlives it.

The worker writes with one copy to memory for each job; the daemon reads when the
worker has died (which attempt is to blame?), before it kills it (is it still in
the attempt that is to be stopped?), for ``status``, and after its own crash
(which workers of my predecessor live, and what did the dead ones run?).
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple, Self

from jobd.pool import linux

_HEAD = struct.Struct("<QQ16s")  # pid, start time, boot id of the machine
_NOW = struct.Struct("<QQQQQ")  # job, attempt, started at, log file number, log offset
_RUNS = struct.Struct("<Q")  # 1 while that attempt runs
_BEGUN = struct.Struct("<QQQQQQ")  # both
_SEQ = struct.Struct("<Q")  # the last frame of outcomes that was sent
_NOW_AT = _HEAD.size
_RUNS_AT = _NOW_AT + _NOW.size
_SEQ_AT = _RUNS_AT + _RUNS.size
_CPU = struct.Struct("<Q")  # µs of processor time that was used before the attempt at hand
_CPU_AT = _SEQ_AT + _SEQ.size
SIZE = _CPU_AT + _CPU.size


MOST = 2**53


class Now(NamedTuple):
    """The attempt that a worker is in; job 0: none."""

    job: int
    attempt: int
    started_at: int
    log_number: int
    log_start: int


class Scoreboard:
    """One worker's page; made by the worker, read by the daemon."""

    def __init__(self, fd: int, *, writable: bool) -> None:
        """Map the file behind ``fd`` (and close it); raises ValueError if it is too short."""
        try:
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self._map = mmap.mmap(fd, SIZE, access=access)
        finally:
            os.close(fd)

    @classmethod
    def create(cls, path: str) -> Self:
        """Make the page of this process."""
        fresh = f"{path}.new"
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(fd, 0, SIZE)  # a full disk is an error here, and SIGBUS later
        board = cls(fd, writable=True)
        pid = os.getpid()
        _HEAD.pack_into(board._map, 0, pid, linux.start_time(pid), linux.kernel_boot_id())
        os.rename(fresh, path)
        return board

    @classmethod
    def open(cls, path: str) -> Self:
        """Open another process's page; raises OSError or ValueError if there is none."""
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), writable=False)

    def close(self) -> None:
        """Unmap the page."""
        self._map.close()

    def begin(
        self, job: int, attempt: int, started_at: int, log_number: int, log_start: int
    ) -> None:
        """Write down the attempt that starts now."""
        _BEGUN.pack_into(self._map, _NOW_AT, job, attempt, started_at, log_number, log_start, 1)

    def end(self) -> None:
        """Write down that no attempt runs."""
        _RUNS.pack_into(self._map, _RUNS_AT, 0)

    def leave(self) -> None:
        """Write down that the process ends of its own will: no attempt is to blame."""
        _NOW.pack_into(self._map, _NOW_AT, 0, 0, 0, 0, 0)

    def sent(self, seq: int) -> None:
        """Write down the last frame of outcomes that was sent."""
        _SEQ.pack_into(self._map, _SEQ_AT, seq)

    def used(self, cpu_us: int) -> None:
        """Write down the processor time that was used so far."""
        _CPU.pack_into(self._map, _CPU_AT, cpu_us)

    @property
    def cpu_us(self) -> int:
        """What was used before the attempt that runs, or a few short ones before it."""
        return int(_CPU.unpack_from(self._map, _CPU_AT)[0])

    @property
    def now(self) -> Now:
        """The attempt that runs."""
        if not _RUNS.unpack_from(self._map, _RUNS_AT)[0]:
            return Now(0, 0, 0, 0, 0)
        return self.last

    @property
    def last(self) -> Now:
        """The attempt that runs, or has ended last: then its outcome may have died with the worker."""
        # The file is the worker's, whose job may have written into any memory.
        return Now(*(min(number, MOST) for number in _NOW.unpack_from(self._map, _NOW_AT)))

    @property
    def seq(self) -> int:
        """The last frame of outcomes that was sent."""
        return int(_SEQ.unpack_from(self._map, _SEQ_AT)[0])

    @property
    def pid(self) -> int:
        """The worker's pid."""
        return int(_HEAD.unpack_from(self._map, 0)[0])

    @property
    def is_alive(self) -> bool:
        """Whether the very process that made this page lives."""
        pid, start, _ = _HEAD.unpack_from(self._map, 0)
        return bool(start) and self.is_of_this_boot and linux.start_time(pid) == start

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the machine has not restarted since; else what the page says may be stale."""
        return bool(_HEAD.unpack_from(self._map, 0)[2] == linux.kernel_boot_id())


def log_name(uid: str, number: int) -> str:
    """Return the name of a worker's log file in the logs directory."""
    return f"{uid}.{number}.log"
