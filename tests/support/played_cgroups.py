"""A tree of cgroups that is played: the kernel's rules, as far as jobd depends on them, with no kernel.

For the controllers, which a machine may not have to give (a hierarchy of version 1 has
them, or nobody may delegate). What is left out: threads, namespaces, permissions, and that a
group is busy for a moment after its last process was killed (``is_slow`` plays that).
The rules are those of Documentation/admin-guide/cgroup-v2.rst and kernel/cgroup/cgroup.c.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field

from jobd.pool.cgroup import Files

CONTROLLERS = ("cpu", "io", "memory", "pids")

_FILES = {
    "memory": {"memory.max": "max", "memory.swap.max": "max", "memory.oom.group": "0"},
    "cpu": {"cpu.max": "max 100000"},
    "pids": {"pids.max": "max"},
    "io": {"io.max": ""},
}


@dataclass
class Node:
    """One group."""

    given: set[str]
    """The controllers that its parent has given it."""
    owner: int
    procs: set[int] = field(default_factory=set)
    passed_on: set[str] = field(default_factory=set)
    """``cgroup.subtree_control``."""
    values: dict[str, str] = field(default_factory=dict)
    oom_kills: int = 0
    peak: int = 0
    is_marked: bool = False


class PlayedCgroups(Files):
    """The files of such a tree; ``pid`` is the process that reads and writes."""

    def __init__(self, *controllers: str, lacks: tuple[str, ...] = ()) -> None:
        """``lacks`` are files that this kernel is too old for."""
        self.root = Node(set(CONTROLLERS), 0, passed_on=set(controllers))
        self.nodes = {"/cg": self.root}
        self.pid = os.getpid()
        self.written: list[tuple[str, str]] = []
        """All that was written, in its order."""
        self.refuses: dict[str, int] = {}
        """An errno, by the file that answers every write so."""
        self.is_slow = False
        self._lacks = lacks

    # -- for tests --

    def delegate(self, path: str, *pids: int, owner: int | None = None) -> str:
        """Make a group that is given away, with these processes in it."""
        self.make(path)
        node = self.nodes[path]
        node.owner = os.geteuid() if owner is None else owner
        node.is_marked = True
        node.procs |= set(pids)
        return path

    def die_of_hunger(self, path: str) -> None:
        """The processes of a group want more memory than it may have."""
        node = self.nodes[path]
        node.oom_kills += 1
        node.peak = int(node.values["memory.max"])
        assert node.values["memory.oom.group"] == "1"
        node.procs.clear()

    # -- as the kernel --

    def read(self, path: str) -> str:
        """Return what a file says."""
        node, file = self._file(path)
        match file:
            case "cgroup.controllers":
                return " ".join(sorted(node.given)) + "\n"
            case "cgroup.subtree_control":
                return " ".join(sorted(node.passed_on)) + "\n"
            case "cgroup.procs":
                return "".join(f"{pid}\n" for pid in sorted(node.procs))
            case "cgroup.type":
                return "domain\n"
            case "memory.events":
                return f"low 0\noom {node.oom_kills}\noom_kill {node.oom_kills}\n"
            case "memory.peak":
                return f"{node.peak}\n"
        return node.values.get(file, _FILES[file.partition(".")[0]][file]) + "\n"

    def write(self, path: str, text: str) -> None:
        """Take what is written, if the rules allow it."""
        node, file = self._file(path)
        self.written.append((path, text))
        if file in self.refuses:
            _fail(self.refuses[file])
        match file:
            case "cgroup.procs":
                self._move(node, int(text) or self.pid)
            case "cgroup.subtree_control":
                self._pass_on(node, path, text)
            case "cgroup.kill":
                _require(text == "1", errno.ERANGE)
                if not self.is_slow:
                    node.procs.clear()
            case "memory.max" | "memory.swap.max" | "pids.max":
                _require(text == "max" or text.isdecimal(), errno.EINVAL)
                node.values[file] = text
            case "memory.oom.group":
                _require(text in "01", errno.EINVAL)
                node.values[file] = text
            case "cpu.max":
                quota, period = map(int, text.split())
                _require(quota >= 1000 and 1000 <= period <= 1_000_000, errno.EINVAL)
                node.values[file] = text
            case _:
                _fail(errno.EACCES)

    def make(self, path: str) -> None:
        """Make a group."""
        _require(path not in self.nodes, errno.EEXIST)
        parent = self.nodes.get(os.path.dirname(path))
        if parent is None:
            _fail(errno.ENOENT)
        else:
            self.nodes[path] = Node(set(parent.passed_on), parent.owner)

    def remove(self, path: str) -> None:
        """Remove a group that has neither processes nor groups."""
        _require(path in self.nodes, errno.ENOENT)
        _require(not self.nodes[path].procs and not self.children(path), errno.EBUSY)
        del self.nodes[path]

    def children(self, path: str) -> list[str]:
        """Return the names of the groups in a group."""
        _require(path in self.nodes, errno.ENOENT)
        return [os.path.basename(name) for name in self.nodes if os.path.dirname(name) == path]

    def owner(self, path: str) -> int:
        """Return whose a group is."""
        return self.nodes[path].owner

    def is_marked(self, path: str) -> bool:
        """Whether it was delegated."""
        return self.nodes[path].is_marked

    # -- inside --

    def _file(self, path: str) -> tuple[Node, str]:
        directory, file = os.path.split(path)
        node = self.nodes.get(directory)
        if node is None or file in self._lacks:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        controller = file.partition(".")[0]
        is_there = controller in node.given if controller != "cgroup" else True
        if node is self.root and (file in ("cgroup.type", "cgroup.kill") or controller != "cgroup"):
            is_there = False
        _require(is_there, errno.ENOENT)
        return node, file

    def _move(self, node: Node, pid: int) -> None:
        _require(not node.passed_on or node is self.root, errno.EBUSY)
        for other in self.nodes.values():
            other.procs.discard(pid)
        node.procs.add(pid)

    def _pass_on(self, node: Node, path: str, text: str) -> None:
        sign, controller = text[0], text[1:]
        _require(sign in "+-" and controller in CONTROLLERS, errno.EINVAL)
        if sign == "-":
            node.passed_on.discard(controller)
        else:
            _require(controller in node.given, errno.ENOENT)
            _require(not node.procs or node is self.root, errno.EBUSY)
            node.passed_on.add(controller)
        directory = os.path.dirname(path)
        for name in self.children(directory):
            self.nodes[f"{directory}/{name}"].given = set(node.passed_on)


def _require(what: bool, number: int) -> None:  # noqa: FBT001  # as an assert, with an errno
    if not what:
        _fail(number)


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number))
