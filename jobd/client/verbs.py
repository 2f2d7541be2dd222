"""What a client can be asked for, once for all drivers.

Each verb is a generator that yields what it has to wait for, a request or a deferred
result, goes on when that is done, and returns its answer.  A driver sends the request that
it is given, waits in its own way, and enforces the deadlines: for the answer to a request
the client's own, for the end of a job the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from jobd import context
from jobd.client.asking import Steps, ask, identify, replies
from jobd.client.batches import Reader
from jobd.client.core import Core
from jobd.client.deferred import DeferredBase, ended_of, error_of, value_of
from jobd.client.waiting import Arrivals, Farewell
from jobd.model.errors import JobError, UsageError, no_such_job
from jobd.model.job import ITEMS, JobInfo
from jobd.model.messages import (
    Accepted,
    Answers,
    Apply,
    Cancel,
    Ended,
    Fetch,
    Fetched,
    Find,
    Graph,
    GraphInfo,
    Hold,
    Jobs,
    List,
    LogData,
    Logs,
    Message,
    Offered,
    Ping,
    Pong,
    QueueInfos,
    Queues,
    Release,
    Reload,
    RemoveQueue,
    Retry,
    SetArray,
    SetQueue,
    Status,
    StatusInfo,
    Stop,
    Take,
    Taken,
    Watch,
    Watching,
    encode,
)
from jobd.model.options import OPTIONS, check_queue_name, parse_queue
from jobd.model.queues import QueueInfo
from jobd.model.selector import Selection, one, select
from jobd.model.states import NAMES, State

if TYPE_CHECKING:
    from jobd.client.options import Duration

R = TypeVar("R")
D = TypeVar("D", bound=DeferredBase[Any])
AnyCore = Core[Any]
AnyDeferred = DeferredBase[Any]

LOG_CHUNK = 256 * 1024
LONGEST_DRAIN_S = 1e9


def _answers(request: Any) -> Steps[list[tuple[int, str]]]:
    found = yield from replies(request, stream=True, patient=True)
    return [answer for reply in found if isinstance(reply, Answers) for answer in reply.answers]


# -- one deferred result ------------------------------------------------------


def watch(core: AnyCore, deferreds: Iterable[AnyDeferred], *, again: bool = False) -> Steps[None]:
    """Have the ends pushed of those jobs of which that is not asked yet, or ``again`` of all.

    Raises:
        NotFound: one of them does not exist.
    """
    missing = [d for d in deferreds if again or not d._watched]  # noqa: SLF001  # ours
    if not missing:
        return
    for deferred in missing:
        yield from identify(deferred)
    numbers = [deferred._id for deferred in missing]  # noqa: SLF001  # ours
    progress = core.onlooker is not None
    reply = yield from ask(Watch(core.next_rid(), numbers, progress), Watching)
    if reply.unknown:
        raise no_such_job(reply.unknown[0])
    for deferred in missing:
        deferred._watched = True  # noqa: SLF001  # ours


def end(core: AnyCore, deferred: AnyDeferred) -> Steps[Ended]:
    """Return how a job ended, once it has.

    Raises:
        JobdError: the submit was refused.
    """
    if not deferred.done():
        yield from watch(core, [deferred])
        if context.host is not None:
            yield from identify(deferred)  # a job's daemon wants to know whom it waits for
        yield deferred
    ended, submission = deferred._ended, deferred._submission  # noqa: SLF001  # ours
    if ended is None:
        assert submission is not None
        error = submission.refusal()
        assert error is not None
        raise error
    return ended


def result(core: AnyCore, deferred: AnyDeferred) -> Steps[Any]:
    """Return what the function returned, or raise why it did not."""
    ended = yield from end(core, deferred)
    if ended.value == ITEMS:
        return (yield from Reader(core, deferred).values())
    if not ended.inline:
        ended = yield from _with_value(core, ended)
    return value_of(ended, core.files.blobs)


def keep(core: AnyCore, deferred: AnyDeferred, ended: Ended) -> Steps[None]:
    """Have the value of a job that has ended here, however large it is."""
    deferred._ended = yield from _with_value(core, ended)  # noqa: SLF001  # ours


def _with_value(core: AnyCore, ended: Ended) -> Steps[Ended]:
    fetched = yield from fetch(core, ended.id)
    return ended_of(fetched)


def exception(core: AnyCore, deferred: AnyDeferred) -> Steps[JobError | None]:
    """Return what ``result`` would raise because of how the job ended, or None."""
    ended = yield from end(core, deferred)
    return None if ended.state is State.SUCCEEDED else error_of(ended)


def state(core: AnyCore, deferred: AnyDeferred) -> Steps[str]:
    """Return the name of the state that a job is in now."""
    if deferred._ended is not None:  # noqa: SLF001  # ours
        return NAMES[deferred._ended.state]  # noqa: SLF001  # ours
    number = yield from identify(deferred)
    (info,) = yield from find(core, one(number))
    return NAMES[info.state]


def cancel_one(
    core: AnyCore, deferred: AnyDeferred, reason: str, grace: Duration | None, *, now: bool
) -> Steps[bool]:
    """Cancel one job; return whether it had not ended yet."""
    number = yield from identify(deferred)
    ((_, answer),) = yield from cancel(core, one(number), reason, grace, now=now)
    return answer != "already finished"


def hold_one(core: AnyCore, deferred: AnyDeferred) -> Steps[bool]:
    """Set one job aside; return whether it had not started."""
    number = yield from identify(deferred)
    ((_, answer),) = yield from hold(core, one(number))
    return answer == "held"


def release_one(core: AnyCore, deferred: AnyDeferred) -> Steps[bool]:
    """Let one job go; return whether it was held."""
    number = yield from identify(deferred)
    ((_, answer),) = yield from release(core, one(number))
    return answer == "released"


# -- several of them ----------------------------------------------------------


def ends(core: AnyCore, deferreds: list[D]) -> Steps[dict[int, Ended]]:
    """Return how jobs ended, once all have."""
    looks_on = core.onlooker is not None or core.on_stuck is not None
    yield from watch(core, [d for d in deferreds if not d.done()], again=looks_on)
    found = {}
    for deferred in deferreds:
        ended = yield from end(core, deferred)
        found[ended.id] = ended
    return found


def flush(core: AnyCore) -> Steps[None]:
    """Return once every submit is durable.

    Raises:
        JobdError: one was refused, and nobody has looked at it.
    """
    yield from core.submissions()
    error = core.take_failure()
    if error is not None:
        raise error


def arrival(arrivals: Arrivals[D]) -> Steps[D]:
    """Return the next one that is done, once there is one."""
    yield arrivals
    return arrivals.pop()


# -- the other verbs ----------------------------------------------------------


def fetch(core: AnyCore, number: int) -> Steps[Fetched]:
    """Return a job's state as it is now, and its result if it has one."""
    return ask(Fetch(core.next_rid(), number), Fetched)


def take(core: AnyCore, number: int, consume: Callable[[Ended], R]) -> Steps[R]:
    """Consume a job's value: have ``consume`` make of it what is wanted, then say that it is here.

    Raises:
        NotReady: the job has not ended.
        JobError: it ended without a result.
        AlreadyTaken, ResultExpired: the value is gone.
    """
    token = os.urandom(8)
    request = Take(core.next_rid(), number, token)
    (offered,) = yield from replies(request, patient=True)  # somebody else may be at it
    assert isinstance(offered, Offered)
    ended = ended_of(offered)
    if ended.state is not State.SUCCEEDED:
        raise error_of(ended)
    found = consume(ended)
    yield from replies(Taken(core.next_rid(), number, token), patient=True)
    return found


def take_value(core: AnyCore, deferred: AnyDeferred) -> Steps[Any]:
    """Wait for a job's end, and consume its value."""
    ended = yield from end(core, deferred)
    blobs = core.files.blobs
    return (yield from take(core, ended.id, lambda offered: value_of(offered, blobs)))


def find(core: AnyCore, selection: Selection) -> Steps[list[JobInfo]]:
    """Return the selected jobs with all details, the newest first."""
    found = yield from replies(Find(core.next_rid(), select(selection)), stream=True, patient=True)
    return [info for reply in found if isinstance(reply, Jobs) for info in reply.jobs]


def page(
    core: AnyCore, selection: Selection, limit: int, before: int
) -> Steps[tuple[list[JobInfo], bool]]:
    """Return up to ``limit`` jobs, the newest first, and whether there are older ones."""
    reply = yield from ask(List(core.next_rid(), select(selection), before, limit), Jobs)
    return reply.jobs, reply.more


def cancel(
    core: AnyCore,
    selection: Selection,
    reason: str,
    grace: Duration | None = None,
    *,
    now: bool = False,
    only_waiting: bool = False,
) -> Steps[list[tuple[int, str]]]:
    """Cancel jobs; return what became of each.

    Raises:
        UsageError: the grace is no duration, or there is one although it is to be ``now``.
    """
    if now and grace is not None:
        raise UsageError("to cancel now leaves no grace", "give one of the two")
    grace_s = 0.0 if now else None
    if grace is not None:
        grace_s = cast("float", OPTIONS["kill_grace"].parse(grace))
    return _answers(Cancel(core.next_rid(), select(selection), reason, only_waiting, grace_s))


def retry(core: AnyCore, selection: Selection, args: bytes = b"") -> Steps[list[tuple[int, str]]]:
    """Queue jobs again, or one with another call (encoded); return what became of each."""
    return _answers(Retry(core.next_rid(), select(selection), args))


def hold(core: AnyCore, selection: Selection) -> Steps[list[tuple[int, str]]]:
    """Set jobs aside that have not started; return what became of each."""
    return _answers(Hold(core.next_rid(), select(selection)))


def release(core: AnyCore, selection: Selection) -> Steps[list[tuple[int, str]]]:
    """Let jobs go that are held; return what became of each."""
    return _answers(Release(core.next_rid(), select(selection)))


def status(core: AnyCore) -> Steps[StatusInfo]:
    """Return how the daemon is."""
    return ask(Status(core.next_rid()), StatusInfo)


def queues(core: AnyCore, names: Sequence[str]) -> Steps[list[QueueInfo]]:
    """Return how these queues are, or all."""
    reply = yield from ask(Queues(core.next_rid(), [*names]), QueueInfos)
    return reply.queues


def set_queue(
    core: AnyCore,
    name: str,
    slots: int | str | None,
    rate: str | int | None,
    *,
    reset: bool = False,
) -> Steps[QueueInfo]:
    """Change a queue, or make it; return how it is then."""
    said = parse_queue({"slots": slots, "rate": rate})
    request = SetQueue(core.next_rid(), check_queue_name(name), said.slots, said.rate, reset=reset)
    reply = yield from ask(request, QueueInfos)
    return reply.queues[0]


def set_array(core: AnyCore, number: int, slots: int) -> Steps[Message]:
    """Change how many items of an array may run at once."""
    return ask(SetArray(core.next_rid(), number, slots), Accepted, patient=True)


def pause(core: AnyCore, name: str, *, paused: bool) -> Steps[QueueInfo]:
    """Let no job of a queue start any more, or let them start again; return how it is then."""
    request = SetQueue(core.next_rid(), name, paused=paused, known=True)
    reply = yield from ask(request, QueueInfos)
    return reply.queues[0]


def remove_queue(core: AnyCore, name: str) -> Steps[None]:
    """Forget a queue that has no jobs."""
    yield from ask(RemoveQueue(core.next_rid(), name), Message)


def graph(core: AnyCore, number: int, limit: int) -> Steps[GraphInfo]:
    """Return what a job comes after and what comes after it, up to ``limit`` jobs each way."""
    return ask(Graph(core.next_rid(), number, limit), GraphInfo, patient=True)


def try_graph(core: AnyCore, request: Apply) -> Steps[Message]:
    """Have a graph checked that is not to be queued."""
    request.rid, request.dry_run = core.next_rid(), True
    request.uid = request.uid or core.files.next_key()
    return ask(request, Accepted, patient=True)


def ping(core: AnyCore) -> Steps[Pong]:
    """Return an answer, whatever it says."""
    return ask(Ping(core.next_rid()), Pong)


def reload(core: AnyCore) -> Steps[Message]:
    """Have every worker replaced as soon as its job is done."""
    return ask(Reload(core.next_rid()), Message)


def stop(core: AnyCore, drain_s: float | None) -> Steps[None]:
    """End the daemon; return once it has ended."""
    if drain_s is not None and not 0 <= drain_s <= LONGEST_DRAIN_S:
        raise UsageError(f"{drain_s} is no time to drain", "give seconds, 0 or more")
    rid = core.next_rid()
    farewell = core.farewell = Farewell(rid, encode([Stop(rid, drain_s)]), patient=True)
    yield farewell
    if farewell.error is not None:
        core.farewell = None
        raise farewell.error


class LogReader:
    """Reads what attempts of a job wrote, piece by piece."""

    def __init__(self, core: AnyCore, number: int, attempt: int, *, follow: bool) -> None:
        """Begin with ``attempt`` (0: the latest); with ``follow`` go on until the job has ended."""
        self.over = False
        self._core = core
        self._number = number
        self._attempt = attempt
        self._offset = 0
        self._follow = follow

    def read(self) -> Steps[bytes]:
        """Return the next piece; it may be empty."""
        request = Logs(
            self._core.next_rid(),
            self._number,
            self._attempt,
            self._offset,
            LOG_CHUNK,
            self._follow,
        )
        awaited = [self._number] if self._follow else None
        reply = yield from ask(request, LogData, patient=self._follow, awaited=awaited)
        self._offset += len(reply.data)
        self._attempt = reply.attempt
        data = reply.data
        if reply.end:
            self.over = reply.over or not self._follow
            self._attempt, self._offset = reply.attempt + 1, 0
            if reply.dropped:
                data += b"\n[jobd: truncated, %d more bytes were not kept]\n" % reply.dropped
        elif not data and not self._follow:
            self.over = True
        return data
