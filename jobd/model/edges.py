"""What it means that a job comes after another: the kinds of edges, and how an edge stands.

An *edge* leads from a source to a job that comes after it.  A result that is an argument is
an edge of the first kind, with a value.  Whether a job waits, runs or never will follows from
its edges and the states of their sources, and from nothing else: ``standing`` is the rule.

A source that has succeeded stays so.  Any other end may be followed by another round, after a
retry, and who has not started yet waits for that one's end too.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from jobd.model.errors import UsageError
from jobd.model.states import ENDED, State


class When(IntEnum):
    """What a source has to come to, that the job may start; the numbers are stored."""

    SUCCEEDED = 1
    ENDED = 2  # however
    FAILED = 3  # it ended otherwise than by success


Edges = dict[int, When]
"""The sources of one job."""


class Standing(IntEnum):
    """How an edge stands."""

    WAITS = 0
    MET = 1
    NEVER = 2  # the job cannot start, unless the source is retried


OPTIONS = {"after": When.SUCCEEDED, "after_any": When.ENDED, "after_fail": When.FAILED}
"""The options of a submit, by what each asks of the jobs that it names."""

NAMES = {When.SUCCEEDED: "succeeded", When.ENDED: "ended", When.FAILED: "not_succeeded"}
"""What JSON calls them."""


def standing(when: When, state: State) -> Standing:
    """Return how an edge stands whose source is in this state."""
    if state < ENDED:
        return Standing.WAITS
    if when is When.ENDED or (when is When.SUCCEEDED) is (state is State.SUCCEEDED):
        return Standing.MET
    return Standing.NEVER


def joined(inputs: Iterable[int], after: Iterable[tuple[int, When]]) -> Edges:
    """Return the edges of a job; of two from one source the stricter counts.

    Raises:
        UsageError: a source would have to succeed and to fail.
    """
    edges = dict.fromkeys(inputs, When.SUCCEEDED)
    for source, when in after:
        before = edges.setdefault(source, when)
        if before is When.ENDED:
            edges[source] = when
        elif when is not before and when is not When.ENDED:
            raise UsageError(
                f"job {source} cannot both succeed and fail", "name it in one of the two places"
            )
    return edges


def success_of(number: int) -> str:
    """Return the cause of a job that never runs because another one has succeeded: for good."""
    return f"job {number} succeeded"
