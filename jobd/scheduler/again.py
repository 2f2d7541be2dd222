"""What follows a failed attempt: another one, at once or later, or the job's end.

The job itself may say so by what it raises (``jobd.Retry``, ``jobd.snooze``,
``jobd.Cancel``); else its policy does.  Only attempts that have failed by themselves count:
not those that were cut off, given back or snoozed, nor those whose worker has died, which
have a budget of their own.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from jobd.model.job import Job, Raised, Wish
from jobd.model.options import BUILT_IN, Policy, retry_delay_s


class Then(IntEnum):
    """What follows an attempt."""

    FAIL = 1
    AGAIN = 2
    """It counts as failed, and there is another one."""
    SNOOZE = 3
    """It does not count."""
    CANCEL = 4


class Step(NamedTuple):
    """What follows an attempt, and after how long (µs)."""

    then: Then
    delay_us: int = 0


FAIL = Step(Then.FAIL)


TIMED_OUT = Raised(["jobd.TimeLimitExceeded", "timed_out"])
"""An attempt that took longer than it may has raised that, or as good as."""


def after(job: Job, raised: Raised) -> Step:
    """Return what follows an attempt that has raised; ``job.failures`` is from before it."""
    policy = job.policy or BUILT_IN
    if raised.wish == Wish.CANCEL:
        return Step(Then.CANCEL)
    delay_us = None if raised.in_s is None else round(raised.in_s * 1e6)
    if raised.wish == Wish.SNOOZE:
        return Step(Then.SNOOZE, delay_us or 0)
    is_asked = raised.wish == Wish.RETRY
    if job.failures >= policy.retries or not (is_asked or is_retried(policy, raised.names)):
        return FAIL
    if delay_us is None:
        delay_us = round(retry_delay_s(policy, job.id, job.failures + 1) * 1e6)
    return Step(Then.AGAIN, delay_us)


def is_retried(policy: Policy, names: list[str]) -> bool:
    """Whether the policy allows a retry after an exception; ``names`` are its class's and its bases'."""
    if any(matches(said, name) for said in policy.no_retry_on for name in names):
        return False
    return not policy.retry_on or any(
        matches(said, name) for said in policy.retry_on for name in names
    )


def matches(said: str, name: str) -> bool:
    """Whether a name that a person has written means this class.

    ``Timeout`` is any class of that name; ``requests.Timeout`` one of any module of that
    package, because a class is seldom imported from the module that defines it.
    """
    if said.rpartition(".")[2] != name.rpartition(".")[2]:
        return False
    package, dot, _ = said.partition(".")
    return not dot or package == name.partition(".")[0]
