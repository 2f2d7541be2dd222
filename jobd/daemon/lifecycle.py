"""How the daemon ends, in its own time or at once, and how it replaces its workers."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass

from jobd.config.settings import Settings
from jobd.daemon.checks import Checks
from jobd.daemon.notify import Notify
from jobd.daemon.view import View
from jobd.failpoints import hit
from jobd.model.errors import StoreFailed
from jobd.model.states import ENDED
from jobd.pool.supervisor import Pool
from jobd.scheduler import Scheduler

log = logging.getLogger("jobd")

LONGEST_DRAIN_S = 30 * 86_400.0

CLOSE_S = 15.0
"""What the end may take when no job runs any more: the last commit, the zygote, the checkpoint."""


@dataclass
class Lifecycle:
    """Stops and reloads; ``has_owner``: a private daemon's jobs are of no use to anybody at its end."""

    settings: Settings
    scheduler: Scheduler
    view: View
    pool: Pool
    checks: Checks
    notify: Notify
    has_owner: bool
    stopping: int = 0
    """How often the daemon was told to end."""
    stop_at: float = 0.0
    """When jobs that still run are put back; 0: never, or they were."""

    def start(self) -> None:
        """Requests are answered from now on."""
        self.notify.send(READY=1, STATUS="running")

    def stop(self, drain_s: float | None = None) -> None:
        """End: first request drains (running jobs get ``drain_s``), the second stops at once."""
        self.stopping += 1
        if self.stopping > 1 or drain_s == 0:
            log.info("stopping at once; what runs will run again at the next start")
            self.scheduler.workforce.kill_all()
        if self.stopping > 1:
            return
        hit("stop.draining")
        asked = self.settings.daemon.drain_s if drain_s is None else drain_s
        limit = min(LONGEST_DRAIN_S, max(0.0, asked))  # in this order: then NaN is 0
        log.info("draining: running jobs get %g s, then they are put back", limit)
        # The jobs' time, then what the processes and the disk may take: no less than that.
        needs_s = limit + self.settings.pool.kill_grace_s + CLOSE_S
        usec = int(needs_s * 1e6)
        self.notify.send(STOPPING=1, STATUS="draining", EXTEND_TIMEOUT_USEC=usec)
        self.stop_at = time.monotonic() + limit
        self.scheduler.drain()

    def reload(self) -> None:
        """Replace the workers by new ones, each when its job is done."""
        if self.stopping:
            return  # there will be no new ones, and READY must not follow STOPPING
        log.info("reloading: every worker is replaced when its job is done")
        self.notify.reloading()
        if self.pool.start():  # else there would be no better ones
            self.scheduler.workforce.retire_all()
            self.checks.reload()
        self.notify.send(READY=1, STATUS="running")

    def obey(self, signals: Iterable[int]) -> None:
        """Do what signals ask for."""
        for number in signals:
            log.info("got %s", signal.Signals(number).name)
            if number == signal.SIGHUP:
                self.reload()
            else:
                self.stop(0.0 if self.has_owner else None)

    def look(self, now_s: float) -> None:
        """While draining: stop what runs when its time is over, or when it can come to no end."""
        if now_s >= self.stop_at:
            log.info("the time to drain is over: what still runs is put back")
        elif self._waits_in_vain():
            log.info("what still runs waits for jobs that do not start any more: it is put back")
        else:
            return
        self.stop_at = 0.0
        self.scheduler.workforce.stop_running()

    def _waits_in_vain(self) -> bool:
        """Whether all that runs waits for jobs that have not ended."""
        waits = self.scheduler.workforce.waits_of_all()
        return bool(waits) and all(any(map(self._is_live, numbers)) for numbers in waits)

    def _is_live(self, number: int) -> bool:
        job = self.view.job(number)
        return job is not None and job.state < ENDED

    def is_over(self, trouble: str) -> bool:
        """Whether all that was to be done before the end is done; ``trouble`` is the disk's.

        Raises:
            StoreFailed: the time to end is over, and the disk still full.
        """
        if trouble and (self.stopping > 1 or not self.stop_at):
            self._give_up_disk(trouble)
        return self.scheduler.is_at_rest()

    def _give_up_disk(self, trouble: str) -> None:
        """Once nothing runs, end without the disk."""
        if not any(worker.assigned for worker in self.scheduler.workers.values()):
            raise StoreFailed(
                f"{trouble}, and the daemon has to end",
                "what could not be stored runs again at the next start",
            )
