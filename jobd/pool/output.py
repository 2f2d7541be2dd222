"""What a worker's jobs print: its log file, under fds 1 and 2, and the streams over them.

The file is under those fds because C code and child processes write there too.  Where a
job's part of it begins and ends is all that the daemon is told.
"""

from __future__ import annotations

import faulthandler
import os
import sys

from jobd.model.job import LogSpan
from jobd.pool.scoreboard import log_name

LOG_ROTATE_BYTES = 64 * 1024 * 1024

FILES_LOST = 70
"""The exit code of a worker whose job has closed or replaced the files that the worker needs."""


def output_of(uid: str, logs_dir: str, max_bytes: int, outputs: tuple[int, int] | None) -> Output:
    """Return what a worker's jobs write to: its log, or the fds that its owner has given."""
    if outputs is None:
        return Output(uid, logs_dir, max_bytes)
    return OwnersOutput(uid, logs_dir, max_bytes, outputs)


class Output:
    """The log of one worker."""

    def __init__(self, uid: str, logs_dir: str, max_bytes: int) -> None:
        """``max_bytes``: what is kept of one job's output."""
        self.number = 0
        """Of the file at hand; the name is made of it."""
        self.start = 0
        """Where in it the next job's output begins."""
        self._uid = uid
        self._dir = logs_dir
        self._max_bytes = max_bytes
        self._fd: int
        self._open()

    def settle(self) -> None:
        """Write out what is buffered; put our streams back, and make anew those that are spoiled."""
        ours = self._streams
        if sys.stdout is not ours[0] or sys.stderr is not ours[1]:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except BaseException:  # noqa: BLE001, S110  # the user's own; ours is what counts
                    pass
            sys.stdout, sys.stderr = ours
        try:
            ours[0].flush()
            ours[1].flush()
        except (OSError, ValueError):  # the job has closed or detached it
            self._open_streams()

    def is_silent(self) -> bool:
        """Whether the job that has ended wrote nothing, and our streams are in place; else see ``span``."""
        out, err = self._streams
        if sys.stdout is not out or sys.stderr is not err:
            return False
        try:
            out.flush()
            err.flush()
            return os.lseek(self._fd, 0, os.SEEK_END) == self.start
        except (OSError, ValueError):
            return False

    def skip(self) -> None:
        """What was written so far is no job's."""
        self.start = os.fstat(self._fd).st_size

    def note(self, text: str) -> None:
        """Write into the log what is no job's doing."""
        os.write(self._fd, text.encode("utf-8", "backslashreplace"))

    def take_crashes(self) -> None:
        """Have crashes written here, whatever a job has told the faulthandler."""
        # Not to 2: the job may have put something else there.
        faulthandler.enable(self._fd, all_threads=False)

    def span(self, *, sure: bool = True) -> LogSpan | None:
        """Tell what the job that has ended wrote; see to it that the next one writes there too.

        Not ``sure``: only if it has written anything.
        """
        try:
            end = os.lseek(self._fd, 0, os.SEEK_END)
            if end == self.start and not sure:
                return None
            if os.lseek(1, 0, os.SEEK_END) != end or os.lseek(2, 0, os.SEEK_END) != end:
                end = self._repair()
        except OSError:
            end = self._repair()
        start = self.start
        return None if end == start else self._cut(start, end)

    def _repair(self) -> int:
        """Put our log under fds 1 and 2 again, if we still have it; return where it ends."""
        try:
            log = os.fstat(self._fd)
            if log.st_ino != self._inode:
                os._exit(FILES_LOST)
            os.dup2(self._fd, 1)
            os.dup2(self._fd, 2)
        except OSError:
            os._exit(FILES_LOST)  # nothing that it wrote, or that we would send, can be trusted
        return log.st_size

    def _cut(self, start: int, end: int) -> LogSpan:
        dropped = max(0, end - start - self._max_bytes)
        if dropped:
            end = start + self._max_bytes
            os.ftruncate(1, end)
        span = LogSpan(log_name(self._uid, self.number), start, end, dropped)
        self.start = end
        if end > LOG_ROTATE_BYTES:
            self._open()
        return span

    def _open(self) -> None:
        """Begin a log file and put it under fds 1 and 2."""
        self.number += 1
        self.start = 0
        name = os.path.join(self._dir, log_name(self._uid, self.number))
        fd = os.open(
            name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        if self.number > 1:
            os.close(self._fd)
        else:
            self._open_streams()
        self._fd, self._inode = fd, os.fstat(fd).st_ino
        self.take_crashes()

    def _open_streams(self) -> None:
        """Make sys.stdout and sys.stderr; they write line by line, and whatever they are given."""
        sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]  # ours to set
        self._streams = (sys.stdout, sys.stderr)


class OwnersOutput(Output):
    """The standard outputs of the process for which the daemon runs: jobs write where it does.

    The log is for what the interpreter says when it crashes.
    """

    def __init__(self, uid: str, logs_dir: str, max_bytes: int, outputs: tuple[int, int]) -> None:
        """``outputs``: the two fds, inherited."""
        self._outputs = outputs
        for fd in outputs:
            os.set_inheritable(fd, False)  # what a job starts has them as 1 and 2
        super().__init__(uid, logs_dir, max_bytes)
        self._files = tuple(map(_file, outputs))

    def is_silent(self) -> bool:
        """Say nothing of it, as nothing is kept: ``span`` has to look."""
        return False

    def skip(self) -> None:
        """Nothing is cut into what each job wrote."""

    def span(self, *, sure: bool = True) -> LogSpan | None:  # noqa: ARG002  # it is not the log that is looked at
        """See to it that the next job writes there too; nothing is kept of what this one wrote."""
        try:
            if (_file(1), _file(2)) != self._files:
                self._put()
        except OSError:
            self._put()
        return None

    def _open(self) -> None:
        super()._open()
        self._put()

    def _put(self) -> None:
        try:
            os.dup2(self._outputs[0], 1)
            os.dup2(self._outputs[1], 2)
        except OSError:
            os._exit(FILES_LOST)  # a job has closed them: where the next one writes is unknown


def _file(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
