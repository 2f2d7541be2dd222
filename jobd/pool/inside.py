"""The worker as its job sees it (``jobd.context.Host``): waits and progress become reports.

Threads of the job leave here what is to be told; the control thread, which they
wake, sends it.  Of progress only the latest is kept, and sent ``PROGRESS_S`` after
the one before at the earliest: a tight loop costs a few stores, not messages.

Waits are counted, as threads and coroutines of one job may wait at the same time:
the first one lends the slot, the last one takes it back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from jobd.context import CurrentJob, Told
from jobd.model.errors import BY_NAME, JobdError
from jobd.model.job import Progress
from jobd.model.orders import Lent, Progressing, Report, Task, Waiting

PROGRESS_S = 0.05
MOST_AWAITED = 100
"""Jobs that are named of those that a job waits for."""


class Inside:
    """What the job that runs has to say."""

    def __init__(self, current: Callable[[], Task | None], socket: str) -> None:
        """``current`` returns the task that runs; ``socket`` is where a client finds the daemon."""
        self.socket = socket
        self._current = current
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._reports: list[Report] = []
        self._waiter: Task | None = None
        """The task that waits or has waited last."""
        self._waits = 0
        self._awaited: list[int] = []
        self._lent = False
        self._told: list[Told] = []
        self._latest: tuple[Task, Progress] | None = None
        self._has_news = False
        self._sent_at = 0.0
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when the control thread should ``take``."""

    # -- for the job's threads --

    def current(self) -> CurrentJob | None:
        """Return the job that runs."""
        task = self._current()
        return CurrentJob(task.id, task.attempt, task.queue) if task is not None else None

    def progress(self, progress: Progress) -> None:
        """Keep this for the next report."""
        task = self._current()
        if task is None or os.getpid() != self._pid:
            return
        self._latest = task, progress
        if not self._has_news:
            self._has_news = True
            self.wake()

    def wait_begins(self, numbers: Sequence[int], told: Told) -> Task | None:
        """Ask for the slot to be lent, if no wait of the same job has done so."""
        task = self._current()
        if task is None or os.getpid() != self._pid:
            told(None)
            return None
        with self._lock:
            if task is not self._waiter:  # what is left of an earlier job waits for nobody's sake
                self._waiter, self._waits, self._told, self._lent = task, 0, [], False
            self._waits += 1
            if self._waits == 1:
                self._awaited = list(numbers[:MOST_AWAITED])
                self._reports.append(self._waiting(task))
            if not self._lent:
                self._told.append(told)
                self.wake()
                return task
        told(None)
        return task

    def wait_ends(self, token: object) -> None:
        """Take the slot back, if this was the last wait of its job."""
        with self._lock:
            if token is not self._waiter:
                return
            self._waits -= 1
            if self._waits == 0:
                self._told, self._lent = [], False
                assert self._waiter is not None
                self._reports.append(
                    Waiting(self._waiter.id, self._waiter.attempt, waits=False, awaited=[])
                )
                self.wake()

    def _waiting(self, task: Task) -> Waiting:
        return Waiting(task.id, task.attempt, waits=True, awaited=self._awaited)

    def wake(self) -> None:
        """Have the control thread look."""
        try:
            os.eventfd_write(self.fd, 1)
        except OSError:
            pass  # the job has closed it, with all the others: its worker ends after the job

    # -- for the control thread --

    def patience_s(self, now_s: float) -> float | None:
        """Return after how long to ``take`` without having been woken; None: never."""
        return max(0.0, self._sent_at + PROGRESS_S - now_s) if self._has_news else None

    def take(self, now_s: float) -> list[Report]:
        """Return what is to be sent now."""
        try:
            os.eventfd_read(self.fd)
        except OSError:
            pass  # nobody has woken us, or the job has closed it
        with self._lock:
            reports, self._reports = self._reports, []
        if self._has_news and now_s >= self._sent_at + PROGRESS_S:
            self._has_news = False  # before the look: what comes after it wakes us again
            self._sent_at = now_s
            latest = self._latest
            if latest is not None:
                reports.append(Progressing(latest[0].id, latest[0].attempt, latest[1]))
        return reports

    def answered(self, answer: Lent) -> None:
        """Hand on the daemon's word on a wait."""
        with self._lock:
            waiter = self._waiter
            if waiter is None or waiter.id != answer.id or not self._waits:
                return
            self._lent = not answer.error
            told, self._told = self._told, []
        error = None
        if answer.error:
            error = BY_NAME.get(answer.error, JobdError)(answer.message, answer.hint)
        for tell in told:
            try:
                tell(error)
            except RuntimeError:
                pass  # its event loop is closed: nobody waits there any more

    def handed_over(self) -> list[Report]:
        """Return what the next daemon has to know."""
        with self._lock:
            task = self._waiter
            if task is None or not self._waits or task is not self._current():
                return []
            return [self._waiting(task)]
