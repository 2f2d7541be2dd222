"""What a job may use: memory, cores, processes, niceness; where no cgroup limits it, by these means.

=======  ==================================================================================
mem      RLIMIT_DATA, for each process of the job: private writable memory.  Not RLIMIT_AS,
         which counts address space that is only reserved and files that are only mapped.
         Large arguments, which are mapped so that they can be changed, are not counted: the
         limit rises by the size of each, so what is changed in them comes on top.
cpus     affinity to as many cores, rounded up; others may use them too.
nproc    RLIMIT_NPROC; the kernel counts all that the user has, so what there is comes on top,
         and it does not bind root.
nice     niceness, of the job's main thread and what that starts.
=======  ==================================================================================

The limits are soft ones, lifted before the outcome is encoded.  What a job leaves behind
(threads, niceness) cannot be lifted: the scheduler gives such a worker no other job.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Container, Iterator
from contextlib import contextmanager

from jobd import blobs
from jobd.model.options import Policy
from jobd.model.orders import Limits
from jobd.pool.cgroup import Group

_MEANS = {
    "mem": "RLIMIT_DATA, each process",
    "cpus": "affinity, whole cores",
    "nproc": "RLIMIT_NPROC",
    "nice": "niceness",
}
_ROOT = "not enforced: the kernel does not bind root by RLIMIT_NPROC"


def means(policy: Policy, group: Group | None) -> dict[str, str]:
    """Return by what each limit of a policy is enforced, for a daemon that has this group."""
    others = _MEANS | {"nproc": _ROOT} if os.geteuid() == 0 else _MEANS
    return {
        name: (group.enforces(name) if group else "") or how
        for name, how in others.items()
        if getattr(policy, name)
    }


@contextmanager
def restricted(limits: Limits, held: Container[str] = ()) -> Iterator[None]:
    """Run what is inside under these limits, but for those that something else has ``held`` by now.

    Raises:
        OSError, ValueError: the kernel refuses one.
    """
    before = [(kind, resource.getrlimit(kind)) for kind in _KINDS]
    cores = os.sched_getaffinity(0)
    try:
        if limits.nice:
            current = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, 0, max(current, limits.nice))
        if limits.cpus and "cpus" not in held:
            os.sched_setaffinity(0, _chosen(cores, limits.cpus))
        if limits.nproc and "nproc" not in held:
            _lower(resource.RLIMIT_NPROC, count_tasks(os.getuid()) + limits.nproc)
        if limits.mem_bytes and "mem" not in held:
            _lower(resource.RLIMIT_DATA, limits.mem_bytes)
            blobs.make_room = _raise_memory
        yield
    finally:
        blobs.make_room = None
        for kind, old in before:
            resource.setrlimit(kind, old)
        os.sched_setaffinity(0, cores)


_KINDS = (resource.RLIMIT_DATA, resource.RLIMIT_NPROC)


def _lower(kind: int, wanted: int) -> None:
    soft, hard = resource.getrlimit(kind)
    bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(kind, (min([wanted, *bounds]), hard))


def _raise_memory(size: int) -> None:
    """Have the limit not count so many bytes that are about to be mapped."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        bounds = [soft + size] if hard == resource.RLIM_INFINITY else [soft + size, hard]
        resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))


def _chosen(cores: set[int], count: float) -> set[int]:
    """Choose so many cores; by the pid, so that not all workers choose the same."""
    usable, first = sorted(cores), os.getpid()
    wanted = min(len(usable), math.ceil(count))
    return {usable[(first + step) % len(usable)] for step in range(wanted)}


def count_tasks(uid: int) -> int:
    """Return how many threads a user has on this machine."""
    found = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                found += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            pass  # it has ended meanwhile
    return found
