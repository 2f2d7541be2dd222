"""The daemon under systemd: a pretended one for the details, a real one for the unit."""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import itertools
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_systemd import FakeSystemd
from harness import DaemonUnderTest, eventually, is_alive, lines

from jobd.client import Client
from jobd.config import Settings
from jobd.daemon import lifecycle
from jobd.model import errors

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
UNIT = ROOT / "systemd" / "jobd.service"

MakeDaemon = Callable[..., DaemonUnderTest]


@pytest.fixture
def systemd() -> Iterator[FakeSystemd]:
    """Return a service manager that listens, and whose unit has no watchdog."""
    with FakeSystemd() as systemd:
        yield systemd


def started(
    make_daemon: MakeDaemon, environ: dict[str, str], *, wait: bool = True
) -> DaemonUnderTest:
    """Start a daemon as a service manager with this in its environment would."""
    daemon = make_daemon()
    daemon.environ |= environ
    return daemon.start(wait=wait)


@contextlib.contextmanager
def limited(what: int, soft: int) -> Iterator[int]:
    """Lower a limit for processes that are started meanwhile; gives the hard one, which stays."""
    before, hard = resource.getrlimit(what)
    resource.setrlimit(what, (soft, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(what, (before, hard))


def children(pid: int) -> set[int]:
    """The pids of a process's living descendants."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text(encoding="ascii").split()):
            found |= {child} | children(child)
    return found


# -- started ---------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_is_told_by_the_daemon_itself_once_clients_are_served(
    make_daemon: MakeDaemon,
    abstract: bool,  # noqa: FBT001
) -> None:
    """What systemd starts after jobd may submit at once."""
    with FakeSystemd(abstract=abstract) as systemd:
        daemon = started(make_daemon, systemd.environ, wait=False)
        ready = systemd.wait_for("READY")
        with Client(daemon.socket) as client:
            assert client.submit("math:factorial", 5).result(20) == 120
        assert ready.words["STATUS"] == "running"
        assert {heard.pid for heard in systemd.heard} == {daemon.pid}  # NotifyAccess=main


def test_a_manager_that_is_busy_holds_nothing_up_and_hears_it_later(
    make_daemon: MakeDaemon, systemd: FakeSystemd
) -> None:
    """At boot a hundred units talk at once; a READY that got lost would fail the start."""
    systemd.stuff()
    daemon = started(make_daemon, systemd.environ)
    assert daemon.client().submit("math:factorial", 5).result(20) == 120
    systemd.wait_for("READY")


def test_a_daemon_that_cannot_start_never_says_that_it_is_ready(
    make_daemon: MakeDaemon, systemd: FakeSystemd
) -> None:
    """A second one on the same directory ends with the code that keeps systemd from retrying."""
    first = make_daemon().start()
    command = [sys.executable, "-P", "-m", "jobd", "start", "--foreground"]
    second = subprocess.run(
        command, env=first.environ | systemd.environ, check=False, capture_output=True, timeout=20
    )
    assert second.returncode == 75, second.stderr
    assert systemd.states == []


def test_a_full_disk_at_the_start_is_an_error_that_systemd_tries_again(
    make_daemon: MakeDaemon,
) -> None:
    """It heals when somebody makes room; nobody must be told to move a sound store away."""
    daemon = make_daemon().start()
    assert daemon.terminate() == 0
    with limited(resource.RLIMIT_FSIZE, 4096):  # room for a lock, not for SQLite's own files
        daemon.start(wait=False)
    assert daemon.wait() == errors.DiskFull.code, daemon.log
    assert "disk full" in daemon.log
    assert "move" not in daemon.log
    daemon.start()
    assert daemon.client().submit("math:factorial", 5).result(20) == 120


@pytest.mark.parametrize("case", ["absent", "nobody listens"])
def test_a_manager_that_cannot_be_reached_changes_nothing(
    make_daemon: MakeDaemon, tmp_path: Path, case: str
) -> None:
    """The daemon starts, serves, reloads and ends all the same."""
    stale = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as closed:
        closed.bind(str(stale))
    address = {
        "absent": "",
        "nobody listens": str(stale),
    }[case]
    words = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"} if address else {}
    daemon = started(make_daemon, words)
    client = daemon.client()
    client.reload()
    assert client.submit("math:factorial", 5).result(20) == 120
    client.close()
    assert daemon.terminate() == 0


def test_neither_jobs_nor_their_helpers_can_speak_for_the_daemon(
    make_daemon: MakeDaemon, systemd: FakeSystemd
) -> None:
    """With NOTIFY_SOCKET a job could end its unit, with the watchdog's variables confuse a tool."""
    words = {"WATCHDOG_USEC": "60000000"}
    daemon = started(make_daemon, systemd.environ | words)
    client = daemon.client()
    environ = client.submit("os:environ.copy").result(20)
    shell = client.submit("subprocess:check_output", ["env"]).result(20).decode()
    hidden = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
    assert not hidden & environ.keys()
    assert not hidden & {line.partition("=")[0] for line in shell.splitlines()}
    helpers = children(daemon.pid)
    assert len(helpers) >= 3  # the zygote and two workers
    for pid in helpers:
        given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert not hidden & {os.fsdecode(line.partition(b"=")[0]) for line in given}


def test_jobs_get_the_limit_on_files_that_the_unit_sets(make_daemon: MakeDaemon) -> None:
    """The daemon raises its own; with that many, select(2) and close-all loops of jobs break."""
    with limited(resource.RLIMIT_NOFILE, 500) as hard:
        daemon = make_daemon().start()
    limits = daemon.client().submit("resource:getrlimit", resource.RLIMIT_NOFILE).result(20)
    assert tuple(limits) == (500, hard)


# -- the watchdog ----------------------------------------------------------------------


def test_pings_come_more_often_than_the_unit_demands(make_daemon: MakeDaemon) -> None:
    """Also while jobs run; the times are those of the kernel, not of this test."""
    with FakeSystemd(watchdog_s=1.6) as systemd:
        daemon = started(make_daemon, systemd.environ)
        daemon.client().submit("work:sleep", 0.5)
        eventually(lambda: len(systemd.pings_at_s) >= 3)
        ready_at_s = systemd.heard[0].at_s
        moments = [ready_at_s, *systemd.pings_at_s]
        assert max(later - sooner for sooner, later in itertools.pairwise(moments)) < 1.6


def test_a_daemon_that_does_not_get_on_stops_pinging(make_daemon: MakeDaemon) -> None:
    """Pings come from the loop itself: no thread pings for one that is stuck."""
    with FakeSystemd(watchdog_s=0.2) as systemd:
        daemon = started(make_daemon, systemd.environ)
        systemd.wait_for_pings(1)
        os.kill(daemon.pid, signal.SIGSTOP)
        systemd.wait_for_silence(0.6)
        os.kill(daemon.pid, signal.SIGCONT)
        systemd.wait_for_pings(2)
        assert daemon.client().submit("math:factorial", 5).result(20) == 120


def test_a_commit_that_hangs_stops_the_pings_and_one_that_goes_on_resumes_them(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """The loop turns on, but nothing can be acknowledged: that is no progress."""
    gate = tmp_path / "the-disk-hangs"
    with FakeSystemd(watchdog_s=0.2) as systemd:
        daemon = started(make_daemon, systemd.environ | hanging_commits(tmp_path, gate))
        client = daemon.client()
        gate.touch()
        deferred = client.submit("math:factorial", 5)
        systemd.wait_for_silence(0.6)
        gate.unlink()
        systemd.wait_for_pings(2)
        assert deferred.result(20) == 120


def hanging_commits(directory: Path, gate: Path) -> dict[str, str]:
    """Return the environment of a daemon whose commits hang as long as the file ``gate`` exists."""
    text = f"""\
import os, sys, time

if "--foreground" in sys.orig_argv:
    from jobd.daemon import writer
    from jobd.store import Store

    commit = Store.commit

    def hang(self):
        while os.path.exists({str(gate)!r}):
            time.sleep(0.01)
        commit(self)

    writer.COMMIT_HANGS_S = 0.2
    Store.commit = hang
"""
    (directory / "sitecustomize.py").write_text(text, encoding="utf-8")
    before = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": f"{directory}{os.pathsep}{before}".rstrip(os.pathsep)}


# -- reloaded and stopped --------------------------------------------------------------


def test_a_hangup_reloads_and_tells_when_it_began_and_that_it_is_over(
    make_daemon: MakeDaemon, systemd: FakeSystemd
) -> None:
    """`systemctl reload` and Type=notify-reload both wait for the second READY."""
    daemon = started(make_daemon, systemd.environ)
    client = daemon.client()
    before = {client.submit("os:getpid").result(20) for _ in range(4)}
    ready = systemd.wait_for("READY")
    os.kill(daemon.pid, signal.SIGHUP)
    systemd.wait_for("READY", "RELOADING", "READY")
    reloading = next(heard for heard in systemd.heard if heard.state == "RELOADING")
    assert int(reloading.words["MONOTONIC_USEC"]) > 0
    assert reloading.at_s > ready.at_s
    eventually(lambda: client.submit("os:getpid").result(20) not in before)
    assert systemd.states == ["READY", "RELOADING", "READY"]


def test_a_submit_that_is_being_checked_outlives_a_reload(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """The checker is replaced like a worker; what it was asked, the next one is asked."""
    daemon = make_daemon()
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    daemon.write_module("slow", f"import work\nwork.mark_and_wait({str(mark)!r}, {str(gate)!r})\n")
    daemon.start()
    client = daemon.client()
    deferred = client.submit("slow:work.add", 41)
    eventually(lambda: lines(mark))  # written, not only opened
    os.kill(daemon.pid, signal.SIGHUP)
    eventually(lambda: len(mark.read_text(encoding="ascii").split()) == 2)
    gate.touch()
    assert deferred.result(20) == 42


def test_a_stop_is_told_when_it_begins_and_ends_with_exit_code_0(
    make_daemon: MakeDaemon, systemd: FakeSystemd, tmp_path: Path
) -> None:
    """A running job gets its time, and systemd knows meanwhile what it waits for."""
    daemon = started(make_daemon, systemd.environ)
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    with daemon.client() as client:
        client.submit("work:mark_and_wait", str(mark), str(gate))
    eventually(mark.exists)
    os.kill(daemon.pid, signal.SIGTERM)
    stopping = systemd.wait_for("READY", "STOPPING")
    assert stopping.words["STATUS"] == "draining"
    assert is_alive(daemon.pid)
    gate.touch()
    assert daemon.wait() == 0
    assert systemd.states == ["READY", "STOPPING"]
    assert systemd.pings_at_s == []  # this unit has no watchdog


def test_a_stop_right_after_the_start_is_a_stop_and_not_a_death(make_daemon: MakeDaemon) -> None:
    """Whoever is told that the daemon runs may stop it the next moment."""
    daemon = make_daemon()
    read_fd, write_fd = os.pipe()
    os.write(write_fd, bytes(fcntl.fcntl(write_fd, fcntl.F_GETPIPE_SZ)))  # the telling takes long
    command = [sys.executable, "-P", "-m", "jobd", "start", "--foreground"]
    with daemon.log_path.open("ab") as log:
        daemon.process = subprocess.Popen(
            [*command, "--ready-fd", str(write_fd)],
            env=daemon.environ,
            stderr=log,
            pass_fds=(write_fd,),
        )
    os.close(write_fd)
    eventually(lambda: "is running" in daemon.log)
    daemon.process.terminate()
    with os.fdopen(read_fd, "rb") as ready:
        assert ready.read().strip(b"\0") == f"{daemon.pid}\n".encode()
    assert daemon.wait() == 0


@pytest.mark.parametrize("drain_s", [None, 0.0, 1e9])
def test_a_stop_that_a_client_asks_for_is_told_too_whatever_time_it_gives(
    make_daemon: MakeDaemon, systemd: FakeSystemd, drain_s: float | None
) -> None:
    """For systemd the unit is stopping, not failing, whoever has stopped it."""
    daemon = started(make_daemon, systemd.environ)
    daemon.client().stop(drain_s)
    assert daemon.wait() == 0
    stopping = systemd.wait_for("READY", "STOPPING")
    assert 0 < int(stopping.words["EXTEND_TIMEOUT_USEC"]) < 2**53


def test_a_long_drain_asks_for_the_time_that_it_may_take(
    make_daemon: MakeDaemon, systemd: FakeSystemd
) -> None:
    """Else TimeoutStopSec= of the unit would cut short what drain_s= in jobd.toml promises."""
    settings = {"JOBD_DAEMON_DRAIN_S": "600", "JOBD_POOL_KILL_GRACE_S": "20"}
    daemon = started(make_daemon, systemd.environ | settings)
    assert daemon.terminate() == 0
    stopping = systemd.wait_for("READY", "STOPPING")
    assert int(stopping.words["EXTEND_TIMEOUT_USEC"]) > 620e6


def test_a_hangup_while_draining_reloads_nothing(
    make_daemon: MakeDaemon, systemd: FakeSystemd, tmp_path: Path
) -> None:
    """READY after STOPPING would tell that a daemon runs which is about to end."""
    daemon = started(make_daemon, systemd.environ)
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    with daemon.client() as client:
        client.submit("work:mark_and_wait", str(mark), str(gate))
    eventually(mark.exists)
    os.kill(daemon.pid, signal.SIGTERM)
    systemd.wait_for("READY", "STOPPING")
    os.kill(daemon.pid, signal.SIGHUP)
    eventually(lambda: "SIGHUP" in daemon.log)
    gate.touch()
    assert daemon.wait() == 0
    assert systemd.states == ["READY", "STOPPING"]


# -- the unit --------------------------------------------------------------------------


def settings_of(unit: Path, section: str) -> dict[str, str]:
    """The settings in a section of a unit file; of one that stands there twice, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names as they stand there
    parser.read_string(unit.read_text(encoding="utf-8"))
    return dict(parser[section])


def seconds(text: str) -> float:
    """A duration as units have it."""
    number = text.removesuffix("min")
    return float(number) * (60 if number != text else 1)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("drop_in", [None, "strict.conf"])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, drop_in: str | None) -> None:
    """`systemd-analyze verify` knows every setting; only where Python is differs here."""
    unit = tmp_path / "jobd.service"
    text = UNIT.read_text(encoding="utf-8")
    assert "ExecStart=/opt/jobd/bin/python " in text
    unit.write_text(text.replace("/opt/jobd/bin/python", sys.executable), encoding="utf-8")
    if drop_in:
        (tmp_path / "jobd.service.d").mkdir()
        shutil.copy(UNIT.parent / drop_in, tmp_path / "jobd.service.d")
    done = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", str(unit)],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    about_us = [line for line in done.stderr.splitlines() if "jobd" in line]
    assert (done.returncode, about_us) == (0, [])


def test_the_times_of_the_unit_leave_room_for_what_the_defaults_promise() -> None:
    """The manager must not cut a drain short, nor take a slow commit for a hang."""
    unit, settings = settings_of(UNIT, "Service"), Settings()
    needed = settings.daemon.drain_s + settings.pool.kill_grace_s + lifecycle.CLOSE_S
    assert seconds(unit["TimeoutStopSec"]) > needed
    assert seconds(unit["WatchdogSec"]) >= 10
    assert seconds(unit["TimeoutStartSec"]) > seconds(unit["TimeoutStopSec"])


def test_the_unit_does_not_restart_what_a_restart_cannot_mend() -> None:
    """The exit codes of errors that only a person can mend stand in the unit."""
    unit = settings_of(UNIT, "Service")
    hopeless = {errors.UsageError, errors.AlreadyRunning, errors.Denied, errors.ConfigError}
    assert {int(code) for code in unit["RestartPreventExitStatus"].split()} == {
        error.code for error in hopeless
    }
    assert str(errors.StoreFailed.code) not in unit["RestartPreventExitStatus"].split()


# -- the unit in a real systemd; each chapter is a function of support/unit_story.py -----


def live_through(chapter: str) -> None:
    """Boot a systemd of its own and live through a chapter there; skip where that cannot be."""
    done = subprocess.run(
        [
            *(str(SUPPORT / "run-in-systemd.sh"), "--timeout", "50"),
            *("--see", str(ROOT), "--see", sys.prefix, "--see", sys.base_prefix),
            *(sys.executable, str(SUPPORT / "unit_story.py"), chapter),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=58,
    )
    if done.returncode == 77:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_started_unit_serves_root_and_its_own_user_and_nobody_else() -> None:
    """The unit reaches Type=notify's "active", and a job submitted to its socket its result."""
    live_through("started_and_used")


def test_jobs_of_the_unit_have_cgroups_that_it_was_delegated() -> None:
    """Through reload, restart and stop; without Delegate= the limits are rlimits."""
    live_through("delegated")


def test_a_reload_of_the_unit_replaces_the_workers_and_not_the_daemon() -> None:
    """`systemctl reload jobd` is for new versions of the users' modules."""
    live_through("reloaded")


def test_a_killed_daemon_is_started_again_and_has_every_acknowledged_job() -> None:
    """`kill -9` of the main process loses nothing."""
    live_through("killed")


def test_a_stop_of_the_unit_leaves_no_process_and_what_ran_runs_again() -> None:
    """Not even one that a job has sent off into a session of its own."""
    live_through("stopped")


def test_a_unit_with_a_wrong_setting_fails_at_once_and_is_not_restarted() -> None:
    """`systemctl start` says so, and the log names the setting."""
    live_through("misconfigured")


def test_a_daemon_that_is_stuck_is_ended_and_started_again() -> None:
    """The watchdog of the unit is armed, and the log tells where the daemon was."""
    live_through("stuck")


def test_a_job_of_the_unit_can_do_what_its_user_can() -> None:
    """No line of the unit takes anything from jobs but the way to become somebody else."""
    live_through("unhindered")


def test_jobd_works_with_the_strict_drop_in() -> None:
    """What it takes from jobs, jobd itself does not need."""
    live_through("strict")
