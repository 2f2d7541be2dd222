"""Cgroups: what needs no controller on a real tree too; the controllers on one that is played."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cgroups import delegated_group, members
from harness import eventually, is_alive
from played_cgroups import PlayedCgroups

from jobd.model.orders import Limits
from jobd.pool import cgroup
from jobd.pool.cgroup import Group, Leaf, NoGroup, claim, own_group, sweep

GIB = 1 << 30
STATE = "/var/lib/jobd"
OTHER_PID = 99_999_999


# -- where the daemon's group is -------------------------------------------------------

MOUNTS = """\
23 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
41 31 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""


@pytest.mark.parametrize(
    ("groups", "mounts", "found"),
    [
        ("0::/system.slice/jobd.service\n", MOUNTS, "/sys/fs/cgroup/system.slice/jobd.service"),
        ("4:memory:/x\n0::/a b/c\n", MOUNTS, "/sys/fs/cgroup/a b/c"),
        ("0::/\n", MOUNTS, "/sys/fs/cgroup"),
        ("0::/\n", "41 31 0:30 / /my\\040groups rw - cgroup2 none rw\n", "/my groups"),
        # A container that is given only its own part of the tree.
        ("0::/docker/1/x\n", "9 8 0:3 /docker/1 /sys/fs/cgroup ro - cgroup2 c rw\n", "/sys/fs/cgroup/x"),
    ],
)  # fmt: skip
def test_the_group_is_found(groups: str, mounts: str, found: str) -> None:
    """Wherever the tree is mounted, and whatever else is."""
    assert own_group(groups, mounts) == found


@pytest.mark.parametrize(
    ("groups", "mounts", "why"),
    [
        ("1:cpu:/\n", MOUNTS, "no cgroups of version 2"),
        ("0::/a\n", MOUNTS.replace("cgroup2", "tmpfs"), "no cgroup2 file system"),
        ("0::/../b\n", MOUNTS, "no cgroup2 file system"),
        ("0::/a\n", "9 8 0:3 /b /sys/fs/cgroup ro - cgroup2 c rw\n", "no cgroup2 file system"),
    ],
)
def test_where_there_is_no_group_it_is_told_why(groups: str, mounts: str, why: str) -> None:
    """Version 1 only; not mounted; outside of what this namespace may see."""
    with pytest.raises(NoGroup, match=why):
        own_group(groups, mounts)


# -- played ----------------------------------------------------------------------------


@pytest.fixture
def kernel() -> PlayedCgroups:
    """Return a tree with all controllers in which this process is in /cg/unit, which is delegated."""
    kernel = PlayedCgroups("cpu", "memory", "pids")
    kernel.delegate("/cg/unit", os.getpid())
    return kernel


def test_the_daemon_goes_to_a_leaf_before_controllers_are_switched_on(
    kernel: PlayedCgroups,
) -> None:
    """In the other order the kernel refuses: a group that has processes has no controllers for others."""
    group = claim("/cg/unit", STATE, kernel)
    assert (group.path, group.controllers) == ("/cg/unit", ["cpu", "memory", "pids"])
    assert kernel.nodes["/cg/unit/daemon"].procs == {os.getpid()}
    assert kernel.nodes["/cg/unit"].procs == set()


def test_of_the_controllers_those_that_there_are_are_used() -> None:
    """Each by itself; limits that none of them enforces are left to rlimits."""
    kernel = PlayedCgroups("pids")
    kernel.delegate("/cg/unit", os.getpid())
    group = claim("/cg/unit", STATE, kernel)
    assert group.controllers == ["pids"]
    assert [group.enforces(name) for name in ("mem", "cpus", "nproc", "nice")] == [
        "",
        "",
        "pids.max",
        "",
    ]


def test_controllers_that_the_kernel_refuses_are_not_used(kernel: PlayedCgroups) -> None:
    """The leaves are still good for ending all that is in them."""
    kernel.refuses["cgroup.subtree_control"] = errno.EBUSY
    assert claim("/cg/unit", STATE, kernel).controllers == []


def test_a_group_that_was_not_delegated_is_left_alone(kernel: PlayedCgroups) -> None:
    """To be allowed to write there, as root is, is not enough: the group is somebody else's to manage."""
    kernel.nodes["/cg/unit"].is_marked = False
    kernel.nodes["/cg/unit"].owner = 0
    kernel.written.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cgroup, "SYSTEMD", "/")
        with pytest.raises(NoGroup, match="not delegated"):
            claim("/cg/unit", STATE, kernel)
    assert kernel.written == []
    assert kernel.children("/cg/unit") == []


@pytest.mark.parametrize(
    ("owner", "above", "found"), [(1000, 0, "/cg/unit"), (1000, 1000, ""), (0, 0, "")]
)
def test_without_a_mark_the_border_of_what_is_ours_tells(
    kernel: PlayedCgroups, monkeypatch: pytest.MonkeyPatch, owner: int, above: int, found: str
) -> None:  # fmt: skip
    """Systemd before 251 leaves no mark that a user could read; its units of other users are theirs."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    kernel.nodes["/cg/unit"].is_marked = False
    kernel.nodes["/cg/unit"].owner = owner
    kernel.root.owner = above
    if found:
        assert claim("/cg/unit", STATE, kernel).path == found
    else:
        with pytest.raises(NoGroup, match="not delegated"):
            claim("/cg/unit", STATE, kernel)


def test_root_in_a_container_without_systemd_has_its_group(
    kernel: PlayedCgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nobody else to manage it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(cgroup, "SYSTEMD", "/nowhere")
    kernel.nodes["/cg/unit"].is_marked = False
    assert claim("/cg/unit", STATE, kernel).path == "/cg/unit"


def test_the_root_of_all_groups_is_nobodys() -> None:
    """Even if somebody has marked it."""
    kernel = PlayedCgroups("memory")
    kernel.root.is_marked = True
    with pytest.raises(NoGroup, match="not delegated"):
        claim("/cg", STATE, kernel)


def test_a_group_with_others_in_it_is_left_alone(kernel: PlayedCgroups) -> None:
    """A shell, say, from which the daemon was started: nobody has asked us to move that."""
    kernel.nodes["/cg/unit"].procs.add(OTHER_PID)
    with pytest.raises(NoGroup, match=f"has other processes too: {OTHER_PID}"):
        claim("/cg/unit", STATE, kernel)
    assert kernel.children("/cg/unit") == []


def test_a_daemon_that_was_started_in_its_leaf_stays_there(kernel: PlayedCgroups) -> None:
    """As by DelegateSubgroup=daemon; controllers may be on from its predecessor."""
    claim("/cg/unit", STATE, kernel)
    kernel.nodes["/cg/unit/daemon"].procs.add(OTHER_PID)  # a worker of the one before
    group = claim("/cg/unit/daemon", STATE, kernel)
    assert (group.path, group.controllers) == ("/cg/unit", ["cpu", "memory", "pids"])
    assert kernel.nodes["/cg/unit/daemon"].procs == {os.getpid(), OTHER_PID}


def test_a_group_that_cannot_be_written_to_is_no_error_but_a_reason(
    kernel: PlayedCgroups,
) -> None:
    """The file system may be mounted read-only, as in most containers."""
    kernel.refuses["cgroup.procs"] = errno.EROFS
    with pytest.raises(NoGroup, match="/cg/unit cannot be used: Read-only"):
        claim("/cg/unit", STATE, kernel)


def test_limits_hold_before_the_worker_is_under_them(kernel: PlayedCgroups) -> None:
    """All are written before it goes there; of memory nothing may be pushed out, and one dies with all."""
    leaf = Leaf(claim("/cg/unit", STATE, kernel), "w-1", kernel)
    kernel.written.clear()
    held = leaf.enter(Limits(mem_bytes=2 * GIB, cpus=0.5, nproc=10, nice=3))
    assert held == {"mem", "cpus", "nproc"}
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert kernel.nodes[leaf.path].values == {
        "memory.max": str(2 * GIB),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "50000 100000",
        "pids.max": str(threads + 10),
    }
    assert kernel.written[-1] == (f"{leaf.path}/cgroup.procs", "0")
    assert kernel.nodes[leaf.path].procs == {os.getpid()}


def test_the_least_and_the_most_that_can_be_asked_for_are_taken(kernel: PlayedCgroups) -> None:
    """The kernel takes no quota under a millisecond: that is what 0.01 cores come to."""
    group = claim("/cg/unit", STATE, kernel)
    Leaf(group, "w-1", kernel).enter(Limits(cpus=0.01, mem_bytes=1, nproc=1))
    Leaf(group, "w-2", kernel).enter(Limits(cpus=4096.0, mem_bytes=2**60, nproc=1_000_000))


def test_what_was_not_asked_for_is_not_limited(kernel: PlayedCgroups) -> None:
    """A job that is only to be nice has a leaf, so that all of it can be ended."""
    leaf = Leaf(claim("/cg/unit", STATE, kernel), "w-1", kernel)
    assert leaf.enter(Limits(nice=3)) == frozenset()
    assert kernel.nodes[leaf.path].values == {}


def test_older_kernels_do_with_less() -> None:
    """Without accounting of swap, kills in groups, a peak."""
    lacks = ("memory.swap.max", "memory.oom.group", "memory.peak")
    kernel = PlayedCgroups("memory", lacks=lacks)
    kernel.delegate("/cg/unit", os.getpid())
    leaf = Leaf(claim("/cg/unit", STATE, kernel), "w-1", kernel)
    assert leaf.enter(Limits(mem_bytes=GIB)) == {"mem"}
    assert leaf.remains() == (False, 0)


@pytest.mark.parametrize("file", ["memory.max", "cpu.max", "cgroup.procs"])
def test_a_leaf_that_fails_leaves_nothing_behind(kernel: PlayedCgroups, file: str) -> None:
    """Then rlimits do it all: there is no leaf that nobody is in."""
    group = claim("/cg/unit", STATE, kernel)
    kernel.refuses[file] = errno.EINVAL
    with pytest.raises(OSError, match="Invalid"):
        Leaf(group, "w-1", kernel).enter(Limits(mem_bytes=GIB, cpus=1))
    assert kernel.children("/cg/unit") == ["daemon"]


def test_a_kill_for_want_of_memory_is_on_record(kernel: PlayedCgroups) -> None:
    """With what it had at its peak; and the leaf can be removed then."""
    leaf = Leaf(claim("/cg/unit", STATE, kernel), "w-1", kernel)
    kernel.pid = OTHER_PID
    leaf.enter(Limits(mem_bytes=GIB))
    assert leaf.remains() == (False, 0)
    kernel.die_of_hunger(leaf.path)
    assert leaf.remains() == (True, GIB)
    assert leaf.remove()
    assert leaf.remains() == (False, 0)


def test_a_leaf_whose_processes_are_slow_to_die_is_removed_later(kernel: PlayedCgroups) -> None:
    """A sweep returns those, and does not wait."""
    group = claim("/cg/unit", STATE, kernel)
    kernel.pid = OTHER_PID
    leaf = Leaf(group, "w-1", kernel)
    leaf.enter(Limits(nice=1))
    kernel.is_slow = True
    (left,) = sweep(group, (), kernel)
    assert not left.remove()
    kernel.is_slow = False
    left.kill()
    assert left.remove()
    assert left.remove()  # twice does no harm


def test_a_leaf_goes_with_the_groups_that_a_job_has_made_in_it(kernel: PlayedCgroups) -> None:
    """As soon as nobody is left in any of them."""
    leaf = Leaf(claim("/cg/unit", STATE, kernel), "w-1", kernel)
    kernel.make(leaf.path)
    for inner in ("a", "a/b", "c"):
        kernel.make(f"{leaf.path}/{inner}")
    kernel.nodes[f"{leaf.path}/a/b"].procs.add(OTHER_PID)
    assert not leaf.remove()
    kernel.nodes[f"{leaf.path}/a/b"].procs.clear()
    assert leaf.remove()
    assert kernel.children("/cg/unit") == ["daemon"]


def test_a_sweep_spares_who_lives_and_what_is_not_ours(kernel: PlayedCgroups) -> None:
    """Workers that were adopted; another daemon in the same group; what is of no daemon."""
    ours, other = (claim("/cg/unit", STATE, kernel) for _ in range(2))
    other = Group(ours.path, "other", ours.controllers)
    kernel.pid = OTHER_PID
    for number, (group, uid) in enumerate([(ours, "w-1"), (ours, "w-2"), (other, "w-1")]):
        kernel.pid = OTHER_PID + number
        Leaf(group, uid, kernel).enter(Limits(nice=1))
    kernel.make("/cg/unit/.control")
    assert sweep(ours, {"w-2"}, kernel) == []
    assert set(kernel.children("/cg/unit")) == {
        "daemon",
        ".control",
        f"jobd-{ours.key}-w-2",
        "jobd-other-w-1",
    }
    assert kernel.nodes[Leaf(ours, "w-2", kernel).path].procs == {OTHER_PID + 1}


# -- real ------------------------------------------------------------------------------


@pytest.fixture
def group() -> Iterator[Path]:
    """Return a real group, in which there is nobody."""
    with delegated_group() as group:
        yield group


@pytest.fixture
def run_in(group: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Return what runs a program that claims the group, with what it needs at hand."""
    head = f"""
import os, subprocess, sys, time
from jobd.model.orders import Limits
from jobd.pool.cgroup import *
with open("{group}/cgroup.procs", "w") as file:
    file.write("0")
def say(*words):
    print(*words, flush=True)
"""
    return lambda program: subprocess.Popen(
        [sys.executable, "-P", "-c", head + program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_real_group_is_claimed_and_a_leaf_entered(
    group: Path, run_in: Callable[[str], subprocess.Popen[str]]
) -> None:
    """The process is where it says; what it starts is there too."""
    program = f"""
group = claim(find(), {STATE!r})
say(group.path)
say(find())
leaf = Leaf(group, "w-1")
held = leaf.enter(Limits(nice=1, cpus=0.5))
say(("cpus" in held) == bool(group.enforces("cpus")))
say(find())
subprocess.run(["sh", "-c", "sed -n s/^0:://p /proc/self/cgroup"])
"""
    with run_in(program) as process:
        assert process.stdout is not None
        base, daemon, held, leaf, child = process.stdout.read().splitlines()
    assert (base, daemon, held) == (str(group), f"{group}/daemon", "True")
    assert leaf.startswith(f"{group}/jobd-")
    assert leaf.endswith("-w-1")
    assert leaf.endswith(child)
    assert process.returncode == 0


def test_who_has_run_away_is_killed_by_the_leaf(
    group: Path, run_in: Callable[[str], subprocess.Popen[str]]
) -> None:
    """Forked twice, in another session, another parent, deaf to signals: it cannot leave the group."""
    program = f"""
group = claim(find(), {STATE!r})
leaf = Leaf(group, "w-1")
leaf.enter(Limits(nice=1))
say(leaf.path)
script = "(setsid sh -c 'trap : TERM HUP INT; while :; do sleep 600; done' &) &"
subprocess.run(["sh", "-c", script])
say("ready")
sys.stdin.read()
"""
    with run_in(program) as process:
        assert process.stdout is not None
        leaf = Path(process.stdout.readline().strip())
        assert process.stdout.readline() == "ready\n"
        eventually(lambda: len(members(leaf)) >= 3)  # the program, the shell, its sleep
        strays = set(members(leaf)) - {process.pid}
        process.kill()
        process.wait()
        assert all(is_alive(pid) for pid in strays)
        ours = Group(str(group), leaf.name.split("-")[1], [])
        left = sweep(ours, ())
        eventually(lambda: not any(is_alive(pid) for pid in strays))
        eventually(lambda: all(one.remove() for one in left))
    assert not leaf.exists()


def test_who_has_gone_to_a_group_inside_the_leaf_is_killed_too(group: Path) -> None:
    """A job may make groups in its own, as root or the user that the leaf belongs to."""
    ours = Group(str(group), "key", [])
    inner = group / "jobd-key-w-1" / "inner"
    inner.mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as process:
        (inner / "cgroup.procs").write_text(str(process.pid), encoding="ascii")
        left = sweep(ours, ())
        assert process.wait(20) == -signal.SIGKILL
    eventually(lambda: all(one.remove() for one in left))
    assert not inner.parent.exists()


def test_without_the_file_for_it_all_are_killed_one_by_one(
    run_in: Callable[[str], subprocess.Popen[str]], group: Path
) -> None:
    """As before Linux 5.14."""

    class Old(cgroup.Files):
        def write(self, path: str, text: str) -> None:
            if path.endswith("cgroup.kill"):
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            super().write(path, text)

    program = f"""
leaf = Leaf(claim(find(), {STATE!r}), "w-1")
leaf.enter(Limits(nice=1))
say(leaf.path)
sys.stdin.read()
"""
    with run_in(program) as process:
        assert process.stdout is not None
        leaf = Path(process.stdout.readline().strip())
        Leaf(Group(str(group), leaf.name.split("-")[1], []), "w-1", Old()).kill()
        assert process.wait(20) == -signal.SIGKILL
