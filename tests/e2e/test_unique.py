"""Jobs with keys, with a real daemon."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from harness import DaemonUnderTest, eventually, lines

from jobd.client import Client
from jobd.executor import Executor
from jobd.model.errors import DuplicateKey, JobCancelled, JobdError, UsageError
from jobd.model.selector import one

Make = Callable[..., DaemonUnderTest]

SUBMITTERS = 20


def all_at_once(daemon: DaemonUnderTest, **options: Any) -> list[tuple[int, bool]]:
    """Let many clients submit a job at the same moment; return its id, and whether it is theirs, for each."""
    begin = threading.Barrier(SUBMITTERS)
    found: list[tuple[int, bool]] = []

    def submit() -> None:
        with Client(daemon.socket, timeout_s=30) as client:
            client.ping()
            begin.wait()
            deferred = client.options(**options).submit("operator:add", 1, 2)
            try:
                found.append((deferred.id, deferred.is_new))
            except DuplicateKey as error:
                found.append((error.id, False))

    threads = [threading.Thread(target=submit) for _ in range(SUBMITTERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("if_exists", ["return", "fail"])
@pytest.mark.parametrize("unique", ["live", "waiting"])
def test_of_twenty_that_submit_at_once_one_wins(
    shared: DaemonUnderTest, if_exists: str, unique: str
) -> None:
    """And all others are told its id."""
    key = f"race-{if_exists}-{unique}"
    found = all_at_once(shared, key=key, unique=unique, if_exists=if_exists, hold=True)
    assert len(found) == SUBMITTERS
    assert len({number for number, _ in found}) == 1
    assert [is_new for _, is_new in found].count(True) == 1
    number = found[0][0]
    shared.client().release(number)
    assert shared.client().result(number, 20) == 3


def test_of_twenty_that_replace_each_other_one_is_left(shared: DaemonUnderTest) -> None:
    """Each of the others was queued, and cancelled for the sake of a later one."""
    found = all_at_once(shared, key="replaced", if_exists="replace", hold=True)
    assert all(is_new for _, is_new in found)
    numbers = sorted(number for number, _ in found)
    client = shared.client()
    client.release(numbers[-1])
    assert client.result(numbers[-1], 20) == 3
    causes = {info.id: info.cause for info in client.find(numbers[:-1])}
    assert causes == {a: f"replaced by job {b}" for a, b in pairwise(numbers)}


def test_the_command_line_tells_whose_key_it_is(shared: DaemonUnderTest) -> None:
    """By the id on stdout and the exit code; as JSON too."""
    submit = ("submit", "operator:add", "1", "2", "--key", "cli", "--hold")
    first = shared.cli(*submit)
    number = first.stdout.strip()
    again = shared.cli(*submit)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert f"job {number} has this key already, and no other was queued" in again.stderr
    refused = shared.cli(*submit, "--if-exists", "fail")
    assert (refused.returncode, refused.stdout) == (9, first.stdout)
    assert refused.stderr.startswith(f"jobd: job {number} has the key 'cli' already, and waits: ")
    told = json.loads(shared.cli(*submit, "--if-exists", "fail", "--json").stdout)
    assert (told["code"], told["error"], told["id"]) == (9, "duplicate_key", int(number))
    shown = json.loads(shared.cli(*submit, "--json").stdout)
    assert shown["id"] == int(number)
    assert shown["policy"]["key"] == {"value": "cli", "origin": "submit"}
    third = shared.cli(*submit, "--if-exists", "replace")
    assert third.returncode == 0
    gone = shared.cli("result", number)
    assert gone.returncode == 5
    assert f"replaced by job {third.stdout.strip()}" in gone.stderr
    retried = shared.cli("retry", number)
    assert retried.returncode == 9
    assert f"its key is that of job {third.stdout.strip()}" in retried.stdout
    shared.cli("cancel", third.stdout.strip())
    assert shared.cli("retry", number).returncode == 0
    bad = shared.cli("submit", "operator:add", "1", "2", "--unique", "waiting")
    assert bad.returncode == 2
    assert "unique: it is about jobs with one key" in bad.stderr


def test_every_deferred_result_of_one_job_gets_its_value(
    shared: DaemonUnderTest, connect: Callable[..., Client]
) -> None:
    """From one client or from several, with threads and asyncio; it may be an input of the next."""
    with closing(connect(shared.socket)) as client:
        keyed = client.options(key="twins", hold=True)
        first = keyed.submit("operator:add", 1, 2)
        twins = [keyed.submit("operator:add", 3, 4) for _ in range(3)]
        text = client.submit("builtins:repr", twins[-1])
        assert text.state == "blocked", "and all before it are on record"
        client.release("all")
        assert [job.result(20) for job in (*twins, first)] == [3, 3, 3, 3]
        assert text.result(20) == "3"
        assert [first.is_new, *(job.is_new for job in twins)] == [True, False, False, False]


def test_one_runs_and_one_waits(make_daemon: Make, tmp_path: Path) -> None:
    """At most one waits, at most one runs, and what has nothing to do with them goes on."""
    daemon = make_daemon(pool__workers=2).start()
    client = daemon.client()
    index = client.options(key="index", unique="waiting,running")
    gate, mark = tmp_path / "gate", tmp_path / "mark"
    runs = index.submit("marks:mark_and_wait", str(mark), "first", str(gate))
    eventually(mark.exists)
    waits = index.submit("marks:mark", str(mark), "second")
    others = [index.submit("marks:mark", str(mark), "other") for _ in range(5)]
    assert {job.id for job in others} == {waits.id}
    assert waits.id != runs.id
    assert client.submit("operator:add", 1, 2).result(20) == 3, "a worker is free"
    assert waits.state == "queued"
    gate.touch()
    waits.result(20)
    assert [line.split()[0] for line in lines(mark)] == ["first", "second"]
    assert client.status().jobs["queued"] == 0


def test_jobs_of_a_key_run_one_at_a_time(shared: DaemonUnderTest, tmp_path: Path) -> None:
    """None is refused; all run, in the order in which they came."""
    client = shared.client().options(key="serial", unique="running")
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    jobs = [
        client.submit("marks:mark_and_wait", str(mark), str(number), str(gate))
        for number in range(6)
    ]
    eventually(lambda: lines(mark))
    assert shared.client().submit("operator:add", 1, 2).result(20) == 3
    assert len(lines(mark)) == 1
    gate.touch()
    for job in jobs:
        job.result(20)
    assert [line.split()[0] for line in lines(mark)] == [str(number) for number in range(6)]


def test_a_key_outlives_the_daemon(make_daemon: Make) -> None:
    """A job that waits has it still, and one that runs."""
    daemon = make_daemon(pool__workers=1).start()
    client = daemon.client()
    keyed = client.options(key="k", hold=True)
    first = keyed.submit("operator:add", 1, 2)
    assert first.id
    daemon.kill()
    daemon.start()
    again = keyed.submit("operator:add", 1, 2)
    assert (again.id, again.is_new) == (first.id, False)
    first.release()
    assert (first.result(20), again.result(20)) == (3, 3)
    assert keyed.submit("operator:add", 1, 2).id > first.id


def test_a_job_that_waits_is_replaced_and_one_that_runs_is_not(
    make_daemon: Make, tmp_path: Path
) -> None:
    """Who waits for the old one is told."""
    client = make_daemon(pool__workers=1).start().client()
    keyed = client.options(key="k", if_exists="replace")
    gate, mark = tmp_path / "gate", tmp_path / "mark"
    runs = keyed.submit("marks:mark_and_wait", str(mark), "runs", str(gate))
    eventually(mark.exists)
    with pytest.raises(DuplicateKey, match="only a job that waits is replaced") as refused:
        keyed.submit("operator:add", 1, 2).result(20)
    assert refused.value.id == runs.id
    gate.touch()
    runs.result(20)
    held = keyed.options(hold=True).submit("operator:add", 1, 2)
    after = client.submit("builtins:repr", held)
    new = keyed.submit("operator:add", 3, 4)
    assert new.result(20) == 7
    with pytest.raises(JobCancelled, match=f"replaced by job {new.id}"):
        held.result(20)
    with pytest.raises(JobdError, match="was aborted"):
        after.result(20)
    assert client.find(one(after.id))[0].root == held.id


def test_what_makes_no_sense_is_refused(shared: DaemonUnderTest) -> None:
    """Several jobs with one key, and futures, which are of their own jobs."""
    client = shared.client().options(key="many")
    jobs = client.submit_many("operator:add", [(1, 2), (3, 4)])
    with pytest.raises(UsageError, match="a key is for one job, and this submit has 2"):
        jobs[0].result(20)
    with Executor(socket=shared.socket) as executor, pytest.raises(UsageError, match="no key"):
        executor.options(key="k")
