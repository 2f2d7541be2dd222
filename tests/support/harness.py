"""A real daemon for a test: started, watched, killed, and cleaned up after.

Everything of it lives in one short temporary directory (a socket's path has at
most 107 bytes).  ``close`` ends every process that the daemon or its workers
have started; of a daemon that has come to an orderly end it asserts that none
was left.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from jobd.blobs import remove_memory
from jobd.client import Client

T = TypeVar("T")

DEADLINE_S = 20.0
JOBS = Path(__file__).parent / "jobs"


def eventually(look: Callable[[], T], *, within_s: float = DEADLINE_S) -> T:
    """Return what ``look`` returns as soon as that is true; fail when it is not in time."""
    deadline = time.monotonic() + within_s
    pause = 0.001
    while not (found := look()):
        assert time.monotonic() < deadline, f"not so within {within_s} s: {look}"
        time.sleep(pause)  # between two looks at a condition, never instead of one
        pause = min(0.05, pause * 1.5)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


class DaemonUnderTest:
    """One daemon and its directory; start it as often as a test needs."""

    def __init__(self, *, modules: dict[str, str] | None = None, **settings: object) -> None:
        """Prepare; ``settings`` by dotted name with ``__`` for the dot, as ``pool__workers=2``."""
        self.root = Path(tempfile.mkdtemp(prefix="jobd-", dir="/tmp"))  # short enough for a socket
        self.state_dir = self.root / "state"
        self.socket = str(self.state_dir / "client.sock")
        self.work_dir = self.root / "work"
        self.work_dir.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.log_path = self.root / "daemon.log"
        self._clients: list[Client] = []
        defaults: dict[str, object] = {
            "pool__workers": 2,
            "pool__orphan_s": 60.0,  # on a busy machine the next daemon may take its time
            "jobs__check_timeout_s": 60.0,  # and a check, too
            "pool__kill_grace_s": 1.0,
            "daemon__drain_s": 5.0,
        }
        self.environ = {
            key: value for key, value in os.environ.items() if not key.startswith(("JOBD_", "XDG_"))
        }
        self.environ |= {"HOME": str(self.root), "JOBD_STATE_DIR": str(self.state_dir)}
        for name, value in (defaults | settings).items():
            self.environ["JOBD_" + name.replace("__", "_").upper()] = str(value)
        for name, source in (modules or {}).items():
            self.write_module(name, source)

    def write_module(self, name: str, source: str) -> None:
        """Put a module where the workers find it."""
        (self.work_dir / f"{name}.py").write_text(source, encoding="utf-8")

    def write_jobs(self) -> Self:
        """Put the modules of ``tests/support/jobs`` where the workers find them."""
        for module in JOBS.glob("*.py"):
            self.write_module(module.stem, module.read_text(encoding="utf-8"))
        return self

    def start(
        self, *, failpoint: str = "", wait: bool = True, wrapper: Sequence[str] = (), **environ: str
    ) -> Self:
        """Start in the foreground; return once it answers (or at once, with ``wait=False``).

        ``wrapper`` is a command that ends by becoming the one that follows, as ``unshare -m`` does.
        """
        extra = {"JOBD_FAILPOINT": failpoint} if failpoint else {}
        read_fd, write_fd = os.pipe()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *wrapper,
                    *(sys.executable, "-P", "-m", "jobd", "start", "--foreground"),
                    *("--path", str(self.work_dir), "--ready-fd", str(write_fd)),
                ],
                cwd=self.work_dir,
                env=self.environ | extra | environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_fd,),
            )
        os.close(write_fd)
        with os.fdopen(read_fd, "rb") as ready:
            if wait:
                assert ready.read().strip().isdigit(), f"the daemon did not start:\n{self.log}"
        return self

    @property
    def pid(self) -> int:
        """The daemon's pid."""
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """What the daemon wrote to stderr."""
        if not self.log_path.exists():
            return ""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def client(self, *, timeout_s: float = DEADLINE_S) -> Client:
        """Return a new client, closed with the daemon."""
        client = Client(self.socket, timeout_s=timeout_s)
        self._clients.append(client)
        return client

    def settle(self) -> None:
        """Wait until no worker is starting: each has all of its connections then."""
        with Client(self.socket, timeout_s=DEADLINE_S) as client:
            eventually(lambda: all(w.state != "starting" for w in client.status().workers))

    def cli(
        self,
        *words: str,
        stdin: str = "",
        timeout: float = 30.0,
        cwd: Path | None = None,
        **environ: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line to its end."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "jobd", *words],
            cwd=cwd or self.work_dir,
            env=self.environ | environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def kill(self) -> None:
        """``kill -9`` the daemon, and nothing else."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wait(self, timeout: float = DEADLINE_S) -> int:
        """Wait for the daemon's end; return its exit code."""
        assert self.process is not None
        return self.process.wait(timeout)

    def terminate(self, timeout: float = DEADLINE_S) -> int:
        """Send SIGTERM and wait for the end; return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def processes(self) -> list[int]:
        """Return the pids of all living processes that carry this daemon's state directory."""
        mark = f"JOBD_STATE_DIR={self.state_dir}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    marked = mark in (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if marked and is_alive(int(entry.name)):
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """Stop everything, and make sure that nothing lives on."""
        print(self.log)  # pytest shows it with a test that has failed
        for client in self._clients:
            client._closed = True
            client._transport.close()
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.send_signal(signal.SIGCONT)
                self.process.terminate()
                try:
                    self.process.wait(DEADLINE_S)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
                    raise
            if self.process is None or self.process.returncode == 0:
                eventually(lambda: not self.processes())
        finally:
            eventually(self._kill_all)
            remove_memory(str(self.state_dir))
            shutil.rmtree(self.root, ignore_errors=True)

    def _kill_all(self) -> bool:
        """Kill what lives; return whether that was nothing."""
        found = self.processes()
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def lines(path: Path) -> list[str]:
    """Return the lines of a file that may not be there yet."""
    return path.read_text(encoding="ascii").splitlines() if path.exists() else []
