"""A job leaves nothing to the next one: its worker is as it was before, or another one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import DaemonUnderTest, eventually, is_alive

from jobd.client import Client
from jobd.model.job import JobInfo
from jobd.model.selector import one
from jobd.model.states import State

Make = Callable[..., DaemonUnderTest]
WAIT_S = 20.0


@pytest.fixture(scope="module")
def shared() -> Iterator[DaemonUnderTest]:
    """Return a daemon with one worker, whose jobs are run at most once."""
    with DaemonUnderTest(pool__workers=1, jobs__max_crashes=0) as daemon:
        yield daemon.write_jobs().start()


@pytest.fixture
def client(shared: DaemonUnderTest) -> Client:
    """Return a client of it."""
    return shared.client()


def run(client: Client, function: str, *args: Any, **kwargs: Any) -> Any:
    """Run a job and return its result."""
    return client.submit(f"leaves:{function}", *args, **kwargs).result(WAIT_S)


def info_of(client: Client, number: int) -> JobInfo:
    """Return all that is known of a job."""
    (info,) = client.find(one(number))
    return info


def may_raise_limits() -> bool:
    """Whether a process such as the worker may raise a hard limit."""
    code = (
        "from resource import *; old = getrlimit(RLIMIT_CORE); setrlimit(RLIMIT_CORE, (0, 0)); "
        "setrlimit(RLIMIT_CORE, old)"
    )
    return subprocess.run([sys.executable, "-c", code], check=False, stderr=-3).returncode == 0


PUT_BACK = [
    "affinity",
    "alarm",
    "builtins",
    "directory",
    "effective_user",
    "environ",
    "environ_cleared",
    "environ_replaced",
    "faulthandler",
    "handlers",
    "hooks",
    "interpreter",
    "libraries",
    "limits",
    "logging",
    "logging_disabled",
    "loop",
    "mask",
    "numbers",
    "path",
    "path_appended",
    "rubbish",
    "stdin",
    "timers",
    "warnings",
]


@pytest.mark.parametrize("what", PUT_BACK)
def test_what_can_be_put_back_is(client: Client, what: str) -> None:
    """The next job finds it as it was, in the same worker; the first time, and each time."""
    before = run(client, "found")
    for _ in range(2):
        job = client.submit("leaves:leave", what)
        job.result(WAIT_S)
        assert run(client, "found") == before
        assert info_of(client, job.id).notes == ()


@pytest.mark.parametrize("what", PUT_BACK)
def test_a_short_job_that_never_left_anything_before_is_no_exception(
    client: Client, what: str
) -> None:
    """Nor one among many that were ordered together."""
    before = run(client, "found")
    jobs = [client.submit("leaves:leave", what, really=False) for _ in range(40)]
    for job in jobs:
        job.result(WAIT_S)
    run(client, "leave", what)
    run(client, "take", 1)  # takes long enough for a look at everything
    assert run(client, "found") == before


def test_a_signal_that_is_ignored_does_not_hide_how_a_command_ends(
    shared: DaemonUnderTest, client: Client
) -> None:
    """Whoever ignores SIGCHLD is not told of exit codes."""
    run(client, "leave", "handlers")
    ended = shared.cli("run", "--wait", "--", "sh", "-c", "exit 3")
    assert ended.returncode == 1
    assert "exit code 3" in ended.stdout + ended.stderr


@pytest.mark.parametrize("what", ["raising_alarm", "deadly_alarm", "watchdog"])
def test_nothing_rings_in_the_next_job(client: Client, what: str) -> None:
    """Neither what raises, nor what kills."""
    run(client, "leave", what, 0.1)
    job = client.submit("work:sleep", 0.3)
    job.result(WAIT_S)
    assert info_of(client, job.id).crashes == 0


def test_what_rings_as_its_own_job_ends_ends_nobody_else(client: Client) -> None:
    """It may fail that job, and no other one, nor the worker."""
    before = run(client, "pid")
    for step in range(60):
        job = client.submit("leaves:leave", "raising_alarm", 0.00001 + step * 0.000002, 0.001)
        client.wait([job.id], WAIT_S)
        assert run(client, "pid") == before


def test_a_limit_on_memory_is_lifted(client: Client) -> None:
    """The next job has what it needs."""
    run(client, "leave", "small_address_space")
    assert run(client, "take", 200) == 200 * 2**20


def test_logging_is_as_if_nobody_had_used_it(shared: DaemonUnderTest, client: Client) -> None:
    """``basicConfig`` does something after another job's first warning, and so it does each time."""
    for _ in range(2):
        run(client, "leave", "logging")
        job = client.submit("leaves:log_info")
        job.result(WAIT_S)
        assert shared.cli("logs", str(job.id)).stdout == "heard\n"


@pytest.mark.parametrize("draw", ["draw", "draw_with_numpy"])
def test_a_seed_is_not_the_next_jobs(client: Client, draw: str) -> None:
    """Else its numbers would not be random at all."""
    drawn = []
    for _ in range(3):
        run(client, draw, 7)
        drawn.append(run(client, draw))
    assert len(set(drawn)) == 3


def test_a_thread_that_is_left_prints_into_nobodys_log_and_is_told_of(
    shared: DaemonUnderTest, client: Client, gate: Path
) -> None:
    """Its worker is replaced; what it printed before belongs to the job that left it."""
    first = client.submit("leaves:leave", "thread_that_prints", str(gate))
    first.result(WAIT_S)
    others = [client.submit("leaves:pid") for _ in range(5)]
    (worker,) = {job.result(WAIT_S) for job in others}
    info = info_of(client, first.id)
    assert info.notes == ("it left 1 thread running (speaker): its worker was replaced",)
    assert info.pid != worker
    eventually(lambda: not is_alive(info.pid))
    gate.touch()
    assert shared.cli("logs", str(first.id)).stdout in ("", "I am still here\n")
    for job in others:
        found = info_of(client, job.id)
        assert (found.state, found.attempt, found.crashes) == (State.SUCCEEDED, 1, 0)
        assert shared.cli("logs", str(job.id)).stdout == ""
    shown = shared.cli("show", str(first.id)).stdout
    assert "it left 1 thread running (speaker): its worker was replaced" in shown


@pytest.mark.parametrize(
    ("what", "note"),
    [
        ("leave_bare_thread", "it left 1 thread running (thread "),
        ("leave_thread_in_c", "it left 1 thread running (a thread without a name)"),
        ("leave_our_module", "it changed sys.modules['jobd.context']"),
        ("leave_no_new_privileges", "it changed the user that it is, or its privileges"),
    ],
)
def test_what_cannot_be_put_back_ends_the_worker(client: Client, what: str, note: str) -> None:
    """After the job, and the job says so; the next one has another worker."""
    job = client.submit(f"leaves:{what}")
    job.result(WAIT_S)
    info = info_of(client, job.id)
    assert len(info.notes) == 1
    assert info.notes[0].startswith(note)
    assert info.notes[0].endswith(": its worker was replaced")
    assert run(client, "pid") != info.pid


def test_another_root_directory_ends_the_worker(client: Client, tmp_path: Path) -> None:
    """Nothing else is found where it was."""
    job = client.submit("leaves:leave_root", str(tmp_path))
    if not job.result(WAIT_S):
        pytest.skip("jobs may not change their root directory here")
    (note,) = info_of(client, job.id).notes
    assert note.startswith("it changed its root directory")
    assert Path(f"/proc/{run(client, 'pid')}/root").readlink() == Path("/")


def test_a_hard_limit_is_raised_again_if_that_is_allowed(client: Client) -> None:
    """Else the worker is replaced."""
    before = run(client, "found")
    job = client.submit("leaves:leave", "hard_limit")
    job.result(WAIT_S)
    after, notes = run(client, "found"), info_of(client, job.id).notes
    assert after["limits"] == before["limits"]
    if may_raise_limits():
        assert (after["pid"], notes) == (before["pid"], ())
    else:
        assert after["pid"] != before["pid"]
        assert notes[0].startswith("it lowered the hard limit of RLIMIT_CORE")


def test_a_worker_that_is_replaced_each_time_costs_no_job(client: Client) -> None:
    """Nothing that was handed to it is lost or begun twice, although each may be begun once only."""
    jobs = []
    for _ in range(10):
        jobs.append(client.submit("leaves:leave", "bare_thread"))
        jobs += [client.submit("leaves:pid") for _ in range(10)]
    for job in jobs:
        job.result(WAIT_S)
        info = info_of(client, job.id)
        assert (info.attempt, info.crashes) == (1, 0)
    assert client.status().trouble == []


def test_threads_of_a_pool_that_wait_for_work_may_stay(client: Client) -> None:
    """They do nothing until the next job wants them; one that works is another matter."""
    workers = {run(client, "use_pool", 0.001) for _ in range(10)}
    assert len(workers) == 1
    job = client.submit("leaves:use_pool", 1000.0, wait=False)
    worker = job.result(WAIT_S)
    assert {worker} == workers
    assert run(client, "pid") != worker
    assert info_of(client, job.id).notes[0].startswith("it left 1 thread running (ThreadPool")


HOOKED = """
import importlib, importlib.abc, importlib.machinery, sys

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.startswith("one_that_is_found"):
            return importlib.machinery.ModuleSpec(name, self)
    def exec_module(self, module):
        module.answer = 42

sys.meta_path.append(Finder())

def look_for(name):
    sys.modules.pop(name, None)
    return importlib.import_module(name)
"""


def test_a_finder_that_a_module_brings_stays(shared: DaemonUnderTest, client: Client) -> None:
    """As that of ``six.moves``, also where a job has imported it while it ran."""
    shared.write_module("hooked", HOOKED)
    assert [run(client, "import_from_hooked") for _ in range(3)] == [42] * 3


IMPORTED = """
import decimal, logging, os, sys, threading, warnings

decimal.getcontext().prec = 5
sys.path.append("/of/the/module")
os.environ["OF_THE_MODULE"] = "1"
logging.root.setLevel(logging.INFO)
threading.Thread(target=threading.Event().wait, daemon=True).start()

def look():
    return [
        os.getpid(),
        str(decimal.Decimal(1) / 3),
        "/of/the/module" in sys.path,
        os.environ.get("OF_THE_MODULE"),
        logging.root.level,
    ]

def spoil():
    decimal.getcontext().prec = 9
    sys.path.remove("/of/the/module")
    del os.environ["OF_THE_MODULE"]
    logging.root.setLevel(logging.ERROR)
"""


SURROUNDED = """
import decimal, os

decimal.getcontext().prec = 5

def look():
    return os.environ.get("FOO"), os.getcwd(), str(decimal.Decimal(1) / 3)
"""


def test_what_a_job_is_given_is_not_taken_for_what_its_module_has_set(
    shared: DaemonUnderTest, client: Client
) -> None:
    """An import while a job has variables and a directory of its own is no reason to keep those."""
    shared.write_module("surrounded", SURROUNDED)
    given = client.options(env={"FOO": "bar"}, cwd="/usr")
    first = given.submit("surrounded:look").result(WAIT_S)
    foo, cwd, number = client.submit("surrounded:look").result(WAIT_S)
    assert first == ("bar", "/usr", "0.33333")
    assert (foo, number) == (None, "0.33333")
    assert cwd != "/usr"


def test_what_a_module_sets_when_it_is_imported_stays(
    shared: DaemonUnderTest, client: Client
) -> None:
    """It is imported once: its functions would miss it the second time."""
    shared.write_module("settled", IMPORTED)
    looks = []
    for _ in range(3):
        looks.append(client.submit("settled:look").result(WAIT_S))
        client.submit("settled:spoil").result(WAIT_S)
    assert looks == [[looks[0][0], "0.33333", True, "1", 20]] * 3


# -- what grows ---------------------------------------------------------------


def test_files_that_a_job_leaves_open_are_no_want_of_others(make_daemon: Make) -> None:
    """Its worker is replaced before there are none, and its notes name what it is blamed for."""
    daemon = make_daemon(pool__workers=1).start(wrapper=("prlimit", "--nofile=256:4096"))
    client = daemon.client()
    greedy = client.submit("leaves:leave_files_open", 3_000)
    assert greedy.result(WAIT_S) > 200
    opened = client.submit_many("leaves:open_a_file", [()] * 500)
    assert [deferred.result(WAIT_S) for deferred in opened] == [0] * 500
    (note,) = info_of(client, greedy.id).notes
    assert "files open, of 256 that a worker may have: its worker was replaced" in note


def test_many_jobs_that_leave_a_file_each_end_up_in_several_workers(make_daemon: Make) -> None:
    """None of them fails."""
    daemon = make_daemon(pool__workers=1).start(wrapper=("prlimit", "--nofile=256:4096"))
    client = daemon.client()
    left = client.submit_many("leaves:leave_files_open", [(1,)] * 1_000)
    assert {deferred.result(WAIT_S) for deferred in left} == {1}


def test_memory_that_a_job_leaves_is_no_want_of_others(make_daemon: Make) -> None:
    """Where the worker has a limit of it."""
    daemon = make_daemon(pool__workers=1).start(wrapper=("prlimit", f"--data={600 << 20}"))
    client = daemon.client()
    greedy = client.submit("leaves:leave_memory", 500)
    greedy.result(WAIT_S)
    assert client.submit("leaves:take", 300).result(WAIT_S) == 300 << 20
    (note,) = info_of(client, greedy.id).notes
    assert "MiB of memory in use, of 600 that a worker may have: its worker was replaced" in note
