"""What workers have from the process that they are forked from: and what each must have for itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from harness import DaemonUnderTest, eventually

Make = Callable[..., DaemonUnderTest]
CORES = len(os.sched_getaffinity(0))

DRAW = """
import random, sqlite3
import numpy as np

database = sqlite3.connect(":memory:")
database.execute("select random()").fetchone()


def draw():
    row = sqlite3.connect(":memory:").execute("select random()").fetchone()
    return float(np.random.random()), random.random(), row[0]
"""

SEED = "import drawing\ndrawing.np.random.seed(7)\n"

THREADS = """
import os


def variables():
    return {name: value for name, value in os.environ.items() if name.endswith("_THREADS")}


def taken():
    import numpy
    from threadpoolctl import threadpool_info

    return os.environ["OPENBLAS_NUM_THREADS"], [info["num_threads"] for info in threadpool_info()]
"""

POOLED = """
from concurrent.futures import ThreadPoolExecutor

executor = ThreadPoolExecutor(1, thread_name_prefix="mine")
executor.submit(pow, 2, 3).result()


def ask():
    return executor.submit(pow, 2, 3).result(0.1)
"""

CLUSTERS = """
import numpy as np
from sklearn.cluster import KMeans


def fit():
    return KMeans(2, n_init=1, random_state=0).fit(np.random.rand(5000, 9)).n_iter_ > 0


fit()
"""


@pytest.mark.parametrize("preload", ["numpy.random", "drawing", "seeding"])
def test_no_two_workers_draw_the_same_numbers(make_daemon: Make, preload: str) -> None:
    """Whatever module has brought the generator, used it, or seeded it."""
    settings: dict[str, Any] = {"pool__workers": 1, "pool__max_jobs_per_worker": 1}
    modules = {"drawing": DRAW, "seeding": SEED}
    daemon = make_daemon(modules=modules, pool__preload=preload, **settings).start()
    client = daemon.client()
    drawn = [client.submit("drawing:draw").result(20) for _ in range(4)]
    assert [len(set(column)) for column in zip(*drawn, strict=True)] == [4, 4, 4]


def test_threads_that_a_preload_module_has_left_are_trouble_with_its_name(
    make_daemon: Make,
) -> None:
    """In the log and in the status, while workers come and go; a reload without them heals it."""
    daemon = make_daemon(
        modules={"pooled": POOLED}, pool__preload="json:pooled", pool__workers=1
    ).start()
    client = daemon.client()
    (sentence,) = eventually(lambda: client.status().trouble)
    assert sentence.startswith("the preload module pooled has left 1 thread running")
    assert "(Python's mine_0)" in sentence
    assert f"WARNING {sentence}" in daemon.log
    assert "DeprecationWarning" not in daemon.log, "Python's own, of any thread and any fork"
    client.options(mem="4G").submit("pooled:ask").exception(20)  # it needs a worker of its own
    assert client.submit("os:getpid").result(20)
    assert client.status().trouble == [sentence]
    daemon.write_module("pooled", "quiet = True\n")
    client.reload()
    assert client.submit("math:factorial", 4).result(20) == 24
    assert client.status().trouble == []


def test_openmp_in_a_preload_module_is_told_if_it_has_threads(make_daemon: Make) -> None:
    """With one thread for each worker it has none, so its jobs run."""
    pytest.importorskip("sklearn")
    settings: dict[str, Any] = {"modules": {"clusters": CLUSTERS}, "pool__preload": "clusters"}
    two = make_daemon(**settings, pool__threads_per_worker=2).start()
    client = two.client()
    # It takes ten seconds and more to import on a busy machine, which is trouble of its own.
    (sentence,) = eventually(
        lambda: [said for said in client.status().trouble if "being imported" not in said],
        within_s=50,
    )
    assert "module clusters has left 1 thread running" in sentence
    assert "libgomp" in sentence
    one = make_daemon(**settings, pool__threads_per_worker=1).start()
    assert one.client().submit("clusters:fit").result(40) is True
    assert one.client().status().trouble == []


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody say anything about threads."""
    for name in list(os.environ):
        if name.endswith("_THREADS"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("bare")
def test_libraries_are_told_how_many_threads_they_may_take(make_daemon: Make) -> None:
    """By the variables that each reads; commands that jobs start have them too."""
    daemon = make_daemon(
        modules={"threads": THREADS}, pool__threads_per_worker=3, pool__preload="numpy"
    ).start()
    client = daemon.client()
    found = client.submit("threads:variables").result(20)
    assert found["OMP_NUM_THREADS"] == found["POLARS_MAX_THREADS"] == "3"
    assert set(found.values()) == {"3"}
    set_, taken = client.submit("threads:taken").result(20)
    assert set_ == "3"
    assert set(taken) == {min(3, CORES)}  # OpenBLAS takes no more than there are
    printed = daemon.cli("run", "--wait", "--", "sh", "-c", "echo $OMP_NUM_THREADS")
    assert printed.stdout.strip().endswith("3")


@pytest.mark.usefixtures("bare")
def test_the_cores_are_divided_among_the_workers(make_daemon: Make) -> None:
    """That is what "auto" means, and it is the default; with 0 nobody is told anything."""
    modules = {"threads": THREADS}
    for workers in (1, CORES, CORES + 1):
        daemon = make_daemon(modules=modules, pool__workers=workers).start()
        found = daemon.client().submit("threads:variables").result(20)
        assert 1 <= int(found["OMP_NUM_THREADS"]) <= max(1, CORES // workers)
    daemon = make_daemon(modules=modules, pool__threads_per_worker=0).start()
    assert daemon.client().submit("threads:variables").result(20) == {}


@pytest.mark.usefixtures("bare")
def test_what_the_daemon_was_started_with_stands(make_daemon: Make) -> None:
    """A number for OpenMP holds for all that look there."""
    daemon = make_daemon(modules={"threads": THREADS}, pool__threads_per_worker=3)
    client = daemon.start(OMP_NUM_THREADS="7").client()
    found = client.submit("threads:variables").result(20)
    assert found["OMP_NUM_THREADS"] == "7"
    assert found["POLARS_MAX_THREADS"] == "3"
    assert "OPENBLAS_NUM_THREADS" not in found


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("preload", ["numpy", ""])
def test_a_job_that_may_use_one_core_takes_one_thread(make_daemon: Make, preload: str) -> None:
    """Also in libraries that are loaded already; the next job has as many as before."""
    daemon = make_daemon(
        modules={"threads": THREADS},
        pool__workers=1,
        pool__threads_per_worker=3,
        pool__preload=preload,
    ).start()
    client = daemon.client()
    limited = client.options(cpus=1)
    assert limited.submit("threads:taken").result(20) == ("1", [1])
    assert client.submit("threads:taken").result(20) == ("3", [min(3, CORES)])
