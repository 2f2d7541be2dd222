"""A worker's door, and a process of its job that knocks on it; both in this process."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Iterator

import pytest
from harness import eventually

from jobd import context
from jobd.kin import MOST_AWAITED, CurrentJob, Kin, encode
from jobd.model.errors import Deadlock, JobdError
from jobd.model.orders import Lent, Report, Task, Waiting
from jobd.pool.door import Door
from jobd.pool.inside import Inside

TASK = Task(7, 2, "m:f", b"", queue="etl")
SOCKET = "/run/jobd/client.sock"


class House:
    """A worker that has a door, and one of its job's processes."""

    def __init__(self) -> None:
        self.task: Task | None = TASK
        self.inside = Inside(lambda: self.task, SOCKET)
        self.door = Door()
        self.kin = Kin(self.door.proof)
        self.heard: queue.Queue[JobdError | None] = queue.Queue()

    def reports(self) -> list[Report]:
        """Serve; return what the daemon is told."""
        self.door.serve()
        return self.inside.take(0.0)

    def waits(self) -> list[Waiting]:
        """Return what it is told as soon as that is something."""
        found = eventually(self.reports)
        assert all(isinstance(report, Waiting) for report in found)
        return [report for report in found if isinstance(report, Waiting)]

    def begin(self, *numbers: int, daemon: str = SOCKET) -> object:
        """Let the process begin a wait."""
        return self.kin.wait_begins(numbers, daemon, self.heard.put)


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Return a worker that runs a job."""
    house = House()
    monkeypatch.setattr(context, "host", house.inside)
    yield house
    house.door.shut()
    os.close(house.inside.fd)


def test_a_wait_is_asked_for_allowed_and_over(house: House) -> None:
    """As one of the job itself; the connection's end is that of the wait."""
    token = house.begin(8, 9)
    assert house.waits() == [Waiting(7, 2, waits=True, awaited=[8, 9])]
    house.inside.answered(Lent(7))
    assert house.heard.get(timeout=20) is None
    house.kin.wait_ends(token)
    assert house.waits() == [Waiting(7, 2, waits=False, awaited=[])]


def test_a_refusal_travels_as_it_is(house: House) -> None:
    """With its name, its sentence and its hint."""
    token = house.begin(8)
    assert house.waits()
    house.inside.answered(Lent(7, "deadlock", "in a circle", "do not"))
    error = house.heard.get(timeout=20)
    assert isinstance(error, Deadlock)
    assert (error.message, error.hint) == ("in a circle", "do not")
    house.kin.wait_ends(token)


def test_a_wait_for_the_own_job_is_refused_at_once(house: House) -> None:
    """The daemon is not asked."""
    token = house.begin(7)

    def is_told() -> bool:
        assert not house.reports()
        return not house.heard.empty()

    eventually(is_told)
    assert isinstance(house.heard.get(), Deadlock)
    house.kin.wait_ends(token)


def test_jobs_of_another_daemon_are_not_named(house: House) -> None:
    """They have other numbers; and of many only some are."""
    first = house.begin(7, daemon="/run/other.sock")
    assert house.waits() == [Waiting(7, 2, waits=True, awaited=[])]
    house.inside.answered(Lent(7))
    second = house.begin(*range(1000, 2000))
    assert [len(report.awaited) for report in house.waits()] == [MOST_AWAITED]
    house.kin.wait_ends(first)
    house.kin.wait_ends(second)


def test_who_outlives_the_job_lends_nothing(house: House) -> None:
    """Its wait begins all the same."""
    house.task = None
    token = house.begin(8)

    def is_told() -> bool:
        assert not house.reports()
        return not house.heard.empty()

    eventually(is_told)
    assert house.heard.get() is None
    house.kin.wait_ends(token)


def test_without_a_worker_nothing_is_lent() -> None:
    """It is gone, and so is its door."""
    door = Door()
    kin = Kin(door.proof)
    door.shut()
    heard: list[JobdError | None] = []
    assert kin.wait_begins([8], SOCKET, heard.append) is None
    assert heard == [None]
    assert kin.current() is None
    kin.wait_ends(None)


def test_a_process_is_told_which_job_runs(house: House) -> None:
    """By the worker, which knows."""
    answered: queue.Queue[CurrentJob | None] = queue.Queue()
    threading.Thread(target=lambda: answered.put(house.kin.current())).start()

    def is_told() -> bool:
        house.door.serve()
        return not answered.empty()

    eventually(is_told)
    assert answered.get() == CurrentJob(7, 2, "etl")


@pytest.mark.parametrize(
    "packet",
    [
        b"nonsense",
        encode([3, "word"]),
        encode([2, "wrong word", [8], SOCKET]),
        encode([2, "wrong word", "8", SOCKET]),
    ],
)
def test_who_does_not_know_the_word_is_seen_off(house: House, packet: bytes) -> None:
    """So is who talks nonsense; others are served as before."""
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with stranger:
        stranger.connect(f"\0{house.door.proof.partition(' ')[0]}")
        stranger.send(packet)
        stranger.settimeout(0)

        def is_seen_off() -> bool:
            assert not house.reports()
            try:
                return stranger.recv(10) == b""
            except BlockingIOError:
                return False

        eventually(is_seen_off)
    token = house.begin(8)
    assert house.waits()
    house.kin.wait_ends(token)


def test_a_door_that_the_job_has_closed_is_shut(house: House) -> None:
    """With all other files: nobody listens any more, and the waits are over."""
    house.begin(8)
    assert house.waits()
    os.close(house.door.fd)
    house.door.serve()
    assert house.door.fd == -1
    assert house.inside.take(0.0) == [Waiting(7, 2, waits=False, awaited=[])]
