"""What the standard library promises of executors, kept by jobd's and by its own process pool alike.

Each test of the first part runs over ``ProcessPoolExecutor`` too, so that it is the promise that is
tested, and not what jobd makes of it; where the two differ, the test says so.  The ideas are
those of CPython's own ``test_concurrent_futures``.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    as_completed,
    wait,
)
from concurrent.futures import Executor as AnyExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import private_jobs as jobs
import pytest
from harness import eventually

from jobd.executor import Executor, WorkerDied
from jobd.model.errors import JobFailed

TIMEOUT_S = 20.0
JOBD, POOL = "jobd", "the standard library's"


class Gate:
    """Keeps jobs running until it is opened."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def hold(self, executor: AnyExecutor, value: object = None) -> Future[Any]:
        """Submit a job that runs until the gate is open, and return once it runs."""
        self._count += 1
        started = self._directory / f"started-{self._count}"
        future = executor.submit(jobs.hold, str(started), str(self._directory / "open"), value)
        eventually(started.exists)
        return future

    def open(self) -> None:
        """Let all go on."""
        (self._directory / "open").touch()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Return a gate, which is open after the test."""
    gate = Gate(tmp_path)
    yield gate
    gate.open()


@pytest.fixture(scope="module")
def shared() -> Iterator[dict[str, AnyExecutor]]:
    """Return one executor of each kind for all tests that leave them as they were."""
    with Executor(2) as ours, ProcessPoolExecutor(2) as theirs:
        yield {JOBD: ours, POOL: theirs}


@pytest.fixture(params=[JOBD, POOL])
def executor(request: pytest.FixtureRequest, shared: dict[str, AnyExecutor]) -> AnyExecutor:
    """Return an executor with two workers; the test does not shut it down, nor break it."""
    return shared[request.param]


@pytest.fixture(params=[JOBD, POOL])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., AnyExecutor]]:
    """Make executors that the test may do with as it likes."""
    kind: Callable[..., AnyExecutor] = Executor if request.param == JOBD else ProcessPoolExecutor
    with ExitStack() as stack:

        def new(*args: Any, **kwargs: Any) -> AnyExecutor:
            made = kind(*args, **kwargs)
            stack.callback(made.shutdown)
            return made

        yield new


# -- one call -----------------------------------------------------------------


def test_a_future_has_what_the_function_returned(executor: AnyExecutor) -> None:
    """All arguments are the function's own, whatever their names."""
    future = executor.submit(jobs.named, 1, 2, fn=3, self=4, timeout=5)
    assert future.result(TIMEOUT_S) == (1, 2, {"fn": 3, "self": 4, "timeout": 5})
    assert future.done()
    assert not future.running()
    assert not future.cancel()
    assert not future.cancelled()
    assert future.exception() is None


@pytest.mark.parametrize(
    "error", [ValueError("bad", 1), KeyError("k"), SystemExit(3), SystemExit(0)]
)
def test_an_exception_comes_back_as_itself_and_tells_where_it_was_raised(
    executor: AnyExecutor, error: BaseException
) -> None:
    """Its class and its arguments; the worker's traceback is the cause."""
    future = executor.submit(jobs.raise_it, error)
    with pytest.raises(type(error)) as caught:
        future.result(TIMEOUT_S)
    assert caught.value.args == error.args
    assert caught.value is future.exception()
    assert "in raise_it" in str(caught.value.__cause__)


def test_what_cannot_be_returned_is_an_exception(executor: AnyExecutor) -> None:
    """A lock cannot leave its process."""
    future = executor.submit(threading.Lock)
    assert isinstance(future.exception(TIMEOUT_S), TypeError | JobFailed)


def test_waiting_for_a_result_may_take_too_long(executor: AnyExecutor, gate: Gate) -> None:
    """The future goes on."""
    future = gate.hold(executor, 5)
    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0.01)
    gate.open()
    assert future.result(TIMEOUT_S) == 5


# -- callbacks and waiting for several ----------------------------------------


def test_callbacks_are_called_with_the_future_in_the_order_in_which_they_were_added(
    executor: AnyExecutor, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """One that raises is logged, and hurts nobody; one that comes late is called at once."""
    called: list[tuple[int, Future[Any]]] = []
    done = threading.Event()

    def fail(_: Future[Any]) -> None:
        raise ValueError("of no importance")

    future = gate.hold(executor)
    future.add_done_callback(lambda f: called.append((1, f)))
    future.add_done_callback(fail)
    future.add_done_callback(lambda f: called.append((2, f)))
    future.add_done_callback(lambda _: done.set())
    assert not called
    gate.open()
    assert done.wait(TIMEOUT_S)
    assert called == [(1, future), (2, future)]
    future.add_done_callback(lambda f: called.append((3, f)))
    assert called[-1] == (3, future)
    assert "of no importance" in caplog.text


def test_a_callback_may_submit(executor: AnyExecutor) -> None:
    """It runs in a thread that holds nothing."""
    found: list[int] = []
    done = threading.Event()

    def again(_: Future[Any]) -> None:
        executor.submit(jobs.square, 4).add_done_callback(finish)

    def finish(future: Future[int]) -> None:
        found.append(future.result())
        done.set()

    executor.submit(jobs.square, 3).add_done_callback(again)
    assert done.wait(TIMEOUT_S)
    assert found == [16]


def test_wait_returns_with_the_first_that_is_done(executor: AnyExecutor, gate: Gate) -> None:
    """Done and not done are told apart."""
    slow = gate.hold(executor)
    quick = executor.submit(jobs.square, 2)
    done, others = wait([slow, quick], TIMEOUT_S, FIRST_COMPLETED)
    assert (done, others) == ({quick}, {slow})
    done, others = wait([slow], timeout=0.01)
    assert (done, others) == (set(), {slow})
    gate.open()
    assert wait([slow, quick], TIMEOUT_S).done == {slow, quick}


def test_wait_returns_with_the_first_that_fails(executor: AnyExecutor, gate: Gate) -> None:
    """One that succeeds does not end it."""
    slow = gate.hold(executor)
    good = executor.submit(jobs.square, 2)
    bad = executor.submit(jobs.raise_it, ValueError())
    done, others = wait([slow, good, bad], TIMEOUT_S, FIRST_EXCEPTION)
    assert bad in done
    assert slow in others
    gate.open()


def test_futures_are_given_as_they_are_completed(executor: AnyExecutor, gate: Gate) -> None:
    """The one that is done first comes first; a timeout ends it."""
    slow = gate.hold(executor)
    quick = executor.submit(jobs.square, 2)
    completed = as_completed([slow, quick], timeout=TIMEOUT_S)
    assert next(completed) is quick
    with pytest.raises(TimeoutError):
        list(as_completed([slow], timeout=0.01))
    gate.open()
    assert list(completed) == [slow]


def test_a_coroutine_awaits_it(executor: AnyExecutor) -> None:
    """As `loop.run_in_executor`; an error is raised there."""

    async def calls() -> list[int]:
        loop = asyncio.get_running_loop()
        many = [loop.run_in_executor(executor, jobs.square, n) for n in range(5)]
        with pytest.raises(ValueError, match="no"):
            await loop.run_in_executor(executor, jobs.raise_it, ValueError("no"))
        return await asyncio.gather(*many)

    assert asyncio.run(calls()) == [0, 1, 4, 9, 16]


def test_threads_share_an_executor(executor: AnyExecutor) -> None:
    """Every future gets its own result."""
    wrong: list[object] = []

    def many(base: int) -> None:
        futures = [(n, executor.submit(jobs.square, n)) for n in range(base, base + 50)]
        wrong.extend((n, f) for n, f in futures if f.result(TIMEOUT_S) != n * n)

    threads = [threading.Thread(target=many, args=(base,)) for base in (0, 100, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert wrong == []


# -- map ----------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_gives_results_in_order(executor: AnyExecutor, chunksize: int) -> None:
    """Of as many iterables as the function takes arguments, cut to the shortest."""
    found = executor.map(pow, range(10), [2] * 7, chunksize=chunksize, timeout=TIMEOUT_S)
    assert list(found) == [n * n for n in range(7)]
    assert list(executor.map(pow, [], [], chunksize=chunksize)) == []


def test_map_takes_all_items_before_it_returns(executor: AnyExecutor) -> None:
    """The iterables are collected at once, not when results are asked for, if they can be counted."""
    items = iter([1, 2, 3])
    found = executor.map(jobs.square, items)
    assert list(items) == []
    assert list(found) == [1, 4, 9]


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_raises_in_the_place_of_the_call_that_failed(
    executor: AnyExecutor, chunksize: int
) -> None:
    """What was before it has been given; of its own chunk nothing is; then it is over."""
    found = executor.map(divmod, [5, 5, 5, 5], [2, 5, 0, 1], chunksize=chunksize)
    assert [next(found), next(found)] == [(2, 1), (1, 0)]
    with pytest.raises(ZeroDivisionError) as caught:
        next(found)
    assert "ZeroDivisionError" in str(caught.value.__cause__)
    assert list(found) == []


def test_map_has_a_timeout_for_the_whole(executor: AnyExecutor, tmp_path: Path) -> None:
    """It counts from the call of `map`."""
    opened = tmp_path / "open"
    holds = [str(tmp_path / "a"), str(tmp_path / "b")]
    found = executor.map(jobs.hold, holds, [str(opened)] * 2, timeout=0.05)
    with pytest.raises(TimeoutError):
        next(found)
    opened.touch()


def test_map_refuses_chunks_of_nothing(executor: AnyExecutor) -> None:
    """As documented for chunks: at least one."""
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(jobs.square, [1], chunksize=0)


def test_what_map_has_submitted_is_cancelled_when_nobody_wants_it(
    make: Callable[..., AnyExecutor], tmp_path: Path, gate: Gate
) -> None:
    """The iterator was closed: what has not started does not start."""
    executor = make(1)
    gate.hold(executor)
    marks = [tmp_path / f"mark-{n}" for n in range(20)]
    found = executor.map(jobs.hold, map(str, marks), [str(tmp_path)] * len(marks), timeout=0)
    with pytest.raises(TimeoutError):
        next(found)
    gate.open()
    executor.shutdown()
    assert not marks[-1].exists()


# -- cancelling ---------------------------------------------------------------


def test_a_future_that_waits_is_cancelled_and_one_that_runs_is_not(
    make: Callable[..., AnyExecutor], gate: Gate
) -> None:
    """The process pool takes some ahead and says that they run, so the last one is looked at."""
    executor = make(1)
    running = gate.hold(executor)
    *_, last = [executor.submit(jobs.square, n) for n in range(5)]
    assert running.running()
    assert not running.cancel()
    assert not last.running()
    assert last.cancel()
    assert last.cancel(), "it still is"
    assert last.cancelled()
    assert last.done()
    with pytest.raises(CancelledError):
        last.result()
    with pytest.raises(CancelledError):
        last.exception()
    gate.open()
    assert wait([running, last], timeout=TIMEOUT_S).done == {running, last}


def test_a_cancelled_future_calls_back(make: Callable[..., AnyExecutor], gate: Gate) -> None:
    """Whoever waits for its end hears of it."""
    executor = make(1)
    gate.hold(executor)
    *_, last = [executor.submit(jobs.square, n) for n in range(5)]
    called: list[bool] = []
    last.add_done_callback(lambda future: called.append(future.cancelled()))
    assert last.cancel()
    assert called == [True]


# -- the end ------------------------------------------------------------------


def test_nothing_is_submitted_after_shutdown(make: Callable[..., AnyExecutor]) -> None:
    """What was submitted before has its result; a second shutdown does nothing."""
    executor = make(1)
    future = executor.submit(jobs.square, 3)
    found = executor.map(jobs.square, range(3))
    executor.shutdown()
    assert future.result(0) == 9
    assert list(found) == [0, 1, 4]
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(jobs.square, 3)
    with pytest.raises(RuntimeError):
        executor.map(jobs.square, [1])
    executor.shutdown()


def test_shutdown_may_not_wait(make: Callable[..., AnyExecutor], gate: Gate) -> None:
    """It returns at once, and the futures are completed all the same."""
    executor = make(1)
    future = gate.hold(executor, 7)
    executor.shutdown(wait=False)
    assert not future.done()
    gate.open()
    assert future.result(TIMEOUT_S) == 7


def test_shutdown_may_cancel_what_has_not_started(
    make: Callable[..., AnyExecutor], gate: Gate
) -> None:
    """What runs comes to its end; of the others the last ones are cancelled."""
    executor = make(1)
    running = gate.hold(executor, 7)
    waiting = [executor.submit(jobs.square, n) for n in range(20)]
    threading.Timer(0.05, gate.open).start()
    executor.shutdown(cancel_futures=True)
    assert running.result(0) == 7
    assert all(future.done() for future in waiting)
    assert waiting[-1].cancelled()


def test_an_executor_without_any_job_can_be_shut_down(make: Callable[..., AnyExecutor]) -> None:
    """Also by a `with` block, and without waiting."""
    with make(1):
        pass
    make(1).shutdown(wait=False)


def test_futures_are_completed_when_the_executor_was_dropped(
    make: Callable[..., AnyExecutor], gate: Gate
) -> None:
    """Nobody holds it, and there is still somebody who waits for its jobs."""
    executor = type(make(1))(1)  # type: ignore[call-arg]  # both take the number of workers
    future = gate.hold(executor, 7)
    del executor
    gc.collect()
    gate.open()
    assert future.result(TIMEOUT_S) == 7


def run_program(words: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of Python's to its end."""
    return subprocess.run(
        [sys.executable, "-P", *words],
        env=os.environ | {"PYTHONPATH": str(Path(jobs.__file__).parent), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize(
    "make_one", ["jobd.executor.Executor(1)", "ProcessPoolExecutor(1)"], ids=[JOBD, POOL]
)
def test_a_program_does_not_end_before_its_futures(tmp_path: Path, make_one: str) -> None:
    """Regardless of `wait`, as documented; and nothing of it is left behind."""
    mark = tmp_path / "mark"
    program = f"""
from concurrent.futures import ProcessPoolExecutor
import jobd.executor, pathlib, private_jobs, time, os
executor = {make_one}
print(os.getpid())
executor.submit(time.sleep, 0.2)
executor.submit(pathlib.Path.touch, pathlib.Path({str(mark)!r}))
"""
    done = run_program(["-c", program], tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert mark.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mark"]


@pytest.mark.parametrize(
    "end",
    ["", "del executor", "executor.shutdown(wait=False)", "raise SystemExit(0)"],
    ids=["nothing", "dropped", "shut down", "exit"],
)
@pytest.mark.parametrize(
    "make_one", ["jobd.executor.Executor(1)", "ProcessPoolExecutor(1)"], ids=[JOBD, POOL]
)
def test_jobs_are_done_before_a_program_ends_and_write_where_it_does(
    tmp_path: Path, make_one: str, end: str
) -> None:
    """What they print is the program's output, as if it had printed it."""
    program = f"""
from concurrent.futures import ProcessPoolExecutor
import jobd.executor, private_jobs, time
if __name__ == "__main__":
    executor = {make_one}
    executor.submit(time.sleep, 0.1)
    executor.submit(private_jobs.say, "done", "so it is")
    {end}
"""
    done = run_program(["-c", program], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "so it is\n")


@pytest.mark.parametrize(
    "make_one", ["jobd.executor.Executor(1)", "ProcessPoolExecutor(1)"], ids=[JOBD, POOL]
)
def test_nothing_is_submitted_while_a_program_ends(tmp_path: Path, make_one: str) -> None:
    """Its end has begun: nobody would wait for it."""
    program = f"""
import atexit
@atexit.register
def late():
    try:
        executor.submit(id, 1)
    except RuntimeError as error:
        print(error)
from concurrent.futures import ProcessPoolExecutor
import jobd.executor
executor = {make_one}
"""
    done = run_program(["-c", program], tmp_path)
    assert done.stdout.startswith("cannot schedule new futures after")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_whose_daemon_is_dead_ends(tmp_path: Path) -> None:
    """There is nobody who would do what was submitted."""
    program = """
import jobd, time
executor = jobd.Executor(1)
executor.submit(time.sleep, 60).id
executor._engine._private.process.kill()
"""
    done = run_program(["-c", program], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


# -- what goes wrong ----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"max_workers": 1, "initializer": 5}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": 1.5}, TypeError),
        ({"max_tasks_per_child": 1, "mp_context": multiprocessing.get_context("fork")}, ValueError),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    make: Callable[..., AnyExecutor], arguments: dict[str, Any], error: type[Exception]
) -> None:
    """By the constructor, as documented."""
    with pytest.raises(error):
        make(**arguments)


def test_a_worker_is_replaced_after_so_many_tasks(make: Callable[..., AnyExecutor]) -> None:
    """As was said; the context says how they are started, which here is always alike."""
    executor = make(1, multiprocessing.get_context("spawn"), max_tasks_per_child=2)
    pids = [executor.submit(os.getpid).result(TIMEOUT_S) for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_objects_of_multiprocessing_travel_by_the_initializer(
    make: Callable[..., AnyExecutor], method: str
) -> None:
    """What the caller has made, the workers use: events, locks, queues, values, pipes."""
    context: Any = multiprocessing.get_context(method)
    event, queue, value = context.Event(), context.Queue(), context.Value("i")
    here, there = context.Pipe()
    shared = (event, context.Lock(), context.RLock(), queue, value, there)
    executor = make(2, context, jobs.remember, shared)
    futures = [executor.submit(jobs.use_shared, number) for number in range(2)]
    assert here.poll(TIMEOUT_S)
    assert here.recv() == "here"
    assert sorted(queue.get(timeout=TIMEOUT_S) for _ in range(2)) == [0, 1]
    assert value.value == 2
    event.set()
    assert [future.result(TIMEOUT_S) for future in futures] == [0, 1]


def test_objects_of_a_manager_travel_as_arguments(executor: AnyExecutor) -> None:
    """Workers have the caller's key."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        event = manager.Event()
        assert executor.submit(jobs.set_event, event).result(TIMEOUT_S)
        assert event.is_set()


def test_an_initializer_is_called_in_every_worker(make: Callable[..., AnyExecutor]) -> None:
    """With its arguments, before the first call."""
    executor = make(2, initializer=jobs.remember, initargs=("this", 1))
    futures = [executor.submit(jobs.remembered) for _ in range(10)]
    assert all(future.result(TIMEOUT_S)[1] == ["this", 1] for future in futures)


def test_an_initializer_that_fails_breaks_the_pool(make: Callable[..., AnyExecutor]) -> None:
    """What is pending raises a BrokenExecutor, and so does any attempt to submit more."""
    executor = make(1, initializer=jobs.fail, initargs=("no licence",))
    future = executor.submit(jobs.square, 2)
    with pytest.raises(BrokenExecutor):
        future.result(TIMEOUT_S)
    with pytest.raises(BrokenExecutor):
        eventually(lambda: executor.submit(jobs.square, 2).cancelled())


def test_a_worker_that_dies_is_a_broken_executor(
    make: Callable[..., AnyExecutor], gate: Gate
) -> None:
    """The process pool is broken for good, for every future; jobd's goes on with the others."""
    executor = make(2)
    other = gate.hold(executor, 5)
    victim = executor.submit(jobs.vanish, 3)
    with pytest.raises(BrokenProcessPool):
        victim.result(TIMEOUT_S)
    gate.open()
    if isinstance(executor, Executor):
        assert isinstance(victim.exception(), WorkerDied)
        assert "exit code 3" in str(victim.exception())
        assert other.result(TIMEOUT_S) == 5
        assert executor.submit(jobs.square, 3).result(TIMEOUT_S) == 9
    else:
        assert isinstance(other.exception(TIMEOUT_S), BrokenExecutor)


def test_what_cannot_travel_fails_in_its_future(executor: AnyExecutor) -> None:
    """With the error itself; the executor goes on."""
    future = executor.submit(jobs.identity, threading.Lock())
    assert type(future.exception(TIMEOUT_S)) is TypeError
    future = executor.submit(jobs.identity, jobs.Unwilling(pickle.PicklingError("no")))
    error = future.exception(TIMEOUT_S)
    assert type(error) is pickle.PicklingError
    assert '"""' in str(error.__cause__)
    found = executor.map(jobs.identity, [1, threading.Lock(), 3])
    assert next(found) == 1
    with pytest.raises(TypeError):
        next(found)
    assert executor.submit(jobs.square, 3).result(TIMEOUT_S) == 9


def test_a_result_that_cannot_be_pickled_fails_with_the_error_itself(executor: AnyExecutor) -> None:
    """Not with one that tells of it."""
    future = executor.submit(jobs.make_unwilling, pickle.PicklingError("no"))
    assert type(future.exception(TIMEOUT_S)) is pickle.PicklingError
    lock = executor.submit(threading.Lock)
    assert type(lock.exception(TIMEOUT_S)) is TypeError


def test_a_call_that_does_not_fit_is_a_type_error(executor: AnyExecutor) -> None:
    """As if it were called here."""
    square: Any = jobs.square
    assert isinstance(executor.submit(square, 1, 2).exception(TIMEOUT_S), TypeError)
    square = 5
    assert isinstance(executor.submit(square).exception(TIMEOUT_S), TypeError)


@pytest.mark.parametrize("code", [0, 1, "why", None])
def test_an_exit_of_a_job_is_an_exception(executor: AnyExecutor, code: Any) -> None:
    """Whatever its code."""
    error = executor.submit(sys.exit, code).exception(TIMEOUT_S)
    assert isinstance(error, SystemExit)
    assert error.code == code


@pytest.mark.parametrize("kind", [pickle.UnpicklingError, KeyError, SystemExit])
@pytest.mark.parametrize("where", ["worker", "here"])
def test_what_cannot_be_unpickled_breaks_the_pool(
    make: Callable[..., AnyExecutor], kind: type[BaseException], where: str
) -> None:
    """For the standard library all of it, here that future; and here it is the error itself, too."""
    executor = make(1)
    future: Future[Any]
    if where == "worker":
        future = executor.submit(jobs.identity, jobs.Trap(kind, "bad"))
    else:
        future = executor.submit(jobs.make_trap, kind, "bad")
    error = future.exception(TIMEOUT_S)
    assert isinstance(error, BrokenProcessPool)
    if isinstance(executor, Executor):
        assert isinstance(error, kind) == (kind is not SystemExit)
        assert executor.submit(jobs.square, 3).result(TIMEOUT_S) == 9


def test_the_cause_of_an_exception_is_what_the_standard_library_has(executor: AnyExecutor) -> None:
    """The traceback between triple quotes, with the line of the source."""
    error = executor.submit(jobs.raise_it, ValueError("bad")).exception(TIMEOUT_S)
    assert error is not None
    text = "".join(traceback.format_exception(error))
    assert text.startswith('concurrent.futures.process._RemoteTraceback: \n"""\nTraceback (most')
    assert "    raise error\n" in text
    assert text.endswith("direct cause of the following exception:\n\nValueError: bad\n")


def test_an_initializer_of_a_script_sets_its_global_variables(tmp_path: Path) -> None:
    """They are what its functions see in the workers: set, changed in place, or by a function that it calls."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, jobd, concurrent.futures\n"
        "mode, found, other = 'none', {}, 1\n"
        "def helper(value):\n"
        "    global mode\n"
        "    mode = value\n"
        "def prepare(value):\n"
        "    global late\n"
        "    helper(value)\n"
        "    found['here'] = late = lambda: value\n"
        "def look():\n"
        "    return mode, found['here'](), late(), other\n"
        "if __name__ == '__main__':\n"
        "    for kind in jobd.Executor, concurrent.futures.ProcessPoolExecutor:\n"
        "        with kind(1, initializer=prepare, initargs=('set',)) as executor:\n"
        "            print(*executor.submit(look).result(20))\n",
        encoding="utf-8",
    )
    done = run_program([str(script)], tmp_path)
    assert (done.stderr, done.stdout) == ("", "set set set 1\n" * 2)


def test_a_traceback_shows_the_lines_of_a_script(tmp_path: Path) -> None:
    """Its functions travel by value, and still have a file."""
    script = tmp_path / "script.py"
    script.write_text(
        "import jobd\n"
        "def fail():\n"
        "    raise ValueError('bad')  # here\n"
        "with jobd.Executor(1) as executor:\n"
        "    print(executor.submit(fail).exception(20).__cause__)\n",
        encoding="utf-8",
    )
    done = run_program([str(script)], tmp_path)
    assert f'File "{script}", line 3, in fail' in done.stdout
    assert "# here" in done.stdout


# -- what is let go -----------------------------------------------------------


def test_a_future_and_its_result_go_with_the_last_who_holds_them(executor: AnyExecutor) -> None:
    """Without the garbage collector, and while the executor's threads have nothing to do."""
    gc.disable()
    try:
        future = executor.submit(jobs.make_thing)
        result = weakref.ref(future.result(TIMEOUT_S))
        failed = executor.submit(jobs.raise_it, ValueError("bad"))
        with pytest.raises(ValueError, match="bad"):
            failed.result(TIMEOUT_S)
        refused = executor.submit(jobs.square, threading.Lock())  # type: ignore[arg-type]  # what is tested
        wait([refused], TIMEOUT_S)
        refs: list[Any] = [result, *map(weakref.ref, (future, failed, refused))]
        assert result() is not None
        del future, failed, refused
        eventually(lambda: not any(ref() for ref in refs))
    finally:
        gc.enable()


def test_arguments_are_let_go_when_they_are_sent(executor: AnyExecutor) -> None:
    """By all but the caller; of a call that cannot travel, only the standard library keeps them."""
    good, bad = jobs.Thing("x"), jobs.Thing("y")
    refs = [weakref.ref(good)]
    if isinstance(executor, Executor):
        bad.lock = threading.Lock()
        refs.append(weakref.ref(bad))
    kept = executor.submit(jobs.take, good), executor.submit(jobs.take, bad)
    wait(kept, TIMEOUT_S)
    del good, bad
    eventually(lambda: gc.collect() >= 0 and not any(ref() for ref in refs))


@pytest.mark.parametrize("chunksize", [1, 3])
def test_map_keeps_no_result(executor: AnyExecutor, chunksize: int) -> None:
    """Once it is handed out, it is the caller's alone."""
    make: Callable[[object], Any] = jobs.make_thing_of
    for made in executor.map(make, range(5), chunksize=chunksize):
        ref = weakref.ref(made)
        del made
        assert ref() is None
