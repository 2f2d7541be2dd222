"""Stopping jobs: how much time they get, who is told what, and that nobody else suffers."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually, is_alive, lines

from jobd.client import Client
from jobd.model.errors import JobCancelled, UsageError
from jobd.model.selector import one
from jobd.model.states import State

Make = Callable[..., DaemonUnderTest]


def stubborn(client: Client, mark: Path, **options: object) -> tuple[int, list[int]]:
    """Start a job that ignores SIGTERM; return its id, and the pids of all its processes."""
    deferred = client.options(**options).submit("limits:sleep_stubbornly", str(mark))  # type: ignore[arg-type]  # by name
    (pids,) = eventually(lambda: lines(mark))
    return deferred.id, [int(word) for word in pids.split()]


def end_of(client: Client, number: int) -> State:
    """Wait for a job's end, and return it."""
    return client.wait([number], 20)[number].state


def test_now_kills_at_once_whatever_grace_the_job_has(shared: DaemonUnderTest, mark: Path) -> None:
    """With its children, those in other sessions too."""
    client = shared.client()
    number, pids = stubborn(client, mark, kill_grace="1h")
    assert client.cancel(one(number), "enough", now=True) == [(number, "stopping")]
    assert end_of(client, number) is State.CANCELLED
    eventually(lambda: not any(map(is_alive, pids)))


def test_a_grace_outranks_that_of_the_job(shared: DaemonUnderTest, tmp_path: Path) -> None:
    """A shorter one kills sooner, a longer one lets a job come to its own end."""
    client = shared.client()
    number, _ = stubborn(client, tmp_path / "short", kill_grace="1h")
    client.cancel(one(number), grace=0.05)
    assert end_of(client, number) is State.CANCELLED
    slow = client.options(kill_grace=0.01).submit(
        "stops:tidy_up", str(tmp_path / "slow"), str(tmp_path / "open")
    )
    eventually(lambda: lines(tmp_path / "slow"))
    assert slow.cancel(grace="1h")
    eventually(lambda: lines(tmp_path / "slow")[-1] == "tidying")
    (tmp_path / "open").touch()
    with pytest.raises(JobCancelled):
        slow.result(20)
    assert lines(tmp_path / "slow")[-1] == "tidied"


def test_a_second_cancel_hastens_the_first_and_keeps_its_reason(
    shared: DaemonUnderTest, mark: Path
) -> None:
    """The shorter grace counts, whichever was first; a reason that was given stays."""
    client = shared.client()
    number, _ = stubborn(client, mark)
    assert client.cancel(one(number), "the first", grace="1h") == [(number, "stopping")]
    assert client.cancel(one(number), grace="2h") == [(number, "stopping")]
    assert client.cancel(one(number), now=True) == [(number, "stopping")]
    with pytest.raises(JobCancelled, match="the first"):
        client.result(number, 20)
    assert client.cancel(one(number), now=True) == [(number, "already finished")]


@pytest.mark.parametrize("grace", [0.3, 600.0])
def test_a_stop_survives_a_crash_of_the_daemon(make_daemon: Make, mark: Path, grace: float) -> None:
    """With its grace: the next daemon kills the job when it is over, and not before."""
    daemon = make_daemon(pool__workers=1, pool__kill_grace_s=600 if grace < 1 else 0.05).start()
    client = daemon.client()
    number, pids = stubborn(client, mark)
    assert client.cancel(one(number), "why", grace=grace) == [(number, "stopping")]
    daemon.kill()
    client = daemon.start().client()
    if grace > 1:
        short = client.submit("limits:sleep_long")
        eventually(lambda: not client.cancel(one(short.id)) or short.done())  # so time has passed
        assert is_alive(pids[0])
        client.cancel(one(number), now=True)
    with pytest.raises(JobCancelled, match="why"):
        client.result(number, 20)
    eventually(lambda: not any(map(is_alive, pids)))


def test_a_cancel_is_asked_again_when_the_daemon_dies_over_it(
    make_daemon: Make, mark: Path
) -> None:
    """It had not answered: the client tells the next daemon, which does it."""
    daemon = make_daemon(pool__workers=1, pool__kill_grace_s=600).start(
        failpoint="cancel.decided:kill:1"
    )
    client = daemon.client()
    number, _ = stubborn(client, mark)
    again = threading.Thread(target=lambda: (daemon.wait(), daemon.start()))
    again.start()
    assert client.cancel(one(number), "why", now=True) == [(number, "stopping")]
    with pytest.raises(JobCancelled, match="why"):
        client.result(number, 20)
    again.join()


@pytest.mark.parametrize("now", [False, True])
def test_a_stop_never_hits_the_next_job(make_daemon: Make, *, now: bool) -> None:
    """Jobs are stopped about when they end; those behind them on the same worker run once, to their end."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    client = make_daemon(pool__workers=1, jobs__max_crashes=0).start().client()
    client.submit("work:sleep", 0.001).result(20)
    ends = set()
    for _ in range(60):
        victim = client.submit("work:sleep", 0.001)
        next_one = client.submit("work:sleep", 0.003)
        assert next_one.id == victim.id + 1
        threading.Event().wait(rng.random() * 0.003)  # for nothing: to come at any moment
        client.cancel(one(victim.id), now=now)
        assert next_one.result(20) == 0.003, f"seed {seed}"
        (info,) = client.find(one(next_one.id))
        assert (info.attempt, info.crashes) == (1, 0), f"seed {seed}"
        ends.add(client.wait([victim.id], 20)[victim.id].state)
    assert ends <= {State.SUCCEEDED, State.CANCELLED}, f"seed {seed}"


def test_what_makes_no_sense_is_refused(shared: DaemonUnderTest, mark: Path) -> None:
    """In Python and on the command line; and nothing is stopped."""
    client = shared.client()
    number, _ = stubborn(client, mark)
    with pytest.raises(UsageError, match="no grace"):
        client.cancel(one(number), grace=1, now=True)
    with pytest.raises(UsageError, match="'soon' is not a duration"):
        client.cancel(one(number), grace="soon")
    with pytest.raises(UsageError, match="not a duration"):
        client.cancel(one(number), grace=-1)
    for words in (["--now", "--grace", "1s"], ["--grace", "soon"], ["--grace=-1s"]):
        refused = shared.cli("cancel", str(number), *words)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1
    (info,) = client.find(one(number))
    assert info.state is State.RUNNING
    assert client.cancel(one(number), now=True) == [(number, "stopping")]


def test_cancel_waits_until_all_have_ended(shared: DaemonUnderTest, mark: Path) -> None:
    """Those that wait too; JSON has the answers, and how those ended that were stopping."""
    client = shared.client()
    number, _ = stubborn(client, mark)
    later = client.options(in_="1h").submit("work:nothing").id
    words = [str(number), str(later), "--reason", "no need", "--json"]
    late = shared.cli("cancel", *words, "--grace", "1h", "--wait-timeout", "50ms")
    assert late.returncode == 124
    assert json.loads(late.stdout)["message"] == f"job {number} has not ended within 50ms"
    done = shared.cli("cancel", *words, "--now", "--wait")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "schema": "jobd.cancel/1",
        "jobs": [
            {"id": number, "answer": "stopping", "state": "cancelled"},
            {"id": later, "answer": "already finished"},
        ],
    }


def test_a_reason_is_shown_wherever_the_job_is(shared: DaemonUnderTest, mark: Path) -> None:
    """In show, in ls --json, and in what result says; of one that waited and of one that ran."""
    client = shared.client()
    number, _ = stubborn(client, mark)
    later = client.options(in_="1h").submit("work:nothing").id
    stopped = shared.cli(
        "cancel", f"{number},{later}", "--reason", "wrong input", "--now", "--wait"
    )
    assert stopped.stdout.splitlines() == [f"{number}\tstopping", f"{later}\tcancelled"]
    for job in (number, later):
        assert "wrong input" in shared.cli("show", str(job)).stdout
        listed = json.loads(shared.cli("ls", str(job), "--json").stdout)
        assert listed["jobs"][0]["cause"] == "wrong input"
        told = shared.cli("result", str(job))
        assert told.returncode == 5
        assert told.stderr == f"job {job} was cancelled: wrong input\n"


def test_cancel_says_when_a_job_ended_by_itself(shared: DaemonUnderTest, tmp_path: Path) -> None:
    """It had caught the SIGTERM and gone on to its end: that is what counts."""
    client = shared.client()
    path = tmp_path / "mark"
    job = client.submit("stops:survive", str(path))
    eventually(lambda: lines(path))
    done = shared.cli("cancel", str(job.id), "--wait", "--grace", "1h")
    assert done.returncode == 0
    assert done.stderr == f"jobd: job {job.id} succeeded before it was stopped\n"
    assert job.result(20) == "went on"
