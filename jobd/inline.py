"""What stands in for a daemon in ``jobd.testing.inline``: jobs run in this process, as they are submitted.

A client speaks to it by the same messages as to a daemon, so that arguments and results
are encoded and decoded as they would be, and what could not travel fails here too.  There
are no files, no workers, and nothing that takes time: a job has ended before its submit
is answered.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

import msgspec

from jobd import payload
from jobd._version import __version__
from jobd.model.edges import Edges, Standing, joined, standing
from jobd.model.errors import JobdError, NotFound, UsageError
from jobd.model.messages import (
    PROTOCOL,
    Accepted,
    Answers,
    Cancel,
    Ended,
    Fetch,
    Fetched,
    FrameError,
    Message,
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
    Watch,
    Watching,
    Welcome,
    encode,
    refusal,
)
from jobd.model.queues import DEFAULT, QueueInfo
from jobd.model.states import State
from jobd.pool.failure import describe, safe_repr
from jobd.pool.resolve import check, resolve

LARGEST_BYTES = 1 << 30

_decode = msgspec.msgpack.Decoder(list[Request]).decode


class Inline:
    """The jobs that have run, for all clients of this process."""

    def __init__(self) -> None:
        self._ends: dict[int, Ended] = {}
        self._firsts: dict[bytes, int] = {}
        self._queues = {DEFAULT: QueueInfo(DEFAULT)}
        """Those that somebody has made; a submit may name any."""

    def connect(self, _socket: str, _timeout_s: float) -> tuple[InlineTransport, Welcome]:
        """Stand in for ``jobd.client.link.connect``."""
        largest = LARGEST_BYTES
        welcome = Welcome(0, PROTOCOL, __version__, os.getpid(), "inline", "", 1, largest, largest)
        return InlineTransport(self.answer), welcome

    def answer(self, request: Any) -> list[Message]:
        """Carry out one request; return what is answered."""
        match request:
            case Submit():
                return self._submitted(request)
            case Put(rid, uid, value):
                number = self._firsts[uid] = self._keep(Ended(0, State.SUCCEEDED, value))
                return [Submitted(rid, number, 1), self._ends[number]]
            case Watch(rid, ids):
                known = [number for number in ids if number in self._ends]
                unknown = [number for number in ids if number not in self._ends]
                return [*(self._ends[number] for number in known), Watching(rid, unknown)]
            case Fetch(rid, number):
                return [self._fetched(rid, number)]
            case Cancel(rid, selector):
                ids = [n for n in self._ends if any(a <= n <= b for a, b in selector.ranges)]
                return [Answers(rid, [(n, "already finished") for n in ids], more=False)]
        what = f"{type(request).__name__.lower()!r} has no answer where jobs run inline"
        refusal = Refused(request.rid, "usage", what, "use jobd.testing.daemon()")
        return self._about_queues(request) or [refusal]

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

    def _fetched(self, rid: int, number: int) -> Message:
        end = self._ends.get(number)
        if end is None:
            return Refused(rid, "not_found", f"there is no job {number}", "")
        return Fetched(rid, number, end.state, end.value, end.error, end.cause)

    def _keep(self, ended: Ended) -> int:
        number = len(self._ends) + 1
        self._ends[number] = msgspec.structs.replace(ended, id=number)
        return number

    def _submitted(self, request: Submit) -> list[Message]:
        try:
            return self._submit(request)
        except JobdError as error:
            return [refusal(request.rid, error)]

    def _submit(self, request: Submit) -> list[Message]:
        if request.check and not request.by_value:
            for count, names in request.shapes:
                refusal = check(request.function, count, names)
                if refusal is not None:
                    return [Refused(request.rid, "bad_function", refusal.message, refusal.hint)]
        inputs = request.inputs or [[]] * len(request.args)
        numbers = []
        after = [(self._number_of(name), when) for name, when in request.after]
        for args, jobs in zip(request.args, inputs, strict=True):
            ids = [self._number_of(name) for name in jobs]
            numbers.append(self._keep(self._run(request.function, args, ids, joined(ids, after))))
            self._firsts.setdefault(request.uid, numbers[0])
        ends = [self._ends[number] for number in numbers] if request.watch else []
        return [Submitted(request.rid, numbers[0], len(numbers)), *ends]

    def _run(self, function: str, args: bytes, inputs: Sequence[int], edges: Edges) -> Ended:
        for number, when in edges.items():
            if number not in self._ends:
                raise NotFound(f"there is no job {number} to come after")
            state = self._ends[number].state
            if standing(when, state) is Standing.NEVER:
                ended = "succeeded" if state is State.SUCCEEDED else "failed"
                return Ended(0, State.ABORTED, cause=f"job {number} {ended}", root=number)
        values = [self._ends[number].value or b"" for number in inputs]
        try:
            return Ended(0, State.SUCCEEDED, _call(function, args, values))
        except BaseException as error:  # noqa: BLE001  # whatever a job raises is the job's end
            pickled = payload.pickle_exception(error)
            info = msgspec.structs.replace(describe(error), pickled=pickled)
            return Ended(0, State.FAILED, error=info)

    def _number_of(self, name: int | bytes) -> int:
        if isinstance(name, int):
            return name
        return self._firsts[name[:16]] + int.from_bytes(name[16:], "big")


def _call(reference: str, args: bytes, inputs: Sequence[bytes]) -> bytes:
    """Do what a worker does with a task."""
    by_value, data = payload.split_by_value(args)
    positional, named, as_json = payload.decode_call(data, inputs)
    function: Callable[..., Any] = payload.unpickle(by_value) if by_value else resolve(reference)
    value = function(*positional, **named)
    if isinstance(value, GeneratorType | AsyncGeneratorType):
        raise UsageError(f"{reference} is a stream, which needs a daemon", "jobd.testing.daemon()")
    if isinstance(value, CoroutineType):
        value = _awaited(value)
    return payload.encode(value, shown_as=safe_repr, lossy=as_json)


def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a thread of its own: this one may have a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


class InlineTransport:
    """What a client takes for its connection; see ``jobd.zmtp.Transport``."""

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
