"""What attempts wrote: read from the workers' log files, a piece for each request."""

from __future__ import annotations

import os

import msgspec

from jobd.model.job import Job, LogSpan
from jobd.pool.scoreboard import Now, log_name
from jobd.pool.stack import without_ours

TAIL_LINES = 20
TAIL_BYTES = 8192


class Piece(msgspec.Struct):
    """Some output; ``end`` says that this attempt wrote no more."""

    data: bytes
    end: bool
    dropped: int = 0


def read(logs_dir: str, span: LogSpan | None, offset: int, limit: int) -> Piece:
    """Return what an attempt that is over wrote, from ``offset`` on."""
    if span is None:
        return Piece(b"", end=True)
    start = span.start + offset
    data = _read(os.path.join(logs_dir, span.file), start, min(limit, max(0, span.end - start)))
    return Piece(data, start + len(data) >= span.end or not data, span.dropped)


def read_running(logs_dir: str, uid: str, now: Now, offset: int, limit: int) -> Piece:
    """Return what a running attempt has written so far, from ``offset`` on."""
    path = os.path.join(logs_dir, log_name(uid, now.log_number))
    return Piece(_read(path, now.log_start + offset, limit), end=False)


def last_lines(logs_dir: str, span: LogSpan | None, lines: int = TAIL_LINES) -> str:
    """Return the last lines that an attempt wrote, as text."""
    if span is None:
        return ""
    start = max(span.start, span.end - TAIL_BYTES)
    data = _read(os.path.join(logs_dir, span.file), start, span.end - start)
    text = data.lstrip(b"\0").decode("utf-8", "backslashreplace")
    return "\n".join(without_ours(text.splitlines())[-lines:])


def span_of(job: Job, attempts: dict[int, LogSpan | None], number: int) -> LogSpan | None:
    """Return where an attempt's output is; number 0 is the latest."""
    if number in attempts:  # a job that was put back has the number of that attempt still
        return attempts[number]
    return job.log if number in (0, job.attempt) else None


def punch(logs_dir: str, uid: str, now: Now, limit: int) -> None:
    """Bound what a running attempt takes on the disk: keep its first ``limit`` bytes.

    The file keeps its apparent size until the attempt ends; what is over the limit is cut then.
    """
    path = os.path.join(logs_dir, log_name(uid, now.log_number))
    try:
        size = os.stat(path).st_size
        if size - now.log_start <= 2 * limit:
            return
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # it is gone with its worker
    try:
        _punch_hole(fd, now.log_start + limit, size - now.log_start - limit)
    finally:
        os.close(fd)


def _read(path: str, start: int, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError:
        return b""


def _punch_hole(fd: int, start: int, size: int) -> None:
    import ctypes  # noqa: PLC0415  # only for jobs that write without bound

    keep_size_and_punch = 0x01 | 0x02
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate(fd, keep_size_and_punch, ctypes.c_long(start), ctypes.c_long(size))
