"""What ends a job reaches it: C code that keeps the GIL, and code that swallows exceptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually, lines

from jobd.client import Client
from jobd.model.job import JobInfo
from jobd.model.selector import one
from jobd.model.states import State


@pytest.fixture(scope="module")
def shared() -> Iterator[DaemonUnderTest]:
    """Return a daemon that the tests of this module share; no import counts for their limits."""
    with DaemonUnderTest(pool__workers=1, jobs__max_crashes=0, pool__preload="rings") as daemon:
        yield daemon.write_jobs().start()


@pytest.fixture
def client(shared: DaemonUnderTest) -> Client:
    """Return a client of it."""
    return shared.client()


def ended(client: Client, number: int) -> JobInfo:
    """Wait for a job, and return all that is known of it."""
    client.wait([number], 20)
    (info,) = client.find(one(number))
    return info


def has_begun(client: Client, number: int) -> bool:
    """Whether a job is no longer queued."""
    (info,) = client.find(one(number))
    return info.state is not State.QUEUED


# -- code that keeps the GIL --


@pytest.mark.parametrize("function", ["backtrack", "power", "with_an_impatient_switch"])
def test_a_soft_limit_needs_no_gil(client: Client, function: str) -> None:
    """No thread of ours has a turn while the job computes."""
    job = client.options(soft_timeout=0.2).submit(f"rings:{function}")
    info = ended(client, job.id)
    assert (info.state, info.cause) == (State.TIMED_OUT, "soft, after 0.2 s")
    assert info.error is not None
    assert info.error.type == "jobd.TimeLimitExceeded"


@pytest.mark.parametrize("function", ["backtrack", "power"])
def test_a_stop_needs_no_gil(client: Client, mark: Path, function: str) -> None:
    """The job is told within its grace, and tidies up; what it had behind it runs elsewhere."""
    job = client.options(kill_grace=600).submit(f"rings:{function}", str(mark))
    behind = client.submit("work:add", 1, 2)
    eventually(lambda: lines(mark) == ["began"])
    client.cancel(one(job.id))
    assert ended(client, job.id).state is State.CANCELLED
    assert lines(mark) == ["began", "tidied"]
    assert behind.result(20) == 3


def test_a_hard_limit_needs_no_gil_either(client: Client, mark: Path) -> None:
    """It is a stop."""
    job = client.options(timeout=0.2, kill_grace=600).submit("rings:backtrack", str(mark))
    assert ended(client, job.id).cause == "hard, after 0.2 s"
    assert lines(mark) == ["began", "tidied"]


def test_what_does_not_look_at_signals_is_killed(client: Client, mark: Path) -> None:
    """After its grace."""
    job = client.options(soft_timeout=0.1, kill_grace=0.3).submit("rings:count_deaf", str(mark))
    eventually(lambda: lines(mark) == ["began"])
    client.cancel(one(job.id))
    assert ended(client, job.id).state is State.CANCELLED
    assert lines(mark) == ["began"]


def test_a_stop_that_comes_late_never_hits_the_next_job(client: Client) -> None:
    """Jobs of C code that end about when the daemon loses patience; the jobs behind them succeed."""
    for step in range(12):
        first = client.options(kill_grace=600).submit("rings:power_for", 0.09 + step * 0.002)
        behind = client.submit_many("work:add", [(step, number) for number in range(5)])
        eventually(partial(has_begun, client, first.id))
        client.cancel(one(first.id))
        assert [job.result(20) for job in behind] == [step + number for number in range(5)]
        assert ended(client, first.id).state in (State.SUCCEEDED, State.CANCELLED)


def test_a_job_may_have_a_timer_of_its_own(client: Client) -> None:
    """The limit's is another one."""
    job = client.options(soft_timeout=0.3).submit("rings:with_its_own_timer", 0.3)
    assert job.result(20) == "both"


def test_a_limit_needs_no_thread(client: Client) -> None:
    """None that a job could see."""
    bare = client.submit("rings:count_threads").result(20)
    assert client.options(soft_timeout=60).submit("rings:count_threads").result(20) == bare


def test_a_limit_that_is_over_in_an_import_is_no_failed_import(shared: DaemonUnderTest) -> None:
    """It is the limit that has ended the job; and the next import is a new one."""
    shared.write_module("dawdle", "import time\ntime.sleep(0.5)\ndef f(): return 7\n")
    client = shared.client()
    info = ended(client, client.options(soft_timeout=0.1).submit("dawdle:f").id)
    assert (info.state, info.cause) == (State.TIMED_OUT, "soft, after 0.1 s")
    assert info.error is not None
    assert info.error.type == "jobd.TimeLimitExceeded"
    assert client.submit("dawdle:f").result(20) == 7


# -- code that swallows --


@pytest.mark.parametrize(
    "function",
    [
        "in_a_log_handler",
        "in_a_finalizer",
        "in_a_callback",
        "tried_again",
        "tried_for_ever",
        "in_another_task",
        "deaf_in_its_own_step",
        "in_a_loop_of_its_own",
    ],
)
def test_what_was_swallowed_is_raised_again(client: Client, function: str) -> None:
    """Until it ends the job."""
    job = client.options(soft_timeout=0.1).submit(f"rings:{function}")
    info = ended(client, job.id)
    assert (info.state, info.cause) == (State.TIMED_OUT, "soft, after 0.1 s")
    assert info.error is not None
    assert info.error.type == "jobd.TimeLimitExceeded"
    assert info.error.message == "it took longer than 0.1 s"


def test_an_event_loop_that_is_written_in_c_is_ended_too(client: Client) -> None:
    """It logs what the handler raises, and goes on; its tasks are cancelled then."""
    pytest.importorskip("uvloop")
    info = ended(client, client.options(soft_timeout=0.1).submit("rings:in_a_loop_of_c").id)
    assert (info.state, info.cause) == (State.TIMED_OUT, "soft, after 0.1 s")


def test_a_stop_that_was_swallowed_comes_again(client: Client, mark: Path) -> None:
    """Within the grace."""
    job = client.options(kill_grace=600).submit("rings:stopped_in_a_finalizer", str(mark))
    eventually(lambda: lines(mark) == ["began"])
    client.cancel(one(job.id))
    assert ended(client, job.id).state is State.CANCELLED
    assert lines(mark) == ["began", "began", "tidied"]


def test_an_error_that_the_limit_has_led_to_is_a_timeout(client: Client) -> None:
    """And is shown, because it tells where."""
    info = ended(client, client.options(soft_timeout=0.1).submit("rings:in_a_query").id)
    assert (info.state, info.cause, info.notes) == (State.TIMED_OUT, "soft, after 0.1 s", ())
    assert info.error is not None
    assert info.error.type == "sqlite3.OperationalError"
    assert info.error.message == "user-defined function raised exception"


def test_an_error_that_answers_the_limit_is_the_jobs_own(client: Client) -> None:
    """It has caught the limit by its name, and failed; but show tells of the limit."""
    info = ended(client, client.options(soft_timeout=0.1).submit("rings:answer_by_an_error").id)
    assert info.state is State.FAILED
    assert info.error is not None
    assert info.error.message == "too slow for me"
    assert info.notes == ("its soft time limit of 0.1 s had passed",)


def test_a_job_that_returns_after_its_limit_says_so(shared: DaemonUnderTest) -> None:
    """In show, and in JSON."""
    done = shared.cli("submit", "--soft-timeout", "100ms", "--wait", "rings:swallow_and_return")
    assert done.returncode == 0
    assert "its soft time limit of 0.1 s had passed" in shared.cli("show", "last").stdout
    shown = json.loads(shared.cli("show", "last", "--json").stdout)
    assert shown["notes"] == ["its soft time limit of 0.1 s had passed"]
    assert shared.client().submit("work:add", 1, 2).result(20) == 3
    assert json.loads(shared.cli("show", "last", "--json").stdout)["notes"] == []


# -- notice taken --


@pytest.mark.parametrize(
    "function",
    ["by_its_name", "by_another_name", "among_others", "suppressed", "in_a_context", "looked_at"],
)
def test_a_job_that_has_caught_its_limit_is_left_in_peace(client: Client, function: str) -> None:
    """However it names it; it goes on for longer than it is ever waited with the next ring."""
    job = client.options(soft_timeout=0.1).submit(f"rings:{function}", 0.8)
    assert job.result(20) == "undisturbed"


@pytest.mark.parametrize("function", ["while_tidying_up", "tidy_up_after_an_error"])
def test_a_job_that_tidies_up_is_not_disturbed(client: Client, mark: Path, function: str) -> None:
    """And then it ends by its limit."""
    job = client.options(soft_timeout=0.1).submit(f"rings:{function}", 0.8, str(mark))
    assert ended(client, job.id).state is State.TIMED_OUT
    assert lines(mark) == ["undisturbed"]


def test_a_stopped_job_that_tidies_up_is_not_disturbed(client: Client, mark: Path) -> None:
    """Within its grace."""
    job = client.options(kill_grace=600).submit("rings:stopped_while_tidying_up", 0.8, str(mark))
    eventually(lambda: lines(mark) == ["began"])
    client.cancel(one(job.id))
    assert ended(client, job.id).state is State.CANCELLED
    assert lines(mark) == ["began", "undisturbed"]
