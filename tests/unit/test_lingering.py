"""Threads that preload modules leave in the zygote: told by module and owner, if they do harm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import jobd
from jobd.pool import lingering
from jobd.pool.lingering import _sentence


def run(program: str) -> str:
    """Run a program in which ``said()`` tells what is said after a fork; return what it prints."""
    head = f"""
import _thread, os, sys, threading, time
sys.path.insert(0, {str(Path(jobd.__file__).parents[1])!r})
from jobd.pool import lingering
lingering.SETTLE_S = 0.0
seen = lingering.Lingering()
listed = os.listdir
def is_at_rest():  # a thread that still spins, as on a busy machine, has no stack to be known by
    states = []
    for tid in listed("/proc/self/task"):
        if int(tid) != threading.get_native_id():
            try:
                with open("/proc/self/task/" + tid + "/stat") as file:
                    states.append(file.read().rpartition(")")[2].split()[0])
            except OSError:
                pass  # it has ended
    return set(states) <= {{"S"}}
def said():
    deadline = time.monotonic() + 20
    while not is_at_rest() and time.monotonic() < deadline:
        time.sleep(0.001)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    seen.forked()
    return seen.sentences()
"""
    # Python warns of the fork, where it has threads; the zygote does not want to hear that either.
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", head + program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_a_thread_is_told_with_the_module_after_whose_import_it_was_there() -> None:
    """By its name if Python knows it; once; one that has ended in between is no concern."""
    program = """
seen.imported("json")
stop, short = threading.Event(), threading.Event()
threading.Thread(target=stop.wait, name="watcher", daemon=True).start()
brief = threading.Thread(target=short.wait)
brief.start()
seen.imported("mytasks")
seen.imported("os.path")
print(seen.sentences(), seen.wait_ms())
short.set()
brief.join()
deadline = time.monotonic() + 20
while len(os.listdir("/proc/self/task")) > 2 and time.monotonic() < deadline:
    pass  # Python has joined it a moment before the kernel has ended it
(sentence,) = said()
print(sentence)
print(said(), seen.wait_ms())
"""
    before, sentence, after = run(program).splitlines()
    assert (before, after) == ("[] None", "[] None")
    assert sentence.startswith("the preload module mytasks has left 1 thread running")
    assert "(Python's watcher)" in sentence


def test_a_thread_that_python_does_not_know_is_told_by_the_library_it_runs_in() -> None:
    """Here that is Python's own; and a thread that another has started later is told too."""
    program = """
lock = _thread.allocate_lock()
lock.acquire()
_thread.start_new_thread(lock.acquire, ())
while len(os.listdir("/proc/self/task")) < 2: pass
seen.imported("first")
_thread.start_new_thread(lock.acquire, ())
while len(os.listdir("/proc/self/task")) < 3: pass
(sentence,) = said()
print(sentence)
"""
    sentence = run(program)
    assert sentence.startswith("the preload module first has left 2 threads running")
    assert "(libpython3" in sentence or "(python" in sentence


def test_without_threads_there_is_nothing_to_wait_for() -> None:
    """No look at all, as with most preload modules."""
    assert run("seen.imported('json')\nseen.forked()\nprint(seen.wait_ms(), said())") == "None []\n"


def test_the_look_is_a_moment_after_the_first_fork() -> None:
    """Threads that are still busy go to sleep meanwhile; later forks do not put it off."""
    program = """
threading.Thread(target=threading.Event().wait, daemon=True).start()
seen.imported("m")
lingering.SETTLE_S = 600
seen.forked()
lingering.SETTLE_S = 6000
seen.forked()
print(0 < seen.wait_ms() <= 600_001, seen.sentences())
"""
    assert run(program) == "True []\n"


def test_openblas_which_ends_its_threads_before_a_fork_is_no_concern() -> None:
    """Numpy may be used by a preload module."""
    program = """
os.environ["OPENBLAS_NUM_THREADS"] = "3"
import numpy as np
(np.ones((500, 500)) @ np.ones((500, 500))).sum()
print(len(os.listdir("/proc/self/task")) > 1)
seen.imported("numpy")
print(said())
"""
    assert run(program).endswith("[]\n")


@pytest.mark.parametrize(
    ("module", "use", "library"),
    [
        ("pyarrow.compute", "m.sum(m.cast(list(range(100)), 'int32'))", ""),
        ("duckdb", "m.sql('select sum(range) from range(10000000)').fetchall()", ""),
        ("cv2", "import numpy; m.blur(numpy.ones((2000, 2000), 'u1'), (9, 9)); time.sleep(1)", ""),
        ("polars", "m.DataFrame({'a': [1, 2]}).lazy().select(m.len()).collect()", "polars"),
        (
            "sklearn.cluster",
            "import numpy; m.KMeans(2, n_init=1).fit(numpy.random.rand(9999, 9))",
            "libgomp",
        ),
    ],
)
def test_libraries_are_judged_as_the_guide_has_them(module: str, use: str, library: str) -> None:
    """Those that live with a fork are passed over; the others are named."""
    pytest.importorskip(module.partition(".")[0])
    program = f"""
os.environ["OMP_NUM_THREADS"] = os.environ["POLARS_MAX_THREADS"] = "2"
import {module} as m
{use}
seen.imported("mine")
print(said())
"""
    said = run(program)
    assert library in said if library else said == "[]\n"


NUMBA = """
import numba, numpy
@numba.njit(parallel=True)
def total(a):
    found = 0.0
    for n in numba.prange(len(a)):
        found += a[n]
    return found
"""


@pytest.mark.parametrize(
    ("program", "is_told"),
    [
        (NUMBA, False),
        (NUMBA + "total(numpy.ones(9))\n", True),
        (
            "_is_initialized = True; sys.modules['numba.np.ufunc.parallel'] = sys.modules['__main__']\n",
            True,
        ),
    ],
    ids=["defined", "run", "played"],
)
def test_numba_is_told_also_if_it_has_no_other_thread(program: str, is_told: bool) -> None:  # noqa: FBT001  # as above
    """It looks at the process that it has begun in, and ends any other."""
    if "import numba" in program:
        pytest.importorskip("numba")
    said = run(
        "os.environ['NUMBA_NUM_THREADS'] = os.environ['OMP_NUM_THREADS'] = '1'\n"
        f"{program}seen.imported('mine')\nseen.imported('other')\nprint(said(), said())"
    )
    assert ("module mine has run a parallel function of numba" in said) is is_told
    assert said.endswith(" []\n")


def test_many_threads_are_counted_and_not_all_named() -> None:
    """The most frequent first."""
    names = ["a", "b", "b", "c", "c", "c", "d"]
    sentence = _sentence("mine", names)
    assert "has left 7 threads running" in sentence
    assert "(c, b, a, …)" in sentence


def test_a_kernel_that_does_not_tell_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread goes by its own name then."""
    memory = lingering._memory()
    assert lingering._stack(2**30, memory) == []
    assert memory.find(1) == (0, "")
    monkeypatch.setattr(lingering, "_stack", lambda *_: [])
    assert lingering._library(1, memory) == ""
    program = """
def nothing(*_, **__): raise FileNotFoundError
os.listdir = lingering.open = nothing
seen.imported("mine")
print(said(), lingering._memory().starts)
"""
    assert run(program) == "[] []\n"
