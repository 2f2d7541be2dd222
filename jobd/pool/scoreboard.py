"""What a worker is doing and has done, in a mapped file that outlives it.

The worker writes with a copy to memory for each job; the daemon reads when the
worker has died (which attempt is to blame, and what had ended before it?), before it
kills it (is it still in the attempt that is to be stopped?), for ``status``, and after
its own crash (which workers of my predecessor live, and what did the dead ones run?).

Behind the fields that say what runs there is the *piece* at hand: what items of an array have returned
that run one after the other.  Behind that there is a ring of *records*: the outcomes that are not
known to be durable.  An outcome is put there before the attempt counts as over, and so
before the next job begins: what a worker has done is done, however it ends.

One entry both may write: which attempt was sent SIGTERM by order.  It tells the worker's handler
whom a signal is meant for, whoever has sent it, and the other one that it was sent.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, Self

from jobd.model.job import Outcome
from jobd.pool import linux

_HEAD = struct.Struct("<QQ16s")  # pid, start time, boot id of the machine
_NOW = struct.Struct("<QQQQQ")  # job, attempt, started at, log file number, log offset
_RUNS = struct.Struct("<Q")  # while that attempt runs: where the records ended when it began
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
_RING = struct.Struct("<QQ")  # where the records begin and end: bytes that were ever freed, and put
_RING_AT = SIZE
_END = struct.Struct("<Q")
_END_AT = _RING_AT + _END.size
_PIECE = struct.Struct("<QQQQQ")  # its first item, the attempt, started at, how many items, bytes
_PIECE_AT = _END_AT + _END.size
_VALUES_AT = 4096
PIECE_BYTES = 64 * 1024
_RECORDS_AT = _VALUES_AT + PIECE_BYTES
_LENGTH = struct.Struct("<I")

RING_BYTES = 1024 * 1024
"""Ten thousand outcomes of small jobs: more than are on their way while the disk is well."""

_FIRST = 1
"""Where the records of a board without a ring end, always."""

_NONE_RUNS = 2**64 - 1
_SKIPS = 2**32 - 1
"""In place of a length: the next record is at the beginning of the ring."""

MOST_PACKERS = 1_000

NOBODY = (0, 0)
"""In place of an attempt."""


MOST, MOST_ID = 2**53, 2**63 - 1


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
            size = os.fstat(fd).st_size
            self._map = mmap.mmap(fd, max(size, SIZE))
        finally:
            os.close(fd)
        self._ring = max(0, size - _RECORDS_AT)
        """How many bytes it has for records; 0: none, as the disk was full, or an older jobd has made it."""
        self._begin = self._end = 0 if self._ring else _FIRST
        self._piece_count = self._piece_bytes = 0
        self._packers: dict[int, struct.Struct] = {}
        """By length: made once, they copy twice as fast as a slice does."""

    @classmethod
    def create(cls, path: str) -> Self:
        """Make the page of this process."""
        fresh = f"{path}.new"
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with suppress(OSError):  # without room for records, each outcome is sent at once
            os.posix_fallocate(fd, 0, _RECORDS_AT + RING_BYTES)
        if os.fstat(fd).st_size < _RECORDS_AT + RING_BYTES:
            os.ftruncate(fd, 0)
            os.posix_fallocate(fd, 0, SIZE)  # a full disk is an error here, and SIGBUS later
        board = cls(fd)
        board._end_without_record()
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
        _BEGUN.pack_into(
            self._map, _NOW_AT, job, attempt, started_at, log_number, log_start, self._end
        )

    def end(self, record: bytes) -> bool:
        """Write down what came of the attempt, and that none runs; False: there was no room for it."""
        length, end, ring = len(record), self._end, self._ring
        needs = _LENGTH.size + length
        place = end % ring if ring else 0
        if place + needs > ring:  # it would not be in one piece
            if end - place + ring + needs - self._begin > ring:
                return self._end_without_record()
            if place + _LENGTH.size <= ring:
                _LENGTH.pack_into(self._map, _RECORDS_AT + place, _SKIPS)
            end, place = end - place + ring, 0
        elif end + needs - self._begin > ring:
            return self._end_without_record()
        packer = self._packers.get(length)
        if packer is None:
            if len(self._packers) >= MOST_PACKERS:
                self._packers.clear()
            packer = self._packers[length] = struct.Struct(f"<I{length}s")
        packer.pack_into(self._map, _RECORDS_AT + place, length, record)
        self._end = end = end + needs
        # At one stroke: the record is there, and what began where the records ended before is over.
        _END.pack_into(self._map, _END_AT, end)
        return True

    def _end_without_record(self) -> bool:
        _RUNS.pack_into(self._map, _RUNS_AT, _NONE_RUNS)
        return False

    @property
    def has_ring(self) -> bool:
        """Whether there is room for records at all."""
        return bool(self._ring)

    # -- the piece at hand --

    def add(self, piece: Outcome, value: bytes) -> bool:
        """Write down what the next item of a piece has returned; False: there is no room for more of them."""
        size, needs = self._piece_bytes, _LENGTH.size + len(value)
        if not self._ring:
            return True  # without records all is sent at once
        if size + needs > PIECE_BYTES:
            return False
        at = _VALUES_AT + size
        self._map[at : at + needs] = len(value).to_bytes(4, "little") + value
        if not self._piece_count:
            head = piece.id, piece.attempt, piece.started_at
            _PIECE.pack_into(self._map, _PIECE_AT, *head, 0, 0)
        self._piece_count += 1
        self._piece_bytes = size + needs
        # At one stroke, and last: what it counts is there.
        _RING.pack_into(self._map, _PIECE_AT + 24, self._piece_count, self._piece_bytes)
        return True

    def close_piece(self) -> None:
        """The piece at hand is on record, or empty: begin another one."""
        self._piece_count = self._piece_bytes = 0
        _RING.pack_into(self._map, _PIECE_AT + 24, 0, 0)

    def piece(self) -> tuple[int, int, int, list[bytes]] | None:
        """Return the piece at hand: its first item, the attempt, when it began, and what each has returned."""
        if not self._ring:
            return None
        first, attempt, started_at, count, size = _PIECE.unpack_from(self._map, _PIECE_AT)
        values, at, end = list[bytes](), _VALUES_AT, _VALUES_AT + min(size, PIECE_BYTES)
        while len(values) < count and at + _LENGTH.size <= end:
            (length,) = _LENGTH.unpack_from(self._map, at)
            at += _LENGTH.size
            values.append(self._map[at : at + length])
            at += length
        return (first, attempt, started_at, values) if values and at <= end else None

    @property
    def position(self) -> int:
        """Where the records end: what ``free`` takes."""
        return self._end

    def free(self, position: int) -> None:
        """Forget the records before this position: what they tell is durable."""
        if position <= self._begin:
            return  # of a frame all of which had no room
        if position == self._end:  # nothing is left: begin at the same memory again
            self._end += -position % self._ring
            position = self._end
        self._begin = position
        _RING.pack_into(self._map, _RING_AT, position, self._end)

    def records(self) -> Iterator[bytes]:
        """Yield what is not known to be durable, in order; for the daemon, once the worker is dead.

        A job may have written into any memory: what makes no sense ends this.
        """
        if not self._ring:
            return
        at, end = _RING.unpack_from(self._map, _RING_AT)
        while at < end <= at + self._ring:
            place = at % self._ring
            left = self._ring - place
            length = _SKIPS
            if left >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._map, _RECORDS_AT + place)
            if length == _SKIPS:
                at += left
            elif length > left - _LENGTH.size:
                return
            else:
                begin = _RECORDS_AT + place + _LENGTH.size
                yield self._map[begin : begin + length]
                at += _LENGTH.size + length

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
        end = _END.unpack_from(self._map, _END_AT) if self._ring else (_FIRST,)
        return self.last if _RUNS.unpack_from(self._map, _RUNS_AT) == end else Now(0, 0, 0, 0, 0)

    @property
    def last(self) -> Now:
        """The attempt that runs, or has ended last: then its outcome may have died with the worker."""
        # The file is the worker's, whose job may have written into any memory.
        job, *rest = _NOW.unpack_from(self._map, _NOW_AT)
        return Now(min(job, MOST_ID), *(min(number, MOST) for number in rest))

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
