"""Jobs that know that they are jobs: they submit others, wait for them, and tell how far they are."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jobd


def me() -> list[Any]:
    """Return what a job knows of itself."""
    job = jobd.current_job()
    assert job is not None
    return [job.id, job.attempt, job.queue]


async def me_later() -> list[Any]:
    """Return the same in a coroutine."""
    return me()


def me_in_a_thread() -> list[Any]:
    """Return the same in a thread of the job."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(me()))
    thread.start()
    thread.join()
    return found


def me_in_a_fork() -> int:
    """Tell of progress in a forked child, which is no job; return its exit code."""
    pid = os.fork()
    if pid == 0:
        jobd.progress(1)
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def nest(depth: int) -> int:
    """Wait for a job that waits for a job … ``depth`` deep; return how deep it went."""
    if not depth:
        return 0
    with jobd.Client() as client:
        deeper: int = client.submit("nested:nest", depth - 1).result()
        return deeper + 1


def nest_in_a_thread() -> int:
    """Let a thread of the job wait."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(nest(1)))
    thread.start()
    thread.join()
    return found[0]


def itself() -> None:
    """Wait for its own result."""
    with jobd.Client() as client:
        client.result(me()[0])


def late(gate: str) -> str:
    """Wait for a job a short time, and give up; then hold on to the slot."""
    with jobd.Client() as client:
        try:
            client.submit("work:mark_and_wait", gate, gate + ".never").result(0.2)
        except jobd.WaitTimeout:
            return "gave up"
    return "?"


def parent(mark: str, gate: str) -> str:
    """Wait for a child that waits for a file; write down each life."""
    with open(mark, "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    try:
        with jobd.Client() as client:
            return str(client.submit("work:mark_and_wait", mark + ".child", gate).result())
    finally:
        with open(mark + ".end", "a", encoding="utf-8") as file:
            file.write("end\n")


def count(times: int) -> float:
    """Tell of progress in a tight loop; return the microseconds that each word took."""
    began = time.perf_counter()
    for number in range(times):
        jobd.progress(number + 1, times, "counting")
    return (time.perf_counter() - began) / times * 1e6


def advance(gate: str) -> None:
    """Say how far it is, then wait until the file ``gate`` exists."""
    jobd.progress(1, 10)
    jobd.progress(3, 10, "\x1b[2J lines")
    while not Path(gate).exists():
        time.sleep(0.01)


def endless() -> Iterator[int]:
    """Produce numbers without end."""
    yield from itertools.count()


def consume(number: int, items: int) -> list[int]:
    """Consume a stream as long as that takes."""
    with jobd.Client() as client:
        return list(itertools.islice(client.attach(number), items))


async def gather(count: int) -> list[Any]:
    """Wait for several jobs at a time, in coroutines."""
    async with jobd.AsyncClient() as client:
        jobs = [client.submit("nested:nest", depth) for depth in range(count)]
        return list(await asyncio.gather(*jobs))


def ask(number: int) -> Any:
    """Wait for a job by its id."""
    with jobd.Client() as client:
        return client.result(number)


def pass_on(gate: str) -> Any:
    """Wait for the job whose id is in a file."""
    while not (Path(gate).exists() and Path(gate).read_text(encoding="ascii")):
        time.sleep(0.01)
    return ask(int(Path(gate).read_text(encoding="ascii")))


def feed_on_itself() -> Any:
    """Wait for a job that has this one's result among its arguments."""
    with jobd.Client() as client:
        return client.submit("work:echo", client.attach(me()[0])).result()


def wait_for_two(mark: str, gate: str) -> str:
    """Wait in a thread for a job that is long, and here for one that waits for this one."""
    with jobd.Client() as client:
        long = client.submit("work:mark_and_wait", mark, gate)
        thread = threading.Thread(target=long.result)
        thread.start()
        while not os.path.exists(mark):
            time.sleep(0.001)
        try:
            client.submit("nested:ask", me()[0]).result()
        except jobd.JobdError as error:
            return str(error)
        finally:
            Path(gate).touch()
            thread.join()
    return "?"
