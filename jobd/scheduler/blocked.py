"""Jobs that wait for the results of others.

An *edge* leads from an input that has not succeeded to the job that waits for it.
The store has all of them (an edge from a job that has succeeded means nothing and is
removed some time).  Of the blocked jobs as many as there is room for are *resident*:
their edges are here too, and what ends releases them in the same turn.  Those that
are *spilled* are found by asking the store for the dependants of whatever has ended
(`lookups`); jobd.daemon.dependencies does that.

What a job with inputs should be follows from the states of its inputs alone: aborted
if one ended otherwise than by success, blocked if one has not ended, else ready.  So
whoever changes only has to have its dependants looked at again, and nothing depends on
the order.  All walks are queues that are worked off in slices.
"""

from __future__ import annotations

import msgspec

from jobd.model.job import ErrorInfo, Job
from jobd.model.states import ENDED, Event, State, transition
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.timers import Timers
from jobd.scheduler.window import Window

JOBS = 65_536
"""Resident blocked jobs."""

EDGES = 200_000
"""Edges of those."""

SLICE = 2_000
"""Dependants that are told of ends in one turn of the loop."""

BLAME_CHARACTERS = 300

Fate = tuple[list[int], Job | None]
"""What a new job with inputs meets: those that have not succeeded, and one that never will."""


class Settling(msgspec.Struct):
    """An end, and the resident jobs that are to be told of it, the first one first."""

    job: Job
    dependants: list[int]
    done: int = 0


class Lookup(msgspec.Struct):
    """A job whose dependants are to be looked up in the store."""

    changed: bool
    """It had ended and has not any more, or the job that it blames is another one."""
    has_edges: bool = False
    """There are edges that lead from it."""
    after: int = 0
    """Dependants up to this id have been looked at."""


class Blocked:
    """Who waits for whom."""

    def __init__(self, ledger: Ledger, window: Window, timers: Timers) -> None:
        self._ledger = ledger
        self._window = window
        self._timers = timers
        self.spilled = ledger.counts[State.BLOCKED]
        """Blocked jobs that are not resident."""
        self.missing: dict[int, set[int]] = {}
        """Of each resident job, the inputs that have not succeeded."""
        self.lookups: dict[int, Lookup] = {}
        self.fresh: dict[int, None] = {}
        """Jobs to be looked at, now that their edges are stored."""
        self.wall = 0
        self._dependants: dict[int, set[int]] = {}
        self._edges = 0
        self._queue: dict[int, Settling] = {}

    @property
    def is_busy(self) -> bool:
        """Whether there is more to be told to residents."""
        return bool(self._queue)

    def is_settling(self, number: int) -> bool:
        """Whether some dependants have not been told yet of this job's end."""
        return number in self._queue or number in self.lookups

    # -- coming and going --

    def admit(self, job: Job, fate: Fate) -> None:
        """Take in a new job that has inputs."""
        unmet, failed = fate
        self._window.jobs[job.id] = job
        self._ledger.store(job)
        if job.policy is not None:
            self._timers.watch(job, job.policy)
        if not unmet:
            if not self._window.is_full:
                self._window.cursor = max(self._window.cursor, job.id)
            self.ready(job)
            return
        job.state = State.BLOCKED
        edges = self._ledger.batch.edges
        edges += [(number, job.id) for number in unmet]
        has_room = len(self.missing) < JOBS and self._edges + len(unmet) <= EDGES
        if failed is None and has_room:
            self._edges += len(unmet)
            self.missing[job.id] = set(unmet)
            for number in unmet:
                self._dependants.setdefault(number, set()).add(job.id)
        else:
            self.spilled += 1
            if failed is not None:
                self.abort(job, failed)

    def leave(self, job: Job) -> None:
        """This job is blocked no longer."""
        missing = self.missing.pop(job.id, None)
        if missing is None:
            self.spilled -= 1
            return
        self._edges -= len(missing)
        for number in missing:
            dependants = self._dependants.get(number)
            if dependants is not None:
                dependants.discard(job.id)
                if not dependants:
                    del self._dependants[number]

    def ready(self, job: Job, *, at_once: bool = False) -> None:
        """Queue a job that is in memory, or leave it to the store if there is no room, or it is too early."""
        self._ledger.store(job)
        if job.policy is not None and not at_once and self._timers.postpone(job, job.policy):
            return
        if self._window.is_full:
            self._ledger.batch.spill.add(job.id)
        else:
            self._window.push(job)

    def forget(self, first: int, count: int) -> None:
        """Drop jobs whose submit has failed."""
        for number in range(first, first + count):
            job = self._window.jobs.get(number)
            if job is not None and job.state is State.BLOCKED:
                self.leave(job)
            self._queue.pop(number, None)
            self.lookups.pop(number, None)

    def stored(self, edges: list[tuple[int, int]]) -> None:
        """These edges are durable: those that could not be seen before may matter."""
        self.fresh.update((job, None) for _, job in edges if job not in self.missing)

    def unload(self, job: Job) -> None:
        """A blocked job is stored as it is: it leaves memory unless it is resident."""
        if job.id not in self.missing:
            self._window.unload(job)

    # -- what an end means for others --

    def ended(self, job: Job) -> None:
        """A job has ended: its dependants are released or aborted, some time soon."""
        if job.void:
            return
        dependants = self._dependants.pop(job.id, None)
        if dependants:
            self._queue[job.id] = Settling(job, sorted(dependants))
        if self.spilled:
            before = self.lookups.get(job.id)
            changed = before is not None and before.changed
            self.lookups[job.id] = Lookup(changed=changed, has_edges=bool(dependants))
        elif dependants and job.state is State.SUCCEEDED:
            self.settled(job.id)

    def settled(self, number: int) -> None:
        """Everybody knows of this success: have the edges that lead from it removed."""
        self._ledger.batch.settled.append(number)
        self._ledger.batch.urgent = True

    def settle(self) -> None:
        """Go on telling residents, a bounded number of them."""
        left = SLICE
        while self._queue and left > 0:
            number, settling = next(iter(self._queue.items()))
            job, done = settling.job, settling.done
            part = settling.dependants[done : done + left]
            for dependant in part:
                if dependant in self.missing:
                    self._tell(dependant, job)
            settling.done += len(part)
            left -= len(part)
            if settling.done == len(settling.dependants):
                del self._queue[number]

    def _tell(self, dependant: int, job: Job) -> None:
        waiting = self._window.jobs[dependant]
        if job.state is not State.SUCCEEDED:
            self.abort(waiting, job)
            return
        missing = self.missing[dependant]
        missing.discard(job.id)
        self._edges -= 1
        if not missing:
            self.release(waiting)

    def release(self, job: Job) -> None:
        """The last input of a blocked job in memory has succeeded."""
        if job.id not in self.missing:
            self._ledger.batch.freed.append(job.id)
        self.leave(job)
        job.state = transition(job.state, Event.RELEASE)
        self.ready(job)

    def abort(self, job: Job, failed: Job) -> None:
        """An input of this job, which is blocked or was aborted, has ended otherwise than by success."""
        if job.state is State.ABORTED:
            self.changed(job.id)
        else:
            self.leave(job)
            job.state = transition(job.state, Event.ABORT)
            job.ended_at = self.wall
            job.due_at = 0
            self.ended(job)
        job.root = root_of(failed)
        job.cause, job.error = blame(failed)
        self._ledger.store(job)

    # -- another round --

    def revive(self, job: Job, *, is_waiting: bool) -> None:
        """No input of this job, which was aborted or cancelled, has failed any more."""
        self.restarted(job.id)
        job.state = transition(job.state, Event.REVIVE)
        self.spilled += 1
        job.root, job.cause, job.error, job.stop = 0, "", None, None
        job.ended_at = 0
        if is_waiting:
            self._ledger.store(job)
        else:
            self.release(job)

    def restarted(self, number: int) -> None:
        """A job that had ended gets another round: who was aborted for its sake is to be looked at."""
        settling = self._queue.pop(number, None)
        for dependant in settling.dependants[settling.done :] if settling else ():
            if dependant in self.missing:
                self._dependants.setdefault(number, set()).add(dependant)
        self.changed(number)

    def changed(self, number: int) -> None:
        """Have this job's dependants looked up, the aborted ones too."""
        self.lookups[number] = Lookup(changed=True)


def has_failed(job: Job) -> bool:
    """Whether nobody will ever get a result of this job, unless it is retried."""
    return job.state >= ENDED and job.state is not State.SUCCEEDED


def root_of(failed: Job) -> int:
    """Return the job that is to blame for those who have this one as an input."""
    return failed.root or failed.id


def blame(failed: Job) -> tuple[str, ErrorInfo | None]:
    """Return the cause and the error of a job that is aborted because of another one."""
    error = failed.error
    if failed.state is State.ABORTED:
        return failed.cause, error
    if failed.state is State.CRASHED:
        cause = f"job {failed.id} crashed ({failed.cause})"
    elif failed.state is State.TIMED_OUT:
        cause = f"job {failed.id} timed out ({failed.cause})"
    elif failed.state is State.CANCELLED:
        cause = f"job {failed.id} was cancelled" + (f": {failed.cause}" if failed.cause else "")
    elif failed.state is State.EXPIRED:
        cause = f"job {failed.id} has expired"
    else:
        assert error is not None
        message = error.message.partition("\n")[0]
        cause = f"job {failed.id} failed: {error.type}" + (f": {message}" if message else "")
    if error is not None:
        error = ErrorInfo(error.type, error.message[:BLAME_CHARACTERS], "")
    return cause[:BLAME_CHARACTERS], error
