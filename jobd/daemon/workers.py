"""The workers as the daemon hears them: their reports, their deaths, and those that do not move on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jobd.daemon.backlog import Backlog
from jobd.daemon.checks import Checks
from jobd.daemon.outgoing import Outgoing
from jobd.daemon.progress import ProgressBoard
from jobd.daemon.writer import Writer
from jobd.failpoints import hit
from jobd.model.errors import ConfigError, InitializerFailed
from jobd.model.messages import FrameError
from jobd.model.orders import (
    Adopt,
    Alive,
    Checked,
    GivenBack,
    Handover,
    Leaving,
    Outcomes,
    Produced,
    Progressing,
    Ready,
    Retire,
    Waiting,
    decode_reports,
)
from jobd.pool import linux
from jobd.pool.deaths import Dead, tail_of
from jobd.pool.scoreboard import Now, log_name
from jobd.pool.supervisor import Pool
from jobd.scheduler import Death, Phase, Scheduler
from jobd.wire.pool_router import PoolRouter

log = logging.getLogger("jobd")

DRAIN = 1_000
"""Frames taken from workers in one turn."""

MAY_STAND_STILL = 3
"""Times that a worker may be found with jobs in hand and at none of them, without any progress."""


@dataclass
class WorkerDesk:
    """Tells the scheduler what workers report, and how they end.

    ``has_initializer``: the owner of this daemon has said what each worker does first; a worker
    that dies of it is the end.  ``max_rss``: bytes, 0: any.
    """

    scheduler: Scheduler
    pool: Pool
    router: PoolRouter
    outgoing: Outgoing
    writer: Writer
    backlog: Backlog
    checks: Checks
    progress: ProgressBoard
    has_initializer: bool
    max_rss: int
    received: dict[str, int] = field(default_factory=dict)
    """By worker the highest number of what it has sent."""
    due: dict[str, int] = field(default_factory=dict)
    """By worker the number of what it sends next, as far as this daemon knows it from the first on."""
    ahead: dict[str, dict[int, Outcomes | Produced]] = field(default_factory=dict)
    """What came before its turn."""
    early: dict[str, list[Waiting]] = field(default_factory=dict)
    """By worker, waits of items whose outcomes before them have not arrived."""
    still: dict[str, tuple[int, Now]] = field(default_factory=dict)
    """Workers that were found to stand still: how often in a row, and what they had run last."""

    def __post_init__(self) -> None:
        """Look the handlers up once."""
        self._handlers = self.handlers

    @property
    def handlers(self) -> dict[type, Callable[[str, Any], None]]:
        """By the type of a report, what is done with it."""
        return {
            Outcomes: lambda uid, report: self._in_turn(uid, report.seq, report),
            Produced: lambda uid, report: self._in_turn(uid, report.number, report),
            Alive: self._greet,
            GivenBack: self._take_back,
            Leaving: self._let_leave,
            Waiting: self._wait,
            Progressing: self.progress.heard,
            Ready: self._take_on,
            Handover: self._take_over,
            Checked: self.checks.checked,
        }

    # -- reports --

    def take_reports(self) -> None:
        """Take in what workers have sent."""
        handlers = self._handlers
        for peer, frame in self.router.drain(DRAIN):
            uid = peer[:-2].decode("ascii", "replace")
            try:
                reports = decode_reports(frame)
            except FrameError as error:
                log.warning("worker %s sent what is no report (%s); it is replaced", uid, error)
                self.pool.kill(uid, 0, 0)
                continue
            for report in reports:
                handlers[type(report)](uid, report)

    def _in_turn(self, uid: str, number: int, report: Outcomes | Produced) -> None:
        """Take in what a worker has numbered, in that order: its two sockets have none together."""
        due = self.due.get(uid, number)
        if number > due:
            self.ahead.setdefault(uid, {})[number] = report
            return
        self._take(uid, report)
        while number == due and uid in self.due:
            due = self.due[uid] = due + 1
            following = self.ahead.get(uid, {}).pop(due, None)
            if following is not None:
                self._take(uid, following)
                number = due

    def _take(self, uid: str, report: Outcomes | Produced) -> None:
        if isinstance(report, Outcomes):
            self._take_outcomes(uid, report)
        else:
            self._take_items(uid, report)

    def _take_outcomes(self, uid: str, report: Outcomes) -> None:
        hit("outcomes.received")
        self.received[uid] = max(report.seq, self.received.get(uid, 0))
        self.scheduler.workforce.outcomes(uid, report.seq, report.outcomes)
        if self.early:
            self._wait_now(uid)

    def _take_items(self, uid: str, report: Produced) -> None:
        hit("produced.received")
        self.received[uid] = max(report.number, self.received.get(uid, 0))
        self.scheduler.workforce.produced(uid, report)

    def _take_on(self, uid: str, report: Ready) -> None:
        """A worker, or the checker, is ready; one that we cannot look at gets no job."""
        self.checks.ready(uid)
        self.due.setdefault(uid, 1)
        if uid not in self.scheduler.workers or self.pool.takes_on(uid):
            self.scheduler.workforce.worker_ready(uid, report.pid)

    def _take_back(self, uid: str, report: GivenBack) -> None:
        self.scheduler.workforce.given_back(uid, report.attempts, report.read, report.upto)

    def _let_leave(self, uid: str, report: Leaving) -> None:
        self.scheduler.workforce.leaves(uid, report.attempts)

    def _wait(self, uid: str, report: Waiting) -> None:
        """A job waits for others, or no longer."""
        worker = self.scheduler.workers.get(uid)
        if worker is not None and worker.stretch_of(report.id) is not None:
            self.early.setdefault(uid, []).append(report)  # what came before it is on its way
            return
        if report.waits:
            self.backlog.load(report.awaited)
            self.scheduler.loans.waits(uid, report.id, report.attempt, report.awaited)
        else:
            self.scheduler.loans.goes_on(uid, report.id, report.attempt)

    def _wait_now(self, uid: str) -> None:
        """Take in what an item has said before it was known to be a job of its own."""
        for report in self.early.pop(uid, ()):
            self._wait(uid, report)

    def _take_over(self, uid: str, report: Handover) -> None:
        """A worker of a dead daemon has handed over what it had."""
        log.info("took over worker %d, which is at job %d", report.pid, report.running[0])
        self.scheduler.workforce.handed_over(uid, report.pid, report.running, report.for_us)
        if uid not in self.scheduler.workers:
            self.outgoing.order(uid, Retire())

    def _greet(self, uid: str, _: Alive) -> None:
        """A worker has connected; one that we did not start has to hand over what it has."""
        worker = self.scheduler.workers.get(uid)
        if worker is None or worker.phase is Phase.ORPHAN:
            if (
                uid not in self.pool.processes
            ):  # it had no scoreboard yet when we looked, at the start
                try:
                    self.pool.adopt(uid)
                except ConfigError as error:
                    log.warning("%s", error)
                    return
            self.outgoing.order(uid, Adopt(self.scheduler.boot))

    # -- deaths --

    def see_deaths(self, now_s: float, *, has_word: bool) -> None:
        """Bury the dead; ``has_word``: the pool has something to be looked at."""
        if has_word:
            self.pool.look()
        self.pool.insist()
        for dead in self.pool.judge(self.received):
            hit("worker.dead")
            self._bury(dead)
        for uid, how in self.pool.take_lost_checkers():
            self.checks.died(uid, how)
        self.checks.expire(now_s)

    def _bury(self, dead: Dead) -> None:
        worker = self.scheduler.workers.get(dead.uid)
        if self.has_initializer and worker is not None and worker.phase is Phase.STARTING:
            raise self._initializer_failed(dead)
        if worker is not None:
            level = logging.WARNING if worker.assigned else logging.INFO
            count = len(worker.assigned)
            log.log(level, "worker %s ended: %s, with %d jobs", dead.uid, dead.cause, count)
        self.scheduler.workforce.left(
            dead.uid, [*dead.left, *self.ahead.get(dead.uid, {}).values()]
        )
        self.scheduler.workforce.worker_died(dead.uid, as_death(dead))
        self.received.pop(dead.uid, None)
        for known in (self.early, self.due, self.ahead):
            known.pop(dead.uid, None)
        self.progress.forget_worker(dead.uid)
        self.writer.bury(dead.uid)

    def _initializer_failed(self, dead: Dead) -> InitializerFailed:
        """Say why a worker died before it was ready; the traceback is the last that it wrote."""
        tail, _ = tail_of(os.path.join(self.pool.settings.logs_dir, log_name(dead.uid, 1)), 0)
        said = tail.rpartition("\n")[2] or f"its worker ended: {dead.cause}"
        return InitializerFailed(f"the initializer failed: {said}")

    # -- those that do not move on --

    def trouble(self) -> str:
        """Return a sentence if no worker comes to work, or ""."""
        failed = self.scheduler.workforce.failed_starts
        if failed > 1 and not self.pool.trouble:
            return f"{failed} workers in a row have died without having worked"
        return ""

    def replace_the_large(self) -> None:
        """Replace workers that have grown beyond what they may, each when its job is done."""
        limit = self.max_rss
        for worker in [*self.scheduler.workers.values()] if limit else ():
            size = linux.rss_bytes(worker.pid) if worker.phase is Phase.READY else 0
            if size > limit:
                log.info("worker %d has %d bytes: it is replaced", worker.pid, size)
                self.scheduler.workforce.retire(worker.uid)

    def end_the_stuck(self) -> None:
        """Kill workers that do not start what they were given: stopped by a signal, most likely."""
        ledger = self.scheduler.ledger
        batches = [ledger.batch, ledger.in_flight or ledger.batch]
        waiting = {uid for batch in batches for uid, _ in batch.orders}  # told after a commit
        before, self.still = self.still, {}
        for worker in self.scheduler.workers.values():
            uid, last = worker.uid, self.pool.last(worker.uid)
            if worker.phase is Phase.ORPHAN or not worker.assigned or uid in waiting:
                continue
            if self.pool.now(uid).job or not self.pool.sees(uid):
                continue
            looks, seen = before.get(uid, (0, last))
            self.still[uid] = (looks + 1 if seen == last else 1, last)
            if self.still[uid][0] > MAY_STAND_STILL:
                log.warning(
                    "worker %d does not start what it was given: it is replaced", worker.pid
                )
                self.scheduler.workforce.kill(uid)


def as_death(dead: Dead) -> Death:
    """Tell the scheduler what the pool has found out."""
    now = dead.now
    span = None
    if now.job and dead.log_end > now.log_start:
        name = log_name(dead.uid, now.log_number)
        span = (name, now.log_start, dead.log_end, dead.log_dropped)
    running = (now.job, now.attempt)
    death = Death(dead.cause, running, dead.unknown, now.started_at, dead.tail, span, dead.usage)
    death.by_rlimit = dead.by_rlimit
    return death
