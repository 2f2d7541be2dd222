"""A daemon in a cgroup that was delegated to it; the contract tests have what controllers would do."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cgroups import delegated_group, members, wrapper
from harness import DaemonUnderTest, eventually, is_alive

from jobd.client import Client
from jobd.model.job import JobInfo
from jobd.model.selector import one
from jobd.model.states import State

MakeDaemon = Callable[..., DaemonUnderTest]


@pytest.fixture
def group() -> Iterator[Path]:
    """Return a group for a daemon."""
    with delegated_group() as group:
        yield group


@pytest.fixture
def make_in(group: Path, make_daemon: MakeDaemon) -> MakeDaemon:
    """Return what starts a daemon in the group, which is gone when all daemons are."""

    def make(**settings: object) -> DaemonUnderTest:
        return make_daemon(**{"pool__workers": 1, **settings}).start(wrapper=wrapper(group))

    return make


def info_of(client: Client, number: int) -> JobInfo:
    """Return all that is known of a job."""
    (info,) = client.find(one(number))
    return info


def leaves(group: Path) -> list[Path]:
    """Return the leaves of workers."""
    return [child for child in group.iterdir() if child.name.startswith("jobd-")]


def pid_in(mark: Path) -> int:
    """Return the pid that a job has written, once it has."""
    return int(eventually(lambda: mark.exists() and mark.read_text(encoding="ascii").strip()))


def test_a_restricted_job_runs_in_a_leaf_of_its_own(group: Path, make_in: MakeDaemon) -> None:
    """The daemon and its other workers are in another one; the leaf goes with the worker."""
    daemon = make_in()
    client = daemon.client()
    inside = client.submit("limits:group").result(20)
    limited = client.options(nice=5).submit("limits:group")
    assert inside.endswith(f"{group.name}/daemon")
    assert f"{group.name}/jobd-" in limited.result(20)
    assert daemon.pid in members(group / "daemon")
    assert members(group) == []
    eventually(lambda: not leaves(group))
    assert f"limits of jobs: cgroups in {group}" in daemon.log
    controllers = (group / "cgroup.controllers").read_text("ascii").split()
    job = client.options(mem="1G").submit("work:add", 1)
    assert job.result(20) == 2
    shown = json.loads(daemon.cli("show", str(job.id), "--json").stdout)
    has_memory = "memory" in controllers
    assert shown["enforced"]["mem"].startswith("memory.max" if has_memory else "RLIMIT_DATA")


def test_what_has_run_away_ends_with_its_job(
    group: Path, make_in: MakeDaemon, mark: Path, gate: Path
) -> None:
    """Forked twice, in a session of its own, deaf to signals: the leaf has it all the same."""
    client = make_in().client()
    job = client.options(nice=5, timeout=1).submit("limits:run_away", str(mark), str(gate))
    stray = pid_in(mark)
    (leaf,) = leaves(group)
    assert stray in members(leaf)
    client.wait([job.id], 20)
    assert info_of(client, job.id).state is State.TIMED_OUT
    eventually(lambda: not is_alive(stray))
    eventually(lambda: not leaves(group))


def test_a_worker_in_a_leaf_outlives_its_daemon(
    group: Path, make_in: MakeDaemon, mark: Path, gate: Path
) -> None:
    """The next one takes it over and spares its leaf, which goes with it."""
    daemon = make_in()
    client = daemon.client()
    number = client.options(nice=5).submit("limits:group", str(mark), str(gate)).id
    worker = pid_in(mark)
    daemon.kill()
    daemon.start(wrapper=wrapper(group))
    client = daemon.client()
    eventually(lambda: info_of(client, number).state is State.RUNNING)
    assert [members(leaf) for leaf in leaves(group)] == [[worker]]
    gate.touch()
    assert f"{group.name}/jobd-" in client.result(number, 20)
    assert info_of(client, number).attempt == 1
    eventually(lambda: not leaves(group))


def test_what_is_left_of_all_that_was_killed_is_swept_by_the_next_daemon(
    group: Path, make_in: MakeDaemon, mark: Path, gate: Path
) -> None:
    """Daemon, zygote and worker are gone at one stroke; what the job had sent away is not."""
    daemon = make_in(jobs__max_crashes=0)
    client = daemon.client()
    number = client.options(nice=5).submit("limits:run_away", str(mark), str(gate)).id
    stray = pid_in(mark)
    (leaf,) = leaves(group)
    worker = info_of(client, number).pid
    daemon.kill()
    for pid in [worker, *members(group / "daemon")]:
        os.kill(pid, signal.SIGSTOP)  # so that nobody can do what is expected of the next daemon
    for pid in [worker, *members(group / "daemon")]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: worker not in members(leaf))
    assert is_alive(stray)
    daemon.start(wrapper=wrapper(group))
    eventually(lambda: not is_alive(stray))
    eventually(lambda: not leaf.exists())
    client = daemon.client()
    eventually(lambda: info_of(client, number).state is State.CRASHED)


def test_a_kill_for_want_of_memory_is_named_by_the_leaf(make_in: MakeDaemon) -> None:
    """With what all the job's processes had at their peak; what we have killed ourselves is not."""
    daemon = make_in(pool__preload="hungry_kernel", jobs__max_crashes=0)
    client = daemon.client()
    hungry = client.options(mem="1G").submit("limits:die_of_hunger")
    client.wait([hungry.id], 20)
    info = info_of(client, hungry.id)
    assert (info.state, info.cause) == (State.CRASHED, "SIGKILL, out of memory")
    assert info.usage is not None
    assert info.usage.max_rss_bytes == 1 << 30
    stubborn = client.options(mem="1G", timeout=0.2, kill_grace=0.1).submit(
        "limits:sleep_stubbornly", ""
    )
    client.wait([stubborn.id], 20)
    assert info_of(client, stubborn.id).cause == "hard, after 0.2 s"
    measured = client.options(mem="1G").submit("work:sleep", 0.01)
    measured.result(20)
    usage = info_of(client, measured.id).usage
    assert usage is not None
    assert usage.max_rss_bytes == 1 << 30


@pytest.mark.parametrize("watched", ["watched", "alone"])
def test_a_hungry_worker_of_a_dead_daemon_is_named_by_the_next_one(
    group: Path, make_daemon: MakeDaemon, mark: Path, gate: Path, watched: str
) -> None:
    """Nobody could see how it ended: its leaf tells, and is kept for that."""
    daemon = make_daemon(jobs__max_crashes=0)
    daemon.write_module("sitecustomize", "import hungry_kernel")
    daemon.environ["PYTHONPATH"] = str(daemon.work_dir)  # for the daemon itself
    client = daemon.start(wrapper=wrapper(group)).client()
    number = client.options(mem="1G").submit("limits:die_of_hunger", str(mark), str(gate)).id
    worker = pid_in(mark)
    daemon.kill()
    if watched == "alone":
        gate.touch()
        eventually(lambda: not is_alive(worker))
    client = daemon.start(wrapper=wrapper(group)).client()
    gate.touch()
    client.wait([number], 20)
    cause = {"watched": "SIGKILL, ", "alone": "it ended while no daemon watched, "}[watched]
    assert info_of(client, number).cause == cause + "out of memory"
    eventually(lambda: not leaves(group))


def test_a_job_whose_leaf_cannot_be_made_has_rlimits(group: Path, make_in: MakeDaemon) -> None:
    """And says so in its output."""
    daemon = make_in()
    (group / "cgroup.max.descendants").write_text("1", encoding="ascii")
    client = daemon.client()
    job = client.options(mem="1G", nice=4).submit("limits:surroundings")
    _, niceness, _, memory = job.result(20)
    assert (niceness, memory) == (4, 1 << 30)
    assert "no cgroup for this job" in daemon.cli("logs", str(job.id)).stdout


def test_cgroups_can_be_switched_off(group: Path, make_in: MakeDaemon) -> None:
    """Then the daemon stays where it is."""
    client = make_in(pool__cgroup="off").client()
    assert client.options(nice=5).submit("limits:group").result(20).endswith(group.name)


def test_a_daemon_to_which_nothing_was_delegated_says_so_once(make_daemon: MakeDaemon) -> None:
    """In its log; and nothing else is different."""
    daemon = make_daemon().start()
    client = daemon.client()
    assert client.options(mem="1G").submit("work:add", 1).result(20) == 2
    assert daemon.log.count("limits of jobs are rlimits: ") == 1
