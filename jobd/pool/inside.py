"""The worker as its job sees it (``jobd.context.Host``): waits and progress become reports.

Threads of the job leave here what is to be told; the control thread, which they
wake, sends it.  Of progress only the latest is kept, and sent ``PROGRESS_S`` after
the one before at the earliest: a tight loop costs a few stores, not messages.

Threads and coroutines of one job may wait at the same time: the first wait lends the slot, the
last one takes it back, and the daemon knows of all, so that it finds every cycle.  One
question is out at a time; what begins meanwhile is asked together.  Should that be
refused, its waits are asked one by one, so that none suffers for another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from jobd.kin import MOST_AWAITED, CurrentJob, Told
from jobd.model.errors import BY_NAME, JobdError
from jobd.model.job import Progress
from jobd.model.orders import Lent, Progressing, Report, Task, Waiting

PROGRESS_S = 0.05
"""The time between two reports of progress; also before the daemon hears that a wait of several is over."""

MOST_NAMED = 200
"""Jobs that are named of those that all waits of a job are for."""


class Wait:
    """One wait of the job that runs."""

    __slots__ = ("numbers", "task", "told")

    def __init__(self, task: Task, numbers: Sequence[int], told: Told) -> None:
        self.task = task
        self.numbers = numbers[:MOST_AWAITED]
        self.told = told


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
        self._allowed: dict[Wait, None] = {}
        """Its waits that the daemon has allowed."""
        self._asked: list[Wait] | None = None
        """Those that it was asked for, and has not answered; None: it was not asked."""
        self._fresh: list[Wait] = []
        """Those that it is to be asked for next."""
        self._one_by_one = False
        self._named: set[int] = set()
        """The jobs that they are for, as the daemon knows."""
        self._proposed: set[int] = set()
        """The same, should it allow what it was asked for."""
        self._shrunk = False
        """Some of these are waited for no longer."""
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

    def wait_begins(self, numbers: Sequence[int], told: Told) -> Wait | None:
        """Ask for the slot to be lent for a wait, or, if it is, whether these may be waited for too."""
        task = self._current()
        if task is None or os.getpid() != self._pid:
            told(None)
            return None
        wait = Wait(task, numbers, told)
        with self._lock:
            if task is not self._waiter:  # what is left of an earlier job waits for nobody's sake
                self._waiter, self._allowed, self._asked, self._fresh = task, {}, None, []
                self._one_by_one = self._shrunk = False
            if not (self._allowed and self._asked is None and self._named.issuperset(wait.numbers)):
                self._fresh.append(wait)
                self.wake()
                return wait
            self._allowed[wait] = None
        told(None)
        return wait

    def wait_ends(self, token: object) -> None:
        """Take the slot back, if this was the last wait of its job."""
        with self._lock:
            if not isinstance(token, Wait) or token.task is not self._waiter:
                return
            is_known = token in self._allowed or token in (self._asked or ())
            self._allowed.pop(token, None)
            for waits in (self._fresh, self._asked or []):
                if token in waits:
                    waits.remove(token)
            if is_known and not (self._allowed or self._asked):
                self._shrunk = False
                self._reports.append(self._waiting(token.task, waits=False))
                self.wake()
            elif is_known and not self._shrunk:
                self._shrunk = True
                self.wake()

    def _waiting(self, task: Task, *, waits: bool = True) -> Waiting:
        """Return what the daemon is told; the lock is held."""
        every = [*self._allowed, *(self._asked or ())] if waits else []
        named = dict.fromkeys(number for wait in every for number in wait.numbers)
        awaited = [*named][-MOST_NAMED:]
        self._proposed = set(awaited)
        return Waiting(task.id, task.attempt, waits=waits, awaited=awaited)

    def wake(self) -> None:
        """Have the control thread look."""
        try:
            os.eventfd_write(self.fd, 1)
        except OSError:
            pass  # the job has closed it, with all the others: its worker ends after the job

    # -- for the control thread --

    def patience_s(self, now_s: float) -> float | None:
        """Return after how long to ``take`` without having been woken; None: never."""
        has_news = self._has_news or self._shrunk
        return max(0.0, self._sent_at + PROGRESS_S - now_s) if has_news else None

    def take(self, now_s: float) -> list[Report]:
        """Return what is to be sent now."""
        try:
            os.eventfd_read(self.fd)
        except OSError:
            pass  # nobody has woken us, or the job has closed it
        with self._lock:
            reports, self._reports = self._reports, []
            if self._asked is None and (self._fresh or self._may_shrink(now_s)):
                reports.append(self._ask())
        if self._has_news and now_s >= self._sent_at + PROGRESS_S:
            self._has_news = False  # before the look: what comes after it wakes us again
            self._sent_at = now_s
            latest = self._latest
            if latest is not None:
                reports.append(Progressing(latest[0].id, latest[0].attempt, latest[1]))
        return reports

    def _may_shrink(self, now_s: float) -> bool:
        """Whether to tell now of waits that are over, while others go on: it is no hurry."""
        if not self._shrunk or now_s < self._sent_at + PROGRESS_S:
            return False
        self._sent_at = now_s
        return True

    def _ask(self) -> Waiting:
        """Ask for what has begun, and tell of what is over; the lock is held."""
        assert self._waiter is not None
        count = 1 if self._one_by_one else len(self._fresh)
        self._asked, self._fresh = self._fresh[:count], self._fresh[count:]
        self._one_by_one = self._one_by_one and bool(self._fresh)
        self._shrunk = False
        return self._waiting(self._waiter)

    def answered(self, answer: Lent) -> None:
        """Hand on the daemon's word on what it was asked."""
        error: JobdError | None = None
        if answer.error:
            error = BY_NAME.get(answer.error, JobdError)(answer.message, answer.hint)
        with self._lock:
            if self._waiter is None or self._waiter.id != answer.id or self._asked is None:
                return
            asked, self._asked = self._asked, None
            if error is not None and len(asked) > 1:
                self._fresh[:0] = asked
                self._one_by_one = True
                asked = []
            elif error is None:
                self._allowed.update(dict.fromkeys(asked))
                self._named = self._proposed
            if self._fresh or self._shrunk:
                self.wake()
        for wait in asked:
            try:
                wait.told(error)
            except RuntimeError:
                pass  # its event loop is closed: nobody waits there any more

    def handed_over(self) -> list[Report]:
        """Return what the next daemon has to know."""
        with self._lock:
            task = self._waiter
            if task is None or task is not self._current():
                return []
            if not (self._allowed or self._asked):
                return []
            self._asked = self._asked or []
            return [self._waiting(task)]
