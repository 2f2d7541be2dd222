"""The daemon's own life: started, drained, reloaded, killed, stood in the way of."""

from __future__ import annotations

import os
import select
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from harness import JOBS, DaemonUnderTest, eventually, is_alive, lines

from jobd.client import Client
from jobd.model.blob import Place
from jobd.model.errors import (
    DaemonUnreachable,
    JobCancelled,
    JobCrashed,
    JobFailed,
    NotFound,
    Stopping,
)
from jobd.model.job import JobInfo, Verdict
from jobd.model.messages import encode
from jobd.model.orders import (
    Alive,
    GiveBack,
    GivenBack,
    Outcomes,
    Ready,
    Recorded,
    Report,
    Retire,
    Run,
    StopJob,
    Task,
    decode_reports,
)
from jobd.model.selector import Selector, one
from jobd.model.states import State
from jobd.payload import encode_call
from jobd.pool import linux
from jobd.pool.protocol import Settings as PoolSettings
from jobd.wire.pool_router import PoolRouter

OLD = Path(__file__).parents[1] / "support/jobd-0.1.0.sql"

Make = Callable[..., DaemonUnderTest]

SLOW_S = 600.0


def only(client: Client, number: int) -> JobInfo:
    """Return one job with all its details."""
    (info,) = client.find(one(number))
    return info


def pids(client: Client) -> set[int]:
    """Return the pids of all workers, once all have one."""
    return eventually(lambda: {w.pid for w in client.status().workers if w.state != "starting"})


def ready(client: Client, workers: int = 2) -> set[int]:
    """Wait until so many workers are idle; return their pids."""
    eventually(lambda: [w.state for w in client.status().workers] == ["idle"] * workers)
    return {w.pid for w in client.status().workers}


def unchecked(client: Client, function: str, call: bytes) -> int:
    """Submit one encoded call without a check; return its id."""
    return client.submit_encoded(function, [call], [(0, ())], check=False)[0].id


def zygotes(daemon: DaemonUnderTest) -> list[int]:
    """Return the pids of the daemon's zygotes (the workers are theirs)."""
    return [pid for pid in linux.children(daemon.pid) if is_alive(pid)]


# --- starting and stopping


def test_a_daemon_that_is_stopped_ends_with_its_workers_and_leaves_no_socket(
    make_daemon: Make,
) -> None:
    """Client.stop returns when all is over; the exit code is 0."""
    daemon = make_daemon().start()
    client = daemon.client()
    client.submit("work:add", 1, 2).result(20)
    client.stop(timeout=20)
    assert daemon.wait() == 0
    assert not daemon.processes()
    assert not Path(daemon.socket).exists()
    assert daemon.log.splitlines()[-1].endswith("INFO stopped")


def test_what_is_queued_and_what_has_ended_is_there_after_a_restart(make_daemon: Make) -> None:
    """Results are kept, ids go on, and the queue is worked off."""
    daemon = make_daemon().start()
    client = daemon.client()
    first = client.submit("work:add", 1, 2)
    assert first.result(20) == 3
    gate = daemon.root / "gate"
    waiting = client.submit_many("work:mark_and_wait", [(str(daemon.root / "m"), str(gate))] * 10)
    ids = [deferred.id for deferred in waiting]
    client.stop(drain_s=0, timeout=20)
    assert daemon.wait() == 0
    gate.touch()
    after = daemon.start().client()
    assert after.result(first.id, 20) == 3
    assert [after.result(number, 20) for number in ids] == ["through"] * 10
    assert after.submit("work:add", 1, 2).id == ids[-1] + 1


def test_a_job_that_ends_while_the_daemon_drains_is_recorded(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """SIGTERM lets what runs come to its end; nothing new is taken or started."""
    daemon = make_daemon(daemon__drain_s=SLOW_S).start()
    client = daemon.client()
    running = client.submit_many("faults:wait_at", [(str(mark), str(gate))] * 2)
    eventually(lambda: len(lines(mark)) == 2)
    queued = client.submit("faults:wait_at", str(mark), str(gate)).id
    os.kill(daemon.pid, signal.SIGTERM)
    eventually(lambda: "draining" in daemon.log)
    with pytest.raises(Stopping, match="the daemon is stopping"):
        client.submit("work:add", 1, 2).id  # noqa: B018  # asking for it waits
    gate.touch()
    assert [deferred.result(20) for deferred in running] == ["through"] * 2
    assert daemon.wait() == 0
    assert len(lines(mark)) == 2
    assert daemon.start().client().result(queued, 20) == "through"


def test_a_job_that_does_not_end_in_time_is_put_back_and_runs_again_without_blame(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """An attempt cut off by the end of the daemon is no crash: here none would be forgiven."""
    daemon = make_daemon(daemon__drain_s=0.1, jobs__max_crashes=0).start()
    job = daemon.client().submit("faults:wait_at", str(mark), str(gate)).id
    for times in (1, 2):
        eventually(lambda times=times: len(lines(mark)) == times)  # type: ignore[misc]  # bound
        assert daemon.terminate() == 0
        assert not daemon.processes()
        daemon.start()
    gate.touch()
    client = daemon.client()
    assert client.result(job, 20) == "through"
    info = only(client, job)
    assert (info.state, info.attempt, info.crashes) == (State.SUCCEEDED, 3, 0)


def test_a_job_deaf_to_sigterm_is_killed_at_the_end_of_the_drain_without_blame(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """It gets the grace that every job gets; then it is put back as the others are."""
    daemon = make_daemon(daemon__drain_s=0.1, pool__kill_grace_s=0.1, jobs__max_crashes=0).start()
    job = daemon.client().submit("faults:ignore_sigterm", str(mark), str(gate)).id
    eventually(lambda: lines(mark))
    assert daemon.terminate() == 0
    gate.touch()
    client = daemon.start().client()
    client.result(job, 20)
    assert (only(client, job).attempt, only(client, job).crashes) == (2, 0)


def test_a_second_sigterm_ends_the_daemon_at_once(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """What runs is killed and put back; no time-out is waited for."""
    daemon = make_daemon(
        daemon__drain_s=SLOW_S, pool__kill_grace_s=SLOW_S, jobs__max_crashes=0
    ).start()
    client = daemon.client()
    jobs = client.submit_many("faults:ignore_sigterm", [(str(mark), str(gate))] * 3)
    ids = [deferred.id for deferred in jobs]
    eventually(lambda: len(lines(mark)) == 2)
    os.kill(daemon.pid, signal.SIGTERM)
    eventually(lambda: "draining" in daemon.log)
    assert daemon.terminate() == 0
    assert not daemon.processes()
    gate.touch()
    after = daemon.start().client()
    after.wait(ids, 20)
    assert [only(after, number).crashes for number in ids] == [0, 0, 0]


def test_a_worker_that_stands_still_does_not_keep_the_daemon_from_ending(
    make_daemon: Make,
) -> None:
    """An idle worker under SIGSTOP never hears that it should end: it is killed after the grace."""
    daemon = make_daemon(daemon__drain_s=0.1, pool__kill_grace_s=0.1).start()
    (pid, _) = ready(daemon.client())
    os.kill(pid, signal.SIGSTOP)
    assert daemon.terminate() == 0
    assert not is_alive(pid)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_daemon_whose_workers_never_come_can_be_stopped(
    make_daemon: Make, mark: Path, signals: int
) -> None:
    """A preload module hangs: SIGTERM ends it all the same."""
    daemon = make_daemon(pool__preload="hangs", pool__workers=1)
    daemon.write_module("hangs", f"open({str(mark)!r}, 'w')\nimport time\ntime.sleep(600)\n")
    daemon.start()
    eventually(mark.exists)
    for _ in range(signals):
        os.kill(daemon.pid, signal.SIGTERM)
    assert daemon.wait() == 0


# --- reload


def test_sighup_brings_new_code_while_the_old_job_runs_on(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """Every worker is replaced when its job is done, and so is the process they come from."""
    daemon = make_daemon()
    daemon.write_module("versioned", "def version():\n    return 1\n")
    client = daemon.start().client()
    old = ready(client)
    assert client.submit("versioned:version").result(20) == 1
    running = client.submit("faults:wait_at", str(mark), str(gate))
    eventually(lambda: lines(mark))
    daemon.write_module("versioned", "def version():\n    return 'the second'\n")
    os.kill(daemon.pid, signal.SIGHUP)
    eventually(lambda: any(w.pid not in old for w in client.status().workers if w.pid))
    assert client.submit("versioned:version").result(20) == "the second"
    assert not running.done()
    gate.touch()
    assert running.result(20) == "through"
    assert not ready(client) & old
    assert only(client, running.id).attempt == 1
    eventually(lambda: len(zygotes(daemon)) == 1)


def test_a_function_that_is_new_after_a_reload_passes_the_check(make_daemon: Make) -> None:
    """The checker is replaced too: what it had imported is forgotten, and so are its verdicts."""
    daemon = make_daemon()
    daemon.write_module("grows", "def first():\n    return 1\n")
    client = daemon.start().client()
    assert client.submit("grows:first").result(20) == 1
    daemon.write_module("grows", "def second():\n    return 'second'\n")
    client.reload()
    assert client.submit("grows:second").result(20) == "second"
    with pytest.raises(JobFailed, match="grows has no function 'first'"):
        client.result(unchecked(client, "grows:first", b"j[[],{}]"), 20)


def test_a_submit_that_is_being_checked_during_a_reload_is_not_refused(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """The checker is replaced; the next one begins anew, and nobody takes its end for a crash."""
    daemon = make_daemon()
    daemon.write_module(
        "slow",
        f"import os, time\nopen({str(mark)!r}, 'a').write('x\\n')\n"
        f"while not os.path.exists({str(gate)!r}):\n    time.sleep(0.005)\n"
        "def f():\n    return 'checked'\n",
    )
    client = daemon.start().client()
    job = client.submit("slow:f")
    eventually(lambda: lines(mark))
    client.reload()
    eventually(lambda: len(lines(mark)) == 2)
    gate.touch()
    assert job.result(20) == "checked"


def test_five_reloads_leave_nothing_behind(make_daemon: Make) -> None:
    """Processes and files are as many as after the first."""
    daemon = make_daemon().start()
    client = daemon.client()

    def reload() -> None:
        old = ready(client)
        client.reload()
        eventually(lambda: not pids(client) & old)
        assert client.submit("work:add", 1, 2).result(20) == 3

    def counts() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{daemon.pid}/fd")), len(daemon.processes())

    reload()
    ready(client)
    eventually(lambda: len(zygotes(daemon)) == 1)
    before = counts()
    for _ in range(5):
        reload()
    ready(client)
    eventually(lambda: counts() == before)
    boards = daemon.state_dir / "workers"
    eventually(lambda: len(list(boards.iterdir())) <= 3)  # two workers and perhaps a checker's


# --- preload


def test_a_preload_module_is_imported_once_for_all_workers(make_daemon: Make, mark: Path) -> None:
    """The workers have it from the process that they are forked from."""
    daemon = make_daemon(pool__preload="heavy")
    daemon.write_module(
        "heavy",
        f"import os\nopen({str(mark)!r}, 'a').write('x\\n')\npid = os.getpid()\n"
        "def home():\n    return pid, os.getppid()\n",
    )
    client = daemon.start().client()
    loaded_by, parent = client.submit("heavy:home").result(20)
    assert loaded_by == parent
    assert len(lines(mark)) == 1


def test_a_broken_preload_module_is_told_and_heals_at_the_next_reload(
    make_daemon: Make, mark: Path
) -> None:
    """The daemon answers meanwhile, says what is wrong, and tries again less and less often."""
    began = time.monotonic()
    daemon = make_daemon(pool__preload="heavy")
    daemon.write_module("heavy", f"open({str(mark)!r}, 'a').write('x\\n')\nraise OSError('gone')\n")
    client = daemon.start().client()
    why = "cannot import the preload module heavy: OSError: gone"
    eventually(lambda: client.status().trouble == [why])
    job = unchecked(client, "work:add", b"j[[1,2],{}]")
    assert only(client, job).state is State.QUEUED
    eventually(lambda: len(lines(mark)) >= 4)
    tries, took = len(lines(mark)), time.monotonic() - began
    assert took > 0.1 * 2 ** (tries - 2), f"{tries} tries within {took:.1f} s"  # 0.1 s, doubled
    daemon.write_module("heavy", "healed = True\n")
    client.reload()
    assert client.result(job, 20) == 3
    assert client.status().trouble == []
    ready(client)


def test_a_preload_module_that_leaves_threads_behind_does_not_hang_the_daemon(
    make_daemon: Make,
) -> None:
    """The zygote ends though a thread of the user's still sleeps in it."""
    daemon = make_daemon(pool__preload="threaded")
    daemon.write_module(
        "threaded",
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=[600]).start()\n"
        "raise OSError('too late')\n",
    )
    client = daemon.start().client()
    eventually(lambda: client.status().trouble)
    assert client.ping() < 20


# --- several daemons


def test_what_is_no_socket_is_not_removed(make_daemon: Make) -> None:
    """A file at the socket's path is somebody's."""
    daemon = make_daemon()
    daemon.state_dir.mkdir(mode=0o700)
    file = Path(daemon.socket)
    file.write_text("precious", encoding="utf-8")
    refused = daemon.cli("start", "--foreground")
    assert refused.returncode == 78
    assert f"{file} is to be our socket, and something else is there" in refused.stderr
    assert file.read_text(encoding="utf-8") == "precious"


def test_a_socket_that_somebody_listens_on_is_not_taken(make_daemon: Make) -> None:
    """Though its lock was removed, and the second daemon has a directory of its own."""
    daemon = make_daemon().start()
    Path(daemon.socket + ".lock").unlink()
    other = make_daemon(socket=daemon.socket)
    refused = other.cli("start", "--foreground")
    assert refused.returncode == 75
    assert f"pid {daemon.pid} listens on {daemon.socket}" in refused.stderr
    assert daemon.client().submit("work:add", 1).result(20) == 2


def test_without_its_lock_file_a_state_directory_is_held_all_the_same(
    make_daemon: Make,
) -> None:
    """The second daemon is told at once, and takes nothing over."""
    daemon = make_daemon().start()
    (daemon.state_dir / "lock").unlink()
    refused = daemon.cli("start", "--foreground")
    assert refused.returncode == 75
    assert f"held by pid {daemon.pid}" in refused.stderr
    assert daemon.client().submit("work:add", 1).result(20) == 2


def test_a_second_daemon_on_a_state_directory_names_the_first_and_leaves_it_alone(
    make_daemon: Make,
) -> None:
    """It exits with 75; the first keeps its socket and serves on."""
    daemon = make_daemon().start()
    client = daemon.client()
    second = daemon.cli("start", "--foreground")
    assert second.returncode == 75
    assert f"held by pid {daemon.pid} since" in second.stderr
    assert str(daemon.state_dir) in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    assert client.submit("work:add", 1, 2).result(20) == 3
    assert daemon.client().submit("work:add", 1, 2).result(20) == 3


def test_a_second_daemon_on_a_socket_leaves_the_first_ones_alone(make_daemon: Make) -> None:
    """ZeroMQ would take the socket from the first daemon; the lock beside it keeps it."""
    daemon = make_daemon().start()
    other = daemon.root / "other"
    second = daemon.cli(
        *("start", "--foreground", "--state-dir", str(other), "--socket", daemon.socket)
    )
    assert second.returncode == 75
    assert f"the socket {daemon.socket} is held by pid {daemon.pid}" in second.stderr
    assert daemon.client().submit("work:add", 1, 2).result(20) == 3


def test_daemons_live_side_by_side_and_know_nothing_of_each_other(make_daemon: Make) -> None:
    """Each has its own queue, ids, workers and output."""
    daemons = [make_daemon(pool__workers=1).start() for _ in range(3)]
    clients = [daemon.client() for daemon in daemons]
    for number, client in enumerate(clients):
        job = client.submit("faults:say", f"daemon {number}")
        assert job.id == 1
        job.result(20)
    daemons[0].kill()
    for number, client in enumerate(clients[1:], 1):
        assert b"".join(client.logs(1)) == f"daemon {number}\n".encode()
        with pytest.raises(NotFound):
            client.fetch(2)
    daemons[0].start()
    assert b"".join(clients[0].logs(1)) == b"daemon 0\n"


def test_what_a_killed_daemon_leaves_behind_hinders_no_successor(make_daemon: Make) -> None:
    """A stale socket and a stale lock file, even with the pid of somebody who lives."""
    daemon = make_daemon().start()
    assert daemon.client().submit("work:add", 1, 2).result(20) == 3
    daemon.kill()
    assert stat.S_ISSOCK(os.stat(daemon.socket).st_mode)
    lock = daemon.state_dir / "lock"
    lock.write_text(f"pid {os.getpid()} since ever\n", encoding="ascii")
    with pytest.raises(DaemonUnreachable, match="no daemon at"):
        daemon.client(timeout_s=1)
    client = daemon.start().client()
    assert client.result(1, 20) == 3
    assert f"pid {daemon.pid}" in lock.read_text(encoding="ascii")


def test_a_daemon_that_is_killed_takes_its_idle_workers_and_its_checker_along(
    make_daemon: Make,
) -> None:
    """With nothing in hand they wait for the next daemon only so long."""
    daemon = make_daemon(pool__orphan_s=0.2).start()
    client = daemon.client()
    client.submit("work:add", 1, 2).result(20)
    ready(client)
    daemon.kill()
    eventually(lambda: not daemon.processes())


# --- places that will not do


def refused(
    daemon: DaemonUnderTest, code: int, sentence: str, state_dir: Path | None = None
) -> str:
    """Start a daemon that must not start; look at what it says, and return that."""
    place = str(state_dir or daemon.state_dir)
    result = daemon.cli("start", "--foreground", JOBD_STATE_DIR=place)
    assert result.returncode == code, result.stderr
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not daemon.processes()
    return result.stderr


def test_a_socket_path_of_over_107_bytes_is_refused_with_its_length(make_daemon: Make) -> None:
    """The operating system would cut it off, or say something nobody understands."""
    daemon = make_daemon()
    long = daemon.root / ("x" * 100)
    size = len(str(long / "client.sock.workers"))
    refused(daemon, 78, f"has {size} bytes, and the system allows 107", long)
    assert not long.exists()


def test_a_state_directory_that_others_may_write_to_is_refused(make_daemon: Make) -> None:
    """The sentence says what to do; nothing is made in it."""
    daemon = make_daemon()
    daemon.state_dir.mkdir()
    daemon.state_dir.chmod(0o777)
    refused(daemon, 78, f"others may write to {daemon.state_dir}: chmod 700 {daemon.state_dir}")
    assert not list(daemon.state_dir.iterdir())
    daemon.state_dir.chmod(0o700)
    assert daemon.start().client().submit("work:add", 1, 2).result(20) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_of_somebody_else_is_refused(make_daemon: Make) -> None:
    """Even by root, which could write there."""
    daemon = make_daemon()
    daemon.state_dir.mkdir()
    os.chown(daemon.state_dir, 12345, 12345)
    refused(daemon, 78, "belongs to uid 12345")


def test_a_file_in_the_place_of_the_state_directory_is_refused(make_daemon: Make) -> None:
    """Or in the place of a directory above it; the file is left as it is."""
    daemon = make_daemon()
    daemon.state_dir.write_text("mine", encoding="ascii")
    refused(daemon, 78, str(daemon.state_dir))
    inside = daemon.state_dir / "deeper"
    refused(daemon, 78, f"cannot make {inside}: Not a directory", inside)
    assert daemon.state_dir.read_text(encoding="ascii") == "mine"


def test_all_that_a_daemon_makes_is_for_its_owner_alone(make_daemon: Make) -> None:
    """Whatever the umask is: directories 0700, files and sockets 0600."""
    daemon = make_daemon()
    old = os.umask(0)
    try:
        daemon.start()
    finally:
        os.umask(old)
    daemon.client().submit("faults:say", "hello").result(20)
    found = [daemon.state_dir, *daemon.state_dir.rglob("*")]
    modes = {stat.S_IMODE(path.lstat().st_mode) for path in found if not path.is_dir()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir()} == {0o700}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it is empty"),
        (b"SQLite format 3\0" + bytes(50), "cannot be used"),
        (b"my diary\n" * 1000, "cannot be used"),
        (None, "is not a database of jobd"),
    ],
)
def test_a_database_that_is_not_its_own_is_refused_and_left_as_it_is(
    make_daemon: Make, content: bytes | None, sentence: str
) -> None:
    """Exit 78, with the file's path and what to do."""
    daemon = make_daemon()
    daemon.state_dir.mkdir(mode=0o700)
    path = daemon.state_dir / "jobd.db"
    if content is None:
        with sqlite3.connect(path) as foreign:
            foreign.execute("CREATE TABLE diary (day)")
        foreign.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    assert str(path) in refused(daemon, 78, sentence)
    assert path.read_bytes() == before


# --- cancel and retry


def test_a_job_can_be_cancelled_before_it_runs_while_it_runs_and_not_after(
    shared: DaemonUnderTest, mark: Path, gate: Path
) -> None:
    """Each has its answer, and an end never changes."""
    client = shared.client()
    running = client.submit_many("faults:clean_up", [(str(mark), str(gate))] * 2)
    queued = client.submit("work:append", str(mark), "never")
    eventually(lambda: len(lines(mark)) == 2)
    assert client.cancel(one(queued.id), "not needed") == [(queued.id, "cancelled")]
    with pytest.raises(JobCancelled, match="not needed"):
        queued.result(20)
    assert client.cancel(one(running[0].id)) == [(running[0].id, "stopping")]
    with pytest.raises(JobCancelled):
        running[0].result(20)
    assert client.cancel(one(running[0].id)) == [(running[0].id, "already finished")]
    gate.touch()
    running[1].result(20)
    assert client.cancel(one(running[1].id)) == [(running[1].id, "already finished")]
    assert "never" not in lines(mark)
    with pytest.raises(NotFound, match="there is no job 999999"):
        client.cancel(one(999_999))
    states = [only(client, job.id).state for job in (queued, *running)]
    assert states == [State.CANCELLED, State.CANCELLED, State.SUCCEEDED]


def test_a_worker_that_is_told_too_late_to_stop_a_job_lets_the_next_one_run(
    tmp_path: Path, mark: Path, gate: Path
) -> None:
    """The order names the attempt; here the test is the daemon, and has the worker to itself."""
    path = str(tmp_path / "sock")
    for name in ("boards", "logs"):
        (tmp_path / name).mkdir()
    settings = PoolSettings(
        boot="boot",
        socket=path,
        boards_dir=str(tmp_path / "boards"),
        logs_dir=str(tmp_path / "logs"),
        path=[],
        preload=[],
        client_socket="",
        orphan_s=0.1,
        max_payload_bytes=1024,
        place=Place("", str(tmp_path), "disk", True, False, 1024, 1024),
        max_output_bytes=1024,
        nofile_soft=100,
        umask=0o022,
    )
    code = (
        "import os, sys, msgspec\n"
        "from jobd.pool.protocol import Settings\n"
        "from jobd.pool.worker import Worker\n"
        "os.setsid()\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "Worker('w', msgspec.json.decode(sys.argv[1], type=Settings)).run()\n"
    )
    with closing(PoolRouter(path, 2**20)) as router:
        router.let_in(lambda identity, _: identity in (b"w/j", b"w/c"))
        command = [sys.executable, "-c", code, msgspec.json.encode(settings).decode(), str(JOBS)]
        worker = subprocess.Popen(command)
        try:
            reports = _reports(router)
            assert isinstance(next(reports), Ready | Alive)
            assert isinstance(next(reports), Ready | Alive)
            calls = [("work:nothing", ()), ("work:mark_and_wait", (str(mark), str(gate)))]
            tasks = [
                Task(n, 1, f, encode_call(args, {})[0]) for n, (f, args) in enumerate(calls, 1)
            ]
            router.send(b"w/j", encode([Run("boot", tasks, 1)]))
            ended = next(reports)
            assert isinstance(ended, Outcomes)
            assert [outcome.id for outcome in ended.outcomes] == [1]
            eventually(mark.exists)  # or the second would be given back, not having started
            router.send(b"w/c", encode([StopJob(1, 1), StopJob(2, 7), StopJob(1, 1), GiveBack(1)]))
            given_back = next(reports)
            assert isinstance(given_back, GivenBack)  # by then the others have been obeyed
            assert given_back.attempts == []
            gate.touch()
            ended = next(reports)
            assert isinstance(ended, Outcomes)
            assert [(o.id, o.verdict) for o in ended.outcomes] == [(2, Verdict.RETURNED)]
            router.send(b"w/j", encode([Recorded([1, 2]), Retire()]))
            assert worker.wait(20) == 0
        finally:
            worker.kill()
            worker.wait()


def _reports(router: PoolRouter) -> Iterator[Report]:
    """Yield what a worker sends."""
    while True:
        assert router.is_ready or select.select([router.fd], [], [], 20)[0], (
            "the worker says nothing"
        )
        for _, frame in router.drain(100):
            yield from decode_reports(frame)


def test_a_job_without_a_result_can_be_queued_again(shared: DaemonUnderTest, mark: Path) -> None:
    """Failed, crashed and cancelled ones run again under the same id; their past is kept."""
    client = shared.client()
    failed = client.submit("work:fail")
    crashed = client.submit("faults:crash_while", str(mark), "now")
    succeeded = client.submit("work:add", 1, 2)
    with pytest.raises(JobFailed):
        failed.result(20)
    assert crashed.result(20) == "now"
    assert succeeded.result(20) == 3
    assert client.retry(one(failed.id)) == [(failed.id, "queued again")]
    eventually(lambda: only(client, failed.id).attempt == 2)
    with pytest.raises(JobFailed):
        client.result(failed.id, 20)
    assert [a.number for a in only(client, failed.id).earlier] == [1]
    assert client.retry(one(succeeded.id)) == [(succeeded.id, "already succeeded")]


def test_a_retried_job_has_its_whole_crash_budget_again(shared: DaemonUnderTest) -> None:
    """Two attempts in each round; the numbers go on rising."""
    client = shared.client()
    job = client.submit("faults:end_process", 3)
    for attempts in (2, 4):
        with pytest.raises(JobCrashed, match="exit code 3"):
            client.result(job.id, 20)
        info = only(client, job.id)
        assert (info.attempt, info.crashes) == (attempts, 2)
        client.retry(one(job.id))
    with pytest.raises(JobCrashed):
        client.result(job.id, 20)


# --- workers die


def test_a_worker_that_is_killed_costs_its_own_job_one_attempt(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """It runs once more; the next kill is its end, named SIGKILL; the neighbour sees nothing."""
    client = make_daemon().start().client()
    neighbour = client.submit("faults:wait_at", str(gate) + ".mark", str(gate))
    job = client.submit("faults:wait_at", str(mark), str(gate))
    for attempt in (1, 2):
        eventually(lambda attempt=attempt: len(lines(mark)) == attempt)  # type: ignore[misc]
        assert only(client, job.id).state is State.RUNNING
        os.kill(int(lines(mark)[-1]), signal.SIGKILL)
    with pytest.raises(JobCrashed, match=r"\(SIGKILL\)"):
        job.result(20)
    info = only(client, job.id)
    assert (info.attempt, info.crashes, info.cause) == (2, 2, "SIGKILL")
    gate.touch()
    assert neighbour.result(20) == "through"
    assert only(client, neighbour.id).attempt == 1


def test_all_workers_killed_at_once_leave_the_queue_whole(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """New ones come, those that ran run again, and every job ends."""
    client = make_daemon(pool__workers=4).start().client()
    ready(client, 4)
    jobs = client.submit_many("faults:wait_at", [(str(mark), str(gate))] * 12)
    eventually(lambda: len(lines(mark)) == 4)
    for pid in pids(client):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(lines(mark)) == 8)
    gate.touch()
    assert [job.result(20) for job in jobs] == ["through"] * 12
    assert sorted(only(client, job.id).attempt for job in jobs) == [1] * 8 + [2] * 4


def test_idle_workers_killed_at_once_are_back_soon(make_daemon: Make) -> None:
    """However many: their deaths are one misfortune, not a row of failed starts."""
    client = make_daemon(pool__workers=8).start().client()
    for pid in ready(client, 8):
        os.kill(pid, signal.SIGKILL)
    assert client.submit("work:add", 1, 2).result(20) == 3
    ready(client, 8)
    assert client.status().trouble == []


def test_a_zygote_that_is_killed_is_replaced_and_costs_no_job(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """Its workers go on; what they leave when they die is cleared away all the same."""
    daemon = make_daemon().start()
    client = daemon.client()
    job = client.submit("faults:wait_at", str(mark), str(gate))
    astray = client.submit("faults:stray_and_wait", str(mark) + ".stray", str(gate))
    eventually(lambda: lines(mark))
    (stray,) = map(int, eventually(lambda: lines(Path(f"{mark}.stray"))))
    (zygote,) = zygotes(daemon)
    os.kill(zygote, signal.SIGKILL)
    eventually(lambda: not is_alive(zygote))
    os.kill(eventually(lambda: only(client, astray.id).pid), signal.SIGKILL)
    eventually(lambda: len(lines(Path(f"{mark}.stray"))) == 2)
    eventually(lambda: not is_alive(stray))
    gate.touch()
    assert job.result(20) == "through"
    astray.result(20)
    assert only(client, job.id).attempt == 1
    assert only(client, astray.id).earlier[0].cause == "SIGKILL"
    assert client.submit("work:add", 1, 2).result(20) == 3
    ready(client)
    assert client.status().trouble == []


def test_a_worker_that_stands_still_holds_up_its_own_job_only(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """Under SIGSTOP it cannot obey a cancel: it is killed after the grace."""
    client = make_daemon(pool__kill_grace_s=0.2).start().client()
    ready(client)
    stuck = client.submit("faults:wait_at", str(mark), str(gate))
    (pid,) = map(int, eventually(lambda: lines(mark)))
    os.kill(pid, signal.SIGSTOP)
    others = client.submit_many("work:add", [(n, 1) for n in range(100)])
    assert [h.result(20) for h in others] == [n + 1 for n in range(100)]
    assert not stuck.done()
    client.cancel(one(stuck.id))
    with pytest.raises(JobCancelled):
        stuck.result(20)
    assert not is_alive(pid)
    ready(client)


def test_a_job_that_was_given_to_a_worker_that_stands_still_runs_elsewhere(
    make_daemon: Make,
) -> None:
    """It has not started: the worker is killed, and the job is handed to another without blame."""
    client = make_daemon(jobs__max_crashes=0).start().client()
    for pid in ready(client):
        os.kill(pid, signal.SIGSTOP)
    jobs = client.submit_many("work:add", [(n, 1) for n in range(4)])
    assert [h.result(20) for h in jobs] == [1, 2, 3, 4]
    assert {only(client, h.id).crashes for h in jobs} == {0}


# --- who runs when


def test_jobs_that_wait_behind_a_long_one_are_taken_back_and_run_by_another(
    shared: DaemonUnderTest, gate: Path
) -> None:
    """A function known to be short may be handed ahead; when it turns out long, that is undone."""
    client = shared.client()
    ready(client)
    open_gate = gate.with_name("open")
    open_gate.touch()
    for deferred in client.submit_many("faults:wait_unless_open", [(str(open_gate),)] * 200):
        deferred.result(20)  # a history of short runs
    long = client.submit("faults:wait_unless_open", str(gate))
    behind = client.submit_many("faults:wait_unless_open", [(str(open_gate),)] * 300)
    for deferred in behind:
        deferred.result(20)
    assert not long.done()
    gate.touch()
    long.result(20)
    assert {only(client, h.id).attempt for h in behind} == {1}, "a job taken back had an attempt"


def test_short_jobs_flow_past_a_long_one(shared: DaemonUnderTest, mark: Path, gate: Path) -> None:
    """With one worker held, the other does all that is short, each job once."""
    client = shared.client()
    ready(client)
    long = client.submit("faults:wait_at", str(mark), str(gate))
    eventually(lambda: lines(mark))
    order = gate.with_name("order")
    short = client.submit_many("work:append", [(str(order), str(n)) for n in range(500)])
    for deferred in short:
        deferred.result(20)
    assert sorted(map(int, lines(order))) == list(range(500))
    assert not long.done()
    gate.touch()
    assert long.result(20) == "through"


# --- looking


def test_status_shows_the_workers_and_the_counts(make_daemon: Make, mark: Path, gate: Path) -> None:
    """Who is busy with what, how much waits, and how big all of it is."""
    daemon = make_daemon().start()
    client = daemon.client()
    idle = ready(client)
    jobs = client.submit_many("faults:wait_at", [(str(mark), str(gate))] * 5)
    jobs[0].id  # noqa: B018  # waits until they are durable
    eventually(lambda: len(lines(mark)) == 2)
    status = client.status()
    assert (status.pid, status.state_dir) == (daemon.pid, str(daemon.state_dir))
    assert (status.socket, status.durability) == (daemon.socket, "full")
    assert {w.pid for w in status.workers} == idle == {int(pid) for pid in lines(mark)}
    assert {w.job for w in status.workers} == {jobs[0].id, jobs[1].id}
    assert {w.state for w in status.workers} == {"busy"}
    assert all(w.rss_bytes > 2**20 for w in status.workers)
    assert status.rss_bytes > 2**20
    assert (status.jobs["running"], status.jobs["queued"]) == (2, 3)
    gate.touch()
    for job in jobs:
        job.result(20)
    assert client.status().jobs["succeeded"] == 5
    assert {w.job for w in client.status().workers} == {0}


def test_a_job_shows_its_whole_life(shared: DaemonUnderTest, mark: Path, gate: Path) -> None:
    """Function, instants in their order, attempt, worker, and how much it wrote."""
    client = shared.client()
    ready(client)
    before = time.time_ns() // 1000
    job = client.submit("faults:wait_at", str(mark), str(gate))
    (pid,) = map(int, eventually(lambda: lines(mark)))
    info = only(client, job.id)
    assert (info.state, info.function, info.attempt) == (State.RUNNING, "faults:wait_at", 1)
    assert (info.pid, info.ended_at) == (pid, 0)
    gate.touch()
    job.result(20)
    info = only(client, job.id)
    assert before <= info.created_at <= info.started_at <= info.ended_at
    assert (info.state, info.pid, info.log_bytes) == (State.SUCCEEDED, pid, 0)
    with pytest.raises(NotFound, match="there is no job 4242"):
        only(client, 4242)


def test_a_listing_has_the_newest_first_and_comes_in_pages(make_daemon: Make) -> None:
    """Filtered by state, and never more than was asked for."""
    client = make_daemon().start().client()
    for deferred in client.submit_many("work:add", [(n, 0) for n in range(25)]):
        deferred.result(20)
    with pytest.raises(JobFailed):
        client.submit("work:fail").result(20)
    everything = Selector(all=True)
    found, more = client.page(everything, 10)
    assert ([job.id for job in found], more) == (list(range(26, 16, -1)), True)
    found, more = client.page(everything, 10, before=found[-1].id)
    found, more = client.page(everything, 10, before=found[-1].id)
    assert ([job.id for job in found], more) == ([6, 5, 4, 3, 2, 1], False)
    found, more = client.page(Selector(all=True, states=[State.FAILED]), 10)
    assert ([job.id for job in found], more) == ([26], False)
    assert [job.id for job in client.find(Selector(last=3))] == [26, 25, 24]
    assert client.page(Selector(all=True, states=[State.RUNNING]), 10) == ([], False)


def test_output_is_followed_across_a_crash(make_daemon: Make, mark: Path, gate: Path) -> None:
    """What each attempt writes comes while it runs, and nothing is lost or told twice."""
    daemon = make_daemon()
    daemon.write_module(
        "chatty",
        "import os, time\n"
        "def run(mark, gate):\n"
        "    with open(mark, 'a') as file:\n"
        "        file.write('x\\n')\n"
        "    attempt = os.path.getsize(mark) // 2\n"
        "    print(f'attempt {attempt} begins', flush=True)\n"
        "    while not os.path.exists(f'{gate}{attempt}'):\n"
        "        time.sleep(0.005)\n"
        "    print(f'attempt {attempt} ends', flush=True)\n"
        "    if attempt == 1:\n"
        "        os._exit(1)\n",
    )
    client = daemon.start().client()
    job = client.submit("chatty:run", str(mark), str(gate))
    pieces = daemon.client().logs(job.id, follow=True)
    assert next(pieces) == b"attempt 1 begins\n"
    Path(f"{gate}1").touch()
    assert next(pieces) == b"attempt 1 ends\n"
    assert next(pieces) == b"attempt 2 begins\n"  # while it waits at its gate
    assert not job.done()
    Path(f"{gate}2").touch()
    assert b"".join(pieces) == b"attempt 2 ends\n"
    job.result(20)
    assert b"".join(client.logs(job.id, attempt=1)) == b"attempt 1 begins\nattempt 1 ends\n"


def test_a_follower_that_comes_late_gets_all_attempts_that_are_left(
    shared: DaemonUnderTest, mark: Path
) -> None:
    """After the job's end, from the first attempt on if it asks for that."""
    client = shared.client()
    job = client.submit("faults:crash_while", str(mark), "try")
    job.result(20)
    assert b"".join(client.logs(job.id, attempt=1, follow=True)) == b"try 1\ntry 2\n"
    assert b"".join(client.logs(job.id, follow=True)) == b"try 2\n"
    with pytest.raises(NotFound):
        next(client.logs(999_999))


def test_a_follower_of_a_job_that_waits_is_told_when_it_is_over(
    shared: DaemonUnderTest, mark: Path, gate: Path
) -> None:
    """Even if it never ran."""
    client = shared.client()
    ready(client)
    running = client.submit_many("faults:wait_at", [(str(mark), str(gate))] * 2)
    eventually(lambda: len(lines(mark)) == 2)
    queued = client.submit("faults:say", "hello")
    cancelled = client.submit("faults:say", "hello")
    assert list(client.logs(queued.id)) == []
    found: list[bytes] = []
    follower = threading.Thread(
        target=lambda: found.extend(shared.client().logs(queued.id, follow=True))
    )
    follower.start()
    client.cancel(one(cancelled.id))
    assert list(client.logs(cancelled.id, follow=True)) == []
    gate.touch()
    follower.join(20)
    assert found == [b"hello\n"]
    for deferred in running:
        deferred.result(20)


def test_what_an_attempt_wrote_is_there_while_the_job_waits_for_the_next(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """It has crashed, and another job that comes first has the only worker."""
    daemon = make_daemon(pool__workers=1)
    daemon.write_module(
        "story",
        "import os, time\n"
        "def wait(path):\n"
        "    while not os.path.exists(path):\n"
        "        time.sleep(0.005)\n"
        "def fail_then_wait(gate):\n"
        "    if not os.path.exists(gate + '.retry'):\n"
        "        raise ValueError('first')\n"
        "    wait(gate)\n"
        "def crash_then_wait(mark, gate):\n"
        "    print('hello', flush=True)\n"
        "    if not os.path.exists(mark):\n"
        "        open(mark, 'w').close()\n"
        "        wait(gate + '.retry')\n"
        "        os._exit(1)\n",
    )
    client = daemon.start().client()
    first = client.submit("story:fail_then_wait", str(gate))
    with pytest.raises(JobFailed):
        first.result(20)
    job = client.submit("story:crash_then_wait", str(mark), str(gate))
    eventually(mark.exists)
    assert client.retry(one(first.id)) == [(first.id, "queued again")]
    Path(f"{gate}.retry").touch()
    eventually(lambda: only(client, first.id).state is State.RUNNING)
    assert only(client, job.id).state is State.QUEUED
    assert b"".join(client.logs(job.id, attempt=1)) == b"hello\n"
    assert b"".join(client.logs(job.id)) == b"hello\n"
    gate.touch()
    job.result(20)
    assert b"".join(client.logs(job.id, attempt=1, follow=True)) == b"hello\nhello\n"


def test_a_queue_of_the_first_release_is_taken_over(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """Its results and errors are told, and what was waiting runs, what was running first."""
    olds = """\
        import time

        def noop(n):
            return n
        """
    daemon = make_daemon(modules={"olds": textwrap.dedent(olds)})
    daemon.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(sqlite3.connect(daemon.state_dir / "jobd.db")) as connection:
        connection.executescript(OLD.read_text(encoding="utf-8"))
        connection.executescript("PRAGMA application_id = 0x6A6F6264; PRAGMA user_version = 1;")
    daemon.start()
    client = daemon.client()
    assert client.result(1) == 5
    with pytest.raises(JobFailed, match="boo"):
        client.result(2)
    client.cancel(6)  # it sleeps for ten minutes
    assert client.result(56, timeout=20) == 49
    assert client.submit("olds:noop", 1).id == 57
    assert (daemon.state_dir / "jobd.db.backup-v1").exists()
