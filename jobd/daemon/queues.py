"""What clients ask about queues, and change of them.

The scheduler has the queues and their rules; here is what is said to people: where each
value comes from, how many jobs run and wait, and why something is refused.
"""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from jobd.config.settings import Settings
from jobd.daemon.outbox import Clients
from jobd.daemon.turns import Handlers
from jobd.daemon.view import View
from jobd.model.errors import QueueBusy, UsageError
from jobd.model.messages import Accepted, QueueInfos, RemoveQueue, SetQueue
from jobd.model.messages import Queues as Ask
from jobd.model.options import check_queue_name, parse_queue
from jobd.model.queues import (
    BY_HAND,
    DEFAULT,
    Override,
    QueueInfo,
    Rule,
    no_such_queue,
)
from jobd.scheduler import Scheduler
from jobd.scheduler.queues import Queues, queue_of
from jobd.store import Store

log = logging.getLogger("jobd")

BUILT_IN = "built in"
GONE = "nowhere any more"
"""The origin of a queue that was taken out of the settings while jobs of it wait."""


@dataclass(frozen=True)
class QueueDesk:
    """Answers what is asked about queues."""

    settings: Settings
    scheduler: Scheduler
    store: Store
    view: View
    clients: Clients

    @property
    def handlers(self) -> Handlers:
        """What it answers."""
        return {Ask: self._tell, SetQueue: self._change, RemoveQueue: self._remove}

    @property
    def _queues(self) -> Queues:
        return self.scheduler.queues

    # -- requests --

    def _tell(self, peer: bytes, request: Ask) -> None:
        """Tell how queues are.

        Raises:
            NotFound: one that is named is not there.
        """
        durable = Queues(self._queues.settings, self.store.queues())
        names = list(dict.fromkeys(request.names)) or self._names(durable)
        self.clients.reply(peer, QueueInfos(request.rid, self._infos(names, durable)))

    def _change(self, peer: bytes, request: SetQueue) -> None:
        """Change or make a queue; answered once that is durable.

        Raises:
            NotFound: there is none, and none is to be made.
            UsageError: the name or a value cannot be used.
        """
        name = check_queue_name(request.name)
        if request.known:
            _refuse_missing(name, self._queues)
        rules = parse_queue({"slots": request.slots, "rate": request.rate})
        scheduler, paused = self.scheduler, request.paused
        if request.reset and paused is None:
            paused = self._queues.overrides.get(name, Override()).paused
        said = Override(rules.slots, rules.rate, paused)
        scheduler.set_queue(name, said, anew=request.reset)
        (info,) = self._infos([name], self._queues)
        log.info("the queue %r: slots %s, rate %s%s", *_told(info))
        scheduler.answer(peer, QueueInfos(request.rid, [info]))

    def _remove(self, peer: bytes, request: RemoveQueue) -> None:
        """Forget a queue; answered once that is durable.

        Raises:
            NotFound: there is none.
            UsageError: it is always there, or the settings have it.
            QueueBusy: jobs of it have not ended.
        """
        name, scheduler = request.name, self.scheduler
        _refuse_missing(name, self._queues)
        if name == DEFAULT:
            raise UsageError(
                "the queue 'default' is always there",
                "'jobd queue set default --reset' takes its limits away",
            )
        for table, said in self.settings.rules.items():
            if table == f"queues.{name}" or said.get("queue") == name:
                raise UsageError(
                    f"[{table}] of the settings has the queue {name!r}",
                    "take it out there, and start the daemon again",
                )
        left = self._unended(name)
        if left:
            raise QueueBusy(
                f"the queue {name!r} has {left} job{'s' * (left > 1)} that did not end",
                "wait for them, or cancel them",
            )
        scheduler.forget_queue(name)
        log.info("the queue %r is removed", name)
        scheduler.answer(peer, Accepted(request.rid))

    # -- for the status --

    def trouble(self) -> list[str]:
        """Return a sentence about each queue that is not as somebody may expect."""
        found = [
            f"the queue {name!r} is paused, until 'jobd queue resume {shlex.quote(name)}'"
            for name, rule in self._queues.rules.items()
            if rule.paused
        ]
        return found + [
            f"the queue {name!r} is not in the settings any more: its jobs run without limits"
            for name in self._gone()
        ]

    # -- what holds --

    def _gone(self) -> list[str]:
        return [n for n in self.scheduler.ledger.queued if not self._queues.is_known(n)]

    def _names(self, queues: Queues) -> list[str]:
        others = {*queues.rules, *self._gone()}
        return [DEFAULT, *sorted(name for name in others if name != DEFAULT)]

    def _unended(self, name: str) -> int:
        """Return how many jobs of a queue have not ended; those on their way to the disk too."""
        ledger = self.scheduler.ledger
        underway = (submission.count_in(name) for submission in ledger.batch.submissions)
        return ledger.unended_in(name) + sum(underway)

    def _infos(self, names: Iterable[str], queues: Queues) -> list[QueueInfo]:
        workers = self.scheduler.workers
        hands = [(workers[uid], number) for number, (uid, _) in self.view.running().items()]
        jobs = [worker.assigned.get(n) or worker.stretch_of(n) for worker, n in hands]
        running = Counter(queue_of(job) for job in jobs if job is not None)
        gone = self._gone()
        found = []
        for name in names:
            if name not in gone:
                _refuse_missing(name, queues)
            rule = queues.rules.get(name, Rule())
            waiting = max(0, self._unended(name) - running[name])
            counts = running[name], waiting
            origins = self._origins(name, queues)
            found.append(QueueInfo(name, rule.slots, rule.rate, rule.paused, *counts, origins))
        return found

    def _origins(self, name: str, queues: Queues) -> dict[str, str]:
        table = f"queues.{name}"
        settled = self.settings.rules.get(table)
        said = queues.overrides.get(name, Override())
        origins = dict.fromkeys(("slots", "rate", "paused"), BUILT_IN)
        origins |= dict.fromkeys(origins.keys() & (settled or {}).keys(), f"[{table}]")
        for key in origins:
            if getattr(said, key) is not None:
                origins[key] = BY_HAND
        origins["name"] = (
            BUILT_IN
            if name == DEFAULT
            else f"[{table}]"
            if settled is not None
            else BY_HAND
            if queues.is_known(name)
            else GONE
        )
        return origins


def _refuse_missing(name: str, queues: Queues) -> None:
    if not queues.is_known(name):
        raise no_such_queue(name, queues.rules)


def _told(info: QueueInfo) -> tuple[str, int | str, str, str]:
    return info.name, info.slots or "any", info.rate or "any", ", paused" * info.paused
