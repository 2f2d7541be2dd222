"""What a program of an ordinary user can do on this machine: tried out, one thing after the other.

A job must be able to do the same. Each attempt is made in a process of its own, because some
leave a mark on it, and a filter of system calls may kill it.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable


def _shell(command: str) -> Callable[[], object]:
    def run() -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, shell=True, check=True, timeout=10, **quiet)  # type: ignore[call-overload]  # noqa: S602

    return run


def _write(directory: str) -> Callable[[], object]:
    def run() -> None:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x")

    return run


def _make_setgid_directory() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o2750)  # noqa: S103  # which is what is tried out


def _connect_here() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()[:2]).close()


def _read(path: str) -> Callable[[], object]:
    def run() -> None:
        with open(path, "rb") as file:
            assert file.read(1)

    return run


def _machine_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    ctypes.CFUNCTYPE(None)(lambda: None)()


ATTEMPTS: dict[str, Callable[[], object]] = {
    "run a pipe of commands": _shell("echo hi | grep -q hi"),
    "use a lock of multiprocessing": lambda: multiprocessing.Lock().acquire(),
    "use shared memory": _write("/dev/shm"),  # noqa: S108
    "use a temporary file": _write(tempfile.gettempdir()),
    "make and run machine code": _machine_code,
    "make a setgid directory": _make_setgid_directory,
    "connect over TCP": _connect_here,
    "list network interfaces": socket.if_nameindex,
    "see a process of somebody else": _read("/proc/1/cmdline"),
    "read the processor's data": _read("/proc/cpuinfo"),
    "read a device": _read("/dev/urandom"),
    "list devices in sysfs": lambda: os.listdir("/sys/class"),
    "see its cgroup": lambda: os.listdir("/sys/fs/cgroup"),
    "choose its processors": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "become nicer": lambda: os.nice(1),
    "make a sandbox": _shell("unshare --user --map-root-user --pid --fork --mount-proc true"),
    "make a network of its own": _shell("unshare --user --map-root-user --net true"),
    "switch address randomisation off": _shell("setarch --addr-no-randomize true"),
    "be debugged by its parent": lambda: _check_zero(ctypes.CDLL(None).ptrace(0, 0, 0, 0)),
    "set a limit for itself": _shell("ulimit -n 100"),
}


def _check_zero(value: int) -> None:
    assert value == 0


def succeeds(attempt: Callable[[], object]) -> bool:
    """Whether an attempt succeeds, made in a process of its own."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(10)
            attempt()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def tried_out(setuid_id: str, *own_directories: str) -> dict[str, bool]:
    """Try everything out; return what succeeded.

    Args:
        setuid_id: a copy of id(1) that is root's and has the setuid bit.
        own_directories: directories that belong to the user.
    """
    attempts = ATTEMPTS | {f"write to {name}": _write(name) for name in own_directories}
    attempts["become root"] = _shell(f"{setuid_id} -u | grep -qx 0")
    return {name: succeeds(attempt) for name, attempt in attempts.items()}


if __name__ == "__main__":
    print(json.dumps(tried_out(*sys.argv[1:])))
