"""What a worker does between its jobs, without its processes, files and sockets."""

from __future__ import annotations

import threading
import time
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from jobd.model.job import Outcome, Verdict
from jobd.model.orders import GivenBack, Outcomes, Retire, Run, StopJob, Task, decode_reports
from jobd.pool import worker as module
from jobd.pool.worker import Worker

CALL = b"j[[],{}]"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a worker that knows ``m:f`` to be short, and sends into the list ``frames``."""
    monkeypatch.setattr(module, "HOLD_S", 3600.0)
    made: Any = object.__new__(Worker)
    made.frames = []
    made._lock = threading.RLock()
    made._jobs = made._control = SimpleNamespace(send=made.frames.append)
    made._board = SimpleNamespace(sent=lambda _: None)
    made._pending, made._stop_early = deque(), deque()
    made._held, made._unrecorded, made._took_us = [], {}, {"m:f": 5}
    made._current = made._stream = None
    made._leaving = made._stop_ordered = made._told_to_stop = False
    made._boot, made._seq, made._read, made._given_back = "boot", 0, 0, 0
    made._sent_at = time.perf_counter()
    made._attempt = lambda task: Outcome(
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
    worker._obey_at_once(StopJob(2, 1))
    worker._obey(Run("boot", [Task(1, 1, "m:f", CALL), Task(2, 1, "m:f", CALL)], 1))
    worker._obey(Retire())
    worker._work()
    given_back, sent = reports(worker)
    assert given_back == GivenBack([(2, 1)])
    assert isinstance(sent, Outcomes)
    assert [outcome.id for outcome in sent.outcomes] == [1]
    assert worker._unrecorded  # it stays until that is recorded
