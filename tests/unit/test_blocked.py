"""Jobs that wait for others, as the scheduler holds them: who is resident, and who hears of what."""

from __future__ import annotations

import pytest

from jobd.model.edges import When
from jobd.model.job import ErrorInfo, Job
from jobd.model.states import State
from jobd.scheduler import blocked as module
from jobd.scheduler.blocked import Blocked, Sources, blame
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.queues import Queues
from jobd.scheduler.timers import Timers
from jobd.scheduler.window import Window


class Desk:
    """The part of a scheduler that knows who waits for whom."""

    def __init__(self) -> None:
        self.ledger = Ledger(100, {}, 1)
        self.window = Window(Queues(), 0)
        self.blocked = Blocked(self.ledger, self.window, Timers(has_more=False))
        self.blocked.wall = 5
        self.ends: dict[int, Job] = {}

    def waiting(self, number: int, *inputs: int, **after: int) -> Job:
        """Take in a job that waits for others, by name for how they have to end."""
        job = Job(number, b"key", 1, "m:f", b"", 1)
        job.inputs = [*inputs]
        job.after = [(source, When[name.upper()]) for name, source in after.items()]
        known = {source: self.ends.get(source) for source in job.edges()}
        states = {source: end.state if end else State.QUEUED for source, end in known.items()}
        self.blocked.admit(job, Sources(states, {n: end for n, end in known.items() if end}))
        if job.state is State.ABORTED:
            self.ends[number] = job
        return job

    def end(self, job: Job, state: State = State.SUCCEEDED) -> Job:
        """Let a job end, and all be told of it."""
        job.state, job.ended_at = state, 1
        if state is State.FAILED:
            job.error = ErrorInfo("ValueError", "bad\nand more", "")
        self.ends[job.id] = job
        self.blocked.ended(job)
        while self.blocked.is_busy:
            self.blocked.settle()
        return job

    def retry(self, number: int) -> None:
        """Give a job that has ended another round."""
        del self.ends[number]
        self.blocked.restarted(number)


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
    desk.ends[4] = jobs[-1]
    late = desk.waiting(5, 4)
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


@pytest.mark.parametrize(
    ("when", "end", "state"),
    [
        ("succeeded", State.SUCCEEDED, State.QUEUED),
        ("succeeded", State.CANCELLED, State.ABORTED),
        ("ended", State.SUCCEEDED, State.QUEUED),
        ("ended", State.FAILED, State.QUEUED),
        ("failed", State.SUCCEEDED, State.ABORTED),
        ("failed", State.FAILED, State.QUEUED),
        ("failed", State.CANCELLED, State.QUEUED),
        ("failed", State.EXPIRED, State.QUEUED),
        ("failed", State.ABORTED, State.QUEUED),
    ],
)
def test_how_a_source_ended_decides(when: str, end: State, state: State) -> None:
    """In the same way for those who waited for it and for those who came later."""
    desk = Desk()
    before = desk.waiting(3, **{when: 1})
    assert before.state is State.BLOCKED
    desk.end(ended(1), end)
    after = desk.waiting(4, **{when: 1})
    assert (before.state, after.state) == (state, state)
    if state is State.ABORTED:
        assert before.root == after.root == 1
        assert before.cause == after.cause
    assert not desk.blocked.missing
    assert not desk.blocked._edges


def test_who_waits_for_a_failure_in_vain_says_so() -> None:
    """So do those who come after it; who waits for any end of that, or for its failure, is released."""
    desk = Desk()
    alarm = desk.waiting(2, failed=1)
    others = [desk.waiting(3, 2), desk.waiting(4, ended=2), desk.waiting(5, failed=2)]
    desk.end(ended(1))
    assert (alarm.state, alarm.root, alarm.cause) == (State.ABORTED, 1, "job 1 succeeded")
    assert [job.state for job in others] == [State.ABORTED, State.QUEUED, State.QUEUED]
    assert (others[0].root, others[0].cause) == (1, "job 1 succeeded")


@pytest.mark.parametrize("when", ["ended", "failed"])
def test_who_has_not_started_waits_for_the_end_of_another_round(when: str) -> None:
    """An end that a retry has undone counts no more, for those who came before it and after it."""
    desk = Desk()
    before = desk.waiting(3, 2, **{when: 1})
    desk.end(ended(1), State.FAILED)
    after = desk.waiting(4, 2, **{when: 1})
    desk.retry(1)
    desk.end(ended(2))
    assert (before.state, after.state) == (State.BLOCKED, State.BLOCKED)
    desk.end(ended(1), State.CANCELLED)
    assert (before.state, after.state) == (State.QUEUED, State.QUEUED)
    assert not desk.blocked._edges


def test_who_was_released_does_not_wait_again() -> None:
    """Whatever is retried."""
    desk = Desk()
    job = desk.waiting(3, ended=1)
    desk.end(ended(1), State.FAILED)
    desk.retry(1)
    assert job.state is State.QUEUED
    assert desk.window.pop() is job
