"""Whose turn it is: priorities, fairness between keys, concurrency keys; with the real daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually, lines

from jobd.client import Client
from jobd.model.errors import UsageError
from jobd.model.selector import one

Make = Callable[..., DaemonUnderTest]


def hold_all(client: Client, mark: Path, gate: Path, workers: int) -> None:
    """Give every worker a job that waits for the gate."""
    for number in range(workers):
        client.submit("order:turn_and_wait", str(mark), f"holds {number}", str(gate))
    eventually(lambda: len(lines(mark)) == workers)


def test_the_urgent_goes_first_and_what_can_wait_last(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """Whatever came first; of one priority the older job does."""
    client = make_daemon(pool__workers=1).start().client()
    hold_all(client, mark, gate, 1)
    said = [0, -5, 7, 0, 1000, 7, -1000]
    jobs = [
        client.options(priority=priority).submit("order:turn", str(mark), f"{index}")
        for index, priority in enumerate(said)
    ]
    gate.touch()
    for job in jobs:
        job.result(30)
    assert lines(mark)[1:] == ["4", "2", "5", "0", "3", "1", "6"]


def test_a_tenants_thousands_do_not_keep_another_from_its_turn(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """He who comes last with one job waits for a few of theirs, not for all."""
    client = make_daemon(pool__workers=1).start().client()
    hold_all(client, mark, gate, 1)
    many = client.options(fair_key="many").submit_many("order:turn", [(str(mark), "many")] * 5_000)
    one_job = client.options(fair_key="one").submit("order:turn", str(mark), "one")
    gate.touch()
    one_job.result(60)
    assert lines(mark).index("one") <= 3
    for job in many:
        job.result(60)
    assert len(lines(mark)) == 5_002


def test_no_more_jobs_of_a_key_run_than_may_whatever_dies(
    make_daemon: Make, tmp_path: Path
) -> None:
    """They count themselves; the daemon is killed in the midst of it, and goes on."""
    daemon = make_daemon(pool__workers=4).start()
    inside = str(tmp_path / "inside")
    client = daemon.client()
    limited = client.options(concurrency_key="db", concurrency=2)
    jobs = [limited.submit("order:count", inside) for _ in range(60)]
    jobs += limited.submit_many("order:count", [(inside,)] * 140)
    free = client.submit_many("work:add", [(1,)] * 200)
    numbers = [job.id for job in jobs]
    jobs[10].result(30)
    daemon.kill()
    daemon.start()
    with daemon.client() as after:
        counted = [after.result(number, timeout=60) for number in numbers]
        assert max(counted) <= 2
        assert [after.result(job.id, timeout=60) for job in free] == [2] * 200


def test_a_key_is_one_at_a_time_if_nothing_else_is_said(
    shared: DaemonUnderTest, tmp_path: Path
) -> None:
    """Also over functions and queues; ``concurrency`` says how many."""
    limited = shared.client().options(concurrency_key="one by one")
    jobs = [limited.submit("order:count", str(tmp_path / "inside")) for _ in range(20)]
    assert {job.result(30) for job in jobs} == {1}


def test_a_job_that_waits_for_one_that_needs_its_key_is_told(shared: DaemonUnderTest) -> None:
    """At once, and in words; it would wait for ever."""
    limited = shared.client().options(concurrency_key="mine")
    told = limited.submit("order:wait_for_one_like_me", "mine").result(30)
    assert "(it has the concurrency key 'mine')" in told
    assert limited.submit("order:wait_for_one_like_me", "another").result(30) == "it ran"


def test_short_jobs_all_end_while_long_ones_hold_all_workers_but_one(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """No job waits behind a busy worker while another idles, whichever way they are mixed."""
    client = make_daemon(pool__workers=3).start().client()
    client.submit("order:turn", str(mark), "known to be short").result(30)
    mark.unlink()
    short = []
    for number in range(2):
        short += client.submit_many("work:add", [(1,)] * 100)
        client.submit("order:turn_and_wait", str(mark), f"{number}", str(gate))
        short += client.submit_many("work:add", [(1,)] * 100)
    assert [job.result(60) for job in short] == [2] * 400
    eventually(lambda: len(lines(mark)) == 2)
    assert not gate.exists()


def test_jobs_that_cannot_all_be_in_memory_are_loaded_as_their_turns_come(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """Also by the next daemon; what comes later and is urgent goes before them."""
    daemon = make_daemon(pool__workers=1).start()
    client = daemon.client()
    hold_all(client, mark, gate, 1)
    low = client.options(priority=-1).submit_many(
        "order:turn", [(str(mark), f"{number}") for number in range(9_000)]
    )
    last = low[-1].id
    daemon.kill()
    daemon.start()
    with daemon.client() as after:
        urgent = after.options(priority=1).submit("order:turn", str(mark), "urgent")
        assert urgent.id > last
        gate.touch()
        urgent.result(60)
        after.result(last, timeout=120)
        eventually(lambda: len(lines(mark)) >= 9_002)  # some may have come back, and end after it
    order = lines(mark)[1:]
    assert order.index("urgent") <= 1
    order.remove("urgent")
    assert order[0] == "0"
    assert sorted(map(int, order)) == [*range(9_000)]


def test_the_settings_may_say_whose_turn_it_is(make_daemon: Make, mark: Path, gate: Path) -> None:
    """For a queue, and for a function; and show says where it comes from."""
    daemon = make_daemon(pool__workers=1)
    path = daemon.root / "jobd.toml"
    path.write_text(
        "[queues.slow]\npriority = -3\n"
        '[functions."order:count"]\nconcurrency_key = "db"\nconcurrency = 2\n',
        encoding="utf-8",
    )
    daemon.environ["JOBD_CONFIG"] = str(path)
    client = daemon.start().client()
    hold_all(client, mark, gate, 1)
    number = client.options(queue="slow").submit("order:count", str(mark)).id
    (info,) = client.find(one(number))
    assert info.policy is not None
    assert (info.policy.priority, info.policy.concurrency_key) == (-3, "db")
    shown = daemon.cli("show", str(number)).stdout
    assert "[queues.slow]" in shown
    assert '[functions."order:count"]' in shown


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--priority", "1001"], "priority: 1001 is out of range"),
        (["--priority", "high"], "priority: 'high' is not a whole number"),
        (["--concurrency", "0", "--concurrency-key", "k"], "concurrency: 0 is out of range"),
        (["--fair-key", ""], "--fair-key: '' is no name here"),
    ],
)
def test_a_bad_value_is_refused_with_a_sentence(
    shared: DaemonUnderTest, words: list[str], sentence: str
) -> None:
    """And nothing is submitted."""
    before = shared.client().status().jobs
    done = shared.cli("submit", *words, "work:add", "1")
    assert (done.returncode, sentence in done.stderr) == (2, True), done
    assert shared.client().status().jobs == before


def test_show_says_what_keeps_a_job_from_being_started(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """Its queue, its key, or nothing but the workers."""
    daemon = make_daemon(pool__workers=2).start()
    client = daemon.client()
    keyed = client.options(concurrency_key="db")
    keyed.submit("order:turn_and_wait", str(mark), "has it", str(gate))
    eventually(lambda: lines(mark))
    client.set_queue("one", slots=1)
    client.options(queue="one").submit("order:wait", str(gate)).id  # noqa: B018  # once it is there
    client.set_queue("paused")
    client.pause("paused")
    jobs = [
        view.submit("work:add", 1).id
        for view in (
            keyed,
            client.options(queue="one"),
            client.options(queue="paused"),
            client.options(priority=3),
        )
    ]
    found = {number: client.find(one(number))[0].waits_for for number in jobs}
    assert [*found.values()] == [
        "1 job runs with the concurrency key 'db', as many as may",
        "1 job runs of its queue 'one', as many as may",
        "its queue 'paused' is paused",
        "",
    ]
    assert "is paused" in daemon.cli("show", str(jobs[2])).stdout
    assert json.loads(daemon.cli("show", "--json", str(jobs[3])).stdout)["waits_for"] is None


def test_the_command_line_says_whose_turn_it_is(shared: DaemonUnderTest) -> None:
    """The same words as in Python."""
    words = ["--priority", "5", "--concurrency-key", "db", "--concurrency", "2", "--fair-key", "t"]
    number = int(shared.cli("submit", "-q", *words, "work:add", "1").stdout)
    policy = json.loads(shared.cli("show", "--json", str(number)).stdout)
    told = {name: entry["value"] for name, entry in policy["policy"].items()}
    assert told["priority"] == 5
    assert (told["concurrency_key"], told["concurrency"], told["fair_key"]) == ("db", 2, "t")


def test_concurrency_without_a_key_is_refused(shared: DaemonUnderTest) -> None:
    """It would limit nothing."""
    with pytest.raises(UsageError, match="concurrency"):
        shared.client().options(concurrency=2).submit("work:add", 1).result(30)
