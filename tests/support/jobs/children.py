"""Jobs that fork, that start programs, and that use libraries which keep processes across calls."""

from __future__ import annotations

import asyncio
import ctypes
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import jobd

SHM = "/dev/shm"  # noqa: S108  # where semaphores are


def _exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _until_it_runs(process: subprocess.Popen[bytes], name: str) -> None:
    """Wait until a child has become the program that it is to run."""
    while name not in Path(f"/proc/{process.pid}/comm").read_text(encoding="ascii"):
        time.sleep(0.001)


# --- a forked child comes back from the function


def come_back(how: str) -> Any:
    """Fork; the child comes out of this function in some way, the parent returns its exit code."""
    pid = os.fork()
    if pid:
        return _exit_code(pid)
    print("the child was here", end="")  # no line: it is in a buffer
    match how:
        case "return":
            return "child"
        case "exit":
            sys.exit()
        case "exit 7":
            sys.exit(7)
        case "exit words":
            sys.exit("why it ends")
        case "interrupt":
            raise KeyboardInterrupt
        case "thread":
            threading.Thread(target=_print_late).start()
            return "child"
        case _:
            raise ValueError("in the child")


def _print_late() -> None:
    time.sleep(0.05)
    print("and its thread too")


def come_back_of_c() -> Any:
    """Fork in a way of which Python is not told; the child comes back."""
    pid = ctypes.CDLL(None).fork()
    return _exit_code(pid) if pid else "child"


def come_back_later(how: str) -> Any:
    """Do so some time after the parent has ended its part: that has waited for nobody."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)  # the parent's end
        if how == "raise":
            raise ValueError("in the child")
        return "child"
    os.close(read)
    return os.getpid()


async def come_back_from_a_coroutine(how: str) -> Any:
    """Do so in a coroutine, and use the event loop afterwards: it must be as it was."""
    parent = os.getpid()
    code = come_back(how)
    if os.getpid() != parent:
        return code
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.01)
    return code


def come_back_from_a_generator(how: str) -> Iterator[Any]:
    """Do so in a generator."""
    yield "before"
    if how == "yield":
        pid = os.fork()
        yield _exit_code(pid) if pid else "child"
    elif how == "end":
        pid = os.fork()
        if pid == 0:
            return
        yield _exit_code(pid)
    else:
        yield come_back(how)


async def come_back_from_an_async_generator(how: str) -> AsyncIterator[Any]:
    """Do so in an asynchronous one."""
    for item in come_back_from_a_generator(how):
        yield item


# --- signals


def interrupt() -> int:
    """Interrupt a program that this job has started; return how it ended."""
    process = subprocess.Popen(["sleep", "60"])
    _until_it_runs(process, "sleep")
    process.send_signal(signal.SIGINT)
    return process.wait()


def interrupt_itself() -> str:
    """Interrupt this job, which takes it as everywhere in Python."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        return "interrupted"
    return "?"


def terminate(kind: str) -> int | None:
    """End a process of ``multiprocessing``; return how it ended."""
    context: Any = multiprocessing.get_context(kind)
    begun = context.Event()
    process = context.Process(target=_say_and_sleep, args=(begun,))
    process.start()
    begun.wait()
    process.terminate()
    process.join()
    code: int | None = process.exitcode
    return code


def _say_and_sleep(begun: Any) -> None:
    begun.set()
    time.sleep(60)


def ignored_by_a_program() -> str:
    """Return which signals a program ignores that this job starts, and which are blocked in it."""
    command = ["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# --- libraries that keep processes

_executors: list[ProcessPoolExecutor] = []
_pools: list[Pool] = []


def joblib_parallel(count: int) -> int:
    """Add up squares in two processes of joblib's, which keeps them."""
    import joblib  # noqa: PLC0415  # it may not be installed

    return sum(joblib.Parallel(2)(joblib.delayed(pow)(n, 2) for n in range(count)))


def grid_search() -> int:
    """Look for the best neighbour count with scikit-learn; return it."""
    from sklearn.model_selection import GridSearchCV  # noqa: PLC0415  # as above
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415

    points = [[float(n)] for n in range(12)]
    search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 5]}, cv=2, n_jobs=2)
    search.fit(points, [n // 6 for n in range(12)])
    return len(search.cv_results_["params"])


def fork_server() -> int:
    """Use a pool of the fork server, which lives on."""
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        return int(pool.apply(abs, (-3,)))


def executor_of_the_module() -> int:
    """Use an executor that a global variable keeps."""
    if not _executors:
        _executors.append(ProcessPoolExecutor(1))
    return int(_executors[0].submit(abs, -4).result())


def pool_of_the_module() -> int:
    """Use a pool that a global variable keeps."""
    if not _pools:
        _pools.append(multiprocessing.get_context("fork").Pool(1))
    return int(_pools[0].apply(abs, (-5,)))


_KEPT: list[Any] = []


def leave_semaphores() -> list[str]:
    """Leave 16 semaphores, a shared memory and a folder to the resource trackers; return their names."""
    from joblib.externals.loky.backend import resource_tracker  # noqa: PLC0415  # as above

    before = {*os.listdir(SHM)}
    context = multiprocessing.get_context("spawn")
    _KEPT.extend(context.Semaphore(1) for _ in range(16))
    _KEPT.append(shared_memory.SharedMemory(create=True, size=1000))
    folder = tempfile.mkdtemp(dir=SHM)
    resource_tracker.register(folder, "folder")
    own = (f"sem.{semaphore._semlock.name[1:]}" for semaphore in _KEPT[:16])
    names = [*own, _KEPT[16].name, os.path.basename(folder)]
    assert {*names}.isdisjoint(before)
    assert {*names} <= {*os.listdir(SHM)}
    return names


def leave_semaphores_and_wait(path: str) -> None:
    """Do so, write the names to a file, and wait to be stopped."""
    names = leave_semaphores()
    Path(f"{path}.new").write_text(" ".join(names), encoding="ascii")
    Path(f"{path}.new").rename(path)
    time.sleep(600)


def leave_semaphores_and_die(path: str, *, by_signal: bool) -> None:
    """Do so, write the names to a file, and end the worker."""
    names = leave_semaphores()
    Path(path).write_text(" ".join(names), encoding="ascii")
    if by_signal:
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)


# --- children that are left


def leave_sleeping(count: int = 1) -> list[int]:
    """Leave so many processes running; return their pids."""
    return [subprocess.Popen(["sleep", "600"]).pid for _ in range(count)]


def leave_detached() -> int:
    """Leave one that has a session of its own, no parent, and ignores SIGTERM; return its pid."""
    script = "trap '' TERM; (setsid sleep 600 > /dev/null & echo $!)"
    done = subprocess.run(["sh", "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


def leave_dying() -> int:
    """Leave one that was killed this very moment; return the worker's pid."""
    process = subprocess.Popen(["sleep", "600"])
    process.kill()
    return os.getpid()


def worker() -> int:
    """Return the worker's pid."""
    return os.getpid()


# --- waiting in a child


def factorial(number: int) -> int:
    """Wait for a job, in this process."""
    with jobd.Client() as client:
        value: int = client.submit("math:factorial", number).result(30)
        return value


def factorial_async(number: int) -> int:
    """Wait for a job in a coroutine."""

    async def ask() -> int:
        async with jobd.AsyncClient() as client:
            value: int = await client.submit("math:factorial", number)
            return value

    return asyncio.run(ask())


def factorial_by_executor(number: int) -> int:
    """Wait for a job that is a future."""
    with jobd.Executor() as executor:
        value: int = executor.submit(math.factorial, number).result(30)
        return value


def in_child(how: str, name: str) -> int:
    """Call one of the three in a child process of some kind."""
    function = globals()[name]
    match how:
        case "subprocess":
            script = f"import children; print(children.{name}(4))"
            command = [sys.executable, "-c", script]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            return int(done.stdout)
        case "executor":
            with ProcessPoolExecutor(1) as executor:
                return int(executor.submit(function, 4).result())
        case "os.fork":
            read, write = os.pipe()
            if os.fork() == 0:
                os.write(write, str(function(4)).encode())
                os._exit(0)
            os.close(write)
            return int(os.read(read, 20))
        case _:
            context: Any = multiprocessing.get_context(how)
            with context.Pool(1) as pool:
                return int(pool.apply(function, (4,)))


def who_am_i(how: str) -> list[int]:
    """Return the id of the job that a child process is part of, and that of the job."""
    job = jobd.current_job()
    assert job is not None
    if how == "subprocess":
        script = "import jobd; print(jobd.current_job().id)"
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return [int(done.stdout), job.id]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return [pool.apply(_my_id), job.id]


def _my_id() -> int:
    job = jobd.current_job()
    assert job is not None
    return job.id


def wait_for_itself_in_a_child() -> str:
    """Wait for this job's own result in a program that it has started; return what that says."""
    job = jobd.current_job()
    assert job is not None
    command = [sys.executable, "-P", "-m", "jobd", "wait", str(job.id)]
    return subprocess.run(command, check=False, capture_output=True, text=True).stderr


def wait_in_a_child_that_is_killed(gate: str) -> str:
    """Let a child wait for a job that never ends, and kill it; go on until the gate opens."""
    script = "import jobd; jobd.Client().submit('children:sleep_long').result()"
    process = subprocess.Popen([sys.executable, "-c", script])
    while not Path(f"{gate}.waits").exists():
        time.sleep(0.005)
    process.kill()
    process.wait()
    Path(f"{gate}.killed").touch()
    while not Path(gate).exists():
        time.sleep(0.005)
    return "went on"


def sleep_long() -> None:
    """Run for ever."""
    time.sleep(600)
