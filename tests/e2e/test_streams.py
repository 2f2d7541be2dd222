"""Streams, from generator to consumer, with real daemons, workers and consumers, all of which may be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually

import jobd
from jobd.blobs import memory_directory
from jobd.client import Client
from jobd.failpoints import STREAM_NAMES
from jobd.model.errors import (
    JobCancelled,
    JobCrashed,
    JobdError,
    JobFailed,
    NotFound,
    UsageError,
)
from jobd.model.selector import one
from jobd.model.states import State

Make = Callable[..., DaemonUnderTest]

ENDLESS = 10**9
GONE = "its last consumer is gone"


@pytest.fixture(scope="module")
def shared() -> Iterator[DaemonUnderTest]:
    """Return a daemon for the tests that do it no harm."""
    with DaemonUnderTest(pool__workers=3) as daemon:
        yield daemon.write_jobs().start()


@pytest.fixture
def client(shared: DaemonUnderTest) -> Iterator[Client]:
    """Return a client of the shared daemon."""
    with Client(shared.socket, timeout_s=20) as client:
        yield client


@pytest.fixture
def make_daemon() -> Iterator[Make]:
    """Return a way to make daemons that a test may harm."""
    made: list[DaemonUnderTest] = []

    def make(**settings: object) -> DaemonUnderTest:
        made.append(DaemonUnderTest(modules={}, **settings).write_jobs())
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()


class Trace:
    """What a generator leaves behind."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    @property
    def made(self) -> int:
        """How many items were produced."""
        return os.path.getsize(self.path) if os.path.exists(self.path) else 0

    def is_closed(self) -> bool:
        """Whether its ``finally`` has run."""
        return os.path.exists(f"{self.path}.closed")


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """Return where a generator leaves its trace."""
    return Trace(tmp_path / "trace")


def follow(daemon: DaemonUnderTest, number: int, *options: str) -> subprocess.Popen[str]:
    """Follow a job from a shell."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "jobd", "follow", str(number), *options],
        env=daemon.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """Read so many lines of what a process writes."""
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def item_files(daemon: DaemonUnderTest) -> list[Path]:
    """Return the files of items."""
    places = [daemon.state_dir / "blobs", Path(memory_directory(str(daemon.state_dir)))]
    return [path for place in places if place.exists() for path in place.glob("i-*")]


# --- what arrives


@pytest.mark.parametrize("function", ["count", "count_async"])
def test_a_generator_is_consumed_while_it_runs(client: Client, trace: Trace, function: str) -> None:
    """Each item once, in order; however many they are."""
    assert list(client.submit(f"streams:{function}", 500, trace.path)) == list(range(500))
    assert trace.is_closed()


def test_what_a_generator_returns_is_the_result(client: Client, trace: Trace) -> None:
    """Beside its items, also for those who ask for nothing else."""
    deferred = client.submit("streams:count", 7, trace.path)
    assert deferred.result(20) == 7
    assert list(deferred) == list(range(7))
    assert list(client.submit("streams:count", 0, trace.path)) == []


def test_items_come_one_by_one_not_when_all_are_there(client: Client, tmp_path: Path) -> None:
    """An item is shown before the next one is begun."""
    items = iter(client.submit("streams:step", 3, f"{tmp_path}/"))
    for number in range(3):
        (tmp_path / str(number)).touch()
        assert next(items) == number
    with pytest.raises(StopIteration):
        next(items)


def test_a_stream_is_consumed_in_asyncio(shared: DaemonUnderTest, trace: Trace) -> None:
    """With the client of asyncio, several at once."""

    async def consume() -> list[list[int]]:
        async with jobd.AsyncClient(shared.socket) as client:
            deferred = client.submit("streams:count", 300, trace.path)

            async def take() -> list[int]:
                return [item async for item in deferred]

            return list(await asyncio.gather(take(), take()))

    assert asyncio.run(consume()) == [list(range(300))] * 2


def test_an_error_comes_after_the_items_before_it(client: Client) -> None:
    """None of those is lost."""
    items = iter(client.submit("streams:fail_after", 5))
    assert [next(items) for _ in range(5)] == list(range(5))
    with pytest.raises(JobFailed, match="ValueError: enough"):
        next(items)


def test_an_item_that_cannot_travel_fails_the_job(client: Client) -> None:
    """With a sentence; what was produced before is there."""
    items = iter(client.submit("streams:odd"))
    assert next(items) == 1j
    with pytest.raises(JobFailed, match="an item of its stream cannot travel"):
        next(items)


def test_what_is_no_stream_is_refused(client: Client) -> None:
    """Before it has ended, and after; and so is what does not exist."""
    deferred = client.submit("streams:one_value")
    for _ in range(2):
        with pytest.raises(UsageError, match="is no stream: streams:one_value has returned"):
            list(deferred)
        deferred.result(20)
    with pytest.raises(NotFound, match="no job 987654"):
        list(client.attach(987654))


# --- the bound


def test_an_endless_producer_stops_at_its_bound(client: Client, trace: Trace) -> None:
    """Nobody consumes, then somebody does and stops: 10 items, and as many more as were consumed."""
    deferred = client.options(bound=10).submit("streams:count", ENDLESS, trace.path)
    eventually(lambda: trace.made == 10)
    client.submit("streams:one_value").result(20)
    assert trace.made == 10
    items = iter(deferred)
    assert [next(items) for _ in range(4)] == [0, 1, 2, 3]  # three are consumed, one is at hand
    eventually(lambda: trace.made >= 10)
    client.submit("streams:one_value").result(20)
    assert trace.made <= 4 + 10
    del items
    eventually(trace.is_closed)


def test_a_consumer_that_is_stopped_stops_the_producer(
    shared: DaemonUnderTest, client: Client, trace: Trace
) -> None:
    """It is not taken for dead, and what it has not read piles up nowhere."""
    number = client.options(bound=10).submit("streams:count", ENDLESS, trace.path).id
    with follow(shared, number) as process:
        read_lines(process, 3)
        process.send_signal(signal.SIGSTOP)

        def settled() -> bool:
            before = trace.made
            client.submit("streams:one_value").result(20)
            return trace.made == before

        eventually(settled)
        before = trace.made
        assert client.fetch(number).state is State.RUNNING
        process.send_signal(signal.SIGCONT)
        eventually(lambda: trace.made > before)
        process.kill()
    eventually(trace.is_closed)


def test_memory_does_not_grow_with_what_flows(client: Client) -> None:
    """Sixty megabytes go through a bound of ten."""
    before = client.status().rss_bytes
    deferred = client.options(bound=10).submit("streams:pad", 600, 100_000)
    assert sum(len(item) for item in deferred) == 600 * 100_000
    assert client.status().rss_bytes - before < 40_000_000


def test_a_large_item_is_a_file_until_nobody_needs_it(
    shared: DaemonUnderTest, client: Client
) -> None:
    """Then it goes with the item; what is kept of the stream is kept whole."""
    size = 2_000_000
    deferred = client.options(bound=2).submit("streams:blocks", 9, size)
    for number, item in enumerate(deferred):
        assert item == bytes([number]) * size
        eventually(lambda: len(item_files(shared)) <= 3)  # this one, and as many as may be ahead
    eventually(lambda: len(item_files(shared)) == 2)
    assert [item[0] for item in deferred] == [7, 8]


# --- consumers that go


def test_leaving_the_loop_closes_the_generator(client: Client, trace: Trace) -> None:
    """Its ``finally`` runs, and the job says why it ended."""
    deferred = client.submit("streams:count", ENDLESS, trace.path)
    for item in deferred:
        if item == 3:
            break
    with pytest.raises(JobCancelled, match=GONE):
        deferred.result(20)
    assert trace.is_closed()


def test_a_killed_consumer_closes_the_generator(
    shared: DaemonUnderTest, client: Client, trace: Trace
) -> None:
    """It cannot say so: the daemon sees it."""
    deferred = client.submit("streams:count", ENDLESS, trace.path)
    with follow(shared, deferred.id) as process:
        read_lines(process, 2)
        process.kill()
    with pytest.raises(JobCancelled, match=GONE):
        deferred.result(20)
    assert trace.is_closed()


def test_a_generator_that_is_busy_is_stopped_when_its_consumer_is_gone(
    client: Client, trace: Trace
) -> None:
    """It would never come to its next item; its ``finally`` runs all the same."""
    deferred = client.submit("streams:hang_after", 2, trace.path)
    items = iter(deferred)
    assert next(items) == 0
    eventually(lambda: os.path.exists(trace.path))
    items.close()
    with pytest.raises(JobCancelled, match=GONE):
        deferred.result(20)
    assert trace.is_closed()


def test_who_detaches_leaves_the_generator_waiting(client: Client, trace: Trace) -> None:
    """Whoever comes next goes on from what is kept."""
    deferred = client.options(bound=5).submit("streams:count", 20, trace.path)
    items = iter(deferred)
    assert [next(items), next(items)] == [0, 1]
    items.detach()
    assert list(deferred)[-19:] == list(
        range(1, 20)
    )  # the first was consumed, and need not be kept


def test_cancelling_runs_the_finally(client: Client, trace: Trace) -> None:
    """While the generator waits at its bound."""
    deferred = client.options(bound=2).submit("streams:count", ENDLESS, trace.path)
    eventually(lambda: trace.made == 2)
    client.cancel(one(deferred.id), "enough")
    with pytest.raises(JobCancelled, match="enough"):
        deferred.result(20)
    assert trace.is_closed()


# --- several consumers


def test_shell_python_and_another_job_each_get_every_item(
    shared: DaemonUnderTest, client: Client, tmp_path: Path
) -> None:
    """The same ones, in the same order."""
    deferred = client.submit("streams:step", 20, f"{tmp_path}/")
    other = client.submit("streams:add_up", deferred.id)
    with follow(shared, deferred.id) as process:
        got: list[int] = []
        python = threading.Thread(target=lambda: got.extend(deferred))
        python.start()
        for number in range(20):
            (tmp_path / str(number)).touch()
        assert read_lines(process, 20) == [str(number) for number in range(20)]
        assert process.wait(20) == 0
        python.join(20)
    assert got == list(range(20))
    assert other.result(20) == sum(range(20))


def test_the_slowest_consumer_holds_the_producer(client: Client, trace: Trace) -> None:
    """The fast one gets no more than the bound allows the slow one to be behind."""
    deferred = client.options(bound=4).submit("streams:count", ENDLESS, trace.path)
    slow, fast = iter(deferred), iter(deferred)
    assert next(slow) == 0
    assert [next(fast) for _ in range(4)] == [0, 1, 2, 3]
    client.submit("streams:one_value").result(20)
    assert trace.made == 4
    assert [next(slow), next(slow)] == [1, 2]
    assert [next(fast), next(fast)] == [4, 5]
    slow.close()
    assert [next(fast) for _ in range(8)] == list(range(6, 14))
    fast.close()
    eventually(trace.is_closed)


def test_who_comes_late_gets_what_is_kept_and_is_told_what_is_not(
    shared: DaemonUnderTest, client: Client, trace: Trace
) -> None:
    """The last items up to the bound."""
    deferred = client.options(bound=5).submit("streams:count", 50, trace.path)
    assert len(list(deferred)) == 50
    again = iter(deferred)
    assert list(again) == [45, 46, 47, 48, 49]
    assert again.missed == 45
    told = shared.cli("follow", str(deferred.id))
    assert told.stdout.split() == ["45", "46", "47", "48", "49"]
    assert "items 1 to 45 were consumed before" in told.stderr


# --- deaths


def test_a_killed_producer_leaves_its_items_then_the_error(client: Client) -> None:
    """It is not run again, although its crash budget would allow it."""
    deferred = client.submit("streams:die_after", 6)
    items = iter(deferred)
    assert [next(items) for _ in range(6)] == list(range(6))
    with pytest.raises(JobCrashed, match="SIGKILL"):
        next(items)
    (info,) = client.find(one(deferred.id))
    assert (info.attempt, info.crashes) == (1, 1)


def test_a_killed_daemon_loses_no_item_and_doubles_none(make_daemon: Make, tmp_path: Path) -> None:
    """The producer goes on meanwhile, and the next daemon takes it over."""
    daemon = make_daemon().start()
    deferred = daemon.client().options(bound=8).submit("streams:step", 20, f"{tmp_path}/")
    items = iter(deferred)
    for number in range(7):
        (tmp_path / str(number)).touch()
    assert [next(items) for _ in range(4)] == [0, 1, 2, 3]
    daemon.kill()
    for number in range(7, 20):
        (tmp_path / str(number)).touch()
    daemon.start()
    assert list(items) == list(range(4, 20))
    assert deferred.result(20) is None
    (info,) = daemon.client().find(one(deferred.id))
    assert (info.attempt, info.crashes) == (1, 0)


def test_files_of_items_that_nobody_owns_are_swept_and_the_others_kept(make_daemon: Make) -> None:
    """When a daemon starts; the items can still be consumed."""
    daemon = make_daemon().start()
    deferred = daemon.client().submit("streams:blocks", 3, 2_000_000)
    deferred.result(20)
    (kept, *_) = item_files(daemon)
    stray = kept.with_name(f"i-{deferred.id}-1-77")
    stray.write_bytes(kept.read_bytes())
    assert daemon.terminate() == 0
    daemon.start()
    eventually(lambda: not stray.exists())
    again = daemon.client().attach(deferred.id)
    assert [item[0] for item in again] == [0, 1, 2]


@pytest.mark.parametrize("hit", [1, 4])
@pytest.mark.parametrize("name", STREAM_NAMES)
def test_a_death_on_the_way_of_an_item(
    name: str, hit: int, make_daemon: Make, trace: Trace
) -> None:
    """What a consumer gets is the beginning of the stream, each item once; all of it if the daemon died."""
    daemon = make_daemon(jobs__max_crashes=0).start(failpoint=f"{name}:kill:{hit}")
    client = daemon.client()
    deferred = client.submit("streams:count", 30, trace.path)
    got: list[int] = []

    def consume() -> None:
        try:
            got.extend(deferred)
        except JobdError as error:
            errors.append(error)

    errors: list[JobdError] = []
    consumer = threading.Thread(target=consume)
    consumer.start()
    if name == "produced.received":
        assert daemon.wait() == -signal.SIGKILL
        daemon.start()
    consumer.join(20)
    assert not consumer.is_alive()
    assert got == list(range(len(got)))
    assert (len(got) == 30) is (name == "produced.received")
    assert all(isinstance(error, JobCrashed) for error in errors)


def test_a_stream_that_the_end_of_its_daemon_has_stopped_is_not_begun_again(
    make_daemon: Make, trace: Trace
) -> None:
    """Its consumers would see the beginning twice; a person may retry it."""
    daemon = make_daemon(daemon__drain_s=0.1).start()
    deferred = daemon.client().options(bound=3).submit("streams:count", 6, trace.path)
    number = deferred.id
    eventually(lambda: trace.made == 3)
    assert daemon.terminate() == 0
    daemon.start()
    client = daemon.client()
    items = iter(client.attach(number))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(JobCrashed, match="stopped in the middle of its stream"):
        next(items)
    client.retry(one(number))
    assert list(daemon.client().attach(number)) == list(range(6))


# --- the shell


def test_follow_prints_one_json_value_a_line_and_exits_as_the_job(shared: DaemonUnderTest) -> None:
    """With --json one value in all; ``submit --follow`` does both in one."""
    told = shared.cli("submit", "--follow", "streams:fail_after", "2")
    assert (told.returncode, told.stdout) == (1, "0\n1\n")
    assert "ValueError: enough" in told.stderr
    told = shared.cli("submit", "--follow", "--json", "streams:fail_after", "2")
    value = json.loads(told.stdout)
    assert (told.returncode, told.stderr) == (1, "")
    assert (value["schema"], value["items"], value["state"]) == ("jobd.items/1", [0, 1], "failed")
    told = shared.cli("submit", "--follow", "streams:odd")
    assert told.stdout == '"1j"\n'
    assert "are shown as their repr" in told.stderr
    told = shared.cli("submit", "--follow", "--json", "streams:odd")
    value = json.loads(told.stdout)
    assert (value["items"], value["reprs"], value["state"]) == (["1j"], [0], "failed")
    told = shared.cli("submit", "--follow", "--json", "streams:dated")
    value = json.loads(told.stdout)
    assert (value["items"], value["reprs"]) == ([["2026-12-24", 1], {"base64": "AA=="}], [])
    assert value["value"] == [60.0]
    told = shared.cli("submit", "--follow", "streams:one_value")
    assert (told.returncode, told.stdout) == (2, "")


def test_the_bound_can_be_given_in_the_shell(shared: DaemonUnderTest, trace: Trace) -> None:
    """As an option of submit."""
    told = shared.cli("submit", "--bound", "2", "streams:count", "5", trace.path)
    eventually(lambda: trace.made == 2)
    assert shared.cli("follow", told.stdout.strip()).stdout.split() == ["0", "1", "2", "3", "4"]


def test_who_waits_for_a_stream_that_nobody_consumes_is_told_so(
    shared: DaemonUnderTest, client: Client, trace: Trace
) -> None:
    """Once, by every command that waits; and so is who waits for a job that has it as an input."""
    stream = client.options(bound=2).submit("streams:count", 5, str(trace.path)).id
    dependant = client.submit("work:echo", client.attach(stream)).id
    what = f"at its bound of 2 items: 'jobd follow {stream}' consumes them"
    early = waiting(shared, "result", "--wait", str(stream))
    told = [
        f"jobd: job {stream} waits {what}",
        f"jobd: job {dependant} waits for job {stream}, which waits {what}",
    ]
    assert early.stderr is not None
    assert early.stderr.readline().decode().rstrip() == told[0]
    late = waiting(shared, "wait", str(stream), str(dependant))
    assert late.stderr is not None
    assert sorted(late.stderr.readline().decode().rstrip() for _ in told) == sorted(told)
    shown = shared.cli("show", str(stream), str(dependant)).stdout.splitlines()
    assert [line for line in shown if line.startswith("note")] == [
        "note\t" + line.partition(": ")[2].partition(" ")[2].partition(" ")[2] for line in told
    ]
    listed = json.loads(shared.cli("ls", str(dependant), "--json").stdout)
    assert listed["jobs"][0]["at_bound"] == {"job": stream, "bound": 2}
    followed = shared.cli("follow", str(stream))
    assert followed.stdout.split() == ["0", "1", "2", "3", "4"]
    for command in (early, late):
        assert command.wait(20) == 0
        assert command.stderr is not None
        assert command.stderr.read() == b""
        command.stderr.close()
    assert json.loads(shared.cli("show", str(stream), "--json").stdout)["at_bound"] is None


def waiting(daemon: DaemonUnderTest, *words: str) -> subprocess.Popen[bytes]:
    """Start a command that waits."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "jobd", *words],
        env=daemon.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_ctrl_c_detaches(shared: DaemonUnderTest, client: Client, tmp_path: Path) -> None:
    """The generator waits for the next one who follows."""
    deferred = client.submit("streams:step", 4, f"{tmp_path}/")
    (tmp_path / "0").touch()
    with follow(shared, deferred.id) as process:
        assert read_lines(process, 1) == ["0"]
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"detached: job {deferred.id} goes on: 'jobd follow {deferred.id}' waits for it" in told
    for number in range(1, 4):
        (tmp_path / str(number)).touch()
    assert list(deferred) == [0, 1, 2, 3]


def test_ctrl_c_leaves_a_whole_json_value(
    shared: DaemonUnderTest, client: Client, tmp_path: Path
) -> None:
    """It says that it was cut short, and by what."""
    deferred = client.submit("streams:step", 2, f"{tmp_path}/")
    (tmp_path / "0").touch()
    with follow(shared, deferred.id, "--json") as process:
        assert process.stdout is not None
        head = f'{{"schema":"jobd.items/1","id":{deferred.id},"items":[0'
        begun = process.stdout.read(len(head))
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=20)
    value = json.loads(begun + rest)
    assert (process.returncode, told, value["items"]) == (130, "", [0])
    assert value["cut_short"]["error"] == "interrupted"
    (tmp_path / "1").touch()
    assert list(deferred) == [0, 1]


def test_a_closed_pipe_closes_the_generator(
    shared: DaemonUnderTest, client: Client, trace: Trace
) -> None:
    """As ``| head -3`` does."""
    deferred = client.submit("streams:count", ENDLESS, trace.path)
    with follow(shared, deferred.id) as process:
        assert read_lines(process, 3) == ["0", "1", "2"]
        assert process.stdout is not None
        process.stdout.close()
        process.wait(20)
    with pytest.raises(JobCancelled, match=GONE):
        deferred.result(20)
    assert trace.is_closed()
