"""Libraries that take an executor, or a backend, run on jobd: joblib, scikit-learn, Dask, each itself."""

from __future__ import annotations

import os
from collections.abc import Iterator

import dask
import joblib
import private_jobs as jobs
import pytest
from dask import bag

from jobd.executor import Executor
from jobd.joblib import JobdBackend
from jobd.model.selector import Selector
from jobd.model.states import State
from jobd.testing import Daemon

ALL = Selector(all=True)


@pytest.fixture
def executor(jobd_daemon: Daemon) -> Iterator[Executor]:
    """Return an executor on a running daemon."""
    with Executor(socket=jobd_daemon.socket) as executor:
        yield executor


@pytest.fixture
def backend(jobd_daemon: Daemon) -> Iterator[Daemon]:
    """Have joblib use the daemon, which is also what runs."""
    assert JobdBackend.supports_retrieve_callback, "its import has registered it"
    with joblib.parallel_config(backend="jobd"):
        yield jobd_daemon


def test_a_parallel_loop_of_joblib_runs_in_jobs(backend: Daemon) -> None:
    """As many at once as there are workers; the results in order, at once or one by one."""
    found = joblib.Parallel()(joblib.delayed(jobs.square)(n) for n in range(20))
    assert found == [n * n for n in range(20)]
    parallel = joblib.Parallel(return_as="generator")
    assert list(parallel(joblib.delayed(jobs.square)(n) for n in range(5))) == [0, 1, 4, 9, 16]
    where = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(4))
    assert os.getpid() not in where
    with backend.client() as client:
        assert client.find(ALL)


def test_a_parallel_loop_raises_what_a_call_raised_and_the_next_one_runs(backend: Daemon) -> None:
    """What has not started then does not start."""
    errors = [ValueError("three")] + [None] * 200
    with pytest.raises(ValueError, match="three"):
        joblib.Parallel(batch_size=1, pre_dispatch="all")(
            joblib.delayed(jobs.raise_if)(error, 0.05) for error in errors
        )
    assert joblib.Parallel()(joblib.delayed(jobs.square)(n) for n in (1, 2)) == [1, 4]
    with backend.client() as client:
        assert client.find(Selector(all=True, states=[State.CANCELLED]))


def test_loops_within_loops_and_closures_run_too(backend: Daemon) -> None:
    """Joblib decides how the inner ones run; a closure travels by value."""
    assert backend.socket

    def outer(base: int) -> list[int]:
        return list(joblib.Parallel(2)(joblib.delayed(lambda n: base + n)(n) for n in range(3)))

    assert joblib.Parallel()(joblib.delayed(outer)(b) for b in (0, 10)) == [[0, 1, 2], [10, 11, 12]]


def test_a_loop_may_have_an_executor_of_its_own(executor: Executor) -> None:
    """One worker more than there are is asked for, and one call at a time needs no worker at all."""
    with joblib.parallel_config(backend="jobd", executor=executor):
        assert joblib.Parallel(3)(joblib.delayed(jobs.square)(n) for n in (1, 2)) == [1, 4]
        assert joblib.Parallel(1)(joblib.delayed(os.getpid)() for _ in (1, 2)) == [os.getpid()] * 2
        assert joblib.effective_n_jobs(-1) == executor.client.welcome.workers
        with pytest.raises(ValueError, match="n_jobs == 0"):
            joblib.effective_n_jobs(0)
    assert executor.submit(jobs.square, 3).result(20) == 9, "it is not the loop's to end"


def test_a_loop_says_how_many_threads_its_libraries_take(backend: Daemon) -> None:
    """Its calls only: what the worker has loaded for them goes back to what it had."""
    most = len(os.sched_getaffinity(0))
    with joblib.parallel_config(backend="jobd", inner_max_num_threads=1):
        found = joblib.Parallel()(joblib.delayed(jobs.threads)() for _ in range(8))
    assert set(found) == {("1", 1)}
    with joblib.parallel_config(backend="jobd", inner_max_num_threads=2):
        found = joblib.Parallel()(joblib.delayed(jobs.threads)() for _ in range(8))
    # When it is loaded, OpenBLAS takes no more than there are cores; later it does.
    assert set(found) <= {("2", 2), ("2", min(2, most))}
    with backend.client() as client:
        before = client.submit(jobs.threads).result(20)
        assert before == (before[0], min(int(before[0]), most))


def test_scikit_learn_runs_on_it(backend: Daemon) -> None:
    """`n_jobs` makes jobs, with the same scores as without."""
    from sklearn.datasets import make_classification  # noqa: PLC0415  # takes a second
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # as above
    from sklearn.model_selection import cross_val_score  # noqa: PLC0415  # as above

    x, y = make_classification(60, random_state=1)
    scores = [cross_val_score(LogisticRegression(), x, y, cv=3, n_jobs=n) for n in (2, 1)]
    assert list(scores[0]) == list(scores[1])
    with backend.client() as client:
        assert client.find(ALL)


def test_dask_runs_its_graphs_on_it(executor: Executor) -> None:
    """Delayed calls and bags, as `dask.config.set(pool=…)` has it; errors need its process scheduler."""
    with dask.config.set(pool=executor):
        one = dask.delayed(jobs.square)(3)
        assert dask.delayed(sum)([one, one]).compute() == 18
        assert dask.delayed(os.getpid)().compute() != os.getpid()
        numbers = bag.from_sequence(range(100), npartitions=5).map(lambda n: 2 * n)
        assert numbers.filter(lambda n: n % 3 == 0).sum().compute() == 3366
        with pytest.raises(ValueError, match="bad"):
            dask.delayed(jobs.fail)("bad").compute(scheduler="processes")
    assert len(executor.client.find(ALL)) > 5
