"""What a submit gives back: the part of a deferred result that is the same for every driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from jobd import payload
from jobd.client.waiting import Submission, Waitable, seconds
from jobd.inputs import Input, Reference, refuse_gone
from jobd.model.edges import success_of
from jobd.model.errors import (
    JobAborted,
    JobCancelled,
    JobCrashed,
    JobError,
    JobExpired,
    JobFailed,
    JobTimedOut,
    NotFound,
    WaitTimeout,
)
from jobd.model.item import shown
from jobd.model.messages import Ended, Fetched, Offered
from jobd.model.states import NAMES, State

if TYPE_CHECKING:
    from jobd.blobs import Blobs

T = TypeVar("T")


class DeferredBase(Waitable, Reference, Generic[T]):
    """A job's id, once that is known, and its end, once that has been heard of."""

    __slots__ = (
        "__weakref__",
        "_client",
        "_ended",
        "_id",
        "_index",
        "_submission",
        "_watched",
    )

    def __init__(
        self,
        client: Any,
        submission: Submission | None,
        index: int,
        id: int = 0,
        watched: bool = False,  # noqa: FBT001, FBT002  # by position: one is made for every job
    ) -> None:
        self._client = client
        self._submission = submission
        self._index = index
        self._id = id
        self._watched = watched
        self._ended: Ended | None = None
        self._waiters = None

    @property
    def awaited(self) -> tuple[int]:
        """The job that it waits for."""
        return (self._id,)

    @property
    def is_new(self) -> bool:
        """Whether the submit has queued this job; False: it is another one, which has its key.

        Never waits: it counts once there is an ``id``.
        """
        return self._submission is None or not self._submission.existed

    def done(self) -> bool:
        """Whether the job's end, or that it was refused, has been heard of; never waits."""
        return self._ended is not None or (
            self._submission is not None and self._submission.error is not None
        )

    def input_of(self) -> Input:
        """Return what a submit calls this job that has it as an input."""
        if self._id:
            return self._id
        assert self._submission is not None
        return self._submission.uid + self._index.to_bytes(8, "big")

    def late(self, timeout_s: float | None) -> WaitTimeout:
        """Return the error that says that the job has not ended."""
        who = self._id or "(not acknowledged yet)"
        problem = f"job {who} has not ended within {seconds(timeout_s)} s"
        return WaitTimeout(problem, "it goes on; ask again later")

    def __repr__(self) -> str:
        words = [f"jobd.{type(self).__name__}", str(self._id or "(not acknowledged)")]
        if self._submission is not None:
            words.append(self._submission.function)
            if self._submission.error is not None:
                words.append(f"refused: {self._submission.error}")
        if self._ended is not None:
            words.append(_ending(self._ended))
        return f"<{' '.join(words)}>"


def _ending(ended: Ended) -> str:
    name = NAMES[ended.state]
    if ended.error is not None:
        text = f"{ended.error.type}: {ended.error.message}".splitlines()[0]
        return f"{name}: {text}"
    return f"{name}: {ended.cause}" if ended.cause else name


def value_of(ended: Ended, blobs: Blobs | None) -> Any:
    """Return what a job returned, or raise what tells how else it ended.

    Raises:
        JobError: it ended without a result.
        AlreadyTaken: somebody has consumed its result.
        ResultExpired: its result was kept for long enough.
    """
    if ended.state is not State.SUCCEEDED:
        raise error_of(ended)
    if ended.value is None:
        raise NotFound(f"the result of job {ended.id} is gone", "submit it again")
    if ended.value == payload.NONE:
        return None
    refuse_gone(ended.value, ended.id)
    return payload.decode(ended.value, blobs)


def ended_of(fetched: Fetched | Offered) -> Ended:
    """Return a job's end as it was fetched, value included."""
    return Ended(
        fetched.id,
        fetched.state,
        fetched.value,
        fetched.error,
        fetched.cause,
        root=fetched.root,
    )


def error_of(ended: Ended) -> JobError:
    """Return the exception that tells how a job ended."""
    error, who = ended.error, shown(ended.id)
    kind = error.type if error else ""
    trace = error.traceback if error else ""
    see = f"see 'jobd logs {who}'"
    if ended.state is State.CANCELLED:
        why = f": {ended.cause}" if ended.cause else ""
        return JobCancelled(f"job {who} was cancelled{why}", "", id=ended.id)
    if ended.state is State.EXPIRED:
        hint = f"'jobd retry {who}' runs it all the same"
        return JobExpired(f"job {who} has expired: it had not started in time", hint, id=ended.id)
    if ended.state is State.CRASHED:
        return JobCrashed(f"job {who} crashed ({ended.cause})", see, id=ended.id, traceback=trace)
    if ended.state is State.TIMED_OUT:
        return JobTimedOut(
            f"job {who} timed out ({ended.cause})",
            see,
            id=ended.id,
            type=kind,
            traceback=trace,
        )
    if ended.state is State.ABORTED:
        hint = f"'jobd retry {ended.root}' gives both another round"
        if ended.cause == success_of(ended.root):
            hint = "it was to run only if that had failed"
        aborted = JobAborted(f"job {who} was aborted: {ended.cause}", hint, id=ended.id, type=kind)
        aborted.root = ended.root
        return aborted
    text = f"{kind}: {error.message}" if error and error.message else kind
    failed = JobFailed(f"job {who} failed: {text}", see, id=ended.id, type=kind, traceback=trace)
    failed.pickled = error.pickled if error else b""
    return failed
