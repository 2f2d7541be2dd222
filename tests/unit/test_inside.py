"""What a job's threads leave for the control thread, and what it tells them."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from typing import Any

import pytest

from jobd import context
from jobd.kin import CurrentJob
from jobd.model.errors import Deadlock, JobdError, TooManyWaiting
from jobd.model.job import Progress
from jobd.model.orders import Lent, Progressing, Task, Waiting
from jobd.pool.inside import PROGRESS_S, Inside

TASK = Task(7, 2, "m:f", b"", queue="etl")
SOCKET = "/run/jobd/client.sock"


class Worker:
    """A worker whose clock is ours."""

    def __init__(self) -> None:
        self.task: Task | None = TASK
        self.inside = Inside(lambda: self.task, SOCKET)
        self.heard: list[JobdError | None] = []

    def is_woken(self) -> bool:
        """Whether the control thread would look."""
        return bool(select.select([self.inside.fd], [], [], 0)[0])

    def wait(self, *numbers: int) -> object:
        """Begin a wait."""
        return self.inside.wait_begins(numbers, self.heard.append)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """Return a worker that runs a job."""
    worker = Worker()
    monkeypatch.setattr(context, "host", worker.inside)
    yield worker
    os.close(worker.inside.fd)


def test_a_job_is_known_while_it_runs(worker: Worker) -> None:
    """By id, attempt and queue."""
    assert context.current_job() == CurrentJob(7, 2, "etl")
    worker.task = None
    assert context.current_job() is None


def test_of_progress_the_latest_counts_and_not_too_often(worker: Worker) -> None:
    """The first goes out at once, and what comes soon after in one piece, later."""
    context.progress(1, 10)
    assert worker.is_woken()
    assert worker.inside.take(100.0) == [Progressing(7, 2, Progress(1.0, 10.0))]
    assert not worker.is_woken()
    context.progress(2, 10)
    context.progress(3, 10, "text")
    assert worker.inside.take(100.01) == []
    assert worker.inside.patience_s(100.01) == pytest.approx(PROGRESS_S - 0.01)
    assert worker.inside.take(100.0 + PROGRESS_S) == [
        Progressing(7, 2, Progress(3.0, 10.0, "text"))
    ]
    assert worker.inside.patience_s(200.0) is None


@pytest.mark.parametrize(("done", "total"), [("a", None), (None, 3), (1, "b"), (1, [])])
def test_progress_must_be_numbers(worker: Worker, done: Any, total: Any) -> None:
    """What was given is in the sentence."""
    with pytest.raises(ValueError, match=f"progress of {done!r} of .*: both must be numbers"):
        context.progress(done, total)
    assert worker.inside.take(0.0) == []


@pytest.mark.parametrize(("done", "total"), [(float("nan"), None), (1, float("inf"))])
def test_progress_must_be_finite(worker: Worker, done: float, total: float | None) -> None:
    """JSON has no other numbers."""
    with pytest.raises(ValueError, match="must be finite"):
        context.progress(done, total)
    assert not worker.is_woken()


def test_a_text_that_cannot_travel_is_mended(worker: Worker) -> None:
    """The job goes on; a lone surrogate is shown as a question mark."""
    context.progress(1, None, "caf\u00e9 \ud800")
    assert worker.inside.take(1.0) == [Progressing(7, 2, Progress(1.0, None, "caf\u00e9 ?"))]


def test_the_first_of_several_waits_lends_the_slot_and_the_last_takes_it_back(
    worker: Worker,
) -> None:
    """And the daemon knows of all."""
    first = worker.wait(8)
    second = worker.wait(9)
    assert worker.inside.take(0.0) == [Waiting(7, 2, waits=True, awaited=[8, 9])]
    assert worker.heard == []
    worker.inside.answered(Lent(7))
    assert worker.heard == [None, None]
    worker.inside.wait_ends(first)
    assert worker.inside.take(0.0) == []
    assert worker.inside.patience_s(0.0) == pytest.approx(PROGRESS_S)
    assert worker.inside.take(PROGRESS_S) == [Waiting(7, 2, waits=True, awaited=[9])]
    worker.inside.answered(Lent(7))
    worker.inside.wait_ends(second)
    assert worker.inside.take(PROGRESS_S) == [Waiting(7, 2, waits=False, awaited=[])]


def test_who_comes_later_is_asked_for_too(worker: Worker) -> None:
    """Unless the daemon knows already that the job waits for these; one question is out at a time."""
    worker.wait(8)
    worker.inside.take(0.0)
    worker.wait(9)
    worker.wait(10)
    assert worker.inside.take(0.0) == []
    worker.inside.answered(Lent(7))
    assert worker.heard == [None]
    assert worker.inside.take(0.0) == [Waiting(7, 2, waits=True, awaited=[8, 9, 10])]
    worker.inside.answered(Lent(7))
    assert worker.heard == [None] * 3
    worker.wait(9, 8)
    worker.wait()
    assert worker.heard == [None] * 5
    assert worker.inside.take(0.0) == []


def test_none_suffers_for_another_that_is_refused(worker: Worker) -> None:
    """What was asked for together is then asked for one by one, and what was allowed stays so."""
    worker.wait(8)
    worker.inside.take(0.0)
    worker.inside.answered(Lent(7))
    for number in (9, 10, 11):
        worker.wait(number)
    assert worker.inside.take(0.0) == [Waiting(7, 2, waits=True, awaited=[8, 9, 10, 11])]
    refused = Lent(7, Deadlock.error, "no", "why")
    worker.inside.answered(refused)
    asked = []
    for answer in (Lent(7), refused, Lent(7)):
        asked += worker.inside.take(0.0)
        worker.inside.answered(answer)
    assert [report.awaited for report in asked if isinstance(report, Waiting)] == [
        [8, 9],
        [8, 9, 10],
        [8, 9, 11],
    ]
    assert [type(error) for error in worker.heard] == [type(None), type(None), Deadlock, type(None)]
    worker.wait(10)
    assert len(worker.inside.take(0.0)) == 1, "that was refused, and is asked for again"


def test_a_wait_that_is_over_before_the_answer_has_not_lent_the_slot(worker: Worker) -> None:
    """The next one asks anew."""
    worker.inside.wait_ends(worker.wait(8))
    assert worker.inside.take(0.0) == []
    early = worker.wait(8)
    worker.inside.take(0.0)
    worker.inside.wait_ends(early)
    late = worker.wait(9)
    assert worker.inside.take(0.0) == [Waiting(7, 2, waits=False, awaited=[])]
    worker.inside.answered(Lent(7))
    assert worker.inside.take(0.0) == [Waiting(7, 2, waits=True, awaited=[9])]
    worker.inside.answered(Lent(7))
    assert worker.heard == [None]
    worker.inside.wait_ends(late)
    assert worker.inside.take(0.0) == [Waiting(7, 2, waits=False, awaited=[])]


@pytest.mark.parametrize("kind", [TooManyWaiting, Deadlock])
def test_a_refusal_is_raised_where_the_wait_is(worker: Worker, kind: type[JobdError]) -> None:
    """As the error that the daemon has named."""
    worker.wait(8)
    worker.inside.take(0.0)
    worker.inside.answered(Lent(7, kind.error, "no", "why"))
    (error,) = worker.heard
    assert type(error) is kind
    assert str(error) == "no (why)"


def test_what_a_thread_of_an_earlier_job_does_is_no_affair_of_the_next(worker: Worker) -> None:
    """It goes on waiting, for nobody's sake; the next job asks anew."""
    left_over = worker.wait(8)
    worker.inside.take(0.0)
    worker.task = Task(9, 1, "m:f", b"")
    worker.wait(10)
    worker.inside.answered(Lent(7))
    assert worker.heard == [], "that was the answer to the job before"
    worker.inside.wait_ends(left_over)
    assert worker.inside.take(0.0) == [Waiting(9, 1, waits=True, awaited=[10])]


def test_outside_of_a_job_nothing_is_lent(worker: Worker) -> None:
    """A thread that a job has left behind waits like any other."""
    worker.task = None
    assert worker.wait(8) is None
    assert worker.heard == [None]
    context.progress(1)
    assert worker.inside.take(0.0) == []


def test_the_next_daemon_is_told_of_a_wait(worker: Worker) -> None:
    """Unless it is over."""
    assert worker.inside.handed_over() == []
    token = worker.wait(8)
    worker.inside.take(0.0)
    assert worker.inside.handed_over() == [Waiting(7, 2, waits=True, awaited=[8])]
    worker.inside.wait_ends(token)
    assert worker.inside.handed_over() == []


def test_a_loop_that_is_closed_is_no_matter(worker: Worker) -> None:
    """Its coroutine was cancelled while the daemon was asked."""

    def told(_: JobdError | None) -> None:
        raise RuntimeError("Event loop is closed")

    worker.inside.wait_begins([8], told)
    worker.inside.take(0.0)
    worker.inside.answered(Lent(7))


def test_jobs_of_another_daemon_may_have_the_same_number(worker: Worker) -> None:
    """Only at its own daemon would a job wait for itself."""
    with pytest.raises(Deadlock, match="job 7 waits for its own result"):
        context.begin_wait([7], SOCKET, worker.heard.append)
    context.begin_wait([7], "/elsewhere", worker.heard.append)
    assert worker.inside.take(0.0) == [Waiting(7, 2, waits=True, awaited=[])]


def test_fds_that_the_job_has_closed_do_not_harm_it(worker: Worker) -> None:
    """Its worker ends after it; what it says until then is heard by nobody."""
    spare = os.dup(worker.inside.fd)
    os.close(worker.inside.fd)
    context.progress(1)
    worker.wait(8)
    os.dup2(spare, worker.inside.fd)
    os.close(spare)
