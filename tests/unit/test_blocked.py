"""Jobs that wait for others, as the scheduler holds them: who is resident, and who hears of what."""

from __future__ import annotations

import pytest

from jobd.model.job import ErrorInfo, Job
from jobd.model.states import State
from jobd.scheduler import blocked as module
from jobd.scheduler.blocked import Blocked, blame
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.timers import Timers
from jobd.scheduler.window import Window


class Desk:
    """The part of a scheduler that knows who waits for whom."""

    def __init__(self) -> None:
        self.ledger = Ledger(100, {}, 1)
        self.window = Window(0)
        self.blocked = Blocked(self.ledger, self.window, Timers(has_more=False))
        self.blocked.wall = 5

    def waiting(self, number: int, *unmet: int, failed: Job | None = None) -> Job:
        """Take in a job that waits for others."""
        job = Job(number, b"key", 1, "m:f", b"", 1)
        job.inputs = [*unmet]
        self.blocked.admit(job, ([*unmet], failed))
        return job

    def end(self, job: Job, state: State = State.SUCCEEDED) -> Job:
        """Let a job end, and all be told of it."""
        job.state, job.ended_at = state, 1
        if state is State.FAILED:
            job.error = ErrorInfo("ValueError", "bad\nand more", "")
        self.blocked.ended(job)
        while self.blocked.is_busy:
            self.blocked.settle()
        return job


def ended(number: int, state: State = State.SUCCEEDED) -> Job:
    """Return a job that is about to end."""
    return Job(number, b"key", 1, "m:f", b"", 1, state=state)


def test_the_last_input_releases_a_job() -> None:
    """Not the first; and in the same turn."""
    desk = Desk()
    job = desk.waiting(3, 1, 2)
    desk.end(ended(1))
    assert job.state is State.BLOCKED
    desk.end(ended(2))
    assert job.state.name == "QUEUED"
    assert desk.window.pop() is job
    assert desk.ledger.batch.settled == [1, 2]
    assert not desk.blocked.missing


def test_a_job_whose_inputs_are_all_there_is_queued_at_once() -> None:
    """It leaves no edge."""
    desk = Desk()
    job = desk.waiting(3)
    assert job.state is State.QUEUED
    assert desk.ledger.batch.edges == []


def test_a_failed_input_aborts_all_the_way_down() -> None:
    """Each names the root, and none its own input."""
    desk = Desk()
    jobs = [desk.waiting(2, 1), desk.waiting(3, 2), desk.waiting(4, 3, 2)]
    desk.end(ended(1), State.FAILED)
    assert [job.state for job in jobs] == [State.ABORTED] * 3
    assert {job.root for job in jobs} == {1}
    assert {job.cause for job in jobs} == {"job 1 failed: ValueError: bad"}
    late = desk.waiting(5, 4, failed=jobs[-1])
    assert (late.state, late.root) == (State.ABORTED, 1)


@pytest.mark.parametrize(("name", "most"), [("JOBS", 2), ("EDGES", 2)])
def test_only_so_many_are_resident(monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> None:
    """The others are counted, leave memory once they are stored, and are looked for."""
    monkeypatch.setattr(module, name, most)
    desk = Desk()
    jobs = [desk.waiting(number, 1) for number in (2, 3, 4)]
    assert (len(desk.blocked.missing), desk.blocked.spilled) == (2, 1)
    for job in jobs:
        desk.blocked.unload(job)
    assert sorted(desk.window.jobs) == [2, 3]
    desk.end(ended(1))
    assert [job.state for job in jobs] == [State.QUEUED, State.QUEUED, State.BLOCKED]
    assert list(desk.blocked.lookups) == [1]
    assert desk.ledger.batch.settled == []  # the edge to the third is still needed


def test_ends_are_told_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """No turn of the loop is long, however many wait for one job."""
    monkeypatch.setattr(module, "SLICE", 2)
    desk = Desk()
    jobs = [desk.waiting(number, 1) for number in range(2, 7)]
    desk.blocked.ended(ended(1))
    for told in (2, 4, 5):
        desk.blocked.settle()
        assert sum(job.state is State.QUEUED for job in jobs) == told
    assert not desk.blocked.is_busy


def test_who_was_not_told_of_an_end_yet_is_not_told_after_a_retry() -> None:
    """The job that had failed may succeed now."""
    desk = Desk()
    job = desk.waiting(2, 1)
    failed = ended(1, State.FAILED)
    failed.error = ErrorInfo("E", "", "")
    desk.blocked.ended(failed)
    desk.blocked.restarted(1)
    desk.blocked.settle()
    assert job.state is State.BLOCKED
    desk.end(ended(1))
    assert job.state.name == "QUEUED"


def test_everybody_is_blamed_in_one_line() -> None:
    """For what happened to the job itself."""
    crashed, cancelled = ended(1, State.CRASHED), ended(2, State.CANCELLED)
    crashed.cause, cancelled.cause = "SIGSEGV", "no need"
    assert blame(crashed)[0] == "job 1 crashed (SIGSEGV)"
    assert blame(cancelled) == ("job 2 was cancelled: no need", None)
