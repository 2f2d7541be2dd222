"""What a client for threads can be asked for, and what it gives back.

Made by ``scripts/unasync.py`` of ``aio_api``: change that, and run ``make format``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
    Sized,
)
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from jobd.client import verbs
from jobd.client.ahead import Ahead
from jobd.client.asking import Steps, identify
from jobd.client.batches import FAILURES, Progress, Reader, await_end, unsuccessful
from jobd.client.caller import shown, travelling
from jobd.client.calls import (
    array_call,
    array_submit,
    graph_call,
    many_calls,
    one_call,
    put_call,
    with_options,
)
from jobd.client.core import Core, Onlooker, OnStuck
from jobd.client.deferred import DeferredBase, value_of
from jobd.client.functions import Function, Shape
from jobd.client.link import deadline_of, left_of
from jobd.client.waiting import Arrivals
from jobd.inputs import Input
from jobd.model.errors import JobError, UsageError
from jobd.model.job import ITEMS, ArraySpec, JobInfo
from jobd.model.messages import Apply, Ended, Fetched, GraphInfo, Put, StatusInfo, Submit, Welcome
from jobd.model.options import Said, edges_of, encode_options
from jobd.model.queues import QueueInfo
from jobd.model.selector import Selection

if TYPE_CHECKING:
    from jobd.client.drafts import Draft
    from jobd.client.graphs import Graph
    from jobd.client.options import Duration, Options

T = TypeVar("T")
R = TypeVar("R")


class Deferred(DeferredBase[T]):
    """A deferred result: a job's id, and its value once there is one; awaited, it is the value."""

    __slots__ = ()
    _client: Api

    @property
    def id(self) -> int:
        """The job's id, once the job is durable.

        Raises:
            JobdError: the submit was refused.
        """
        client = self._client
        return client._soon(lambda: identify(self), client.timeout_s)  # noqa: SLF001  # a part of its client

    @property
    def state(self) -> str:
        """The name of the state that the job is in now, as ``jobd ls`` shows it; asks the daemon.

        Raises:
            JobdError: the submit was refused.
        """
        client = self._client
        return client._soon(lambda: verbs.state(client._core, self))  # noqa: SLF001  # as above

    def result(self, timeout: float | None = None) -> T:
        """Return what the function returned, waiting up to ``timeout`` seconds (None: for ever).

        Raises:
            JobFailed, JobCrashed, JobCancelled, JobAborted: the job ended without a result.
            WaitTimeout: it has not ended in time; it goes on.
        """
        ended = self._ended
        if ended is not None and ended.inline and ended.value != ITEMS:
            blobs = self._client._core.files.blobs  # noqa: SLF001  # as above
            return value_of(ended, blobs)  # type: ignore[no-any-return]  # T is what the user says
        value: T = self._client._run(verbs.result(self._client._core, self), timeout)  # noqa: SLF001  # as above
        return value

    def __iter__(self) -> Stream:
        """Consume what a generator function produces while it runs; at the end raises as ``result``.

        Leaving the loop early ends the job, unless somebody else consumes it too.
        """
        return Stream(self._client, self)

    def exception(self, timeout: float | None = None) -> JobError | None:
        """Return what ``result`` raises because of how the job ended, or None if it succeeded.

        Raises:
            WaitTimeout: it has not ended within ``timeout`` seconds; it goes on.
        """
        return self._client._run(verbs.exception(self._client._core, self), timeout)  # noqa: SLF001  # as above

    def cancel(self, reason: str = "", *, grace: Duration | None = None, now: bool = False) -> bool:
        """Cancel the job, or stop it if it runs; return False if it had ended already.

        See ``Client.cancel``.
        """
        steps = verbs.cancel_one(self._client._core, self, reason, grace, now=now)  # noqa: SLF001  # as above
        return self._client._run(steps)  # noqa: SLF001  # as above

    def hold(self) -> bool:
        """Set the job aside until it is released; return False if it has started already, or is over."""
        return self._client._run(verbs.hold_one(self._client._core, self))  # noqa: SLF001  # as above

    def release(self) -> bool:
        """Let the job go; return False if it is not held."""
        return self._client._run(verbs.release_one(self._client._core, self))  # noqa: SLF001  # as above


class Stream(Iterator[Any]):
    """A pass over the items of a stream, for one consumer.

    Raises (from the iteration):
        JobFailed, JobCrashed, JobCancelled: the job has ended so, after its last item.
        UsageError: the job is no stream.
    """

    def __init__(self, client: Api, deferred: Deferred[Any]) -> None:
        from jobd.client.streams import StreamReader  # noqa: PLC0415  # most commands need none

        self._client = client
        self._reader = StreamReader(client._core, deferred)  # noqa: SLF001  # a part of its client

    def __next__(self) -> Any:
        data = self.read_encoded()
        if data is None:
            self._reader.check()
            raise StopIteration
        return self._reader.decode(data)

    def read_encoded(self) -> bytes | None:
        """Return the next item as it is stored; None: there is no more, and ``ended`` tells why."""
        return self._client._run(self._reader.read())  # noqa: SLF001  # as above

    @property
    def missed(self) -> int:
        """How many items had been consumed and deleted before this pass began; known after the first."""
        return self._reader.missed

    @property
    def ended(self) -> Ended | None:
        """How the job ended, once the stream is over."""
        return self._reader.ended

    def close(self) -> None:
        """Want no more: unless somebody else consumes the stream, its generator is closed too."""
        self._leave(close=True)

    def detach(self) -> None:
        """Want no more for now: the generator waits at its bound until somebody comes."""
        self._leave(close=False)

    def _leave(self, *, close: bool) -> None:
        frame = self._reader.leave(close=close)
        if frame is not None:
            self._client._say(frame)  # noqa: SLF001  # as above

    def __del__(self) -> None:
        self.close()  # the usual way to leave a loop early


class Batch(Iterator[T]):
    """An array: one job, an item for each call.  Iterating it yields the results in the order of the items.

    Where an item has ended without a result, the iteration raises what ``Deferred.result`` would,
    and can go on with the next.

    Raises (from the iteration):
        JobFailed, JobCrashed, JobCancelled, JobAborted: the item at hand has ended so.
        WaitTimeout: the time that ``map`` was given is over.
    """

    def __init__(self, client: Api, deferred: Deferred[Any], deadline: float | None = None) -> None:
        self._client = client
        self._deferred = deferred
        self._deadline = deadline
        self._reader = Reader(client._core, deferred)  # noqa: SLF001  # a part of its client
        self._ready = self._reader.ready

    @property
    def id(self) -> int:
        """The array's number, once it is durable; its items are ``7/0``, ``7/1`` and so on.

        Raises:
            JobdError: the submit was refused.
        """
        return self._deferred.id

    @property
    def deferred(self) -> Deferred[list[T]]:
        """The array as a job: other jobs may come after it, or have all its results as an argument."""
        return self._deferred

    def __iter__(self) -> Batch[T]:
        return self

    def __next__(self) -> T:
        if not self._ready:
            found = self._client._run(self._reader.fill(), left_of(self._deadline))  # noqa: SLF001  # as above
            if not found:
                raise StopIteration
        value = self._ready.popleft()[1]
        if type(value) in FAILURES:
            raise value.error()
        return value  # type: ignore[no-any-return]  # T is what the user says

    def as_completed(
        self,
        timeout: float | None = None,
    ) -> Iterator[Deferred[T]]:
        """Yield the items as they end, all of them, each as a deferred result that is done.

        Raises:
            WaitTimeout: after ``timeout`` seconds some have not ended.
        """
        reader = Reader(self._client._core, self._deferred, ordered=False)  # noqa: SLF001  # as above
        deadline = deadline_of(timeout)
        while self._client._run(reader.fill(encoded=True), left_of(deadline)):  # noqa: SLF001  # as above
            while reader.ready:
                ended = reader.ready.popleft()[1]
                yield self._client._ended(ended)  # noqa: SLF001  # as above

    def ends(self, timeout: float | None = None) -> Iterator[Ended]:
        """Yield how each item has ended, in their order, its value encoded as it is stored.

        Raises:
            WaitTimeout: after ``timeout`` seconds some have not ended.
        """
        reader = Reader(self._client._core, self._deferred)  # noqa: SLF001  # as above
        deadline = deadline_of(timeout)
        while self._client._run(reader.fill(encoded=True), left_of(deadline)):  # noqa: SLF001  # as above
            while reader.ready:
                yield reader.ready.popleft()[1]

    def results(self, timeout: float | None = None) -> list[T]:
        """Return all results, in the order of the items, once the array has ended.

        Raises:
            JobFailed, JobCrashed, JobCancelled, JobAborted: an item has ended so, the first of those.
            WaitTimeout: it has not ended within ``timeout`` seconds.
        """
        reader = Batch[T](self._client, self._deferred, deadline_of(timeout))
        return reader._all()  # ours

    def _all(self) -> list[T]:
        found: list[T] = []
        for value in self:
            found += (value,)
        return found

    def wait(self, timeout: float | None = None) -> Progress:
        """Return how the items are once all have ended, however.

        Raises:
            WaitTimeout: they have not within ``timeout`` seconds.
        """
        self._client._run(await_end(self._client._core, self._deferred), timeout)  # noqa: SLF001  # as above
        return self.progress()

    def progress(self) -> Progress:
        """Return how many items are in which state now."""
        (info,) = self._client.find(self._deferred.id)
        assert info.array is not None
        return Progress.of(info.array)

    def failed(self) -> list[JobInfo]:
        """Return the items that have ended without a result, the first one first, with all details."""
        number = self._deferred.id
        found = self._client.find(unsuccessful(number))
        return found[::-1]

    def cancel(self, reason: str = "") -> list[tuple[int, str]]:
        """Cancel all items that have not ended; see ``Client.cancel``."""
        return self._client.cancel(self._deferred.id, reason)

    def retry(self) -> list[tuple[int, str]]:
        """Give all items another round that have ended without a result; see ``Client.retry``."""
        self._reader = Reader(self._client._core, self._deferred)  # noqa: SLF001  # as above
        self._ready = self._reader.ready
        return self._client.retry(unsuccessful(self._deferred.id))

    def __repr__(self) -> str:
        return f"<jobd.{type(self).__name__} {self._deferred!r}>"


class Submitter:
    """What submits: a client, or one with options."""

    __slots__ = ()

    _options: Said | None

    def _submit(self, request: Submit | Apply) -> list[Deferred[Any]]:
        raise NotImplementedError

    def _draft(self) -> Draft | None:
        raise NotImplementedError

    @overload
    def submit(
        self, function: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any
    ) -> Deferred[T]: ...
    @overload
    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Deferred[T]: ...
    @overload
    def submit(self, function: str, /, *args: Any, **kwargs: Any) -> Deferred[Any]: ...
    def submit(self, function: Function, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Submit a call of a function, or of ``"module:func"``; every argument is the function's own.

        Deferred results may be among the arguments, at any depth: the job gets their values, and
        waits for them without keeping a worker.

        Raises:
            UsageError: the function or an argument cannot travel.
        """
        return self._submit(one_call(function, args, kwargs, self._options, self._draft()))[0]

    @overload
    def submit_many(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        calls: Iterable[Sequence[Any]],
        /,
    ) -> list[Deferred[T]]: ...
    @overload
    def submit_many(
        self, function: Callable[..., T], calls: Iterable[Sequence[Any]], /
    ) -> list[Deferred[T]]: ...
    @overload
    def submit_many(
        self, function: str, calls: Iterable[Sequence[Any]], /
    ) -> list[Deferred[Any]]: ...
    def submit_many(
        self, function: Function, calls: Iterable[Sequence[Any]], /
    ) -> list[Deferred[Any]]:
        """Submit one call for each sequence of positional arguments: all are queued or none.

        One message and one commit, whatever their number (up to the daemon's ``max_message_bytes``).

        Raises:
            UsageError: the function or an argument cannot travel.
        """
        request = many_calls(function, calls, self._options, self._draft())
        return [*self._submit(request)] if request.args else []

    @overload
    def map(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        iterable: Collection[Any],
        /,
        timeout: float | None = None,
    ) -> Batch[T]: ...
    @overload
    def map(
        self, function: Callable[..., T], iterable: Collection[Any], /, timeout: float | None = None
    ) -> Batch[T]: ...
    @overload
    def map(
        self, function: str, iterable: Collection[Any], /, timeout: float | None = None
    ) -> Batch[Any]: ...
    @overload
    def map(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        iterable: Iterable[Any],
        /,
        timeout: float | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        function: Callable[..., T],
        iterable: Iterable[Any],
        /,
        timeout: float | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        function: str,
        iterable: Iterable[Any],
        /,
        timeout: float | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]: ...
    def map(
        self,
        function: Function,
        iterable: Iterable[Any],
        /,
        timeout: float | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Submit a call for each item and yield the results in order.

        If the iterable knows its length (a list, a range) they are one *array*, submitted before this
        returns: all or none; see ``Batch``.  Of any other, which may be endless, 10,000 at most are
        submitted that were not yielded: more are as results are taken.  ``buffersize`` is that number,
        for those that know their length too.  ``timeout`` is in seconds, for the whole, from now.

        Raises:
            UsageError: the function or an item cannot travel; what was submitted before goes on.
        """
        deadline = deadline_of(timeout)
        if buffersize is None and isinstance(iterable, Sized):
            request = self._array(function, zip(iterable, strict=False))
            submitted = self._submit(request)
            if request.array is None:
                return _in_order(deque(submitted), deadline)
            return Batch(self._api(), submitted[0], deadline)

        def submit(calls: list[tuple[Any]]) -> list[Deferred[Any]]:
            return self._submit(many_calls(function, calls, self._options, self._draft()))

        return _results(Ahead(iterable, submit, buffersize), deadline)

    def starmap(
        self, function: Function, calls: Iterable[Sequence[Any]], /, timeout: float | None = None
    ) -> Batch[Any]:
        """Do as ``map``, with all positional arguments of each call: ``[(1, 2), (3, 4)]``.

        They are read to their end, and are one array.

        Raises:
            UsageError: an argument is a deferred result, or has to be in a file: see ``submit_many``.
        """
        request = self._array(function, calls)
        if request.array is None:
            raise UsageError(
                "an argument is a deferred result, or too large for an item", "see submit_many"
            )
        return Batch(self._api(), self._submit(request)[0], deadline_of(timeout))

    def _array(self, function: Function, calls: Iterable[Sequence[Any]]) -> Submit:
        return array_call(function, calls, self._options, self._draft(), ArraySpec(0))

    def _api(self) -> Api:
        raise NotImplementedError

    def apply(self, graph: Graph) -> dict[str, Deferred[Any]]:
        """Submit a graph of jobs, from a TOML file or a dictionary of the same form: all are queued or none.

        ``{"jobs": {"load": {"function": …, "args": […], "after": […]}, …}}``; the text ``"@job:load"`` among
        arguments is what that job returns.  Returns the deferred results by name.

        Raises:
            UsageError: the graph makes no sense, or an argument cannot travel.
        """
        from jobd.client import graphs  # noqa: PLC0415  # few need it

        plan = graphs.read(graph)
        deferreds = self._submit(graph_call(plan, self._options, self._draft()))
        return dict(zip(plan.places, deferreds, strict=True))


class ClientWithOptions(Submitter):
    """A client that says something of every job that it submits."""

    __slots__ = ("_client", "_options")

    def __init__(self, client: Api, options: Said) -> None:
        self._client = client
        self._options = options

    def options(self, **options: Unpack[Options]) -> ClientWithOptions:
        """Return the same client with more options, or others."""
        return ClientWithOptions(self._client, with_options(self._options, options))

    def _submit(self, request: Submit | Apply) -> list[Deferred[Any]]:
        return self._client._submit(request)  # noqa: SLF001  # a part of it

    def _draft(self) -> Draft | None:
        return self._client._draft()  # noqa: SLF001  # a part of it

    def _api(self) -> Api:
        return self._client

    def __repr__(self) -> str:
        return f"<{self._client!r} with {shown(self._options)}>"


class Api(Submitter):
    """What a client can be asked for; its driver sends, waits and watches the clock."""

    _options = None
    socket: str
    timeout_s: float
    _core: Core[Deferred[Any]]
    _lock: Any
    """A context manager: what must not be disturbed happens under it."""

    def _draft(self) -> Draft | None:
        return self._core.files.draft()

    def _api(self) -> Api:
        return self

    def _ended(self, ended: Ended) -> Deferred[Any]:
        """Return the deferred result of a job that has ended so."""
        with self._lock:
            deferred = self._core.attach(self, ended.id)
        deferred._ended = ended  # noqa: SLF001  # ours
        return deferred

    def _submit(self, request: Submit | Put | Apply) -> list[Deferred[Any]]:
        raise NotImplementedError

    def _say(self, frame: bytes) -> None:
        raise NotImplementedError

    def _run(self, steps: Steps[R], timeout_s: float | None = None) -> R:
        raise NotImplementedError

    def _soon(self, begin: Callable[[], Steps[R]], timeout_s: float | None = None) -> R:
        raise NotImplementedError

    def options(self, **options: Unpack[Options]) -> ClientWithOptions:
        """Return this client with options for the jobs that it submits.

        Args:
            options: see ``jobd.client.options.Options``.

        Raises:
            UsageError: there is no such option, or it is of another type.
        """
        return ClientWithOptions(self, with_options(None, options))

    @property
    def welcome(self) -> Welcome:
        """What the daemon said of itself when this client connected to it."""
        return self._core.welcome

    # -- submitting --

    def put(self, value: T) -> Deferred[T]:
        """Hand a value to the daemon, as the result of a job that has succeeded.

        Given to several jobs as an argument it is stored once, and a large array is mapped by all of them.

        Raises:
            UsageError: it cannot travel.
            DiskFull: there is no room for it.
        """
        return self._submit(put_call(value, self._draft()))[0]

    def submit_encoded(  # noqa: PLR0913  # what a submit says
        self,
        function: str,
        calls: list[bytes],
        shapes: list[Shape],
        *,
        inputs: Sequence[list[Input]] = (),
        options: Said | None = None,
        check: bool = True,
        watch: bool = False,
    ) -> list[Deferred[Any]]:
        """Submit calls whose arguments are encoded already (``jobd.payload.encode_call``).

        ``shapes`` has each count of positional arguments and names of keyword arguments that
        occurs, ``inputs`` each call's inputs, ``options`` what ``parse_options`` makes; ``watch``
        has the ends pushed without being asked for one by one.
        """
        request = Submit(0, b"", function, calls, shapes, check, watch)
        if any(inputs):
            request.inputs = list(inputs)
        if options:
            request.options, request.after = encode_options(travelling(options)), edges_of(options)
        return [*self._submit(request)]

    def submit_array(  # noqa: PLR0913  # what a submit says
        self,
        function: str,
        chunks: list[tuple[int, bytes]],
        shapes: list[Shape],
        spec: ArraySpec,
        *,
        inputs: list[Input] | None = None,
        options: Said | None = None,
        check: bool = True,
    ) -> Batch[Any]:
        """Submit an array of calls that are encoded already (``jobd.model.stretch``), as ``submit_encoded``."""
        request = array_submit(function, chunks, shapes, spec, inputs or [], options)
        request.check = check
        return Batch(self, self._submit(request)[0])

    def submit_graph(self, request: Apply) -> list[Deferred[Any]]:
        """Submit a graph that is encoded already (``jobd.client.calls.graph_call``)."""
        return [*self._submit(request)]

    def try_graph(self, request: Apply) -> None:
        """Have a graph checked by the daemon, and nothing queued.

        Raises:
            JobdError: it would be refused.
        """
        self._run(verbs.try_graph(self._core, request))

    def flush(self, timeout: float | None = None) -> None:
        """Wait until every submit is durable.

        Raises:
            JobdError: one was refused, and nobody has looked at it.
        """
        self._run(verbs.flush(self._core), timeout)

    # -- results --

    def attach(self, number: int) -> Deferred[Any]:
        """Return the deferred result of a job that anybody has submitted."""
        with self._lock:
            return self._core.attach(self, number)

    def batch(self, number: int) -> Batch[Any]:
        """Return the array of this number that anybody has submitted: its items, from the first one on."""
        return Batch(self, self.attach(number))

    def result(self, number: int, timeout: float | None = None) -> Any:
        """Return the value of a job, waiting up to ``timeout`` seconds (None: for ever).

        Raises:
            NotFound: there is no such job.
            JobFailed, JobCrashed, JobCancelled, WaitTimeout: as ``Deferred.result``.
        """
        return self.attach(number).result(timeout)

    def wait(
        self,
        numbers: Iterable[int],
        timeout_s: float | None = None,
        *,
        progress: Onlooker | None = None,
        stuck: OnStuck | None = None,
    ) -> dict[int, Ended]:
        """Wait until these jobs have ended, and return how; told by the daemon, never polled.

        ``progress`` is called with the id and the progress (``done``, ``total``, ``text``) of a
        job that says how far it is (``jobd.progress``); it may not ask this client for anything.

        ``stuck`` is called likewise, with the id and an ``AtBound``, if a job (or an input of it)
        is a stream that waits at its bound, and goes on only once somebody consumes it.

        Raises:
            NotFound: one of them does not exist.
            WaitTimeout: one has not ended in time.
        """
        deferreds = [self.attach(number) for number in numbers]
        self._core.onlooker, self._core.on_stuck = progress, stuck
        try:
            return self._run(verbs.ends(self._core, deferreds), timeout_s)
        finally:
            self._core.onlooker = self._core.on_stuck = None

    def as_completed(
        self, deferreds: Iterable[Deferred[T]], timeout: float | None = None
    ) -> Iterator[Deferred[T]]:
        """Yield deferred results as they get done, refused ones too; each once.

        Raises:
            WaitTimeout: ``timeout`` seconds after the call some are not done.
            NotFound: one that was attached does not exist.
        """
        return self._arrivals(list(dict.fromkeys(deferreds)), deadline_of(timeout), timeout)

    def _arrivals(
        self, deferreds: list[Deferred[T]], deadline: float | None, within_s: float | None
    ) -> Iterator[Deferred[T]]:
        self._run(verbs.watch(self._core, deferreds))
        arrivals: Arrivals[Deferred[T]] = Arrivals(within_s)
        with self._lock:
            arrivals.expect(deferreds)
        for _ in deferreds:
            yield self._run(verbs.arrival(arrivals), left_of(deadline))

    def take(self, number: int, timeout: float | None = None) -> Any:
        """Consume the value of a job, once it has ended: nobody else can read it afterwards.

        Raises:
            JobFailed, JobCrashed, JobCancelled, JobAborted: the job ended without a result.
            AlreadyTaken: somebody else has consumed it.
            ResultExpired: it was kept for long enough.
            WaitTimeout: the job has not ended within ``timeout`` seconds.
        """
        return self._run(verbs.take_value(self._core, self.attach(number)), timeout)

    def take_encoded(self, number: int) -> Ended:
        """Consume the value of a job that has ended, and return it as it is stored."""
        return self._run(verbs.take(self._core, number, lambda ended: ended))

    def fetch(self, number: int) -> Fetched:
        """Return a job's state as it is now, and its result if it has one."""
        return self._run(verbs.fetch(self._core, number))

    # -- the other verbs --

    def find(self, selection: Selection) -> list[JobInfo]:
        """Return the selected jobs with all details, the newest first."""
        return self._run(verbs.find(self._core, selection))

    def page(self, selection: Selection, limit: int, before: int = 0) -> tuple[list[JobInfo], bool]:
        """Return up to ``limit`` jobs, the newest first, and whether there are older ones."""
        return self._run(verbs.page(self._core, selection, limit, before))

    def cancel(
        self,
        selection: Selection,
        reason: str = "",
        *,
        grace: Duration | None = None,
        now: bool = False,
        only_waiting: bool = False,
    ) -> list[tuple[int, str]]:
        """Cancel jobs; return for each ``cancelled``, ``stopping`` or ``already finished``.

        Args:
            selection: which jobs.
            reason: is kept with them.
            grace: the time between TERM and KILL for those that run; None: as their ``kill_grace`` says.
            now: kill those that run at once. A second cancel can hasten a first one, never slow it down.
            only_waiting: those that a worker has already go on: ``is running``.

        Raises:
            UsageError: the grace is no duration, or there is one although it is to be ``now``.
        """
        cancel = verbs.cancel(
            self._core, selection, reason, grace, now=now, only_waiting=only_waiting
        )
        return self._run(cancel)

    def hold(self, selection: Selection) -> list[tuple[int, str]]:
        """Set jobs aside until they are released; those that have started go on.

        Returns for each ``held``, ``is running`` or ``already finished``.
        """
        return self._run(verbs.hold(self._core, selection))

    def release(self, selection: Selection) -> list[tuple[int, str]]:
        """Let jobs go that are held; each waits then for what it would have waited for.

        Returns for each ``released``, ``is not held``, ``is running``, ``already finished`` or ``has expired``.
        """
        return self._run(verbs.release(self._core, selection))

    def retry(self, selection: Selection, args: bytes = b"") -> list[tuple[int, str]]:
        """Queue jobs again that ended without a result; return what became of each.

        ``args`` is another call for the one job that is selected, encoded as JSON.
        """
        return self._run(verbs.retry(self._core, selection, args))

    def graph(self, number: int, limit: int = 50) -> GraphInfo:
        """Return a job with those that it comes after and those that come after it, all the way.

        ``limit`` is how many jobs are wanted in each of the two directions, the nearest ones first.
        """
        return self._run(verbs.graph(self._core, number, limit))

    def status(self) -> StatusInfo:
        """Return how the daemon is."""
        return self._run(verbs.status(self._core))

    def logs(self, number: int, *, attempt: int = 0, follow: bool = False) -> Iterator[bytes]:
        """Yield what an attempt (0: the latest) wrote; with ``follow`` until the job has ended."""
        reader = verbs.LogReader(self._core, number, attempt, follow=follow)
        while not reader.over:
            if data := self._run(reader.read()):
                yield data

    def set_slots(self, number: int, slots: int) -> None:
        """Change how many items of an array may run at once from now on; 0: any number.  What runs goes on.

        Raises:
            NotFound: there is no such job.
            UsageError: it is no array, or has ended.
        """
        self._run(verbs.set_array(self._core, number, slots))

    # -- queues --

    def queues(self, *names: str) -> list[QueueInfo]:
        """Return how these queues are, or all of them: their rules, and how many jobs run and wait.

        Raises:
            NotFound: one of them is not there.
        """
        return self._run(verbs.queues(self._core, names))

    def set_queue(
        self,
        name: str,
        *,
        slots: int | str | None = None,
        rate: str | int | None = None,
        reset: bool = False,
    ) -> QueueInfo:
        """Change a queue for good, or make it; what runs goes on.  Returns how it is then.

        Args:
            name: the queue.
            slots: how many of its jobs may run at once; 0: no limit, None: as it is.
            rate: how many may start in a time: ``"10/s"``; 0: no limit, None: as it is.
            reset: first forget the slots and the rate that were set before; the settings hold again.

        Raises:
            UsageError: a value cannot be used.
        """
        change = verbs.set_queue(self._core, name, slots, rate, reset=reset)
        return self._run(change)

    def pause(self, name: str) -> QueueInfo:
        """Start no more jobs of this queue, also after a restart; what runs goes on.

        Raises:
            NotFound: there is no such queue.
        """
        return self._run(verbs.pause(self._core, name, paused=True))

    def resume(self, name: str) -> QueueInfo:
        """Start jobs of this queue again.

        Raises:
            NotFound: there is no such queue.
        """
        return self._run(verbs.pause(self._core, name, paused=False))

    def remove_queue(self, name: str) -> None:
        """Forget a queue that ``set_queue`` has made.

        Raises:
            NotFound: there is no such queue.
            UsageError: the settings have it, or it is ``default``.
            QueueBusy: jobs of it have not ended.
        """
        self._run(verbs.remove_queue(self._core, name))

    # -- the daemon --

    def ping(self) -> float:
        """Return how many seconds the daemon takes to answer."""
        began = time.monotonic()
        self._run(verbs.ping(self._core))
        return time.monotonic() - began

    def reload(self) -> None:
        """Have every worker replaced as soon as its job is done."""
        self._run(verbs.reload(self._core))

    def stop(self, drain_s: float | None = None, timeout: float | None = None) -> None:
        """End the daemon, and wait until it has ended; running jobs get ``drain_s`` seconds."""
        self._run(verbs.stop(self._core, drain_s), timeout)


def _in_order(submitted: deque[Deferred[Any]], deadline: float | None) -> Iterator[Any]:
    while submitted:
        yield submitted.popleft().result(left_of(deadline))


def _results(ahead: Ahead[Deferred[Any]], deadline: float | None) -> Iterator[Any]:
    # Each under no name, by which it would be kept meanwhile.
    while ahead.has_more and not ahead.is_over:
        yield ahead.take().result(left_of(deadline))
    submitted = ahead.submitted
    while submitted:  # all is on its way, and nothing is to be decided any more
        yield submitted.popleft().result(left_of(deadline))
    while ahead.has_more:
        ahead.take()  # raises what came of the calls after those
