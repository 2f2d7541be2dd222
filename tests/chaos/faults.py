"""What is done to a daemon and those around it, each for a moment: what begins a fault returns what ends it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

from harness import DaemonUnderTest, is_alive
from oracle import Oracle

Heal = Callable[[], None]

HOURS = (-1, 1, 24, 24 * 365 * 10)
"""By how much a clock is wrong."""

SLOW_US = 200_000
FILLER = "filler"
DISK_MIB = 48

CLIENT = """
import sys
sys.path[:0] = sys.argv[4:]
from jobd.client import Client
marks, prefix, socket = sys.argv[1:4]
with Client(socket) as client:
    for number in range(100_000):
        tag = f"{prefix}-{number}"
        deferred = client.submit("marks:mark", marks, tag)
        print(tag, deferred.id, flush=True)
"""


class World:
    """A daemon under test, and what can be done to it."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.has_disk = False
        self.daemon = DaemonUnderTest(
            pool__workers=2, pool__orphan_s=60.0, jobs__max_crashes=3, daemon__drain_s=10.0
        ).write_jobs()
        self.oracle = Oracle(self.daemon)
        self._clock = self.daemon.root / "clock"
        self._clock.write_bytes(bytes(8))
        self._clients = 0
        self._mount()
        self._preload()

    # -- what is there --

    def start(self) -> None:
        """Start the daemon; one that cannot start for want of room is told by ``heal`` before."""
        self.daemon.start()

    def is_alive(self) -> bool:
        """Whether the daemon has not ended."""
        return self.daemon.process is not None and self.daemon.process.poll() is None

    def close(self) -> None:
        """End all, and leave nothing."""
        self.daemon.close()
        if self.has_disk:
            subprocess.run(["umount", "--lazy", str(self.daemon.state_dir)], check=False)
            shutil.rmtree(self.daemon.root, ignore_errors=True)

    def zygote(self) -> int:
        """Return the pid of the process that forks workers; 0: there is none now."""
        return next((pid for pid in self._below() if b"jobd.pool.zygote" in _words(pid)), 0)

    def workers(self) -> list[int]:
        """Return the pids of what the zygote has forked."""
        zygote = self.zygote()
        return _children(zygote) if zygote else []

    def _below(self) -> Iterator[int]:
        yield from _children(self.daemon.pid)

    def _mount(self) -> None:
        """Give the state directory a small disk of its own, where we may."""
        self.daemon.state_dir.mkdir(mode=0o700)
        if os.geteuid() == 0:
            words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0700", "tmpfs"]
            done = subprocess.run([*words, str(self.daemon.state_dir)], check=False)
            self.has_disk = done.returncode == 0

    def _preload(self) -> None:
        """Let the clock of the daemon be shifted, where there is a compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            return
        library = self.daemon.root / "clock.so"
        source = Path(__file__).parent / "clock.c"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        self.daemon.environ |= {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._clock)}

    # -- faults --

    def kill_daemon(self) -> Heal:
        """SIGKILL, at any moment."""
        self.daemon.kill()
        return _nothing

    def stop_daemon(self) -> Heal:
        """SIGSTOP, for a while."""
        return self._stop(self.daemon.pid)

    def kill_zygote(self) -> Heal:
        """SIGKILL: its workers go on, and the next one forks others."""
        return self._kill(self.zygote())

    def stop_zygote(self) -> Heal:
        """SIGSTOP, for a while."""
        return self._stop(self.zygote())

    def kill_workers(self) -> Heal:
        """SIGKILL, one or all of them."""
        for pid in self._some(self.workers()):
            self._kill(pid)
        return _nothing

    def stop_workers(self) -> Heal:
        """SIGSTOP, one or all of them."""
        heals = [self._stop(pid) for pid in self._some(self.workers())]

        def heal() -> None:
            for each in heals:
                each()

        return heal

    def fill_disk(self) -> Heal:
        """Not a byte is left where the state directory is."""
        if not self.has_disk:
            return _nothing
        filler = self.daemon.state_dir / FILLER
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(1 << 16)):
                    pass
            except OSError:
                pass  # that is the point
        return lambda: filler.unlink(missing_ok=True)

    def run_out_of_files(self) -> Heal:
        """The daemon gets no more file descriptors than it has, or a few."""
        pid = self.daemon.pid
        used = len(os.listdir(f"/proc/{pid}/fd"))
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + self.rng.randrange(3), before[1]))

        def heal() -> None:
            if is_alive(pid):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

        return heal

    def slow_disk(self) -> Heal:
        """Each fdatasync takes a fifth of a second longer."""
        if shutil.which("strace") is None:
            return _nothing
        inject = f"inject=fdatasync:delay_exit={SLOW_US}"
        quietly = ("strace", "-f", "-qq", "-o", "/dev/null")
        words = (*quietly, "-e", "trace=fdatasync", "-e", inject, "-p", str(self.daemon.pid))
        tracer = subprocess.Popen(words, stderr=subprocess.DEVNULL)

        def heal() -> None:
            tracer.terminate()
            tracer.wait()

        return heal

    def shift_clock(self) -> Heal:
        """The wall clock of the daemon and of all its processes goes wrong, and right again."""

        def shift(hours: int) -> None:
            # In place: the processes have mapped it.
            with self._clock.open("r+b") as file:
                file.write(struct.pack("q", hours * 3600))

        shift(self.rng.choice(HOURS))
        return partial(shift, 0)

    def kill_client(self) -> Heal:
        """A client that submits one job after the other is killed at any moment."""
        self._clients += 1
        words = [str(self.oracle.marks), f"client{self._clients}", self.daemon.socket, *sys.path]
        with tempfile.TemporaryFile("w+") as told:
            process = subprocess.Popen([sys.executable, "-c", CLIENT, *words], stdout=told)

            def heal() -> None:
                process.kill()
                process.wait()

            try:
                process.wait(0.2 + self.rng.random())
            except subprocess.TimeoutExpired:
                heal()
            told.seek(0)
            lines = told.read().splitlines()
        for tag, number in (line.split() for line in lines if len(line.split()) == 2):
            self.oracle.adopt(tag, int(number))
        return _nothing

    def _some(self, pids: list[int]) -> list[int]:
        return self.rng.sample(pids, self.rng.randint(1, len(pids))) if pids else []

    def _kill(self, pid: int) -> Heal:
        _signal(pid, signal.SIGKILL)
        return _nothing

    def _stop(self, pid: int) -> Heal:
        _signal(pid, signal.SIGSTOP)
        return lambda: _signal(pid, signal.SIGCONT)


FAULTS: dict[str, Callable[[World], Heal]] = {
    "daemon killed": World.kill_daemon,
    "daemon stopped": World.stop_daemon,
    "zygote killed": World.kill_zygote,
    "zygote stopped": World.stop_zygote,
    "workers killed": World.kill_workers,
    "workers stopped": World.stop_workers,
    "disk full": World.fill_disk,
    "no file descriptors": World.run_out_of_files,
    "disk slow": World.slow_disk,
    "clock wrong": World.shift_clock,
    "client killed": World.kill_client,
}


def _nothing() -> None:
    """There is nothing to heal."""


def _signal(pid: int, number: int) -> None:
    if pid and is_alive(pid):
        os.kill(pid, number)


def _children(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
