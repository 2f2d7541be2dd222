"""What a client waits for: the answer to a request, the end of a job, the first of several."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from jobd.model.errors import JobdError, WaitTimeout
from jobd.model.messages import Message, Refused, error_of

D = TypeVar("D", bound="Waitable")

Waiter = Callable[[Any], object]
"""What is called once something is done, with it.

It is called while the client's lock is held, by whichever thread reads: so it must be quick,
and may not ask the client for anything.
"""


def seconds(value: float | None) -> str:
    """Return seconds as people write them: what is left of a time is rarely round."""
    return f"{round(value or 0.0, 3):g}"


class Waitable:
    """Something that is done some day."""

    __slots__ = ("_waiters",)

    patient = True
    """Whether it may take as long as the caller says, not only as long as an answer may."""

    @property
    def awaited(self) -> Sequence[int] | None:
        """The jobs that it waits for, as far as they are known; None: it waits for none."""
        return None

    def done(self) -> bool:
        """Whether it is; never waits."""
        raise NotImplementedError

    def late(self, timeout_s: float | None) -> WaitTimeout:
        """Return the error that says what has not happened in time."""
        raise NotImplementedError

    def call_when_done(self, waiter: Waiter) -> None:
        """Have ``waiter`` called once, at once if this is done; the client's lock is held."""
        if self.done():
            waiter(self)
        elif self._waiters is None:
            self._waiters: list[Waiter] | None = [waiter]
        else:
            self._waiters.append(waiter)

    def forget(self, waiter: Waiter) -> None:
        """Do not call ``waiter`` after all; the client's lock is held."""
        if self._waiters is not None and waiter in self._waiters:
            self._waiters.remove(waiter)

    def fire(self) -> None:
        """Call those who wait; the client's lock is held."""
        if self._waiters is not None:
            waiters, self._waiters = self._waiters, None
            for waiter in waiters:
                waiter(self)


class Pending(Waitable):
    """A request that is not answered yet, and what has come so far."""

    __slots__ = ("_awaited", "error", "frame", "over", "patient", "replies", "rid", "stream")

    sent = False
    """Whether whoever made it has sent it, too."""

    def __init__(
        self,
        rid: int,
        frame: bytes,
        *,
        stream: bool = False,
        patient: bool = False,
        awaited: Sequence[int] | None = None,
    ) -> None:
        """Prepare; a ``stream`` is answered in several parts."""
        self._waiters = None
        self._awaited = awaited
        self.rid = rid
        self.frame = frame
        self.stream = stream
        self.patient = patient
        self.replies: list[Message] = []
        self.error: JobdError | None = None
        self.over = False

    @property
    def awaited(self) -> Sequence[int] | None:
        """The jobs whose doings the answer may wait for."""
        return self._awaited

    def done(self) -> bool:
        """Whether it has been answered, or refused."""
        return self.over

    def again(self) -> bytes:
        """Return the frame to send when the connection was broken."""
        return self.frame

    def late(self, timeout_s: float | None) -> WaitTimeout:
        """Return the error that says that there is no answer yet."""
        problem = f"the daemon has not answered within {seconds(timeout_s)} s"
        return WaitTimeout(problem, "it may be busy: ask again")

    def take(self, reply: Message) -> None:
        """Take in a reply."""
        if isinstance(reply, Refused):
            self.error = error_of(reply)
            self.over = True
        else:
            self.replies.append(reply)
            self.over = not (self.stream and reply.more)  # type: ignore[attr-defined]  # streams have it


class Submission(Pending):
    """A submit; until it is answered, its deferred results live."""

    __slots__ = ("deferreds", "existed", "first", "function", "seen", "size", "uid", "watch")

    sent = True
    # The same for all: one is made for every job.
    patient = True
    stream = False
    replies: list[Message] = []  # noqa: RUF012  # and stays so
    _awaited = None

    def __init__(  # by position, as it is not by way of the base: one is made for every job
        self,
        rid: int,
        frame: bytes,
        uid: bytes,
        function: str,
        size: int,
        watch: bool,  # noqa: FBT001  # as above
    ) -> None:
        self._waiters = self.error = None
        self.rid = rid
        self.frame = frame
        self.over = self.seen = self.existed = False
        self.uid = uid
        self.function = function
        self.size = size
        self.watch = watch
        self.first = 0
        """The id of its first job, once it is answered."""
        self.deferreds: Sequence[Any] = ()
        """Those of its jobs, each a ``DeferredBase``, which knows of us."""

    def take(self, reply: Message) -> None:
        """Take in that it was refused; what else may come is not told in this way."""
        if isinstance(reply, Refused):
            super().take(reply)

    def late(self, timeout_s: float | None) -> WaitTimeout:
        """Return the error that says that it is not acknowledged."""
        problem = f"{self.function} has not ended within {seconds(timeout_s)} s: its submit is not acknowledged"
        return WaitTimeout(problem, "the daemon may be busy, or checks the function: ask again")

    def refusal(self) -> JobdError | None:
        """Return why it was refused, if it was; whoever asks has seen it."""
        self.seen = True
        return self.error


class Farewell(Pending):
    """A request to stop: it is done when the daemon hangs up."""

    __slots__ = ()

    def late(self, timeout_s: float | None) -> WaitTimeout:
        """Return the error that says that the daemon is still there."""
        return WaitTimeout(
            f"the daemon has not ended within {seconds(timeout_s)} s", "it goes on draining"
        )

    def take(self, reply: Message) -> None:
        """Take in a reply; that it has been accepted is not the end."""
        if isinstance(reply, Refused):
            super().take(reply)


class Arrivals(Waitable, Generic[D]):
    """Deferred results in the order in which they get done; it is done when there is one."""

    __slots__ = ("_ready", "_within_s")

    def __init__(self, within_s: float | None = None) -> None:
        """Prepare; ``within_s`` is how long all of them may take together, if there is a limit."""
        self._waiters = None
        self._ready: deque[D] = deque()
        self._within_s = within_s

    @property
    def awaited(self) -> Sequence[int]:
        """Some jobs, whichever."""
        return ()

    def expect(self, deferreds: Iterable[D]) -> None:
        """Have these arrive as well; the client's lock is held."""
        arrive = self._arrive
        for deferred in deferreds:
            deferred.call_when_done(arrive)

    def pop(self) -> D:
        """Return the next one that is done."""
        return self._ready.popleft()

    def pop_all(self) -> list[D]:
        """Return all that are done."""
        ready = list(self._ready)
        self._ready.clear()
        return ready

    def done(self) -> bool:
        """Whether there is one."""
        return bool(self._ready)

    def late(self, timeout_s: float | None) -> WaitTimeout:
        """Return the error that says that none of those left has ended."""
        within_s = timeout_s if self._within_s is None else self._within_s
        problem = f"some of the jobs have not ended within {seconds(within_s)} s"
        return WaitTimeout(problem, "they go on; ask again later")

    def _arrive(self, deferred: D) -> None:
        self._ready.append(deferred)
        self.fire()
