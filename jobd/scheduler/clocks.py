"""How long attempts may take: the hard limits of those that run, on the monotonic clock.

A limit counts from the moment the order to run leaves, if the worker has nothing else in hand, and
else from the moment it is heard that what lay before the job has ended.
The worker of a dead daemon tells how long its job has been running; until it does, the
limit counts from the moment it was taken over, so that nothing ends early.
"""

from __future__ import annotations

from jobd.model.job import Job
from jobd.model.options import Policy
from jobd.model.orders import Limits

Key = tuple[str, int, int]
"""A worker, a job, an attempt."""


class Clocks:
    """The hard limits that are running."""

    def __init__(self) -> None:
        self.due: dict[Key, int] = {}
        """When each is over, in microseconds."""

    def start(self, uid: str, job: Job, since_us: int) -> None:
        """Count from ``since_us`` on, if the job has a limit."""
        if job.policy is not None and job.policy.timeout:
            limit_us = round(job.policy.timeout * 1e6)
            self.due[uid, job.id, job.attempt] = since_us + limit_us

    def begins(self, uid: str, job: Job, now_us: int) -> None:
        """Count from now on, unless that has begun or is over, if the order to run has left."""
        is_open = job.stop is None and job.lease is not None and job.lease.run
        if is_open and (uid, job.id, job.attempt) not in self.due:
            self.start(uid, job, now_us)

    def stop(self, uid: str, job: Job) -> None:
        """The attempt is over, or no longer with this worker."""
        self.due.pop((uid, job.id, job.attempt), None)

    def take_over(self, now_us: int) -> list[Key]:
        """Return the attempts whose limit is over, once."""
        over = [key for key, at in self.due.items() if now_us >= at]
        for key in over:
            del self.due[key]
        return over


def is_limited(policy: Policy | None) -> bool:
    """Whether attempts of a job are not handed out in numbers: each has a limit, or has to be first."""
    return policy is not None and bool(
        policy.timeout or policy.soft_timeout or has_to_be_first(policy)
    )


def has_to_be_first(policy: Policy) -> bool:
    """Whether attempts of a job must not wait in a worker's hands at all."""
    # What is in a worker's hands does not count as waiting.
    return "waiting" in policy.unique or is_restricted(policy)


def is_restricted(policy: Policy) -> bool:
    """Whether a worker that has run such a job must run no other: some limits cannot be lifted."""
    return bool(policy.mem or policy.cpus or policy.nproc or policy.nice)


def limits_of(policy: Policy) -> Limits | None:
    """Return what the worker has to see to; None: nothing."""
    if not policy.soft_timeout and not is_restricted(policy):
        return None
    return Limits(policy.soft_timeout, policy.mem, policy.cpus, policy.nproc, policy.nice)


def cause_of(policy: Policy | None, *, soft: bool) -> str:
    """Return the cause of a timed-out attempt: ``hard, after 30 s``."""
    assert policy is not None
    return f"soft, after {policy.soft_timeout:g} s" if soft else f"hard, after {policy.timeout:g} s"
