"""How many cores there are for each worker."""

from __future__ import annotations

import math
import os

from jobd.pool import cgroup


def each(setting: int | str, workers: int) -> int:
    """Return how many threads the libraries of a worker may take, by the setting or "auto"; 0: any number."""
    return setting if isinstance(setting, int) else max(1, usable() // workers)


def usable(files: cgroup.Files = cgroup.KERNEL) -> int:
    """Return how many cores this process may use, by its affinity and the quota of its cgroups."""
    count = len(os.sched_getaffinity(0))
    try:
        quota = cgroup.quota(cgroup.find(), files)
    except cgroup.NoGroup:
        return count
    return count if quota is None else min(count, math.ceil(quota))
