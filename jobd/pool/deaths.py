"""What can be told of a worker's death: how it ended, in which attempt, and what it had finished."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field

import msgspec

from jobd.model.job import Usage
from jobd.model.orders import Outcomes, Produced
from jobd.pool import linux
from jobd.pool.cgroup import Leaf
from jobd.pool.delivery import left_by
from jobd.pool.oom import OutOfMemory
from jobd.pool.process import Process, refuse_lack
from jobd.pool.protocol import Exited, Settings
from jobd.pool.scoreboard import Now, Scoreboard, log_name
from jobd.pool.stack import without_ours

TAIL_BYTES = 8192
TAIL_LINES = 50
"""Enough for the faulthandler's stack, which begins with the place of the crash."""

OUT_OF_MEMORY = ", out of memory"

NOTHING = Now(0, 0, 0, 0, 0)


class Dead(msgspec.Struct):
    """A worker's death, judged."""

    uid: str
    cause: str
    now: Now
    """The attempt it was in, which the death is put down to; job 0: none."""
    tail: str = ""
    log_end: int = 0
    unknown: bool = False
    log_dropped: int = 0
    usage: Usage | None = None
    by_rlimit: bool = False
    """A limit of memory, if it had one, was enforced by rlimit: nobody has counted what it hit."""
    left: list[Outcomes | Produced] = []
    """What it had finished, and perhaps not sent."""
    pid: int = 0
    """Its process, as far as it is known."""


@dataclass
class Inquest:
    """Looks at what is left of a worker."""

    settings: Settings
    memory: OutOfMemory = field(default_factory=OutOfMemory)
    leaves: list[Leaf] = field(default_factory=list)
    """Cgroups that could not be removed yet."""

    def of(self, process: Process, board: Scoreboard | None) -> Dead:
        """Tell of a worker that a daemon has watched; its scoreboard is closed by that."""
        cause = self._cause(process)
        now = board.now if board else NOTHING
        left = left_by(board) if board else []
        usage = _usage(process.exited, board.cpu_us if board else 0)
        if board is not None:
            board.close()
        return self._told(Dead(process.uid, cause, now, usage=usage, left=left, pid=process.pid))

    def unwatched(self, uid: str, board_path: str) -> Dead:
        """Tell of a worker that died while no daemon watched.

        Raises:
            ConfigError: there are no files to look at what it has left.
        """
        try:
            board = Scoreboard.open(board_path)
        except (OSError, ValueError) as error:
            refuse_lack(error)
            return Dead(uid, "it is gone, and so is its record", NOTHING, unknown=True)
        now, pid, left, same_boot = board.now, board.pid, left_by(board), board.is_of_this_boot
        board.close()
        if not same_boot:
            return Dead(uid, "the machine went down", NOTHING, unknown=True)
        cause = "it ended while no daemon watched" + (OUT_OF_MEMORY if self._end_leaf(uid) else "")
        return self._told(Dead(uid, cause, now, left=left, pid=pid))

    def _told(self, dead: Dead) -> Dead:
        """Add what the attempt has written, and who has enforced its limit of memory."""
        dead.tail, dead.log_end, dead.log_dropped = _close_log(self.settings, dead.uid, dead.now)
        group = self.settings.cgroup
        dead.by_rlimit = group is None or not group.enforces("mem")
        return dead

    def _cause(self, process: Process) -> str:
        if process.exited is not None:
            cause = how_it_ended(process.exited.status)
            if cause != "SIGKILL" or process.killed:
                return cause
            # Asked in any case: what it has seen, it will not tell of the next one with this pid.
            named = self.memory.has_killed(process.pid) or process.exited.out_of_memory
            return cause + OUT_OF_MEMORY if named else cause
        linux.signal_group(process.pid, signal.SIGKILL)
        hungry = self._end_leaf(process.uid) and not process.killed
        try:
            ended = os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            ended = None
        if ended is None:
            return "SIGKILL" + OUT_OF_MEMORY if hungry else "it ended while nobody could see how"
        by_exit = ended.si_code == os.CLD_EXITED
        cause = how_it_ended(ended.si_status << 8 if by_exit else ended.si_status)
        return cause + OUT_OF_MEMORY if hungry and cause == "SIGKILL" else cause

    def _end_leaf(self, uid: str) -> bool:
        """End what is in the cgroup of a worker of which no zygote will tell; return whether it was hungry."""
        if self.settings.cgroup is None:
            return False
        leaf = Leaf(self.settings.cgroup, uid)
        leaf.kill()
        self.leaves.append(leaf)
        return leaf.remains().out_of_memory


def _usage(exited: Exited | None, before_us: int) -> Usage | None:
    if exited is None:
        return None
    return Usage(exited.max_rss_bytes, max(0, int(exited.cpu_s * 1e6) - before_us))


def _close_log(settings: Settings, uid: str, now: Now) -> tuple[str, int, int]:
    """Do for an attempt's output what its worker cannot do any more: cut it to the limit.

    Returns its last lines, where it ends, and how many bytes were not kept.
    """
    if not now.job:
        return "", 0, 0
    path = os.path.join(settings.logs_dir, log_name(uid, now.log_number))
    tail, end = tail_of(path, now.log_start)
    kept = min(end, now.log_start + settings.max_output_bytes)
    if kept < end:
        try:
            os.truncate(path, kept)
        except OSError:
            pass  # then it takes more room than it should; nobody reads on from there
    return tail, kept, end - kept


def tail_of(path: str, start: int) -> tuple[str, int]:
    """Return the last lines of a file from ``start`` on, and its size."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - TAIL_BYTES))
            data = file.read(TAIL_BYTES)
    except OSError:
        return "", start
    # NULs at the beginning are the end of what was cut out of the file while the job ran.
    text = data.lstrip(b"\0").decode("utf-8", "backslashreplace")
    return "\n".join(without_ours(text.splitlines())[-TAIL_LINES:]), end


def how_it_ended(status: int) -> str:
    """Turn a wait status into words: ``SIGSEGV``, ``exit code 3``."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return signal.Signals(number).name
        except ValueError:
            return f"signal {number}"
    return f"exit code {os.WEXITSTATUS(status)}"
