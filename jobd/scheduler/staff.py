"""How many workers there are: as many as there are slots, and one more for each slot that is lent.

Workers beyond that are kept for ``LINGER_US``, as a job that has waited often waits
again, and then retired, the idle ones.  After one that has died without having
worked the next is started a while later, each time twice as late.
"""

from __future__ import annotations

import msgspec

from jobd.model.orders import Order, Retire
from jobd.scheduler import lending
from jobd.scheduler.roster import Phase, Worker

LINGER_US = 1_000_000
"""How long there may be more workers than slots, and none of them used, before those that idle retire."""

FIRST_BACKOFF_US = 100_000
LAST_BACKOFF_US = 30_000_000


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that the rules depend on."""

    workers: int
    max_crashes: int = 1
    kill_grace_us: int = 5_000_000
    max_queued: int = 10_000_000
    max_lent: int = 64
    max_jobs_per_worker: int = 0
    """0: any number."""


class Staff:
    """Hires and sheds workers."""

    def __init__(self, boot: str, options: Options, workers: dict[str, Worker]) -> None:
        """``workers`` is the scheduler's own, which others change too."""
        self.failed_starts = 0
        """How many workers in a row have died without having worked."""
        self._boot = boot
        self._options = options
        self._workers = workers
        self._next = 1
        self._spawn_at = 0
        self._retire_at = 0

    def hire(self, now_us: int) -> list[str]:
        """Take on workers until there are as many as there should be; return them, by uid."""
        if self._spawn_at and now_us < self._spawn_at:
            return []
        self._spawn_at = 0
        hired = []
        # Those that have nothing left to do but to end are replaced at once.  Not any number of
        # them: they may have to wait for the disk.
        missed = min(self._leaving(), self._options.workers)
        while len(self._workers) - missed < self._wanted():
            uid = f"{self._boot}-{self._next}"
            self._next += 1
            self._workers[uid] = Worker(uid, Phase.STARTING)
            hired.append(uid)
        return hired

    def _wanted(self) -> int:
        return self._options.workers + lending.lent(self._workers.values())

    def _leaving(self) -> int:
        return sum(w.phase is Phase.RETIRING and not w.assigned for w in self._workers.values())

    def shed(self, now_us: int) -> list[tuple[str, Order]]:
        """Retire workers that idle beyond those wanted, once there were so many for a while."""
        workers = self._workers.values()
        if len(workers) <= self._options.workers:
            self._retire_at = 0
            return []
        surplus = len(workers) - self._leaving() - self._wanted()
        if surplus <= 0:
            self._retire_at = 0
            return []
        if not self._retire_at:
            self._retire_at = now_us + LINGER_US
        if now_us < self._retire_at:
            return []
        idle = [w for w in workers if w.phase is Phase.READY and not w.assigned][:surplus]
        for worker in idle:
            worker.phase = Phase.RETIRING
        return [(worker.uid, Retire()) for worker in idle]

    def times(self, now_us: int) -> list[int]:
        """Return when there may be something to do without an event."""
        times = [self._spawn_at] if self._spawn_at else []
        return [*times, self._retire_at] if self._retire_at > now_us else times

    def started(self) -> None:
        """A worker has come to life."""
        self.failed_starts = 0

    def died(self, worker: Worker, now_us: int) -> None:
        """A worker is dead: if it had not worked, the next one has to wait."""
        has_worked = worker.assigned or worker.done or worker.phase >= Phase.RETIRING
        is_failure = worker.phase is Phase.STARTING or not has_worked
        if is_failure and self._spawn_at <= now_us:  # those that die together count as one
            backoff = min(FIRST_BACKOFF_US << min(self.failed_starts, 20), LAST_BACKOFF_US)
            self.failed_starts += 1
            self._spawn_at = now_us + backoff

    def start_over(self) -> None:
        """Whatever kept workers from starting is over, it is hoped."""
        self.failed_starts = self._spawn_at = 0
