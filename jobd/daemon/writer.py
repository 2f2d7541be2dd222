"""What is to be stored: when a commit begins, what it has to take along, and what follows from its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobd.daemon.committer import Committer
from jobd.daemon.outbox import Clients
from jobd.daemon.outgoing import Outgoing
from jobd.daemon.payloads import Payloads
from jobd.failpoints import hit
from jobd.model.errors import DiskFull, JobdError, StoreBusy, StoreFailed
from jobd.pool.supervisor import Pool
from jobd.scheduler import Scheduler
from jobd.store import Store

log = logging.getLogger("jobd")

LONE_JOBS = 4
QUICK_S = 0.0005
"""So few jobs are committed by the loop itself, while nothing else waits and the last commit was quick.

A disk that stalls makes the loop wait once: from then on the thread does it, until it is quick again.
"""

SAVE_WAITS_S = 30.0
"""How long a commit may still take when the store's files were deleted."""

COMMIT_HANGS_S = 60.0
"""A commit that takes longer than this stops the watchdog's ping."""


@dataclass
class Writer:
    """The way to the disk; ``flush_clients`` sends what clients are told of a commit."""

    scheduler: Scheduler
    store: Store
    committer: Committer
    payloads: Payloads
    pool: Pool
    clients: Clients
    outgoing: Outgoing
    flush_clients: Callable[[], None]
    trouble: str = ""
    """Why the disk takes nothing at the moment."""
    told_at: float = 0.0
    """When somebody was told that something is durable."""
    began_s: float = 0.0
    """When the last commit began."""
    buried: list[str] = field(default_factory=list)
    """Dead workers whose scoreboards are kept, because what they had in hand is not stored yet."""
    burying: list[str] = field(default_factory=list)
    """Those for whom the commit in flight does it."""

    def finish(self) -> None:
        """The commit in flight is over."""
        self._committed(self.committer.finish())

    def bury(self, uid: str) -> None:
        """Forget a dead worker's scoreboard, once what it had in hand is stored."""
        ledger = self.scheduler.ledger
        if ledger.batch or ledger.in_flight:  # should we die before, the next daemon has to look
            self.buried.append(uid)
        else:
            self.pool.forget_board(uid)

    def hangs(self, now_s: float) -> bool:
        """Whether a commit takes so long that something is wrong."""
        return self.committer.busy and now_s - self.began_s > COMMIT_HANGS_S

    def save(self) -> str:
        """Save what the store's files hold that were deleted under us; nothing else may follow.

        Raises:
            StoreFailed: it cannot be done.
        """
        if not self.committer.is_over(SAVE_WAITS_S):
            raise StoreFailed("a commit hangs, so nothing could be saved", "is the disk in order?")
        return self.store.save()

    def look(self) -> None:
        """Store what has been gathered, if the disk is free and there is reason to."""
        if self.committer.busy:
            return
        if self.scheduler.commits.is_due():
            self._write_batch()
        elif self.scheduler.commits.is_awaited():
            self._begin()  # while the job runs: then there is less to do when it has ended

    def _write_batch(self) -> None:
        scheduler = self.scheduler
        self.began_s = time.monotonic()
        error = self._begin()
        if isinstance(error, StoreBusy) and scheduler.commits.puts_off():
            return
        batch = scheduler.take_batch()
        self.burying += self.buried
        self.buried.clear()
        for reference in batch.released:
            self.payloads.release(reference)
        self.payloads.writing(batch.changes)
        hit("batch.taken")
        if error is None:
            try:
                self.store.write(batch)
            except DiskFull as full:
                error = full
        if error is not None:
            self._not_committed(error)
            return
        hit("batch.written")
        few = max(len(batch.changes), batch.submitted) <= LONE_JOBS
        lone = few and not len(scheduler.window)
        if lone and self.committer.took_s < QUICK_S:
            hit("batch.committing")
            self._committed(self.committer.commit_here())
            self.outgoing.act()
            return
        self.committer.start()
        hit("batch.committing")

    def _begin(self) -> JobdError | None:
        try:
            self.store.begin()
        except (DiskFull, StoreBusy) as error:
            return error
        return None

    def _committed(self, error: JobdError | None) -> None:
        if error is None:
            hit("batch.committed")
            self.trouble = ""
            for uid in self.burying:
                self.pool.forget_board(uid)
            self.burying.clear()
            self.payloads.written()
            self.scheduler.committed((time.monotonic() - self.began_s) * 1e6)
            self.clients.outbox.put_all(self.scheduler.take_replies())
            self.flush_clients()  # before anything else is done
            self.told_at = time.monotonic()
            hit("batch.told")
        elif isinstance(error, DiskFull):
            self.store.rollback()
            self._not_committed(error)
        else:
            raise error

    def _not_committed(self, error: JobdError) -> None:
        if not self.trouble:
            log.error("%s; submits are refused until it heals", error.message)
        self.trouble = error.message
        self.payloads.not_written()
        self.scheduler.not_committed(error)
        self.outgoing.act()
