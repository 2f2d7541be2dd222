"""What waits in the store only: brought into memory, a slice in each turn, when there is room or it is time."""

from __future__ import annotations

from dataclasses import dataclass

from jobd.model.states import State
from jobd.scheduler import Scheduler, stock, timers
from jobd.store import Store

REFILL = 4_000


@dataclass(frozen=True)
class Backlog:
    """Feeds the scheduler from the store."""

    scheduler: Scheduler
    store: Store

    @property
    def has_more(self) -> bool:
        """Whether the next turn of the loop must not wait: timers, lanes or items should be loaded."""
        scheduler = self.scheduler
        return (
            scheduler.timers.wants_refill()
            or scheduler.lanes.stock.wants_more
            or scheduler.arrays.wants_more
        )

    def refill(self) -> None:
        """Load what waits in the store of the plain jobs and of lanes, and look for lanes; a slice of each."""
        scheduler, store = self.scheduler, self.store
        known, high = scheduler.lanes, scheduler.ledger.stored_high
        for first, behind in scheduler.arrays.thirsty():
            scheduler.arrays.load(store.arrays.stretches(first, behind))
        if scheduler.wants_refill():
            scheduler.refill(store.backlog(scheduler.window.cursor, high, REFILL))
        if not known.is_used:
            return
        between = known.stock.next_scan()
        if between is not None:
            found = store.lanes(*between, stock.SCAN)
            known.stock.scanned(found, is_all=len(found) < stock.SCAN)
        for line, wanted in scheduler.thirsty_lanes():
            backlog = store.backlog(line.cursor, high, wanted, line.text)
            scheduler.refill_lane(line, wanted, backlog)

    def look_at_the_clock(self) -> None:
        """Load timers from the store, and do what is due."""
        scheduler, store = self.scheduler, self.store
        soonest = scheduler.timers
        if soonest.wants_refill():
            entries = store.due(soonest.horizon, timers.REFILL)
            soonest.refill(entries, scheduler.ledger.unsettled())
        due, jobs = scheduler.due(), scheduler.window.jobs
        stored = store.own_rows([number for number in due if number not in jobs]) if due else {}
        for number in due:
            job = jobs.get(number) or stored.get(number)
            if job is not None:
                scheduler.control.fire(job)

    def load(self, numbers: list[int]) -> None:
        """Bring queued jobs into memory that are in the store only: they are wanted first."""
        window = self.scheduler.window
        if not (window.spilled or self.scheduler.lanes.is_used):
            return
        for number in numbers:
            job = None if number in window.jobs else self.store.job(number)
            if job is not None and job.state is State.QUEUED:
                window.load(job)
