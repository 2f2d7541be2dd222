"""Readers of the store that do not end: its write-ahead log grows, and somebody has to be told.

A shell in a transaction, a backup that hangs: any process of the user may read the
database, and while it does the log cannot be folded in.  Its size is looked at every second,
which costs one ``stat``; all else only where it is too large.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Collection

from jobd.store.ahead import WriteAheadLog

log = logging.getLogger("jobd")

MOST_BYTES = 128 * 1024 * 1024
"""Twice what is left of it when it was folded in (``journal_size_limit``)."""

LOOK_S = 10.0
"""What costs more than a ``stat`` is done so often; and for so long it may be too large without a word."""


class Readers:
    """Whether somebody keeps the log from being folded in."""

    def __init__(
        self, ahead: WriteAheadLog, is_free: Callable[[], bool], most_bytes: int = MOST_BYTES
    ) -> None:
        """``is_free`` tells whether no commit is under way."""
        self._ahead = ahead
        self._is_free = is_free
        self._most_bytes = most_bytes
        self._look_at_s = 0.0
        self._over_since_s = math.inf
        self.trouble = ""

    def look(self, now_s: float) -> None:
        """See whether the log is too large, and why."""
        size = self._ahead.size()
        if size <= self._most_bytes:
            self._over_since_s = math.inf
            self.trouble = ""
            return
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_S
        self._over_since_s = min(now_s, self._over_since_s)
        # Commits fold it as soon as it can be done; where there are no more of them we do.
        if self._is_free() and self._ahead.fold():
            self.trouble = ""
            return
        if now_s - self._over_since_s < LOOK_S:
            return  # one large commit, or a short look at the store
        trouble = _sentence(size, holders(self._ahead.paths), self._ahead.paths[0])
        if not self.trouble:
            log.warning("%s", trouble)
        self.trouble = trouble


def _sentence(size: int, found: list[str], path: str) -> str:
    what = f"the write-ahead log of the job store has {size / 1024**2:,.0f} MiB"
    if not found:
        return (
            f"{what}: a process that cannot be seen from here does not end to read the store; see which "
            f"one with 'fuser {path}' as root, and end it"
        )
    who = ("process " if len(found) == 1 else "processes ") + ", ".join(found)
    verb = "keeps" if len(found) == 1 else "keep"
    return (
        f"{what}, because {who} {verb} the store open for reading; once that has ended it shrinks"
    )


def holders(paths: Collection[str]) -> list[str]:
    """Return the other processes that have one of these files open, as far as this user may see them."""
    wanted = {os.path.realpath(path) for path in paths}
    others = (name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())
    return [f"{pid} ({_command(pid)})" for pid in others if _holds(f"/proc/{pid}/fd", wanted)]


def _holds(directory: str, wanted: set[str]) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(_target(entry.path) in wanted for entry in entries)
    except OSError:
        return False  # somebody else's, or it has ended


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "it has ended"
