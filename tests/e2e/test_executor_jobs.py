"""What an executor of jobd has beyond the standard library's: its futures are jobs of a daemon."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import operator
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import current_process
from pathlib import Path
from typing import Any

import private_jobs as jobs
import pytest
from harness import DaemonUnderTest, eventually, is_alive

import jobd
from jobd import payload
from jobd.client.ahead import ROOM
from jobd.executor import Executor, PoolBroken, RemoteTraceback, WorkerDied
from jobd.executor.errors import remote
from jobd.model.errors import BadFunction, DaemonUnreachable, JobFailed, QueueFull
from jobd.model.selector import one
from jobd.testing import Daemon

TIMEOUT_S = 20.0


@pytest.fixture
def executor(jobd_daemon: Daemon) -> Iterator[Executor]:
    """Return an executor on a daemon that runs."""
    with Executor(socket=jobd_daemon.socket) as executor:
        yield executor


def test_what_an_initializer_sets_is_what_every_job_finds() -> None:
    """In the same worker; what a job sets is not."""
    with Executor(1, initializer=jobs.settle) as executor:
        found = {executor.submit(jobs.unsettle).result(TIMEOUT_S) for _ in range(5)}
    assert len(found) == 1
    ((_, *rest),) = found
    assert rest == ["1", 5, 3]  # with the thread of the worker's own


def test_without_arguments_it_is_the_daemon_that_runs(jobd_daemon: Daemon) -> None:
    """Its futures are jobs that anybody can ask for; the daemon goes on without the executor."""
    with Executor() as executor:
        future = executor.submit(jobs.square, 3)
        assert future.id == 1
    with jobd_daemon.client() as client:
        assert client.result(future.id) == 9


def test_an_executor_of_its_own_leaves_nothing_behind() -> None:
    """Neither a process nor a file; nor does it wait for a disk."""
    executor = Executor(1)
    private = executor._engine._private
    assert private is not None
    with jobd.Client(private.socket) as client:
        assert client.status().durability == "off"
    executor.shutdown()
    assert not is_alive(private.process.pid)
    assert not Path(private.socket).parent.exists()


def test_a_state_directory_keeps_the_jobs_of_an_executor_of_its_own(tmp_path: Path) -> None:
    """They are durable, and the next executor's client can ask for them."""
    state_dir = str(tmp_path / "state")
    with Executor(1, state_dir=state_dir) as executor:
        number = executor.submit(jobs.square, 3).id
    with Executor(state_dir=state_dir) as executor:
        client = executor.client
        assert client.result(number) == 9
        assert client.status().durability == "full"


def test_options_are_a_view_of_the_same_executor(executor: Executor) -> None:
    """What concerns the job does not get in the way of the function's own arguments."""
    executor.client.set_queue("etl")
    view = executor.options(queue="etl", name="square")
    future = view.submit(jobs.square, 3)
    assert future.result(TIMEOUT_S) == 9
    assert list(view.map(jobs.square, [2])) == [4]
    client = executor.client
    (info,) = client.find(one(future.id))
    assert (info.queue, info.name) == ("etl", "square")
    view.shutdown()
    with pytest.raises(RuntimeError):
        executor.submit(jobs.square, 3)


def test_what_is_submitted_in_a_row_is_many_jobs_in_few_messages(executor: Executor) -> None:
    """Each has its id and its result; one that is refused takes no other with it."""
    futures = [executor.submit(jobs.square, n) for n in range(300)]
    bad = executor.submit(jobs.square, 1, 2)  # type: ignore[call-overload]  # what is tested
    others = [executor.submit(jobs.later, n) for n in range(300)]
    assert [f.result(TIMEOUT_S) for f in futures] == [n * n for n in range(300)]
    assert [f.result(TIMEOUT_S) for f in others] == list(range(300))
    assert isinstance(bad.exception(TIMEOUT_S), BadFunction)
    assert len({f.id for f in futures} | {f.id for f in others}) == 600
    assert executor.client._core.submits < 600
    with pytest.raises(BadFunction):
        assert bad.id
    assert not bad.cancel()
    assert not bad.running()


def test_arguments_that_are_too_large_are_refused_alone(executor: Executor) -> None:
    """What is submitted together is refused together, so this is submitted by itself."""
    limit = executor.client.welcome.max_payload_bytes
    text, large = "x", "x" * limit
    good = executor.submit(lambda: len(text))
    bad = executor.submit(lambda: len(large))
    more = executor.submit(lambda: len(text))
    assert (good.result(TIMEOUT_S), more.result(TIMEOUT_S)) == (1, 1)
    assert "over the limit" in str(bad.exception(TIMEOUT_S))


def test_large_arguments_go_into_files_each_under_its_own_name(executor: Executor) -> None:
    """Whatever is submitted with them at once."""
    sizes = [1, 100_000, 2, 200_000, 100_000, 3]
    futures = [executor.submit(len, b"x" * size) for size in sizes]
    assert [future.result(TIMEOUT_S) for future in futures] == sizes
    assert list(executor.map(len, [b"x" * size for size in sizes])) == sizes


def test_a_full_queue_is_the_futures_to_tell(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """The executor goes on."""
    daemon = make_daemon(limits__max_queued=2, pool__workers=1).start()
    with Executor(socket=daemon.socket) as executor:
        found = [executor.submit(pow, n, 2) for n in range(2000)]
        wait(found, TIMEOUT_S)
        refused = [f for f in found if isinstance(f.exception(), QueueFull)]
        assert refused
        assert executor.submit(pow, 3, 2).result(TIMEOUT_S) == 9


def test_large_results_are_there_after_the_shutdown(executor: Executor) -> None:
    """They are not pushed but fetched, and that is done before the connection ends."""
    found = executor.map(jobs.blob, [100_000] * 3)
    future = executor.submit(jobs.blob, 100_000)
    executor.shutdown()
    assert [len(text) for text in found] == [100_000] * 3
    assert len(future.result(0)) == 100_000


def test_an_exception_that_cannot_be_made_here_is_a_failed_job(executor: Executor) -> None:
    """In the standard library's process pool it breaks the whole pool."""
    future = executor.submit(jobs.raise_odd)
    with pytest.raises(JobFailed, match="NeedsTwoError: 1") as caught:
        future.result(TIMEOUT_S)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in raise_odd" in str(caught.value.__cause__)
    assert executor.submit(jobs.square, 3).result(TIMEOUT_S) == 9


def test_a_job_that_somebody_else_cancels_is_a_cancelled_future(
    executor: Executor, jobd_daemon: Daemon, tmp_path: Path
) -> None:
    """Also one that runs: the daemon's word counts."""
    started = tmp_path / "started"
    future = executor.submit(jobs.hold, str(started), str(tmp_path / "never"))
    eventually(started.exists)
    with jobd_daemon.client() as client:
        client.cancel(one(future.id))
    wait([future], TIMEOUT_S)
    assert future.cancelled()


def test_a_daemon_that_is_killed_and_comes_back_costs_no_future(
    daemon: DaemonUnderTest, tmp_path: Path
) -> None:
    """The job that runs goes on, the one that waits is run; new ones are taken meanwhile."""
    started, opened = tmp_path / "started", tmp_path / "open"
    with Executor(socket=daemon.socket) as executor:
        running = executor.submit(os.path.realpath, str(started))
        assert running.result(TIMEOUT_S) == str(started)
        daemon.kill()
        waiting = executor.submit(os.path.realpath, str(opened))
        assert not waiting.done()
        daemon.start()
        assert waiting.result(TIMEOUT_S) == str(opened)


def test_a_job_may_wait_for_the_futures_of_an_executor(executor: Executor) -> None:
    """It lends its slot: so many jobs that wait for others find workers for these."""
    assert executor.submit(jobs.countdown, 5).result(TIMEOUT_S) == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("how", ["wait", "as_completed"])
def test_a_job_may_wait_by_the_functions_of_the_standard_library(how: str) -> None:
    """They lend its slot too: one job runs at a time, and all get their turn."""
    with Executor(1) as executor:
        assert executor.submit(jobs.wait_in_turns, how, 3).result(TIMEOUT_S) == 8


def test_without_its_daemon_an_executor_is_broken(tmp_path: Path) -> None:
    """Every future fails, and so does every submit from then on."""
    executor = Executor(1)
    private = executor._engine._private
    assert private is not None
    started = tmp_path / "started"
    running = executor.submit(jobs.hold, str(started), str(tmp_path / "never"))
    eventually(started.exists)
    found = executor.map(jobs.square, range(3))
    private.process.kill()
    broken = running.exception(TIMEOUT_S)
    assert isinstance(broken, PoolBroken)
    assert broken.message == "the executor is broken: the daemon has ended (SIGKILL)"
    with pytest.raises(PoolBroken):
        next(found)
    with pytest.raises(PoolBroken):
        executor.submit(jobs.square, 2)
    with pytest.raises(PoolBroken):
        executor.map(jobs.square, [2])
    executor.shutdown()
    assert not Path(private.socket).parent.exists()


def test_a_daemon_that_ended_while_nothing_was_asked_is_found_out() -> None:
    """The next submit says so."""
    executor = Executor(1)
    assert executor.submit(jobs.square, 3).result(TIMEOUT_S) == 9
    private = executor._engine._private
    assert private is not None
    private.process.terminate()
    private.process.wait()
    with pytest.raises(PoolBroken, match="ended"):
        executor.submit(jobs.square, 2)
    executor.shutdown()


def test_the_key_of_multiprocessing_is_handed_over_in_private() -> None:
    """In a file that only its user may read; in no command line, and in no environment."""
    key = bytes(current_process().authkey)
    with Executor(1) as executor:
        assert executor.submit(jobs.authkey).result(TIMEOUT_S) == key
        private = executor._engine._private
        assert private is not None
        file = Path(private.socket).parent / "authkey"
        assert file.read_bytes() == key
        assert file.stat().st_mode & 0o077 == 0
        worker = executor.submit(os.getppid).result(TIMEOUT_S)
        for pid in (private.process.pid, worker):
            for name in ("cmdline", "environ"):
                assert key not in Path(f"/proc/{pid}/{name}").read_bytes()


def test_a_program_that_has_closed_its_outputs_has_an_executor_too() -> None:
    """What jobs write goes into their logs then."""
    program = (
        "import os, jobd, private_jobs\n"
        "os.close(1)\n"
        "with jobd.Executor(1) as executor:\n"
        "    future = executor.submit(private_jobs.say, 'out', 'err')\n"
        "    future.result(20)\n"
        "    os.write(2, b''.join(executor.client.logs(future.id)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=os.environ | {"PYTHONPATH": str(Path(jobs.__file__).parent)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "out\nerr\n" in done.stderr


@pytest.mark.parametrize("kill", [False, True])
def test_the_workers_of_an_executor_may_be_ended(tmp_path: Path, *, kill: bool) -> None:
    """What runs fails, what waits too, and nothing more is taken."""
    executor = Executor(1)
    started = tmp_path / "started"
    running = executor.submit(jobs.hold, str(started), str(tmp_path / "never"))
    waiting = executor.submit(jobs.square, 3)
    eventually(started.exists)
    (executor.kill_workers if kill else executor.terminate_workers)()
    assert isinstance(running.exception(TIMEOUT_S), BrokenProcessPool)
    assert isinstance(waiting.exception(TIMEOUT_S), BrokenProcessPool)
    with pytest.raises(RuntimeError):
        executor.submit(jobs.square, 3)
    executor.shutdown()


def test_on_a_shared_daemon_an_executors_own_jobs_are_ended(
    executor: Executor, jobd_daemon: Daemon, tmp_path: Path
) -> None:
    """Its futures are cancelled; the daemon and others' jobs go on."""
    started = tmp_path / "started"
    running = executor.submit(jobs.hold, str(started), str(tmp_path / "never"))
    eventually(started.exists)
    executor.terminate_workers()
    wait([running], TIMEOUT_S)
    assert running.cancelled()
    with jobd_daemon.client() as client:
        assert client.submit(jobs.square, 3).result(TIMEOUT_S) == 9


def test_map_looks_ahead_only_so_far_of_what_cannot_be_counted(executor: Executor) -> None:
    """An endless iterator has results at once; its next items are taken as results are."""
    numbers = itertools.count()
    found = executor.map(jobs.square, numbers)
    assert next(numbers) == ROOM
    squares = [n * n for n in range(ROOM + 5) if n != ROOM]
    assert list(itertools.islice(found, ROOM + 4)) == squares
    assert next(numbers) <= 2 * ROOM + 5
    found.close()  # type: ignore[attr-defined]  # it is a generator
    with pytest.raises(StopIteration):
        next(found)


def test_map_looks_ahead_as_far_as_it_is_told(executor: Executor) -> None:
    """So many jobs at once; an executor that was shut down takes no more."""
    numbers = iter(range(10))
    found = executor.map(jobs.square, numbers, buffersize=2)
    assert next(numbers) == 2
    assert list(found) == [n * n for n in range(10) if n != 2]
    assert list(executor.map(pow, range(5), range(5), buffersize=1, chunksize=2)) == [
        n**n for n in range(5)
    ]
    assert list(executor.map(jobs.square, buffersize=2)) == []
    found = executor.map(jobs.square, iter(range(10)), buffersize=2)
    executor.shutdown()
    with pytest.raises(RuntimeError):
        list(found)


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), ("2", TypeError)])
def test_map_refuses_a_buffer_that_is_none(
    executor: Executor, size: Any, error: type[Exception]
) -> None:
    """In the words of Python 3.14."""
    with pytest.raises(error, match="buffersize must be"):
        executor.map(jobs.square, [1], buffersize=size)


def test_an_executor_that_is_dropped_goes_on_as_long_as_its_map_is_wanted() -> None:
    """Nobody else holds it."""
    found = Executor(1).map(jobs.square, (n for n in range(2 * ROOM)))
    gc.collect()
    assert sum(found) == sum(n * n for n in range(2 * ROOM))


def test_a_lock_may_travel_as_an_argument() -> None:
    """To the workers of an executor's own daemon; the standard library refuses it."""
    event = multiprocessing.get_context("fork").Event()
    with Executor(1) as executor:
        assert executor.submit(jobs.set_event, event).result(TIMEOUT_S)
        assert event.is_set()
        lock = multiprocessing.get_context("fork").Lock()
        assert lock.acquire()
        assert executor.submit(jobs.take_lock, lock, 0.01).result(TIMEOUT_S) is False
        waiting = executor.submit(jobs.take_lock, lock, TIMEOUT_S)
        lock.release()
        assert waiting.result(TIMEOUT_S) is True


def test_there_may_be_no_daemon(tmp_path: Path) -> None:
    """The constructor says so."""
    with pytest.raises(DaemonUnreachable):
        Executor(socket=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="either"):
        Executor(2, socket=str(tmp_path / "none"))


def test_the_errors_survive_pickling() -> None:
    """They may be results themselves."""
    died = WorkerDied("job 1 crashed", "see", id=1, traceback="t")
    back = payload.unpickle(pickle.dumps(died))
    assert (str(back), back.id, back.traceback) == (str(died), 1, "t")
    assert str(payload.unpickle(pickle.dumps(PoolBroken("why", "what")))) == "why (what)"
    assert str(payload.unpickle(pickle.dumps(remote("x")))) == '\n"""\nx"""'


def test_what_is_shown_of_a_future_tells_which_job_it_is(executor: Executor) -> None:
    """Its state, its id and its function."""
    future = executor.submit(jobs.square, 3)
    future.result(TIMEOUT_S)
    assert repr(future).startswith("<jobd.JobFuture finished: <jobd.Deferred 1 private_jobs:square")
    assert "jobd.Executor" in repr(executor)


def test_a_fork_is_told_that_the_executor_is_not_its_own(executor: Executor) -> None:
    """The threads that complete futures have stayed behind: a future would hang."""
    executor.submit(jobs.square, 3).result(TIMEOUT_S)
    told = in_a_fork(lambda: executor.submit(jobs.square, 3), executor.shutdown)
    refused = (
        f"this executor belongs to process {os.getpid()}, which has forked this one"
        " (make a new one after the fork)"
    )
    assert told == [refused, "None"]
    assert executor.submit(jobs.square, 3).result(TIMEOUT_S) == 9


def test_a_fork_takes_no_answers_from_the_client_of_its_parent(jobd_daemon: Daemon) -> None:
    """Both would read one connection; the fork's is refused, and closes quietly."""
    with jobd_daemon.client() as client:
        deferred = client.submit(jobs.square, 3)
        told = in_a_fork(deferred.result, lambda: client.submit(jobs.square, 3), client.close)
        refused = (
            f"this client belongs to process {os.getpid()}, which has forked this one"
            " (make a new one after the fork)"
        )
        assert told == [refused, refused, "None"]
        assert deferred.result(TIMEOUT_S) == 9


def in_a_fork(*calls: Callable[[], object]) -> list[str]:
    """Call these in a fork of this process; return what they returned or raised, as texts."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)  # the test fails rather than hangs
        for call in calls:
            try:
                said = str(call())
            except BaseException as error:  # noqa: BLE001  # it is what the test is about
                said = str(error)
            os.write(writer, f"{said}\n".encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as lines:
        told = lines.read().splitlines()
    os.waitpid(child, 0)
    return told


def test_jobs_that_are_opened_while_others_end_are_counted_right(executor: Executor) -> None:
    """Else the thread that receives waits for one more than there are, and a shutdown never ends."""

    class Racing(dict[Any, Any]):
        """As if another thread opened a job whenever one is over."""

        def pop(self, key: Any, *default: Any) -> Any:
            self[object()] = None
            return super().pop(key, *default)

    engine = executor._engine
    engine._open = Racing()
    assert executor.submit(operator.add, 1, 2).result(20) == 3
    eventually(lambda: engine._count == 0)
