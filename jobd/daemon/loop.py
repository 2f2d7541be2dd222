"""The loop: drain everything that has arrived, decide once, act once.

One thread owns all state, so there is no lock.  It waits in one poll and nowhere
else.  In each turn: the commit that is over, requests, reports; then the scheduler's
effects go out, and if the disk is free, what has been gathered is written and handed
to the committer.  Deaths, signals, one step of each long request and whatever else is
to be looked after come behind that, so that no job waits for it; what follows from
them goes out in the same way.  Load makes batches larger by itself; no timer gathers
anything.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from jobd.daemon.arrays import ArrayDesk
from jobd.daemon.backlog import Backlog
from jobd.daemon.checks import Checks
from jobd.daemon.committer import Committer
from jobd.daemon.dependencies import Dependencies
from jobd.daemon.door import Door
from jobd.daemon.lifecycle import Lifecycle
from jobd.daemon.logs import LogDesk
from jobd.daemon.notify import Notify
from jobd.daemon.outgoing import Outgoing
from jobd.daemon.remote import Remote
from jobd.daemon.requests import Requests
from jobd.daemon.signals import Signals
from jobd.daemon.streams import StreamDesk
from jobd.daemon.turns import Steps
from jobd.daemon.workers import WorkerDesk
from jobd.daemon.writer import Writer
from jobd.pool.supervisor import Pool
from jobd.scheduler import Scheduler

log = logging.getLogger("jobd")

HOUSEKEEPING_S = 1.0

SPINS = 100 if len(os.sched_getaffinity(0)) > 1 else 0
"""How often to look, without sleep, for what is most likely about to come.

A processor that sleeps wakes up late: 30 to 60 µs.  A look takes 2 µs or so; no more is
spent for a lone job, and nothing while there is more to do.  With one processor, what is
waited for could not run meanwhile.
"""

COMES_BACK_S = 0.0002
"""A client that asks again so soon is expected to do so the next time too."""

FOLLOW_S = 0.05
"""How often somebody looks for more output, while a client waits for it."""

Chore = Callable[[float], Steps | None]
"""What is looked after every second, told the time in seconds; it may return steps that take long."""


@dataclass
class Loop:
    """Time, polling, and the order of a turn; what is done in it is the affair of others."""

    scheduler: Scheduler
    pool: Pool
    doors: list[Door | Remote]
    requests: Requests
    workers: WorkerDesk
    outgoing: Outgoing
    writer: Writer
    committer: Committer
    streams: StreamDesk
    arrays: ArrayDesk
    logs: LogDesk
    backlog: Backlog
    dependencies: Dependencies
    checks: Checks
    lifecycle: Lifecycle
    notify: Notify
    signals: Signals
    owner_fd: int | None
    chores: list[Chore]
    tasks: deque[Steps]
    """Long requests, and what takes as long."""

    def __post_init__(self) -> None:
        """Poll everything that something can come from."""
        self.now_s = time.monotonic()
        self._housekeeping_at = 0.0
        self._ping_at = 0.0
        self._comes_back = False
        """Whether the last client that was told that something is durable had its next request at once."""
        self._pool_fds: set[int] = set()
        self._poller = select.poll()
        sources = [*(door.fd for door in self.doors), self.workers.router.fd]
        sources += [self.committer.fd, self.signals.fd]
        if self.owner_fd is not None:
            sources.append(self.owner_fd)
        for source in sources:
            self._poller.register(source, select.POLLIN)

    def turn(self) -> bool:
        """Do one turn; return whether all is over."""
        ready = self._poll()
        self.now_s = time.monotonic()
        scheduler = self.scheduler
        scheduler.begin(round(self.now_s * 1e6), wall_us())
        self.requests.turns.go_on()
        if self.committer.busy and self.committer.fd in ready:
            self.writer.finish()
        for door in self.doors:
            if door.fd in ready:
                self._hear(door)
        if self.workers.router.fd in ready:
            self.workers.take_reports()
        self._go_on()
        self._see_deaths(ready)
        if self.signals.fd in ready:
            self.lifecycle.obey(self.signals.take())
        self._step_tasks()
        self._keep_house()
        self.backlog.refill()
        if self.dependencies.has_more:
            self.dependencies.step()
        self.backlog.look_at_the_clock()
        self._go_on()
        return self._is_over()

    def _hear(self, door: Door | Remote) -> None:
        self._comes_back = self.now_s - self.writer.told_at < COMES_BACK_S
        self.requests.hear(door.frames(self.now_s), self.now_s)
        for peer in door.take_gone():
            self.requests.gone(peer)

    def _go_on(self) -> None:
        """Do what follows from what has come in by now."""
        self.outgoing.act()
        while self.scheduler.dispatch.has_more:
            self.outgoing.act()
        self.writer.look()
        self.streams.serve()
        if self.scheduler.arrays.news:
            self.arrays.serve()
        self.requests.flush()
        self.outgoing.flush()

    def _see_deaths(self, ready: dict[int, int]) -> None:
        if self.owner_fd is not None and self.owner_fd in ready:
            log.info("the owner of this daemon has ended")
            self._poller.unregister(self.owner_fd)  # it stays readable
            self.lifecycle.stop(0.0)  # nobody is left who would want what runs
        has_word = not self._pool_fds.isdisjoint(ready)
        self.workers.see_deaths(self.now_s, has_word=has_word)

    def _step_tasks(self) -> None:
        for _ in range(len(self.tasks)):
            steps = self.tasks.popleft()
            if next(steps, True) is None:
                self.tasks.append(steps)

    def _keep_house(self) -> None:
        """Do what the clock asks for."""
        now_s = self.now_s
        if self.logs.followers:
            self.logs.follow()
        for door in self.doors:
            door.relieve()
        if self.lifecycle.stop_at:
            self.lifecycle.look(now_s)
        if self.notify.watchdog_s and now_s >= self._ping_at:
            self._ping_at = now_s + self.notify.watchdog_s
            if not self.writer.hangs(now_s):
                self.notify.ping()
        if now_s >= self._housekeeping_at:
            self._housekeeping_at = now_s + HOUSEKEEPING_S
            self._do_chores()

    def _do_chores(self) -> None:
        for chore in self.chores:
            steps = chore(self.now_s)
            if steps is not None:
                self.tasks.append(steps)

    def _is_over(self) -> bool:
        if not self.lifecycle.stopping or self.committer.busy or self.tasks:
            return False
        return self.lifecycle.is_over(self.writer.trouble)

    # -- waiting --

    def _poll(self) -> dict[int, int]:
        wanted = set(self.pool.fds())
        if wanted != self._pool_fds:
            for fd in self._pool_fds - wanted:
                self._poller.unregister(fd)
            for fd in wanted - self._pool_fds:
                self._poller.register(fd, select.POLLIN)
            self._pool_fds = wanted
        # Last of all: whatever is done with a socket of libzmq may take its edge away.
        waiting = [door.fd for door in self.doors if door.is_ready]
        if self.workers.router.is_ready:
            waiting.append(self.workers.router.fd)
        if waiting:
            return dict(self._poller.poll(0)) | dict.fromkeys(waiting, select.POLLIN)
        ready = self._spin() if self._is_short_wait() else None
        return dict(ready or self._poller.poll(self._timeout_ms()))

    def _is_short_wait(self) -> bool:
        """Whether something is about to come in: what a lone job has come to, or the next question."""
        if self.committer.busy:
            return False
        return self._comes_back or self.scheduler.commits.is_awaited()

    def _spin(self) -> list[tuple[int, int]]:
        """Look for a moment without sleeping."""
        poll = self._poller.poll
        for _ in range(SPINS):
            if ready := poll(0):
                return ready
        self._comes_back = False
        return []

    def _timeout_ms(self) -> int:
        scheduler = self.scheduler
        has_more = self.tasks or self.streams.has_more or self.dependencies.has_more
        if has_more or self.requests.turns.has_more or scheduler.has_due():
            return 0
        times = [self._housekeeping_at]
        wake_us = scheduler.wake_at()
        if wake_us is not None and not (self.committer.busy and wake_us / 1e6 <= self.now_s):
            times.append(wake_us / 1e6)
        others = (
            self.pool.wake_at_s(),
            self.checks.deadline_s(),
            *(door.wake_at_s(self.now_s) for door in self.doors),
        )
        times += [at for at in others if at is not None]
        if self.logs.followers:
            times.append(self.now_s + FOLLOW_S)
        if self.lifecycle.stop_at:
            times.append(self.lifecycle.stop_at)
        if self._ping_at:
            times.append(self._ping_at)
        if scheduler.wants_refill() and not self.committer.busy:
            return 0
        if self.backlog.has_more:
            return 0
        wait_s = min(times) - time.monotonic()
        return max(0, -int(-wait_s * 1000 // 1))


def wall_us() -> int:
    """Return the time of the wall clock, µs since 1970; one that is before that is wrong, and counts as 1."""
    return max(1, time.time_ns() // 1000)
