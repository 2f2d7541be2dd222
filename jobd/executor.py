"""``jobd.Executor``: the standard library's way to have functions called, with jobd behind it.

A submit is a job, and a thread that the daemon tells of its end completes the future.
That thread, one client and, where the executor has one to itself, the daemon are the
``_Engine``, which an executor shares with its views (``options``).  They end once the
executor has been shut down or dropped, and the last of its jobs has ended.

Where the standard library documents a behaviour, this has it.  What is told apart here:

- what cannot travel is refused by ``submit``; it does not fail the future;
- a worker that dies fails the future of the job that it ran, and no other;
- ``cancel`` and ``running`` are answered by the daemon: a job is running once a worker
  has it, and somebody else may cancel it too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future, InvalidStateError
from concurrent.futures import Executor as AnyExecutor
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from jobd import by_value, context, payload
from jobd.client import Client, Deferred
from jobd.client.calls import in_bulks, many_calls, one_call, with_options
from jobd.client.drafts import Draft
from jobd.client.waiting import Arrivals
from jobd.model.errors import (
    DaemonUnreachable,
    JobCancelled,
    JobCrashed,
    JobdError,
    JobFailed,
    UsageError,
    WaitTimeout,
)
from jobd.model.messages import Submit
from jobd.model.options import Said
from jobd.model.selector import Selector
from jobd.pool.chunk import call_each
from jobd.private import PrivateDaemon

P = ParamSpec("P")
if TYPE_CHECKING:
    from jobd.client.options import Options

T = TypeVar("T")

MOST_AT_ONCE = 1_000
"""Submits that are looked at together, to be sent as one."""

MOST_AWAITED = 100
"""Jobs that the daemon is told of when a job waits for many futures."""

CANCELLED = "cancelled"
"""What the daemon answers when it has cancelled a job."""

_NOT_OPEN = object()
"""Stands for what is not in ``_open``; there None is a job without a future."""


class WorkerDied(JobCrashed, BrokenExecutor):
    """The worker died while it ran this job; the others are not concerned."""

    __module__ = "jobd"


class PoolBroken(JobdError, BrokenExecutor):
    """The executor's own daemon is gone, or its initializer has failed: no job can run any more."""

    __module__ = "jobd"

    code = 69
    error = "pool_broken"


class RemoteTraceback(Exception):  # it is no error, but where one was
    """Where in the worker an exception was raised: its ``__cause__`` here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class JobFuture(Future[T]):
    """A future that is a job; made by ``jobd.Executor`` only.

    Attributes:
        job: the same job as ``jobd.Client`` has it; None until it is sent.
    """

    job: Deferred[T] | None = None

    def __init__(self, engine: _Engine) -> None:
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
        if context.host is None:
            return super().result(timeout)
        with _lending([self], timeout):
            return super().result(timeout)

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
            value = _value(job, 0)
        except JobCancelled:
            self.withdraw()
        except BaseException as error:  # noqa: BLE001  # whatever the user's function raised
            self.set_exception(error)
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


class Executor(AnyExecutor):
    """Calls functions in the workers of a daemon.

    ``Executor()`` uses the daemon that runs, whose jobs are durable.  With ``max_workers`` or
    an ``initializer`` it starts one for itself, which ends with it and leaves nothing behind.

    Args:
        max_workers: how many jobs its own daemon runs at once; None: one for each core, if it
            has one.
        initializer: called first in each worker of its own daemon.  If that fails, the pool is
            broken: all its futures fail, and submits too, with a ``BrokenExecutor``.
        initargs: the initializer's arguments.
        socket: the daemon to use; None: as the settings say (``JOBD_SOCKET`` …).
        state_dir: where its own daemon keeps jobs, durably: what has not ended with the
            executor goes on with the next one that names the same directory.
        timeout_s: how long the running daemon may take to answer, or to come back.

    Attributes:
        client: what else can be done with the jobs.

    Raises:
        DaemonUnreachable: no daemon runs.
        ValueError, TypeError: the arguments make no sense.
    """

    def __init__(  # the standard library's, and where the daemon is
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        socket: str | None = None,
        state_dir: str | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        private = None
        if max_workers is not None or initializer is not None or state_dir is not None:
            if socket is not None:
                raise ValueError("either the daemon at a socket, or one of its own: not both")
            first = b"" if initializer is None else by_value.dumps((initializer, initargs))
            private = PrivateDaemon(
                max_workers or 0,
                initializer=first,
                state_dir=state_dir or "",
                settings={"jobs.max_crashes": 0},
            )
            socket = private.socket
        client = Client(socket, timeout_s=timeout_s, reconnects=private is None)
        self.client = client
        self._engine = engine = _Engine(client, private)
        self._options: Said | None = None
        self._max_workers = client.welcome.workers
        """By this name Dask and others ask any executor how much it can do at once."""
        atexit.register(engine.shutdown)
        weakref.finalize(self, engine.shutdown, wait=False).atexit = False
        self._root: Executor = self

    def options(self, **options: Unpack[Options]) -> Executor:
        """Return a view of this executor whose jobs have these options.

        Args:
            options: as ``jobd.Client.options`` takes them, but for a ``key``: a future is of its own job.

        Raises:
            UsageError: there is no such option, or it is of another type.
        """
        if "key" in options:
            raise UsageError("a future has a job of its own, and no key", "use jobd.Client")
        view = object.__new__(Executor)
        view.__dict__ |= self.__dict__ | {"_options": with_options(self._options, options)}
        return view

    @overload
    def submit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobFuture[T]: ...
    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[T]: ...
    def submit(self, fn: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[Any]:
        """Have ``fn(*args, **kwargs)`` called in a worker.

        Raises:
            RuntimeError: the executor has been shut down.
            PoolBroken: its own daemon is gone.
            UsageError: the function or an argument cannot travel.
        """
        return self._engine.submit(one_call(fn, args, kwargs, self._options, self._draft()))

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """Call ``fn`` with the items of each iterable in turn; return the results in that order.

        The iterables are collected, and all jobs submitted, before this returns.

        Args:
            fn: takes as many arguments as there are iterables.
            iterables: the longer ones are cut to the shortest.
            timeout: seconds from now after which the iterator raises ``TimeoutError``; None: never.
            chunksize: how many calls make one job.

        Raises:
            RuntimeError: the executor has been shut down.
            PoolBroken: its own daemon is gone.
            UsageError: the function or an argument cannot travel.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            return _results(self._engine, self._submit_all(fn, calls), deadline)
        pickled = by_value.dumps(fn)
        chunks = ((pickled, chunk) for chunk in _chunks(calls, chunksize))
        lists = _results(self._engine, self._submit_all(call_each, chunks), deadline)
        return _flat(lists)

    def _submit_all(
        self, fn: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> list[Deferred[Any]]:
        deferreds: list[Deferred[Any]] = []
        try:
            for bulk in in_bulks(calls):
                deferreds += self._engine.submit_many(
                    many_calls(fn, bulk, self._options, self._draft())
                )
        except BaseException:
            self._engine.cancel(deferreds)
            raise
        return deferreds

    def _draft(self) -> Draft | None:
        return self.client._draft()  # noqa: SLF001  # it is the client with another face

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # the standard library's
        """Take no more submits, and end once all jobs have ended.

        Args:
            wait: return only then.
            cancel_futures: cancel the jobs that no worker has yet.
        """
        self._engine.shutdown(wait=wait, cancel_futures=cancel_futures)

    def __repr__(self) -> str:
        return f"<jobd.Executor of {self.client!r}>"


class _Engine:
    """What completes the futures, and what they need for it; see the module's docstring."""

    def __init__(self, client: Client, private: PrivateDaemon | None) -> None:
        self.socket = client.socket
        self._client = client
        self._private = private
        self._lock = threading.Condition()
        """Never taken by who holds the client's own lock."""
        self._unsent: SimpleQueue[tuple[Submit, JobFuture[Any]] | None] = SimpleQueue()
        self._open: dict[Deferred[Any], JobFuture[Any] | None] = {}
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
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.refuse_broken()
        self._count += count
        if not self._threads:
            # Not kept from ending with the program by these threads, but by `atexit`, which
            # can wait for the jobs and for the threads both.
            for name, work in (("sender", self._run_sender), ("receiver", self._run_receiver)):
                thread = threading.Thread(target=work, name=f"jobd-executor-{name}", daemon=True)
                self._threads.append(thread)
                thread.start()
        elif self._count == count:
            self._lock.notify_all()

    def refuse_broken(self) -> None:
        """Raise PoolBroken if no job can run any more."""
        if self._broken is not None:
            raise self._broken

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

    # -- the thread that sends --

    def _run_sender(self) -> None:
        """Send what was submitted, and all together that has come meanwhile: a busy program's many."""
        going_on = True
        while going_on:
            batch = [self._unsent.get()]
            with contextlib.suppress(Empty):
                while len(batch) < MOST_AT_ONCE:
                    batch.append(self._unsent.get_nowait())
            going_on = batch[-1] is not None
            items = [item for item in batch if item is not None]
            for request, futures in _merged(items, self._most_bytes):
                try:
                    self._send(request, futures)
                except Exception as error:  # noqa: BLE001  # too large, or nobody is there: theirs to tell
                    self._fail(futures, error)
            with self._lock:
                self._lock.notify_all()

    def _send(
        self, request: Submit, futures: Sequence[JobFuture[Any] | None]
    ) -> list[Deferred[Any]]:
        """Send a submit; its deferred results are open before anything can be heard of them."""

        def note(deferreds: list[Deferred[Any]]) -> None:
            self._open.update(zip(deferreds, futures, strict=True))
            for deferred, future in zip(deferreds, futures, strict=True):
                if future is not None:
                    future.job = deferred

        return self._client.submit_expecting(request, self._arrivals, note)

    def _fail(self, futures: Sequence[JobFuture[Any] | None], error: Exception) -> None:
        for future in futures:
            if future is not None and not future.done():
                future.set_exception(self._broken or error)
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
        atexit.unregister(self.shutdown)
        with contextlib.suppress(JobdError):  # a refused submit: its future has told
            self._client.close()
        if self._private is not None:
            self._private.stop()


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


def _results(engine: _Engine, deferreds: list[Deferred[T]], deadline: float | None) -> Iterator[T]:
    """Yield results in order; what is not wanted any more is cancelled."""
    deferreds.reverse()
    try:
        while deferreds:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                value = _value(deferreds[-1], left)
            except DaemonUnreachable:
                engine.refuse_broken()
                raise
            except JobCancelled as error:
                raise CancelledError(error.message) from None
            deferreds.pop()
            yield value
    finally:
        engine.cancel(deferreds)


def _value(deferred: Deferred[T], timeout: float | None) -> T:
    """Return what the job returned, or raise what it raised, as if it had been called here."""
    try:
        value = deferred.result(timeout)
    except JobCrashed as error:
        died = WorkerDied(error.message, error.hint, id=error.id, traceback=error.traceback)
        raise died from None
    except JobFailed as error:
        original = payload.unpickle_exception(error.pickled)
        raised = error if original is None else original
        raise raised from RemoteTraceback(error.traceback)
    if value is None:
        _refuse_exit(deferred)
    return value


def _refuse_exit(deferred: Deferred[Any]) -> None:
    """Raise what the function has raised that exited: here that is no success."""
    ended = deferred._ended  # noqa: SLF001  # ours
    found = payload.exit_of(ended.value) if ended is not None else None
    if found is not None:
        pickled, trace = found
        raise payload.unpickle_exception(pickled) or SystemExit(0) from RemoteTraceback(trace)


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


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk


def _flat(lists: Iterator[list[T]]) -> Iterator[T]:
    for found in lists:
        found.reverse()
        while found:
            yield found.pop()


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as ranges, both ends included."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
