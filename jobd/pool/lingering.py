"""Threads that preload modules have left running in the zygote: a forked worker does not have them.

A library that has a pool of threads finds, in a worker, the pool's memory without the threads,
and waits for them for ever.  So whoever *uses* such a library while he is preloaded, and
does not only import it, gets jobs that hang without a word.  Here it is seen what is left.

Some libraries know about forks.  OpenBLAS ends its threads before one and starts new ones when it
needs them; so the look is not before the first fork, but a moment after it, when those that
are still busy have gone to sleep.  Arrow, DuckDB and OpenCV keep theirs, and make
new ones in the child; jemalloc can do without.  They are known by what they execute:
each sleeping thread's stack pointer stands in ``/proc``, and on its stack are addresses in the library
that it belongs to.  (Names are no help: most threads are called as the process is.)
"""

from __future__ import annotations

import bisect
import os
import re
import struct
import sys
import threading
import time
from collections import Counter, defaultdict
from typing import NamedTuple

SETTLE_S = 0.5
"""How long after the first fork the look is; OpenCV's threads are busy for a quarter of a second."""

SAFE_NAMES = frozenset({"jemalloc_bg_thd", "polars-ooc-clea"})
"""Threads, by their names, that nobody in a worker waits for; tried with those that the guide lists."""

SAFE_LIBRARIES = ("libarrow", "_duckdb", "duckdb", "cv2", "libopencv")
"""How the files of libraries begin that start new threads in a forked process; tried, as above."""

_STACK_BYTES = 16 * 1024
"""Of a stack, from where the thread sleeps on: its own library is among that, and it is soon looked through."""

_RUNTIME = re.compile(r"^(libc|libm|libpthread|ld-linux.*|libstdc\+\+|libgcc_s)[.-]")
"""What every thread runs in."""

_MOST_NAMES = 3


class _Memory(NamedTuple):
    """What is where in this process's memory."""

    starts: list[int]
    ends: list[int]
    code: list[str]
    """The file whose code it is, or ""."""

    def find(self, address: int) -> tuple[int, str]:
        """Return where the mapping of an address ends, and whose code it is; (0, ""): there is none."""
        index = bisect.bisect_right(self.starts, address) - 1
        if index < 0 or address >= self.ends[index]:
            return 0, ""
        return self.ends[index], self.code[index]


class Lingering:
    """The threads of this process, and after the import of which module each was there."""

    def __init__(self) -> None:
        self._module_of: dict[int, str] = {}
        self._numba = ""
        self._last = ""
        self._look_at_s = 0.0

    def imported(self, module: str) -> None:
        """Take note of what this module has brought."""
        self._last = module
        for tid in _others():
            self._module_of.setdefault(tid, module)
        if not self._numba and _has_numba_begun():
            self._numba = module

    def forked(self) -> None:
        """Look in a moment, if this was the first time and there is something to look at."""
        if (self._module_of or self._numba) and not self._look_at_s:
            self._look_at_s = time.monotonic() + SETTLE_S

    def wait_ms(self) -> int | None:
        """Return when to ask for ``sentences``, or None."""
        if not self._look_at_s:
            return None
        return max(0, round((self._look_at_s - time.monotonic()) * 1000) + 1)

    def sentences(self) -> list[str]:
        """Return, once, what is to be said of what is left."""
        if not self._look_at_s or time.monotonic() < self._look_at_s:
            return []
        left: dict[str, list[str]] = defaultdict(list)
        memory = _memory()
        for tid in _others():
            name = _name_if_dangerous(tid, memory)
            if name:  # of a thread that is new: it belongs to one that was there
                left[self._module_of.get(tid, self._last)].append(name)
        found = [_sentence(module, names) for module, names in left.items()]
        if self._numba:
            found.append(_NUMBA.format(self._numba))
        self.__init__()  # type: ignore[misc]  # nobody derives from it
        return found


_NUMBA = (
    "the preload module {0} has run a parallel function of numba: in workers numba ends the process "
    "that runs one (SIGTERM); let {0} only import it, and run it in jobs"
)


def _has_numba_begun() -> bool:
    """Whether numba has what it refuses to use in a forked process, even without other threads."""
    return getattr(sys.modules.get("numba.np.ufunc.parallel"), "_is_initialized", False) is True


def _sentence(module: str, names: list[str]) -> str:
    count = Counter(names)
    shown = ", ".join(name for name, _ in count.most_common(_MOST_NAMES))
    more = ", …" if len(count) > _MOST_NAMES else ""
    threads = "1 thread" if len(names) == 1 else f"{len(names)} threads"
    return (
        f"the preload module {module} has left {threads} running, which workers do not have "
        f"({shown}{more}): jobs that need them may hang; let {module} only import what "
        f"has threads, and use it in jobs"
    )


def _others() -> list[int]:
    """Return the threads of this process but the one that runs here."""
    own = threading.get_native_id()
    try:
        return [tid for tid in map(int, os.listdir("/proc/self/task")) if tid != own]
    except OSError:  # no /proc: then nothing is told, and the workers are forked all the same
        return []


def _name_if_dangerous(tid: int, memory: _Memory) -> str:
    """Say whose thread this is; "" if it does no harm, or has ended."""
    for thread in threading.enumerate():
        if thread.native_id == tid:
            return f"Python's {thread.name}"
    try:
        with open(f"/proc/self/task/{tid}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read().strip()
    except OSError:
        return ""
    library = _library(tid, memory)
    if name in SAFE_NAMES or library.startswith(SAFE_LIBRARIES):
        return ""
    return library or name


def _library(tid: int, memory: _Memory) -> str:
    """Return the file whose code is found most often on a sleeping thread's stack, or ""."""
    files = (memory.find(address)[1] for address in _stack(tid, memory))
    found = Counter(file for file in files if file and not _RUNTIME.match(file))
    return found.most_common(1)[0][0] if found else ""


def _stack(tid: int, memory: _Memory) -> list[int]:
    """Return the words on a thread's stack; none if it runs, has ended, or the kernel does not tell."""
    try:
        with open(f"/proc/self/task/{tid}/syscall", encoding="ascii") as file:
            words = file.read().split()
        if len(words) < 3:  # the number, the stack's pointer, where it is
            return []
        pointer = int(words[-2], 16)
        size = min(_STACK_BYTES, max(0, memory.find(pointer)[0] - pointer))
        with open("/proc/self/mem", "rb", buffering=0) as file_of_memory:
            file_of_memory.seek(pointer)
            data = file_of_memory.read(size)
    except (OSError, ValueError, OverflowError):
        return []
    count = len(data) // struct.calcsize("P")
    return list(struct.unpack_from(f"{count}P", data))


def _memory() -> _Memory:
    """Read what is where; the kernel tells it in order of the addresses."""
    found = _Memory([], [], [])
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    except OSError:
        return found
    for line in lines:
        place, rights, *rest = line.split(maxsplit=5)
        start, end = (int(word, 16) for word in place.split("-"))
        is_code = "x" in rights and len(rest) == 4  # it has a name
        found.starts.append(start)
        found.ends.append(end)
        found.code.append(os.path.basename(rest[3].strip()) if is_code else "")
    return found
