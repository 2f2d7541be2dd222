"""Jobs that take too long, or too much."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jobd
from jobd import shell


def sleep_long(mark: str = "") -> None:
    """Sleep, having left a mark."""
    note(mark)
    time.sleep(600)


def sleep_stubbornly(mark: str) -> None:
    """Ignore SIGTERM, in this process, in a child, and in one that has run away."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(command)
    stray = subprocess.Popen(command, start_new_session=True)
    note(mark, os.getpid(), child.pid, stray.pid)
    time.sleep(600)


def survive() -> str:
    """Catch the soft limit, and go on."""
    try:
        time.sleep(600)
    except jobd.TimeLimitExceeded as error:
        return f"went on: {error}"
    return "it never came"


def spin() -> None:
    """Use the processor without end."""
    while True:
        pass


async def sleep_asleep(mark: str = "") -> None:
    """Sleep in an event loop, and note that it was cancelled."""
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        note(mark, "cancelled")
        raise


async def block_the_loop() -> None:
    """Sleep without the event loop's knowledge."""
    await asyncio.sleep(0)
    time.sleep(600)  # noqa: ASYNC251  # this is what it is about


async def survive_asleep() -> str:
    """Catch the cancel that the soft limit is, and go on."""
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        await asyncio.sleep(0)
    return "went on"


def stream_slowly() -> Iterator[int]:
    """Produce one item, and then no more."""
    yield 1
    time.sleep(600)


def raise_the_same() -> None:
    """Raise what a limit raises, without one."""
    raise jobd.TimeLimitExceeded("my own")


def note(mark: str, *words: object) -> None:
    """Write into a file, whole."""
    if mark:
        fresh = Path(f"{mark}.new")
        fresh.write_text(" ".join(map(str, words)), encoding="utf-8")
        fresh.rename(mark)


def eat(megabytes: int) -> int:
    """Take memory, touch it, and keep it until the end."""
    pages = bytearray(megabytes * 1024 * 1024)
    pages[::4096] = b"x" * len(range(0, len(pages), 4096))
    return len(pages)


def abort() -> None:
    """Die as C code does that gets no memory."""
    os.abort()


def leave_at_once() -> None:
    """End the process as other C code does."""
    os._exit(1)


def chatter_and_die(lines: int) -> None:
    """Write lines, compute for a while, and die of a signal."""
    for number in range(lines):
        print("line", number, flush=True)
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    os.kill(os.getpid(), signal.SIGSEGV)


def surroundings() -> list[int]:
    """Return the pid, the niceness, how many cores there are, and the limit of memory."""
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return [os.getpid(), niceness, len(os.sched_getaffinity(0)), limit]


def group(mark: str = "", gate: str = "") -> str:
    """Return the cgroup that this runs in; leave a mark, and wait for the gate, if there are such."""
    found = re.search(r"^0::(.*)$", Path("/proc/self/cgroup").read_text("utf-8"), re.MULTILINE)
    note(mark, os.getpid())
    while gate and not Path(gate).exists():
        time.sleep(0.005)
    return found[1] if found else ""


def run_away(mark: str, gate: str) -> None:
    """Start a process that nobody can find by its parent or its session, and wait for the gate."""
    script = f"trap : TERM HUP INT; echo $$ >{mark}; while :; do sleep 600; done"
    subprocess.run(["sh", "-c", '(setsid sh -c "$0" &) &', script], check=True)
    while not Path(gate).exists():
        time.sleep(0.005)


def polite(mark: str) -> str:
    """Return a script that takes a moment to end when it is told to; it writes a line at its begin and end."""
    trap = f"trap 'sleep 0.2; echo ended >>{mark}; exit' TERM"
    return f"{trap}; echo began >>{mark}; while :; do sleep 0.05; done"


def run_polite_command(mark: str) -> int:
    """As ``jobd run`` does."""
    return shell.run(["sh", "-c", polite(mark)], "/")


def leave_polite_ones(mark: str, count: int) -> None:
    """Start such scripts in other sessions, without a parent here."""
    for _ in range(count):
        subprocess.run(["sh", "-c", '(setsid sh -c "$0" &) &', polite(mark)], check=True)
    time.sleep(600)


def leave_a_deaf_one(mark: str) -> None:
    """Start a process that ignores SIGTERM, as the helpers of multiprocessing do."""
    deaf = f"trap '' TERM; echo $$ >{mark}; while :; do sleep 1; done"
    subprocess.run(["sh", "-c", '(setsid sh -c "$0" &) &', deaf], check=True)
    time.sleep(600)


def end_a_forked_helper(mark: str) -> int | None:
    """Start a process as multiprocessing does by default, and end it as that does."""
    helper = multiprocessing.get_context("fork").Process(target=sleep_long, args=(mark,))
    helper.start()
    while not Path(mark).exists():
        time.sleep(0.005)
    helper.terminate()
    helper.join()
    return helper.exitcode


def die_of_hunger(mark: str = "", gate: str = "") -> None:
    """Die as the kernel lets those die who want too much memory; not before the gate is open."""
    note(mark, os.getpid())
    while gate and not Path(gate).exists():
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)


def leak(megabytes: int) -> int:
    """Keep memory for ever; return the pid."""
    LEAKED.append(b"x" * (megabytes * 1024 * 1024))
    return os.getpid()


LEAKED: list[bytes] = []
