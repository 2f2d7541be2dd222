"""A worker process as its daemon sees it."""

from __future__ import annotations

import errno
import os

import msgspec

from jobd.model.errors import ConfigError
from jobd.pool.protocol import Exited
from jobd.pool.scoreboard import Scoreboard
from jobd.pool.zygotes import ZygoteProcess

JUDGE_S = 0.25
"""How long a dead worker's last words may take to arrive."""

TOLD_S = 5.0
"""How long the zygote may take to tell how it ended: it ends first what the worker has left behind."""


class Process(msgspec.Struct):
    """A worker process that lives, or is dead and not judged yet."""

    uid: str
    pid: int
    pidfd: int
    board: Scoreboard | None = None
    seen_dead_at: float = 0.0
    exited: Exited | None = None
    killed: bool = False
    """We have killed it."""
    zygote: ZygoteProcess | None = None
    """Its parent, which will tell how it ended; None: nobody will."""

    def look(self, path: str) -> Scoreboard | None:
        """Return its scoreboard, if it has made one (the checker does not), and it can be opened."""
        if self.board is None:
            try:
                self.board = Scoreboard.open(path)
            except (OSError, ValueError):
                return None
        return self.board

    @property
    def is_told(self) -> bool:
        """Whether all is known that anybody can tell of how it ended."""
        return self.exited is not None or self.zygote is None

    @property
    def patience_s(self) -> float:
        """How long its last words are waited for, once it is seen dead."""
        return JUDGE_S if self.is_told else TOLD_S


def open_living(path: str) -> tuple[Scoreboard, int] | None:
    """Open the scoreboard of a worker that lives, and a pidfd for it; None if there is no such one."""
    try:
        board = Scoreboard.open(path)
    except (OSError, ValueError) as error:
        refuse_lack(error)
        return None
    pidfd = -1
    try:
        pidfd = os.pidfd_open(board.pid)
        if board.is_alive:  # looked at after the pidfd was opened: now it is the same process
            return board, pidfd
    except (OSError, OverflowError, ValueError) as error:
        refuse_lack(error)
    if pidfd >= 0:
        os.close(pidfd)
    board.close()
    return None


def refuse_lack(error: Exception) -> None:
    """Tell a file that is not there from one that cannot be opened now."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise ConfigError(
            f"the workers of the daemon before cannot be looked at: {error.strerror}",
            "raise LimitNOFILE, or 'ulimit -n'; until then they go on, and wait",
        ) from error
