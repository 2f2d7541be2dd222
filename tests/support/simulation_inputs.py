"""What must be so of jobs that wait for others, whatever happens in a simulation."""

from __future__ import annotations

from fake_store import FakeStore

from jobd.daemon.loop import Daemon
from jobd.model.job import Job
from jobd.model.states import ENDED, State


class Broken(AssertionError):
    """A promise was broken."""


RUNS = (State.SCHEDULED, State.QUEUED, State.SUCCEEDED, State.FAILED, State.CRASHED)


def judge_inputs(store: FakeStore, row: Job) -> None:
    """Judge a row when it is stored: who may run, or has run, has all that it waited for."""
    for number in row.inputs or () if row.state in RUNS else ():
        if store.state_of(number) is not State.SUCCEEDED:
            raise Broken(f"job {row.id} is {row.state.name}, and {number} has not succeeded")
    if bool(row.root) is not (row.state is State.ABORTED):
        raise Broken(f"job {row.id} is {row.state.name}, and {row.root} is to blame")


def check_waits(daemon: Daemon, store: FakeStore) -> None:
    """After each turn: every blocked job is counted, and is found when its inputs have ended."""
    scheduler = daemon.scheduler
    jobs, blocked = scheduler.window.jobs, scheduler.blocked
    waiting = {n for n, job in jobs.items() if job.state is State.BLOCKED}
    waiting |= {n for n, r in store.rows.items() if r.state is State.BLOCKED and n not in jobs}
    if not blocked.missing.keys() <= waiting:
        raise Broken(f"{blocked.missing} are resident, {waiting} are blocked")
    if len(waiting) - len(blocked.missing) != blocked.spilled:
        raise Broken(f"{waiting} are blocked, {blocked.missing} resident, {blocked.spilled} not")
    if blocked._edges != sum(map(len, blocked.missing.values())):
        raise Broken(f"9: {blocked._edges} edges are counted of {blocked.missing}")
    for number, inputs in blocked.missing.items():
        for other in inputs:
            told = number in blocked._dependants.get(other, ()) or other in blocked._queue
            if not told:
                raise Broken(f"job {number} waits for {other}, which does not know")
    if daemon.dependencies.has_more or scheduler.ledger.batch or scheduler.ledger.in_flight:
        return
    for number in waiting:
        job = jobs.get(number) or store.job(number)
        assert job is not None
        states = [_state(daemon, store, other) for other in job.inputs or ()]
        if all(state is State.SUCCEEDED for state in states) or any(map(_is_failure, states)):
            raise Broken(f"6: job {number} is blocked, and its inputs {job.inputs} are {states}")


def _state(daemon: Daemon, store: FakeStore, number: int) -> State | None:
    job = daemon.scheduler.window.jobs.get(number)
    return job.state if job else store.state_of(number)


def _is_failure(state: State | None) -> bool:
    return state is not None and state >= ENDED and state is not State.SUCCEEDED


def waiting_for(store: FakeStore, number: int) -> set[int]:
    """Return this job and all that wait for it, directly or not."""
    found = {number}
    for row in sorted(store.rows.values(), key=lambda row: row.id):
        if row.state is State.BLOCKED and not found.isdisjoint(row.inputs or ()):
            found.add(row.id)
    return found


def check_edges(store: FakeStore) -> None:
    """At the end: who was aborted had to be, names the one to blame, and can be revived."""
    for row in store.rows.values():
        inputs = set(row.inputs or ())
        unmet = {n for n in inputs if store.state_of(n) is not State.SUCCEEDED}
        edges = {a for a, b in store.edges if b == row.id}
        if row.state is State.ABORTED:
            if not unmet:
                raise Broken(f"job {row.id} is aborted, and its inputs {inputs} have succeeded")
            if row.root not in roots(store, row) or f"job {row.root} " not in row.cause:
                raise Broken(
                    f"job {row.id} blames {row.root}, not {roots(store, row)}: {row.cause}"
                )
        elif unmet and row.state not in (State.CANCELLED, State.EXPIRED):
            raise Broken(f"job {row.id} is {row.state.name}, and {unmet} have not succeeded")
        if not unmet <= edges <= inputs or (edges and not unmet and row.state in RUNS):
            raise Broken(
                f"job {row.id}, {row.state.name}, has the edges {edges}, and misses {unmet}"
            )


def roots(store: FakeStore, job: Job) -> set[int]:
    """Return the jobs that may be to blame: they have failed by themselves."""
    found = set()
    for number in job.inputs or ():
        other = store.job(number)
        if other is not None and other.state is State.ABORTED:
            found |= roots(store, other)
        elif other is not None and _is_failure(other.state):
            found.add(number)
    return found
