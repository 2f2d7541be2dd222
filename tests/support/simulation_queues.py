"""Queues in a simulation: who makes, limits, pauses and removes them, and how that is judged.

`QueueTruth` watches one daemon from turn to turn: which jobs it hands out that it did not
have before, and whether their queues let them start.  `ChangeTruth` outlives the daemons: what
was answered must hold after a crash.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from fake_store import FakeStore
from simulation_inputs import Broken

from jobd.model.messages import Accepted, Message, QueueInfos, Refused, RemoveQueue, SetQueue
from jobd.model.messages import Queues as Ask
from jobd.model.orders import Order, Run
from jobd.model.queues import DEFAULT, Rate, Rule, parse_rate
from jobd.scheduler import Scheduler
from jobd.scheduler.queues import Queues, queue_of

SETTLED = ("other", "third")
"""Queues that the settings have; ``made`` may be made and removed."""

NAMES = (DEFAULT, *SETTLED, "made")

RATES = ("", "", "2/5ms", "1/20ms", "3/100ms")

Change = SetQueue | RemoveQueue | Ask


def choose_rules(dice: Any) -> dict[str, dict[str, Any]]:
    """Return the tables of queues that the settings of a history have; often none."""
    if dice() < 0.4:
        return {}
    return {f"queues.{name}": choose_limits(dice) for name in SETTLED}


def choose_limits(dice: Any) -> dict[str, Any]:
    """Return slots and a rate, or one of them, or none."""
    return {"slots": max(0, int(dice() * 5) - 2), "rate": RATES[int(dice() * len(RATES))]}


def choose_change(rng: Random, rid: int) -> Change:
    """Return something that a client asks about queues."""
    dice = rng.random
    name = NAMES[int(dice() * len(NAMES))]
    kind = dice()
    if kind < 0.15:
        return Ask(rid, [])
    if kind < 0.3:
        return RemoveQueue(rid, name)
    if kind < 0.6:
        return SetQueue(rid, name, paused=dice() < 0.5, known=True)
    limits = choose_limits(dice)
    return SetQueue(rid, name, limits["slots"], limits["rate"], reset=dice() < 0.2)


class QueueTruth:
    """Judges what one daemon starts."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._had = _hands(scheduler)
        self._rated: set[tuple[int, int]] = set()
        """Attempts that were handed out under the rate that their queue has now."""
        self._left: list[tuple[str, tuple[int, int], int]] = []
        """Orders of this turn: the queue, the attempt, the time."""
        self._starts: dict[str, list[int]] = {}
        self._rates: dict[str, str] = {}

    def ordered(self, order: Order, now_us: int) -> None:
        """Take note of an order that leaves."""
        if isinstance(order, Run):
            self._left += [(task.queue, (task.id, task.attempt), now_us) for task in order.tasks]

    def look(self, scheduler: Scheduler) -> None:
        """After a turn: what was handed out in it was allowed to start, and all that runs is counted."""
        queues = scheduler.queues
        hands = _hands(scheduler)
        if not (hands or self._had or self._left or queues.counts or self._starts):
            return
        had = {id(job) for job in self._had.values()}  # of a stretch the number changes
        new = {
            key: queue_of(job)
            for key, job in hands.items()
            if not (key in self._had or id(job) in had)
        }
        fresh = Counter(new.values())
        lending = [worker.waiting for worker in scheduler.workers.values()]
        taking = Counter(
            queue_of(job) for job in hands.values() if job not in lending and not job.is_heir
        )
        self._had = hands
        for name in [*queues.rules, *fresh]:
            rule = queues.rules.get(name, Rule())
            if queues.counts and queues.running(name) != taking[name]:
                raise Broken(f"{taking[name]} of {name!r} run, {queues.running(name)} are counted")
            if rule.rate != self._rates.get(name, ""):
                self._rates[name] = rule.rate
                self._starts[name] = []
                self._rated -= {key for key, job in hands.items() if queue_of(job) == name}
            if fresh[name]:
                self._judge(name, rule, fresh[name], taking[name])
                fresh[name] = 0
        self._rated = (self._rated | new.keys()) & hands.keys()
        for name, key, at_us in self._left:
            if self._rates.get(name) and key in self._rated:
                self._judge_rate(name, parse_rate(self._rates[name]), at_us)
        self._left.clear()

    def _judge(self, name: str, rule: Rule, started: int, taking: int) -> None:
        if rule.paused:
            raise Broken(f"{started} jobs of {name!r} start, which is paused")
        if 0 < rule.slots < taking:
            raise Broken(f"{started} jobs of {name!r} start: {taking} for {rule.slots} slots")

    def _judge_rate(self, name: str, rate: Rate, at_us: int) -> None:
        """No window of that length has more starts, be it that of a moment ago."""
        starts = self._starts[name]
        starts.append(at_us)
        if len(starts) > rate.starts and at_us - starts[-1 - rate.starts] < rate.per_us:
            raise Broken(f"{rate} of {name!r} may start: {starts[-9:]}")


def _hands(scheduler: Scheduler) -> dict[tuple[int, int], Any]:
    """Return the jobs that workers have in hand, by id and attempt."""
    workers = scheduler.workers.values()
    return {(j.id, j.attempt): j for worker in workers for j in worker.assigned.values()}


class ChangeTruth:
    """Judges what is answered to those who change queues: it holds, whatever happens then."""

    def __init__(self, store: FakeStore, settings: dict[str, Rule]) -> None:
        self._store, self._settings = store, settings
        self._asked: dict[tuple[bytes, int], Change] = {}
        """Changes without an answer, by client and request."""
        self._told: dict[str, tuple[int, list[Rule | None]]] = {}
        """What was answered last, by queue: after which commit, and all that was answered after it."""

    def asked(self, peer: bytes, change: Change) -> None:
        """Take note of a request."""
        if not isinstance(change, Ask):
            self._asked[peer, change.rid] = change

    def told(self, peer: bytes, message: Message, commits: int) -> None:
        """Take note of an answer, given after so many commits; nobody knows which of several came last."""
        if isinstance(message, QueueInfos | Accepted | Refused):
            change = self._asked.pop((peer, message.rid), None)
            if change is None or isinstance(change, Ask) or isinstance(message, Refused):
                return
            rule = None
            if isinstance(message, QueueInfos):
                (info,) = message.queues
                rule = Rule(info.slots, info.rate, info.paused)
            after, rules = self._told.get(change.name, (0, []))
            self._told[change.name] = commits, [*(rules if after == commits else []), rule]

    def daemon_died(self) -> None:
        """What was answered is in the store, unless somebody has asked for more since."""
        durable = Queues(self._settings, self._store.queues()).rules
        uncertain = {change.name for change in self._asked.values() if not isinstance(change, Ask)}
        for name in self._told.keys() - uncertain:
            _, rules = self._told[name]
            if durable.get(name) not in rules:
                raise Broken(f"{name!r} was said to be {rules}, is {durable.get(name)}")
        self._asked.clear()
        self._told.clear()
