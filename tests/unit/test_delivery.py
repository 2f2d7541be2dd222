"""What a worker has done outlives it: the records on its scoreboard."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from jobd.model.job import Outcome, Verdict
from jobd.model.orders import Outcomes, Produced, decode_reports
from jobd.pool import scoreboard
from jobd.pool.delivery import HELD_BYTES, Delivery, left_by
from jobd.pool.scoreboard import Scoreboard


def outcome(number: int, value: bytes = b"jnull") -> Outcome:
    """Return what came of a job."""
    return Outcome(number, 1, Verdict.RETURNED, value, None, 7, 5)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return where a scoreboard is to be."""
    return str(tmp_path / "board")


@pytest.fixture
def board(path: str) -> Iterator[Scoreboard]:
    """Give a worker's scoreboard."""
    made = Scoreboard.create(path)
    yield made
    made.close()


def left(path: str) -> list[int]:
    """Return the ids of the jobs whose outcomes a daemon finds, as it opens the file."""
    found = Scoreboard.open(path)
    try:
        reports = left_by(found)
    finally:
        found.close()
    return [each.id for report in reports for each in outcomes_of(report)]


def outcomes_of(report: Outcomes | Produced) -> list[Outcome]:
    """Return what a report has of outcomes."""
    return report.outcomes if isinstance(report, Outcomes) else []


def test_what_is_held_or_sent_is_found(path: str, board: Scoreboard) -> None:
    """Only what the daemon has called durable is not."""
    delivery = Delivery(board)
    assert left(path) == []
    delivery.keep(outcome(1))
    assert left(path) == [1]
    (sent,) = decode_reports(delivery.take())
    assert isinstance(sent, Outcomes)
    delivery.keep(outcome(2))
    assert left(path) == [1, 2]
    delivery.recorded([sent.seq])
    assert left(path) == [2]
    (sent,) = decode_reports(delivery.take())
    assert isinstance(sent, Outcomes)
    delivery.recorded([sent.seq])
    assert left(path) == []


def test_frames_that_are_recorded_out_of_order_take_nothing_along(
    path: str, board: Scoreboard
) -> None:
    """What is older stays."""
    delivery = Delivery(board)
    for number in (1, 2, 3):
        delivery.keep(outcome(number))
        delivery.take()
    delivery.recorded([2])
    assert left(path) == [1, 2, 3]
    delivery.recorded([1])
    assert left(path) == [2, 3]
    delivery.recorded([3])
    assert left(path) == []


@pytest.mark.parametrize("seed", range(20))
def test_the_ring_goes_round(path: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes in whatever sizes: what is kept is found, whole and in order, or has to go at once."""
    monkeypatch.setattr(scoreboard, "RING_BYTES", 700)
    rng = Random(seed)
    board = Scoreboard.create(path)
    delivery = Delivery(board)
    found_by, kept, urgent = Scoreboard.open(path), dict[int, list[int]](), 0
    held: list[int] = []
    for number in range(1, 2_000):
        delivery.keep(outcome(number, b"j" + b"x" * rng.randrange(200)))
        if delivery.is_urgent:
            urgent += 1
        else:
            held.append(number)
        if delivery.is_urgent or rng.random() < 0.4:
            (sent,) = decode_reports(delivery.take())
            assert isinstance(sent, Outcomes)
            kept[sent.seq], held = held, []
        if rng.random() < 0.8 and kept:
            first = next(iter(kept))
            delivery.recorded([first])
            del kept[first]
        expected = [n for numbers in [*kept.values(), held] for n in numbers]
        assert [o.id for r in left_by(found_by) for o in outcomes_of(r)] == expected
    assert 20 < urgent < 1_000
    board.close()
    found_by.close()


def test_a_large_one_is_to_be_sent_at_once(board: Scoreboard) -> None:
    """A frame holds one of those at most."""
    delivery = Delivery(board)
    delivery.keep(outcome(1, b"x" * HELD_BYTES))
    assert (delivery.is_urgent, len(delivery.take())) > (False, HELD_BYTES)
    delivery.keep(outcome(2, b"x" * (HELD_BYTES + 1)))
    assert delivery.is_urgent


def test_without_room_on_the_disk_every_outcome_is_to_be_sent_at_once(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fields themselves need a few bytes only."""
    allocate = os.posix_fallocate

    def full(fd: int, offset: int, length: int) -> None:
        if length > scoreboard.SIZE:
            raise OSError(28, "No space left on device")
        allocate(fd, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    board = Scoreboard.create(path)
    delivery = Delivery(board)
    delivery.keep(outcome(1))
    assert delivery.is_urgent
    (sent,) = decode_reports(delivery.take())
    assert isinstance(sent, Outcomes)
    delivery.recorded([sent.seq])
    assert left(path) == []
    board.close()


def test_a_board_of_an_older_jobd_has_no_records(path: str, board: Scoreboard) -> None:
    """Its workers go on under a new daemon, or have died before it has come."""
    os.truncate(path, scoreboard.SIZE)
    assert left(path) == []
    assert board.pid == os.getpid()


def test_a_stream_is_found_with_its_last_items(path: str, board: Scoreboard) -> None:
    """Without them its end would be a lie."""
    delivery = Delivery(board)
    items = [Produced(0, 1, 1, 0, []), Produced(0, 1, 1, 1, [b"j1"])]
    stream: Any = SimpleNamespace(keep=lambda _: None, unrecorded=lambda: items)
    delivery.stream = stream
    for item in items:
        delivery.produce(item)
    delivery.keep(outcome(1))
    found = Scoreboard.open(path)
    kept = left_by(found)
    found.close()
    assert kept[:2] == items
    assert [o.id for o in outcomes_of(kept[2])] == [1]


@pytest.mark.parametrize("seed", range(30))
def test_a_job_that_writes_into_any_memory_confuses_nobody(
    path: str, board: Scoreboard, seed: int
) -> None:
    """What makes no sense ends the reading."""
    delivery = Delivery(board)
    for number in range(50):
        delivery.keep(outcome(number))
    rng = Random(seed)
    with open(path, "r+b") as file:
        for _ in range(8):
            file.seek(rng.randrange(scoreboard.SIZE, 4096 + 3_000))
            file.write(rng.randbytes(8))
    found = Scoreboard.open(path)
    assert len(left_by(found)) <= 1
    found.close()
