"""Was it the kernel that killed a process, for want of memory?  Evidence, or no claim.

Two witnesses: the kernel's log, which names the pid (readable by root, or where
``kernel.dmesg_restrict`` is 0), and the counter of such kills of the cgroup that the
daemon and its workers are in (version 2: ``memory.events``, version 1:
``memory.oom_control``).  The counter does not name anybody: a rise is put down to the
first worker that SIGKILL has ended since, and that the daemon has not killed itself.
"""

from __future__ import annotations

import os
import re

KERNEL_LOG = "/dev/kmsg"
ROOT = "/sys/fs/cgroup"
MOST_RECORDS = 20_000

_KILLED = re.compile(rb"[Kk]illed process (\d+)\b")
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class OutOfMemory:
    """The witnesses; asked only after a SIGKILL."""

    def __init__(self, kernel_log: str = KERNEL_LOG, root: str = ROOT) -> None:
        self._counter = _counter(root)
        self._count = self._read_count()
        self._log = -1
        try:
            # From the end on: what is older speaks of others, whose pids may be used again.
            self._log = os.open(kernel_log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._log, 0, os.SEEK_END)
        except OSError:
            pass  # not for this user: then there is the other witness
        self._named: set[int] = set()

    def close(self) -> None:
        """Close the kernel's log."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def has_killed(self, pid: int) -> bool:
        """Whether there is evidence that this process was ended so."""
        before, self._count = self._count, self._read_count()
        self._read_log()
        named = pid in self._named
        self._named.discard(pid)
        return named or self._count > before

    def _read_log(self) -> None:
        for _ in range(MOST_RECORDS if self._log >= 0 else 0):
            try:
                record = os.read(self._log, 8192)
            except BrokenPipeError:
                continue  # what comes next was overwritten meanwhile; it goes on after that
            except OSError:
                return  # no more for now
            if not record:
                return
            found = _KILLED.search(record)
            if found:
                self._named.add(int(found[1]))

    def _read_count(self) -> int:
        try:
            with open(self._counter, encoding="ascii") as file:
                found = _COUNT.search(file.read())
        except OSError:
            return 0
        return int(found[1]) if found else 0


def _counter(root: str) -> str:
    """Return the file that counts the kills of this process's memory cgroup; "" if there is none."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return ""
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            return f"{root}/memory{path.rstrip('/')}/memory.oom_control"
        if not controllers and os.path.exists(f"{root}{path.rstrip('/')}/memory.events"):
            return f"{root}{path.rstrip('/')}/memory.events"
    return ""
