"""The client for threads.

``submit`` sends at once and does not wait: a thousand submits are on their way
before the first is answered.  The answer, that the job is durable, is waited for
by ``Deferred.id``, ``Deferred.result`` and ``Client.flush``, which leaving the
``with`` block does too; a submit that was refused raises there.

Threads may share a client.  One of those that wait reads the socket, for all.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from jobd import context
from jobd.client import verbs
from jobd.client.ahead import Ahead
from jobd.client.caller import shown, travelling
from jobd.client.calls import graph_call, many_calls, one_call, put_call, with_options
from jobd.client.core import PING_S, Core, Onlooker, OnStuck
from jobd.client.deferred import DeferredBase, value_of
from jobd.client.functions import Function, Shape
from jobd.client.link import RECONNECT_S, connect, deadline_of, default_socket, gone, left_of
from jobd.client.verbs import Steps
from jobd.client.waiting import Arrivals, Pending, Waitable
from jobd.inputs import Input
from jobd.model.errors import DaemonUnreachable, JobError, TooManyClients, UsageError
from jobd.model.job import JobInfo
from jobd.model.messages import Apply, Ended, Fetched, GraphInfo, Put, StatusInfo, Submit, Welcome
from jobd.model.options import Said, edges_of, encode_options
from jobd.model.queues import QueueInfo
from jobd.model.selector import Selection
from jobd.wire.zmtp import Disconnected

if TYPE_CHECKING:
    from jobd.client.drafts import Draft
    from jobd.client.graphs import Graph
    from jobd.client.options import Duration, Options

T = TypeVar("T")
R = TypeVar("R")

READ_EVERY = 64
"""After so many submits a look at what has come, so that the daemon need not drop it."""

SOON_S = 0.0005
"""For so long an answer is looked for without sleeping, if the last one took no longer.

A processor that sleeps wakes up late: the two hand-overs of a lone short job take half of its time.
"""

IS_PARALLEL = len(os.sched_getaffinity(0)) > 1
"""With one processor nobody could answer meanwhile."""


class Deferred(DeferredBase[T]):
    """A deferred result: a job's id, and its value once there is one."""

    __slots__ = ()
    _client: Client

    @property
    def id(self) -> int:
        """The job's id; waits until the job is durable.

        Raises:
            JobdError: the submit was refused.
        """
        return self._id or self._client._identify(self)  # noqa: SLF001  # a part of its client

    @property
    def state(self) -> str:
        """The name of the state that the job is in now, as ``jobd ls`` shows it; asks the daemon.

        Raises:
            JobdError: the submit was refused.
        """
        return self._client._run(verbs.state(self._client._core, self))  # noqa: SLF001  # as above

    def result(self, timeout: float | None = None) -> T:
        """Return what the function returned, waiting up to ``timeout`` seconds (None: for ever).

        Raises:
            JobFailed, JobCrashed, JobCancelled: the job ended without a result.
            WaitTimeout: it has not ended in time; it goes on.
        """
        ended = self._ended
        if ended is not None and ended.inline:
            blobs = self._client._core.files.blobs  # noqa: SLF001  # a part of its client
            return value_of(ended, blobs)  # type: ignore[no-any-return]  # T is what the user says
        value: T = self._client._run(verbs.result(self._client._core, self), timeout)  # noqa: SLF001  # as above
        return value

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

    def __iter__(self) -> Stream:
        """Consume what a generator function produces while it runs; at the end raises as ``result``.

        Leaving the loop early ends the job, unless somebody else consumes it too.
        """
        return Stream(self._client, self)


class Stream(Iterator[Any]):
    """A pass over the items of a stream, for one thread.

    Raises (from the iteration):
        JobFailed, JobCrashed, JobCancelled: the job has ended so, after its last item.
        UsageError: the job is no stream.
    """

    def __init__(self, client: Client, deferred: Deferred[Any]) -> None:
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

        If the iterable knows its length (a list, a range) all are submitted before this returns; of any
        other, which may be endless, 10,000 at most that were not yielded: more are as results are taken.
        ``buffersize`` is that number for both.  ``timeout`` is in seconds, for the whole, from now.

        Raises:
            UsageError: the function or an item cannot travel; what was submitted before goes on.
        """
        deadline = deadline_of(timeout)

        def submit(calls: list[tuple[Any]]) -> list[Deferred[Any]]:
            return self._submit(many_calls(function, calls, self._options, self._draft()))

        return _results(Ahead(iterable, submit, buffersize), deadline)

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

    def __init__(self, client: Client, options: Said) -> None:
        self._client = client
        self._options = options

    def options(self, **options: Unpack[Options]) -> ClientWithOptions:
        """Return the same client with more options, or others."""
        return ClientWithOptions(self._client, with_options(self._options, options))

    def _submit(self, request: Submit | Apply) -> list[Deferred[Any]]:
        return self._client._submit(request)  # noqa: SLF001  # a part of it

    def _draft(self) -> Draft | None:
        return self._client._draft()  # noqa: SLF001  # a part of it

    def __repr__(self) -> str:
        return f"<{self._client!r} with {shown(self._options)}>"


class Client(Submitter):
    """A connection to a daemon.

    Args:
        socket: the daemon's socket, ``tcp://…`` or ``ssh://…``; None: as the settings say (``JOBD_SOCKET`` …).
        timeout_s: how long to wait for an answer, or for a daemon that restarts.
        reconnects: whether another daemon may come when this one is gone.
        errand: the client will only ``ping``, ``status``, ``reload`` and ``stop``: then a daemon that
            has as many clients as it serves answers all the same.

    Raises:
        DaemonUnreachable: no daemon answers there.
        TooManyClients: it serves no more of them.
        Denied: the socket is somebody else's.
    """

    def __init__(
        self,
        socket: str | None = None,
        *,
        timeout_s: float = 30.0,
        reconnects: bool = True,
        errand: bool = False,
    ) -> None:
        self.socket = socket or default_socket()
        self.timeout_s = timeout_s
        self._reconnects = reconnects
        self._errand = errand
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._core: Core[Deferred[Any]] = Core(Deferred)
        self._reading = False
        self._reconnecting = False
        self._is_at_socket = False
        self._unsaid: deque[bytes] = deque()
        """Frames that could not be sent at once, from where they came."""
        self._ping_at = 0.0
        self._comes_soon = False
        """Whether the last wait was so short that sleeping, and waking up, would be most of it."""
        self._closed = False
        self._owner = os.getpid()
        self._connect(timeout_s)
        _clients.add(self)

    _options = None

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

    def _draft(self) -> Draft | None:
        return self._core.files.draft()

    def _submit(self, request: Submit | Put | Apply) -> list[Deferred[Any]]:
        core = self._core
        with self._lock:
            self._refuse_closed()
            submission = core.submit(request)
            self._send(submission.frame)
            deferreds = core.promise(self, submission)
            if submission.first and submission.watch:
                # It had to be sent again, and meanwhile another thread has read the answer, and maybe
                # ends that nobody was there for.
                self._send(core.watch_again(deferred.id for deferred in deferreds))
            if not core.submits % READ_EVERY and not (self._reading or self._reconnecting):
                self._read(0.0)
            return deferreds

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

    def submit_expecting(
        self,
        request: Submit,
        arrivals: Arrivals[Deferred[Any]],
        note: Callable[[list[Deferred[Any]]], object],
    ) -> list[Deferred[Any]]:
        """Submit, and have the deferred results appear among the arrivals as they get done.

        ``note`` is called with them before any of them can.
        """
        with self._lock:
            deferreds = self._submit(request)
            note(deferreds)
            arrivals.expect(deferreds)
        return deferreds

    def arrived(self, arrivals: Arrivals[Deferred[Any]]) -> list[Deferred[Any]]:
        """Wait until something has arrived, and return all that has."""
        self._await(arrivals.done, None)
        with self._lock:
            return arrivals.pop_all()

    def keep(self, deferred: Deferred[Any]) -> None:
        """Have the value of a job that has ended here, so that it can be had without a daemon."""
        ended = deferred._ended  # noqa: SLF001  # ours
        if ended is not None and not ended.inline:  # rarely: without a look each would cost 2 µs
            self._run(verbs.keep(self._core, deferred, ended))

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

    # -- closing --

    def close(self) -> None:
        """Wait until every submit is durable, and disconnect."""
        if self._closed:
            return
        try:
            self.flush(self.timeout_s)
        finally:
            self._hang_up()

    def abandon(self) -> None:
        """Leave the connection to the process that has forked this one: answers to it are its own."""
        self._lock = threading.RLock()  # somebody may have held it who is not here
        self._condition = threading.Condition(self._lock)
        self._closed = True
        self._transport.close()

    def _hang_up(self) -> None:
        self._closed = True
        self._transport.close()
        self._core.files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self.close()
        else:
            self._hang_up()  # Ctrl-C: what was sent is on its way, nothing more is waited for

    def __repr__(self) -> str:
        return f"<jobd.Client {self.socket}{' closed' if self._closed else ''}>"

    # -- the connection --

    def _refuse_closed(self) -> None:
        if self._closed and os.getpid() != self._owner:
            what = f"this client belongs to process {self._owner}, which has forked this one"
            raise UsageError(what, "make a new one after the fork")
        if self._closed:
            raise DaemonUnreachable("this client is closed", "make a new one")

    def _connect(self, timeout_s: float) -> None:
        self._transport, welcome = connect(self.socket, timeout_s, errand=self._errand)
        self._core.connected(welcome)
        self._poll = select.poll()
        self._poll.register(self._transport.fileno(), select.POLLIN)
        self._ping_at = time.monotonic() + PING_S

    def _reconnect(self) -> None:
        """Connect again, for as long as ``timeout_s``, and repeat what was not answered.

        The lock is given up between two attempts: threads that come meanwhile wait for the end.
        """
        if self._core.hung_up():
            self._hang_up()
            return
        if self._reconnecting:
            self._await_reconnection()
            return
        self._reconnecting = True
        try:
            self._find_daemon()
        finally:
            self._reconnecting = False
            self._condition.notify_all()

    def _await_reconnection(self) -> None:
        while self._reconnecting:
            self._condition.wait()
        self._refuse_closed()

    def _find_daemon(self) -> None:
        self._transport.close()
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                self._connect(deadline - time.monotonic())
                self._repeat(self._core.repeat())
            except (DaemonUnreachable, Disconnected, TooManyClients) as error:
                left = deadline - time.monotonic() if self._reconnects else 0.0
                if left <= 0 or self._closed:
                    self._closed = True
                    raise gone(self.socket, self.timeout_s, error) from None
                self._condition.wait(min(left, RECONNECT_S))
            else:
                return

    def _repeat(self, frames: Iterable[bytes]) -> None:
        deadline = time.monotonic() + self.timeout_s
        for frame in frames:
            self._transport.send(frame, deadline)

    def _send(self, frame: bytes) -> None:
        if self._reconnecting:
            self._await_reconnection()  # it has sent all that is not answered, this included
            return
        self._is_at_socket = True
        try:
            self._transport.send(frame, time.monotonic() + self.timeout_s)
            if self._reading and self._transport.has_read:
                # Sending has read what the thread that waits at the socket would not see come:
                # the answer to a ping wakes it.
                self._transport.send(self._core.ping(), time.monotonic() + self.timeout_s)
        except Disconnected:
            self._reconnect()
        except TimeoutError:
            raise DaemonUnreachable(
                f"the daemon at {self.socket} takes no more requests",
                "is it stopped, or very busy?",
            ) from None
        finally:
            self._is_at_socket = False

    def _say(self, frame: bytes) -> None:
        """Send a message without an answer; also from a finalizer, which may run in mid-send."""
        self._unsaid.append(frame)
        if self._lock.acquire(blocking=False):
            try:
                if not (self._is_at_socket or self._reconnecting or self._closed):
                    self._say_all()
            finally:
                self._lock.release()

    def _say_all(self) -> None:
        while self._unsaid:
            try:
                self._transport.send(self._unsaid.popleft(), time.monotonic() + self.timeout_s)
            except (Disconnected, TimeoutError):
                return  # the daemon that heard of what this is about is gone, or stuck

    # -- waiting --

    def _identify(self, deferred: Deferred[Any]) -> int:
        return self._run(verbs.identify(deferred), self.timeout_s)

    def _run(self, steps: Steps[R], timeout_s: float | None = None) -> R:
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
                    self._begin(step)
                if context.host is not None and lent is None:
                    lent = self._lend(step, left_of(deadline))
                limit = left_of(deadline) if step.patient else self.timeout_s
                if not step.done() and not self._await(step.done, limit):
                    raise step.late(timeout_s if step.patient else limit)
        except StopIteration as end:
            value: R = end.value
            return value
        finally:
            context.end_wait(lent)

    def _lend(self, step: Waitable, timeout_s: float | None) -> object | None:
        """Lend the slot of the job that this runs in, if it is about to wait for others."""
        if step.awaited is None or step.done() or timeout_s == 0:
            return None
        return context.lend(step.awaited, self.socket, timeout_s)

    def _begin(self, pending: Pending) -> None:
        with self._lock:
            self._refuse_closed()
            self._core.begin(pending)
            self._send(pending.frame)

    def _await(self, is_over: Callable[[], bool], timeout: float | None) -> bool:
        """Read, or let another thread read for us, until something is so; return False when it is late."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while not is_over():
                left = PING_S if deadline is None else deadline - time.monotonic()
                if left <= 0 and not self._last_look(is_over):
                    return False
                if self._reading or self._reconnecting:
                    self._condition.wait(left)
                else:
                    self._read(min(left, PING_S))
        return True

    def _last_look(self, is_over: Callable[[], bool]) -> bool:
        if not (self._reading or self._reconnecting):
            self._read(0.0)
        return is_over()

    def _read(self, timeout: float) -> None:
        """Read what comes within ``timeout``; the lock is held, but not while waiting."""
        self._refuse_closed()
        self._ping_if_due()
        self._reading = True
        try:
            frames = self._receive(timeout)
        finally:
            self._reading = False
            self._condition.notify_all()
        self._take(frames)

    def _receive(self, timeout: float) -> list[bytes]:
        """Receive; other threads may send meanwhile, so the wait itself touches nothing of the transport."""
        if timeout > 0 and not self._transport.has_read:
            poll = self._poll
            self._lock.release()
            try:
                self._wait_at(poll, timeout)
            finally:
                self._lock.acquire()
        self._is_at_socket = True
        try:
            return self._transport.receive(0)
        except Disconnected:
            self._reconnect()
            return []
        finally:
            self._is_at_socket = False

    def _wait_at(self, poll: select.poll, timeout: float) -> None:
        """Wait until there is something to read; at first without sleeping, if it came soon the last time."""
        began = time.perf_counter()
        if self._comes_soon:
            until = began + min(SOON_S, timeout)
            while time.perf_counter() < until:
                if poll.poll(0):
                    return
                os.sched_yield()
        poll.poll(timeout * 1000)
        self._comes_soon = IS_PARALLEL and time.perf_counter() - began < SOON_S

    def _take(self, frames: list[bytes]) -> None:
        for frame in frames:
            for again in self._core.take(frame):
                self._send(again)

    def _ping_if_due(self) -> None:
        if self._unsaid:
            self._say_all()
        now = time.monotonic()
        if now >= self._ping_at or self._core.owes_ping:
            self._ping_at = now + PING_S
            self._send(self._core.ping())


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _abandon_all() -> None:
    for client in _clients:
        client.abandon()


os.register_at_fork(after_in_child=_abandon_all)


def _results(ahead: Ahead[Deferred[Any]], deadline: float | None) -> Iterator[Any]:
    # Each under no name, by which it would be kept meanwhile.
    while ahead.has_more and not ahead.is_over:
        yield ahead.take().result(left_of(deadline))
    submitted = ahead.submitted
    while submitted:  # all is on its way, and nothing is to be decided any more
        yield submitted.popleft().result(left_of(deadline))
    while ahead.has_more:
        ahead.take()  # raises what came of the calls after those
