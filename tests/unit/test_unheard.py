"""Workers that cannot hear the order to stop, played by processes without any thread for orders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import eventually

from jobd.pool import linux
from jobd.pool.scoreboard import NOBODY, Scoreboard
from jobd.pool.unheard import Unheard, insist

WORKER = """
import signal, sys
from jobd.pool.scoreboard import Scoreboard
board = Scoreboard.create(sys.argv[1])
board.begin(7, 2, 1, 1, 0)
def on_sigterm(*_):
    print("stop of", *board.to_stop, flush=True)
signal.signal(signal.SIGTERM, on_sigterm)
print("runs", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, Scoreboard]]:
    """Give a process that is in attempt 2 of job 7, its pidfd, its page."""
    path = tmp_path / "board"
    command = [sys.executable, "-c", WORKER, str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        pidfd = os.pidfd_open(process.pid)
        board = Scoreboard.open(str(path))
        yield process, pidfd, board
        board.close()
        os.close(pidfd)
        process.kill()


def test_who_runs_the_attempt_is_signalled_once_and_goes_on(
    worker: tuple[subprocess.Popen[str], int, Scoreboard],
) -> None:
    """Its handler finds whom the signal was meant for."""
    process, pidfd, board = worker
    assert process.stdout is not None
    assert insist(process.pid, pidfd, board, (7, 2))
    assert process.stdout.readline() == "stop of 7 2\n"
    assert not insist(process.pid, pidfd, board, (7, 2))
    os.kill(process.pid, signal.SIGTERM)
    assert process.stdout.readline() == "stop of 7 2\n"


@pytest.mark.parametrize("other", [(7, 1), (8, 2)])
def test_who_runs_another_attempt_is_left_alone(
    worker: tuple[subprocess.Popen[str], int, Scoreboard], other: tuple[int, int]
) -> None:
    """And so is one that has ended it."""
    process, pidfd, board = worker
    assert not insist(process.pid, pidfd, board, other)
    board.end(b"")
    assert not insist(process.pid, pidfd, board, (7, 2))
    assert board.to_stop == NOBODY


def test_one_that_ends_the_attempt_before_it_is_halted_is_left_alone(
    worker: tuple[subprocess.Popen[str], int, Scoreboard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on, unharmed."""
    process, pidfd, board = worker
    halt = linux.halt

    def late(pid: int, fd: int) -> bool:
        board.begin(7, 3, 1, 1, 0)
        return halt(pid, fd)

    monkeypatch.setattr(linux, "halt", late)
    assert not insist(process.pid, pidfd, board, (7, 2))
    eventually(lambda: linux.state(process.pid) == b"S")
    assert board.to_stop == NOBODY


def test_an_order_is_due_once_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """And until then there is a time to wake up."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    orders = Unheard()
    assert (orders.wake_at_s(), orders.take()) == (None, [])
    orders.ordered("w", 7, 2)
    now[0] += 0.05
    orders.ordered("v", 8, 1)
    assert (orders.take(), orders.wake_at_s()) == ([], 100.1)
    now[0] = 100.12
    assert orders.take() == [("w", 7, 2)]
    now[0] = 101.0
    assert (orders.take(), orders.wake_at_s()) == ([("v", 8, 1)], None)
