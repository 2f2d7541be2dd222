"""What a worker is doing, in a small mapped file that outlives it.

The worker writes with one copy to memory for each job; the daemon reads when the
worker has died (which attempt is to blame?), before it kills it (is it still in
the attempt that is to be stopped?), for ``status``, and after its own crash
(which workers of my predecessor live, and what did the dead ones run?).

One entry both may write: which attempt was sent SIGTERM by order.  It tells the worker's handler
whom a signal is meant for, whoever has sent it, and the other one that it was sent.
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
_STOP = struct.Struct("<QQ")  # the attempt that was sent SIGTERM by order
_STOP_AT = _CPU_AT + _CPU.size
SIZE = _STOP_AT + _STOP.size

NOBODY = (0, 0)
"""In place of an attempt."""


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

    def __init__(self, fd: int) -> None:
        """Map the file behind ``fd`` (and close it); raises ValueError if it is too short."""
        try:
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)

    @classmethod
    def create(cls, path: str) -> Self:
        """Make the page of this process."""
        fresh = f"{path}.new"
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(fd, 0, SIZE)  # a full disk is an error here, and SIGBUS later
        board = cls(fd)
        pid = os.getpid()
        _HEAD.pack_into(board._map, 0, pid, linux.start_time(pid), linux.kernel_boot_id())
        os.rename(fresh, path)
        return board

    @classmethod
    def open(cls, path: str) -> Self:
        """Open another process's page; raises OSError or ValueError if there is none."""
        return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC))

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

    def order_stop(self, job: int, attempt: int) -> None:
        """Write down that this attempt is sent SIGTERM now, because the daemon wants it to end."""
        _STOP.pack_into(self._map, _STOP_AT, job, attempt)

    @property
    def to_stop(self) -> tuple[int, int]:
        """The attempt that was sent SIGTERM by order; ``NOBODY``: none."""
        job, attempt = _STOP.unpack_from(self._map, _STOP_AT)
        return job, attempt

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
