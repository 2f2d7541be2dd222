"""What jobs do to a worker, and what becomes of them, their output and their neighbours.

Most tests share one daemon with two workers: while a job goes wrong on one of
them, a neighbour runs on the other, and afterwards both must serve again.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import DaemonUnderTest, eventually, is_alive, lines

from jobd.client import Client, Deferred
from jobd.model.errors import BadFunction, JobCancelled, JobCrashed, JobFailed, UsageError
from jobd.model.job import JobInfo
from jobd.model.selector import one
from jobd.model.states import State
from jobd.pool import linux

MIB = 1024 * 1024
MAX_OUTPUT = MIB
MAX_PAYLOAD = MIB
CHECK_S = 1.0

USER_MODULES = {
    "config": "def load():\n    return 'my config'\n",
    "cli": "def main():\n    return 'my cli'\n",
    "tests": "def run():\n    return 'my tests'\n",
    "jobd_like": "import jobd\ndef where():\n    return jobd.__file__\n",
    "exits": "import sys\nsys.exit('not without my config')\n",
    "ends": "import os\nos._exit(0)\n",
    "broken": "def f(:\n    pass\n",
    "raises": "raise RuntimeError('at import')\n",
    "forks": "import os\nos.fork()\ndef f():\n    return 'once'\n",
    "needy": "import no_such_library\n",
}


@pytest.fixture(scope="module")
def shared() -> Iterator[DaemonUnderTest]:
    """Return a daemon that all tests of this module share, with small limits."""
    with DaemonUnderTest(
        modules=USER_MODULES,
        limits__max_output_bytes=MAX_OUTPUT,
        limits__max_payload_bytes=MAX_PAYLOAD,
        limits__max_blob_bytes=MAX_PAYLOAD,
        pool__kill_grace_s=0.3,
    ) as daemon:
        yield daemon.write_jobs().start()


@pytest.fixture(scope="module")
def client(shared: DaemonUnderTest) -> Client:
    """Return a client of the shared daemon, both of whose workers are there."""
    client = shared.client()
    both_work(client)
    return client


def only(client: Client, number: int) -> JobInfo:
    """Return one job with all its details."""
    (info,) = client.find(one(number))
    return info


def output(client: Client, number: int) -> bytes:
    """Return all that a job's latest attempt wrote."""
    return b"".join(client.logs(number))


def both_work(client: Client) -> None:
    """Wait until there are two idle workers, and a job has run."""
    eventually(lambda: [w.state for w in client.status().workers] == ["idle", "idle"])
    assert client.submit("faults:surroundings").result(20)["pid"]


@contextmanager
def neighbour(client: Client, directory: Path) -> Iterator[None]:
    """Run a job beside the block, and make sure that it came to no harm."""
    mark, gate = directory / "neighbour", directory / "neighbour.gate"
    job = client.submit("faults:wait_at", str(mark), str(gate))
    eventually(lambda: lines(mark))
    try:
        yield
        assert not job.done()
    finally:
        gate.touch()
    assert job.result(20) == "through"
    assert len(lines(mark)) == 1, "the neighbour ran more than once"
    both_work(client)


# --- a function ends, and its worker lives


@pytest.mark.parametrize(
    ("function", "arguments", "kind", "message"),
    [
        ("work:fail", ["wrong"], "ValueError", "wrong"),
        ("faults:leave", [3], "SystemExit", "3"),
        ("faults:leave", ["so long"], "SystemExit", "so long"),
        ("faults:interrupt", [], "KeyboardInterrupt", ""),
        ("faults:close_generator", [], "GeneratorExit", ""),
        ("faults:raise_odd", [], "faults.Odd", "odd"),
        ("faults:raise_locked", [], "ValueError", "has a lock"),
        ("faults:raise_mute", [], "faults.Mute", "its __str__ raised RuntimeError"),
        ("faults:raise_last", [], "faults.Last", "last"),
        ("faults:recurse", [], "RecursionError", "maximum recursion depth"),
        (
            "faults:give_lock",
            [],
            "",
            "its result cannot travel: TypeError: cannot pickle '_thread.lock",
        ),
        ("faults:give_file", [], "", "cannot pickle"),
        ("faults:give_generators", [], "", "cannot pickle 'generator' object"),
        ("faults:give_deep", [100_000], "", "recursion"),
        ("faults:give_bytes", [MAX_PAYLOAD + 1], "", f"over the limit of {MAX_PAYLOAD}"),
        ("faults:give_text", [MAX_PAYLOAD], "", "limits.max_blob_bytes"),
    ],
)
def test_a_job_that_raises_fails_and_its_worker_goes_on(
    client: Client, function: str, arguments: list[object], kind: str, message: str
) -> None:
    """What was raised is kept in type and text, the job runs once, and no worker is replaced."""
    both_work(client)
    before = {worker.pid for worker in client.status().workers}
    job = client.submit(function, *arguments)
    with pytest.raises(JobFailed) as failed:
        job.result(20)
    assert failed.value.type.endswith(kind)
    assert message in failed.value.message
    assert f"job {job.id} failed" in failed.value.message
    info = only(client, job.id)
    assert (info.state, info.attempt, info.crashes) == (State.FAILED, 1, 0)
    assert {worker.pid for worker in client.status().workers} == before


def test_a_traceback_shows_the_users_frames_only(client: Client) -> None:
    """The frames of the worker, which lead to the function, are left out."""
    with pytest.raises(JobFailed) as failed:
        client.submit("work:fail", "wrong").result(20)
    assert "raise ValueError(text)" in failed.value.traceback
    assert "jobd/pool" not in failed.value.traceback


# --- a function ends its worker


@pytest.mark.parametrize(
    ("function", "arguments", "cause", "last_words"),
    [
        ("faults:end_process", [3], "exit code 3", ""),
        ("faults:end_process", [0], "exit code 0", ""),
        ("faults:write_and_end", ["last words"], "exit code 3", "last words"),
        ("faults:segfault", [], "SIGSEGV", "Fatal Python error: Segmentation fault"),
        ("faults:abort", [], "SIGABRT", "Fatal Python error: Aborted"),
        ("faults:kill_self", [signal.SIGKILL], "SIGKILL", ""),
        ("faults:kill_self", [signal.SIGXCPU], "SIGXCPU", ""),
        ("faults:close_files", [], "exit code 70", ""),
    ],
)
def test_a_job_that_ends_its_worker_runs_once_more_and_then_is_crashed(
    client: Client,
    tmp_path: Path,
    function: str,
    arguments: list[object],
    cause: str,
    last_words: str,
) -> None:
    """The cause of death is named, with the last lines of output, and nobody else is hit."""
    with neighbour(client, tmp_path):
        job = client.submit(function, *arguments)
        with pytest.raises(JobCrashed) as crashed:
            job.result(20)
        assert re.search(rf"job {job.id} crashed \({cause}\)", crashed.value.message)
        assert last_words in crashed.value.traceback
        info = only(client, job.id)
        assert (info.state, info.attempt, info.crashes) == (State.CRASHED, 2, 2)
        assert [(a.number, a.state) for a in info.earlier] == [(1, State.CRASHED)]
        assert re.fullmatch(cause, info.cause)
        assert re.fullmatch(cause, info.earlier[0].cause)


def test_a_job_that_takes_the_sockets_from_its_worker_has_returned_all_the_same(
    client: Client, tmp_path: Path
) -> None:
    """The worker cannot send what came of it, and ends; the daemon finds it."""
    with neighbour(client, tmp_path):
        job = client.submit("faults:spoil_files")
        assert job.result(20) is None
        info = only(client, job.id)
        assert (info.state, info.attempt, info.crashes) == (State.SUCCEEDED, 1, 0)


def test_the_stack_of_a_segfault_names_the_users_function(client: Client) -> None:
    """The faulthandler's stack is among the last lines, down to the line of the user."""
    with pytest.raises(JobCrashed) as crashed:
        client.submit("faults:segfault").result(20)
    assert re.search(r'faults\.py", line \d+ in segfault', crashed.value.traceback)


def test_a_job_that_crashes_once_succeeds_in_its_second_attempt(client: Client, mark: Path) -> None:
    """The crash budget is one re-run; each attempt keeps its own output."""
    job = client.submit("faults:crash_while", str(mark), "attempt")
    assert job.result(20) == "attempt"
    info = only(client, job.id)
    assert (info.state, info.attempt, info.crashes) == (State.SUCCEEDED, 2, 1)
    assert b"".join(client.logs(job.id, attempt=1)) == b"attempt 1\n"
    assert output(client, job.id) == b"attempt 2\n"


# --- a job is stopped


@pytest.mark.parametrize("function", ["ignore_sigterm", "catch_everything"])
def test_a_job_that_will_not_stop_is_killed_after_the_grace(
    client: Client, tmp_path: Path, mark: Path, gate: Path, function: str
) -> None:
    """It ends as cancelled, its worker is replaced, and nobody else is hit."""
    with neighbour(client, tmp_path):
        job = client.submit(f"faults:{function}", str(mark), str(gate))
        (pid,) = map(int, eventually(lambda: lines(mark)))
        assert client.cancel(one(job.id), "enough") == [(job.id, "stopping")]
        with pytest.raises(JobCancelled, match="enough"):
            job.result(20)
        eventually(lambda: not is_alive(pid))
        info = only(client, job.id)
        assert (info.state, info.attempt, info.crashes) == (State.CANCELLED, 1, 0)


@pytest.mark.parametrize("function", ["clean_up", "block_signals"])
def test_a_job_that_can_be_stopped_runs_its_finally_blocks(
    client: Client, mark: Path, gate: Path, function: str
) -> None:
    """SIGTERM raises in the job; what it does on its way out is not cut off."""
    job = client.submit(f"faults:{function}", str(mark), str(gate))
    eventually(lambda: lines(mark))
    client.cancel(one(job.id))
    with pytest.raises(JobCancelled):
        job.result(20)
    if function == "clean_up":
        assert lines(mark)[1:] == ["cleaned up"]
    both_work(client)


# --- processes that jobs start


def test_a_process_that_escapes_from_its_job_dies_with_it(client: Client) -> None:
    """Double fork, a session of its own and deaf to SIGTERM: it ends soon after the job has."""
    pid = client.submit("faults:double_fork").result(20)
    eventually(lambda: not is_alive(pid))


@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_a_process_that_escapes_dies_when_its_job_is_ended_by_force(
    client: Client, mark: Path, gate: Path, how: str
) -> None:
    """The worker is gone, so the zygote above it ends what it left."""
    job = client.submit("faults:stray_and_wait", str(mark), str(gate))
    (stray,) = map(int, eventually(lambda: lines(mark)))
    if how == "cancelled":
        client.cancel(one(job.id))
        with pytest.raises(JobCancelled):
            job.result(20)
    else:
        os.kill(eventually(lambda: only(client, job.id).pid), signal.SIGKILL)
        eventually(lambda: len(lines(mark)) == 2)  # the second attempt
        gate.touch()
        job.result(20)
    eventually(lambda: not any(is_alive(int(pid)) for pid in lines(mark)))
    assert not is_alive(stray)


def test_a_process_that_escapes_dies_when_its_worker_ends_itself(
    client: Client, mark: Path
) -> None:
    """Both attempts leave one; none lives on."""
    with pytest.raises(JobCrashed):
        client.submit("faults:stray_and_end", str(mark)).result(20)
    assert len(lines(mark)) == 2
    eventually(lambda: not any(is_alive(int(pid)) for pid in lines(mark)))


def test_a_thread_that_a_job_has_left_ends_before_it_forks(
    client: Client, mark: Path, gate: Path
) -> None:
    """With its worker; so no process of it is left among those of later jobs."""
    job = client.submit("faults:leave_a_thread_that_forks", str(mark), str(gate))
    job.result(20)
    (info,) = client.find(one(job.id))
    eventually(lambda: not is_alive(info.pid))
    gate.touch()
    both_work(client)
    assert lines(mark) == []


def test_five_hundred_children_that_nobody_waits_for_leave_no_zombie(client: Client) -> None:
    """The worker reaps what its job has forked before it takes the next one."""
    both_work(client)
    before = {worker.pid for worker in client.status().workers}
    client.submit("faults:fork_many", 500).result(20)
    assert {worker.pid for worker in client.status().workers} == before
    assert not [child for pid in before for child in linux.children(pid)]


# --- output


def test_output_of_python_of_c_and_of_children_is_kept_in_order(client: Client) -> None:
    """What is captured is what was written to fds 1 and 2, whoever wrote it."""
    job = client.submit("faults:write_everywhere")
    job.result(20)
    assert output(client, job.id) == b"python\nc\nchild\ngrandchild\n"


def test_output_that_is_no_text_is_kept_byte_for_byte(client: Client) -> None:
    """NULs, escapes and what is no UTF-8 stay as they are; a lone surrogate becomes its escape."""
    odd = bytes(range(256)) + b"\x1b]0;title\x07\r" + b"\xff\xfe"
    job = client.submit("faults:write_odd", odd)
    job.result(20)
    assert output(client, job.id) == odd + b"\\ud800"


def test_jobs_of_one_worker_have_each_their_own_output(client: Client) -> None:
    """A line without its end is not left for the next job."""
    jobs = [client.submit("faults:say", f"{n},", end="") for n in range(50)]
    for number, job in enumerate(jobs):
        job.result(20)
        assert output(client, job.id) == f"{number},".encode()


@pytest.mark.parametrize("how", ["none", "closed", "detached", "stubborn"])
def test_a_job_that_spoils_stdout_spoils_it_for_itself_only(client: Client, how: str) -> None:
    """The next job on the same worker prints as ever, and what was printed before is kept."""
    both_work(client)
    before = {worker.pid for worker in client.status().workers}
    for _ in range(4):  # so that each worker has had one, and runs others after it
        spoiler = client.submit("faults:replace_stdout", how)
        spoiler.result(20)
        assert output(client, spoiler.id) == b"kept"
        jobs = [client.submit("faults:say", "hello") for _ in range(4)]
        for job in jobs:
            job.result(20)
            assert output(client, job.id) == b"hello\n"
    assert {worker.pid for worker in client.status().workers} == before


def test_a_job_that_turns_its_output_off_does_so_for_itself_only(client: Client) -> None:
    """Both descriptors on /dev/null, as daemons do: what was written before is kept."""
    both_work(client)
    for _ in range(4):
        silent = client.submit("faults:go_silent")
        silent.result(20)
        assert output(client, silent.id) == b"before\n"
        jobs = [client.submit("faults:say", "hello") for _ in range(4)]
        for job in jobs:
            job.result(20)
            assert output(client, job.id) == b"hello\n"


def disk_bytes(directory: Path) -> int:
    """Return what the files of a directory take on the disk."""
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(directory))


def test_a_hundred_megabytes_of_output_are_cut_to_the_limit(
    client: Client, shared: DaemonUnderTest
) -> None:
    """The first part is kept, the reader is told of the rest, and neither disk nor daemon swells."""
    rss = linux.rss_bytes(shared.pid)
    before = disk_bytes(shared.state_dir / "logs")
    job = client.submit("faults:print_much", 100 * MIB)
    job.result(30)
    text = output(client, job.id)
    note = b"\n[jobd: truncated, %d more bytes were not kept]\n" % (99 * MIB)
    assert text == (b"." * 1023 + b"\n") * 1024 + note
    assert only(client, job.id).log_bytes == MAX_OUTPUT
    assert disk_bytes(shared.state_dir / "logs") - before < 2 * MAX_OUTPUT
    assert linux.rss_bytes(shared.pid) - rss < 16 * MIB


def test_the_output_of_a_job_that_runs_is_bounded_too(
    client: Client, shared: DaemonUnderTest, mark: Path, gate: Path
) -> None:
    """While it goes on, its file is cut on the disk, and a reader gets the part that will be kept."""
    before = disk_bytes(shared.state_dir / "logs")
    job = client.submit("faults:print_much_and_wait", 40 * MIB, str(mark), str(gate))
    eventually(lambda: lines(mark))
    eventually(lambda: disk_bytes(shared.state_dir / "logs") - before < 3 * MAX_OUTPUT)
    assert output(client, job.id) == (b"." * 1023 + b"\n") * 1024
    gate.touch()
    assert b"truncated, %d more" % (39 * MIB) in b"".join(client.logs(job.id, follow=True))
    assert job.result(20) is None


def test_the_output_of_a_job_that_crashes_is_cut_to_the_limit_too(
    client: Client, shared: DaemonUnderTest
) -> None:
    """Its worker cannot do it any more; the last lines are told all the same."""
    before = disk_bytes(shared.state_dir / "logs")
    job = client.submit("faults:print_much_and_end", 20 * MIB)
    with pytest.raises(JobCrashed) as crashed:
        job.result(20)
    assert crashed.value.traceback.endswith("the last line")
    assert "\0" not in crashed.value.traceback
    assert len(output(client, job.id)) < MAX_OUTPUT + 100
    assert b"more bytes were not kept" in output(client, job.id)
    assert only(client, job.id).log_bytes == MAX_OUTPUT
    assert disk_bytes(shared.state_dir / "logs") - before < 3 * MAX_OUTPUT  # of two attempts


# --- what jobs find


def test_a_job_finds_its_own_directory_and_umask_again(
    client: Client, shared: DaemonUnderTest, tmp_path: Path
) -> None:
    """What the job before it has changed is put back."""
    umask = os.umask(0o022)
    os.umask(umask)
    for _ in range(4):
        client.submit("faults:move", str(tmp_path)).result(20)
        found = [h.result(20) for h in client.submit_many("faults:surroundings", [()] * 4)]
        assert {job["cwd"] for job in found} == {str(shared.work_dir)}
        assert {job["umask"] for job in found} == {umask}


def test_a_job_finds_its_own_signal_handler_again(client: Client, mark: Path, gate: Path) -> None:
    """A job that has switched SIGTERM off does not make the next one deaf to a cancel."""
    gate.touch()
    for _ in range(4):
        client.submit("faults:ignore_sigterm", str(mark), str(gate)).result(20)
    found = [h.result(20) for h in client.submit_many("faults:surroundings", [()] * 4)]
    assert all(job["sigterm"] for job in found)


def test_workers_have_the_users_directory_first(client: Client, shared: DaemonUnderTest) -> None:
    """And never the current one."""
    found = client.submit("faults:surroundings").result(20)
    assert found["path"][0] == str(shared.work_dir)
    assert found["safe_path"]
    assert "" not in found["path"]


def test_a_users_module_never_takes_the_place_of_one_that_the_daemon_needs(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """Whatever lies in the directory it was started in, daemon and zygote do not look there."""
    daemon = make_daemon()
    for name in ("zmq", "sqlite3", "logging", "resource", "asyncio", "secrets", "random"):
        daemon.write_module(name, "raise SystemExit('this is a module of the user')\n")
    client = daemon.start().client()
    assert client.submit("work:add", 1, 2).result(20) == 3
    with pytest.raises(BadFunction, match="this is a module of the user"):
        client.submit("sqlite3:connect", ":memory:").id  # noqa: B018  # asking for it waits


def test_a_users_config_cli_and_tests_are_found_before_anybody_elses(client: Client) -> None:
    """Nothing of jobd is importable under a name that a user is likely to have."""
    assert client.submit("config:load").result(20) == "my config"
    assert client.submit("cli:main").result(20) == "my cli"
    assert client.submit("tests:run").result(20) == "my tests"
    assert "/jobd/__init__.py" in client.submit("jobd_like:where").result(20)


def test_workers_may_open_as_many_files_as_the_daemon_was_given(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """The daemon raises its own limit, and its jobs have the one from before; many break it not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, soft), hard))
    try:
        daemon = make_daemon().start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    client = daemon.client()
    assert client.submit("faults:surroundings").result(20)["nofile"] == (min(200, soft), hard)
    assert 100 < client.submit("faults:open_many", 1000).result(20) < 200
    assert client.submit("work:add", 1, 2).result(20) == 3


# --- what can be called


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("faults:coroutine", [41], 42),
        ("faults:Thing.class_method", [5], "Thing 5"),
        ("faults:Thing.static_method", [5], 10),
        ("faults:thing", [2], 42),
        ("faults:thing.instance_method", [], 40),
        ("faults:partial", [], 42),
        ("operator:add", [40, 2], 42),
        ("os.path:join", ["usr", "lib"], "usr/lib"),
        ("faults:give_set", [], {1}),
        ("forks:f", [], "once"),
    ],
)
def test_every_kind_of_callable_runs(
    client: Client, function: str, arguments: list[object], expected: object
) -> None:
    """Whatever can be named and called is a job."""
    assert client.submit(function, *arguments).result(20) == expected


def test_a_class_is_called_and_its_instance_is_the_result(client: Client) -> None:
    """The daemon keeps the repr of what JSON cannot say, for those who may not unpickle."""
    job = client.submit("builtins:complex", 1, 2)
    assert job.result(20) == 1 + 2j
    value = client.fetch(job.id).value
    assert value is not None
    assert b"(1+2j)" in value


# --- what is refused at submit


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("no_such_module:f", [], "there is no module 'no_such_module'"),
        ("faults:segfalt", [], "faults has no function 'segfalt' (did you mean 'segfault'?)"),
        ("faults:Thing.clas_method", [], "did you mean 'class_method'?"),
        ("faults:not_callable", [], "faults:not_callable is not callable (it is an int)"),
        ("faults:Thing.instance_method", [], "does not take these arguments"),
        ("work:add", [], "work:add does not take these arguments: missing a required argument"),
        ("work:add", [1, 2, 3], "work:add does not take these arguments: too many positional"),
        ("exits:f", [], "it exits when it is imported: sys.exit('not without my config')"),
        ("broken:f", [], "cannot import broken: SyntaxError in"),
        ("raises:f", [], "cannot import raises: RuntimeError: at import"),
        ("needy:f", [], "it needs 'no_such_library', which is not installed"),
        ("ends:f", [], "importing ends ended the process that did it (exit code 0)"),
        ("__main__:f", [], "__main__"),
        ("faults.py", [], "is the path of a file"),
        ("work:<lambda>", [], "lambda"),
        ("", [], "the function reference is empty"),
    ],
)
def test_a_call_that_cannot_work_is_refused_with_a_sentence(
    client: Client, function: str, arguments: list[object], message: str
) -> None:
    """The submit is refused at once, and says what is wrong with which thing."""
    with pytest.raises(UsageError) as refused:
        client.submit(function, *arguments).id  # noqa: B018  # asking for it waits
    assert message in refused.value.message
    assert "\n" not in refused.value.message


def test_an_unknown_keyword_is_refused(client: Client) -> None:
    """Names of arguments are checked as their number is."""
    with pytest.raises(BadFunction, match="got an unexpected keyword argument 'c'"):
        client.submit("work:add", 1, c=2).id  # noqa: B018  # asking for it waits


def test_an_import_that_hangs_is_given_up_and_hinders_no_other_check(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """Its submit is refused after check_timeout_s; those that wait behind it are checked."""
    modules = {
        "hangs": "import time\ntime.sleep(600)\ndef f(): pass\n",
        "fresh_one": "def f():\n    return 1\n",
    }
    client = make_daemon(modules=modules, jobs__check_timeout_s=CHECK_S).start().client()
    first = client.submit("hangs:f")
    behind = client.submit("fresh_one:f")
    second = client.submit("hangs:g")
    also_behind = client.submit("fresh_one:g")
    for hanging, function in ((first, "hangs:f"), (second, "hangs:g")):
        with pytest.raises(BadFunction, match=rf"checking {function} took over {CHECK_S:g} s"):
            hanging.id  # noqa: B018  # asking for it waits
    assert behind.result(20) == 1
    with pytest.raises(BadFunction, match="fresh_one has no function 'g'"):
        also_behind.id  # noqa: B018  # asking for it waits


def test_an_import_that_ends_its_process_is_blamed_alone(
    client: Client, shared: DaemonUnderTest
) -> None:
    """Checks that were asked in the same breath, before and after it, come out as they should."""
    for name in ("before_it", "after_it"):
        shared.write_module(name, "def f():\n    return 1\n")
    before, at_fault, after = (client.submit(f"{m}:f") for m in ("before_it", "ends", "after_it"))
    assert before.result(20) == 1
    with pytest.raises(BadFunction, match="importing ends ended the process"):
        at_fault.id  # noqa: B018  # asking for it waits
    assert after.result(20) == 1


def test_a_module_that_was_mended_is_accepted_at_once(
    client: Client, shared: DaemonUnderTest
) -> None:
    """A refusal is not remembered."""
    shared.write_module("mended", "def f(:\n")
    with pytest.raises(BadFunction, match="SyntaxError"):
        client.submit("mended:f").id  # noqa: B018  # asking for it waits
    shared.write_module("mended", "def f():\n    return 'mended'\n")
    assert client.submit("mended:f").result(20) == "mended"


def test_a_job_that_was_not_checked_fails_as_its_check_would_have(client: Client) -> None:
    """Without a check the same sentence comes from the worker, and the worker lives."""
    for function in ("no_such_module:f", "exits:f", "broken:f", "faults:segfalt"):
        (job,) = unchecked(client, function)
        with pytest.raises(JobFailed) as failed:
            job.result(20)
        assert failed.value.type.endswith("BadFunction")
        assert "cannot import" in failed.value.message or "did you mean" in failed.value.message


def unchecked(client: Client, function: str) -> list[Deferred[Any]]:
    """Submit a call without arguments, unchecked."""
    return client.submit_encoded(function, [b"j[[],{}]"], [(0, ())], check=False, watch=True)


def test_arguments_over_the_limit_are_refused_with_both_numbers(client: Client) -> None:
    """The limit is named, and what to do; up to it they are taken."""
    with pytest.raises(UsageError, match=f"over the limit of {MAX_PAYLOAD}") as refused:
        client.submit("work:echo", "x" * MAX_PAYLOAD).id  # noqa: B018  # asking for it waits
    assert "limits.max_blob_bytes" in refused.value.message
    text = "x" * (MAX_PAYLOAD - 100)
    assert client.submit("faults:give_text", len(text)).result(20) == text
    assert client.submit("builtins:len", text).result(20) == len(text)


def test_results_of_the_largest_size_arrive_together(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """However many a worker holds, and with no room between the two limits: none is lost."""
    size = 64 * 1024
    daemon = make_daemon(limits__max_payload_bytes=size, limits__max_message_bytes=size).start()
    client = daemon.client()
    largest = size - len(b'j""')
    assert client.submit("faults:give_text", largest).result(20) == "x" * largest
    for deferred in client.submit_many("faults:give_text", [(largest,)] * 200):
        assert len(deferred.result(20)) == largest


# --- all of it at once


def test_nothing_is_left_behind_by_a_thousand_faults(
    client: Client, shared: DaemonUnderTest
) -> None:
    """Files, threads and processes of the daemon are as many as before, and its memory too."""
    both_work(client)
    calls: list[tuple[str, list[Any]]] = [
        ("work:fail", []),
        ("faults:give_lock", []),
        ("faults:double_fork", []),
        ("faults:end_process", [3]),
    ]

    def round_of_faults(times: int) -> None:
        jobs = [client.submit(name, *args) for name, args in calls for _ in range(times)]
        client.wait([job.id for job in jobs], 60)

    round_of_faults(5)
    both_work(client)
    before = usage(shared.pid)
    rss = linux.rss_bytes(shared.pid)
    round_of_faults(15)
    both_work(client)
    eventually(lambda: usage(shared.pid) == before)
    assert linux.rss_bytes(shared.pid) - rss < 8 * MIB


def usage(pid: int) -> tuple[int, int, int]:
    """Return how many files, threads and children a process has."""
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return files, len(os.listdir(f"/proc/{pid}/task")), len(linux.children(pid))


def test_a_daemon_that_has_seen_all_this_has_nothing_to_complain_of(
    client: Client, shared: DaemonUnderTest
) -> None:
    """No trouble in the status, no traceback in its log, and it answers at once."""
    assert client.status().trouble == []
    assert "Traceback" not in shared.log
    began = time.monotonic()
    client.ping()
    assert time.monotonic() - began < 5
