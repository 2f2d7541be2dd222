"""One question and its answer, for whatever driver.

What a client can be asked for is a generator (``Steps``): it yields what it has to wait for, and returns
its answer.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeVar

from jobd.client.deferred import DeferredBase
from jobd.client.waiting import Pending, Waitable
from jobd.model.errors import UsageError
from jobd.model.messages import Message, encode

R = TypeVar("R")
M = TypeVar("M", bound=Message)
Steps = Generator[Waitable, None, R]


def replies(
    request: Any,
    *,
    stream: bool = False,
    patient: bool = False,
    awaited: Sequence[int] | None = None,
) -> Steps[list[Message]]:
    """Return all answers to a request.

    Raises:
        JobdError: it was refused.
    """
    try:
        frame = encode([request])
    except OverflowError:
        raise UsageError("a number is over 2^64", "numbers of jobs are much smaller") from None
    pending = Pending(request.rid, frame, stream=stream, patient=patient, awaited=awaited)
    yield pending
    if pending.error is not None:
        raise pending.error
    return pending.replies


def ask(
    request: Any, kind: type[M], *, patient: bool = False, awaited: Sequence[int] | None = None
) -> Steps[M]:
    """Return the one answer to a request."""
    (reply,) = yield from replies(request, patient=patient, awaited=awaited)
    assert isinstance(reply, kind)
    return reply


def identify(deferred: DeferredBase[Any]) -> Steps[int]:
    """Return a job's id once it is durable.

    Raises:
        JobdError: the submit was refused.
    """
    submission = deferred._submission  # noqa: SLF001  # ours
    if not deferred._id and submission is not None:  # noqa: SLF001  # ours
        yield submission
        if (error := submission.refusal()) is not None:
            raise error
    return deferred._id  # noqa: SLF001  # ours
