"""Jobs that a person sets aside and lets go again, in the scheduler alone."""

from __future__ import annotations

import pytest
from bench import Bench

from jobd.model.job import Job, Raised, Wish
from jobd.model.messages import Ended
from jobd.model.states import State


@pytest.fixture
def bench() -> Bench:
    """Return a scheduler with one worker."""
    return Bench()


def load(bench: Bench, number: int) -> Job:
    """Return a job in memory, as whoever changes it gets it."""
    return bench.scheduler.window.load(bench.row(number))


def hold(bench: Bench, number: int) -> str:
    """Hold a job, and store that."""
    answer = bench.scheduler.control.hold(load(bench, number))
    bench.turn()
    return answer


def release(bench: Bench, number: int) -> str:
    """Release a job, and store that."""
    answer = bench.scheduler.control.release(load(bench, number))
    bench.turn()
    return answer


def test_a_held_job_is_in_the_store_only_and_starts_once_it_is_released(bench: Bench) -> None:
    """However idle the worker is."""
    busy = bench.submit()
    number = bench.submit()
    assert hold(bench, number) == "held"
    assert number not in bench.scheduler.window.jobs
    bench.end(busy, None)
    assert bench.row(number).state is State.HELD
    assert not bench.runs(number)
    assert release(bench, number) == "released"
    assert bench.runs(number)


def test_holding_twice_is_holding(bench: Bench) -> None:
    """And releasing what is not held changes nothing."""
    bench.submit()
    number = bench.submit()
    assert [hold(bench, number), hold(bench, number)] == ["held", "held"]
    assert [release(bench, number), release(bench, number)] == ["released", "is not held"]
    assert bench.row(number).state is State.QUEUED


def test_what_runs_or_is_over_cannot_be_held_nor_released(bench: Bench) -> None:
    """The answer says why."""
    number = bench.submit()
    job = bench.scheduler.window.jobs[number]
    assert bench.scheduler.control.hold(job) == bench.scheduler.control.release(job) == "is running"
    bench.end(number, None)
    job = bench.row(number)
    assert (
        bench.scheduler.control.hold(job)
        == bench.scheduler.control.release(job)
        == "already finished"
    )


def test_a_submit_may_hold_its_jobs_from_the_start(bench: Bench) -> None:
    """They have rows of their own, and are no part of the backlog."""
    first = bench.submit(jobs=3, hold=True)
    assert [bench.row(n).state for n in range(first, first + 3)] == [State.HELD] * 3
    assert bench.scheduler.window.spilled == len(bench.scheduler.window) == 0
    assert bench.scheduler.ledger.counts[State.HELD] == 3
    assert not bench.scheduler.window.jobs
    release(bench, first + 1)
    assert bench.runs(first + 1)


def test_a_held_job_can_be_cancelled_and_its_watchers_are_told(bench: Bench) -> None:
    """The watch outlives its time in the store."""
    number = bench.submit(hold=True)
    assert bench.scheduler.control.cancel(load(bench, number), "no more") == "cancelled"
    bench.turn()
    assert bench.row(number).state is State.CANCELLED
    assert [told.id for told in bench.told if isinstance(told, Ended)] == [number]
    assert len(bench.scheduler.window.watchers) == 0


def test_a_held_job_does_not_start_when_its_time_comes_but_expires_when_that_does(
    bench: Bench,
) -> None:
    """What is of no use any more is so whoever holds it."""
    number = bench.submit(hold=True, in_=10, expires=100)
    due = bench.submit(in_=10)
    hold(bench, due)
    bench.turn(11.0)
    assert bench.row(number).state is bench.row(due).state is State.HELD
    bench.turn(90.0)
    assert bench.row(number).state is State.EXPIRED
    assert bench.row(due).state is State.HELD
    assert release(bench, due) == "released"
    assert bench.runs(due)


def test_a_job_that_is_released_before_its_time_waits_for_it(bench: Bench) -> None:
    """Whether it was scheduled before, or held from the start."""
    scheduled = bench.submit(in_=60)
    hold(bench, scheduled)
    fresh = bench.submit(hold=True, in_=60)
    for number in (scheduled, fresh):
        assert release(bench, number) == "released"
        assert bench.row(number).state is State.SCHEDULED
    bench.turn(60.1)
    assert bench.runs(scheduled)


def test_an_instant_that_is_over_when_a_job_is_released_does_not_expire_it(bench: Bench) -> None:
    """The clock may not have been looked at since."""
    number = bench.submit(hold=True, in_=10, expires=100)
    bench.now_us += 11_000_000
    bench.scheduler.begin(bench.now_us, bench.wall)
    assert release(bench, number) == "released"
    assert bench.runs(number)


def test_a_release_that_comes_too_late_says_so(bench: Bench) -> None:
    """The job expires then, and does not start."""
    number = bench.submit(hold=True, expires=10)
    bench.now_us += 11_000_000
    bench.scheduler.begin(bench.now_us, bench.wall)
    assert release(bench, number) == "has expired"
    assert bench.row(number).state is State.EXPIRED


def test_a_retry_is_no_sooner_because_the_job_was_held(bench: Bench) -> None:
    """It waits for what is left of its backoff; if nothing is left, it starts."""
    number = bench.submit(retries=5, backoff="fixed:10s", jitter=0)
    bench.end(number)
    hold(bench, number)
    bench.turn(4.0)
    release(bench, number)
    assert bench.row(number).state is State.SCHEDULED
    bench.turn(5.9)
    assert not bench.runs(number)
    bench.turn(0.2)
    assert bench.runs(number)
    bench.end(number)
    hold(bench, number)
    bench.turn(20.0)
    release(bench, number)
    assert bench.runs(number)


def test_a_snoozed_job_without_options_can_be_held(bench: Bench) -> None:
    """It waits for its time without any policy."""
    number = bench.submit()
    bench.end(number, Raised(["jobd.Snooze"], Wish.SNOOZE, 10.0))
    hold(bench, number)
    release(bench, number)
    assert bench.row(number).state is State.SCHEDULED


def test_the_next_daemon_holds_what_was_held(bench: Bench) -> None:
    """And counts it, and expires it."""
    number = bench.submit(hold=True, expires=10)
    other = Bench(bench.store)
    assert other.row(number).state is State.HELD
    assert other.scheduler.ledger.counts[State.HELD] == 1
    other.turn(10.0)
    assert other.row(number).state is State.EXPIRED


def test_the_rest_of_a_parcel_runs_while_one_of_it_is_held(bench: Bench) -> None:
    """Its row counts, and not what the parcel still says of it."""
    first = bench.submit(jobs=3)
    assert hold(bench, first + 1) == "held"
    bench.end(first, None)
    bench.end(first + 2, None)
    assert bench.row(first + 1).state is State.HELD
    assert not bench.store.parcels
    release(bench, first + 1)
    bench.end(first + 1, None)
    assert bench.row(first + 1).state is State.SUCCEEDED
