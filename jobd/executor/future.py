"""The future of an executor's job, and how a job waits for several."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol, TypeVar

from jobd import context
from jobd.client import Deferred
from jobd.executor.outcomes import bare, exit_of, failure_of
from jobd.model.errors import JobCancelled, JobdError

T = TypeVar("T")

MOST_AWAITED = 100
"""Jobs that the daemon is told of when a job waits for many futures."""


class Sender(Protocol):
    """What a future asks of the engine that has made it."""

    socket: str

    def await_sent(self, future: JobFuture[Any]) -> None:
        """Return once the future has its job, or has failed."""

    def is_first(self, future: JobFuture[Any]) -> bool:
        """Whether nobody has withdrawn the future before."""

    def cancel(self, deferreds: list[Deferred[Any]]) -> None:
        """Cancel those of these jobs that no worker has yet."""


class JobFuture(Future[T]):
    """A future that is a job; made by ``jobd.Executor`` only.

    Attributes:
        job: the same job as ``jobd.Client`` has it; None until it is sent.
    """

    job: Deferred[T] | None = None

    def __init__(self, engine: Sender) -> None:
        super().__init__()
        self._engine = engine
        if context.host is not None:
            self._waiters = _Waiters(self)
        self.withdrawn = False
        """It was cancelled; kept by the engine."""

    @property
    def id(self) -> int:
        """The job's id; waits until the job is durable.

        Raises:
            JobdError: the submit was refused.
        """
        job = self._sent()
        if job is None:
            raise self.exception() or CancelledError
        return job.id

    def _sent(self) -> Deferred[T] | None:
        if self.job is None:
            self._engine.await_sent(self)
        return self.job

    def cancel(self) -> bool:
        """Cancel the job if no worker has it yet; return whether it is cancelled."""
        job = self._sent()
        if job is not None and not self.done():
            self._engine.cancel([job])
        return self.cancelled()

    def running(self) -> bool:
        """Whether a worker runs the job at this moment; asks the daemon."""
        job = self._sent()
        try:
            return job is not None and not self.done() and job.state == "running"
        except JobdError:
            return False

    def result(self, timeout: float | None = None) -> T:
        """Return what the function returned, or raise what it raised; see ``Future.result``."""
        try:
            if context.host is None:
                return super().result(timeout)
            with _lending([self], timeout):
                return super().result(timeout)
        finally:
            del self  # the exception has this frame: the future would keep itself alive

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the function raised, or None; see ``Future.exception``."""
        if context.host is None:
            return super().exception(timeout)
        with _lending([self], timeout):
            return super().exception(timeout)

    @property
    def socket(self) -> str:
        """Where its daemon is."""
        return self._engine.socket

    def complete(self, job: Deferred[T]) -> None:
        """Take over what became of the job, which has ended."""
        try:
            value = job.result(0)
        except JobCancelled:
            self.withdraw()
        except JobdError as error:
            self.set_exception(failure_of(error))
        except BaseException as error:  # noqa: BLE001  # nobody else would tell of it
            self.set_exception(bare(error))
        else:
            exited = exit_of(job) if value is None else None
            if exited is not None:
                self.set_exception(exited)
            else:
                self.set_result(value)

    def withdraw(self) -> None:
        """Take note that the job was cancelled; again does nothing."""
        # Who has cancelled it and who hears of it may do this at once.
        if self._engine.is_first(self) and super().cancel():
            self.set_running_or_notify_cancel()

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "finished" if self.done() else "pending"
        return f"<jobd.JobFuture {state}: {self.job!r}>"


@contextlib.contextmanager
def _lending(futures: list[JobFuture[Any]], timeout: float | None) -> Iterator[None]:
    """Inside a job: lend its slot for the length of a wait, or the job might wait for itself."""
    waiting = [future for future in futures if not future.done()]
    jobs = [job for future in waiting[:MOST_AWAITED] if (job := future._sent()) is not None]  # noqa: SLF001  # ours
    lent = None
    if jobs:
        lent = context.lend([job.id for job in jobs], waiting[0].socket, timeout)
    try:
        yield
    finally:
        context.end_wait(lent)


class _Waiters(list[Any]):
    """Those who wait for a future in a job, by ``concurrent.futures.wait`` or ``as_completed``.

    These put themselves into this list of every future's, and then wait for an event of their own.
    """

    def __init__(self, future: JobFuture[Any]) -> None:
        super().__init__()
        self._future = future

    def append(self, waiter: Any) -> None:
        """Take in one more; the locks of all futures that it waits for are held."""
        if not isinstance(waiter.event, _LendingEvent):
            waiter.event = _LendingEvent()
        waiter.event.futures.append(self._future)
        super().append(waiter)


class _LendingEvent(threading.Event):
    """An event that a job waits for: it lends its slot meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.futures: list[JobFuture[Any]] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; see ``threading.Event``.

        Raises:
            Deadlock: one of the futures can never be done, as its job waits for this one.
            TooManyWaiting: so many jobs wait already.
        """
        if self.is_set():
            return True
        with _lending(self.futures, timeout):
            return super().wait(timeout)
