"""Jobs that come after others, because of their results or only in order.

An *edge* leads from a source to the job that comes after it (`jobd.model.edges`).  The
store has all of them; one that is met for good, as its source has succeeded, is
*closed* some time, and only tells who came after whom.  Of the blocked jobs as many as
there is room for are *resident*: their open edges are here too, and what ends releases
them in the same turn.  Those that are *spilled* are found by asking the store for the
dependants of whatever has ended (`lookups`); jobd.daemon.dependencies does that.

What a job that has not started should be follows from its edges and the states of their
sources alone: aborted if one can never be met, blocked if one is not met yet, else ready.
So whoever changes only has to have its dependants looked at again, and nothing depends on
the order.  Ready is for good: who has been released does not wait again, whatever is
retried.  All walks are queues that are worked off in slices.
"""

from __future__ import annotations

import msgspec

from jobd.model.edges import Edges, Standing, When, standing, success_of
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

MOST_DOWNSTREAM = 1_000

Edge = tuple[int, int, When, bool]
"""The source, the job that comes after it, and whether that may still matter to it."""


class Sources(msgspec.Struct):
    """What is known of the jobs that new ones come after."""

    states: dict[int, State]
    never: dict[int, Job]
    """Those because of which one of the new ones can never start."""

    def add(self, job: Job) -> None:
        """Take note of one of the new ones: others may come after it."""
        self.states[job.id] = job.state
        if job.state >= ENDED:
            self.never[job.id] = job


NO_SOURCES = Sources({}, {})
"""For jobs that come after none."""


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
        """Of each resident job, the sources of the edges that are not met."""
        self.lookups: dict[int, Lookup] = {}
        self.fresh: dict[int, None] = {}
        """Jobs to be looked at, now that their edges are stored."""
        self.wall = 0
        self._dependants: dict[int, dict[int, When]] = {}
        """By source the residents that it may still matter to: a met edge too, if a retry may undo that."""
        self._edges = 0
        """How many these are."""
        self._queue: dict[int, Settling] = {}

    @property
    def is_busy(self) -> bool:
        """Whether there is more to be told to residents."""
        return bool(self._queue)

    def is_settling(self, number: int) -> bool:
        """Whether some dependants have not been told yet of this job's end."""
        return number in self._queue or number in self.lookups

    # -- coming and going --

    def admit(self, job: Job, sources: Sources) -> None:
        """Take in a new job that has a row from the start."""
        edges, waits, never = self._meet(job, sources)
        self._window.jobs[job.id] = job
        self._ledger.store(job)
        if job.policy is not None:
            self._timers.watch(job)
            if job.policy.hold:
                job.state = transition(job.state, Event.HOLD)
                return
        if not waits and never is None:
            if not (job.lane or self._window.is_full):
                self._window.cursor = max(self._window.cursor, job.id)
            self.ready(job)
            return
        job.state = State.BLOCKED
        has_room = len(self.missing) < JOBS and self._edges + len(edges) <= EDGES
        if never is None and has_room:
            self._edges += len(edges)
            self.missing[job.id] = waits
            for source, when in edges.items():
                self._dependants.setdefault(source, {})[job.id] = when
        else:
            self.spilled += 1
            if never is not None:
                self.abort(job, never)

    def _meet(self, job: Job, sources: Sources) -> tuple[Edges, set[int], Job | None]:
        """Store a new job's edges; return the open ones, whom it waits for, and who keeps it from starting."""
        edges: Edges = {}
        waits: set[int] = set()
        never = None
        for source, when in job.edges().items():
            state = sources.states[source]
            stands = standing(when, state)
            is_open = stands is not Standing.MET or state is not State.SUCCEEDED
            self._ledger.batch.edges.append((source, job.id, when, is_open))
            if is_open:
                edges[source] = when
            if stands is Standing.WAITS:
                waits.add(source)
            elif stands is Standing.NEVER:
                never = never or sources.never[source]
        return edges, waits, never

    def leave(self, job: Job) -> None:
        """This job is blocked no longer."""
        if self.missing.pop(job.id, None) is None:
            self.spilled -= 1
            return
        for source in job.edges():
            self._unlink(source, job.id)

    def _unlink(self, source: int, number: int) -> None:
        """Forget a resident's edge, if it is known."""
        dependants = self._dependants.get(source)
        if dependants is not None and dependants.pop(number, None) is not None:
            self._edges -= 1
            if not dependants:
                del self._dependants[source]

    def downstream(self, number: int) -> list[int]:
        """Return this job and the residents that wait for it, by way of others too; not all, if many."""
        found = {number: None}
        ahead = [number]
        while ahead and len(found) < MOST_DOWNSTREAM:
            for dependant in sorted(self._dependants.get(ahead.pop(), ())):
                if dependant not in found:
                    found[dependant] = None
                    ahead.append(dependant)
        return list(found)

    def ready(self, job: Job, *, at_once: bool = False) -> None:
        """Queue a job that is in memory, or leave it to the store if there is no room, or it is too early."""
        self._ledger.store(job)
        if not at_once and self._timers.postpone(job):
            return
        if self._window.has_room(job):
            self._window.push(job)
        else:
            self._ledger.batch.spill.add(job.id)

    def forget(self, first: int, count: int) -> None:
        """Drop jobs whose submit has failed."""
        for number in range(first, first + count):
            job = self._window.jobs.get(number)
            if job is not None and job.state is State.BLOCKED:
                self.leave(job)
            self._queue.pop(number, None)
            self.lookups.pop(number, None)

    def stored(self, edges: list[Edge]) -> None:
        """These edges are durable: those that could not be seen before may matter."""
        self.fresh.update(
            (job, None) for _, job, _, is_open in edges if is_open and job not in self.missing
        )

    def unload(self, job: Job) -> None:
        """A blocked job is stored as it is: it leaves memory unless it is resident."""
        if job.id not in self.missing:
            self._window.unload(job)

    def hold(self, job: Job) -> None:
        """Set a job aside that is in memory and has not started; it leaves memory once that is stored."""
        if job.state is State.BLOCKED:
            self.leave(job)
        job.state = transition(job.state, Event.HOLD)
        self._ledger.store(job)

    def restore(self, job: Job) -> None:
        """Take a job in that is blocked again, because what it was to be was not stored."""
        self.spilled += 1
        if job.id <= self._ledger.stored_high:  # else it is looked at with its edges
            self.fresh[job.id] = None

    def let_go(self, job: Job) -> None:
        """Make a held job what its edges, and then its time, make it; the edges are looked at later."""
        job.state = transition(job.state, Event.LET_GO)
        self.spilled += 1
        if job.edges() and not job.attempt:  # who has started once does not wait again
            self._ledger.store(job)
            self.fresh[job.id] = None
        else:
            self.release(job)

    # -- what an end means for others --

    def ended(self, job: Job) -> None:
        """A job has ended: its dependants are released or aborted, some time soon."""
        if job.void:
            return
        dependants = self._dependants.get(job.id)
        if dependants:
            self._queue[job.id] = Settling(job, sorted(dependants))
        if self.spilled:
            before = self.lookups.get(job.id)
            changed = before is not None and before.changed
            self.lookups[job.id] = Lookup(changed=changed, has_edges=bool(dependants))
        elif dependants and job.state is State.SUCCEEDED:
            self.settled(job.id)

    def settled(self, number: int) -> None:
        """Everybody knows of this success: have the edges closed that lead from it and are met."""
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
        when = self._dependants[job.id][dependant]
        if standing(when, job.state) is Standing.NEVER:
            self.abort(waiting, job)
            return
        missing = self.missing[dependant]
        missing.discard(job.id)
        if job.state is State.SUCCEEDED:
            self._unlink(job.id, dependant)
        if not missing:
            self.release(waiting)

    def release(self, job: Job) -> None:
        """All edges of a blocked job in memory are met."""
        self.leave(job)
        job.state = transition(job.state, Event.RELEASE)
        self.ready(job)

    def abort(self, job: Job, failed: Job) -> None:
        """This job, which is blocked or was aborted, can never start because of how another ended."""
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
        """Nothing keeps this job, which was aborted or cancelled, from ever starting any more."""
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
        """A job that had ended gets another round: who has not started because of that is to wait again."""
        self._queue.pop(number, None)
        for dependant in self._dependants.get(number, ()):
            self.missing[dependant].add(number)
        self.changed(number)

    def changed(self, number: int) -> None:
        """Have this job's dependants looked up, the aborted ones too."""
        self.lookups[number] = Lookup(changed=True)


def root_of(failed: Job) -> int:
    """Return the job that is to blame for those who are aborted because of this one."""
    return failed.root or failed.id


def blame(failed: Job) -> tuple[str, ErrorInfo | None]:
    """Return the cause and the error of a job that is aborted because of another one."""
    error = failed.error
    if failed.state is State.ABORTED:
        return failed.cause, error
    if failed.state is State.SUCCEEDED:
        return success_of(failed.id), None
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
