"""The client for asyncio.

It has the names of the client for threads; what may wait is awaited.  ``submit`` sends
without waiting, and what it returns can be awaited for the value:

>>> async with jobd.AsyncClient() as client:
...     value = await client.submit("math:factorial", 20)

What the socket does not take at once stays in line and goes out as the daemon reads.
Everything happens in the event loop that the client was opened in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, overload

from jobd import context
from jobd.client import verbs
from jobd.client.ahead import Ahead
from jobd.client.caller import shown
from jobd.client.calls import graph_call, many_calls, one_call, put_call, with_options
from jobd.client.core import PING_S, Core, Onlooker, OnStuck
from jobd.client.deferred import DeferredBase
from jobd.client.drafts import Draft
from jobd.client.functions import Function
from jobd.client.link import RECONNECT_S, connect, deadline_of, default_socket, gone, left_of
from jobd.client.streams import StreamReader
from jobd.client.verbs import Steps
from jobd.client.waiting import Arrivals, Pending, Waitable
from jobd.model.errors import DaemonUnreachable, JobdError, JobError, TooManyClients
from jobd.model.job import JobInfo
from jobd.model.messages import Apply, Ended, Fetched, GraphInfo, Put, StatusInfo, Submit, Welcome
from jobd.model.options import Said
from jobd.model.queues import QueueInfo
from jobd.model.selector import Selection
from jobd.wire.channel import Channel
from jobd.wire.zmtp import Disconnected, ProtocolError

if TYPE_CHECKING:
    from jobd.client.graphs import Graph
    from jobd.client.options import Duration, Options

T = TypeVar("T")
R = TypeVar("R")


class _Soon(Generic[R]):
    """What a property that may have to wait returns: nothing is asked until it is awaited."""

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, R]]) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, None, R]:
        return self._begin().__await__()


class AsyncDeferred(DeferredBase[T]):
    """A deferred result: a job's id, and its value once there is one; awaited, it is the value."""

    __slots__ = ()
    _client: AsyncClient

    @property
    def id(self) -> Awaitable[int]:
        """The job's id, once the job is durable.

        Raises:
            JobdError: the submit was refused.
        """
        client = self._client
        return _Soon(lambda: client._run(verbs.identify(self), client.timeout_s))  # noqa: SLF001  # a part of its client

    @property
    def state(self) -> Awaitable[str]:
        """The name of the state that the job is in now, as ``jobd ls`` shows it; asks the daemon.

        Raises:
            JobdError: the submit was refused.
        """
        client = self._client
        return _Soon(lambda: client._run(verbs.state(client._core, self)))  # noqa: SLF001  # as above

    async def result(self, timeout: float | None = None) -> T:  # noqa: ASYNC109  # as with threads
        """Return what the function returned, waiting up to ``timeout`` seconds (None: for ever).

        Raises:
            JobFailed, JobCrashed, JobCancelled, JobAborted: the job ended without a result.
            WaitTimeout: it has not ended in time; it goes on.
        """
        value: T = await self._client._run(verbs.result(self._client._core, self), timeout)  # noqa: SLF001  # as above
        return value

    def __await__(self) -> Generator[Any, None, T]:
        return self.result().__await__()

    def __aiter__(self) -> AsyncStream:
        """Consume what a generator function produces while it runs; at the end raises as ``result``.

        Leaving the loop early ends the job, unless somebody else consumes it too.
        """
        return AsyncStream(self._client, self)

    async def exception(self, timeout: float | None = None) -> JobError | None:  # noqa: ASYNC109  # as above
        """Return what ``result`` raises because of how the job ended, or None if it succeeded.

        Raises:
            WaitTimeout: it has not ended within ``timeout`` seconds; it goes on.
        """
        return await self._client._run(verbs.exception(self._client._core, self), timeout)  # noqa: SLF001  # as above

    async def cancel(
        self, reason: str = "", *, grace: Duration | None = None, now: bool = False
    ) -> bool:
        """Cancel the job, or stop it if it runs; return False if it had ended already.

        See ``jobd.Client.cancel``.
        """
        steps = verbs.cancel_one(self._client._core, self, reason, grace, now=now)  # noqa: SLF001  # as above
        return await self._client._run(steps)  # noqa: SLF001  # as above

    async def hold(self) -> bool:
        """Set the job aside until it is released; return False if it has started already, or is over."""
        return await self._client._run(verbs.hold_one(self._client._core, self))  # noqa: SLF001  # as above

    async def release(self) -> bool:
        """Let the job go; return False if it is not held."""
        return await self._client._run(verbs.release_one(self._client._core, self))  # noqa: SLF001  # as above


class AsyncStream(AsyncIterator[Any]):
    """A pass over the items of a stream.

    Raises (from the iteration):
        JobFailed, JobCrashed, JobCancelled: the job has ended so, after its last item.
        UsageError: the job is no stream.
    """

    def __init__(self, client: AsyncClient, deferred: AsyncDeferred[Any]) -> None:
        self._client = client
        self._reader = StreamReader(client._core, deferred)  # noqa: SLF001  # a part of its client

    async def __anext__(self) -> Any:
        data = await self.read_encoded()
        if data is None:
            self._reader.check()
            raise StopAsyncIteration
        return self._reader.decode(data)

    async def read_encoded(self) -> bytes | None:
        """Return the next item as it is stored; None: there is no more, and ``ended`` tells why."""
        return await self._client._run(self._reader.read())  # noqa: SLF001  # as above

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


class AsyncSubmitter:
    """What submits: a client, or one with options."""

    __slots__ = ()

    _options: Said | None

    def _submit(self, request: Submit | Apply) -> list[AsyncDeferred[Any]]:
        raise NotImplementedError

    def _draft(self) -> Draft | None:
        raise NotImplementedError

    @overload
    def submit(
        self, function: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any
    ) -> AsyncDeferred[T]: ...
    @overload
    def submit(
        self, function: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> AsyncDeferred[T]: ...
    @overload
    def submit(self, function: str, /, *args: Any, **kwargs: Any) -> AsyncDeferred[Any]: ...
    def submit(self, function: Function, /, *args: Any, **kwargs: Any) -> AsyncDeferred[Any]:
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
    ) -> list[AsyncDeferred[T]]: ...
    @overload
    def submit_many(
        self, function: Callable[..., T], calls: Iterable[Sequence[Any]], /
    ) -> list[AsyncDeferred[T]]: ...
    @overload
    def submit_many(
        self, function: str, calls: Iterable[Sequence[Any]], /
    ) -> list[AsyncDeferred[Any]]: ...
    def submit_many(
        self, function: Function, calls: Iterable[Sequence[Any]], /
    ) -> list[AsyncDeferred[Any]]:
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
        iterable: Iterable[Any],
        /,
        timeout: float | None = None,
        buffersize: int | None = None,
    ) -> AsyncIterator[T]: ...
    @overload
    def map(
        self,
        function: Callable[..., T],
        iterable: Iterable[Any],
        /,
        timeout: float | None = None,
        buffersize: int | None = None,
    ) -> AsyncIterator[T]: ...
    @overload
    def map(
        self,
        function: str,
        iterable: Iterable[Any],
        /,
        timeout: float | None = None,
        buffersize: int | None = None,
    ) -> AsyncIterator[Any]: ...
    def map(
        self,
        function: Function,
        iterable: Iterable[Any],
        /,
        timeout: float | None = None,
        buffersize: int | None = None,
    ) -> AsyncIterator[Any]:
        """Submit a call for each item and yield the results in order.

        If the iterable knows its length (a list, a range) all are submitted before this returns; of any
        other, which may be endless, 10,000 at most that were not yielded: more are as results are taken.
        ``buffersize`` is that number for both.  ``timeout`` is in seconds, for the whole, from now.

        Raises:
            UsageError: the function or an item cannot travel; what was submitted before goes on.
        """
        deadline = deadline_of(timeout)

        def submit(calls: list[tuple[Any]]) -> list[AsyncDeferred[Any]]:
            return self._submit(many_calls(function, calls, self._options, self._draft()))

        return _results(Ahead(iterable, submit, buffersize), deadline)

    def apply(self, graph: Graph) -> dict[str, AsyncDeferred[Any]]:
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


class AsyncClientWithOptions(AsyncSubmitter):
    """A client that says something of every job that it submits."""

    __slots__ = ("_client", "_options")

    def __init__(self, client: AsyncClient, options: Said) -> None:
        self._client = client
        self._options = options

    def options(self, **options: Unpack[Options]) -> AsyncClientWithOptions:
        """Return the same client with more options, or others."""
        return AsyncClientWithOptions(self._client, with_options(self._options, options))

    def _submit(self, request: Submit | Apply) -> list[AsyncDeferred[Any]]:
        return self._client._submit(request)  # noqa: SLF001  # a part of it

    def _draft(self) -> Draft | None:
        return self._client._draft()  # noqa: SLF001  # a part of it

    def __repr__(self) -> str:
        return f"<{self._client!r} with {shown(self._options)}>"


class AsyncClient(AsyncSubmitter):
    """A connection to a daemon; ``async with`` opens and closes it.

    Args:
        socket: the daemon's socket, ``tcp://…`` or ``ssh://…``; None: as the settings say (``JOBD_SOCKET`` …).
        timeout_s: how long to wait for an answer, or for a daemon that restarts.
    """

    _options = None

    def __init__(self, socket: str | None = None, *, timeout_s: float = 30.0) -> None:
        self.socket = socket or default_socket()
        self.timeout_s = timeout_s
        self._core: Core[AsyncDeferred[Any]] = Core(AsyncDeferred)
        self._loop: asyncio.AbstractEventLoop
        self._transport: Channel | None = None
        self._waiting: set[asyncio.Future[bool]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._reconnection: asyncio.Task[None] | None = None
        self._error: JobdError | None = DaemonUnreachable(
            "this client is not open", "use 'async with'"
        )

    def options(self, **options: Unpack[Options]) -> AsyncClientWithOptions:
        """Return this client with options for the jobs that it submits.

        Args:
            options: see ``jobd.client.options.Options``.

        Raises:
            UsageError: there is no such option, or it is of another type.
        """
        return AsyncClientWithOptions(self, with_options(None, options))

    @property
    def welcome(self) -> Welcome:
        """What the daemon said of itself when this client connected to it."""
        return self._core.welcome

    # -- submitting --

    def put(self, value: T) -> AsyncDeferred[T]:
        """Hand a value to the daemon, as the result of a job that has succeeded.

        Given to several jobs as an argument it is stored once, and a large array is mapped by all of them.

        Raises:
            UsageError: it cannot travel.
            DiskFull: there is no room for it.
        """
        return self._submit(put_call(value, self._draft()))[0]

    def _draft(self) -> Draft | None:
        return self._core.files.draft()

    def _submit(self, request: Submit | Put | Apply) -> list[AsyncDeferred[Any]]:
        self._refuse_closed()
        submission = self._core.submit(request)
        self._send(submission.frame)
        return self._core.promise(self, submission)

    async def flush(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # as with threads
        """Wait until every submit is durable.

        Raises:
            JobdError: one was refused, and nobody has looked at it.
        """
        await self._run(verbs.flush(self._core), timeout)

    # -- results --

    def attach(self, number: int) -> AsyncDeferred[Any]:
        """Return the deferred result of a job that anybody has submitted."""
        return self._core.attach(self, number)

    async def result(self, number: int, timeout: float | None = None) -> Any:  # noqa: ASYNC109  # as with threads
        """Return the value of a job, waiting up to ``timeout`` seconds (None: for ever).

        Raises:
            NotFound: there is no such job.
            JobFailed, JobCrashed, JobCancelled, WaitTimeout: as ``AsyncDeferred.result``.
        """
        return await self.attach(number).result(timeout)

    async def wait(
        self,
        numbers: Iterable[int],
        timeout_s: float | None = None,
        *,
        progress: Onlooker | None = None,
        stuck: OnStuck | None = None,
    ) -> dict[int, Ended]:
        """Wait until these jobs have ended, and return how; told by the daemon, never polled.

        ``progress`` is called with the id and the progress (``done``, ``total``, ``text``) of a
        job that says how far it is (``jobd.progress``).

        ``stuck`` is called likewise, with the id and an ``AtBound``, if a job (or an input of it)
        is a stream that waits at its bound, and goes on only once somebody consumes it.

        Raises:
            NotFound: one of them does not exist.
            WaitTimeout: one has not ended in time.
        """
        deferreds = [self.attach(number) for number in numbers]
        self._core.onlooker, self._core.on_stuck = progress, stuck
        try:
            return await self._run(verbs.ends(self._core, deferreds), timeout_s)
        finally:
            self._core.onlooker = self._core.on_stuck = None

    def as_completed(
        self, deferreds: Iterable[AsyncDeferred[T]], timeout: float | None = None
    ) -> AsyncIterator[AsyncDeferred[T]]:
        """Yield deferred results as they get done, refused ones too; each once.

        Raises:
            WaitTimeout: ``timeout`` seconds after the call some are not done.
            NotFound: one that was attached does not exist.
        """
        return self._arrivals(list(dict.fromkeys(deferreds)), deadline_of(timeout), timeout)

    async def _arrivals(
        self, deferreds: list[AsyncDeferred[T]], deadline: float | None, within_s: float | None
    ) -> AsyncIterator[AsyncDeferred[T]]:
        await self._run(verbs.watch(self._core, deferreds))
        arrivals: Arrivals[AsyncDeferred[T]] = Arrivals(within_s)
        arrivals.expect(deferreds)
        for _ in deferreds:
            yield await self._run(verbs.arrival(arrivals), left_of(deadline))

    async def take(self, number: int, timeout: float | None = None) -> Any:  # noqa: ASYNC109  # as with threads
        """Consume the value of a job, once it has ended: nobody else can read it afterwards.

        Raises:
            JobFailed, JobCrashed, JobCancelled, JobAborted: the job ended without a result.
            AlreadyTaken: somebody else has consumed it.
            ResultExpired: it was kept for long enough.
            WaitTimeout: the job has not ended within ``timeout`` seconds.
        """
        return await self._run(verbs.take_value(self._core, self.attach(number)), timeout)

    async def fetch(self, number: int) -> Fetched:
        """Return a job's state as it is now, and its result if it has one."""
        return await self._run(verbs.fetch(self._core, number))

    # -- the other verbs --

    async def find(self, selection: Selection) -> list[JobInfo]:
        """Return the selected jobs with all details, the newest first."""
        return await self._run(verbs.find(self._core, selection))

    async def page(
        self, selection: Selection, limit: int, before: int = 0
    ) -> tuple[list[JobInfo], bool]:
        """Return up to ``limit`` jobs, the newest first, and whether there are older ones."""
        return await self._run(verbs.page(self._core, selection, limit, before))

    async def cancel(
        self,
        selection: Selection,
        reason: str = "",
        *,
        grace: Duration | None = None,
        now: bool = False,
    ) -> list[tuple[int, str]]:
        """Cancel jobs; return for each ``cancelled``, ``stopping`` or ``already finished``.

        ``grace`` and ``now`` as for ``jobd.Client.cancel``.
        """
        return await self._run(verbs.cancel(self._core, selection, reason, grace, now=now))

    async def hold(self, selection: Selection) -> list[tuple[int, str]]:
        """Set jobs aside until they are released; see ``jobd.Client.hold``."""
        return await self._run(verbs.hold(self._core, selection))

    async def release(self, selection: Selection) -> list[tuple[int, str]]:
        """Let jobs go that are held; see ``jobd.Client.release``."""
        return await self._run(verbs.release(self._core, selection))

    async def retry(self, selection: Selection, args: bytes = b"") -> list[tuple[int, str]]:
        """Queue jobs again that ended without a result; return what became of each.

        ``args`` is another call for the one job that is selected, encoded as JSON.
        """
        return await self._run(verbs.retry(self._core, selection, args))

    async def graph(self, number: int, limit: int = 50) -> GraphInfo:
        """Return a job with those that it comes after and those that come after it, all the way.

        ``limit`` is how many jobs are wanted in each of the two directions, the nearest ones first.
        """
        return await self._run(verbs.graph(self._core, number, limit))

    async def status(self) -> StatusInfo:
        """Return how the daemon is."""
        return await self._run(verbs.status(self._core))

    async def logs(
        self, number: int, *, attempt: int = 0, follow: bool = False
    ) -> AsyncIterator[bytes]:
        """Yield what an attempt (0: the latest) wrote; with ``follow`` until the job has ended."""
        reader = verbs.LogReader(self._core, number, attempt, follow=follow)
        while not reader.over:
            if data := await self._run(reader.read()):
                yield data

    # -- queues --

    async def queues(self, *names: str) -> list[QueueInfo]:
        """Return how these queues are, or all of them: their rules, and how many jobs run and wait.

        Raises:
            NotFound: one of them is not there.
        """
        return await self._run(verbs.queues(self._core, names))

    async def set_queue(
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
        return await self._run(change)

    async def pause(self, name: str) -> QueueInfo:
        """Start no more jobs of this queue, also after a restart; what runs goes on.

        Raises:
            NotFound: there is no such queue.
        """
        return await self._run(verbs.pause(self._core, name, paused=True))

    async def resume(self, name: str) -> QueueInfo:
        """Start jobs of this queue again.

        Raises:
            NotFound: there is no such queue.
        """
        return await self._run(verbs.pause(self._core, name, paused=False))

    async def remove_queue(self, name: str) -> None:
        """Forget a queue that ``set_queue`` has made.

        Raises:
            NotFound: there is no such queue.
            UsageError: the settings have it, or it is ``default``.
            QueueBusy: jobs of it have not ended.
        """
        await self._run(verbs.remove_queue(self._core, name))

    # -- the daemon --

    async def ping(self) -> float:
        """Return how many seconds the daemon takes to answer."""
        began = time.monotonic()
        await self._run(verbs.ping(self._core))
        return time.monotonic() - began

    async def reload(self) -> None:
        """Have every worker replaced as soon as its job is done."""
        await self._run(verbs.reload(self._core))

    async def stop(self, drain_s: float | None = None, timeout: float | None = None) -> None:  # noqa: ASYNC109  # as with threads
        """End the daemon, and wait until it has ended; running jobs get ``drain_s`` seconds."""
        await self._run(verbs.stop(self._core, drain_s), timeout)

    # -- opening and closing --

    async def open(self) -> None:
        """Connect; ``async with`` does it.

        Raises:
            DaemonUnreachable: no daemon answers there.
            TooManyClients: it serves no more of them.
            Denied: the socket is somebody else's.
        """
        self._loop = asyncio.get_running_loop()
        await self._connect(self.timeout_s)
        self._error = None
        self._timer = self._loop.call_later(PING_S, self._ping)

    async def close(self) -> None:
        """Wait until every submit is durable, and disconnect."""
        if self._error is not None:
            return
        try:
            await self.flush(self.timeout_s)
        finally:
            self._hang_up()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, trace: object
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            await self.close()
        else:
            self._hang_up()  # cancelled: what was sent is on its way, nothing more is waited for

    def __repr__(self) -> str:
        return f"<jobd.AsyncClient {self.socket}{' closed' if self._error else ''}>"

    def _hang_up(self, error: JobdError | None = None) -> None:
        """Disconnect for good; whoever waits is told why."""
        self._error = DaemonUnreachable("this client is closed", "make a new one")
        self._disconnect()
        self._core.files.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._reconnection is not None:
            self._reconnection.cancel()
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(error or self._error)

    def _refuse_closed(self) -> None:
        if self._error is not None:
            raise type(self._error)(self._error.message, self._error.hint)

    # -- the connection --

    async def _connect(self, timeout_s: float) -> None:
        """Connect in a thread: a daemon that is busy or stopped must not keep the loop."""
        made = self._loop.run_in_executor(None, connect, self.socket, timeout_s)
        try:
            transport, welcome = await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(_drop)
            raise
        self._transport = transport
        self._core.connected(welcome)
        self._loop.add_reader(transport.fileno(), self._on_readable)

    def _disconnect(self) -> None:
        if self._transport is not None:
            self._loop.remove_reader(self._transport.fileno())
            self._loop.remove_writer(self._transport.fileno())
            self._transport.close()
            self._transport = None

    def _on_readable(self) -> None:
        if self._transport is None:
            return
        try:
            frames = self._transport.receive(0)
        except (Disconnected, ProtocolError):
            self._lost()
            return
        for frame in frames:
            for again in self._core.take(frame):
                self._send(again)
        if self._core.owes_ping:
            self._send(self._core.ping())
        self._write_on()

    def _on_writable(self) -> None:
        if self._transport is not None:
            self._transport.flush()
            self._write_on()

    def _send(self, frame: bytes) -> None:
        if self._transport is not None:  # else it goes out with all that is not answered
            self._transport.post(frame)
            self._write_on()

    def _say(self, frame: bytes) -> None:
        """Send a message without an answer; also from a finalizer, which any thread may run."""
        if self._error is None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._send, frame)

    def _write_on(self) -> None:
        """Be called when more can be written, as long as there is more."""
        if self._transport is None:
            return
        if self._transport.unsent:
            self._loop.add_writer(self._transport.fileno(), self._on_writable)
        else:
            self._loop.remove_writer(self._transport.fileno())
        if self._transport.has_read:  # of which its descriptor tells no more
            self._loop.call_soon(self._on_readable)

    def _ping(self) -> None:
        if self._waiting:
            self._send(self._core.ping())
        self._timer = self._loop.call_later(PING_S, self._ping)

    def _lost(self) -> None:
        self._disconnect()
        if self._core.hung_up():
            self._hang_up()
        elif self._reconnection is None:
            self._reconnection = self._loop.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        """Connect again, for as long as ``timeout_s``, and repeat what was not answered."""
        deadline = self._loop.time() + self.timeout_s
        try:
            while self._transport is None:
                try:
                    await self._connect(deadline - self._loop.time())
                except (DaemonUnreachable, TooManyClients) as error:
                    if self._loop.time() >= deadline:
                        self._hang_up(gone(self.socket, self.timeout_s, error))
                        return
                    await asyncio.sleep(RECONNECT_S)
            for frame in self._core.repeat():
                self._send(frame)
        except JobdError as error:
            self._hang_up(error)
        finally:
            self._reconnection = None

    # -- waiting --

    async def _run(self, steps: Steps[R], timeout_s: float | None = None) -> R:
        """Carry out a verb, whose waits for jobs may take ``timeout_s`` in all (None: for ever).

        Raises:
            WaitTimeout: something was not done in time.
        """
        deadline = deadline_of(timeout_s)
        lent = None
        try:
            while True:
                step = next(steps)
                if isinstance(step, Pending) and not step.sent:
                    self._refuse_closed()
                    self._core.begin(step)
                    self._send(step.frame)
                if context.host is not None and lent is None:
                    lent = await self._lend(step, left_of(deadline))
                limit = left_of(deadline) if step.patient else self.timeout_s
                if not step.done() and not await self._await(step, limit):
                    raise step.late(timeout_s if step.patient else limit)
        except StopIteration as end:
            value: R = end.value
            return value
        finally:
            context.end_wait(lent)

    async def _lend(self, step: Waitable, timeout_s: float | None) -> object | None:
        """Lend the slot of the job that this runs in, if it is about to wait for others."""
        if step.awaited is None or step.done() or timeout_s == 0:
            return None
        answered = asyncio.Event()
        refusals: list[JobdError] = []

        def told(error: JobdError | None) -> None:
            if error is not None:
                refusals.append(error)
            self._loop.call_soon_threadsafe(answered.set)

        lent = context.begin_wait(step.awaited, self.socket, told)
        limit = context.ANSWER_S if timeout_s is None else min(context.ANSWER_S, timeout_s)
        try:
            async with asyncio.timeout(limit):
                await answered.wait()
        except TimeoutError:
            pass  # the daemon may be restarting: the wait begins all the same
        except BaseException:
            context.end_wait(lent)
            raise
        if refusals:
            context.end_wait(lent)
            raise refusals[0]
        return lent

    async def _await(self, step: Waitable, limit_s: float | None) -> bool:
        """Wait until something is done; return False if it is late."""
        self._refuse_closed()
        future: asyncio.Future[bool] = self._loop.create_future()

        def wake(_: object) -> None:
            if not future.done():
                future.set_result(True)

        def give_up() -> None:
            self._on_readable()  # the last look
            if not future.done():
                future.set_result(False)

        timer = None if limit_s is None else self._loop.call_later(limit_s, give_up)
        self._waiting.add(future)
        step.call_when_done(wake)
        try:
            return await future
        finally:
            self._waiting.discard(future)
            step.forget(wake)
            if timer is not None:
                timer.cancel()


async def _results(ahead: Ahead[AsyncDeferred[Any]], deadline: float | None) -> AsyncIterator[Any]:
    while ahead.has_more:
        yield await ahead.take().result(left_of(deadline))  # as with threads


def _drop(made: asyncio.Future[tuple[Channel, Welcome]]) -> None:
    """Close a connection that came when nobody wanted it any more."""
    if not made.cancelled() and made.exception() is None:
        made.result()[0].close()
