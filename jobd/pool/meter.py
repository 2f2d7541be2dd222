"""What an attempt has used: processor time, and memory at its peak.

The system calls cost more than a short job, so only attempts that took ``MEASURED_US`` are
measured; what came before them is read while the worker has nothing to do, children excepted.  The kernel's
peak is that of the process's whole life: after an attempt that was measured it is set back.
The peak of children that have ended cannot be: it tells only of those that were larger than all before.
"""

from __future__ import annotations

import os
import time
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

from jobd.model.job import Usage
from jobd.pool.cgroup import Leaf

MEASURED_US = 1_000


class Meter:
    """The use of one worker."""

    def __init__(self) -> None:
        self.cpu_us = 0
        """What was used before the attempts at hand."""
        self._children_peak = 0
        self._children_us = 0
        self._look()

    def begin(self) -> int:
        """Take note of what was used so far, in µs of processor time; return it."""
        self.cpu_us = time.process_time_ns() // 1000 + self._children_us
        return self.cpu_us

    def measure(self, leaf: Leaf | None = None) -> Usage:
        """Return what was used since, and begin anew; a leaf's account of memory has it of all processes."""
        before, peak_before = self.cpu_us, self._children_peak
        peak = self._look()
        if self._children_peak > peak_before:
            peak = max(peak, self._children_peak)
        self._forget_peak()
        counted = leaf.peak_bytes if leaf is not None else 0
        return Usage(counted or peak * 1024, self.cpu_us - before)

    def _look(self) -> int:
        own, children = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
        self._children_us = int((children.ru_utime + children.ru_stime) * 1e6)
        self.cpu_us = time.process_time_ns() // 1000 + self._children_us
        self._children_peak = children.ru_maxrss
        return own.ru_maxrss

    def _forget_peak(self) -> None:
        try:
            fd = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"5")
            finally:
                os.close(fd)
        except OSError:
            pass  # then the peak is that of the worker, which is no less
