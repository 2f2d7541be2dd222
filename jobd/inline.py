"""What stands in for a daemon in ``jobd.testing.inline``: jobs run in this process, as they are submitted.

A client speaks to it by the same messages as to a daemon, so that arguments and results
are encoded and decoded as they would be, and what could not travel fails here too.  There
are no files, no workers, and nothing that takes time: a job has ended before its submit
is answered.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

import msgspec

from jobd import payload
from jobd._version import __version__
from jobd.inputs import refuse_gone
from jobd.model.edges import Edges, Standing, joined, standing
from jobd.model.errors import BadFunction, JobdError, NotFound, UsageError, no_such_job
from jobd.model.item import array_of, index_of, item_of
from jobd.model.job import (
    ITEMS,
    NO_ARGS,
    PUT,
    TAKEN,
    ArrayInfo,
    ArraySpec,
    ErrorInfo,
    Errors,
    JobInfo,
)
from jobd.model.messages import (
    OWN_KEY,
    PROTOCOL,
    Accepted,
    Answers,
    Apply,
    Cancel,
    Ended,
    Fetch,
    Fetched,
    Find,
    Follow,
    FrameError,
    Gather,
    Items,
    Jobs,
    List,
    Message,
    More,
    Offered,
    Piece,
    Pieces,
    Ping,
    Pong,
    Put,
    QueueInfos,
    Queues,
    Refused,
    RemoveQueue,
    Request,
    SetQueue,
    Submit,
    Submitted,
    Take,
    Taken,
    Unfollow,
    Watch,
    Watching,
    Welcome,
    encode,
    refusal,
)
from jobd.model.options import BUILT_IN, Layers, decode_options
from jobd.model.orders import Surroundings
from jobd.model.queues import DEFAULT, QueueInfo
from jobd.model.selector import Selector
from jobd.model.states import NAMES, State
from jobd.model.stretch import calls_in, pack
from jobd.pool.failure import describe, safe_repr
from jobd.pool.resolve import check, resolve
from jobd.pool.surroundings import Surrounded, set_argv

LARGEST_BYTES = 1 << 30

MOST_ITEMS = 10_000
"""A generator runs at its submit too, and must not run for ever."""

_decode = msgspec.msgpack.Decoder(list[Request]).decode


class Inline:
    """The jobs that have run, for all clients of this process."""

    def __init__(self) -> None:
        self._ends: dict[int, Ended] = {}
        self._infos: dict[int, JobInfo] = {}
        self._items: dict[int, list[bytes]] = {}
        """What generators have produced."""
        self._arrays: dict[int, list[Ended]] = {}
        """How the items of each array have ended."""
        self._firsts: dict[bytes, int] = {}
        self._queues = {DEFAULT: QueueInfo(DEFAULT)}
        """Those that somebody has made; a submit may name any."""

    def connect(
        self,
        _socket: str,
        _timeout_s: float,
        *,
        errand: bool = False,  # noqa: ARG002  # there is room for all
    ) -> tuple[InlineTransport, Welcome]:
        """Stand in for ``jobd.client.link.connect``."""
        largest = LARGEST_BYTES
        welcome = Welcome(0, PROTOCOL, __version__, os.getpid(), "inline", "", 1, largest, largest)
        return InlineTransport(self.answer), welcome

    def answer(self, request: Any) -> list[Message]:
        """Carry out one request; return what is answered."""
        try:
            for part in (self._run_jobs, self._look, self._consume, self._about_queues):
                if replies := part(request):
                    return replies
        except JobdError as error:
            return [refusal(request.rid, error)]
        return [_refused(request)]

    def _run_jobs(self, request: Any) -> list[Message]:
        """Run jobs, and tell how they have ended."""
        match request:
            case Submit() | Apply():
                return self._submitted(request)
            case Put(rid, uid, value):
                number = self._firsts[uid] = self._keep(uid, PUT, Ended(0, State.SUCCEEDED, value))
                return [Submitted(rid, number, 1), self._ends[number]]
            case Watch(rid, ids):
                known = [number for number in ids if number in self._ends]
                unknown = [number for number in ids if number not in self._ends]
                return [*(self._ends[number] for number in known), Watching(rid, unknown)]
        return []

    def _look(self, request: Any) -> list[Message]:
        """Tell of jobs, which have all ended."""
        match request:
            case Gather():
                return [self._gathered(request)]
            case Fetch(rid, number):
                return [self._fetched(rid, number)]
            case Cancel(rid, selector):
                ids = [info.id for info in self._selected(selector)]
                return [Answers(rid, [(n, "already finished") for n in ids], more=False)]
            case Find(rid, selector):
                return [Jobs(rid, self._selected(selector), more=False)]
            case List(rid, selector, before, limit):
                jobs = [j for j in self._selected(selector) if not before or j.id < before]
                return [Jobs(rid, jobs[:limit], more=len(jobs) > limit)]
        return []

    def _consume(self, request: Any) -> list[Message]:
        """Consume a result, or what a generator has produced: all of that has been there for long."""
        match request:
            case Follow(rid, number, _, after):
                items = self._items.get(number)
                if items is None:
                    self._fetched(rid, number)
                    raise UsageError(f"job {number} is no stream: it has returned one value")
                return [Items(rid, number, 1, after + 1, items[after:], over=True)]
            case Take(rid, number):
                found = self._fetched(rid, number)
                refuse_gone(found.value or b"", number)
                return [Offered(rid, number, found.state, found.value, found.error, found.cause, 0)]
            case Taken(rid, number, token):
                taken = msgspec.structs.replace(self._ends[number], value=TAKEN + token)
                self._ends[number] = taken
                return [Accepted(rid)]
        return []

    def _selected(self, selector: Selector) -> list[JobInfo]:
        """Return jobs, the newest first."""
        last = len(self._infos) - selector.last if selector.last else len(self._infos)
        return [
            info
            for number, info in reversed(self._infos.items())
            if (selector.all or number > last or any(a <= number <= b for a, b in selector.ranges))
            and (not selector.states or info.state in selector.states)
        ]

    def _about_queues(self, request: Any) -> list[Message]:
        """Take note of what is said of queues, which changes nothing here."""
        match request:
            case SetQueue(rid, name):
                info = self._queues.setdefault(name, QueueInfo(name))
                for key in ("slots", "rate", "paused"):
                    if (said := getattr(request, key)) is not None:
                        setattr(info, key, said)
                return [QueueInfos(rid, [info])]
            case RemoveQueue(rid, name):
                self._queues.pop(name, None)
                return [Accepted(rid)]
            case Queues(rid):
                return [QueueInfos(rid, [*self._queues.values()])]
        return []

    def _fetched(self, rid: int, number: int) -> Fetched:
        end = self._ends.get(number)
        items = self._arrays.get(array_of(number), ())
        if index_of(number) < len(items):
            end = items[index_of(number)]
        if end is None:
            raise no_such_job(number)
        fetched = Fetched(rid, number, end.state, end.value, end.error, end.cause)
        if number in self._arrays:
            fetched.items = len(self._arrays[number])
        return fetched

    def _keep(self, uid: bytes, function: str, ended: Ended, began_at: int = 0) -> int:
        number = len(self._ends) + 1
        self._ends[number] = msgspec.structs.replace(ended, id=number)
        now = max(1, time.time_ns() // 1000)
        began = began_at or now
        times = (began, began, now)
        ran = (1, 0, os.getpid()) if began_at else (0, 0, 0)
        self._infos[number] = JobInfo(
            number, uid, ended.state, function, *times, *ran, ended.cause, ended.error, 0
        )
        return number

    def _submitted(self, request: Submit | Apply) -> list[Message]:
        calls = request.jobs if isinstance(request, Apply) else [request]
        for call in calls:
            _refuse_unfit(call)
        first = self._firsts[request.uid] = len(self._ends) + 1
        numbers = []
        for call in calls:
            call.uid = request.uid
            if isinstance(request, Apply):
                call.environment = request.environment
            numbers += self._submit(call, first)
        ends = [self._ends[number] for number in numbers] if request.watch else []
        return [Submitted(request.rid, first, len(numbers)), *ends]

    def _submit(self, call: Submit, first: int) -> list[int]:
        """Run the jobs of a submit, or of a graph that begins with this id; return their ids."""
        numbers = []
        after = [(self._number_of(name, first), when) for name, when in call.after]
        policy = Layers().policy(call.function, decode_options(call.options, call.environment))
        around = Surroundings.of(policy or BUILT_IN) or Surroundings()
        if call.array is not None:
            return [self._run_array(call, call.array, joined((), after), around)]
        for args, jobs in zip(call.args, call.inputs or [[]] * len(call.args), strict=True):
            ids = [self._number_of(name, first) for name in jobs]
            began_at = max(1, time.time_ns() // 1000)
            items: list[bytes] = []
            ended = self._run(call.function, args, ids, joined(ids, after), items, around)
            number = self._keep(call.uid, call.function, ended, began_at)
            numbers.append(number)
            if items:
                self._items[number] = items[1:]
        return numbers

    def _run_array(self, call: Submit, spec: ArraySpec, edges: Edges, around: Surroundings) -> int:
        """Run the items of an array; return its number."""
        prefix, ends = call.args[0][: -len(NO_ARGS)], list[Ended]()
        began_at = max(1, time.time_ns() // 1000)
        for one in chain.from_iterable(calls_in(chunk) for _, chunk in call.chunks):
            ends.append(self._run(call.function, prefix + one, (), edges, [], around))
        lost = sum(end.state is not State.SUCCEEDED for end in ends)
        ended = Ended(0, State.SUCCEEDED, ITEMS)
        if lost and spec.errors is Errors.FAIL:
            what = f"{lost} of {len(ends)} items have not succeeded"
            ended = Ended(0, State.FAILED, error=ErrorInfo("jobd.ItemsFailed", what, ""))
        number = self._keep(call.uid, call.function, ended, began_at)
        for index, end in enumerate(ends):
            end.id = item_of(number, index)
        self._arrays[number] = ends
        counts = Counter(NAMES[end.state] for end in ends)
        first = next((end.id for end in ends if end.state is not State.SUCCEEDED), 0)
        self._infos[number].array = ArrayInfo(spec, dict(counts), first)
        return number

    def _gathered(self, request: Gather) -> Pieces:
        """Tell how items of an array have ended."""
        ends = self._arrays.get(request.id)
        if ends is None:
            self._fetched(request.rid, request.id)
            raise UsageError(f"job {request.id} is no array")
        pieces = [
            Piece(
                index,
                1,
                end.state,
                b"" if end.value is None else pack([end.value]),
                end.error,
                end.cause,
            )
            for low, high in request.wanted
            for index, end in enumerate(ends[low : high + 1], low)
        ]
        state = self._ends[request.id].state
        return Pieces(request.rid, pieces, not pieces, state, len(ends))

    def _run(  # what a job is made of
        self,
        function: str,
        args: bytes,
        inputs: Sequence[int],
        edges: Edges,
        items: list[bytes],
        around: Surroundings,
    ) -> Ended:
        """Run a job; ``items`` gets an empty text if it is a stream, and then what it produces."""
        for number, when in edges.items():
            if number not in self._ends:
                raise NotFound(f"there is no job {number} to come after")
            state = self._ends[number].state
            if standing(when, state) is Standing.NEVER:
                ended = "succeeded" if state is State.SUCCEEDED else "failed"
                return Ended(0, State.ABORTED, cause=f"job {number} {ended}", root=number)
        values = [self._ends[number].value or b"" for number in inputs]
        try:
            for number, value in zip(inputs, values, strict=True):
                refuse_gone(value, number)
            return Ended(0, State.SUCCEEDED, _called(function, args, values, items, around))
        except BaseException as error:  # noqa: BLE001  # whatever a job raises is the job's end
            pickled = payload.pickle_exception(error)
            info = msgspec.structs.replace(describe(error), pickled=pickled)
            if payload.is_success(error):
                return Ended(0, State.SUCCEEDED, payload.encode_exit(info))
            return Ended(0, State.FAILED, error=info)

    def _number_of(self, name: int | bytes, first: int) -> int:
        if isinstance(name, int):
            return name
        first = first if name[:16] == OWN_KEY else self._firsts[name[:16]]
        return first + int.from_bytes(name[16:], "big")


def _refuse_unfit(call: Submit) -> None:
    """Refuse a call that does not fit its function.

    Raises:
        BadFunction: it does not, or there is none.
    """
    for count, names in call.shapes if call.check and not call.by_value else ():
        unfit = check(call.function, count, names)
        if unfit is not None:
            raise BadFunction(unfit.message, unfit.hint)


def _refused(request: Any) -> Refused:
    what = f"{type(request).__name__.lower()!r} has no answer where jobs run inline"
    return Refused(request.rid, "usage", what, "use jobd.testing.daemon()")


def _called(
    reference: str,
    args: bytes,
    inputs: Sequence[bytes],
    items: list[bytes],
    around: Surroundings,
) -> bytes:
    """Do what a worker does with a task, and leave this process as it was."""
    argv, surrounded = sys.argv, Surrounded(around, reference)
    try:
        surrounded.enter()
        set_argv(reference, around)
        return _call(reference, args, inputs, items)
    finally:
        sys.argv = argv
        surrounded.leave()


def _call(reference: str, args: bytes, inputs: Sequence[bytes], items: list[bytes]) -> bytes:
    """Call the function, and encode what it returns."""
    by_value, data = payload.split_by_value(args)
    positional, named, as_json = payload.decode_call(data, inputs)
    function: Callable[..., Any] = payload.unpickle(by_value) if by_value else resolve(reference)
    value = function(*positional, **named)
    if isinstance(value, AsyncGeneratorType):
        value = _listed(value)

    def encoded(value: object) -> bytes:
        return payload.encode(value, shown_as=safe_repr, lossy=as_json)

    if isinstance(value, GeneratorType):
        items.append(b"")
        value = _produced(value, lambda item: items.append(encoded(item)))
    elif isinstance(value, CoroutineType):
        value = _awaited(value)
    return encoded(value)


def _produced(generator: Generator[Any, None, Any], take: Callable[[Any], None]) -> Any:
    """Have a generator produce until its end; return what it returns.

    Raises:
        UsageError: it does not come to an end.
    """
    for _ in range(MOST_ITEMS):
        try:
            take(next(generator))
        except StopIteration as end:
            return end.value
    generator.close()
    problem = f"a stream of more than {MOST_ITEMS} items does not run inline"
    raise UsageError(problem, "use jobd.testing.daemon()")


def _listed(generator: AsyncGeneratorType[Any, Any]) -> Generator[Any, None, None]:
    """Return an ordinary generator that produces the same; it runs to its end before that."""
    found: list[Any] = []

    async def run() -> None:
        async for item in generator:
            found.append(item)
            if len(found) > MOST_ITEMS:
                break

    error: BaseException | None = None
    try:
        _awaited(run())
    except BaseException as raised:  # noqa: BLE001  # it comes after what was produced before
        error = raised
    yield from found
    if error is not None:
        raise error


def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a thread of its own: this one may have a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


class InlineTransport:
    """What a client takes for its connection; see ``jobd.wire.zmtp.Transport``."""

    unsent = False

    def __init__(self, answer: Callable[[Any], list[Message]]) -> None:
        self._answer = answer
        self._inbox: list[bytes] = []
        self._sent = 1  # the welcome
        self._readable = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def send(self, body: bytes, _deadline: float | None) -> None:
        """Take requests, and have them answered at once."""
        self.post(body)

    def post(self, body: bytes) -> None:
        """Take requests, and have them answered at once."""
        try:
            requests = _decode(body)
        except FrameError as error:
            raise UsageError(f"that is no request: {error}") from error
        for request in requests:
            if isinstance(request, More | Unfollow):
                continue  # everything was sent at once
            if isinstance(request, Ping):
                self._sent += 1
                replies: list[Message] = [Pong(request.rid, self._sent)]
            else:
                replies = self._answer(request)
                self._sent += 1
            self._inbox.append(encode(replies))
            os.eventfd_write(self._readable, 1)

    def flush(self) -> None:
        """Do nothing: all is sent."""

    @property
    def has_read(self) -> bool:
        """Whether there are answers."""
        return bool(self._inbox)

    def receive(self, timeout_s: float | None) -> list[bytes]:  # noqa: ARG002  # nothing comes later
        """Return the answers that have not been returned before."""
        frames, self._inbox = self._inbox, []
        if frames:
            os.eventfd_read(self._readable)
        return frames

    def fileno(self) -> int:
        """Return a descriptor that is readable while there are answers; -1 after ``close``."""
        return self._readable

    def close(self) -> None:
        """Let go; again does nothing."""
        if self._readable >= 0:
            os.close(self._readable)
            self._readable = -1
