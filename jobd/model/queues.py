"""Queues by name, and the rules that each may have: slots, a rate, whether it is paused.

    rate = count "/" per
    per  = unit | duration        10/s, 100/m, 5000/h, 3/10s

A rate is exact: at most so many jobs start in any window of that length.
"""

import re
from collections.abc import Collection
from functools import lru_cache

import msgspec

from jobd.model.durations import UNITS, parse_duration
from jobd.model.errors import NotFound, UsageError

DEFAULT = "default"
"""The queue of jobs that name none; it is always there."""

MOST_STARTS = 10_000
"""The largest count of a rate: as many starts are remembered."""

LONGEST_PER_S = 366 * UNITS["d"]

BY_HAND = "jobd queue set"
"""The origin of what was said while the daemon runs."""


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


class Override(msgspec.Struct, frozen=True):
    """What was said of a queue while the daemon runs; None: nothing, as the settings have it."""

    slots: int | None = None
    rate: str | None = None
    paused: bool | None = None

    def over(self, rule: Rule) -> Rule:
        """Return what holds where the settings have this rule."""
        return Rule(
            rule.slots if self.slots is None else self.slots,
            rule.rate if self.rate is None else self.rate,
            rule.paused if self.paused is None else self.paused,
        )

    def then(self, later: "Override") -> "Override":
        """Return what has been said once that was said too."""
        return Override(
            self.slots if later.slots is None else later.slots,
            self.rate if later.rate is None else later.rate,
            self.paused if later.paused is None else later.paused,
        )


class QueueInfo(msgspec.Struct, array_like=True):
    """A queue as ``jobd queue ls`` shows it."""

    name: str
    slots: int = 0
    """0: no limit."""
    rate: str = ""
    """Empty: no limit."""
    paused: bool = False
    running: int = 0
    waiting: int = 0
    """Jobs that will run some time: for a worker, for their time, for their inputs."""
    origins: dict[str, str] = {}
    """Where ``slots``, ``rate``, ``paused`` and the queue itself (``name``) come from."""


class Rate(msgspec.Struct, frozen=True):
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


def no_such_queue(name: str, known: Collection[str]) -> NotFound:
    """Return the error of a command that is about a queue which nobody has made."""
    return NotFound(f"there is no queue {name!r}", f"{_nearest(name, known)}see 'jobd queue ls'")


def unknown_queue(name: str, known: Collection[str]) -> UsageError:
    """Return the error of a submit to a queue that nobody has made."""
    return UsageError(f"there is no queue {name!r}", _nearest(name, known) + how_to_make(name))


def how_to_make(name: str) -> str:
    """Tell how a queue is made."""
    import shlex  # noqa: PLC0415  # only an error needs it

    return (
        f"make it with 'jobd queue set {shlex.quote(name)}', or as [queues.{name}] in the settings"
    )


def _nearest(name: str, known: Collection[str]) -> str:
    import difflib  # noqa: PLC0415  # takes 3 ms, and only an error needs it

    found = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {found[0]!r}? Else " if found else ""
