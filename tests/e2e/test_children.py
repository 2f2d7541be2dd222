"""Processes that jobs start: each ends as itself and with its job, and may wait for other jobs.

All of it with a single worker: whoever waits lends its slot, and the next job meets what the one
before has left.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually, is_alive

from jobd.client import Client
from jobd.model.errors import JobCrashed
from jobd.model.job import JobInfo
from jobd.model.selector import one
from jobd.model.states import State

SHM = "/dev/shm"  # noqa: S108  # where semaphores are


@pytest.fixture(scope="module")
def shared() -> Iterator[DaemonUnderTest]:
    """Return a daemon with one worker."""
    with DaemonUnderTest(pool__workers=1) as daemon:
        yield daemon.write_jobs().start()


@pytest.fixture(scope="module")
def client(shared: DaemonUnderTest) -> Client:
    """Return its client."""
    return shared.client()


def only(client: Client, number: int) -> JobInfo:
    """Return one job with all its details."""
    (info,) = client.find(one(number))
    return info


def output(client: Client, number: int) -> str:
    """Return what a job has written."""
    return b"".join(client.logs(number)).decode()


# --- a forked child that comes out of the job's function

WAYS = [
    ("return", 0, ""),
    ("exit", 0, ""),
    ("exit 7", 7, ""),
    ("exit words", 1, "why it ends"),
    ("raise", 1, "ValueError: in the child"),
    ("interrupt", -2, "KeyboardInterrupt"),
]


@pytest.mark.parametrize(("how", "code", "words"), WAYS)
@pytest.mark.parametrize("function", ["come_back", "come_back_from_a_coroutine"])
def test_a_forked_child_ends_where_the_function_does(
    client: Client, function: str, how: str, code: int, words: str
) -> None:
    """With an exit code of its own; what it has written is there, once, and the worker is the parent."""
    before = client.submit("children:worker").result(20)
    job = client.submit(f"children:{function}", how)
    assert job.result(20) == code
    assert output(client, job.id).startswith("the child was here")
    assert output(client, job.id).count("the child was here") == 1
    assert words in output(client, job.id)
    assert client.submit("children:worker").result(20) == before


def test_a_child_that_c_code_has_forked_ends_there_too(client: Client) -> None:
    """Python was not told of it."""
    before = client.submit("children:worker").result(20)
    assert client.submit("children:come_back_of_c").result(20) == 0
    assert client.submit("children:worker").result(20) == before


@pytest.mark.parametrize(
    ("how", "code"), [("yield", 0), ("end", 0), ("return", "child"), ("exit 7", 7), ("raise", 1)]
)
@pytest.mark.parametrize("kind", ["a_generator", "an_async_generator"])
def test_a_forked_child_sends_no_item_of_its_parents_stream(
    client: Client, kind: str, how: str, code: object
) -> None:
    """It ends where it comes out of the generator, at a yield too."""
    job = client.submit(f"children:come_back_from_{kind}", how)
    expected = 0 if code == "child" else code  # it yields what its function has returned
    assert list(job) == ["before", expected]
    assert client.submit("math:factorial", 4).result(20) == 24


@pytest.mark.parametrize("how", ["return", "raise"])
def test_a_forked_child_that_comes_back_late_takes_no_other_job(client: Client, how: str) -> None:
    """Its parent has ended its job before: the child does not become a second worker."""
    pid = client.submit("children:come_back_later", how).result(20)
    for _ in range(20):
        assert client.submit("children:worker").result(20) > 0
    eventually(lambda: not is_alive(pid) or len(client.status().workers) == 1)
    jobs = [client.submit("children:worker") for _ in range(20)]
    assert len({job.result(20) for job in jobs}) == 1
    assert all(only(client, job.id).attempt == 1 for job in jobs)


def test_a_forked_child_waits_for_its_threads(client: Client) -> None:
    """As a script does that has come to its end."""
    job = client.submit("children:come_back", "thread")
    assert job.result(20) == 0
    assert "and its thread too" in output(client, job.id)


# --- signals


def test_a_program_of_a_job_can_be_interrupted(client: Client) -> None:
    """SIGINT does in it what it does by default."""
    assert client.submit("children:interrupt").result(20) == -2


def test_a_job_can_be_interrupted(client: Client) -> None:
    """SIGINT raises KeyboardInterrupt in it, and does nothing to a worker that idles."""
    assert client.submit("children:interrupt_itself").result(20) == "interrupted"
    pid = client.submit("children:worker").result(20)
    os.kill(pid, 2)
    assert client.submit("children:worker").result(20) == pid


@pytest.mark.parametrize("kind", ["fork", "spawn", "forkserver"])
def test_a_process_of_multiprocessing_can_be_terminated(client: Client, kind: str) -> None:
    """It dies of SIGTERM, and says nothing."""
    job = client.submit("children:terminate", kind)
    assert job.result(20) == -15
    assert output(client, job.id) == ""


OF_THE_C_LIBRARY = 0b11 << 31
"""Signals 32 and 33 are glibc's own; what its posix_spawn starts, as make does, has the first one ignored."""


def test_a_program_of_a_job_ignores_and_blocks_no_signal(client: Client) -> None:
    """Whatever the daemon itself was started with."""
    for line in client.submit("children:ignored_by_a_program").result(20).splitlines():
        assert int(line.split()[1], 16) & ~OF_THE_C_LIBRARY == 0, line


# --- libraries that keep processes across calls


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("function", "args", "value", "library"),
    [
        ("joblib_parallel", (5,), 30, "joblib"),
        ("grid_search", (), 2, "sklearn"),
        ("fork_server", (), 3, ""),
        ("executor_of_the_module", (), 4, ""),
        ("pool_of_the_module", (), 5, ""),
    ],
)
def test_a_library_that_keeps_processes_gives_right_values_each_time(
    client: Client, function: str, args: tuple[int, ...], value: int, library: str
) -> None:
    """The processes in whom it believes are there as long as it is."""
    if library:
        pytest.importorskip(library, reason=f"{library} is not installed")
    jobs = [client.submit(f"children:{function}", *args) for _ in range(3)]
    assert [job.result(200) for job in jobs] == [value] * 3  # each imports its library anew
    for job in jobs:
        info = only(client, job.id)
        assert info.attempt == 1
        assert any("running: its worker was replaced" in note for note in info.notes)
        assert output(client, job.id) == ""


def test_what_resource_trackers_know_of_is_cleared_away(client: Client) -> None:
    """They get the time for it after the job; what they have to say of it is in nobody's log."""
    pytest.importorskip("joblib", reason="loky's tracker is part of joblib")
    job = client.submit("children:leave_semaphores")
    names = {*job.result(30)}
    assert len(names) == 18
    following = client.submit("children:worker")
    following.result(20)
    eventually(lambda: names.isdisjoint(os.listdir(SHM)))
    assert output(client, job.id) == output(client, following.id) == ""


@pytest.mark.parametrize("by_signal", [False, True])
def test_resource_trackers_clear_away_what_a_dead_worker_has_left(
    client: Client, tmp_path: Path, *, by_signal: bool
) -> None:
    """They outlive it for a moment, although they are of its process group."""
    pytest.importorskip("joblib", reason="loky's tracker is part of joblib")
    path = tmp_path / "names"
    once = client.options(max_crashes=0)
    job = once.submit("children:leave_semaphores_and_die", str(path), by_signal=by_signal)
    assert isinstance(job.exception(30), JobCrashed)
    names = {*path.read_text(encoding="ascii").split()}
    assert len(names) == 18
    eventually(lambda: names.isdisjoint(os.listdir(SHM)))


@pytest.mark.parametrize("count", [1, 3])
def test_a_job_that_leaves_processes_is_told_and_its_worker_replaced(
    client: Client, count: int
) -> None:
    """They end after the job, and their worker runs no other one."""
    before = client.submit("children:worker").result(20)
    job = client.submit("children:leave_sleeping", count)
    assert job.id  # its function has been checked: none of the others goes first
    following = [client.submit("children:worker") for _ in range(5)]
    pids = job.result(20)
    assert before not in [other.result(20) for other in following]
    eventually(lambda: not any(is_alive(pid) for pid in pids))
    processes = "1 process" if count == 1 else f"{count} processes"
    assert only(client, job.id).notes == (f"it left {processes} running: its worker was replaced",)
    assert [only(client, other.id).attempt for other in following] == [1] * 5


def test_a_detached_process_that_is_deaf_ends_after_its_job(client: Client) -> None:
    """The outcome does not wait for it; it is killed when it has not ended in time."""
    pid = client.submit("children:leave_detached").result(20)
    eventually(lambda: not is_alive(pid))


def test_a_process_that_is_about_to_end_costs_no_worker(client: Client) -> None:
    """It was killed, and nobody has waited for it."""
    before = client.submit("children:worker").result(20)
    job = client.submit("children:leave_dying")
    assert job.result(20) == before
    assert client.submit("children:worker").result(20) == before
    assert only(client, job.id).notes == ()


def test_a_cancelled_job_has_its_trackers_clear_away_too(client: Client, tmp_path: Path) -> None:
    """SIGTERM says nothing to them: they wait for the worker to hang up."""
    names = tmp_path / "names"
    job = client.options(kill_grace=30).submit("children:leave_semaphores_and_wait", str(names))
    eventually(names.exists)
    client.cancel(one(job.id))
    assert client.wait([job.id], 20)[job.id].state is State.CANCELLED
    kept = {*names.read_text(encoding="ascii").split()}
    assert len(kept) == 18
    eventually(lambda: kept.isdisjoint(os.listdir(SHM)))


# --- waiting in a child lends the slot


def test_a_command_that_waits_for_a_job_lends_its_slot(shared: DaemonUnderTest) -> None:
    """The command is a job, and the only worker runs it."""
    command = (sys.executable, "-P", "-m", "jobd", "submit", "--wait", "math:factorial", "4")
    done = shared.cli("run", "--wait", "--", *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "24"


KINDS = ["subprocess", "executor", "os.fork", "fork", "spawn", "forkserver"]


@pytest.mark.parametrize("how", KINDS)
def test_a_child_that_waits_for_a_job_lends_the_slot_of_its_own(client: Client, how: str) -> None:
    """It proves by what it has inherited whose child it is."""
    assert client.submit("children:in_child", how, "factorial").result(30) == 24
    eventually(lambda: [worker.state for worker in client.status().workers] == ["idle"])


@pytest.mark.parametrize("name", ["factorial_async", "factorial_by_executor"])
@pytest.mark.parametrize("how", ["subprocess", "fork"])
def test_so_does_one_that_waits_in_another_way(client: Client, how: str, name: str) -> None:
    """In a coroutine, or for a future."""
    assert client.submit("children:in_child", how, name).result(30) == 24


@pytest.mark.parametrize("how", ["subprocess", "fork"])
def test_a_child_knows_whose_it_is(client: Client, how: str) -> None:
    """It is part of the job."""
    job = client.submit("children:who_am_i", how)
    assert job.result(20) == [job.id, job.id]


def test_a_child_that_waits_for_its_own_job_is_told(client: Client) -> None:
    """That can never end."""
    said = client.submit("children:wait_for_itself_in_a_child").result(20)
    assert "waits for its own result" in said


def test_a_wait_ends_with_the_child_that_waits(client: Client, tmp_path: Path) -> None:
    """It was killed, so its job has its slot again: nothing else is started."""
    gate = tmp_path / "gate"
    job = client.submit("children:wait_in_a_child_that_is_killed", str(gate))

    def states() -> list[str]:
        return sorted(worker.state for worker in client.status().workers)

    eventually(lambda: "waiting" in states())
    Path(f"{gate}.waits").touch()
    eventually(Path(f"{gate}.killed").exists)
    eventually(lambda: "waiting" not in states())
    began = time.monotonic()
    gate.touch()
    assert job.result(20) == "went on"
    assert time.monotonic() - began < 20
    client.cancel(one(job.id + 1))
