"""How long and how much: time limits, causes of death, what an attempt may use and has used."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually, is_alive, lines

from jobd.client import Client
from jobd.model.errors import JobFailed, JobTimedOut
from jobd.model.job import JobInfo
from jobd.model.selector import one
from jobd.model.states import State

MIB = 1024 * 1024


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
    (info,) = client.find(one(number))
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


def test_a_command_has_its_grace_to_clean_up(client: Client, mark: Path) -> None:
    """It gets the SIGTERM itself, and is waited for."""
    job = client.options(kill_grace=600).submit("limits:run_polite_command", str(mark))
    eventually(lambda: lines(mark) == ["began"])
    client.cancel(one(job.id))
    assert client.wait([job.id], 20)[job.id].state is State.CANCELLED
    assert lines(mark) == ["began", "ended"]


def test_a_command_whose_worker_is_sent_a_sigterm_gets_one_too(client: Client, mark: Path) -> None:
    """By whoever it was, and to that process alone."""
    job = client.submit("limits:run_polite_command", str(mark))
    eventually(lambda: lines(mark) == ["began"])
    worker = info_of(client, job.id).pid
    stat = Path(f"/proc/{worker}/stat")
    # It sleeps once it waits for the command; until then it is still about to start it.
    eventually(lambda: stat.read_text("utf-8").rpartition(")")[2].split()[0] == "S")
    os.kill(worker, signal.SIGTERM)
    eventually(lambda: lines(mark)[:2] == ["began", "ended"])
    client.cancel(one(job.id))
    client.wait([job.id], 20)


def test_a_job_may_end_a_process_that_it_has_forked(client: Client, mark: Path) -> None:
    """It has the worker's handler of SIGTERM, and is not the worker."""
    assert client.submit("limits:end_a_forked_helper", str(mark)).result(20)


def test_strays_are_told_and_have_their_grace_too(client: Client, mark: Path) -> None:
    """Forked twice and in sessions of their own: they are the worker's all the same."""
    job = client.options(kill_grace=600).submit("limits:leave_polite_ones", str(mark), 3)
    eventually(lambda: lines(mark) == ["began"] * 3)
    client.cancel(one(job.id))
    assert client.wait([job.id], 20)[job.id].state is State.CANCELLED
    assert lines(mark) == ["began"] * 3 + ["ended"] * 3


def test_who_ignores_the_term_is_not_waited_for(client: Client, mark: Path) -> None:
    """Else every job that uses multiprocessing would take all its grace to be stopped."""
    job = client.options(kill_grace=600).submit("limits:leave_a_deaf_one", str(mark))
    eventually(lambda: lines(mark))
    client.cancel(one(job.id))
    assert client.wait([job.id], 20)[job.id].state is State.CANCELLED
    assert not is_alive(int(lines(mark)[0]))


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
        client = daemon.start().client()
        assert client.wait([job.id], 20)[job.id].state is State.TIMED_OUT
        # The job was marked after its start, and so less than its limit is left.
        assert time.monotonic() - began >= 3


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


def test_flags_of_start_say_when_workers_are_replaced() -> None:
    """After so many jobs; a size that nobody can read is refused with the flag's name."""
    with DaemonUnderTest() as daemon:
        bad = daemon.cli("start", "--max-worker-rss", "lots")
        assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)
        assert "--max-worker-rss: 'lots' is not a size" in bad.stderr
        flags = ["--workers", "1", "--max-jobs-per-worker", "2", "--max-worker-rss", "2G"]
        assert daemon.cli("start", *flags).returncode == 0
        try:
            pids = [daemon.cli("submit", "os:getpid", "--wait").stdout for _ in range(3)]
        finally:
            daemon.cli("stop", "--now")
    assert pids[0] == pids[1] != pids[2]


# -- causes of death, and what was used --


def test_a_crash_shows_its_stack_its_last_lines_and_what_it_used(shared: DaemonUnderTest) -> None:
    """The stack is the error's traceback; the output has its last 20 lines; in show and in JSON."""
    done = shared.cli("submit", "--wait", "limits:chatter_and_die", "50")
    assert done.returncode == 7
    assert "crashed (SIGSEGV)" in done.stderr
    shown = json.loads(shared.cli("show", "last", "--json").stdout)
    assert shown["error"]["traceback"].startswith("Fatal Python error: Segmentation fault")
    assert "in chatter_and_die" in shown["error"]["traceback"]
    tail = shown["output_tail"].splitlines()
    assert len(tail) == 20
    assert "line 49" in tail
    assert 0.2 <= shown["usage"]["cpu_s"] < 20
    assert shown["usage"]["max_rss_bytes"] > 5 * MIB
    text = shared.cli("show", "last").stdout
    assert "of CPU" in text
    assert "the last lines of attempt 1:\n" in text


def test_an_attempt_is_measured_by_itself(client: Client) -> None:
    """What another job of the same worker took does not count."""
    large, small = [client.submit("limits:eat", size) for size in (200, 1)]
    assert (large.result(20), small.result(20)) == (200 * MIB, MIB)
    infos = [info_of(client, job.id) for job in (large, small)]
    assert infos[0].pid == infos[1].pid
    peaks = [info.usage.max_rss_bytes if info.usage else 0 for info in infos]
    assert peaks[0] > 200 * MIB
    assert peaks[1] < 150 * MIB


def test_each_attempt_that_is_over_keeps_what_it_used_and_wrote() -> None:
    """Also one that was not the last."""
    with DaemonUnderTest(pool__workers=1, jobs__max_crashes=1) as daemon:
        client = daemon.write_jobs().start().client()
        job = client.submit("limits:chatter_and_die", 2)
        client.wait([job.id], 20)
        (past,) = info_of(client, job.id).earlier
        assert past.usage is not None
        assert past.usage.cpu_us >= 200_000
        assert past.tail.startswith("line 0\nline 1\nFatal Python error")


def test_a_kill_for_want_of_memory_is_named_and_another_is_not(
    client: Client, memory_group: Path
) -> None:
    """The kernel's own killer, in a cgroup with 64 MiB; a SIGKILL of somebody else is only that."""
    pid = client.submit("os:getpid").result(20)
    (memory_group / "cgroup.procs").write_text(str(pid), encoding="ascii")
    hungry = client.submit("limits:eat", 500)
    hungry.exception(30)
    assert info_of(client, hungry.id).cause == "SIGKILL, out of memory"
    shot = client.submit("faults:kill_self", 9)
    shot.exception(20)
    assert info_of(client, shot.id).cause == "SIGKILL"


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """Return a memory cgroup of 64 MiB."""
    group = Path(f"/sys/fs/cgroup/memory/jobd-test-{time.monotonic_ns()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(64 * MIB), encoding="ascii")
        os.close(os.open("/dev/kmsg", os.O_RDONLY))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield group
    eventually(lambda: not (group / "cgroup.procs").read_text(encoding="ascii"))
    group.rmdir()


# -- what a job may use --


def test_a_job_runs_under_its_limits_and_the_next_one_does_not(shared: DaemonUnderTest) -> None:
    """On another worker; show says by what each limit is enforced."""
    client = shared.client()
    limited = client.options(nice=9, cpus=1, mem="1G", nproc=50)
    job = limited.submit("limits:surroundings")
    pid, niceness, cores, memory = job.result(20)
    after = client.submit("limits:surroundings").result(20)
    assert (niceness, cores, memory) == (9, 1, 1024 * MIB)
    assert after[0] != pid
    assert after[1:] == [os.getpriority(os.PRIO_PROCESS, 0), len(os.sched_getaffinity(0)), -1]
    shown = json.loads(shared.cli("show", str(job.id), "--json").stdout)
    assert shown["enforced"].keys() == {"mem", "cpus", "nproc", "nice"}
    assert "by: RLIMIT_DATA" in shared.cli("show", str(job.id)).stdout


def test_a_job_that_wants_more_memory_than_it_may_have_fails(client: Client) -> None:
    """By a MemoryError; its worker lives to tell it."""
    with pytest.raises(JobFailed, match="MemoryError"):
        client.options(mem="200M").submit("limits:eat", 400).result(20)
    assert client.options(mem="400M").submit("limits:eat", 200).result(20) == 200 * MIB


@pytest.mark.parametrize(
    ("function", "cause"), [("abort", "SIGABRT"), ("leave_at_once", "exit code 1")]
)
def test_a_death_under_a_memory_limit_says_that_there_was_one(
    client: Client, function: str, cause: str
) -> None:
    """Libraries die of it in many ways, none of which names it."""
    limited = client.options(mem="300M").submit(f"limits:{function}")
    limited.exception(20)
    assert info_of(client, limited.id).cause == f"{cause}, it had a memory limit of 300M"
    free = client.submit(f"limits:{function}")
    free.exception(20)
    assert info_of(client, free.id).cause == cause


# -- workers that are replaced --


def test_a_worker_is_replaced_after_as_many_jobs_as_it_may_run() -> None:
    """Without a loss, a wait, or a complaint."""
    with DaemonUnderTest(pool__workers=2, pool__max_jobs_per_worker=3) as daemon:
        client = daemon.start().client()
        pids = Counter(job.result(20) for job in client.submit_many("os:getpid", [()] * 40))
        assert max(pids.values()) <= 3
        assert client.status().trouble == []


def test_a_worker_that_has_grown_too_large_is_replaced_after_its_job() -> None:
    """Jobs that leak are served by ever new workers; none of them is lost."""
    with DaemonUnderTest(pool__workers=1, pool__max_worker_rss=150 * MIB) as daemon:
        client = daemon.write_jobs().start().client()
        large = client.submit("limits:leak", 200).result(20)
        eventually(lambda: client.submit("os:getpid").result(20) != large)
        assert "it is replaced" in daemon.log
