"""Control groups (version 2): what a job may use, counted over all its processes; and the end of them all.

The daemon needs a group of its own that was delegated to it, as systemd's ``Delegate=``
does.  There it makes this tree::

    D                   the delegated group; gives its children the controllers that it has
    |-- daemon          daemon, zygotes, workers: with controllers on, D itself may hold no process
    `-- jobd-KEY-UID    a leaf: one worker that runs a restricted job, and all that this starts

The worker makes its leaf and goes there, before the job starts (going there takes the
kernel some 10 ms, for which the daemon must not wait).  Such a worker runs no other job,
so it never has to come back.  The zygote, which reaps it, kills what is left in the leaf,
reads what the kernel has counted there, and removes it.  KEY stands for the state
directory: leaves of a daemon that was killed are found, and swept, by the next one.

Whatever does not work here is no error: rlimits do that part (``jobd.pool.restrict``).

The rules of the kernel: Documentation/admin-guide/cgroup-v2.rst; those of systemd:
docs/CGROUP_DELEGATION.md in its sources.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Container, Iterator
from typing import NamedTuple

import msgspec

from jobd.model.orders import Limits
from jobd.pool import linux

DAEMON = "daemon"
"""The leaf of the daemon; ``DelegateSubgroup=daemon`` (systemd 254) puts it there from the start."""

PERIOD_US = 100_000
"""Of ``cpu.max``; the kernel's own."""

SYSTEMD = "/run/systemd/system"
"""Is there where systemd is the machine's first process."""


class Rule(NamedTuple):
    """What enforces one limit of a job."""

    controller: str
    file: str


RULES = {
    "mem": Rule("memory", "memory.max"),
    "cpus": Rule("cpu", "cpu.max"),
    "nproc": Rule("pids", "pids.max"),
}
"""By the option's name."""

WITH_MEMORY = {"memory.swap.max": "0", "memory.oom.group": "1"}
"""Else the limit would only push memory out to disk, or cost a job one of its processes and not its life.

Not there on a kernel without accounting of swap, or before 4.19.
"""


class Group(msgspec.Struct, frozen=True):
    """The group that was delegated to the daemon; travels to the zygote as JSON."""

    path: str
    key: str
    """Tells its leaves from those of another daemon in the same group."""
    controllers: list[str]
    """Those that leaves have."""

    def enforces(self, limit: str) -> str:
        """Return the file of a leaf that enforces a limit; "" if there is none."""
        rule = RULES.get(limit)
        return rule.file if rule is not None and rule.controller in self.controllers else ""


class Remains(NamedTuple):
    """What a leaf tells of those who were in it."""

    out_of_memory: bool
    """The kernel has killed there because of ``memory.max``."""
    peak_bytes: int
    """The most memory that was in use at once; 0: unknown."""


class NoGroup(Exception):
    """There is no group that the daemon could use; the text says why."""


class Files:
    """The files of the kernel; a test has others."""

    def read(self, path: str) -> str:
        """Return what a file says."""
        with open(path, encoding="ascii") as file:
            return file.read()

    def write(self, path: str, text: str) -> None:
        """Write in one piece, as the kernel wants it."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def make(self, path: str) -> None:
        """Make a group."""
        os.mkdir(path)

    def remove(self, path: str) -> None:
        """Remove an empty group."""
        os.rmdir(path)

    def children(self, path: str) -> list[str]:
        """Return the names of the groups in a group."""
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def owner(self, path: str) -> int:
        """Return whose a group is."""
        return os.stat(path).st_uid

    def is_marked(self, path: str) -> bool:
        """Whether systemd says that it has delegated a group."""
        for name in (
            "user.delegate",
            "trusted.delegate",
        ):  # the first since 251, the other for root
            try:
                return os.getxattr(path, name) == b"1"
            except OSError:
                pass
        return False


KERNEL = Files()


# -- the daemon's group ----------------------------------------------------------------


def find() -> str:
    """Return the directory of this process's group.

    Raises:
        NoGroup: it has none that could be seen here.
    """
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            groups = file.read()
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            mounts = file.read()
    except OSError as error:
        raise NoGroup(f"{error.filename} cannot be read: {error.strerror}") from None
    return own_group(groups, mounts)


def own_group(groups: str, mounts: str) -> str:
    """Return the directory of a process's group; from its /proc/PID/cgroup and /proc/PID/mountinfo.

    Raises:
        NoGroup: it has none that could be seen here.
    """
    own = re.search(r"^0::(/.*)$", groups, re.MULTILINE)
    if own is None:
        raise NoGroup("the kernel has no cgroups of version 2")
    is_seen = not own[1].startswith("/..")  # outside of what this namespace may see
    for line in mounts.splitlines() if is_seen else ():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == "cgroup2":
            root, mounted = map(_unescaped, before.split(" ")[3:5])
            inside = os.path.relpath(own[1], root)
            if not inside.startswith(".."):
                return os.path.normpath(os.path.join(mounted, inside))
    raise NoGroup("no cgroup2 file system is mounted that has this process's cgroup")


def quota(own: str, files: Files = KERNEL) -> float | None:
    """Return how many cores a group may use, by ``cpu.max`` of it and of all above it; None: any."""
    found: list[float] = []
    while True:
        try:
            limit, period = files.read(f"{own}/cpu.max").split()
            found.append(int(limit) / int(period))
        except (OSError, ValueError):
            pass  # "max", or the kernel's root, which has no such file
        if own in ("", "/"):
            return min(found, default=None)
        own = os.path.dirname(own)


def _unescaped(word: str) -> str:
    """Undo what the kernel does to blanks in paths."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)


def claim(own: str, state_dir: str, files: Files = KERNEL) -> Group:
    """Make the group in which this process is ready for use, if it was delegated to it.

    Raises:
        NoGroup: it was not, or others are in it too.
    """
    try:
        base = _delegated(own, files)
        if base == own:
            _move_out(base, files)
        available = files.read(f"{base}/cgroup.controllers").split()
    except OSError as error:
        raise NoGroup(f"the cgroup {own} cannot be used: {error.strerror}") from None
    wanted = sorted(rule.controller for rule in RULES.values())
    controllers = [name for name in wanted if name in available and _enable(base, name, files)]
    return Group(base, _key(state_dir), controllers)


def _delegated(own: str, files: Files) -> str:
    parent, name = os.path.split(own)
    if name == DAEMON and _is_delegated(parent, files):
        return parent
    if _is_delegated(own, files):
        return own
    raise NoGroup(f"the cgroup {own} is not delegated to this daemon")


def _is_delegated(path: str, files: Files) -> bool:
    """Whether a group was given to us to make others in it; to be able to do so is not enough."""
    try:
        files.read(f"{path}/cgroup.type")
    except FileNotFoundError:
        return False  # the root of all: it belongs to the machine
    if files.is_marked(path):
        return True
    if os.geteuid():
        # The border: ours, in one that is not ours. What lies deeper is another manager's.
        return files.owner(path) == os.geteuid() != files.owner(os.path.dirname(path))
    return not os.path.isdir(SYSTEMD)  # root in a container


def _move_out(base: str, files: Files) -> None:
    """Go from the delegated group to a leaf, as only leaves may hold processes; alone, or not at all."""
    others = set(_pids(base, files)) - {os.getpid()}
    if others:
        raise NoGroup(f"the cgroup {base} has other processes too: {_few(others)}")
    leaf = f"{base}/{DAEMON}"
    try:
        files.make(leaf)
    except FileExistsError:
        pass  # of the daemon before us
    files.write(f"{leaf}/cgroup.procs", "0")


def _few(pids: set[int]) -> str:
    return ", ".join(map(str, sorted(pids)[:3])) + (", ..." if len(pids) > 3 else "")


def _enable(base: str, controller: str, files: Files) -> bool:
    """Give a controller to the children of a group; return whether they have it.

    One by one: the kernel refuses all that stand in one line with one that it cannot give.
    """
    try:
        files.write(f"{base}/cgroup.subtree_control", f"+{controller}")
    except OSError:
        return False
    return True


def _key(state_dir: str) -> str:
    return hashlib.blake2b(os.fsencode(state_dir), digest_size=6).hexdigest()


# -- a leaf ----------------------------------------------------------------------------


class Leaf:
    """The group of one worker, whether it is there or not."""

    def __init__(self, group: Group, uid: str, files: Files = KERNEL) -> None:
        self.path = f"{group.path}/jobd-{group.key}-{uid}"
        self._group = group
        self._files = files

    def enter(self, limits: Limits) -> frozenset[str]:
        """Make it, and move this process there; return the limits that hold from now on.

        Raises:
            OSError: it cannot be; all is as it was.
        """
        values = {name: value for name, value in _values(limits) if self._group.enforces(name)}
        self._files.make(self.path)
        try:
            for name, value in values.items():
                self._files.write(f"{self.path}/{RULES[name].file}", value)
            for file, value in WITH_MEMORY.items() if "mem" in values else ():
                try:
                    self._files.write(f"{self.path}/{file}", value)
                except FileNotFoundError:
                    pass  # this kernel has none
            self._files.write(f"{self.path}/cgroup.procs", "0")
        except OSError:
            self.remove()
            raise
        return frozenset(values)

    def kill(self) -> None:
        """Kill all that is in it, whatever it has become: other sessions, other parents."""
        try:
            self._files.write(f"{self.path}/cgroup.kill", "1")
        except FileNotFoundError:  # the leaf, or before Linux 5.14 the file
            for pid in _pids(self.path, self._files):
                linux.signal_quietly(pid, signal.SIGKILL)
        except OSError:
            pass  # it is being removed, so it is empty

    def remains(self) -> Remains:
        """Return what is to be told of those who were in it."""
        return Remains(self._number("memory.events", r"^oom_kill (\d+)$") > 0, self.peak_bytes)

    @property
    def peak_bytes(self) -> int:
        """The most memory that was in use at once, files that were read included; 0: unknown."""
        return self._number("memory.peak", r"^(\d+)$")

    def remove(self) -> bool:
        """Remove it; return whether it is gone, or else is to be removed later."""
        return _remove(self.path, self._files)

    def _number(self, file: str, pattern: str) -> int:
        try:
            found = re.search(pattern, self._files.read(f"{self.path}/{file}"), re.MULTILINE)
        except OSError:
            return 0
        return int(found[1]) if found else 0


def _remove(path: str, files: Files) -> bool:
    """Remove a group, with those that a job (of containers, say) has made in it; return whether it is gone."""
    try:
        for name in files.children(path):
            _remove(f"{path}/{name}", files)
        files.remove(path)
    except FileNotFoundError:
        pass
    except OSError:
        return False  # those whom we have killed have not all ended yet
    return True


def _values(limits: Limits) -> Iterator[tuple[str, str]]:
    """Yield what is to be written for each limit."""
    if limits.mem_bytes:
        yield "mem", str(limits.mem_bytes)
    if limits.cpus:
        yield "cpus", f"{round(limits.cpus * PERIOD_US)} {PERIOD_US}"
    if limits.nproc:
        # Beside the threads that the worker has itself.
        yield "nproc", str(len(os.listdir("/proc/self/task")) + limits.nproc)


def sweep(group: Group, alive: Container[str], files: Files = KERNEL) -> list[Leaf]:
    """Kill what is in the leaves of workers that are dead; return the leaves that are left."""
    prefix = f"jobd-{group.key}-"
    try:
        names = files.children(group.path)
    except OSError:
        return []
    uids = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    dead = [Leaf(group, uid, files) for uid in uids if uid not in alive]
    for leaf in dead:
        leaf.kill()
    return [leaf for leaf in dead if not leaf.remove()]


def _pids(path: str, files: Files) -> list[int]:
    """Return who is in a group; 0 stands for each whose pid cannot be told here."""
    try:
        return [int(word) for word in files.read(f"{path}/cgroup.procs").split()]
    except OSError:
        return []
