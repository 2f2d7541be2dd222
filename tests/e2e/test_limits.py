"""How long and how much: time limits, causes of death, what an attempt may use and has used."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually, is_alive

from jobd.client import Client
from jobd.model.errors import JobFailed, JobTimedOut
from jobd.model.job import JobInfo
from jobd.model.selector import Selector
from jobd.model.states import State


@pytest.fixture(scope="module")
def shared() -> Iterator[DaemonUnderTest]:
    """Return a daemon that the tests of this module share."""
    with DaemonUnderTest(pool__workers=1, jobs__max_crashes=0) as daemon:
        yield daemon.write_jobs().start()


@pytest.fixture
def client(shared: DaemonUnderTest) -> Client:
    """Return a client of it."""
    return shared.client()


def info_of(client: Client, number: int) -> JobInfo:
    """Return all that is known of a job."""
    (info,) = client.find(Selector([(number, number)]))
    return info


# -- time --


def test_a_hard_limit_ends_a_job_and_names_itself(client: Client) -> None:
    """The state, the cause, the error; and the next job runs."""
    job = client.options(timeout=0.1).submit("limits:sleep_long")
    with pytest.raises(JobTimedOut, match=f"job {job.id} timed out .hard, after 0.1 s"):
        job.result(20)
    info = info_of(client, job.id)
    assert (info.state, info.cause, info.crashes) == (State.TIMED_OUT, "hard, after 0.1 s", 0)
    assert client.submit("work:add", 1, 2).result(20) == 3


def test_what_ignores_the_term_is_killed_with_its_children_and_its_strays(
    client: Client, tmp_path: Path
) -> None:
    """After the job's own grace; a child in another session dies too."""
    mark = tmp_path / "mark"
    job = client.options(timeout=0.5, kill_grace=0.1).submit("limits:sleep_stubbornly", str(mark))
    with pytest.raises(JobTimedOut):
        job.result(20)
    pids = [int(word) for word in mark.read_text(encoding="utf-8").split()]
    assert len(pids) == 3
    eventually(lambda: not any(map(is_alive, pids)))


def test_a_limit_never_hits_the_next_job(client: Client) -> None:
    """One whose limit is over about when it ends; the job behind it, on the same worker, succeeds."""
    ends = set()
    for step in range(25):
        first = client.options(timeout=0.004 + step * 0.0001).submit("work:sleep", 0.005)
        following = client.submit("work:sleep", 0.002)
        assert following.result(20) == 0.002
        ends.add(client.wait([first.id], 20)[first.id].state)
    assert ends <= {State.SUCCEEDED, State.TIMED_OUT}


@pytest.mark.parametrize(
    "function", ["sleep_long", "spin", "sleep_asleep", "block_the_loop", "stream_slowly"]
)
def test_a_soft_limit_raises_in_whatever_the_job_does(client: Client, function: str) -> None:
    """It sleeps, or computes; a coroutine is cancelled; a generator is at its next item."""
    job = client.options(soft_timeout=0.2).submit(f"limits:{function}")
    assert client.wait([job.id], 20)[job.id].state is State.TIMED_OUT
    info = info_of(client, job.id)
    assert info.cause == "soft, after 0.2 s"
    assert info.error is not None
    assert info.error.type == "jobd.TimeLimitExceeded"
    assert info.error.message == "it took longer than 0.2 s"


@pytest.mark.parametrize("function", ["survive", "survive_asleep"])
def test_a_job_that_survives_its_soft_limit_goes_on(client: Client, function: str) -> None:
    """It is told once; what it makes of that is its own affair."""
    job = client.options(soft_timeout=0.1).submit(f"limits:{function}")
    assert job.result(20).startswith("went on")


def test_a_coroutine_is_told_by_a_cancel(client: Client, tmp_path: Path) -> None:
    """So that its own clean-up runs, in the event loop."""
    mark = tmp_path / "mark"
    job = client.options(soft_timeout=0.1).submit("limits:sleep_asleep", str(mark))
    with pytest.raises(JobTimedOut):
        job.result(20)
    assert mark.read_text(encoding="utf-8") == "cancelled"


def test_a_job_that_raises_the_same_without_a_limit_has_failed(client: Client) -> None:
    """No limit of it was over."""
    with pytest.raises(JobFailed, match="my own"):
        client.submit("limits:raise_the_same").result(20)


def test_a_hard_limit_goes_on_when_the_daemon_is_killed(tmp_path: Path) -> None:
    """The next daemon takes the job over, and its time with it."""
    with DaemonUnderTest(pool__workers=1) as daemon:
        client = daemon.write_jobs().start().client()
        mark = tmp_path / "mark"
        began = time.monotonic()
        job = client.options(timeout=3).submit("limits:sleep_long", str(mark))
        eventually(mark.exists)
        daemon.kill()
        taken_over = time.monotonic()
        client = daemon.start().client()
        assert client.wait([job.id], 20)[job.id].state is State.TIMED_OUT
        # The job was marked after its start, and so less than its limit is left.
        assert time.monotonic() - began >= 3
        assert taken_over - began < 3


def test_the_command_exits_with_6_when_the_job_has_timed_out(shared: DaemonUnderTest) -> None:
    """And says so in one line; show has the policy, and JSON the state."""
    done = shared.cli("submit", "limits:sleep_long", "--timeout", "100ms", "--wait")
    assert done.returncode == 6
    assert "timed out (hard, after 0.1 s)" in done.stderr
    shown = json.loads(shared.cli("show", "last", "--json").stdout)
    assert (shown["state"], shown["cause"]) == ("timed_out", "hard, after 0.1 s")
    assert shown["policy"]["timeout"] == {"value": 0.1, "origin": "submit"}
    bad = shared.cli("submit", "limits:sleep_long", "--timeout", "soon")
    assert (bad.returncode, len(bad.stderr.strip().splitlines())) == (2, 1)
