"""Daemons to measure and their rivals, in interleaved rounds; nothing of them is left behind.

Every daemon is a real one, started by ``jobd start`` with its state on a real
disk.  It is known by its state directory, which all processes that it starts
carry in their environment.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import TypeVar

from jobd.blobs import remove_memory
from jobd.client import Client
from jobd.model.errors import JobdError

T = TypeVar("T")

JOBD = "jobd"
PPE = "ProcessPoolExecutor"
POOL = "multiprocessing.Pool"

WORKERS = 2
HERE = Path(__file__).resolve().parent
SCRIPT = Path(sys.executable).parent / "jobd"

TIMEOUT_S = 120.0
GRACE_S = 10.0
WARM_UP = 500

NOOP = "bench_jobs:noop"


class CannotMeasureError(Exception):
    """What should be measured does not run."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all measures share."""

    directory: Path
    quick: bool

    def pick(self, full: T, quick: T) -> T:
        """Choose by the mode."""
        return quick if self.quick else full


def progress(text: str) -> None:
    """Tell on stderr what is going on; on a terminal each line takes the last one's place."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def in_rounds(title: str, count: int, runs: Mapping[str, Callable[[], T]]) -> list[dict[str, T]]:
    """Run each once, then each once again, and so on: a disturbance hits all alike."""
    found = []
    for turn in range(1, count + 1):
        row = {}
        for name, run in runs.items():
            progress(f"{title}: round {turn} of {count}, {name}")
            gc.collect()
            row[name] = run()
        found.append(row)
    return found


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


# -- jobd ---------------------------------------------------------------------


class Place:
    """A state directory of its own, and the ``jobd`` command that belongs to it."""

    def __init__(self, bench: Bench, workers: int = WORKERS) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="jobd-bench-", dir=bench.directory))
        self.state_dir = self.directory / "state"
        self.socket = str(self.state_dir / "client.sock")
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("JOBD_", "XDG_", "PYTHON"))
        }
        self.environ |= {
            "HOME": str(self.directory),
            "JOBD_STATE_DIR": str(self.state_dir),
            "JOBD_SOCKET": self.socket,
            "JOBD_PATH": f"{HERE}{os.pathsep}{HERE.parents[1]}",  # by either name of a module
            "JOBD_POOL_WORKERS": str(workers),
            "JOBD_STORE_DURABILITY": "full",
        }

    def jobd(self, *words: str) -> float:
        """Run a command of the command line as a whole process; return how long it took."""
        return process_seconds([str(SCRIPT), *words], self.environ)

    def close(self) -> None:
        """End the daemon and whatever it has started, and remove the directory."""
        deadline = time.monotonic() + GRACE_S
        try:
            Client(self.socket, timeout_s=GRACE_S).stop(drain_s=0.0, timeout=GRACE_S)
        except JobdError:
            deadline = 0.0  # it never started, or it hangs
        while pids := self._processes():
            if time.monotonic() > deadline:
                _kill(pids)
            time.sleep(0.01)
        remove_memory(str(self.state_dir))
        shutil.rmtree(self.directory, ignore_errors=True)

    def _processes(self) -> list[int]:
        mark = f"JOBD_STATE_DIR={self.state_dir}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue  # it has ended meanwhile, or is somebody else's
        return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it was faster


@contextmanager
def place(bench: Bench, workers: int = WORKERS) -> Iterator[Place]:
    """Give a state directory without a daemon."""
    made = Place(bench, workers)
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A running daemon whose workers are warm, and a client of it."""

    place: Place
    client: Client

    def memory(self, field: str) -> int:
        """Return bytes of the daemon's memory: ``VmRSS``, or ``VmHWM`` for the most it ever had."""
        status = Path(f"/proc/{self.client.welcome.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith(field + ":"))
        return int(line.split()[1]) * 1024


@contextmanager
def daemon(bench: Bench, workers: int = WORKERS) -> Iterator[Daemon]:
    """Start a daemon, and have it know that a no-op job is short."""
    with place(bench, workers) as where:
        where.jobd("start")
        with Client(where.socket, timeout_s=TIMEOUT_S) as client:
            for deferred in [client.submit(NOOP) for _ in range(WARM_UP)]:
                deferred.result(TIMEOUT_S)
            yield Daemon(place=where, client=client)


# -- processes ----------------------------------------------------------------


def process_seconds(command: list[str], environ: dict[str, str]) -> float:
    """Run a program (its absolute path first) to its end; return how long it took.

    Raises:
        CannotMeasureError: it failed; what it said on stderr is in the message.
    """
    with tempfile.TemporaryFile() as words:
        files = [
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, words.fileno(), 2),
        ]
        began = time.perf_counter()
        pid = os.posix_spawn(command[0], command, environ, file_actions=files)
        _, status = os.waitpid(pid, 0)
        took = time.perf_counter() - began
        if status:
            words.seek(0)
            code = os.waitstatus_to_exitcode(status)
            said = words.read().decode(errors="replace").strip()
            raise CannotMeasureError(f"{' '.join(command)} ended with {code}: {said}")
    return took


# -- the rivals ---------------------------------------------------------------


def _as_a_worker() -> None:
    """Keep what is meant for the parent from a rival's worker.

    A signal to the whole group, Ctrl-C for one, could end it while it holds a lock
    of its pool, and then the parent would wait for that lock for ever.
    """
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which Pool.terminate ends it
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def executor(workers: int = WORKERS) -> Iterator[ProcessPoolExecutor]:
    """Give a ProcessPoolExecutor whose workers have started."""
    pool = ProcessPoolExecutor(workers, initializer=_as_a_worker)
    try:
        for future in [pool.submit(time.sleep, 0.05) for _ in range(2 * workers)]:
            future.result()
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def process_pool(workers: int = WORKERS) -> Iterator[Pool]:
    """Give a multiprocessing.Pool whose workers have started."""
    pool = multiprocessing.Pool(workers, initializer=_as_a_worker)
    try:
        pool.map(time.sleep, [0.05] * 2 * workers, chunksize=1)
        yield pool
    finally:
        pool.terminate()
        pool.join()


@contextmanager
def side_by_side(bench: Bench) -> Iterator[tuple[Daemon, ProcessPoolExecutor, Pool]]:
    """Give a daemon and both pools; those fork first, while nothing else is there."""
    with executor() as futures, process_pool() as pool, daemon(bench) as jobd:
        yield jobd, futures, pool
