"""Inside a job: what is to follow this attempt, said by raising it.

    raise jobd.Retry(in_s=30)         it has failed, and may be tried again then
    jobd.snooze(600)                  it is too early: ask again then; this does not count
    raise jobd.Cancel("no such user") it is of no use to go on

Whether a retry is left is the daemon's to say: it counts them (``--retries``).
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import NoReturn

from jobd.model.durations import LONGEST_S, parse_duration
from jobd.model.errors import UsageError

Delay = float | timedelta | str
"""Seconds, or a text such as ``1h30m``."""


class Retry(Exception):
    """This attempt has failed, and the job wants another one, whatever ``--retry-on`` says.

    It uses up a retry; when none is left, the job has failed with this as its error.

    Attributes:
        in_s: after how many seconds; None: as ``--backoff`` says.
    """

    def __init__(self, message: str = "", *, in_s: Delay | None = None) -> None:
        """Raises ValueError if ``in_s`` is no duration."""
        super().__init__(message or "the job asks for another attempt")
        self.in_s = None if in_s is None else seconds(in_s)


class Snooze(Exception):
    """What ``snooze`` raises."""

    def __init__(self, in_s: Delay, why: str = "") -> None:
        super().__init__(why)
        self.in_s = seconds(in_s)


class Cancel(Exception):
    """The job ends as cancelled; the message is the reason that people are shown."""


def snooze(in_s: Delay, why: str = "") -> NoReturn:
    """End this attempt, and begin another one later; it does not count as a failure.

    Args:
        in_s: seconds until then, or a text such as ``10m``.
        why: what is shown with the attempt.

    Raises:
        Snooze: always; let it through.
        ValueError: ``in_s`` is no duration.
    """
    raise Snooze(in_s, why)


def seconds(delay: Delay) -> float:
    """Return a delay in seconds.

    Raises:
        ValueError: it is none.
    """
    if isinstance(delay, str):
        try:
            return parse_duration(delay)
        except UsageError as error:
            raise ValueError(str(error)) from None
    found = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    if not (math.isfinite(found) and 0 <= found <= LONGEST_S):
        raise ValueError(f"a delay of {found} s: give 0 or more")
    return found


for public in (Retry, Snooze, Cancel):  # the names that people use, and that pickles find
    public.__module__ = "jobd"
