"""What a worker does between its jobs, without its processes, files and sockets."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from jobd.model.job import Outcome, Verdict
from jobd.model.orders import (
    GivenBack,
    Leaving,
    Outcomes,
    Retire,
    Run,
    StopJob,
    Task,
    decode_reports,
)
from jobd.pool import children, linux
from jobd.pool import worker as module
from jobd.pool.alarm import Stopped
from jobd.pool.attempts import Attempts
from jobd.pool.hands import Hands
from jobd.pool.scoreboard import Scoreboard
from jobd.pool.worker import Worker

CALL = b"j[[],{}]"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Give a worker that knows ``m:f`` to be short, and sends into the list ``frames``."""
    monkeypatch.setattr(module, "HOLD_S", 3600.0)
    made: Any = object.__new__(Worker)
    made.frames = []
    link: Any = SimpleNamespace(send=made.frames.append)
    made._forks = SimpleNamespace(look=lambda: False)
    made._hands = Hands("boot", Scoreboard.create(str(tmp_path / "board")), link, link)
    made._took_us = {"m:f": 5}
    made._sent_at = time.perf_counter()
    made._attempts = attempts = object.__new__(Attempts)
    attempts._hands = made._hands
    attempts._pristine = SimpleNamespace(look_ahead=lambda **_: [])  # type: ignore[assignment]  # there is nothing to see
    attempts.notes = []
    attempts.run = lambda task: Outcome(  # type: ignore[method-assign]  # all are alike
        task.id, task.attempt, Verdict.RETURNED, b"jnull", None, 0, 5, None
    )
    return made


def reports(worker: Any) -> list[Any]:
    """Return what the worker has sent."""
    return [report for frame in worker.frames for report in decode_reports(frame)]


def test_outcomes_of_short_jobs_are_sent_together(worker: Any) -> None:
    """Once nothing is left to do, at the latest."""
    worker._obey(Run("boot", [Task(n, 1, "m:f", CALL) for n in (1, 2, 3)], 1))
    worker._work()
    (sent,) = reports(worker)
    assert [outcome.id for outcome in sent.outcomes] == [1, 2, 3]


def test_an_outcome_is_not_kept_while_a_job_runs_that_may_be_long(worker: Any) -> None:
    """Nobody knows how long a function takes that has not run here."""
    worker._obey(Run("boot", [Task(1, 1, "m:f", CALL), Task(2, 1, "m:g", CALL)], 1))
    worker._work()
    assert [[outcome.id for outcome in sent.outcomes] for sent in reports(worker)] == [[1], [2]]


def test_what_is_held_leaves_although_the_last_job_was_stopped_before_it_began(
    worker: Any,
) -> None:
    """A stop comes with the order to end: what nobody has been told would be lost, and run again."""
    worker._hands.obey(StopJob(2, 1), None)
    worker._obey(Run("boot", [Task(1, 1, "m:f", CALL), Task(2, 1, "m:f", CALL)], 1))
    worker._obey(Retire())
    worker._work()
    given_back, sent = reports(worker)
    assert given_back == GivenBack([(2, 1)])
    assert isinstance(sent, Outcomes)
    assert [outcome.id for outcome in sent.outcomes] == [1]
    assert worker._hands.delivery.unrecorded()  # it stays until that is recorded


# -- a stop that the control thread has no turn for ---------------------------


@pytest.fixture
def stopped(worker: Any) -> Any:
    """Give a worker with job 1 at hand, 2 and 3 behind it, that was sent SIGTERM for job 1."""
    worker._idle, worker._attempts.in_job = False, True
    worker._hands.board.order_stop(1, 1)
    worker._attempts.alarm = SimpleNamespace(stop=_stop)
    worker._obey(Run("boot", [Task(n, 1, "m:f", CALL) for n in (1, 2, 3)], 1))
    worker._next(None)
    return worker


def _stop() -> NoReturn:
    raise Stopped


def test_a_sigterm_of_the_daemon_is_an_order_to_stop(stopped: Any) -> None:
    """Nothing else runs here, although the order itself is still unread."""
    with pytest.raises(Stopped):
        stopped._on_sigterm(15, None)
    outcome = Outcome(1, 1, Verdict.STOPPED, None, None, 0, 5, None)
    assert stopped._next(outcome) is None
    assert stopped._hands.is_leaving
    given_back, sent = reports(stopped)
    assert given_back == GivenBack([(2, 1), (3, 1)])
    assert [each.id for each in sent.outcomes] == [1]


def test_the_order_that_is_read_later_signals_nobody_again(
    stopped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon has done that."""
    told: list[int] = []
    monkeypatch.setattr(linux, "end_processes", told.append)
    with pytest.raises(Stopped):
        stopped._on_sigterm(15, None)
    stopped._hands.obey(StopJob(1, 1), None)
    assert told == []
    stopped._hands.board.order_stop(0, 0)
    stopped._hands.obey(StopJob(1, 1), None)
    assert (told, stopped._hands.board.to_stop) == ([os.getpid()], (1, 1))


def test_a_sigterm_for_an_attempt_that_has_ended_hits_nobody(stopped: Any) -> None:
    """Only the first one; what comes then is for whoever runs."""
    stopped._hands.board.order_stop(1, 0)
    stopped._on_sigterm(15, None)
    hands = stopped._hands
    assert not any((hands.is_told_to_stop, hands.is_stop_ordered, hands.is_leaving))
    hands.is_stop_ordered = True  # so that this process group is not told
    with pytest.raises(Stopped):
        stopped._on_sigterm(15, None)


def test_a_worker_whose_job_has_left_processes_begins_no_other_one(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so before it tells what came of the job, and gives back what it had been handed."""
    attempt = worker._attempts.run

    def leave_two(task: Task) -> Outcome:
        monkeypatch.setattr(linux, "has_children", lambda: True)
        monkeypatch.setattr(children, "left_running", lambda: 2)
        worker._attempts.look_for_children()
        outcome: Outcome = attempt(task)
        return outcome

    worker._attempts.run = leave_two
    worker._obey(Run("boot", [Task(n, 1, "m:f", CALL) for n in (1, 2, 3)], 1))
    worker._work()
    worker._obey(Run("boot", [Task(4, 1, "m:f", CALL)], 2))
    leaving, sent, given_back = reports(worker)
    assert leaving == Leaving([(2, 1), (3, 1)])
    assert isinstance(sent, Outcomes)
    assert [outcome.id for outcome in sent.outcomes] == [1]
    assert given_back == GivenBack([(4, 1)])
    assert worker._attempts.notes == ["it left 2 processes running: its worker was replaced"]
