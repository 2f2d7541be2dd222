"""Retries, snoozes and times of start, in the scheduler alone."""

from __future__ import annotations

import pytest
from bench import KEY_ERROR, Bench

from jobd.model.errors import DiskFull
from jobd.model.job import ErrorInfo, Job, Outcome, Raised, Verdict, Wish
from jobd.model.messages import Ended, Submit
from jobd.model.options import Layers, Policy
from jobd.model.states import State
from jobd.scheduler import core, timers
from jobd.scheduler.again import Step, Then, after, is_retried, matches
from jobd.scheduler.timers import Timers


@pytest.fixture
def bench() -> Bench:
    """Return a scheduler with an idle worker."""
    return Bench()


# -- retries --


def test_a_job_is_tried_again_as_often_as_was_said_and_then_has_failed(bench: Bench) -> None:
    """Each attempt stays on record, and its number rises."""
    number = bench.submit(retries=2, backoff="fixed:10s", jitter=0)
    for attempt in (1, 2):
        bench.end(number)
        row = bench.row(number)
        assert (row.state, row.failures) == (State.SCHEDULED, attempt)
        assert row.due_at == bench.wall + 10_000_000
        assert number not in bench.scheduler.window.jobs, "what waits is in the store only"
        bench.turn(9.9)
        assert not bench.runs(number)
        bench.turn(0.2)
        assert bench.runs(number)
    bench.end(number)
    assert (bench.row(number).state, bench.row(number).due_at) == (State.FAILED, 0)
    assert [a.number for a in bench.store.attempts(number)] == [1, 2]
    assert [a.error and a.error.message for a in bench.store.attempts(number)] == ["no", "no"]
    assert [told.state for told in bench.told if isinstance(told, Ended)] == [State.FAILED]


def test_what_was_said_of_an_attempt_stays_with_it(bench: Bench) -> None:
    """The next one begins without, and has what is said of it in the end."""
    number = bench.submit(retries=1, backoff="0")
    bench.end(number, notes=("it left a thread",))
    assert bench.row(number).notes == ()
    bench.end(number, None, notes=("it left two",))
    assert bench.row(number).notes == ("it left two",)
    assert [a.notes for a in bench.store.attempts(number)] == [("it left a thread",)]


def test_a_retry_without_a_wait_is_queued_at_once(bench: Bench) -> None:
    """It takes its place among the others, and no timer."""
    number = bench.submit(retries=1, backoff="0")
    bench.end(number)
    assert bench.runs(number)
    bench.end(number, None)
    assert bench.row(number).state is State.SUCCEEDED


def test_only_exceptions_that_were_named_are_tried_again(bench: Bench) -> None:
    """A base counts; what is excluded counts more."""
    retried = bench.submit(retries=1, retry_on="LookupError")
    bench.end(retried)
    assert bench.row(retried).state is State.SCHEDULED
    other = bench.submit(retries=1, retry_on="LookupError", no_retry_on="KeyError")
    bench.end(other)
    assert bench.row(other).state is State.FAILED
    plain = bench.submit(retries=1, retry_on="OSError")
    bench.end(plain)
    assert bench.row(plain).state is State.FAILED


@pytest.mark.parametrize(
    ("said", "name", "means"),
    [
        ("Timeout", "requests.exceptions.Timeout", True),
        ("requests.Timeout", "requests.exceptions.Timeout", True),
        ("requests.exceptions.Timeout", "requests.exceptions.Timeout", True),
        ("httpx.Timeout", "requests.exceptions.Timeout", False),
        ("ValueError", "ValueError", True),
        ("Value", "ValueError", False),
    ],
)
def test_a_name_means_a_class_wherever_its_package_defines_it(
    said: str, name: str, *, means: bool
) -> None:
    """People write where they import a class from, which may be another module."""
    assert matches(said, name) is means


def test_without_names_everything_is_tried_again() -> None:
    """But for what is excluded."""
    assert is_retried(Policy(), ["Odd"])
    assert not is_retried(Policy(no_retry_on=["Odd"]), ["Odd"])


def test_an_attempt_that_took_too_long_is_tried_again(bench: Bench) -> None:
    """As one that has raised; by the name of the limit, if there are names."""
    number = bench.submit(retries=1, backoff="0", retry_on="timed_out", soft_timeout=1)
    for state in (State.QUEUED, State.TIMED_OUT):
        job = bench.scheduler.workers[bench.worker].assigned[number]
        error = ErrorInfo("jobd.TimeLimitExceeded", "", "")
        late = Outcome(number, job.attempt, Verdict.TIMED_OUT, None, error, 5, 100)
        bench.scheduler.workforce.outcomes(bench.worker, job.attempt, [late])
        bench.turn()
        assert bench.row(number).state is state
    (first,) = bench.store.attempts(number)
    assert (first.state, first.cause) == (State.TIMED_OUT, "soft, after 1 s")


def test_crashes_have_a_budget_of_their_own(bench: Bench) -> None:
    """They use up no retry, and a job's own budget outranks the setting."""
    number = bench.submit(max_crashes=2, retries=1, backoff="0")
    bench.die()
    bench.die()
    assert bench.runs(number)
    bench.end(number)
    assert bench.runs(number), "its retry is left"
    bench.die()
    row = bench.row(number)
    assert (row.state, row.crashes, row.failures) == (State.CRASHED, 3, 1)


def test_an_attempt_that_is_cut_off_uses_up_no_retry(bench: Bench) -> None:
    """A shutdown is not the job's fault."""
    number = bench.submit(retries=1, backoff="0")
    bench.scheduler.workforce.stop_running()
    bench.scheduler.workforce.outcomes(
        bench.worker, 99, [Outcome(number, 1, Verdict.STOPPED, None, None, 5, 10)]
    )
    bench.turn()
    row = bench.row(number)
    assert (row.state, row.failures, row.crashes) == (State.QUEUED, 0, 0)


def test_a_job_that_waits_for_its_retry_can_be_cancelled(bench: Bench) -> None:
    """It is not tried again, and nothing is left that would wake it."""
    number = bench.submit(retries=5, backoff="fixed:10s")
    bench.end(number)
    job = bench.scheduler.window.load(bench.row(number))
    assert bench.scheduler.control.cancel(job, "enough") == "cancelled"
    bench.turn(60.0)
    assert (bench.row(number).state, bench.row(number).due_at) == (State.CANCELLED, 0)
    assert bench.scheduler.wake_at() is None


def test_the_next_daemon_goes_on_with_a_retry(bench: Bench) -> None:
    """What waits is in the store, with the retries that are used up."""
    number = bench.submit(retries=1, backoff="fixed:10s", jitter=0)
    bench.end(number)
    other = Bench(bench.store)
    assert other.scheduler.wake_at() == other.now_us + 10_000_000
    other.turn(10.0)
    assert other.runs(number)
    other.end(number)
    assert other.row(number).state is State.FAILED


# -- what a job asks for --


def test_a_job_may_ask_for_a_retry_and_say_when(bench: Bench) -> None:
    """Whatever the names say; but it uses up a retry, and there must be one."""
    asks = Raised(["jobd.Retry"], Wish.RETRY, 3.0)
    number = bench.submit(retries=1, retry_on="OSError")
    bench.end(number, asks)
    assert bench.row(number).due_at == bench.wall + 3_000_000
    bench.turn(3.0)
    bench.end(number, asks)
    assert bench.row(number).state is State.FAILED


def test_a_snooze_does_not_count(bench: Bench) -> None:
    """A job may do so as often as it likes, without a single retry."""
    number = bench.submit()
    for _ in range(3):
        bench.end(number, Raised(["jobd.Snooze"], Wish.SNOOZE, 5.0, "too early"))
        assert bench.row(number).state is State.SCHEDULED
        bench.turn(5.0)
    bench.end(number, None)
    assert (bench.row(number).state, bench.row(number).failures) == (State.SUCCEEDED, 0)
    kept = [(a.state, a.cause, a.error) for a in bench.store.attempts(number)]
    assert kept == [(State.SCHEDULED, "too early", None)] * 3


def test_a_job_may_cancel_itself(bench: Bench) -> None:
    """Its reason is kept, and no retry follows."""
    number = bench.submit(retries=3)
    bench.end(number, Raised(["jobd.Cancel"], Wish.CANCEL, None, "no such user"))
    assert (bench.row(number).state, bench.row(number).cause) == (State.CANCELLED, "no such user")


def test_a_job_without_options_is_not_tried_again() -> None:
    """As before there were any."""
    job = Job(1, b"", 1, "m:f", b"", 0)
    assert after(job, KEY_ERROR) == Step(Then.FAIL)


# -- the time of start --


def test_a_job_starts_no_sooner_than_was_said(bench: Bench) -> None:
    """After some time, or at an instant; until then it is scheduled, and in the store only."""
    later = bench.submit(in_=60)
    assert bench.row(later).state is State.SCHEDULED
    assert not bench.scheduler.window.jobs
    bench.turn(59.9)
    assert not bench.runs(later)
    bench.turn(0.2)
    assert bench.runs(later)
    assert bench.row(later).due_at == 0


def test_a_start_in_the_past_is_at_once(bench: Bench) -> None:
    """Nobody waits for what is over."""
    number = bench.submit(at="2001-01-01T00:00Z")
    assert bench.runs(number)


def test_a_job_that_could_not_start_in_time_expires(bench: Bench) -> None:
    """Behind another one, or before its start; one that has started does not."""
    runs = bench.submit(expires=10)
    waits = bench.submit(expires=10)
    too_late = bench.submit(expires=10, in_=20)
    assert bench.row(waits).state is State.QUEUED
    bench.turn(10.0)
    assert bench.runs(runs)
    for number in (waits, too_late):
        assert (bench.row(number).state, bench.row(number).due_at) == (State.EXPIRED, 0)
    assert [told.id for told in bench.told if isinstance(told, Ended)] == [waits, too_late]
    bench.end(runs, None)
    assert bench.row(runs).state is State.SUCCEEDED


def test_an_expired_job_may_be_retried_and_does_not_expire_again(bench: Bench) -> None:
    """Somebody wants it all the same."""
    bench.submit()
    number = bench.submit(expires=10)
    bench.turn(10.0)
    assert (
        bench.scheduler.control.retry(bench.scheduler.window.load(bench.row(number)))
        == "queued again"
    )
    bench.turn(100.0)
    assert bench.row(number).state is State.QUEUED
    assert bench.store.attempts(number) == [], "it had none"


def test_a_clock_that_is_put_back_fires_nothing_twice(bench: Bench) -> None:
    """What has started has started."""
    number = bench.submit(in_=10)
    bench.turn(10.0)
    bench.end(number, None)
    bench.jump_us = -3_600_000_000
    bench.turn()
    bench.turn(7200.0)
    assert (bench.row(number).state, bench.row(number).attempt) == (State.SUCCEEDED, 1)


def test_a_clock_that_is_put_forward_ends_nothing_that_runs(bench: Bench) -> None:
    """What waits for an instant that has come starts; what runs goes on."""
    runs = bench.submit(expires=60)
    bench.jump_us = 86_400_000_000
    bench.turn()
    assert bench.runs(runs)


def test_a_submit_of_scheduled_jobs_that_fails_leaves_nothing(bench: Bench) -> None:
    """The ids are void, and the clock finds nobody."""
    policy = Layers().policy("m:f", {"in": 5.0})
    request = Submit(1, b"session.12345678", "m:f", [b"1"], [(0, ())])
    bench.scheduler.intake.submit(b"peer", request, policy)
    bench.scheduler.take_batch()
    bench.scheduler.not_committed(DiskFull("disk full"))
    bench.turn(10.0)
    assert bench.scheduler.window.jobs == {}
    assert bench.scheduler.ledger.counts[State.SCHEDULED] == 0


# -- the heap --


def test_the_heap_is_bounded_and_filled_from_the_store(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many jobs wait, a few are in memory, and all start in their order."""
    monkeypatch.setattr(timers, "ENTRIES", 10)
    monkeypatch.setattr(timers, "LOW_WATER", 2)
    monkeypatch.setattr(timers, "REFILL", 3)
    first = bench.submit(jobs=50, in_=1)
    heap = bench.scheduler.timers
    assert heap.has_more
    started = []
    for _ in range(400):
        bench.turn(0.01)
        assert len(heap._heap) <= 10
        started += [n for n in range(first, first + 50) if bench.runs(n)]
        for number in list(bench.scheduler.workers[bench.worker].assigned):
            bench.end(number, None)
    assert sorted(set(started)) == list(range(first, first + 50))


def test_no_more_jobs_expire_than_the_disk_keeps_up_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are not forgotten, and nobody is woken in vain for them meanwhile."""
    monkeypatch.setattr(core, "UNSTORED", 3)
    monkeypatch.setattr(timers, "SLICE", 2)
    bench.submit()
    bench.submit(jobs=6, expires=1)
    scheduler = bench.scheduler
    bench.now_us += 1_000_000
    scheduler.begin(bench.now_us, bench.wall)
    for _ in range(2):
        assert scheduler.has_due()
        for number in scheduler.due():
            scheduler.control.fire(bench.row(number))
    assert (scheduler.due(), scheduler.has_due(), scheduler.wake_at()) == ([], False, None)
    bench.turn()
    assert scheduler.has_due()
    assert len(scheduler.due()) == 2


def test_a_job_beyond_the_horizon_that_is_not_stored_yet_is_not_forgotten() -> None:
    """The store is asked while a commit is in flight."""
    heap = Timers(has_more=True)
    late = Job(7, b"", 1, "m:f", b"", 0, due_at=50)
    heap.add(late)
    assert heap.next_at() is None
    heap.refill([], [late])
    assert heap.next_at() == 50
