"""The Python client, and what the command line is made of.

``submit`` sends at once and does not wait: a thousand submits are on their way
before the first is answered.  The answer, that the job is durable, is waited for
by ``Handle.id``, ``Handle.result`` and ``Client.flush``, which leaving the
``with`` block does too; a submit that was refused raises there.

Every submit has a key.  When the connection breaks, whatever was not answered is
sent again with the same key, and the daemon answers with the same ids.  Ends of
jobs are pushed by the daemon.  A client that waits pings every few seconds: the
count of frames in the answer tells whether the daemon had to drop something for
it, and then it asks again for what it misses.

Threads may share a client.  One of those that wait reads the socket, for all.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Self, TypeVar

from jobd import payload
from jobd._version import __version__
from jobd.model.errors import (
    BY_NAME,
    ConfigError,
    DaemonUnreachable,
    Denied,
    JobCancelled,
    JobCrashed,
    JobdError,
    JobError,
    JobFailed,
    NotFound,
    UsageError,
    WaitTimeout,
)
from jobd.model.job import JobInfo
from jobd.model.messages import (
    PROTOCOL,
    Answers,
    Cancel,
    Ended,
    Fetch,
    Fetched,
    Find,
    Hello,
    Jobs,
    List,
    LogData,
    Logs,
    Message,
    Ping,
    Pong,
    Refused,
    Reload,
    Retry,
    Status,
    StatusInfo,
    Stop,
    Submit,
    Submitted,
    Watch,
    Watching,
    Welcome,
    decode_replies,
    encode,
)
from jobd.model.selector import Selector
from jobd.model.states import State
from jobd.zmtp import Disconnected, ProtocolError, Transport

R = TypeVar("R", bound=Message)

PING_S = 5.0
ACKNOWLEDGE_BYTES = 4 * 1024 * 1024
"""After so much the daemon is told that it was read; large answers stop coming for those who never do."""

RECONNECT_S = 0.05
LOG_CHUNK = 256 * 1024
READ_EVERY = 64
"""After so many submits a look at what has come, so that the daemon need not drop it."""

LONGEST_DRAIN_S = 1e9

BULK = 10_000
"""Calls that ``map`` sends in one message."""


class Handle:
    """A deferred result: a job's id, and its value once there is one."""

    __slots__ = ("__weakref__", "_client", "_ended", "_id", "_index", "_submission")

    def __init__(
        self, client: Client, submission: _Submission | None, index: int, number: int = 0
    ) -> None:
        self._client = client
        self._submission = submission
        self._index = index
        self._id = number
        self._ended: Ended | None = None

    @property
    def id(self) -> int:
        """The job's id; waits until the job is durable.

        Raises:
            JobdError: the submit was refused.
        """
        if not self._id:
            submission = self._submission
            assert submission is not None
            self._client._await(submission.is_over)  # noqa: SLF001  # a handle is part of its client
            self._id = submission.first_id() + self._index
        return self._id

    def result(self, timeout: float | None = None) -> Any:
        """Return what the function returned, waiting up to ``timeout`` seconds (None: for ever).

        Raises:
            JobFailed, JobCrashed, JobCancelled: the job ended without a result.
            WaitTimeout: it has not ended in time; it goes on.
        """
        return self._client._value_of(self, timeout)  # noqa: SLF001  # as above

    @property
    def done(self) -> bool:
        """Whether the job's end has been heard of; never waits."""
        return self._ended is not None

    def __repr__(self) -> str:
        state = self._ended.state.name.lower() if self._ended else "pending"
        return f"<jobd.Handle {self._id or 'not acknowledged'} {state}>"


class _Pending:
    """A request that is not answered yet, and what has come so far."""

    __slots__ = ("error", "frame", "over", "replies", "stream")

    def __init__(self, frame: bytes, *, stream: bool = False) -> None:
        self.frame = frame
        self.stream = stream
        self.replies: list[Message] = []
        self.error: JobdError | None = None
        self.over = False

    def is_over(self) -> bool:
        return self.over

    def take(self, reply: Message) -> None:
        if isinstance(reply, Refused):
            self.error = BY_NAME.get(reply.error, JobdError)(reply.message, reply.hint)
            self.over = True
        else:
            self.replies.append(reply)
            self.over = not (self.stream and reply.more)  # type: ignore[attr-defined]  # streams have it


class _Submission(_Pending):
    """A submit that is not answered yet; its handles live at least so long."""

    __slots__ = ("handles", "seen")

    def __init__(self, frame: bytes) -> None:
        super().__init__(frame)
        self.handles: list[Handle] = []
        self.seen = False

    def first_id(self) -> int:
        self.seen = True
        if self.error is not None:
            raise self.error
        reply = self.replies[0]
        assert isinstance(reply, Submitted)
        return reply.first


class Client:
    """A connection to a daemon on this machine.

    Args:
        socket: the daemon's socket; None: as the settings say (``JOBD_SOCKET`` …).
        timeout_s: how long to wait for an answer, or for a daemon that restarts.

    Raises:
        DaemonUnreachable: no daemon answers there.
        Denied: the socket is somebody else's.
    """

    def __init__(self, socket: str | None = None, *, timeout_s: float = 30.0) -> None:
        self.socket = socket or _default_socket()
        self.timeout_s = timeout_s
        self._condition = threading.Condition()
        self._session = os.urandom(8)
        self._submits = 0
        self._rid = 0
        self._pending: dict[int, _Pending] = {}
        self._failed: list[_Submission] = []
        self._live: dict[int, weakref.ref[Handle]] = {}
        self._received = self._unacknowledged = 0
        self._reading = False
        self._reconnecting = False
        self._ping_at = 0.0
        self._closed = False
        self.welcome = self._connect(time.monotonic() + timeout_s)

    # -- submitting --

    def submit(self, function: str, /, *args: Any, **kwargs: Any) -> Handle:
        """Submit a call of ``module:func``; every argument is the function's own.

        Raises:
            UsageError: an argument cannot travel.
        """
        call = _encode_call(args, kwargs)
        return self.submit_encoded(function, [call], [(len(args), tuple(kwargs))], watch=True)[0]

    def submit_many(self, function: str, calls: Iterable[Sequence[Any]], /) -> list[Handle]:
        """Submit one call for each sequence of positional arguments: all are queued or none.

        One message and one commit, whatever their number (up to the daemon's ``max_message_bytes``).
        """
        arguments = [tuple(call) for call in calls]
        if not arguments:
            return []
        shapes: list[tuple[int, tuple[str, ...]]] = [
            (count, ()) for count in sorted({len(call) for call in arguments})
        ]
        return self.submit_encoded(
            function, [_encode_call(call, {}) for call in arguments], shapes, watch=True
        )

    def map(
        self, function: str, iterable: Iterable[Any], /, timeout: float | None = None
    ) -> Iterator[Any]:
        """Submit a call for each item and yield the results in order.

        All are submitted before this returns, in messages of ten thousand.  ``timeout`` is in
        seconds, for the whole, from now.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        handles: list[Handle] = []
        items = iter(iterable)
        while chunk := [(item,) for item in islice(items, BULK)]:
            handles += self.submit_many(function, chunk)
        return self._results(handles, deadline)

    def _results(self, handles: list[Handle], deadline: float | None) -> Iterator[Any]:
        handles.reverse()
        while handles:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            yield handles.pop().result(left)

    def submit_encoded(
        self,
        function: str,
        calls: list[bytes],
        shapes: list[tuple[int, tuple[str, ...]]],
        *,
        check: bool = True,
        watch: bool = False,
    ) -> list[Handle]:
        """Submit calls whose arguments are encoded already (``jobd.payload.encode_call``).

        ``shapes`` has each count of positional arguments and names of keyword arguments that
        occurs; ``watch`` has the ends pushed without being asked for one by one.
        """
        with self._condition:
            self._refuse_closed()
            self._rid += 1
            self._submits += 1
            uid = self._session + self._submits.to_bytes(8, "big")
            frame = encode([Submit(self._rid, uid, function, calls, shapes, check, watch)])
            if len(frame) > self.welcome.max_message_bytes:
                raise UsageError(
                    f"these {len(calls)} calls make a message of {len(frame)} bytes, "
                    f"over the limit of {self.welcome.max_message_bytes}",
                    "submit them in several parts, or pass file names",
                )
            submission = _Submission(frame)
            handles = [Handle(self, submission, index) for index in range(len(calls))]
            submission.handles = handles.copy()  # the caller may do as he likes with his
            self._pending[self._rid] = submission
            self._send(frame)
            if not self._submits % READ_EVERY and not (self._reading or self._reconnecting):
                self._read(0.0)
            return handles

    def flush(self, timeout: float | None = None) -> None:
        """Wait until every submit is durable.

        Raises:
            JobdError: one was refused, and nobody has looked at its handle.
        """
        submissions = [p for p in list(self._pending.values()) if isinstance(p, _Submission)]
        self._await(lambda: all(s.over for s in submissions), timeout)
        failed = [s for s in self._failed if not s.seen and s.error is not None]
        self._failed.clear()
        if failed and failed[0].error is not None:
            raise failed[0].error

    # -- results --

    def attach(self, number: int) -> Handle:
        """Return a handle to a job that anybody has submitted."""
        with self._condition:
            known = self._live.get(number)
            handle = known() if known else None
            if handle is None:
                handle = Handle(self, None, 0, number)
                self._live[number] = weakref.ref(handle, self._drop(number))
            return handle

    def result(self, number: int, timeout: float | None = None) -> Any:
        """Return the value of a job, waiting up to ``timeout`` seconds (None: for ever).

        Raises:
            NotFound: there is no such job.
            JobFailed, JobCrashed, JobCancelled, WaitTimeout: as ``Handle.result``.
        """
        handle = self.attach(number)
        self.wait([number], timeout)
        return handle.result(0)

    def wait(self, numbers: Iterable[int], timeout_s: float | None = None) -> dict[int, Ended]:
        """Wait until these jobs have ended, and return how; told by the daemon, never polled.

        Raises:
            NotFound: one of them does not exist.
            WaitTimeout: one has not ended in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        handles = [self.attach(number) for number in numbers]
        missing = [handle for handle in handles if handle._ended is None]  # noqa: SLF001  # ours
        if missing:
            self._watch([handle._id for handle in missing])  # noqa: SLF001  # ours
        for handle in handles:
            self._await_end(
                handle, None if deadline is None else max(0.0, deadline - time.monotonic())
            )
        return {h._id: h._ended for h in handles if h._ended is not None}  # noqa: SLF001  # ours

    def fetch(self, number: int) -> Fetched:
        """Return a job's state as it is now, and its result if it has one."""
        return self._ask(Fetch(self._next(), number), Fetched)

    # -- the other verbs --

    def find(self, selector: Selector) -> list[JobInfo]:
        """Return the selected jobs with all details, the newest first."""
        replies = self._ask_stream(Find(self._next(), selector))
        return [info for reply in replies if isinstance(reply, Jobs) for info in reply.jobs]

    def page(self, selector: Selector, limit: int, before: int = 0) -> tuple[list[JobInfo], bool]:
        """Return up to ``limit`` jobs, the newest first, and whether there are older ones."""
        reply = self._ask(List(self._next(), selector, before, limit), Jobs)
        return reply.jobs, reply.more

    def cancel(self, selector: Selector, reason: str = "") -> list[tuple[int, str]]:
        """Cancel jobs; return for each ``cancelled``, ``stopping`` or ``already finished``."""
        return self._answers(Cancel(self._next(), selector, reason))

    def retry(self, selector: Selector) -> list[tuple[int, str]]:
        """Queue jobs again that ended without a result; return what became of each."""
        return self._answers(Retry(self._next(), selector))

    def status(self) -> StatusInfo:
        """Return how the daemon is."""
        return self._ask(Status(self._next()), StatusInfo)

    def logs(self, number: int, *, attempt: int = 0, follow: bool = False) -> Iterator[bytes]:
        """Yield what an attempt (0: the latest) wrote; with ``follow`` until the job has ended."""
        offset = 0
        while True:
            request = Logs(self._next(), number, attempt, offset, LOG_CHUNK, follow)
            reply = self._ask(request, LogData, None if follow else self.timeout_s)
            if reply.data:
                yield reply.data
            offset += len(reply.data)
            if reply.end and reply.dropped:
                yield b"\n[jobd: truncated, %d more bytes were not kept]\n" % reply.dropped
            if reply.end and (reply.over or not follow):
                return
            if not follow and not reply.data:
                return
            if reply.end:
                attempt, offset = reply.attempt + 1, 0
            else:
                attempt = reply.attempt

    def ping(self) -> float:
        """Return how many seconds the daemon takes to answer."""
        began = time.monotonic()
        self._ask(Ping(self._next()), Pong)
        return time.monotonic() - began

    def reload(self) -> None:
        """Have every worker replaced as soon as its job is done."""
        self._ask(Reload(self._next()), Message)

    def stop(self, drain_s: float | None = None, timeout: float | None = None) -> None:
        """End the daemon, and wait until it has ended; running jobs get ``drain_s`` seconds."""
        if drain_s is not None and not 0 <= drain_s <= LONGEST_DRAIN_S:
            raise UsageError(f"{drain_s} is no time to drain", "give seconds, 0 or more")
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            self._send(encode([Stop(self._next(), drain_s)]))
            try:
                while True:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise WaitTimeout("the daemon has not ended yet", "it goes on draining")
                    self._transport.receive(left)
            except Disconnected:
                self._closed = True
                self._transport.close()

    # -- closing --

    def close(self) -> None:
        """Wait until every submit is durable, and disconnect."""
        if self._closed:
            return
        try:
            self.flush(self.timeout_s)
        finally:
            self._closed = True
            self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self.close()
        else:
            self._closed = True  # Ctrl-C: what was sent is on its way, nothing more is waited for
            self._transport.close()

    def __repr__(self) -> str:
        return f"<jobd.Client {self.socket}>"

    # -- asking --

    def _next(self) -> int:
        with self._condition:
            self._rid += 1
            return self._rid

    def _ask(self, request: Any, kind: type[R], timeout: float | None = -1) -> R:
        pending = self._request(request, stream=False, timeout=timeout)
        reply = pending.replies[0]
        assert isinstance(reply, kind)
        return reply

    def _ask_stream(self, request: Any) -> list[Message]:
        return self._request(request, stream=True, timeout=None).replies

    def _answers(self, request: Any) -> list[tuple[int, str]]:
        replies = self._ask_stream(request)
        return [
            answer for reply in replies if isinstance(reply, Answers) for answer in reply.answers
        ]

    def _request(self, request: Any, *, stream: bool, timeout: float | None) -> _Pending:
        pending = _Pending(encode([request]), stream=stream)
        with self._condition:
            self._refuse_closed()
            self._pending[request.rid] = pending
            self._send(pending.frame)
        self._await(pending.is_over, self.timeout_s if timeout == -1 else timeout)
        if pending.error is not None:
            raise pending.error
        return pending

    def _watch(self, numbers: list[int]) -> None:
        reply = self._ask(Watch(self._next(), numbers), Watching)
        if reply.unknown:
            raise NotFound(f"there is no job {reply.unknown[0]}", "see 'jobd ls'")

    def _value_of(self, handle: Handle, timeout: float | None) -> Any:
        ended = handle._ended  # noqa: SLF001  # ours
        if ended is None:
            deadline = None if timeout is None else time.monotonic() + timeout
            number = handle.id
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            self._await_end(handle, left)
            ended = handle._ended  # noqa: SLF001  # ours
            assert ended is not None, number
        if ended.state is not State.SUCCEEDED:
            raise error_of(ended)
        value = ended.value if ended.inline else self.fetch(ended.id).value
        if value is None:
            raise NotFound(f"the result of job {ended.id} is gone", "submit it again")
        return payload.decode(value)

    def _await_end(self, handle: Handle, timeout: float | None) -> None:
        if handle._ended is not None:  # noqa: SLF001  # ours
            return
        try:
            self._await(lambda: handle._ended is not None, timeout)  # noqa: SLF001  # ours
        except WaitTimeout:
            raise WaitTimeout(
                f"job {handle.id} has not ended within {timeout:g} s", "it goes on; ask again later"
            ) from None

    # -- the connection --

    def _refuse_closed(self) -> None:
        if self._closed:
            raise DaemonUnreachable("this client is closed", "make a new one")

    def _connect(self, deadline: float) -> Welcome:
        """Connect and shake hands, once."""
        limit = 512 * 1024 * 1024
        left = max(0.05, deadline - time.monotonic())
        try:
            self._transport = Transport.connect(
                self.socket, timeout_s=left, max_message_bytes=limit
            )
        except (OSError, ProtocolError) as error:
            raise _explain(self.socket, error) from None
        self._poll = select.poll()
        self._poll.register(self._transport.fileno(), select.POLLIN)
        self._received = self._unacknowledged = 0
        self._ping_at = time.monotonic() + PING_S
        try:
            self._transport.send(encode([Hello(0, PROTOCOL, PROTOCOL, __version__)]), deadline)
            return self._hear_welcome(deadline)
        except Disconnected:
            self._transport.close()
            raise DaemonUnreachable(
                f"the daemon at {self.socket} went away", "see its log"
            ) from None
        except BaseException:
            self._transport.close()
            raise

    def _hear_welcome(self, deadline: float) -> Welcome:
        while True:
            left = deadline - time.monotonic()
            for frame in self._transport.receive(max(0.0, left)):
                self._received += 1
                for reply in decode_replies(frame):
                    if isinstance(reply, Welcome):
                        return reply
                    if isinstance(reply, Refused):
                        raise BY_NAME.get(reply.error, JobdError)(reply.message, reply.hint)
            if left <= 0:
                raise DaemonUnreachable(
                    f"the daemon at {self.socket} does not answer",
                    "is it stopped, or very busy?",
                )

    def _reconnect(self) -> None:
        """Connect again, for as long as ``timeout_s``, and repeat what was not answered.

        The lock is given up between two attempts: threads that come meanwhile wait for the end.
        """
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
                self.welcome = self._connect(deadline)
                self._repeat()
            except (DaemonUnreachable, Disconnected):
                left = deadline - time.monotonic()
                if left <= 0 or self._closed:
                    self._closed = True
                    raise DaemonUnreachable(
                        f"the daemon at {self.socket} went away and did not come back "
                        f"within {self.timeout_s:g} s",
                        "start it with 'jobd start'",
                    ) from None
                self._condition.wait(min(left, RECONNECT_S))
            else:
                return

    def _repeat(self) -> None:
        """Send again what was not answered, the submits with their old keys, and watch again."""
        deadline = time.monotonic() + self.timeout_s
        for _, pending in sorted(self._pending.items()):
            pending.replies.clear()
            self._transport.send(pending.frame, deadline)
        waiting = [n for n, ref in list(self._live.items()) if (h := ref()) and not h.done]
        if waiting:
            self._transport.send(encode([Watch(0, waiting)]), deadline)

    def _send(self, frame: bytes) -> None:
        if self._reconnecting:
            self._await_reconnection()  # it has sent all that is not answered, this included
            return
        try:
            self._transport.send(frame, time.monotonic() + self.timeout_s)
            if self._reading:  # sending may have read: then the thread that waits would not wake
                self._take_all(self._transport.receive(0))
                self._condition.notify_all()
        except Disconnected:
            self._reconnect()
        except TimeoutError:
            raise DaemonUnreachable(
                f"the daemon at {self.socket} takes no more requests",
                "is it stopped, or very busy?",
            ) from None

    # -- waiting --

    def _await(self, is_over: Callable[[], bool], timeout: float | None = -1) -> None:
        """Read, or let another thread read for us, until something is so.

        Raises:
            WaitTimeout: it was not so in time (-1: the client's ``timeout_s``).
        """
        if timeout == -1:
            timeout = self.timeout_s
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while not is_over():
                left = PING_S if deadline is None else deadline - time.monotonic()
                if left <= 0 and not self._last_look(is_over):
                    raise WaitTimeout(
                        f"the daemon at {self.socket} has not answered within {timeout:g} s",
                        "it may be busy: ask again",
                    )
                if self._reading or self._reconnecting:
                    self._condition.wait(left)
                else:
                    self._read(min(left, PING_S))

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
        self._take_all(frames)

    def _take_all(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._received += 1
            self._unacknowledged += len(frame)
            self._take(frame)

    def _receive(self, timeout: float) -> list[bytes]:
        """Receive; other threads may send meanwhile, so the wait itself touches nothing of the transport."""
        if timeout > 0:
            poll = self._poll
            self._condition.release()
            try:
                poll.poll(timeout * 1000)
            finally:
                self._condition.acquire()
        try:
            return self._transport.receive(0)
        except Disconnected:
            self._reconnect()
            return []

    def _ping_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._ping_at or self._unacknowledged > ACKNOWLEDGE_BYTES:
            self._ping_at = now + PING_S
            self._unacknowledged = 0
            self._send(encode([Ping(0, self._received)]))

    def _take(self, frame: bytes) -> None:
        live = self._live
        for reply in decode_replies(frame):
            if type(reply) is Ended:
                ref = live.pop(reply.id, None)
                handle = ref() if ref else None
                if handle is not None:
                    handle._ended = reply  # noqa: SLF001  # ours
            elif type(reply) is Submitted:
                self._submitted(reply)
            else:
                self._answered(reply)

    def _submitted(self, reply: Submitted) -> None:
        submission = self._pending.pop(reply.rid, None)
        if not isinstance(submission, _Submission):
            return
        submission.take(reply)
        live, first = self._live, reply.first
        for handle in submission.handles:
            number = handle._id = first + handle._index  # noqa: SLF001  # ours
            live[number] = weakref.ref(handle)
        submission.handles = []
        submission.frame = b""

    def _answered(self, reply: Any) -> None:
        if type(reply) is Pong and reply.sent != self._received:
            self._received = reply.sent
            self._repeat()
        pending = self._pending.get(reply.rid)
        if pending is None:
            return
        pending.take(reply)
        if pending.over:
            del self._pending[reply.rid]
            if isinstance(pending, _Submission):
                self._failed.append(pending)

    def _drop(self, number: int) -> Callable[[object], None]:
        """Return what forgets an attached handle once nobody holds it."""
        live = self._live

        def drop(ref: object) -> None:
            if live.get(number) is ref:
                del live[number]

        return drop


def _explain(socket: str, error: Exception) -> JobdError:
    """Turn the reason why there is no connection into a sentence, and what to do about it."""
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return DaemonUnreachable(f"no daemon at {socket}", "start one with 'jobd start'")
        case PermissionError():
            return Denied(f"no permission for {socket}", "only the daemon's own user may use it")
        case TimeoutError():
            busy = "is it stopped, or very busy?"
            return DaemonUnreachable(f"the daemon at {socket} does not answer", busy)
        case Disconnected():
            hint = "see its log, or start it with 'jobd start'"
            return DaemonUnreachable(f"the daemon at {socket} went away", hint)
        case OSError():
            why = error.strerror or error
            return ConfigError(f"{socket} cannot be a socket: {why}", "choose another --socket")
    return DaemonUnreachable(f"what answers at {socket} is no jobd: {error}", "is the path right?")


def error_of(ended: Ended) -> JobError:
    """Return the exception that tells how a job ended."""
    error = ended.error
    kind = error.type if error else ""
    trace = error.traceback if error else ""
    see = f"see 'jobd logs {ended.id}'"
    if ended.state is State.CANCELLED:
        why = f": {ended.cause}" if ended.cause else ""
        return JobCancelled(f"job {ended.id} was cancelled{why}", "", id=ended.id)
    if ended.state is State.CRASHED:
        return JobCrashed(
            f"job {ended.id} crashed ({ended.cause})", see, id=ended.id, traceback=trace
        )
    text = f"{kind}: {error.message}" if error and error.message else kind
    return JobFailed(f"job {ended.id} failed: {text}", see, id=ended.id, type=kind, traceback=trace)


def _encode_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    try:
        return payload.encode_call(args, kwargs)
    except payload.Unencodable as error:
        raise UsageError(
            f"an argument cannot travel to the worker: {error}", "pass plain data"
        ) from error


def _default_socket() -> str:
    from jobd.config import load  # noqa: PLC0415  # the command line has loaded them already, and passes a socket

    return load(config_file=None, flags={}, environ=os.environ).settings.socket
