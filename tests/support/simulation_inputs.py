"""What must be so of jobs that come after others, whatever happens in a simulation."""

from __future__ import annotations

from collections import Counter

from fake_store import FakeStore

from jobd.daemon.assembly import Daemon
from jobd.model.edges import Standing, When, standing
from jobd.model.item import FIRST_ITEM
from jobd.model.job import Job
from jobd.model.states import ENDED, State


class Broken(AssertionError):
    """A promise was broken."""


LET_GO = (State.SCHEDULED, State.QUEUED, State.RUNNING)
RUNS = (State.SCHEDULED, State.QUEUED, State.SUCCEEDED, State.FAILED, State.CRASHED)


class EdgeTruth:
    """How jobs have ended, round after round: who was released by an end keeps that."""

    def __init__(self) -> None:
        self._ends: dict[int, set[State]] = {}
        self._blocked: set[int] = set()
        """Who was blocked after the last turn."""
        self.met: Counter[tuple[When, bool]] = Counter()
        """How often an edge has let a job start, by whether its source had succeeded."""

    def ended(self, row: Job) -> None:
        """Take note of an end."""
        if row.state >= ENDED:
            self._ends.setdefault(row.id, set()).add(row.state)

    def see(self, daemon: Daemon, store: FakeStore) -> None:
        """Take note of the ends of a turn, and judge those whom it has let go."""
        jobs = daemon.scheduler.window.jobs
        for job in daemon.scheduler.ledger.batch.jobs.values():
            self.ended(job)  # a retry of the root may undo it before it is stored
        for number in self._blocked & jobs.keys():
            if jobs[number].state in LET_GO:
                self._judge_release(daemon, store, jobs[number])
        self._blocked = blocked_of(daemon, store)

    def _judge_release(self, daemon: Daemon, store: FakeStore, job: Job) -> None:
        for source, when in job.edges().items():
            state = state_of(daemon, store, source)
            was_revived = State.ABORTED in self._ends.get(source, ())  # maybe in this very turn
            if standing(when, state) is not Standing.MET and not was_revived:
                raise Broken(f"job {job.id} was let go, and {source} is {state.name}: {when!r}")

    def daemon_died(self) -> None:
        """Forget what was in its memory only."""
        self._blocked.clear()

    def judge(self, old: Job | None, row: Job) -> None:
        """Judge a row that is stored: who may run has had all that it waited for."""
        if row.state in RUNS and (old is None or old.state not in RUNS):
            for source, when in row.edges().items():
                ends = self._ends.get(source, set())
                fits = {end for end in ends if standing(when, end) is Standing.MET}
                if not fits:
                    raise Broken(
                        f"job {row.id} is {row.state.name}, after {source}: {when!r}, {ends}"
                    )
                self.met[when, State.SUCCEEDED in ends] += 1
        if row.id >= FIRST_ITEM:
            return
        if bool(row.root) is not (row.state is State.ABORTED):
            raise Broken(f"job {row.id} is {row.state.name}, and {row.root} is to blame")


def blocked_of(daemon: Daemon, store: FakeStore) -> set[int]:
    """Return the blocked jobs, in memory and in the store."""
    jobs = daemon.scheduler.window.jobs
    waiting = {n for n, job in jobs.items() if job.state is State.BLOCKED}
    return waiting | {
        n for n, r in store.live.items() if r.state is State.BLOCKED and n not in jobs
    }


def check_waits(daemon: Daemon, store: FakeStore) -> None:
    """After each turn: every blocked job is counted, and is found when its inputs have ended."""
    scheduler = daemon.scheduler
    jobs, blocked = scheduler.window.jobs, scheduler.blocked
    waiting = blocked_of(daemon, store)
    if not blocked.missing.keys() <= waiting:
        raise Broken(f"{blocked.missing} are resident, {waiting} are blocked")
    if len(waiting) - len(blocked.missing) != blocked.spilled:
        raise Broken(f"{waiting} are blocked, {blocked.missing} resident, {blocked.spilled} not")
    if blocked._edges != sum(map(len, blocked._dependants.values())):
        raise Broken(f"9: {blocked._edges} edges are counted of {blocked._dependants}")
    for number, sources in blocked.missing.items():
        for other in sources:
            if number not in blocked._dependants.get(other, ()):
                raise Broken(f"job {number} waits for {other}, which does not know")
    if daemon.dependencies.has_more or scheduler.ledger.batch or scheduler.ledger.in_flight:
        return
    for number in waiting:
        job = jobs.get(number) or store.job(number)
        assert job is not None
        stand = {
            source: standing(when, state_of(daemon, store, source))
            for source, when in job.edges().items()
        }
        values = set(stand.values())
        if Standing.NEVER in values or Standing.WAITS not in values:
            raise Broken(f"6: job {number} is blocked, and its edges are {stand}")


def state_of(daemon: Daemon, store: FakeStore, number: int) -> State:
    """Return a job's state as it is in memory, or else as it is stored."""
    job = daemon.scheduler.window.jobs.get(number)
    state = job.state if job else store.state_of(number)
    assert state is not None
    return state


def waiting_for(store: FakeStore, number: int) -> set[int]:
    """Return this job and all that wait for it, directly or not."""
    found = {number}
    for row in sorted(store.live.values(), key=lambda row: row.id):
        if row.state is State.BLOCKED and not found.isdisjoint(row.edges()):
            found.add(row.id)
    return found


def check_edges(store: FakeStore) -> None:
    """At the end: who was aborted had to be, names the one to blame, and can be revived."""
    for row in store.rows.values():
        if row.id >= FIRST_ITEM:
            continue
        edges = row.edges()
        stored = {a: edge for (a, b), edge in store.edges.items() if b == row.id}
        if {source: when for source, (when, _) in stored.items()} != edges:
            raise Broken(f"job {row.id} has the edges {edges}, and {stored} are stored")
        if row.state is State.ABORTED:
            blamed = roots(store, row)
            if row.root not in blamed or f"job {row.root} " not in row.cause:
                raise Broken(f"job {row.id} blames {row.root}, not {blamed}: {row.cause}")
        for source, (when, is_open) in stored.items():
            state = store.state_of(source)
            may_change = state is not State.SUCCEEDED or when is When.FAILED
            if may_change and not is_open:
                raise Broken(f"the edge from {source}, {state!r}, to {row.id} is closed: {when!r}")


def roots(store: FakeStore, job: Job) -> set[int]:
    """Return the jobs that may be to blame: they have ended by themselves."""
    found = set()
    for number, when in job.edges().items():
        other = store.job(number)
        if other is None or standing(when, other.state) is not Standing.NEVER:
            continue
        found |= roots(store, other) if other.state is State.ABORTED else {number}
    if job.policy is not None and job.policy.key:
        found.add(job.root)  # it may stay as it is when that is retried: another job has its key
    return found
