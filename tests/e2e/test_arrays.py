"""Arrays against a real daemon: one job, many items, and each item costs the others nothing."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import DaemonUnderTest, eventually, lines

from jobd.client import Client
from jobd.client.batches import Progress
from jobd.model.errors import (
    AlreadyTaken,
    BadFunction,
    JobCrashed,
    JobFailed,
    UsageError,
    WaitTimeout,
)
from jobd.model.item import item_of
from jobd.model.states import State

MakeDaemon = Callable[..., DaemonUnderTest]
Connect = Callable[..., Client]


@pytest.fixture
def client(shared: DaemonUnderTest, connect: Connect) -> Iterator[Client]:
    """Return a client of the shared daemon."""
    with connect(shared.socket) as client:
        yield client


def runs(path: Path) -> Counter[int]:
    """Return how often each number was noted."""
    return Counter(map(int, path.read_text(encoding="ascii").split()))


def has_grown(path: Path, size: int) -> bool:
    """Whether a file is there, and larger."""
    return path.exists() and path.stat().st_size > size


# --- as Python has them


def test_a_list_is_one_job(client: Client) -> None:
    """Its number is one, the next job has the next one, and its items have its number and their own."""
    batch: Any = client.map("work:add", range(2_000))
    assert client.submit("work:nothing").id == batch.id + 1
    assert list(batch) == list(range(1, 2_001))
    assert batch.progress() == Progress(2_000, 2_000, {"succeeded": 2_000})
    assert client.result(batch.id, 20) == list(range(1, 2_001))
    assert client.result(item_of(batch.id, 7), 20) == 8
    (info,) = client.find(f"{batch.id}/7")
    assert (info.id, info.state) == (item_of(batch.id, 7), State.SUCCEEDED)


def test_an_array_as_a_deferred_result(client: Client) -> None:
    """Whoever has it gets the list of all, as by its number."""
    batch: Any = client.map("work:add", range(3))
    batch.wait(timeout=20)
    assert batch.deferred.result(20) == [1, 2, 3]
    assert [done.result(20) for done in client.as_completed([client.attach(batch.id)])] == [
        [1, 2, 3]
    ]


def test_results_are_taken_item_by_item(client: Client, shared: DaemonUnderTest) -> None:
    """The array has none of its own to take; where that of an item is gone it is told."""
    batch: Any = client.map("work:add", [1])  # an item by itself has a row
    batch.wait(timeout=20)
    with pytest.raises(UsageError, match=f"job {batch.id} is an array"):
        client.take(batch.id)
    assert client.take(item_of(batch.id, 0)) == 2
    with pytest.raises(AlreadyTaken, match=f"job {batch.id}/0 was taken"):
        client.take(item_of(batch.id, 0))
    eventually(lambda: "was taken" in shared.cli("result", str(batch.id)).stdout)  # it is stored
    with pytest.raises(AlreadyTaken, match=f"job {batch.id}/0 was taken"):
        client.result(batch.id)
    with pytest.raises(JobFailed, match=f"job {batch.id}/0 was taken"):
        client.submit("work:echo", batch.deferred).result(20)


def test_somebody_else_reads_it_later(client: Client, shared: DaemonUnderTest) -> None:
    """By its number, from the first item on."""
    number = client.map("work:add", range(10)).id
    with Client(shared.socket) as other:
        batch = other.batch(number)
        assert list(batch) == list(range(1, 11))
        assert other.batch(number).results(20) == list(range(1, 11))
        assert sorted(d.result() for d in other.batch(number).as_completed(20)) == list(
            range(1, 11)
        )


def test_no_items_are_an_array_too(client: Client) -> None:
    """It has ended at once."""
    batch: Any = client.map("work:add", [])
    assert list(batch) == []
    assert batch.wait(20) == Progress(0, 0, {})
    assert client.result(batch.id, 20) == []


def test_calls_with_several_arguments(client: Client) -> None:
    """And functions and values that travel by value, also those that JSON has not."""
    assert list(client.starmap("work:add", [(1, 2), (3, 4), (5,)])) == [3, 7, 6]
    base = 10
    assert list(client.map(lambda n: n + base, range(500))) == list(range(10, 510))
    values = [{1}, (2, 3), b"\xff", None, "ä", 1.5]
    assert [args[0] for args, _ in client.map("work:echo", values)] == values


def test_an_item_that_fails_costs_the_others_nothing(client: Client) -> None:
    """The iteration raises there, and goes on behind it."""
    batch: Any = client.map("work:add", [1, "two", 3])
    assert next(batch) == 2
    with pytest.raises(JobFailed, match=f"job {batch.id}/1 failed: TypeError"):
        next(batch)
    assert next(batch) == 4
    with pytest.raises(StopIteration):
        next(batch)
    assert [info.id for info in batch.failed()] == [item_of(batch.id, 1)]
    with pytest.raises(JobFailed, match="1 of 3 items have not succeeded, the first is"):
        client.result(batch.id, 20)


def test_whatever_an_item_does_is_told_of_it(client: Client) -> None:
    """Output, errors, large values, odd ones, generators and coroutines, side by side."""
    list(client.map("items:odd", [7] * 100))  # so that its items are taken for short ones
    batch: Any = client.map("items:odd", range(64))
    batch.wait(30)
    ends = {ended.id - item_of(batch.id, 0): ended for ended in batch.ends(20)}
    assert [n for n, ended in ends.items() if ended.state is not State.SUCCEEDED] == [
        n for n in range(64) if n % 8 == 2
    ]
    values = {n: client.result(item_of(batch.id, n), 20) for n in ends if n % 8 != 2}
    for number, value in values.items():
        assert value == {1: "x" * 100_000, 3: {number}}.get(number % 8, number)
    assert b"".join(client.logs(item_of(batch.id, 8))) == b"item 8\n"
    assert b"".join(client.logs(item_of(batch.id, 9))) == b""


def test_an_item_knows_itself(client: Client) -> None:
    """By its number."""
    batch: Any = client.map("items:who", range(300))
    assert list(batch) == [[n, item_of(batch.id, n)] for n in range(300)]


def test_all_results_are_an_argument(client: Client) -> None:
    """In the order of the items; and an array may come after another job."""
    batch: Any = client.map("work:add", range(100))
    assert client.submit("work:echo", batch.deferred).result(20) == [[list(range(1, 101))], {}]
    after: Any = client.options(after=[batch.deferred]).map("work:add", [1])
    assert list(after) == [2]


def test_nobody_waits_for_longer_than_was_said(client: Client, mark: Path, gate: Path) -> None:
    """For the next item, for all of them, and for those that end first."""
    batch: Any = client.starmap("items:wait_at", [(str(mark), str(gate), 0)], timeout=0.05)
    with pytest.raises(WaitTimeout, match=f"item {batch.id}/0 has not ended within"):
        next(batch)
    with pytest.raises(WaitTimeout):
        batch.wait(0.01)
    with pytest.raises(WaitTimeout):
        next(batch.as_completed(0.01))
    gate.touch()
    assert batch.results(20) == [0]


def test_all_items_are_queued_or_none(client: Client) -> None:
    """What cannot be called is refused as a whole."""
    before = sum(client.status().jobs.values())
    batch: Any = client.starmap("work:add", [(1, 2), (1, 2, 3)])
    with pytest.raises(BadFunction, match="too many positional arguments"):
        list(batch)
    with pytest.raises(UsageError, match="an array has no key"):
        list(client.options(key="k").map("work:add", [1]))
    assert sum(client.status().jobs.values()) == before


# --- tried again, cancelled, limited


def test_only_what_has_failed_runs_again(client: Client, mark: Path) -> None:
    """By itself, with retries; and by hand, for those that are chosen."""
    calls = [(str(mark), n) for n in range(50)]
    assert list(client.options(retries=1).starmap("items:second_time", calls)) == list(range(50))
    assert runs(mark) == Counter({n: 2 if n % 10 == 5 else 1 for n in range(50)})
    mark.unlink()
    batch: Any = client.starmap("items:second_time", calls)
    assert batch.wait(20).states == {"succeeded": 45, "failed": 5}
    assert client.retry(f"{batch.id}/15") == [(item_of(batch.id, 15), "queued again")]
    assert batch.wait(20).states == {"succeeded": 46, "failed": 4}
    batch.retry()
    assert batch.wait(20).states == {"succeeded": 50}
    assert batch.results(20) == list(range(50))
    assert runs(mark) == Counter({n: 2 if n % 10 == 5 else 1 for n in range(50)})


def test_a_part_is_cancelled(client: Client, mark: Path, gate: Path) -> None:
    """What has not started never runs, unless somebody retries it."""
    calls = [(str(mark), str(gate), n % 100) for n in range(1_000)]
    batch: Any = client.starmap("items:wait_at", calls)
    eventually(lambda: "0" in lines(mark))
    first, last = item_of(batch.id, 500), item_of(batch.id, 999)
    answers = client.cancel(f"{batch.id}/500-")
    assert [number for number, _ in answers] == [batch.id]
    gate.touch()
    assert batch.wait(30).states == {"succeeded": 500, "cancelled": 500}
    assert client.find(f"{batch.id}/500")[0].state is State.CANCELLED
    (answer,) = client.retry(f"{batch.id}/990-999")
    assert answer == (batch.id, "queued 10 items again")
    assert batch.wait(30).states == {"succeeded": 510, "cancelled": 490}
    assert last - first == 499
    assert len(lines(mark)) == 510


def test_a_cancel_stops_what_runs(client: Client, mark: Path, gate: Path) -> None:
    """Also an item of a stretch, as soon as it turns out long."""
    list(client.starmap("items:wait_at", [(str(mark), str(gate), 1)] * 200))
    batch: Any = client.starmap(
        "items:wait_at", [(str(mark), str(gate), n) for n in (1, 2, 0, 3, 4)]
    )
    eventually(lambda: "0" in lines(mark))
    batch.cancel("enough")
    states = batch.wait(20).states
    assert states["cancelled"] >= 1
    assert client.find(f"{batch.id}/2")[0].state is State.CANCELLED
    (info,) = client.find(batch.id)
    assert (info.state, info.cause) == (State.CANCELLED, "enough")


def test_so_many_run_at_once_as_may(client: Client, mark: Path, gate: Path) -> None:
    """The slots of an array can be changed while it runs."""
    calls = [(str(mark), str(gate), 0)] * 3
    batch: Any = client.options(queue="default").starmap("items:wait_at", calls)
    eventually(lambda: len(lines(mark)) == 2)
    client.set_slots(batch.id, 1)
    assert client.find(batch.id)[0].array.spec.slots == 1  # type: ignore[union-attr]  # it is an array
    gate.touch()
    assert batch.results(20) == [0, 0, 0]
    with pytest.raises(UsageError, match="has ended"):
        client.set_slots(batch.id, 2)


# --- nothing is lost


class TestNothingLost:
    """Workers die, daemons die; each item ends once."""

    def test_who_dies_takes_the_item_that_it_ran_and_no_other(
        self, make_daemon: MakeDaemon
    ) -> None:
        """A thousand items, ten of which end their worker, twice each; all others run once."""
        daemon = make_daemon(jobs__max_crashes=1).start()
        mark = daemon.root / "mark"
        client = daemon.client()
        list(client.map("work:add", range(500)))
        batch = client.starmap("items:touchy", [(str(mark), n) for n in range(1_000)])
        states = batch.wait(60).states
        assert states == {"succeeded": 980, "failed": 10, "crashed": 10}
        assert runs(mark) == Counter({n: 2 if n % 100 == 50 else 1 for n in range(1_000)})
        with pytest.raises(JobCrashed, match=r"crashed \(exit code 3\)"):
            client.result(item_of(batch.id, 50), 20)

    def test_the_next_daemon_goes_on(self, make_daemon: MakeDaemon) -> None:
        """Kills of the daemon, and of the daemon with its workers: only what ran at a kill may run again."""
        daemon = make_daemon().start()
        mark = daemon.root / "mark"
        count, kills = 30_000, 0
        number = daemon.client().starmap("items:note", [(str(mark), n) for n in range(count)]).id
        for at in (2_000, 9_000, 16_000, 23_000):
            eventually(partial(has_grown, mark, 5 * at))
            with Client(daemon.socket) as other:
                workers = [worker.pid for worker in other.status().workers if worker.pid]
            daemon.kill()
            for pid in workers if at > 10_000 else ():
                os.kill(pid, signal.SIGKILL)
                kills += 1
            daemon.start()
        batch = daemon.client().batch(number)
        assert batch.results(60) == list(range(count))
        found = runs(mark)
        assert set(found) == set(range(count))
        assert sum(found.values()) - count <= kills

    def test_what_a_stretch_has_returned_outlives_its_worker(self, make_daemon: MakeDaemon) -> None:
        """The item that kills it is the only one without a value."""
        daemon = make_daemon(jobs__max_crashes=0, pool__workers=1).start()
        client = daemon.client()
        list(client.map("items:end_later", range(1_000, 1_400)))
        batch = client.map("items:end_later", range(60))
        assert batch.wait(30).states == {"succeeded": 59, "crashed": 1}


# --- as the command line has them


class TestCommandLine:
    """``jobd map``, and items in every other command."""

    def test_lines_of_a_file(self, daemon: DaemonUnderTest) -> None:
        """Each is the first argument; the results are lines of JSON."""
        (daemon.work_dir / "lines").write_text("1\ntwo\nthree 3\n", encoding="utf-8")
        done = daemon.cli("map", "work:echo", "--each-line", "lines", "b:=2")
        assert (done.returncode, done.stdout) == (0, "1\n")
        assert daemon.cli("wait", "1").returncode == 0
        found = [json.loads(line) for line in daemon.cli("result", "1").stdout.splitlines()]
        assert found == [
            {"index": n, "state": "succeeded", "value": [[text], {"b": 2}]}
            for n, text in enumerate(["1", "two", "three 3"])
        ]
        assert daemon.cli("result", "1/1").stdout == '[["two"],{"b":2}]\n'

    def test_what_has_failed_is_shown_and_retried(self, daemon: DaemonUnderTest) -> None:
        """By state, by number, by a range of items."""
        stdin = "".join(f"[{n}]\n" if n != 3 else '["x"]\n' for n in range(6))
        done = daemon.cli("map", "work:add", "--from-jsonl", "-", "--wait", stdin=stdin)
        assert done.returncode == 8
        assert "6: 5 succeeded, 1 failed" in done.stderr
        assert "the first that has not succeeded: 1/3" in done.stderr
        listed = daemon.cli("ls", "1", "-s", "failed").stdout.splitlines()
        assert [line.split("\t")[:2] for line in listed] == [["1/3", "failed"]]
        assert len(daemon.cli("ls", "1").stdout.splitlines()) == 6
        assert [line.split("\t")[0] for line in daemon.cli("ls", "1/0-2").stdout.splitlines()] == [
            *("1/2", "1/1", "1/0"),
        ]
        assert daemon.cli("show", "1/3").stdout.startswith("job\t1/3\n")
        told = json.loads(daemon.cli("show", "1", "--json").stdout)["items"]
        assert (told["total"], told["first_failure"]) == (6, "1/3")
        assert daemon.cli("retry", "1", "-s", "failed").stdout == "1\tqueued 1 item again\n"
        waited = daemon.cli("wait", "1/3")
        assert (waited.returncode, waited.stdout) == (1, "1/3\tfailed\n")
        assert daemon.cli("result", "1/0", "1/9").returncode == 2
        assert daemon.cli("result", "1/9").returncode == 4

    def test_when_too_many_fail_the_rest_is_aborted(self, daemon: DaemonUnderTest) -> None:
        """More than N: with 0 the first one is too many."""
        lines = "".join(f"{n}\n" for n in range(500))
        done = daemon.cli(
            "map", "work:fail", "--each-line", "-", "--max-fails", "0", "--wait", stdin=lines
        )
        assert done.returncode == 8
        states = json.loads(daemon.cli("show", "1", "--json").stdout)["items"]["states"]
        assert sum(states.values()) == 500
        assert states["aborted"] > 0
        assert set(states) == {"failed", "aborted"}

    def test_what_follows_is_called_with_the_number(self, daemon: DaemonUnderTest) -> None:
        """Once all have succeeded, or not."""
        done = daemon.cli("map", "work:add", "--array", "1-3", "--then", "work:echo")
        assert done.stdout == "1\n"
        assert daemon.cli("result", "--wait", "2").stdout == "[[1],{}]\n"
        done = daemon.cli("map", "work:fail", "--array", "1-2", "--then-fail", "work:echo")
        assert daemon.cli("result", "--wait", "4").stdout == "[[3],{}]\n"

    def test_errors_are_kept_or_skipped_where_results_are_an_argument(
        self, daemon: DaemonUnderTest
    ) -> None:
        """As it was said when the array was submitted."""
        stdin = '[1]\n["x"]\n[3]\n'
        for number, errors in ((1, "keep"), (2, "skip"), (3, "fail")):
            daemon.cli("map", "work:add", "--from-jsonl", "-", "--errors", errors, stdin=stdin)
            daemon.cli("wait", str(number))
        kept = json.loads(daemon.cli("submit", "--wait", "work:echo", "@job:1").stdout)[0][0]
        assert (kept[0], kept[1]["error"]["type"], kept[2]) == (2, "TypeError", 4)
        skipped = json.loads(daemon.cli("submit", "--wait", "work:echo", "@job:2").stdout)[0][0]
        assert skipped == [2, 4]
        refused = daemon.cli("submit", "--wait", "work:echo", "@job:3")
        assert refused.returncode == 5

    @pytest.mark.parametrize(
        ("words", "stdin", "told"),
        [
            (["--each-line", "nosuch"], "", "nosuch: No such file or directory"),
            (["--from-jsonl", "-"], "[1]\n{\n", "line 2 of stdin is not JSON"),
            (["--array", "0-4", "--only", "3,9"], "", "there is no item 9, as there are 5"),
            (["--array", "0-4", "--each-line", "x"], "", "contradict each other"),
            (["--param", "a="], "", "no items"),
            (
                ["--param", "a:='range(100000)'", "--param", "b:=range(100000)"],
                "",
                "10,000,000,000",
            ),
            ([], "", "--each-line"),
        ],
    )
    def test_bad_input_queues_nothing(
        self, shared: DaemonUnderTest, words: list[str], stdin: str, told: str
    ) -> None:
        """One sentence, and exit code 2."""
        before = shared.cli("status", "--json").stdout
        words = [word.replace("'", "") for word in words]
        done = shared.cli("map", "work:add", *words, stdin=stdin)
        assert done.returncode == 2
        assert told in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert (
            json.loads(shared.cli("status", "--json").stdout)["jobs"] == json.loads(before)["jobs"]
        )
