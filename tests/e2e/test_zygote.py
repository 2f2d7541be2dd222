"""A zygote that hangs: it is replaced, that is said, and what runs is not touched."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually, is_alive, lines

from jobd.client import Client
from jobd.model.job import JobInfo
from jobd.model.selector import one
from jobd.pool import linux

Make = Callable[..., DaemonUnderTest]


def only(client: Client, number: int) -> JobInfo:
    """Return one job with all its details."""
    (info,) = client.find(one(number))
    return info


def ready(client: Client, workers: int = 2) -> set[int]:
    """Wait until so many workers are idle; return their pids."""
    eventually(lambda: [w.state for w in client.status().workers] == ["idle"] * workers)
    return {w.pid for w in client.status().workers}


def zygote_of(daemon: DaemonUnderTest) -> int:
    """Return the pid of the daemon's only zygote (the workers are its children)."""
    (zygote,) = [pid for pid in linux.children(daemon.pid) if is_alive(pid)]
    return zygote


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process, and let it go on at the end, should it live then."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: linux.is_stopped(pid))
    try:
        yield
    finally:
        linux.signal_quietly(pid, signal.SIGCONT)


def test_a_stopped_zygote_is_told_of_and_replaced(make_daemon: Make) -> None:
    """Workers are missing and cannot be started: status says why, and a moment later there are some."""
    daemon = make_daemon().start()
    client = daemon.client()
    workers, zygote = ready(client), zygote_of(daemon)
    with stopped(zygote):
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        job = client.submit_encoded("work:add", [b"j[[1,2],{}]"], [(2, ())], check=False)[0]
        (said,) = eventually(lambda: client.status().trouble)
        assert f"the zygote (pid {zygote})" in said
        assert job.result(20) == 3
    assert not is_alive(zygote)
    assert not ready(client) & workers
    assert client.status().trouble == []
    said = f"the zygote (pid {zygote}) was stopped by a signal: it is replaced"
    assert said in daemon.log


def test_an_idle_daemon_notices_a_stopped_zygote_too(make_daemon: Make) -> None:
    """Not only when it needs it: the next worker starts without a delay. The workers stay."""
    daemon = make_daemon().start()
    client = daemon.client()
    workers, zygote = ready(client), zygote_of(daemon)
    with stopped(zygote):
        eventually(lambda: not is_alive(zygote))
    assert ready(client) == workers
    assert client.submit("work:add", 1, 2).result(20) == 3  # its checker is forked by a new one
    (fresh,) = {pid for pid in linux.children(daemon.pid) if is_alive(pid)} - workers
    assert fresh != zygote


def test_what_runs_goes_on_and_deaths_are_judged_without_the_zygote(
    make_daemon: Make, mark: Path, gate: Path
) -> None:
    """One job ends as if nothing had been; the other one's worker is killed, and its end is named."""
    daemon = make_daemon().start()
    client = daemon.client()
    ready(client)
    job = client.submit("faults:wait_at", str(mark), str(gate))
    doomed = client.submit("faults:wait_at", str(mark), str(gate))
    eventually(lambda: len(lines(mark)) == 2)
    with stopped(zygote_of(daemon)):
        os.kill(eventually(lambda: only(client, doomed.id).pid), signal.SIGKILL)
        eventually(lambda: len(lines(mark)) == 3)  # it runs again, in a worker of the next zygote
        gate.touch()
        assert [job.result(20), doomed.result(20)] == ["through"] * 2
    assert only(client, job.id).attempt == 1
    assert [past.cause for past in only(client, doomed.id).earlier] == ["SIGKILL"]


def test_a_reload_helps_too(make_daemon: Make) -> None:
    """The old workers end, though their zygote does not hear of it; in the end it is gone as well."""
    daemon = make_daemon().start()
    client = daemon.client()
    workers, zygote = ready(client), zygote_of(daemon)
    with stopped(zygote):
        client.reload()
        eventually(lambda: not {w.pid for w in client.status().workers} & workers)
        assert client.submit("work:add", 1, 2).result(20) == 3
        ready(client)
        eventually(lambda: not is_alive(zygote))
    assert not [pid for pid in workers if is_alive(pid)]


@pytest.mark.parametrize("kill_first", [False, True])
def test_a_daemon_stops_with_a_stopped_zygote(make_daemon: Make, *, kill_first: bool) -> None:
    """Whether its workers are there or starting; nothing is left of any process."""
    daemon = make_daemon().start()
    client = daemon.client()
    workers = ready(client)
    with stopped(zygote_of(daemon)):
        for pid in workers if kill_first else ():
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        client.stop(drain_s=0, timeout=20)
        assert daemon.wait() == 0
        assert time.monotonic() - began < 10
    assert not daemon.processes()


def test_a_daemon_drains_with_a_stopped_zygote(make_daemon: Make, mark: Path, gate: Path) -> None:
    """The job that runs comes to its end, and that is on record."""
    daemon = make_daemon(daemon__drain_s=600).start()
    client = daemon.client()
    ready(client)
    job = client.submit("faults:wait_at", str(mark), str(gate)).id
    eventually(lambda: lines(mark))
    with stopped(zygote_of(daemon)):
        daemon.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]  # it was started
        eventually(lambda: "draining" in daemon.log)
        gate.touch()
        assert daemon.wait() == 0
    assert not daemon.processes()
    after = daemon.start().client()
    assert after.result(job, 20) == "through"
    assert only(after, job).attempt == 1


def test_a_preload_module_that_hangs_is_told_of_and_given_up(make_daemon: Make, gate: Path) -> None:
    """The daemon answers, says what it waits for, begins anew after the time; then all is well."""
    daemon = make_daemon(pool__preload="heavy", pool__preload_timeout_s=5)
    daemon.write_module(
        "heavy",
        f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.005)\n",
    )
    client = daemon.start().client()
    zygote = zygote_of(daemon)
    job = client.submit_encoded("work:add", [b"j[[1,2],{}]"], [(2, ())], check=False)[0]
    (said,) = eventually(lambda: client.status().trouble)
    assert said.startswith("the preload module heavy is being imported for ")
    assert "pool.preload_timeout_s is 5" in said
    eventually(lambda: "heavy was not imported within 5 s" in daemon.log)
    eventually(lambda: not is_alive(zygote))
    assert only(client, job.id).attempt == 0
    gate.touch()
    assert job.result(20) == 3
    ready(client)
    assert client.status().trouble == []
