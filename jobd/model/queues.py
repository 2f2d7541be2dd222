"""Queues by name, and the rules that each may have: slots, a rate, whether it is paused.

    rate = count "/" per
    per  = unit | duration        10/s, 100/m, 5000/h, 3/10s

A rate is exact: at most so many jobs start in any window of that length.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import msgspec

from jobd.model.durations import UNITS, parse_duration
from jobd.model.errors import UsageError

DEFAULT = "default"
"""The queue of jobs that name none; it is always there."""

MOST_STARTS = 10_000
"""The largest count of a rate: as many starts are remembered."""

MOST_SLOTS = 1_000_000

LONGEST_PER_S = 366 * UNITS["d"]

NO_LIMIT = ("", "0", "none")
"""How to say that there is no rate."""


class Rule(msgspec.Struct, frozen=True):
    """What holds for the jobs of one queue."""

    slots: int = 0
    """How many of them may run at the same time; 0: as many as there are workers."""
    rate: str = ""
    """As ``parse_rate`` reads it; empty: none."""
    paused: bool = False

    @property
    def limits(self) -> bool:
        """Whether anything keeps a job of the queue from being started."""
        return bool(self.slots or self.rate or self.paused)


class Rate(NamedTuple):
    """At most ``starts`` of them in any ``per_us`` microseconds."""

    starts: int
    per_us: int


@lru_cache(maxsize=1000)
def parse_rate(text: str) -> Rate:
    """Read ``10/s``, ``100/m``, ``5000/h`` or ``3/10s``.

    Raises:
        UsageError: it is no rate, or one of too many starts.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9a-z.]+)", text.strip(), re.ASCII)
    try:
        per_s = parse_duration(f"1{found[2]}" if found[2] in UNITS else found[2]) if found else 0.0
    except UsageError:
        found, per_s = None, 0.0
    if found is None or not int(found[1]) or not 0.001 <= per_s <= LONGEST_PER_S:
        raise UsageError(f"{text!r} is not a rate", "write 10/s, 100/m, 5000/h or 3/10s")
    if int(found[1]) > MOST_STARTS:
        raise UsageError(
            f"the rate {text!r} counts more than {MOST_STARTS} jobs",
            "name a shorter time, such as 500/s instead of 30000/m",
        )
    return Rate(int(found[1]), round(per_s * 1e6))
