"""On what the figures were taken: they mean little without it."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import jobd

SYNCS = 200
IN_MEMORY = ("tmpfs", "ramfs")


def describe(directory: Path) -> dict[str, Any]:
    """Return the machine's parts and versions; ``directory`` holds the daemons' state."""
    import zmq  # noqa: PLC0415  # the measures fork, and are to do so without libzmq's threads

    return {
        "python": platform.python_version(),
        "jobd": jobd.__version__,
        "jobd_from": os.path.dirname(jobd.__file__),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg(),
        "kernel": platform.release(),
        "sqlite": sqlite3.sqlite_version,
        "libzmq": zmq.zmq_version(),
        "directory": str(directory),
        "filesystem": filesystem(directory),
        "fdatasync_p50_us": _fdatasync_us(directory),
    }


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def filesystem(directory: Path) -> str:
    """Return the type of the file system that holds a directory."""
    path, found, kind = str(directory.resolve()), "", "unknown"
    with open("/proc/mounts", encoding="utf-8") as file:
        for line in file:
            _, mount, fs_type, *_ = line.split()
            inside = mount in ("/", path) or path.startswith(mount + "/")
            if inside and len(mount) >= len(found):
                found, kind = mount, fs_type
    return kind


def _fdatasync_us(directory: Path) -> float:
    """Return how long the disk takes to keep one more page, as a commit does."""
    took = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(SYNCS):
            file.write(b"\1" * 4096)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return round(median(took) * 1e6, 1)
