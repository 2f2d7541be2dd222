"""Which files the daemon removes, when, and which it never does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobd.blobs import Claim
from jobd.config import Settings
from jobd.daemon import payloads as module
from jobd.daemon.payloads import Payloads, prepare
from jobd.model import blob
from jobd.model.blob import Blob, Place
from jobd.model.job import Job
from jobd.model.states import State
from jobd.scheduler.batch import Change

KEY = b"session1" + (7).to_bytes(8, "big")
ARGUMENTS = blob.argument_name(KEY, 0)
RESULT = blob.result_name(5, 2, "ab")


class World:
    """A directory, and what the store and the scheduler say."""

    def __init__(self, directory: Path) -> None:
        for name in ("memory", "disk"):
            (directory / name).mkdir()
        self.place = Place(
            str(directory / "memory"), str(directory / "disk"), "memory", True, False, 2**30, 2**20
        )
        self.rows: dict[int, Job] = {}
        self.submits: dict[bytes, tuple[int, int]] = {}
        self.live: dict[int, Job] = {}
        self.submitting: set[bytes] = set()
        store: Any = SimpleNamespace(job=self.rows.get, submit_of=self.submits.get)
        scheduler: Any = SimpleNamespace(
            window=SimpleNamespace(jobs=self.live),
            intake=SimpleNamespace(submitting=lambda key: key if key in self.submitting else None),
        )
        self.payloads = Payloads(self.place, store, scheduler)

    def file(self, name: str, *, on_disk: bool = False) -> bytes:
        """Make a file; return the reference to it."""
        Path(self.place.directories[on_disk], name).write_bytes(b"x")
        return blob.pack(Blob(int(on_disk), name, 1, ""))

    def files(self) -> set[str]:
        """Return what is left when all is removed that is to be."""
        self.payloads._remover.close()
        self.payloads._remover = module.Remover()
        return {name for place in self.place.directories for name in os.listdir(place)}

    def sweep(self, settled_s: float = 0.0) -> set[str]:
        """Sweep to the end; return what is left."""
        for _ in self.payloads.sweep(settled_s):
            pass
        return self.files()


def job(number: int, state: State, args: bytes = b"j", value: bytes | None = None) -> Job:
    """Return a job."""
    made = Job(number, KEY, 1, "m:f", args, 1, state=state)
    made.attempt, made.value = 2, value
    return made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a world without files."""
    made = World(tmp_path)
    yield made
    made.payloads.close()


# -- with the commits --


def commit(world: World, *jobs: Job) -> None:
    """Let a commit with these jobs begin."""
    world.payloads.writing(
        [Change(one, had_row=True, was_stored=one.state, record=None) for one in jobs]
    )


@pytest.mark.parametrize("by_value", [False, True])
def test_arguments_go_with_the_commit_of_their_jobs_success(
    world: World, *, by_value: bool
) -> None:
    """Not before it, and also when the function travels with them."""
    args = world.file(ARGUMENTS)
    if by_value:
        args = blob.BY_VALUE + (3).to_bytes(4, "big") + b"fun" + args
    commit(world, job(1, State.SUCCEEDED, args))
    assert world.files() == {ARGUMENTS}
    world.payloads.written()
    assert world.files() == set()


@pytest.mark.parametrize("state", [State.QUEUED, State.FAILED, State.CANCELLED, State.CRASHED])
def test_arguments_stay_while_the_job_may_still_need_them(world: World, state: State) -> None:
    """What has failed may be retried."""
    commit(world, job(1, state, world.file(ARGUMENTS)))
    world.payloads.written()
    assert world.files() == {ARGUMENTS}


def test_a_commit_that_was_rolled_back_removes_nothing(world: World) -> None:
    """What it said of a job comes again; what was released stays so."""
    one = job(1, State.SUCCEEDED, world.file(ARGUMENTS))
    value = world.file(RESULT)
    world.payloads.release(value, job(5, State.SUCCEEDED, value=value))
    commit(world, one)
    world.payloads.not_written()
    world.payloads.written()
    assert world.files() == {ARGUMENTS, RESULT}
    commit(world)
    world.payloads.written()
    assert world.files() == {ARGUMENTS}


def test_a_job_never_takes_another_ones_files_with_it(world: World) -> None:
    """A client may refer to whatever it likes; its own submit's files are all that goes."""
    for reference in (world.file(RESULT), world.file(blob.argument_name(bytes(16), 0)), b"F???"):
        commit(world, job(1, State.SUCCEEDED, reference))
        world.payloads.release(reference, job(1, State.SUCCEEDED))
        world.payloads.written()
    assert len(world.files()) == 2


# -- the sweep --


def test_what_no_row_owns_is_swept(world: World) -> None:
    """Results of attempts that came to nothing, arguments that were never submitted, and halves."""
    world.file(RESULT)
    world.file(ARGUMENTS, on_disk=True)
    world.file(ARGUMENTS + blob.FRESH)
    world.file(blob.result_name(6, 1, "ab"))
    world.rows[6] = job(6, State.SUCCEEDED, value=b"j5")
    assert world.sweep() == set()


def test_what_a_row_refers_to_stays(world: World) -> None:
    """A result, the arguments of a job that waits, and a value that was put; but no half of one."""
    world.rows[5] = job(5, State.SUCCEEDED, value=world.file(RESULT))
    world.rows[1] = job(1, State.QUEUED, world.file(ARGUMENTS))
    world.submits[KEY] = (1, 1)
    put = KEY[:8] + bytes(8)
    world.rows[2] = job(2, State.SUCCEEDED, value=world.file(blob.argument_name(put, 0)))
    world.submits[put] = (2, 1)
    kept = world.files()
    world.file(RESULT + blob.FRESH)
    assert world.sweep() == kept


def test_arguments_of_a_job_that_has_succeeded_are_swept(world: World) -> None:
    """The daemon was killed between the commit and the removal."""
    world.rows[1] = job(1, State.SUCCEEDED, world.file(ARGUMENTS), value=b"j1")
    world.submits[KEY] = (1, 1)
    assert world.sweep() == set()


def test_what_is_under_way_is_spared(world: World) -> None:
    """A running attempt's result, a submit that is not durable; but an older attempt's is not."""
    world.file(RESULT)
    world.file(blob.result_name(5, 1, "ab"))
    world.live[5] = job(5, State.RUNNING)
    world.file(ARGUMENTS)
    world.submitting.add(KEY)
    assert world.sweep() == {RESULT, ARGUMENTS}


def test_a_living_clients_files_are_spared_until_it_ends(world: World) -> None:
    """It may be about to submit, or wait for a daemon to come back."""
    claim = Claim(world.place, KEY[:8])
    world.file(ARGUMENTS)
    assert world.sweep() == {ARGUMENTS, blob.session_name(KEY[:8])}
    claim.release()
    assert world.sweep() == set()


def test_a_young_file_is_left_to_the_next_sweep(world: World) -> None:
    """But at the start all have been there before."""
    world.file(RESULT)
    assert world.sweep(settled_s=600) == {RESULT}
    steps = world.payloads.look(1.0)
    assert steps is not None
    assert list(steps)
    assert world.files() == set()
    assert world.payloads.look(2.0) is None
    assert world.payloads.look(1.0 + module.SWEEP_S) is not None


def test_what_is_not_ours_is_left_alone(world: World) -> None:
    """Whatever somebody has put there."""
    for name in ("notes.txt", "r-x-1-ab", ".hidden"):
        world.file(name)
    assert len(world.sweep()) == 3


# -- the directories --


def test_a_lack_of_room_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what happens then."""
    full = SimpleNamespace(f_blocks=1000, f_bavail=1, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    world.payloads.look(1.0)
    assert "hardly any room" in world.payloads.trouble
    assert world.place.disk in world.payloads.trouble


def test_a_directory_that_somebody_has_removed_is_made_again(world: World) -> None:
    """Where that cannot be, it is told."""
    os.rmdir(world.place.memory)
    world.payloads.look(1.0)
    assert world.payloads.trouble == ""
    assert os.path.isdir(world.place.memory)
    os.rmdir(world.place.memory)
    Path(world.place.memory).symlink_to("/nonexistent/nowhere")
    world.payloads.look(2.0)
    assert "cannot be kept in" in world.payloads.trouble


def test_without_a_directory_in_memory_the_disk_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no /dev/shm, or somebody else has taken our name there."""
    monkeypatch.setattr("jobd.blobs.SHM", str(tmp_path / "file" / "shm"))
    (tmp_path / "file").touch()
    with ExitStack() as stack:
        place = prepare(Settings(state_dir=str(tmp_path / "state")), stack)
    assert (place.memory, place.kind) == ("", "disk")
    assert place.disk == str(tmp_path / "state" / "blobs")
    assert os.stat(place.disk).st_mode & 0o777 == 0o700
