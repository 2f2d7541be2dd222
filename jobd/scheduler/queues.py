"""Queues: which are known, and whether a job of each may start now.

A queue may be paused, have all its slots taken, or have used up its rate.  The first two end
with an event (a resume, a job's end), the third at a moment that ``opens_at`` tells.  The rate
is exact, a window that slides: the last starts are remembered, as many as may be in one, and
the next may come when the oldest of them has left it.  A start is the moment in which the order
to run leaves, which may have to wait for the disk; until then it is *leaving*, and takes a place in
every window.  Windows are a hundredth longer than they are said to be, as a worker may take a moment to
begin: if the first of two jobs began late and the second at once, they would else be too close.
Starts are forgotten with the daemon.

A job of a queue that is not known any more (it was taken out of the settings while jobs of
it waited) meets no limit.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping

from jobd.model.job import Job
from jobd.model.queues import DEFAULT, Override, Rule, parse_rate

__all__ = ["Override", "Queues", "Rule", "queue_of"]

FREE = Rule()

SLACK_US = 10_000
"""How much later than its order a job may begin; less for short windows, a hundredth of them."""


class Queues:
    """The known queues, how many jobs of each run, and when the last ones started."""

    def __init__(
        self,
        settings: Mapping[str, Rule] | None = None,
        overrides: Mapping[str, Override] | None = None,
    ) -> None:
        self.settings: dict[str, Rule] = {DEFAULT: FREE, **(settings or {})}
        """What the settings have; ``default`` is always there."""
        self.overrides: dict[str, Override] = {}
        """What was said since, and outranks that."""
        self.rules: dict[str, Rule] = {}
        """What holds, by name; to be changed by ``override`` and ``restore`` only."""
        self._running: Counter[str] = Counter()
        self._starts: dict[str, deque[int]] = {}
        """When the last jobs of a queue with a rate were started, µs; as many as may be in a window."""
        self._leaving: Counter[str] = Counter()
        """Jobs that were handed to a worker, and whose order has not left; also if there is no rate, as yet."""
        self.counts = False
        """Whether jobs are counted: not as long as there is nothing but an unlimited ``default``."""
        for name, rule in self.settings.items():
            self._set(name, rule)
        for name, said in (overrides or {}).items():
            self.override(name, said)

    def is_known(self, name: str) -> bool:
        """Whether there is such a queue."""
        return name in self.rules

    def override(self, name: str, said: Override, *, anew: bool = False) -> Override:
        """Add to what was said of a queue, and make it if there is none; jobs that run go on.

        ``anew`` forgets what was said before, but not what has started.  Returns all that has been said of it.
        """
        before = Override() if anew else self.overrides.get(name, Override())
        said = self.overrides[name] = before.then(said)
        self._set(name, said.over(self.settings.get(name, FREE)))
        return said

    def restore(self, name: str) -> None:
        """Forget what was said of a queue, and the queue if the settings do not have it."""
        self.overrides.pop(name, None)
        if name in self.settings:
            self._set(name, self.settings[name])
        else:
            self.rules.pop(name, None)
            self._starts.pop(name, None)

    def _set(self, name: str, rule: Rule) -> None:
        self.rules[name] = rule
        starts = self._starts.pop(name, ())
        if rule.rate:
            self._starts[name] = deque(starts, maxlen=parse_rate(rule.rate).starts)
        self.counts = self.counts or rule.limits or len(self.rules) > 1

    def is_limited(self, name: str) -> bool:
        """Whether something may keep a job of this queue from being started."""
        return self.rules.get(name, FREE).limits

    def running(self, name: str) -> int:
        """Return how many jobs of this queue take a slot."""
        return self._running[name]

    def opens_at(self, name: str, now_us: int) -> int | None:
        """Return when a job of this queue may start, as far as the queue is concerned.

        0: now.  A time, later than ``now_us``: the rate allows one then.  None: not before
        something happens; the queue is paused, or its slots are taken.
        """
        rule = self.rules.get(name, FREE)
        if rule.paused or 0 < rule.slots <= self._running[name]:
            return None
        if not rule.rate:
            return 0
        rate = parse_rate(rule.rate)
        count, per_us = rate.starts, rate.per_us + min(SLACK_US, rate.per_us // 100)
        starts, places = self._starts[name], count - self._leaving[name]
        if places <= 0:
            return (
                now_us + per_us
            )  # at the earliest: those that leave now are in the way until then
        opens_at = starts[-places] + per_us if len(starts) >= places else 0
        return opens_at if opens_at > now_us else 0

    def started(self, name: str) -> None:
        """A job of this queue was handed to a worker; ``left`` or ``withdrawn`` follows."""
        self._running[name] += 1
        self._leaving[name] += 1

    def follows(self, name: str) -> None:
        """A job of this queue was handed to a worker, and takes over the slot of the one before it there."""
        self._leaving[name] += 1

    def left(self, name: str, now_us: int) -> None:
        """The order to run a job of this queue goes out."""
        self.withdrawn(name)
        if name in self._starts:
            self._starts[name].append(now_us)

    def withdrawn(self, name: str) -> None:
        """An order that has not gone out never will."""
        self._leaving[name] -= 1
        assert self._leaving[name] >= 0
        if not self._leaving[name]:
            del self._leaving[name]

    def goes_on(self, name: str) -> None:
        """A job takes a slot that is no start: it had lent its own, or runs since an earlier daemon."""
        self._running[name] += 1

    def ended(self, name: str) -> None:
        """A job is out of its worker's hands, however that came, or lends its slot."""
        self._running[name] -= 1
        assert self._running[name] >= 0
        if not self._running[name]:
            del self._running[name]

    def recount(self, running: Iterable[str], leaving: Iterable[str]) -> None:
        """Begin to count: the queues of all jobs that take a slot, and of those whose order has not left."""
        self._running, self._leaving = Counter(running), Counter(leaving)


def queue_of(job: Job) -> str:
    """Return the name of a job's queue."""
    return DEFAULT if job.policy is None else job.policy.queue
