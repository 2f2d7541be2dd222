"""The threads behind an executor: one sends what was submitted, one completes futures."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import InvalidStateError
from queue import Empty, SimpleQueue
from typing import Any

from jobd.client import Client, Deferred
from jobd.client.waiting import Arrivals
from jobd.executor import ending
from jobd.executor.arrays import ArrayResults
from jobd.executor.errors import PoolBroken, as_python_has_it
from jobd.executor.future import JobFuture
from jobd.executor.outcomes import bare
from jobd.executor.sharing import Sharing
from jobd.model.errors import DaemonUnreachable, JobdError, UsageError, WaitTimeout
from jobd.model.messages import Submit
from jobd.model.selector import Selector
from jobd.private import PrivateDaemon

MOST_AT_ONCE = 1_000
"""Submits that are looked at together, to be sent as one."""

CANCELLED = "cancelled"
"""What the daemon answers when it has cancelled a job."""

Place = JobFuture[Any] | ArrayResults | None
"""Who is told of a job's end; None: nobody."""

_NOT_OPEN = object()
"""Stands for what is not in ``_open``; there None is a job without a future."""


class Engine:
    """What completes the futures, and what they need for it; see the package's docstring."""

    def __init__(
        self, client: Client, private: PrivateDaemon | None, sharing: Sharing | None
    ) -> None:
        self.socket = client.socket
        self._client = client
        self._private = private
        self._sharing = sharing
        self._lock = threading.Condition()
        """Never taken by who holds the client's own lock."""
        self._unsent: SimpleQueue[tuple[Submit, JobFuture[Any]] | None] = SimpleQueue()
        self._open: dict[Deferred[Any], Place] = {}
        """Jobs that were sent and have not ended, and their futures; those of ``map`` have none."""
        self._count = 0
        """Of jobs that were submitted and have not ended, sent or not."""
        self._arrivals: Arrivals[Deferred[Any]] = Arrivals()
        self._broken: PoolBroken | None = None
        self._shut = False
        self._threads: list[threading.Thread] = []
        self._owner = os.getpid()
        # What is refused for its size must not be refused with others.
        welcome = client.welcome
        self._most_bytes = min(welcome.max_payload_bytes, welcome.max_message_bytes // 2)
        ending.end_with_program(self)

    # -- for those who submit --

    def submit(self, request: Submit) -> JobFuture[Any]:
        """Submit one job, and return its future."""
        self._client._core.refuse_foreign(request)  # noqa: SLF001  # before it counts
        future: JobFuture[Any] = JobFuture(self)
        self._notice_end()
        with self._lock:
            self._begin(1)
            self._unsent.put((request, future))
        return future

    def failed(self, error: BaseException) -> JobFuture[Any]:
        """Return the future of a call that cannot be submitted."""
        self._notice_end()
        with self._lock:
            self.refuse_new()
        future: JobFuture[Any] = JobFuture(self)
        future.set_exception(error)
        return future

    def shared(self, call: tuple[Any, ...]) -> bytes:
        """Return a call, pickled, that has locks or the like of ``multiprocessing``; b"": it cannot travel.

        What is shared is kept until the end: nobody can tell when workers have it no more.
        """
        if self._sharing is None:
            return b""
        try:
            return self._sharing.dumps(call)
        except Exception:  # noqa: BLE001  # the one that was met first is told
            return b""

    def submit_many(self, request: Submit) -> list[Deferred[Any]]:
        """Submit jobs that need no future."""
        self._client._core.refuse_foreign(request)  # noqa: SLF001  # before it counts
        futures = [None] * len(request.args)
        self._notice_end()
        with self._lock:
            self._begin(len(futures))
        try:
            return self._send(request, futures)
        except Exception as error:
            self._fail(futures, error)
            raise

    def submit_array(self, request: Submit, found: ArrayResults) -> None:
        """Submit an array, whose results go there."""
        self._client._core.refuse_foreign(request)  # noqa: SLF001  # before it counts
        self._notice_end()
        with self._lock:
            self._begin(1)
        try:
            self._send(request, [found])
        except Exception as error:
            self._fail([found], error)
            raise

    def _notice_end(self) -> None:
        """Break if the executor's own daemon has ended while nothing was open.

        Raises:
            UsageError: this is a fork of the executor's process.
        """
        if os.getpid() != self._owner:  # the threads are not here: a future would never be done
            what = f"this executor belongs to process {self._owner}, which has forked this one"
            raise UsageError(what, "make a new one after the fork")
        if self._private is None or self._shut or self._broken is not None:
            return
        if self._private.process.poll() is not None:
            self._break(None)

    def _begin(self, count: int) -> None:
        """Have so many jobs more to complete; the lock is held."""
        self.refuse_new()
        self._count += count
        if not self._threads:
            # It is not these threads that keep the program from ending, but `ending`, which
            # can wait for the jobs and for the threads both.
            for name, work in (("sender", self._run_sender), ("receiver", self._run_receiver)):
                thread = threading.Thread(target=work, name=f"jobd-executor-{name}", daemon=True)
                self._threads.append(thread)
                thread.start()
        elif self._count == count:
            self._lock.notify_all()

    def refuse_new(self) -> None:
        """Raise if nothing may be submitted any more.

        Raises:
            PoolBroken: no job can run.
            RuntimeError: the executor was shut down, or the program ends.
        """
        self.refuse_broken()
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        ending.refuse_late()

    @property
    def is_broken(self) -> bool:
        """Whether no job can run any more."""
        return self._broken is not None

    def refuse_broken(self) -> None:
        """Raise PoolBroken if no job can run any more."""
        if self._broken is not None:
            # One of its own for each: a traceback that grows would keep all those alive who were told.
            raise PoolBroken(self._broken.message, self._broken.hint) from self._broken.__cause__

    def await_sent(self, future: JobFuture[Any]) -> None:
        """Return once the future has its job, or has failed."""
        with self._lock:
            while future.job is None and not future.done():
                self._lock.wait()

    def is_first(self, future: JobFuture[Any]) -> bool:
        """Whether nobody has withdrawn the future before."""
        with self._lock:
            first, future.withdrawn = not future.withdrawn, True
            return first

    def cancel(self, deferreds: list[Deferred[Any]]) -> None:
        """Cancel those of these jobs that no worker has yet; their futures know when this returns."""
        try:
            numbers = {d.id: d for d in deferreds if not d.done() and _is_durable(d)}
            if not numbers:
                return
            chosen = Selector(_ranges(sorted(numbers)))
            answers = self._client.cancel(chosen, only_waiting=True)
        except JobdError:
            return  # nobody is there to say that they are cancelled; so they are not
        for number, answer in answers:
            future = self._open.get(numbers[number])
            if answer == CANCELLED and future is not None:
                future.withdraw()

    def shutdown(self, *, wait: bool = True, cancel_futures: bool = False) -> None:
        """Take no more, and end once nothing is open; with ``wait`` return only then."""
        if os.getpid() != self._owner:
            return  # in a fork there is nothing to end, and nobody who would
        with self._lock:
            if not self._shut:
                self._shut = True
                self._unsent.put(None)
                self._lock.notify_all()
                if not self._threads:
                    self._end()
        if cancel_futures:
            _join(self._threads[:1])
            self.cancel(list(self._open))
        if wait:
            _join(self._threads)

    def end_now(self, *, kill: bool) -> None:
        """Take no more, and stop what runs: on a daemon of our own everything, else only our jobs."""
        self.shutdown(wait=False)
        if self._private is None:
            for deferred in list(self._open):
                with contextlib.suppress(JobdError):  # it has ended, or nobody is there to ask
                    deferred.cancel("the executor's workers were to end", now=kill)
        elif kill:
            self._private.process.kill()
        else:
            self._private.process.terminate()

    # -- the thread that sends --

    def _run_sender(self) -> None:
        """Send what was submitted, until there will be no more."""
        while self._send_next():
            pass

    def _send_next(self) -> bool:
        """Send what comes next, and all together that has come meanwhile: a busy program's many.

        Apart from the loop, since what was sent is to be kept by nobody while this waits.
        """
        batch = [self._unsent.get()]
        with contextlib.suppress(Empty):
            while len(batch) < MOST_AT_ONCE:
                batch.append(self._unsent.get_nowait())
        items = [item for item in batch if item is not None]
        for request, futures in _merged(items, self._most_bytes):
            try:
                self._send(request, futures)
            except Exception as error:  # noqa: BLE001  # too large, or nobody is there: theirs to tell
                self._fail(futures, error)
        with self._lock:
            self._lock.notify_all()
        return batch[-1] is not None

    def _send(self, request: Submit, futures: Sequence[Place]) -> list[Deferred[Any]]:
        """Send a submit; its deferred results are open before anything can be heard of them."""

        def note(deferreds: list[Deferred[Any]]) -> None:
            self._open.update(zip(deferreds, futures, strict=True))
            for deferred, future in zip(deferreds, futures, strict=True):
                if future is not None:
                    future.job = deferred

        return self._client.submit_expecting(request, self._arrivals, note)

    def _fail(self, futures: Sequence[Place], error: Exception) -> None:
        for future in futures:
            if future is not None and not future.done():
                future.set_exception(bare(self._broken or as_python_has_it(error)))
        with self._lock:
            self._count -= len(futures)
            self._lock.notify_all()

    # -- the thread that receives --

    def _run_receiver(self) -> None:
        """Complete futures as their jobs end, until there will be none."""
        while self._is_wanted():
            try:
                arrived = self._client.arrived(self._arrivals)
            except Exception as error:  # noqa: BLE001  # whatever it is, nobody else would tell them
                self._break(error)
                continue
            self._complete(arrived)
            del arrived  # nobody is to be kept alive while this waits
        self._end()

    def _is_wanted(self) -> bool:
        with self._lock:
            while not (self._count or self._shut):
                self._lock.wait()
            return bool(self._count)

    def _complete(self, deferreds: list[Deferred[Any]]) -> None:
        for deferred in deferreds:
            future = self._open.get(deferred)
            try:
                if future is not None:
                    future.complete(deferred)
                else:
                    self._client.keep(deferred)
            except (InvalidStateError, JobdError):
                pass  # it may be broken meanwhile; and what cannot be kept, its ``result`` will tell
        with self._lock:
            # One by one, and not by how many are left: another thread opens more meanwhile.
            self._count -= sum(self._open.pop(d, _NOT_OPEN) is not _NOT_OPEN for d in deferreds)

    def _break(self, error: Exception | None) -> None:
        """Fail all that is open, and what will be: nobody is left who would end it."""
        if self._private is not None:
            error = self._private.why_it_ended()
        why = error.message if isinstance(error, JobdError) else error
        broken = PoolBroken(f"the executor is broken: {why}", "make a new one")
        broken.__cause__ = error
        with self._lock:
            self._broken = self._broken or broken
            futures = list(self._open.values())
            self._open.clear()
        self._fail(futures, broken)

    def _end(self) -> None:
        """Let go of everything."""
        with contextlib.suppress(JobdError):  # a refused submit: its future has told
            self._client.close()
        if self._private is not None:
            self._private.stop()
        if self._sharing is not None:
            self._sharing.close()


def _join(threads: list[threading.Thread]) -> None:
    """Wait for threads, but not for the one that runs this: a future's callback."""
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join()


def _merged(
    items: list[tuple[Submit, JobFuture[Any]]], most_bytes: int
) -> Iterator[tuple[Submit, list[JobFuture[Any]]]]:
    """Make one submit of those that follow on each other and differ in their arguments only."""
    left = iter(items)
    whole, first = next(left, (None, None))
    if whole is None or first is None:
        return
    futures, size = [first], len(whole.args[0])
    for request, future in left:
        size += len(request.args[0])
        if size <= most_bytes and _is_alike(whole, request):
            whole.args += request.args
            futures.append(future)
        else:
            yield whole, futures
            whole, futures, size = request, [future], len(request.args[0])
    yield whole, futures


def _is_alike(one: Submit, other: Submit) -> bool:
    return (
        one.function == other.function
        and one.shapes == other.shapes
        and one.options == other.options
        and one.by_value == other.by_value
        and one.after == other.after
        and not (one.inputs or other.inputs)
        and not (one.uid or other.uid)  # it has files, which carry the key
    )


def _is_durable(deferred: Deferred[Any]) -> bool:
    """Wait until the job has its id; return whether it has not been refused.

    Raises:
        DaemonUnreachable, WaitTimeout: the daemon does not answer.
    """
    try:
        return bool(deferred.id)
    except (DaemonUnreachable, WaitTimeout):
        raise
    except JobdError:
        return False


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as ranges, both ends included."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
