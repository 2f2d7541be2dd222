"""Holding jobs and letting them go, with a real daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually, lines

from jobd.client import Client
from jobd.model.errors import JobCancelled
from jobd.model.selector import Selector, one
from jobd.model.states import State

Make = Callable[..., DaemonUnderTest]


def state_of(client: Client, number: int) -> State:
    """Return the state that a job is in."""
    (info,) = client.find(one(number))
    return info.state


def test_a_job_that_is_submitted_held_starts_once_it_is_released(
    shared: DaemonUnderTest, connect: Callable[..., Client]
) -> None:
    """From Python, by the deferred result and by the client, with threads and asyncio."""
    with closing(connect(shared.socket)) as client:
        job = client.options(hold=True).submit("operator:add", 1, 2)
        assert job.state == "held"
        assert client.submit("operator:add", 1, 1).result(20) == 2, "it is in nobody's way"
        assert (job.hold(), job.state) == (True, "held")
        assert job.release()
        assert job.result(20) == 3
        assert not job.hold()
        assert not job.release()
        assert client.hold(job.id) == client.release(job.id) == [(job.id, "already finished")]


def test_the_command_line_holds_and_releases(
    shared: DaemonUnderTest, mark: Path, gate: Path
) -> None:
    """With an answer for each job, as a table, as JSON, and by the exit code."""
    client = shared.client()
    running = client.submit("marks:mark_and_wait", str(mark), "one", str(gate))
    eventually(lambda: running.state == "running")
    done = shared.cli("submit", "--hold", "operator:add", "2", "3")
    number = int(done.stdout)
    told = shared.cli("hold", f"{number},{running.id}")
    assert told.stdout == f"{running.id}\tis running\n{number}\theld\n"
    assert told.returncode == 8
    assert shared.cli("hold", str(running.id)).returncode == 3
    told = shared.cli("ls", "-s", "held", "--json")
    assert number in [job["id"] for job in json.loads(told.stdout)["jobs"]]
    assert json.loads(shared.cli("status", "--json").stdout)["jobs"]["held"] >= 1
    asked = shared.cli("result", str(number))
    assert (asked.returncode, asked.stdout) == (3, "")
    assert f"job {number} is held" in asked.stderr
    told = shared.cli("release", str(number), "--json")
    answers = {"schema": "jobd.release/1", "jobs": [{"id": number, "answer": "released"}]}
    assert (told.returncode, json.loads(told.stdout)) == (0, answers)
    assert shared.cli("result", "--wait", str(number)).stdout == "5\n"
    assert shared.cli("release", "999999").returncode == 4


def test_a_held_job_survives_a_killed_daemon_and_is_released_by_the_next(
    make_daemon: Make, mark: Path
) -> None:
    """Those who wait for it hear of its end."""
    daemon = make_daemon(pool__workers=1).start()
    client = daemon.client()
    job = client.options(hold=True).submit("marks:mark", str(mark), "once")
    queued = client.submit_many("operator:add", [(n, n) for n in range(5)])
    assert job.id
    daemon.kill()
    daemon.start()
    assert [d.result(20) for d in queued] == [0, 2, 4, 6, 8]
    assert state_of(client, job.id) is State.HELD
    assert not mark.exists()
    assert client.release("all")[-1] == (job.id, "released")
    job.result(20)
    assert len(lines(mark)) == 1


def test_a_job_that_waits_for_another_can_be_held(
    shared: DaemonUnderTest, mark: Path, gate: Path
) -> None:
    """Released, it waits for its input again, or starts if that is there by then."""
    client = shared.client()
    first = client.submit("marks:mark_and_wait", str(mark), "one", str(gate))
    waits, early = client.submit("builtins:str", first), client.submit("builtins:repr", first)
    assert client.hold([waits, early]) == [(early.id, "held"), (waits.id, "held")]
    assert early.release()
    eventually(lambda: early.state == "blocked")
    gate.touch()
    first.result(20)
    early.result(20)
    assert waits.state == "held"
    assert waits.release()
    assert waits.result(20) == str(first.result())


def test_a_held_job_can_be_cancelled(shared: DaemonUnderTest) -> None:
    """And all that is held, by its state."""
    client = shared.client()
    jobs = [client.options(hold=True).submit("operator:add", n, 1) for n in range(3)]
    numbers = {job.id for job in jobs}
    told = client.cancel(Selector(all=True, states=[State.HELD]), "not wanted")
    assert {number for number, answer in told if answer == "cancelled"} >= numbers
    for job in jobs:
        with pytest.raises(JobCancelled, match="not wanted"):
            job.result(20)


def test_a_backlog_can_be_held_and_released(make_daemon: Make, mark: Path, gate: Path) -> None:
    """Thousands of plain jobs, most of which are in no row of their own, and all run in the end."""
    daemon = make_daemon(pool__workers=1).start()
    client = daemon.client()
    first = client.submit("marks:mark_and_wait", str(mark), "one", str(gate))
    eventually(lambda: first.state == "running")
    jobs = client.submit_many("operator:add", [(n, 1) for n in range(3000)])
    client.flush()
    answers = client.hold(Selector(all=True, states=[State.QUEUED]))
    assert {answer for _, answer in answers} == {"held"}
    assert len(answers) == 3000
    gate.touch()
    first.result(20)
    assert client.status().jobs["held"] == 3000
    assert len(client.release("all")) == 3001
    assert [job.result(30) for job in jobs] == [n + 1 for n in range(3000)]
