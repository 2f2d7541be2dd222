"""Directories in memory: made, marked, and removed by whoever starts next."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobd.blobs import MARK, remove_memory
from jobd.daemon import memory
from jobd.daemon.memory import Memory


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the directories are, in the place of /dev/shm/jobd-UID."""
    directory = tmp_path / "shm"
    directory.mkdir()
    monkeypatch.setattr("jobd.blobs.SHM", str(directory))
    return directory / f"jobd-{os.geteuid()}"


@pytest.fixture
def daemons() -> Iterator[ExitStack]:
    """Return who lets go of what is still held after the test."""
    with ExitStack() as stack:
        yield stack


def state_of(tmp_path: Path, name: str) -> str:
    """Make a state directory."""
    (tmp_path / name).mkdir()
    return str(tmp_path / name)


def died(state_dir: str) -> Path:
    """Leave a payload as a daemon does that is killed; return the directory in memory."""
    held = Memory(state_dir)
    directory = Path(held.directory)
    (directory / "r-1-1-boot").write_bytes(b"payload")
    os.close(held._fd)
    return directory


def test_an_empty_directory_goes_with_its_daemon(tmp_path: Path, shm: Path) -> None:
    """Its mark too; one with payloads stays, and so does its mark."""
    Memory(state_of(tmp_path, "empty")).release()
    assert list(shm.iterdir()) == []
    held = Memory(state_of(tmp_path, "full"))
    Path(held.directory, "payload").touch()
    held.release()
    assert len(list(shm.iterdir())) == 2
    remove_memory(str(tmp_path / "full"))
    assert list(shm.iterdir()) == []


def test_what_belongs_to_a_state_directory_that_is_gone_goes_at_the_next_start(
    tmp_path: Path, shm: Path, daemons: ExitStack
) -> None:
    """Of any daemon of the user; what has one still is left alone."""
    lost, kept = state_of(tmp_path, "lost"), state_of(tmp_path, "kept")
    left, spared = died(lost), died(kept)
    shutil.rmtree(lost)
    other = Memory(state_of(tmp_path, "other"))
    daemons.callback(other.release)
    assert not left.exists()
    assert not Path(str(left) + MARK).exists()
    assert (spared / "r-1-1-boot").read_bytes() == b"payload"
    assert len(list(shm.iterdir())) == 4


def test_what_a_living_daemon_holds_is_left_alone(tmp_path: Path, daemons: ExitStack) -> None:
    """Even if somebody has deleted its state directory: it is about to end."""
    lost = state_of(tmp_path, "lost")
    held = Memory(lost)
    daemons.callback(held.release)
    shutil.rmtree(lost)
    daemons.callback(Memory(state_of(tmp_path, "other")).release)
    assert os.path.isdir(held.directory)


def test_a_state_directory_that_is_not_mounted_is_not_gone(
    tmp_path: Path, daemons: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there now is another file system."""
    lost = state_of(tmp_path, "lost")
    left = died(lost)
    shutil.rmtree(lost)
    gone = memory._is_gone
    monkeypatch.setattr(
        memory, "_is_gone", lambda b: gone(memory.Belongs(b.device + 1, b.state_dir))
    )
    daemons.callback(Memory(state_of(tmp_path, "other")).release)
    assert left.is_dir()


@pytest.mark.parametrize("said", [b"", b"12", b"12 ", b"x /tmp"])
def test_a_mark_that_says_nothing_changes_nothing(
    tmp_path: Path, daemons: ExitStack, said: bytes
) -> None:
    """Its daemon was killed while it wrote it, or the disk was full."""
    lost = state_of(tmp_path, "lost")
    left = died(lost)
    shutil.rmtree(lost)
    Path(str(left) + MARK).write_bytes(said)
    daemons.callback(Memory(state_of(tmp_path, "other")).release)
    assert left.is_dir()


def test_the_next_daemon_of_the_same_state_directory_takes_it_over(
    tmp_path: Path, daemons: ExitStack
) -> None:
    """With what is in it."""
    state_dir = state_of(tmp_path, "state")
    left = died(state_dir)
    held = Memory(state_dir)
    daemons.callback(held.release)
    assert Path(held.directory) == left
    assert (left / "r-1-1-boot").exists()
