"""Who was killed by the kernel for want of memory: by its log, by the cgroup's counter, or nobody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobd.pool import oom
from jobd.pool.oom import OutOfMemory


@pytest.fixture
def witnesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OutOfMemory]:
    """Return the witnesses: a log, and a counter that stands at 3."""
    (tmp_path / "kmsg").write_bytes(b"6,1,1,-;Killed process 7 (old)\n")
    (tmp_path / "events").write_text("oom 9\noom_kill 3\n", encoding="ascii")
    monkeypatch.setattr(oom, "_counter", lambda _: str(tmp_path / "events"))
    made = OutOfMemory(str(tmp_path / "kmsg"), str(tmp_path))
    yield made
    made.close()


def test_without_evidence_nothing_is_claimed(witnesses: OutOfMemory) -> None:
    """What the log said before is of another process."""
    assert not witnesses.has_killed(7)


def test_the_log_names_the_pid(witnesses: OutOfMemory, tmp_path: Path) -> None:
    """That one, and no other; and once, as a pid is used again."""
    with (tmp_path / "kmsg").open("ab") as log:
        log.write(b"3,2,2,-;Memory cgroup out of memory: Killed process 41 (python) total-vm:1kB\n")
    assert not witnesses.has_killed(4)
    assert witnesses.has_killed(41)
    assert not witnesses.has_killed(41)


def test_the_counter_has_risen(witnesses: OutOfMemory, tmp_path: Path) -> None:
    """It speaks for one process, as it does not name any."""
    (tmp_path / "events").write_text("oom 9\noom_kill 4\n", encoding="ascii")
    assert witnesses.has_killed(5)
    assert not witnesses.has_killed(6)


def test_without_witnesses_nothing_is_claimed(tmp_path: Path) -> None:
    """No log, no counter: no failure either."""
    blind = OutOfMemory(str(tmp_path / "none"), str(tmp_path))
    assert not blind.has_killed(os.getpid())
    blind.close()
