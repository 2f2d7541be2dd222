"""Daemons that belong to one process: they end with it, and nothing of them is left."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import private_jobs
import pytest
from harness import eventually, is_alive

import jobd
from jobd.blobs import memory_directory
from jobd.model.errors import InitializerFailed, JobdError
from jobd.private import ABANDONED_S, PREFIX, PrivateDaemon
from jobd.testing import Daemon, daemon

OWNER = """
import sys, time
import jobd, jobd.testing
with jobd.testing.daemon(workers=1) as d:
    client = jobd.Client()
    client.submit("private_jobs:hang", sys.argv[1]).id
    print(d.pid, d.socket, flush=True)
    sys.stdin.read()
"""


def processes_of(directory: str) -> list[int]:
    """Return the pids of living processes with this directory on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if directory.encode() in words and is_alive(int(entry.name)):
                found.append(int(entry.name))
    return found


class Owned:
    """A process that has a private daemon, with a job that never ends."""

    def __init__(self, mark: Path) -> None:
        support = str(Path(private_jobs.__file__).parent)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", OWNER, str(mark)],
            env=os.environ | {"PYTHONPATH": support},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        pid, self.socket = self.process.stdout.readline().split()
        self.pid, self.directory = int(pid), os.path.dirname(self.socket)
        eventually(mark.exists)

    def close(self) -> None:
        """End what a test has left."""
        self.process.kill()
        self.process.communicate()
        for pid in processes_of(self.directory):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def owned(tmp_path: Path) -> Iterator[Owned]:
    """Return such a process."""
    process = Owned(tmp_path / "mark")
    yield process
    process.close()


def test_a_daemon_for_a_test_is_found_by_the_client_and_leaves_nothing() -> None:
    """Within the block `jobd.Client()` reaches it; after it no process and no file are left."""
    with daemon(workers=1) as running:
        directory = os.path.dirname(running.socket)
        with jobd.Client() as client:
            assert client.submit("math:factorial", 5).result(timeout=20) == 120
            assert client.status().durability == "off"
            assert len(client.status().workers) == 1
        assert processes_of(directory)
    assert not processes_of(directory)
    assert not Path(directory).exists()
    assert "JOBD_SOCKET" not in os.environ


def test_the_fixture_gives_a_running_daemon(jobd_daemon: Daemon) -> None:
    """The fixture `jobd_daemon` comes by an entry point: nothing has to be imported for it."""
    with jobd_daemon.client() as client:
        assert client.submit("operator:add", 1, 2).result(timeout=20) == 3


def test_settings_are_given_by_name_with_underscores_for_the_dot(tmp_path: Path) -> None:
    """`limits__max_queued=…` is `limits.max_queued`; an unknown name is refused, nothing is left."""
    with daemon(path=[str(tmp_path)], limits__max_queued=1), jobd.Client() as client:
        handles = client.submit_many("time:sleep", [(0,), (0,)])
        with pytest.raises(jobd.QueueFull):
            assert handles[0].id
    with (
        pytest.raises(jobd.ConfigError, match="LIMITS_NO_SUCH_THING"),
        daemon(limits__no_such_thing=1),
    ):
        pass


def test_the_environment_of_the_owner_reaches_jobs_but_not_what_is_about_a_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Jobs see the owner's variables; a unit's socket and another daemon's settings stay behind."""
    monkeypatch.setenv("SOMETHING", "else")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("JOBD_POOL_WORKERS", "3")
    with daemon(workers=1), jobd.Client() as client:
        names = ["SOMETHING", "NOTIFY_SOCKET", "JOBD_POOL_WORKERS"]
        found = list(client.map("private_jobs:environment", names, timeout=20))
    assert found == ["else", None, None]


def test_a_daemon_ends_when_its_owner_is_killed(owned: Owned) -> None:
    """`kill -9` of the owner ends daemon, zygote, workers and the job, and removes the directory."""
    assert len(processes_of(owned.directory)) >= 3
    owned.process.kill()
    eventually(lambda: not processes_of(owned.directory))
    eventually(lambda: not Path(owned.directory).exists())


def test_the_workers_end_when_owner_and_daemon_are_killed(owned: Owned) -> None:
    """With both killed the zygote ends the workers; the next private daemon removes the directory."""
    os.kill(owned.process.pid, signal.SIGSTOP)  # so that it does not clean up after its daemon
    os.kill(owned.pid, signal.SIGKILL)
    owned.process.kill()
    eventually(lambda: not processes_of(owned.directory))
    assert Path(owned.directory).exists()
    with daemon(workers=1):
        assert Path(owned.directory).exists(), "it is so young that its daemon may be starting"
    then = time.time() - ABANDONED_S - 1
    os.utime(owned.directory, (then, then))
    with daemon(workers=1) as running:
        mine = os.path.dirname(running.socket)
        os.utime(mine, (then, then))
        with daemon(workers=1):
            assert Path(mine).exists(), "its daemon lives"
    assert not Path(owned.directory).exists()


def test_a_forked_child_does_not_end_its_parents_daemon() -> None:
    """At its exit a child drops its copy of the object; the daemon is not its own."""
    private = PrivateDaemon(1)
    pid = os.fork()
    if pid == 0:
        private.stop()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    with jobd.Client(private.socket) as client:
        assert client.ping() < 20
    private.stop()
    private.stop()
    assert not Path(private.socket).exists()


def test_a_long_temporary_directory_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A socket's path has at most 107 bytes, so the directory is put where there is room for it."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    private = PrivateDaemon(1)
    assert private.socket.startswith(f"/tmp/{PREFIX}")  # noqa: S108  # nothing is made there
    private.stop()


def test_an_initializer_runs_first_in_every_worker() -> None:
    """Each worker makes the call once before its first job, one that replaces another too."""
    initializer = pickle.dumps((private_jobs.remember, ("this", 1)))
    private = PrivateDaemon(1, initializer=initializer, settings={"jobs.max_crashes": 0})
    with jobd.Client(private.socket) as client:
        first, told = client.submit("private_jobs:remembered").result(timeout=20)
        assert told == ["this", 1]
        with pytest.raises(jobd.JobCrashed):
            client.submit("private_jobs:vanish", 3).result(timeout=20)
        second, told = client.submit("private_jobs:remembered").result(timeout=20)
        assert told == ["this", 1]
        assert first != second
    private.stop()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ((private_jobs.fail, ("no licence",)), "the initializer failed: ValueError: no licence"),
        ((private_jobs.vanish, (5,)), "the initializer failed: its worker ended: exit code 5"),
    ],
)
def test_an_initializer_that_fails_ends_the_daemon(call: object, told: str) -> None:
    """No job can run then; the daemon ends and says why."""
    private = PrivateDaemon(1, initializer=pickle.dumps(call))
    try:
        error: JobdError = private.why_it_ended()
        assert isinstance(error, InitializerFailed)
        assert error.message == told
    finally:
        private.stop()


@pytest.mark.parametrize("killed", [False, True])
def test_large_payloads_go_with_the_daemon(*, killed: bool) -> None:
    """They lie in memory, outside of its directory."""
    private = PrivateDaemon(1)
    with jobd.Client(private.socket) as client:
        assert client.submit("builtins:bytes", 1_000_000).result(timeout=20) == bytes(1_000_000)
        memory = memory_directory(client.welcome.state_dir)
        assert any(Path(memory).iterdir())
    if killed:
        private.process.kill()
    private.stop()
    assert not Path(memory).exists()
