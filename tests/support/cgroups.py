"""A real cgroup (version 2) for a test, delegated to whoever is started in it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import eventually

from jobd.pool import cgroup


@contextlib.contextmanager
def delegated_group() -> Iterator[Path]:
    """Make a group, as a service manager would for a unit; at the end nobody may be left in it.

    Skips the test where none can be made: no cgroup2 is mounted, or this user may not.
    """
    try:
        group = Path(cgroup.find()) / f"jobd-test-{os.getpid()}-{time.monotonic_ns()}"
        group.mkdir()
    except (cgroup.NoGroup, OSError) as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    with contextlib.suppress(OSError):  # without it the rules are others, by which it is ours too
        os.setxattr(group, "user.delegate", b"1")
    try:
        yield group
    finally:
        eventually(lambda: _removed(group))


def wrapper(group: Path) -> list[str]:
    """Return the command that goes to a group, and becomes what follows."""
    return ["sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "enter"]


def members(group: Path) -> list[int]:
    """Return who is in a group; nobody if there is none."""
    try:
        return [int(word) for word in (group / "cgroup.procs").read_text("ascii").split()]
    except OSError:
        return []


def _removed(group: Path) -> bool:
    try:
        for child in group.iterdir():
            if child.is_dir():
                child.rmdir()
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
