"""Limits of memory, cores, processes and niceness, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import jobd
from jobd.model.options import Policy
from jobd.pool.cgroup import Group
from jobd.pool.restrict import means


def run(program: str) -> str:
    """Run a program in which ``under(**limits)`` is at hand; return what it prints."""
    head = (
        "import os, resource, subprocess, sys\n"
        f"sys.path.insert(0, {str(Path(jobd.__file__).parents[1])!r})\n"
        "from jobd.model.orders import Limits\n"
        "from jobd.pool.restrict import restricted\n"
        "def under(**limits): return restricted(Limits(**limits))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + program],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd="/",
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_memory_is_limited_and_free_again_afterwards() -> None:
    """What is over the limit is a MemoryError."""
    program = """
with under(mem_bytes=100 << 20):
    try:
        bytearray(200 << 20)
    except MemoryError:
        print("refused")
print(len(bytearray(200 << 20)))
"""
    assert run(program) == f"refused\n{200 << 20}\n"


def test_a_large_argument_is_the_jobs_to_change_and_does_not_count(tmp_path: Path) -> None:
    """What the job adds to it does; and afterwards all is as it was."""
    program = f"""
from jobd import blobs
from jobd.model.blob import Place
files = blobs.Blobs(Place("", {str(tmp_path)!r}, "disk", False, False, 1 << 30, 1 << 20))
reference = files.write("r-1-1-ab", [b"p"], [bytes(200 << 20)])
before = resource.getrlimit(resource.RLIMIT_DATA)
with under(mem_bytes=100 << 20):
    (large,) = files.read(reference).buffers
    large[-1] = 1
    try:
        bytearray(200 << 20)
    except MemoryError:
        print("refused", large.readonly, large[-1])
print(before == resource.getrlimit(resource.RLIMIT_DATA), blobs.make_room)
"""
    assert run(program) == "refused False 1\nTrue None\n"


def test_cores_and_niceness_are_set() -> None:
    """As many cores, rounded up, of those that there are; they come back, the niceness does not."""
    program = """
before = os.sched_getaffinity(0)
with under(cpus=0.5, nice=7):
    print(len(os.sched_getaffinity(0)), os.getpriority(os.PRIO_PROCESS, 0) >= 7)
print(os.sched_getaffinity(0) == before)
"""
    assert run(program) == "1 True\nTrue\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_processes_are_limited_for_who_is_not_root() -> None:
    """So many beside those that the user has."""
    program = """
import signal
os.setuid(54_321)
pids = []
with under(nproc=2):
    try:
        while len(pids) < 4:
            pids.append(os.fork())
            if pids[-1] == 0:
                signal.pause()
    except BlockingIOError:
        pass
for pid in pids:
    os.kill(pid, 9)
print(len(pids))
"""
    assert run(program) == "2\n"


def test_by_what_a_limit_is_enforced_is_told() -> None:
    """Only of limits that there are; also where there is no way to."""
    assert means(Policy(), None) == {}
    told = means(Policy(mem=1, nproc=5), None)
    assert told["mem"] == "RLIMIT_DATA, each process"
    assert told["nproc"].startswith("not enforced" if os.geteuid() == 0 else "RLIMIT_NPROC")


def test_where_there_is_a_cgroup_each_limit_tells_whether_that_enforces_it() -> None:
    """As far as its controllers go; of processes also for root."""
    told = means(Policy(mem=1, cpus=0.5, nproc=5, nice=2), Group("/cg", "key", ["memory", "pids"]))
    assert told == {
        "mem": "memory.max",
        "cpus": "affinity, whole cores",
        "nproc": "pids.max",
        "nice": "niceness",
    }


def test_what_a_cgroup_holds_is_not_limited_twice() -> None:
    """A job may reserve address space that it never uses, where its real use is counted."""
    program = """
from jobd.model.orders import Limits
cores = os.sched_getaffinity(0)
with restricted(Limits(mem_bytes=100 << 20, cpus=0.5, nproc=1), {"mem", "cpus", "nproc"}):
    print(len(bytearray(200 << 20)), os.sched_getaffinity(0) == cores)
"""
    assert run(program) == f"{200 << 20} True\n"
