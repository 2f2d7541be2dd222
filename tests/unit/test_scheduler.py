"""The rules of the scheduler, one by one; what they add up to is tested by simulation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_store import FakeStore

from jobd.daemon import service
from jobd.model.durations import parse_size
from jobd.model.errors import DiskFull, QueueFull, Stopping
from jobd.model.job import ErrorInfo, Job, Outcome, Verdict
from jobd.model.messages import Accepted, Ended, Put, Refused, Reply, Submit, Submitted
from jobd.model.options import Policy
from jobd.model.orders import GiveBack, Lent, Order, Recorded, Retire, Run, StopJob
from jobd.model.queues import Override, Rule
from jobd.model.states import Event, State
from jobd.scheduler import (
    Death,
    Effects,
    Options,
    Phase,
    Scheduler,
    Sources,
    batch,
    commits,
    dispatch,
    intake,
    known,
    ledger,
    plain,
    staff,
    stops,
    supply,
)
from jobd.scheduler.aftermath import death_of
from jobd.scheduler.queues import Queues

PEER = b"peer"
SHORT, LONG = 50, 20_000


class Desk:
    """A scheduler, a store, and somebody who does what it wants."""

    def __init__(
        self,
        *,
        workers: int = 2,
        max_crashes: int = 1,
        max_queued: int = 10_000,
        max_lent: int = 64,
        max_jobs_per_worker: int = 0,
    ) -> None:
        self.options = Options(
            workers=workers,
            max_crashes=max_crashes,
            max_queued=max_queued,
            max_lent=max_lent,
            max_jobs_per_worker=max_jobs_per_worker,
        )
        self.store = FakeStore()
        self.scheduler = Scheduler("boot", self.options)
        self.now_us = 1_000_000
        self.spawned: list[str] = []
        self.killed: list[tuple[str, int, int]] = []
        self.orders: list[tuple[str, Order]] = []
        self.told: list[Reply] = []
        self._keys = count(1)
        self._seqs = count(1)
        self.act()

    def act(self, after_us: int = 0) -> Effects:
        """Let time pass, and let the scheduler decide."""
        self.now_us += after_us
        self.scheduler.begin(self.now_us, 10**15 + self.now_us)
        effects = self.scheduler.take_effects()
        self.spawned += effects.spawn
        self.killed += effects.kill
        self.orders += effects.orders
        self.told += [reply for _, reply in effects.replies]
        return effects

    def hire(self) -> list[str]:
        """Let all workers that were asked for report."""
        for number, uid in enumerate(self.spawned):
            self.scheduler.workforce.worker_ready(uid, 100 + number)
        self.act()
        return self.spawned

    def submit(
        self,
        jobs: int = 1,
        function: str = "m:f",
        *,
        watch: bool = False,
        policy: Policy | None = None,
    ) -> list[int]:
        """Submit jobs; return their ids."""
        first = self.scheduler.ledger.next_id
        uid = b"session." + next(self._keys).to_bytes(8, "big")
        args = [b"%d" % number for number in range(first, first + jobs)]
        request = Submit(1, uid, function, args, [(0, ())], check=False, watch=watch)
        self.scheduler.intake.submit(PEER, request, policy)
        return list(range(first, first + jobs))

    def commit(self, takes_us: int = 0) -> None:
        """Store the open batch, and act on it."""
        self.write()
        self.store.commit()
        self.scheduler.committed(takes_us)
        self.act()

    def write(self) -> None:
        """Hand the open batch to the store, which has not committed it yet."""
        self.store.write(self.scheduler.take_batch())

    def fail(self) -> None:
        """Find the disk full, in the midst of a commit."""
        self.scheduler.take_batch()
        self.scheduler.not_committed(DiskFull("disk full"))
        self.act()

    def refill(self, wanted: int = 4) -> None:
        """Load more of the queue, as the loop does."""
        cursor, high = self.scheduler.window.cursor, self.scheduler.ledger.stored_high
        self.scheduler.refill(self.store.backlog(cursor, high, wanted))
        self.act()

    def job(self, number: int) -> Job:
        """Return a job that is in memory."""
        return self.scheduler.window.jobs[number]

    def row(self, number: int) -> Job:
        """Return a job as it is stored."""
        row = self.store.job(number)
        assert row is not None
        return row

    def holder(self, number: int) -> str:
        """Return the worker that has a job in hand, or ''."""
        workers = self.scheduler.workers.values()
        return next((w.uid for w in workers if number in w.assigned), "")

    def runs(self, uid: str) -> list[int]:
        """Return the jobs that a worker was ordered to run, as they were ordered."""
        orders = [order for to, order in self.orders if to == uid and isinstance(order, Run)]
        return [task.id for order in orders for task in order.tasks]

    def told_to(self, uid: str, kind: type[Order]) -> list[Order]:
        """Return the orders of a kind that a worker has got."""
        return [order for to, order in self.orders if to == uid and isinstance(order, kind)]

    def end(self, *numbers: int, verdict: int = Verdict.RETURNED, took_us: int = SHORT) -> None:
        """Let jobs end, in the hands that have them."""
        for number in numbers:
            uid = self.holder(number)
            job = self.job(number)
            value = b"jnull" if verdict == Verdict.RETURNED else None
            error = ErrorInfo("E", "why", "") if verdict == Verdict.RAISED else None
            outcome = Outcome(number, job.attempt, verdict, value, error, 1, took_us)
            self.scheduler.workforce.outcomes(uid, next(self._seqs), [outcome])
        self.act()

    def ordered(self) -> list[int]:
        """Return the jobs in hands whose order to run has left."""
        hands = [
            job for worker in self.scheduler.workers.values() for job in worker.assigned.values()
        ]
        return [job.id for job in hands if job.lease is not None and job.lease.run]

    def wait(self, number: int, *awaited: int) -> None:
        """Let a running job say that it waits for others."""
        self.scheduler.loans.waits(
            self.holder(number), number, self.job(number).attempt, [*awaited]
        )
        self.act()

    def go_on(self, number: int) -> None:
        """Let a job say that it waits no longer."""
        self.scheduler.loans.goes_on(self.holder(number), number, self.job(number).attempt)
        self.act()

    def die(self, uid: str, running: int = 0, *, unknown: bool = False) -> None:
        """Let a worker die, in a job or not."""
        job = self.scheduler.window.jobs.get(running)
        at = (running, job.attempt) if job else (0, 0)
        self.scheduler.workforce.worker_died(uid, Death("SIGSEGV", at, unknown))
        self.act()

    def learn(self, function: str, took_us: int) -> None:
        """Let the scheduler find out how long a function takes."""
        (number,) = self.submit(1, function)
        self.act()
        self.commit()
        self.end(number, took_us=took_us)
        self.commit()


@pytest.fixture
def desk() -> Desk:
    """Return a desk with two workers that are ready."""
    made = Desk()
    made.hire()
    return made


# -- dispatch --


def test_an_idle_worker_gets_a_job_at_once(desk: Desk) -> None:
    """A job need not be stored before it is handed out, only before anybody hears of it."""
    (number,) = desk.submit()
    desk.act()
    assert desk.runs(desk.spawned[0]) == [number]
    assert desk.told == []


def test_every_idle_worker_gets_one_job_before_any_gets_two(desk: Desk) -> None:
    """Jobs of known and unknown length alike go to as many hands as there are."""
    desk.learn("m:short", SHORT)
    numbers = desk.submit(6, "m:short")
    desk.act()
    assert [desk.holder(number) for number in numbers[:2]] == desk.spawned
    assert len(desk.runs(desk.spawned[0])) - 1 == len(desk.runs(desk.spawned[1])) == 3


def test_jobs_of_an_unknown_function_are_handed_out_one_at_a_time(desk: Desk) -> None:
    """Unknown means long."""
    numbers = desk.submit(5)
    desk.act()
    assert [bool(desk.holder(number)) for number in numbers] == [True, True, False, False, False]


def test_jobs_of_a_long_function_are_handed_out_one_at_a_time(desk: Desk) -> None:
    """What takes over two milliseconds is not worth a prefetch."""
    desk.learn("m:long", int(supply.AHEAD_US) + 1)
    numbers = desk.submit(5, "m:long")
    desk.act()
    assert sum(bool(desk.holder(number)) for number in numbers) == 2


def test_short_jobs_are_handed_out_ahead_up_to_a_budget_of_work() -> None:
    """No worker is given more than it does in about two commits."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", 400)
    numbers = desk.submit(50, "m:short")
    desk.act()
    held = [number for number in numbers if desk.holder(number)]
    assert held == numbers[: len(held)]
    assert dispatch.BUDGET_US <= 400 * len(held) <= dispatch.BUDGET_US + 2 * 400


@pytest.mark.parametrize("commit_us", [4_000, 400_000])
def test_the_longer_a_commit_lasts_the_more_is_handed_out_ahead(commit_us: int) -> None:
    """The next order waits for a commit, and meanwhile the worker needs something to do."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", 400)
    for _ in range(20):
        (number,) = desk.submit(1, "m:short")
        desk.act()
        desk.end(number, took_us=400)
        desk.commit(commit_us)
    numbers = desk.submit(50, "m:short")
    desk.act()
    ahead_us = 400 * sum(bool(desk.holder(number)) for number in numbers)
    enough = dispatch.BUDGET_US + min(commit_us, dispatch.SLOW_US)
    assert 0.9 * enough <= ahead_us <= enough + 2 * 400


@pytest.mark.parametrize("more", [0, 1, 100])
def test_idle_workers_get_a_short_first_order_and_the_rest_at_once(more: int) -> None:
    """They begin with it while the next is made; nothing is left to be done once nothing waits."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", 1)
    desk.orders.clear()
    desk.submit(1 + dispatch.FIRST + more, "m:short")
    desk.act()
    assert desk.scheduler.wake_at() == desk.now_us
    desk.act()
    sent = [len(order.tasks) for _, order in desk.orders if isinstance(order, Run)]
    assert sent[0] <= 1 + dispatch.FIRST
    assert sum(sent) == 1 + dispatch.FIRST + more
    desk.act()
    assert not desk.scheduler.dispatch.has_more
    assert desk.scheduler.wake_at() != desk.now_us


def test_no_worker_is_handed_more_jobs_than_its_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even of jobs that take no time."""
    monkeypatch.setattr(dispatch, "CREDIT", 7)
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", 1)
    desk.submit(50, "m:short")
    desk.act()
    assert len(desk.scheduler.workers[desk.spawned[0]].assigned) == 7


def test_large_arguments_are_handed_out_ahead_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next go when some have ended, so that no order is long on its way; alone, any size goes."""
    monkeypatch.setattr(dispatch, "AHEAD_BYTES", 99)
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", 1)
    args = [bytes(40)] * 20 + [bytes(1_000)] * 3
    request = Submit(1, b"session!" + bytes(8), "m:short", args, [(0, ())])
    first = desk.scheduler.ledger.next_id
    desk.scheduler.intake.submit(PEER, request)
    left = [*range(first, first + 23)]
    while left:
        desk.act()
        held = [number for number in left if desk.holder(number)]
        sizes = [40 if number < first + 20 else 1_000 for number in held]
        assert sum(sizes[:-1]) <= 99
        assert sum(sizes) > 99 or held == left
        desk.end(held[0])
        left.remove(held[0])


def test_the_worker_with_the_least_work_gets_the_next_job(desk: Desk) -> None:
    """Of two that have something in hand, it is the one that will be done first."""
    desk.learn("m:short", 400)
    desk.learn("m:tiny", 10)
    first, second = desk.submit(1, "m:short") + desk.submit(1, "m:tiny")
    desk.act()
    (third,) = desk.submit(1, "m:tiny")
    desk.act()
    assert desk.holder(first) != desk.holder(second) == desk.holder(third)


def test_a_long_job_is_not_put_behind_short_ones(desk: Desk) -> None:
    """Jobs start in the order of their ids, so what follows a long one waits with it."""
    desk.learn("m:short", SHORT)
    shorts = desk.submit(2, "m:short")
    (long,) = desk.submit(1, "m:long")
    (last,) = desk.submit(1, "m:short")
    desk.act()
    assert all(desk.holder(number) for number in shorts)
    assert not desk.holder(long)
    assert not desk.holder(last)
    desk.end(shorts[0])
    assert desk.holder(long)


def test_a_worker_that_starts_or_retires_gets_no_job() -> None:
    """Only one that has reported does."""
    desk = Desk()
    desk.submit(2)
    desk.act()
    assert desk.orders == []
    desk.hire()
    assert all(desk.runs(uid) for uid in desk.spawned)
    desk.commit()
    desk.scheduler.workforce.retire_all()
    desk.end(1, 2)
    (number,) = desk.submit()
    desk.act()
    assert not desk.holder(number)


# -- the rules of queues --


def test_a_paused_queue_starts_nothing(desk: Desk) -> None:
    """Its jobs wait until it is resumed, and then they start in their order."""
    desk.scheduler.set_queue("default", Override(paused=True))
    numbers = desk.submit(3)
    desk.act()
    assert not any(desk.holder(number) for number in numbers)
    desk.scheduler.set_queue("default", Override(paused=False))
    desk.act()
    assert [bool(desk.holder(number)) for number in numbers] == [True, True, False]


def test_what_runs_goes_on_while_its_queue_is_paused(desk: Desk) -> None:
    """A pause is about what starts; the worker that becomes free stays idle."""
    first, second, third = desk.submit(3)
    desk.act()
    desk.scheduler.set_queue("default", Override(paused=True))
    desk.end(first)
    assert not desk.holder(third)
    assert desk.holder(second)


def test_a_queue_has_no_more_jobs_running_than_slots() -> None:
    """Though more workers idle, and its jobs are short: more follow on one in the same hands."""
    desk = Desk(workers=3)
    desk.hire()
    desk.learn("m:short", SHORT)
    desk.scheduler.set_queue("default", Override(slots=2))
    numbers = desk.submit(5, "m:short")
    desk.act()
    for number in numbers:
        assert len({desk.holder(other) for other in numbers[number - numbers[0] :]} - {""}) <= 2
        assert desk.scheduler.queues.running("default") == min(2, numbers[-1] + 1 - number)
        desk.end(number)
    assert desk.scheduler.queues.running("default") == 0


def test_slots_that_are_set_while_jobs_run_count_these(desk: Desk) -> None:
    """Nobody counted them before; a job that waits for others has no slot."""
    first, second, third = desk.submit(3)
    desk.act()
    desk.wait(first, third)
    desk.scheduler.set_queue("default", Override(slots=1))
    desk.act()
    assert desk.holder(second)
    assert not desk.holder(third)
    desk.end(second)
    assert desk.holder(third)


def test_a_job_that_waits_for_others_lends_also_the_slot_of_its_queue() -> None:
    """Else a queue with one slot could not have a job that waits for a job of the same queue."""
    desk = Desk(workers=1)
    desk.scheduler.set_queue("default", Override(slots=1))
    desk.hire()
    (parent,) = desk.submit()
    desk.act()
    (child,) = desk.submit()
    desk.act()
    desk.wait(parent, child)
    desk.hire()
    assert desk.holder(child)
    desk.end(child)
    desk.go_on(parent)
    (later,) = desk.submit()
    desk.act()
    assert not desk.holder(later)
    desk.end(parent)
    assert desk.holder(later)


def test_a_rate_lets_jobs_start_when_it_is_time() -> None:
    """The scheduler says when; nobody has to ask again and again."""
    desk = Desk(workers=1)
    desk.hire()
    desk.scheduler.set_queue("default", Override(rate="2/s"))
    numbers = desk.submit(3)
    began = desk.now_us
    desk.act()
    desk.commit()
    for number in numbers[:2]:
        desk.end(number)
        desk.commit()
    assert not desk.holder(numbers[2])
    assert desk.scheduler.wake_at() == began + 1_010_000  # with some slack for the worker
    desk.act(after_us=1_009_999)
    assert not desk.holder(numbers[2])
    desk.act(after_us=1)
    assert desk.holder(numbers[2])


def test_limits_that_the_default_queue_has_from_the_start_hold_for_the_first_jobs() -> None:
    """Nothing is in the store yet, and nothing but plain jobs has come."""
    desk = Desk()
    rules = {"default": Rule(slots=1)}
    desk.scheduler = Scheduler("boot", desk.options, queues=Queues(rules))
    desk.spawned.clear()
    desk.act()
    desk.hire()
    first, second = desk.submit(2)
    desk.act()
    assert desk.holder(first)
    assert not desk.holder(second)


def test_a_job_that_runs_since_an_earlier_daemon_takes_a_slot_and_is_no_start(desk: Desk) -> None:
    """It started under that daemon."""
    (number,) = desk.submit()
    desk.act()
    desk.commit()
    lease = next(iter(desk.store.leased.values()))
    queues = Queues({"default": Rule(slots=1, rate="1/h")})
    after = Scheduler("next", desk.options, next_id=2, counts=desk.store.counts(), queues=queues)
    after.begin(0, 10**15)
    after.workforce.add_orphan("old", 5)
    after.workforce.resume("old", desk.row(number), 1, lease)
    assert queues.opens_at("default", 0) is None
    outcome = Outcome(number, 1, Verdict.RETURNED, b"jnull", None, 1, SHORT)
    after.workforce.outcomes("old", 1, [outcome])
    assert queues.opens_at("default", 0) == 0


# -- what is on record --


def test_a_stored_job_starts_only_when_its_attempt_is_on_record(desk: Desk) -> None:
    """After a crash of everything it must be known that it may have run."""
    one, two, three = desk.submit(3)
    desk.act()
    desk.commit()
    desk.end(one)
    assert desk.holder(three)
    assert three not in desk.runs(desk.holder(three))
    desk.write()
    desk.act()
    assert three not in desk.runs(desk.holder(three))
    desk.store.commit()
    assert any((three, 1) in lease.attempts for lease in desk.store.leased.values())
    desk.scheduler.committed()
    desk.act()
    assert three in desk.runs(desk.holder(three))
    assert two in desk.runs(desk.holder(two))


def test_a_submit_and_its_attempt_are_stored_together(desk: Desk) -> None:
    """So a job that may have started is never stored without its lease."""
    (number,) = desk.submit()
    desk.act()
    desk.commit()
    assert [lease.attempts for lease in desk.store.leased.values()] == [[(number, 1)]]


def test_a_lease_ends_with_the_last_of_its_attempts(desk: Desk) -> None:
    """One row stands for all jobs of an order."""
    desk.learn("m:short", SHORT)
    numbers = desk.submit(4, "m:short")
    desk.act()
    desk.commit()
    desk.end(*numbers[:-1])
    desk.commit()
    assert len(desk.store.leased) == 1
    desk.end(numbers[-1])
    desk.commit()
    assert desk.store.leased == {}


def test_a_short_job_costs_one_commit(desk: Desk) -> None:
    """The batch waits for the outcome that is about to come: submit and end are stored at once."""
    desk.learn("m:short", SHORT)
    (number,) = desk.submit(1, "m:short")
    desk.act()
    assert not desk.scheduler.commits.is_due()
    desk.end(number)
    assert desk.scheduler.commits.is_due()
    desk.commit()
    assert desk.row(number).state is State.SUCCEEDED
    assert number not in desk.store.packed
    assert desk.store.leased == {}


def test_what_comes_later_does_not_prolong_the_wait(desk: Desk) -> None:
    """The first submit of a batch counts: a steady stream must not starve it."""
    desk.learn("m:short", SHORT)
    desk.submit(1, "m:short")
    desk.act(intake.PATIENCE_US - 1)
    assert not desk.scheduler.commits.is_due()
    desk.submit(1, "m:short")
    desk.act(1)
    assert desk.scheduler.commits.is_due()


def test_what_is_stored_is_not_kept_in_memory_or_stored_again() -> None:
    """The arguments are in the job, the parcel's copy goes; an earlier attempt is written once."""
    desk = Desk(workers=1)
    desk.hire()
    number, _ = desk.submit(2)
    desk.act()
    record = desk.job(number).record
    assert record is not None
    desk.commit()
    assert record.args == []
    assert record.parcel.records == []
    desk.die(desk.holder(number), number)
    assert desk.job(number).earlier
    desk.commit()
    assert desk.job(number).earlier is None


def test_of_jobs_that_came_alone_only_those_that_wait_are_packed() -> None:
    """The others have rows by then; before what comes packed, so that ids rise from parcel to parcel."""
    desk = Desk(workers=1)
    desk.hire()
    ended = desk.submit()[0]
    desk.act()
    desk.end(ended)
    waiting = desk.submit()[0]
    many = desk.submit(3)
    last = desk.submit()[0]
    taken = desk.scheduler.take_batch()
    packed = [list(range(r.first, r.first + len(r.args))) for p in taken.parcels for r in p.records]
    assert packed == [[waiting], [*many], [last]]
    assert desk.job(waiting).record is taken.parcels[0].records[0]


def test_only_the_latest_submits_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """For clients that name a job by its submit; older ones are found in the store."""
    monkeypatch.setattr(ledger, "RECENT", 5)
    desk = Desk(workers=1)
    desk.hire()
    remembered: list[int] = []
    for jobs in (1, 1, 3, 1, 1, 4, 1, 1):
        for _ in range(jobs):
            desk.submit()
        desk.commit()
        remembered = [len(submissions) for submissions in desk.scheduler.ledger.recent]
        assert sum(remembered[1:]) < 5
    assert sum(remembered) >= 5


def test_the_batch_does_not_wait_for_long(desk: Desk) -> None:
    """A job that takes longer than was expected does not hold up the answer to its submit."""
    desk.learn("m:short", SHORT)
    desk.submit(1, "m:short")
    desk.act()
    assert desk.scheduler.wake_at() == desk.now_us + intake.PATIENCE_US
    desk.act(intake.PATIENCE_US)
    assert desk.scheduler.commits.is_due()


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_batch_does_not_wait_for_a_job_that_may_be_long(desk: Desk, jobs: int) -> None:
    """Nor for one that no worker has taken."""
    desk.submit(jobs)
    desk.act()
    assert desk.scheduler.commits.is_due()


def test_the_batch_does_not_wait_when_the_workers_have_enough_to_do(desk: Desk) -> None:
    """What could not even be handed out will not end before the commit."""
    desk.learn("m:short", 400)
    desk.submit(50, "m:short")
    desk.act()
    assert desk.scheduler.commits.is_due()


def test_a_submit_is_answered_when_it_is_durable_and_not_before(desk: Desk) -> None:
    """The answer has the ids, which follow on each other."""
    numbers = desk.submit(3)
    desk.act()
    desk.write()
    desk.act()
    assert desk.told == []
    desk.store.commit()
    desk.scheduler.committed()
    desk.act()
    assert desk.told == [Submitted(1, numbers[0], 3)]


def test_outcomes_are_acknowledged_when_they_are_durable(desk: Desk) -> None:
    """Until then the worker keeps them, for the next daemon."""
    (number,) = desk.submit()
    desk.act()
    uid = desk.holder(number)
    desk.end(number)
    assert desk.told_to(uid, Recorded) == []
    desk.commit()
    assert desk.told_to(uid, Recorded) == [Recorded([1])]


def test_outcomes_of_a_stranger_are_acknowledged_at_once(desk: Desk) -> None:
    """Its jobs were never on record; it must not keep them, and itself, for ever."""
    desk.scheduler.workforce.outcomes(
        "stranger", 5, [Outcome(1, 1, Verdict.RETURNED, b"j1", None, 1, 1)]
    )
    desk.act()
    assert desk.told_to("stranger", Recorded) == [Recorded([5])]


def test_the_row_of_an_ended_job_tells_when_it_ran_and_where(desk: Desk) -> None:
    """The times are the worker's, the pid is that of the worker that had it."""
    (number,) = desk.submit()
    desk.act()
    outcome = Outcome(number, 1, Verdict.RETURNED, b"j1", None, 5_000, 70)
    desk.scheduler.workforce.outcomes(desk.holder(number), 1, [outcome])
    desk.commit()
    row = desk.row(number)
    assert (row.started_at, row.ended_at, row.pid, row.value) == (5_000, 5_070, 100, b"j1")


def test_what_a_worker_says_after_it_was_judged_dead_changes_nothing(desk: Desk) -> None:
    """Its last words may come late, or twice."""
    (number,) = desk.submit()
    desk.act()
    uid = desk.holder(number)
    desk.die(uid, number)
    desk.scheduler.workforce.given_back(uid, [(number, 1)], 0, 9)
    desk.scheduler.workforce.handed_over(uid, 1, (number, 1))
    desk.scheduler.workforce.worker_ready(uid, 1)
    desk.scheduler.workforce.worker_died(uid, Death("again"))
    assert (desk.job(number).crashes, desk.job(number).attempt) == (1, 2)
    assert uid not in desk.scheduler.workers


def test_an_outcome_of_a_superseded_attempt_is_refused(desk: Desk) -> None:
    """The worker was seen dead, the job is in other hands: what still comes is not recorded."""
    (number,) = desk.submit()
    desk.act()
    uid = desk.holder(number)
    desk.commit()
    late = Outcome(number, 1, Verdict.RETURNED, b'j"late"', None, 1, 1)
    desk.die(uid, number)
    desk.commit()
    desk.scheduler.workforce.outcomes(uid, 1, [late])
    desk.scheduler.workforce.outcomes(desk.holder(number), 1, [late])
    assert desk.job(number).state is State.RUNNING
    assert desk.job(number).attempt == 2


# -- on deck --


@pytest.fixture
def long_ones(desk: Desk) -> list[int]:
    """Give six jobs of a function that takes 20 ms: two that run, two on deck, two that wait."""
    desk.learn("m:slow", LONG)
    numbers = desk.submit(6, "m:slow")
    desk.act()
    desk.commit()
    desk.act()
    desk.commit()
    return numbers


def test_a_worker_has_the_next_job_before_the_one_at_hand_has_ended(
    desk: Desk, long_ones: list[int]
) -> None:
    """It starts in the step that ends the other; what it is about to start is on record."""
    first, second = desk.spawned
    one, two, three, four, five, _ = long_ones
    assert [desk.holder(number) for number in long_ones] == [first, second, first, second, "", ""]
    assert desk.runs(first)[-2:] == [one, three]
    assert {(three, 1), (four, 1)} < {a for each in desk.store.leases() for a in each.attempts}
    desk.end(one, took_us=LONG)
    assert desk.holder(five) == first
    assert five not in desk.runs(first), "its order waits for its record"
    desk.commit()
    assert desk.runs(first)[-1] == five
    assert desk.holder(two) == second


def test_what_lies_on_deck_goes_to_a_worker_that_idles(desk: Desk, long_ones: list[int]) -> None:
    """Once nothing else is queued."""
    first, second = desk.spawned
    one, two, three, four, five, six = long_ones
    for ended in (two, four):
        desk.end(ended, took_us=LONG)
        desk.commit()
        assert not desk.told_to(first, GiveBack)
    for ended in (five, six):
        desk.end(ended, took_us=LONG)
        desk.commit()
    (asked,) = desk.told_to(first, GiveBack)
    assert isinstance(asked, GiveBack)
    desk.scheduler.workforce.given_back(first, [(three, 1)], 2, asked.upto)
    desk.act()
    desk.commit()
    assert [desk.holder(number) for number in (one, three)] == [first, second]
    assert desk.runs(second)[-1] == three
    assert desk.job(three).attempt == 1


def test_a_job_of_a_higher_priority_takes_the_place_of_one_on_deck(
    desk: Desk, long_ones: list[int]
) -> None:
    """It would have gone before that, had it been there."""
    first, second = desk.spawned
    one, two, three, four, *_ = long_ones
    desk.submit(policy=Policy(priority=0))
    desk.act()
    desk.commit()
    assert not desk.told_to(first, GiveBack)
    (urgent,) = desk.submit(policy=Policy(priority=1))
    desk.act()
    assert desk.told_to(first, GiveBack)
    assert desk.told_to(second, GiveBack)
    desk.scheduler.workforce.given_back(first, [(three, 1)], 2, 2)
    desk.scheduler.workforce.given_back(second, [(four, 1)], 2, 2)
    desk.act()
    desk.end(two, took_us=LONG)
    assert desk.holder(urgent) == second
    assert desk.holder(one) == first


def test_behind_a_job_that_takes_three_times_as_long_nothing_stays_on_deck(
    desk: Desk, long_ones: list[int]
) -> None:
    """Others go on, and it must not wait for long behind that."""
    first = desk.spawned[0]
    desk.act(dispatch.STALL_US + 2 * LONG - 1)
    assert not desk.told_to(first, GiveBack)
    desk.act(1)
    assert desk.told_to(first, GiveBack)
    desk.scheduler.workforce.given_back(first, [(long_ones[2], 1)], 2, 2)
    desk.act()
    assert desk.holder(long_ones[2]) != first


def test_what_lay_on_deck_when_its_worker_died_has_not_run(
    desk: Desk, long_ones: list[int]
) -> None:
    """No crash is counted, and it keeps its number."""
    first = desk.spawned[0]
    one, _, three, *_ = long_ones
    desk.die(first, one)
    assert (desk.job(one).attempt, desk.job(one).crashes) == (1, 1)
    assert (desk.job(three).attempt, desk.job(three).crashes) == (0, 0)


@pytest.mark.parametrize(
    "policy",
    [Policy(max_crashes=0), Policy(unique=["waiting"], key="k"), Policy(mem=1 << 30)],
)
def test_some_jobs_never_lie_on_deck(desk: Desk, policy: Policy) -> None:
    """Those that may run once only, and those that must not wait in a worker's hands."""
    desk.learn("m:slow", LONG)
    desk.submit(2, "m:slow")
    (number,) = desk.submit(1, "m:slow", policy=policy)
    for _ in range(3):
        desk.act()
        desk.commit()
    assert not desk.holder(number)


def test_a_time_limit_counts_from_the_end_of_the_job_before(desk: Desk) -> None:
    """On deck a job has not started."""
    desk.learn("m:slow", LONG)
    heads = desk.submit(2, "m:slow")
    numbers = desk.submit(2, "m:slow", policy=Policy(timeout=1.0))
    for _ in range(3):
        desk.act()
        desk.commit()
    assert [desk.holder(number) for number in numbers] == desk.spawned
    clocks = desk.scheduler.stops.clocks
    assert not clocks.due
    desk.act(7_000)
    desk.end(heads[0], took_us=LONG)
    (at,) = clocks.due.values()
    assert at == desk.scheduler._now + 1_000_000
    desk.act(1_000)
    desk.scheduler.workforce.outcomes(desk.holder(numbers[0]), 99, [])
    assert [*clocks.due.values()] == [at]


def test_behind_a_job_that_may_take_for_ever_nothing_lies_on_deck(desk: Desk) -> None:
    """A function that is not known, or takes long."""
    desk.learn("m:endless", round(dispatch.DECK_US) + 1)
    desk.submit(1, "m:unknown")
    desk.submit(1, "m:endless")
    (number,) = desk.submit(1, "m:endless")
    for _ in range(3):
        desk.act()
        desk.commit()
    assert not desk.holder(number)


# -- taking back --


def test_jobs_behind_a_long_one_are_taken_back_and_go_to_an_idle_worker(desk: Desk) -> None:
    """No job waits behind a running one while another worker idles."""
    desk.learn("m:short", SHORT)
    one, two, three, four = desk.submit(4, "m:short")
    desk.act()
    first, second = desk.spawned
    assert (desk.holder(three), desk.holder(four)) == (first, second)
    desk.end(two, four)
    desk.act(dispatch.STALL_US)
    assert desk.told_to(first, GiveBack) == [GiveBack(2)]
    desk.scheduler.workforce.given_back(first, [(three, 1)])
    desk.act()
    assert desk.holder(three) == second
    assert desk.holder(one) == first


def test_a_job_that_was_given_back_has_not_used_up_an_attempt(desk: Desk) -> None:
    """It never ran."""
    desk.learn("m:short", SHORT)
    numbers = desk.submit(4, "m:short")
    desk.act()
    uid = desk.spawned[0]
    desk.scheduler.workforce.given_back(uid, [(numbers[2], 1)])
    assert desk.job(numbers[2]).attempt == 0
    desk.act()
    assert desk.job(numbers[2]).attempt == 1


def test_what_a_busy_worker_has_not_read_is_taken_back_too(desk: Desk) -> None:
    """Its main thread is in a job, and its orders to run lie unread in the socket."""
    desk.learn("m:short", SHORT)
    one, _ = desk.submit(2, "m:short")
    desk.act()
    uid = desk.holder(one)
    three, four = desk.submit(2, "m:short")
    desk.act()
    assert desk.holder(three) == uid or desk.holder(four) == uid
    (unread,) = [n for n in (three, four) if desk.holder(n) == uid]
    desk.scheduler.workforce.given_back(uid, [], read=2, upto=3)
    assert desk.job(unread).state is State.QUEUED
    assert desk.holder(one) == uid


def test_an_order_that_waits_for_a_commit_is_not_asked_back(desk: Desk) -> None:
    """What the worker was not sent it cannot give back: a slow disk must not make jobs bounce."""
    desk.learn("m:short", SHORT)
    desk.submit(1, "m:long")
    desk.submit(1, "m:long")
    desk.submit(4, "m:short")
    desk.act()
    desk.commit()
    desk.end(*[n for n in list(desk.scheduler.window.jobs) if desk.holder(n)], took_us=LONG)
    uids = [uid for uid, worker in desk.scheduler.workers.items() if worker.unsent > 1]
    assert uids
    desk.act(dispatch.STALL_US * 3)
    assert [desk.told_to(uid, GiveBack) for uid in uids] == [[] for _ in uids]
    desk.commit()
    desk.act(dispatch.STALL_US - 1)
    assert [desk.told_to(uid, GiveBack) for uid in uids] == [[] for _ in uids]
    desk.act(1)
    assert all(desk.told_to(uid, GiveBack) for uid in uids)


def test_an_order_that_leaves_too_late_goes_to_another_worker(desk: Desk) -> None:
    """By the time that it is on record, its worker is found to be at a long job."""
    desk.learn("m:short", SHORT)
    ran = desk.submit(4, "m:short")
    desk.act()
    first, second = desk.spawned
    late = desk.submit(8, "m:short")
    desk.write()
    desk.act()
    held = [number for number in late if desk.holder(number) == first]
    assert desk.scheduler.workers[first].unsent == len(held) == 4
    desk.store.commit()
    desk.scheduler.committed()
    desk.end(*[number for number in ran if desk.holder(number) == second])
    desk.act(dispatch.STALL_US)
    assert len(desk.told_to(first, GiveBack)) == 1
    desk.commit()
    desk.commit()
    assert not set(held) & set(desk.runs(first))
    assert set(held) < set(desk.runs(second))
    assert {desk.holder(number) for number in held} == {second}
    assert {desk.job(number).attempt for number in held} == {1}


def test_a_stalled_worker_gets_nothing_ahead_until_it_makes_progress() -> None:
    """What was taken back would only come back again."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", SHORT)
    one, two = desk.submit(2, "m:short")
    desk.act()
    uid = desk.holder(one)
    desk.act(dispatch.STALL_US)
    desk.scheduler.workforce.given_back(uid, [(two, 1)])
    desk.act()
    assert not desk.holder(two)
    three = desk.submit(1, "m:short")[0]
    desk.end(one, took_us=SHORT)
    assert desk.holder(two) == desk.holder(three) == uid


def test_a_worker_whose_job_takes_longer_than_expected_gets_nothing_behind_it(desk: Desk) -> None:
    """It has not been asked for anything back, having nothing, but it is stalled all the same."""
    desk.learn("m:short", SHORT)
    one, two = desk.submit(2, "m:short")
    desk.act()
    desk.commit()
    desk.act(dispatch.STALL_US)
    desk.end(two)
    numbers = desk.submit(6, "m:short")
    desk.act()
    assert {desk.holder(number) for number in numbers} == {desk.spawned[1]}
    assert desk.holder(one) == desk.spawned[0]


def test_a_worker_that_does_not_answer_is_asked_again(desk: Desk) -> None:
    """C code may keep its control thread from running."""
    desk.learn("m:short", SHORT)
    desk.submit(6, "m:short")
    desk.act()
    desk.act(dispatch.STALL_US)
    assert len(desk.told_to(desk.spawned[0], GiveBack)) == 1
    desk.act(dispatch.STALLED_US - 1)
    assert len(desk.told_to(desk.spawned[0], GiveBack)) == 1
    desk.act(1)
    assert len(desk.told_to(desk.spawned[0], GiveBack)) == 2


# -- deaths --


def test_a_death_blames_only_the_job_that_ran(desk: Desk) -> None:
    """The others that the worker had are put back as if nothing had been."""
    desk.learn("m:short", SHORT)
    numbers = desk.submit(6, "m:short")
    desk.act()
    uid = desk.spawned[0]
    held = [number for number in numbers if desk.holder(number) == uid]
    desk.die(uid, held[0])
    assert [desk.job(number).crashes for number in held] == [1, 0, 0]
    assert desk.scheduler.ledger.batch.jobs.keys() >= set(held)


def test_a_death_between_two_jobs_blames_nobody(desk: Desk) -> None:
    """Nothing ran."""
    numbers = desk.submit(2)
    desk.act()
    desk.die(desk.spawned[0])
    assert [desk.job(number).crashes for number in numbers] == [0, 0]


def test_when_the_machine_goes_down_every_job_on_record_may_be_to_blame() -> None:
    """A job that takes the whole machine with it must run out of its budget some time."""
    desk = Desk()
    desk.submit(2)
    desk.hire()
    desk.commit()
    after = Scheduler("next", desk.options, next_id=3, counts=desk.store.counts())
    for lease in desk.store.leases():
        if lease.worker not in after.workers:
            after.workforce.add_orphan(lease.worker, 1)
        for number, attempt in lease.attempts:
            after.workforce.resume(lease.worker, desk.row(number), attempt, lease)
    for uid in list(after.workers):
        after.workforce.worker_died(uid, Death("power", unknown=True))
    assert [job.crashes for job in after.window.jobs.values()] == [1, 1]


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_a_job_crashes_for_good_when_its_budget_is_spent(budget: int) -> None:
    """It runs again as often as it may, then it has an end that names the cause."""
    desk = Desk(workers=1, max_crashes=budget)
    desk.hire()
    (number,) = desk.submit()
    desk.act()
    desk.commit()
    for crashes in range(budget + 1):
        assert desk.row(number).state is State.QUEUED
        assert desk.job(number).attempt == crashes + 1
        desk.die(desk.holder(number), number)
        desk.commit()
        desk.hire()
        if desk.scheduler.ledger.batch:
            desk.commit()
    row = desk.row(number)
    assert (row.state, row.crashes, row.cause) == (State.CRASHED, budget + 1, "SIGSEGV")
    assert row.error is not None
    assert "SIGSEGV" in row.error.message
    earlier = [(a.number, a.state) for a in desk.store.attempts(number)]
    assert earlier == [(n + 1, State.CRASHED) for n in range(budget)]


@pytest.mark.parametrize(
    ("cause", "mem", "means", "told"),
    [
        ("SIGABRT", "300M", "rlimit", "SIGABRT, it had a memory limit of 300M"),
        ("exit code 1", "1G", "rlimit", "exit code 1, it had a memory limit of 1G"),
        ("SIGABRT", "300M", "cgroup", "SIGABRT"),
        ("SIGABRT", "0", "rlimit", "SIGABRT"),
        ("SIGKILL, out of memory", "300M", "rlimit", "SIGKILL, out of memory"),
        ("SIGKILL", "300M", "rlimit", "SIGKILL"),
    ],
)
def test_a_death_under_a_limit_of_memory_that_nobody_counts_says_so(
    cause: str, mem: str, means: str, told: str
) -> None:
    """A cgroup's is told by the kernel, which kills; an rlimit's makes libraries die in their own ways."""
    desk = Desk(workers=1)
    (number,) = desk.submit(policy=Policy(mem=parse_size(mem)))
    job = desk.job(number)
    assert death_of(job, Death(cause, by_rlimit=means == "rlimit")) == told


def test_a_worker_that_died_in_a_job_is_replaced_at_once(desk: Desk) -> None:
    """A crash is the job's fault, not the worker's."""
    (number,) = desk.submit()
    desk.act()
    desk.die(desk.holder(number), number)
    assert len(desk.spawned) == 3


def test_workers_that_die_without_having_worked_are_replaced_ever_more_slowly() -> None:
    """A broken interpreter must not be started a hundred times a second."""
    desk = Desk(workers=1)
    waits = []
    for _ in range(12):
        desk.die(desk.spawned[-1])
        wake_at = desk.scheduler.wake_at()
        assert wake_at is not None
        waits.append(wake_at - desk.now_us)
        desk.act(waits[-1] - 1)
        before = len(desk.spawned)
        desk.act(1)
        assert len(desk.spawned) == before + 1
    doubled = [min(staff.FIRST_BACKOFF_US << n, staff.LAST_BACKOFF_US) for n in range(12)]
    assert waits == doubled


def test_workers_that_die_together_count_as_one_failure() -> None:
    """All at once killed, they are all back after the first, short wait."""
    desk = Desk(workers=8)
    desk.hire()
    for uid in list(desk.spawned):
        desk.die(uid)
    assert desk.scheduler.workforce.failed_starts == 1
    desk.act(staff.FIRST_BACKOFF_US)
    assert len(desk.spawned) == 16


def test_a_worker_that_reports_ends_the_row_of_failures() -> None:
    """The next failure waits for the shortest time again."""
    desk = Desk(workers=1)
    desk.die(desk.spawned[-1])
    desk.act(staff.FIRST_BACKOFF_US)
    desk.hire()
    assert desk.scheduler.workforce.failed_starts == 0


def test_a_worker_whose_job_was_stopped_is_replaced_without_a_wait(desk: Desk) -> None:
    """To cancel all jobs must not look like a row of failures."""
    numbers = desk.submit(2)
    desk.act()
    desk.commit()
    holders = [desk.holder(number) for number in numbers]
    for number in numbers:
        desk.scheduler.control.cancel(desk.job(number), "")
        desk.end(number, verdict=Verdict.STOPPED)
    desk.act()
    assert len(desk.spawned) == 4, "there is nothing that they still have to do but to end"
    for uid in holders:
        desk.die(uid)
    assert desk.scheduler.workforce.failed_starts == 0
    assert len(desk.spawned) == 4


# -- cancel --


def test_a_queued_job_is_cancelled_on_the_spot(desk: Desk) -> None:
    """It never runs."""
    *_, number = desk.submit(3)
    desk.act()
    assert desk.scheduler.control.cancel(desk.job(number), "a whim") == "cancelled"
    desk.commit()
    row = desk.row(number)
    assert (row.state, row.cause, row.attempt) == (State.CANCELLED, "a whim", 0)
    desk.end(1, 2)
    assert not desk.holder(number)


def test_a_running_job_is_told_to_stop_and_then_killed(desk: Desk) -> None:
    """TERM first, KILL when its grace is over, and again until it is seen dead."""
    (number,) = desk.submit()
    desk.act()
    uid = desk.holder(number)
    assert desk.scheduler.control.cancel(desk.job(number), "") == "stopping"
    desk.act()
    assert desk.told_to(uid, StopJob) == [StopJob(number, 1)]
    desk.act(desk.options.kill_grace_us - 1)
    assert desk.killed == []
    desk.act(1)
    desk.act(desk.options.kill_grace_us)
    assert desk.killed == [(uid, number, 1)] * 2
    desk.die(uid, number)
    desk.commit()
    assert desk.row(number).state is State.CANCELLED


def test_a_cancel_of_what_waits_leaves_alone_what_runs(desk: Desk) -> None:
    """The answer says so; the job is neither stopped nor does it keep the reason."""
    running, *_, waiting = desk.submit(3)
    desk.act()
    uid = desk.holder(running)
    assert desk.scheduler.control.cancel(desk.job(running), "no", only_waiting=True) == "is running"
    assert desk.scheduler.control.cancel(desk.job(waiting), "no", only_waiting=True) == "cancelled"
    desk.act()
    assert desk.told_to(uid, StopJob) == []
    desk.end(running)
    desk.commit()
    assert (desk.row(running).state, desk.row(running).cause) == (State.SUCCEEDED, "")
    assert desk.row(waiting).state is State.CANCELLED


def test_a_second_cancel_does_not_prolong_the_first(desk: Desk) -> None:
    """The deadline stands, and the worker is told once."""
    (number,) = desk.submit()
    desk.act()
    desk.scheduler.control.cancel(desk.job(number), "")
    desk.act(desk.options.kill_grace_us - 1)
    desk.scheduler.control.cancel(desk.job(number), "")
    desk.act(1)
    assert len(desk.killed) == 1
    assert len(desk.told_to(desk.holder(number), StopJob)) == 1


@pytest.mark.parametrize("grace_us", [0, 300_000])
def test_a_cancel_can_say_its_grace(desk: Desk, grace_us: int) -> None:
    """It outranks that of the settings; with none the worker is killed in the same turn."""
    (number,) = desk.submit()
    desk.act()
    uid = desk.holder(number)
    assert desk.scheduler.control.cancel(desk.job(number), "", grace_us=grace_us) == "stopping"
    if grace_us:
        desk.act(grace_us - 1)
        assert desk.killed == []
        desk.act(1)
    else:
        desk.act()
    assert desk.killed == [(uid, number, 1)]
    desk.act(stops.KILL_AGAIN_US)
    assert desk.killed == [(uid, number, 1)] * 2
    desk.die(uid, number)
    desk.commit()
    assert desk.row(number).state is State.CANCELLED


@pytest.mark.parametrize("first", [None, 600_000_000])
def test_a_later_cancel_can_only_hasten(desk: Desk, first: int | None) -> None:
    """The shorter grace wins, whichever came first, and the reason of the first is kept."""
    (number,) = desk.submit()
    desk.act()
    desk.scheduler.control.cancel(desk.job(number), "why", grace_us=first)
    desk.scheduler.control.cancel(desk.job(number), "", grace_us=100)
    desk.scheduler.control.cancel(desk.job(number), "", grace_us=600_000_000)
    desk.act(99)
    assert desk.killed == []
    desk.act(1)
    assert len(desk.killed) == 1
    assert desk.job(number).cause == "why"
    assert desk.job(number).grace_us == 100


def test_the_grace_of_a_cancel_is_stored_and_ends_with_the_round(desk: Desk) -> None:
    """The next daemon goes by it; another round has nothing of it."""
    (number,) = desk.submit()
    desk.act()
    desk.commit()
    desk.scheduler.control.cancel(desk.job(number), "", grace_us=7)
    desk.commit()
    assert desk.row(number).grace_us == 7
    desk.end(number, verdict=Verdict.STOPPED)
    desk.commit()
    desk.scheduler.control.retry(desk.scheduler.window.load(desk.row(number)))
    assert desk.job(number).grace_us is None


def test_a_job_that_was_handed_ahead_is_cancelled_without_a_kill(desk: Desk) -> None:
    """The worker gives it back; whatever it runs meanwhile goes on."""
    desk.learn("m:short", SHORT)
    first, second = desk.submit(2, "m:short")[:2]
    third = desk.submit(1, "m:short")[0]
    desk.act()
    uid = desk.holder(third)
    assert desk.scheduler.control.cancel(desk.job(third), "", grace_us=0) == "stopping"
    desk.act()
    assert desk.told_to(uid, StopJob) == [StopJob(third, 1)]
    desk.scheduler.workforce.given_back(uid, [(third, 1)])
    desk.end(first, second)
    desk.commit()
    desk.act(stops.KILL_AGAIN_US)
    states = [desk.row(number).state for number in (first, second, third)]
    assert states == [State.SUCCEEDED, State.SUCCEEDED, State.CANCELLED]


def test_a_cancel_that_came_too_late_changes_nothing(desk: Desk) -> None:
    """The job had returned before it was told: what it returned is its end."""
    (number,) = desk.submit()
    desk.act()
    desk.scheduler.control.cancel(desk.job(number), "why")
    desk.end(number)
    desk.commit()
    assert (desk.row(number).state, desk.row(number).cause) == (State.SUCCEEDED, "")


def test_a_job_that_raises_while_it_is_stopped_is_cancelled(desk: Desk) -> None:
    """The signal made it raise."""
    (number,) = desk.submit()
    desk.act()
    desk.scheduler.control.cancel(desk.job(number), "why")
    desk.end(number, verdict=Verdict.RAISED)
    desk.commit()
    assert (desk.row(number).state, desk.row(number).cause) == (State.CANCELLED, "why")


@pytest.mark.parametrize("how", ["death", "given back", "unread"])
def test_a_cancel_is_not_lost_with_the_hands_that_had_the_job(desk: Desk, how: str) -> None:
    """Whatever way the job comes back, it is cancelled and not queued again."""
    desk.learn("m:short", SHORT)
    numbers = desk.submit(4, "m:short")
    desk.act()
    uid, number = desk.spawned[0], numbers[2]
    desk.scheduler.control.cancel(desk.job(number), "")
    if how == "death":
        desk.die(uid, numbers[0])
    elif how == "given back":
        desk.scheduler.workforce.given_back(uid, [(number, 1)])
    else:
        desk.scheduler.workforce.given_back(uid, [], read=0, upto=99)
    desk.commit()
    assert desk.row(number).state is State.CANCELLED


def test_a_cancel_of_a_running_job_is_stored_before_it_is_answered(desk: Desk) -> None:
    """A crash of the daemon does not lose it."""
    (number,) = desk.submit()
    desk.act()
    desk.commit()
    desk.scheduler.control.cancel(desk.job(number), "why")
    desk.scheduler.answer(PEER, Accepted(9))
    desk.write()
    desk.act()
    assert Accepted(9) not in desk.told
    desk.store.commit()
    desk.scheduler.committed()
    desk.act()
    assert desk.told[-1] == Accepted(9)
    assert (desk.row(number).stop, desk.row(number).cause) == (Event.CANCEL, "why")


def test_an_ended_job_cannot_be_cancelled(desk: Desk) -> None:
    """Not even while its end is not stored yet."""
    (number,) = desk.submit()
    desk.act()
    desk.end(number)
    assert desk.scheduler.control.cancel(desk.job(number), "") == "already finished"


# -- retry --


@pytest.mark.parametrize("verdict", [Verdict.RAISED, Verdict.STOPPED])
def test_a_retry_opens_a_new_round_and_keeps_the_end_of_the_last(verdict: int) -> None:
    """The number of the attempt rises, the crash budget is whole again, the old end is on record."""
    desk = Desk(workers=1, max_crashes=0)
    desk.hire()
    (number,) = desk.submit()
    desk.act()
    desk.commit()
    desk.end(number, verdict=verdict)
    desk.commit()
    ended = desk.row(number)
    assert desk.scheduler.control.retry(desk.scheduler.window.load(ended)) == "queued again"
    desk.act()
    desk.commit()
    again = desk.row(number)
    assert (again.state, again.crashes, again.error, again.cause) == (State.QUEUED, 0, None, "")
    assert desk.job(number).attempt == 2
    (kept,) = desk.store.attempts(number)
    assert (kept.number, kept.state) == (1, State.FAILED if verdict == Verdict.RAISED else 12)


def test_a_success_is_not_retried(desk: Desk) -> None:
    """Its end never changes."""
    (number,) = desk.submit()
    desk.act()
    desk.end(number)
    desk.commit()
    assert desk.scheduler.control.retry(desk.row(number)) == "already succeeded"


def test_a_job_is_not_retried_before_its_end_is_durable(desk: Desk) -> None:
    """Else the end of this round would never be on record."""
    (number,) = desk.submit()
    desk.act()
    assert desk.scheduler.control.retry(desk.job(number)) == "has not ended"
    desk.end(number, verdict=Verdict.RAISED)
    assert desk.scheduler.control.retry(desk.job(number)) == "has not ended"
    desk.write()
    assert desk.scheduler.control.retry(desk.job(number)) == "has not ended"


def test_a_cancel_before_the_start_does_not_overwrite_an_earlier_attempt() -> None:
    """The job crashed once and was cancelled while it waited: the crash stays on record."""
    desk = Desk(workers=1)
    desk.hire()
    (number,) = desk.submit()
    desk.act()
    desk.commit()
    desk.die(desk.holder(number), number)
    desk.scheduler.control.cancel(desk.job(number), "")
    desk.commit()
    desk.scheduler.control.retry(desk.scheduler.window.load(desk.row(number)))
    desk.commit()
    assert [(a.number, a.state) for a in desk.store.attempts(number)] == [(1, State.CRASHED)]


# -- the queue is full, the daemon ends --


def test_a_full_queue_refuses_and_has_room_again(desk: Desk) -> None:
    """The limit counts what is queued and what runs."""
    desk = Desk(workers=1, max_queued=3)
    desk.hire()
    first, *_ = desk.submit(3)
    desk.act()
    desk.commit()
    with pytest.raises(QueueFull, match="3 jobs"):
        desk.submit()
    desk.end(first)
    desk.commit()
    desk.submit()


def test_what_is_not_stored_yet_counts_against_the_limit_too() -> None:
    """A hundred submits in one turn are not a way around it."""
    desk = Desk(max_queued=3)
    desk.submit(2)
    with pytest.raises(QueueFull):
        desk.submit(2)
    desk.submit(1)
    desk.write()
    with pytest.raises(QueueFull):
        desk.submit(1)


def test_a_submit_over_the_limit_is_refused_whole() -> None:
    """None of its jobs is queued, and no id is used."""
    desk = Desk(max_queued=3)
    with pytest.raises(QueueFull):
        desk.submit(4)
    assert not desk.scheduler.window.jobs
    assert desk.submit(3) == [1, 2, 3]


def test_a_draining_daemon_refuses_submits_and_starts_nothing(desk: Desk) -> None:
    """What runs goes on, what waits stays for the next daemon."""
    one, two, three = desk.submit(3)
    desk.act()
    desk.commit()
    desk.scheduler.drain()
    with pytest.raises(Stopping):
        desk.submit()
    desk.end(one, two)
    assert not desk.holder(three)
    for uid in desk.spawned[:2]:
        assert desk.told_to(uid, Retire)
        desk.die(uid)
    assert not desk.scheduler.is_at_rest()
    desk.commit()
    assert desk.scheduler.is_at_rest()
    assert len(desk.spawned) == 2
    assert desk.scheduler.wake_at() is None


def test_a_job_that_the_end_of_the_daemon_stops_is_put_back_without_blame(desk: Desk) -> None:
    """It runs again at the next start."""
    numbers = desk.submit(2)
    desk.act()
    desk.scheduler.drain()
    desk.scheduler.workforce.stop_running()
    desk.act()
    for number in numbers:
        assert desk.told_to(desk.holder(number), StopJob) == [StopJob(number, 1)]
    desk.end(numbers[0], verdict=Verdict.STOPPED)
    desk.die(desk.holder(numbers[1]), numbers[1])
    desk.commit()
    assert [desk.row(n).state for n in numbers] == [State.QUEUED] * 2
    assert [desk.row(n).crashes for n in numbers] == [0, 0]


def test_a_cancel_outranks_the_end_of_the_daemon(desk: Desk) -> None:
    """A job that is being cancelled when everything is stopped is cancelled."""
    (number,) = desk.submit()
    desk.act()
    desk.scheduler.control.cancel(desk.job(number), "")
    desk.scheduler.workforce.stop_running()
    desk.scheduler.workforce.kill_all()
    desk.act()
    desk.die(desk.holder(number), number)
    desk.commit()
    assert desk.row(number).state is State.CANCELLED


def test_to_stop_at_once_kills_every_worker(desk: Desk) -> None:
    """Whatever they run."""
    (number,) = desk.submit()
    desk.act()
    desk.scheduler.drain()
    desk.scheduler.workforce.kill_all()
    desk.act()
    assert desk.killed == [(uid, 0, 0) for uid in desk.spawned]
    desk.die(desk.spawned[0], number)
    desk.commit()
    assert (desk.row(number).state, desk.row(number).crashes) == (State.QUEUED, 0)


def test_a_reload_replaces_each_worker_when_its_job_is_done(desk: Desk) -> None:
    """Busy ones finish first."""
    (number,) = desk.submit()
    desk.act()
    busy, idle = desk.spawned[:2]
    desk.scheduler.workforce.retire_all()
    desk.act()
    assert desk.told_to(busy, Retire)
    assert desk.told_to(idle, Retire)
    desk.die(idle)
    assert len(desk.spawned) == 3
    desk.end(number)
    assert desk.job(number).state is State.SUCCEEDED


def test_a_worker_that_is_to_be_replaced_before_it_has_reported_is_told_when_it_does() -> None:
    """A reload may come while workers start."""
    desk = Desk(workers=1)
    desk.scheduler.workforce.retire_all()
    desk.act()
    desk.orders.clear()
    desk.hire()
    assert desk.told_to(desk.spawned[0], Retire)
    assert desk.scheduler.workers[desk.spawned[0]].phase is Phase.RETIRING


# -- a full disk --


def test_a_full_disk_refuses_the_submit_and_keeps_every_other_write(desk: Desk) -> None:
    """An end that was being stored is stored later; the submit has failed whole."""
    (old,) = desk.submit()
    desk.act()
    desk.commit()
    desk.end(old)
    refused = desk.submit(3)
    desk.fail()
    assert [getattr(reply, "error", "") for reply in desk.told][-1:] == ["disk_full"]
    assert not any(number in desk.scheduler.window.jobs for number in refused)
    desk.commit()
    assert desk.row(old).state is State.SUCCEEDED
    assert all(desk.store.job(number) is None for number in refused)
    assert desk.store.tally == desk.store.recount() == desk.scheduler.ledger.counts


def test_an_answer_that_could_not_be_stored_is_told_after_the_next_try(desk: Desk) -> None:
    """Who asked waits, and hears the truth."""
    (number,) = desk.submit()
    desk.act()
    desk.commit()
    desk.scheduler.control.cancel(desk.job(number), "")
    desk.scheduler.answer(PEER, Accepted(9))
    desk.fail()
    assert Accepted(9) not in desk.told
    desk.commit()
    assert desk.told[-1] == Accepted(9)


def test_of_an_order_only_what_was_refused_is_taken_out(desk: Desk) -> None:
    """The jobs of one order may be of a submit that is stored and of one that has failed."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", SHORT)
    (busy,) = desk.submit(1, "m:long")
    (stored,) = desk.submit(1, "m:short")
    desk.act()
    desk.commit()
    (refused,) = desk.submit(1, "m:short")
    desk.end(busy, took_us=LONG)
    uid = desk.spawned[0]
    assert desk.holder(stored) == desk.holder(refused) == uid
    assert stored not in desk.runs(uid)
    desk.fail()
    assert desk.holder(stored) == uid
    assert not desk.holder(refused)
    desk.commit()
    assert stored in desk.runs(uid)
    assert refused not in desk.runs(uid)
    assert desk.scheduler.workers[uid].unsent == 0
    desk.end(stored)
    desk.commit()
    assert desk.store.leased == {}


def test_after_a_full_disk_the_next_try_comes_a_second_later(desk: Desk) -> None:
    """Not at once: the loop would spin."""
    (number,) = desk.submit()
    desk.act()
    desk.commit()
    desk.end(number)
    desk.fail()
    assert not desk.scheduler.commits.is_due()
    assert desk.scheduler.wake_at() == desk.now_us + commits.RETRY_STORE_US
    desk.act(commits.RETRY_STORE_US)
    assert desk.scheduler.commits.is_due()


def test_with_nothing_to_store_a_full_disk_wakes_nobody() -> None:
    """The submit was refused, and that was all."""
    desk = Desk(workers=0)
    desk.submit()
    desk.fail()
    assert desk.scheduler.wake_at() is None


def test_on_a_full_disk_a_submit_is_tried_at_once(desk: Desk) -> None:
    """So that its sender hears within the turn how it stands."""
    desk.submit()
    desk.fail()
    desk.submit()
    desk.act()
    assert desk.scheduler.commits.is_due()


def test_while_the_disk_is_full_nothing_starts_before_its_record_is_stored(desk: Desk) -> None:
    """A job whose submit is about to be refused must not run."""
    desk.submit(2)
    desk.fail()
    desk.end(*[])
    before = list(desk.orders)
    (number,) = desk.submit()
    desk.act()
    assert not any(isinstance(order, Run) for _, order in desk.orders[len(before) :])
    desk.fail()
    later = desk.submit()
    desk.act()
    desk.commit()
    assert [desk.runs(uid) for uid in desk.spawned if number in desk.runs(uid)] == []
    assert desk.store.job(number) is None
    assert desk.store.job(later[0]) is not None


def test_a_refused_job_that_already_runs_is_not_recorded(desk: Desk) -> None:
    """It was started before its submit was stored; what becomes of it is nobody's business."""
    (number,) = desk.submit(watch=True)
    desk.act()
    uid = desk.holder(number)
    desk.fail()
    outcome = Outcome(number, 1, Verdict.RETURNED, b"j1", None, 1, SHORT)
    desk.scheduler.workforce.outcomes(uid, 1, [outcome])
    desk.act()
    desk.commit()
    assert desk.store.job(number) is None
    assert not any(isinstance(reply, Ended) for reply in desk.told)
    assert desk.store.leased == {}


# -- the window --


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a desk with one worker and room for four waiting jobs."""
    monkeypatch.setattr(plain, "JOBS", 4)
    monkeypatch.setattr(plain, "LOW_WATER", 2)
    monkeypatch.setattr(batch, "PARCEL_JOBS", 10)
    monkeypatch.setattr(intake, "PARCEL_JOBS", 10)
    made = Desk(workers=1)
    made.hire()
    return made


def run_all(desk: Desk, look: Callable[[], None] = lambda: None) -> list[int]:
    """Let all jobs run one after the other; return them in the order in which they ran."""
    ran: list[int] = []
    scheduler = desk.scheduler
    while True:
        if scheduler.ledger.batch:
            desk.commit()
        if scheduler.wants_refill():
            desk.refill()
        look()
        now = desk.ordered()
        if not (now or scheduler.ledger.batch or scheduler.wants_refill()):
            return ran
        ran += now
        desk.end(*now, took_us=LONG)


def test_the_backlog_lives_in_the_store_and_runs_in_the_order_of_its_ids(small: Desk) -> None:
    """A thousand jobs wait, a handful are in memory, and each has its turn."""
    for _ in range(100):
        small.submit(10)
    small.act()
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(small.scheduler.window.jobs))

    assert run_all(small, look) == list(range(1, 1001))
    assert most <= 40
    assert small.store.tally[State.SUCCEEDED] == 1000
    assert small.scheduler.window.spilled == 0
    assert small.store.parcels == {}


def test_a_job_that_spills_is_not_overtaken_by_one_that_comes_later(small: Desk) -> None:
    """Once jobs wait in the store, new ones go there too, even if there is room in memory."""
    numbers = small.submit(2) + small.submit(4) + small.submit(3)
    small.act()
    small.commit()
    assert small.scheduler.window.spilled
    small.end(numbers[0], took_us=LONG)
    late = small.submit()
    assert late[0] not in small.scheduler.window.jobs
    assert run_all(small) == [numbers[1], *numbers[2:], *late]


def test_who_watches_a_spilled_job_is_told_of_its_end(small: Desk) -> None:
    """The watch is kept as a range until the job is loaded."""
    numbers = [number for _ in range(6) for number in small.submit(3, watch=True)]
    small.act()
    run_all(small)
    assert [reply.id for reply in small.told if isinstance(reply, Ended)] == numbers
    assert not small.scheduler.window.watchers._ranges


def test_all_who_watch_a_job_are_told(desk: Desk) -> None:
    """In memory or spilled."""
    (number,) = desk.submit()
    desk.act()
    for peer in (b"one", b"two", b"three"):
        desk.scheduler.window.watch(peer, number)
    desk.end(number)
    desk.write()
    desk.store.commit()
    desk.scheduler.committed()
    told = [p for p, reply in desk.scheduler.take_effects().replies if isinstance(reply, Ended)]
    assert told == [b"one", b"two", b"three"]


def test_nothing_is_left_of_a_backlog_that_was_cancelled_whole(small: Desk) -> None:
    """The parcels of cancelled jobs are looked through, and deleted."""
    numbers = [number for _ in range(5) for number in small.submit(3)]
    small.act()
    small.commit()
    for number in numbers[1:]:
        job = small.scheduler.window.jobs.get(number) or small.row(number)
        small.scheduler.control.cancel(small.scheduler.window.load(job), "")
    assert run_all(small) == [1]
    assert small.store.parcels == {}
    assert small.store.tally[State.CANCELLED] == len(numbers) - 1


def test_nothing_is_left_of_a_parcel_whose_jobs_all_ran_when_the_daemon_died() -> None:
    """The next daemon has no backlog to load, and looks all the same."""
    desk, after = orphaned()
    assert desk.store.parcels
    for number in list(after.window.jobs):
        desk.end(number)
    run_all(desk)
    assert desk.store.parcels == {}
    assert after.window.spilled == 0


def test_a_spilled_job_can_be_cancelled(small: Desk) -> None:
    """It is loaded for that, and who watches it is told."""
    numbers = small.submit(3) + small.submit(3) + small.submit(3, watch=True)
    small.act()
    small.commit()
    last = numbers[-1]
    assert last not in small.scheduler.window.jobs
    job = small.scheduler.window.load(small.row(last))
    assert small.scheduler.control.cancel(job, "") == "cancelled"
    small.commit()
    assert [reply.id for reply in small.told if isinstance(reply, Ended)] == [last]
    assert run_all(small) == numbers[:-1]


def test_a_retried_job_waits_in_the_store_when_memory_is_full(small: Desk) -> None:
    """To retry a million jobs does not load a million."""
    failed = small.submit(3)
    small.act()
    for number in failed:
        small.commit()
        small.end(number, verdict=Verdict.RAISED, took_us=LONG)
    small.commit()
    for _ in range(3):
        small.submit(4)
    small.act()
    small.commit()
    for number in failed:
        small.scheduler.control.retry(small.scheduler.window.load(small.row(number)))
    small.commit()
    assert not any(number in small.scheduler.window.jobs for number in failed)
    assert sorted(run_all(small)) == [*failed, *range(4, 16)]


def test_cancelled_jobs_do_not_fill_the_window_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of what was cancelled while it waited are room again."""
    monkeypatch.setattr(plain, "BYTES", 20)
    desk = Desk(workers=1)
    desk.hire()
    (running,) = desk.submit()
    desk.act()
    desk.commit()
    waiting = desk.submit(30)
    for number in waiting[:-1]:
        desk.scheduler.control.cancel(desk.job(number), "")
    desk.commit()
    desk.end(running, took_us=LONG)
    assert desk.holder(waiting[-1])
    assert not desk.scheduler.window.is_full


# -- watching --


def test_a_watcher_is_told_of_the_end_once_it_is_durable(desk: Desk) -> None:
    """Not a moment earlier."""
    (number,) = desk.submit(watch=True)
    desk.act()
    desk.end(number)
    assert desk.told == []
    desk.commit()
    assert [type(reply) for reply in desk.told] == [Submitted, Ended]


def test_a_peer_that_is_gone_is_told_nothing(desk: Desk) -> None:
    """And nothing of it is kept."""
    (number,) = desk.submit(watch=True)
    desk.act()
    desk.scheduler.window.forget_peer(PEER)
    desk.end(number)
    desk.commit()
    assert not any(isinstance(reply, Ended) for reply in desk.told)


def test_who_watches_twice_is_told_once(desk: Desk) -> None:
    """A repeated request changes nothing."""
    (number,) = desk.submit(watch=True)
    desk.act()
    desk.scheduler.window.watch(PEER, number)
    desk.scheduler.window.watch(PEER, number)
    desk.end(number)
    desk.commit()
    assert sum(isinstance(reply, Ended) for reply in desk.told) == 1


# -- workers of a dead daemon --


def orphaned(*, stop: Event | None = None) -> tuple[Desk, Scheduler]:
    """Return a desk whose daemon died with two jobs in a worker's hands, and the next daemon."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", SHORT)
    numbers = desk.submit(2, "m:short")
    desk.act()
    desk.commit()
    after = Scheduler(
        "next", desk.options, next_id=desk.store.next, counts=desk.store.counts(), next_lease=99
    )
    after.begin(desk.now_us, 10**15)
    after.workforce.add_orphan(desk.spawned[0], 100)
    for lease in desk.store.leases():
        for number, attempt in lease.attempts:
            job = desk.row(number)
            job.stop = stop if number == numbers[1] else None
            after.workforce.resume(desk.spawned[0], job, attempt, lease)
    desk.scheduler = after
    desk.act()
    return desk, after


def test_an_orphan_keeps_the_job_that_it_runs_and_gives_up_the_others() -> None:
    """What it has not started is queued again."""
    desk, after = orphaned()
    uid = desk.spawned[0]
    running, waiting = sorted(after.workers[uid].assigned)
    after.workforce.handed_over(uid, 100, (running, 1))
    desk.act()
    assert desk.holder(running) == uid
    assert desk.job(waiting).state is State.QUEUED
    assert after.workers[uid].phase is Phase.RETIRING
    assert desk.told_to(uid, Retire)
    desk.end(running)
    desk.commit()
    assert desk.row(running).state is State.SUCCEEDED


def test_an_orphan_gets_no_new_jobs() -> None:
    """It runs what may be old code, and ends when it is done."""
    desk, _ = orphaned()
    (number,) = desk.submit()
    desk.act()
    assert not desk.holder(number)


def test_a_cancel_outlives_the_daemon_that_promised_it() -> None:
    """The next one finds it on record, and the job never runs again."""
    desk, after = orphaned(stop=Event.CANCEL)
    uid = desk.spawned[0]
    running, cancelled = sorted(after.workers[uid].assigned)
    assert desk.told_to(uid, StopJob) == [StopJob(cancelled, 1)]
    after.workforce.handed_over(uid, 100, (running, 1))
    desk.act()
    desk.commit()
    assert desk.row(cancelled).state is State.CANCELLED


def test_a_job_that_a_dead_daemon_had_stopped_is_not_blamed() -> None:
    """Its order was never on record, but whoever gave it, it was no crash: the job runs again."""
    desk, after = orphaned()
    uid = desk.spawned[0]
    running = min(after.workers[uid].assigned)
    after.workforce.handed_over(uid, 100, (running, 1))
    desk.end(running, verdict=Verdict.STOPPED)
    desk.commit()
    assert (desk.row(running).state, desk.row(running).crashes) == (State.QUEUED, 0)
    assert (desk.job(running).state, desk.holder(running)) == (State.QUEUED, "")


# -- jobs that wait for others --


def lending(*, jobs: int = 2, max_lent: int = 64) -> tuple[Desk, list[int]]:
    """Return a desk with one worker, whose job waits; the second worker has been hired."""
    desk = Desk(workers=1, max_lent=max_lent)
    desk.hire()
    numbers = desk.submit(jobs)
    desk.act()
    desk.commit()
    desk.wait(numbers[0])
    desk.hire()
    return desk, numbers


def test_a_job_that_waits_lends_its_slot() -> None:
    """Another worker is started, and the next job runs there."""
    desk, (parent, child) = lending()
    first, second = desk.spawned
    assert desk.told_to(first, Lent) == [Lent(parent)]
    assert (desk.holder(parent), desk.holder(child)) == (first, second)


def test_jobs_wait_for_each_other_to_any_depth_with_one_worker() -> None:
    """Each that waits makes room for the next one."""
    desk = Desk(workers=1)
    chain = desk.submit(50)
    for number in chain:
        desk.hire()
        desk.wait(number)
    assert len(desk.spawned) == 51
    assert all(desk.holder(number) for number in chain)


def test_a_job_that_goes_on_does_so_at_once_and_nothing_more_starts_until_there_is_room() -> None:
    """More may run than there are slots; then the slots are made good as jobs end."""
    desk, (parent, child, other) = lending(jobs=3)
    desk.go_on(parent)
    assert desk.holder(parent)
    assert desk.holder(child)
    desk.end(child, took_us=LONG)
    assert not desk.holder(other), "the parent has the only slot"
    desk.end(parent, took_us=LONG)
    assert desk.holder(other)


def test_what_was_handed_ahead_of_a_job_that_waits_is_asked_back_at_once() -> None:
    """Nobody knows how long it waits; perhaps for the very jobs behind it."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", SHORT)
    numbers = desk.submit(3, "m:short")
    desk.act()
    desk.commit()
    uid = desk.spawned[0]
    assert [desk.holder(number) for number in numbers] == [uid] * 3
    desk.wait(numbers[0])
    assert len(desk.told_to(uid, GiveBack)) == 1
    desk.scheduler.workforce.given_back(uid, [(number, 1) for number in numbers[1:]])
    desk.hire()
    assert {desk.holder(number) for number in numbers[1:]} == {desk.spawned[1]}


def test_a_worker_whose_job_waits_is_handed_nothing_ahead() -> None:
    """Whatever it would be given would wait too."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", SHORT)
    (parent,) = desk.submit(1, "m:short")
    desk.act()
    desk.wait(parent)
    more = desk.submit(2, "m:short")
    desk.act()
    assert [desk.holder(number) for number in more] == ["", ""]


def test_beyond_the_cap_a_wait_is_refused_with_the_name_of_the_setting() -> None:
    """And once another has gone on, there is room again."""
    desk, (parent, child) = lending(max_lent=1)
    desk.wait(child)
    uid = desk.holder(child)
    (refused,) = desk.told_to(uid, Lent)
    assert isinstance(refused, Lent)
    assert (refused.error, "pool.max_lent" in refused.hint) == ("too_many_waiting", True)
    assert len(desk.spawned) == 2
    desk.go_on(parent)
    desk.wait(child)
    assert desk.told_to(uid, Lent)[1:] == [Lent(child)]


def test_workers_beyond_the_slots_stay_for_a_while_and_retire() -> None:
    """A job that has waited often waits again, so not at once; and those that work stay."""
    desk, (parent, child) = lending()
    first, second = desk.spawned
    desk.end(child, took_us=LONG)
    desk.go_on(parent)
    assert not desk.told_to(second, Retire)
    assert desk.scheduler.wake_at() == desk.now_us + staff.LINGER_US
    desk.act(after_us=staff.LINGER_US)
    assert [len(desk.told_to(uid, Retire)) for uid in (first, second)] == [0, 1]
    desk.act(after_us=staff.LINGER_US)
    assert not desk.told_to(first, Retire), "the other one is on its way out already"


def test_a_spare_worker_serves_the_next_wait() -> None:
    """A job that waits time and again costs one worker, not one for each wait."""
    desk, (parent, *rest) = lending(jobs=4)
    for child in rest:
        desk.end(child, took_us=LONG)
        desk.go_on(parent)
        desk.act(after_us=staff.LINGER_US // 2)
        desk.wait(parent)
    assert len(desk.spawned) == 2


def test_the_end_of_a_job_that_waits_ends_its_loan() -> None:
    """Whether it is stopped, or its worker dies, or it just returns: one slot, one worker."""
    desk, (parent, child) = lending()
    first, second = desk.spawned
    desk.die(first, running=parent)
    desk.end(child, took_us=LONG)
    assert desk.holder(parent) == second
    assert len(desk.spawned) == 2


def test_a_late_word_on_a_wait_is_of_no_effect() -> None:
    """The two sockets of a worker have no common order: its job may have ended.

    Should it still run there, as one does that a daemon never promised to anybody, it has no
    slot to lend, and must not wait.
    """
    desk, (parent, child) = lending()
    first, _ = desk.spawned
    desk.end(parent, took_us=LONG)
    desk.scheduler.loans.waits(first, parent, 1, [child])
    desk.scheduler.loans.waits("nobody", parent, 1, [child])
    desk.scheduler.loans.goes_on(first, parent, 1)
    desk.act()
    lents = [lent for lent in desk.told_to(first, Lent)[1:] if isinstance(lent, Lent)]
    assert [(lent.id, lent.error) for lent in lents] == [(parent, "error")]
    assert len(desk.spawned) == 2
    assert desk.holder(child)


def test_a_job_that_waits_may_wait_for_more_and_for_fewer() -> None:
    """At the cap too, since it counts once; what would close a cycle is refused, the rest stays."""
    desk, (parent, child, other) = lending(jobs=3, max_lent=1)
    uid = desk.holder(parent)
    desk.wait(parent, child, other)
    assert desk.scheduler.workers[uid].awaited == [child, other]
    desk.wait(parent, child, parent)
    desk.wait(parent, other)
    assert desk.scheduler.workers[uid].awaited == [other]
    lents = [lent for lent in desk.told_to(uid, Lent) if isinstance(lent, Lent)]
    assert [lent.error for lent in lents] == ["", "", "deadlock", ""]


def test_what_all_that_runs_waits_for_is_known() -> None:
    """As long as one job runs that does not wait, there is hope for the others."""
    desk, (parent, child) = lending()
    desk.scheduler.loans.goes_on(desk.holder(parent), parent, 1)
    desk.wait(parent, child)
    assert desk.scheduler.workforce.waits_of_all() == []
    desk.scheduler.drain()
    desk.end(child, took_us=LONG)
    assert desk.scheduler.workforce.waits_of_all() == [[child]]
    desk.scheduler.loans.goes_on(desk.holder(parent), parent, 1)
    assert desk.scheduler.workforce.waits_of_all() == []


def test_a_job_that_waits_goes_on_waiting_under_the_next_daemon() -> None:
    """Its worker tells again that it does, and it counts as lent whatever the cap."""
    desk, after = orphaned()
    uid = desk.spawned[0]
    running = min(after.workers[uid].assigned)
    after.options = Options(workers=1, max_lent=0)
    after.workforce.handed_over(uid, 100, (running, 1))
    before = len(desk.spawned)
    desk.wait(running)
    assert desk.told_to(uid, Lent) == [Lent(running)]
    assert len(desk.spawned) == before + 1


# -- whose turn it is --

DB = Policy(concurrency_key="db")


def test_an_urgent_job_starts_before_what_waits_already() -> None:
    """As soon as a worker is free, whatever it is plain jobs wait for."""
    desk = Desk(workers=1)
    desk.hire()
    running, plain = desk.submit(2)
    desk.act()
    (urgent,) = desk.submit(policy=Policy(priority=1))
    desk.act()
    assert desk.holder(running)
    desk.end(running, took_us=LONG)
    assert (bool(desk.holder(urgent)), bool(desk.holder(plain))) == (True, False)


def test_short_jobs_are_not_handed_ahead_past_an_urgent_one_that_is_long() -> None:
    """It would find all workers taken for a while."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", SHORT)
    desk.learn("m:long", LONG)
    first, *others = desk.submit(5, "m:short")
    (urgent,) = desk.submit(1, "m:long", policy=Policy(priority=1))
    desk.act()
    assert desk.holder(urgent)
    assert not any(desk.holder(number) for number in (first, *others))


def test_short_jobs_in_lanes_without_gates_are_handed_ahead() -> None:
    """A priority alone does not make them slow."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", SHORT)
    numbers = desk.submit(5, "m:short", policy=Policy(priority=1))
    desk.act()
    assert [desk.holder(number) for number in numbers] == [desk.spawned[0]] * 5


def test_jobs_of_a_concurrency_key_run_one_after_the_other(desk: Desk) -> None:
    """Though the second worker idles; a job of another key takes it."""
    first, second = desk.submit(2, policy=DB)
    desk.act()
    assert [bool(desk.holder(number)) for number in (first, second)] == [True, False]
    (other,) = desk.submit(policy=Policy(concurrency_key="other"))
    desk.act()
    assert desk.holder(other)
    desk.end(first)
    assert desk.holder(second)


@pytest.mark.parametrize("way", ["dies", "killed", "stopped", "given back", "not stored"])
def test_whatever_becomes_of_a_job_its_key_is_free_again(way: str) -> None:
    """The next job of that key starts."""
    desk = Desk(workers=1)
    desk.hire()
    (first,) = desk.submit(policy=DB)
    desk.act()
    if way != "not stored":
        desk.commit()
    (second,) = desk.submit(policy=DB)
    desk.act()
    uid = desk.holder(first)
    assert uid
    if way == "dies":
        desk.die(uid)
        desk.hire()
        assert desk.holder(first)  # it had not begun, and is the older one
        desk.end(first)
    elif way == "killed":
        desk.die(uid, running=first)
        desk.hire()
        desk.die(desk.holder(first), running=first)
        desk.hire()
    elif way == "stopped":
        desk.scheduler.control.cancel(desk.job(first), "")
        desk.end(first, verdict=Verdict.STOPPED)
        desk.die(uid)
        desk.hire()
    elif way == "given back":
        desk.scheduler.workforce.given_back(uid, [(first, 1)])
        desk.scheduler.control.cancel(desk.job(first), "")
        desk.act()
    else:
        desk.fail()
        outcome = Outcome(first, 1, Verdict.RETURNED, b"jnull", None, 1, LONG)
        desk.scheduler.workforce.outcomes(uid, 1, [outcome])
        (second,) = desk.submit(policy=DB)
        desk.act()
    assert desk.holder(second)


def test_a_job_that_runs_since_an_earlier_daemon_has_its_key(desk: Desk) -> None:
    """The next of that key waits for it."""
    (first,) = desk.submit(policy=DB)
    desk.act()
    desk.commit()
    lease = next(iter(desk.store.leased.values()))
    after = Scheduler("next", desk.options, next_id=2, counts=desk.store.counts())
    after.begin(desk.now_us, 10**15)
    after.workforce.add_orphan(lease.worker, 7)
    after.workforce.resume(lease.worker, desk.row(first), 1, lease)
    assert after.lanes.running("key:db") == 1
    after.workforce.worker_died(lease.worker, Death("SIGKILL", (first, 1)))
    assert after.lanes.running("key:db") == 0


def test_many_jobs_of_one_submit_are_packed_and_loaded_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They cost the store as little as plain ones, and the memory no more."""
    monkeypatch.setattr(known, "MOST", 20)
    monkeypatch.setattr(intake, "PARCEL_JOBS", 10)
    monkeypatch.setattr(batch, "PARCEL_JOBS", 10)
    desk = Desk(workers=1)
    desk.hire()
    numbers = desk.submit(200, policy=Policy(fair_key="many"))
    (other,) = desk.submit(policy=Policy(fair_key="one"))
    assert len(desk.scheduler.window.jobs) == 21
    desk.act()
    desk.commit()
    assert len(desk.store.parcels) == 20
    started = []
    while found := desk.ordered():
        started += found
        desk.end(*found, took_us=LONG)
        desk.commit()
        for line, wanted in desk.scheduler.thirsty_lanes():
            high = desk.scheduler.ledger.stored_high
            backlog = desk.store.backlog(line.cursor, high, wanted, line.text)
            desk.scheduler.refill_lane(line, wanted, backlog)
        assert len(desk.scheduler.window.jobs) <= 22
        desk.act()
    assert other in started[:2]
    assert [number for number in started if number != other] == numbers
    desk.commit()
    assert not desk.store.parcels
    assert not desk.scheduler.lanes.is_used


def test_a_job_may_not_wait_for_one_that_needs_its_own_key(desk: Desk) -> None:
    """The error says which, and what could be done; the job itself goes on."""
    (parent,) = desk.submit(policy=DB)
    desk.act()
    (child,) = desk.submit(policy=DB)
    desk.wait(parent, child)
    (refused,) = desk.told_to(desk.holder(parent), Lent)
    assert isinstance(refused, Lent)
    assert refused.error == "deadlock"
    assert refused.message == (
        f"job {parent} would wait for job {child}, which cannot start before job {parent} ends (it has "
        "the concurrency key 'db'): none of them could ever end"
    )
    assert "different keys" in refused.hint
    desk.end(parent)
    assert desk.holder(child)


def test_a_job_may_wait_for_one_whose_key_somebody_else_has(desk: Desk) -> None:
    """That one will end, and then it starts."""
    (running,) = desk.submit(policy=DB)
    (parent,) = desk.submit()
    desk.act()
    (child,) = desk.submit(policy=DB)
    desk.wait(parent, child)
    assert desk.told_to(desk.holder(parent), Lent) == [Lent(parent)]
    desk.end(running)
    assert desk.holder(child)


def test_the_last_of_several_that_have_a_key_may_not_wait_for_one_that_needs_it() -> None:
    """As long as one of them may end, it is no knot; and a knot goes through all kinds of waits."""
    desk = Desk(workers=2)
    desk.hire()
    two = Policy(concurrency_key="db", concurrency=2)
    parents = desk.submit(2, policy=two)
    desk.act()
    children = desk.submit(2, policy=two)
    (between,) = desk.submit()
    desk.wait(parents[0], children[0])
    assert desk.told_to(desk.holder(parents[0]), Lent) == [Lent(parents[0])]
    desk.hire()
    desk.wait(parents[1], between)
    desk.hire()
    desk.wait(between, children[1])
    (refused,) = desk.told_to(desk.holder(between), Lent)
    assert isinstance(refused, Lent)
    assert refused.message == (
        f"job {between} would wait for job {children[1]}, which cannot start before job {parents[0]} ends "
        f"(it has the concurrency key 'db'), which waits for job {children[0]}, which cannot start before "
        f"job {parents[0]} ends (it has the concurrency key 'db'): none of them could ever end"
    )


# -- a number that was given back is used again --


def handed_on() -> tuple[Desk, int, str, str]:
    """Return a desk, a job, the worker that gave it back, and the one that has it now, both as attempt 1."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", SHORT)
    parent, child = desk.submit(2, "m:short")
    desk.act()
    desk.commit()
    desk.wait(parent)
    first = desk.holder(child)
    desk.scheduler.workforce.given_back(first, [(child, 1)])
    desk.hire()
    desk.commit()
    second = desk.holder(child)
    assert second not in {"", first}
    assert desk.job(child).attempt == 1, "it never was one"
    return desk, child, first, second


def outcome(number: int, attempt: int, value: bytes) -> Outcome:
    """Return the end of an attempt that has returned something."""
    return Outcome(number, attempt, Verdict.RETURNED, value, None, 1, SHORT)


def test_who_gave_an_attempt_back_cannot_end_the_one_that_has_its_number() -> None:
    """Only who has the job in hand is heard, before the job has ended and after."""
    desk, child, first, second = handed_on()
    desk.scheduler.workforce.outcomes(first, 90, [outcome(child, 1, b'j"first"')])
    assert desk.holder(child) == second
    desk.scheduler.workforce.outcomes(second, 91, [outcome(child, 1, b'j"second"')])
    desk.commit()
    desk.scheduler.workforce.outcomes(first, 92, [outcome(child, 1, b'j"first"')])
    desk.commit()
    row = desk.row(child)
    assert (row.state, row.attempt, row.value) == (State.SUCCEEDED, 1, b'j"second"')


def test_who_gave_an_attempt_back_has_it_no_more_under_the_next_daemon(tmp_path: Path) -> None:
    """Its lease still names the job, but a newer one does too: that is whose outcome counts."""
    desk, child, first, second = handed_on()
    named = [lease.worker for lease in desk.store.leases() if (child, 1) in lease.attempts]
    assert named == [second, first], "both are on record, the newest first"
    after = Scheduler("next", desk.options, next_id=desk.store.next, counts=desk.store.counts())
    living = {uid: SimpleNamespace(pid=100) for uid in (first, second)}
    pool: Any = SimpleNamespace(processes=living, settings=SimpleNamespace(boards_dir=tmp_path))
    store: Any = desk.store
    service._recover(after, store, pool)
    desk.scheduler = after
    assert desk.holder(child) == second
    after.workforce.outcomes(first, 90, [outcome(child, 1, b'j"first"')])
    after.workforce.handed_over(first, 100, (0, 0))
    after.workforce.outcomes(second, 91, [outcome(child, 1, b'j"second"')])
    desk.commit()
    assert desk.row(child).value == b'j"second"'


def test_the_number_of_an_attempt_that_has_started_is_never_used_again() -> None:
    """However it ends, the next one has a higher number; only one that never started gives its own back."""
    desk, child, _, second = handed_on()
    desk.die(second, running=child)
    desk.hire()
    assert desk.job(child).attempt == 2
    desk.commit()
    third = desk.holder(child)
    desk.scheduler.workforce.given_back(third, [(child, 2)])
    desk.act()
    assert desk.job(child).attempt == 2, "it was handed out again, under the same number"
    desk.commit()
    assert desk.row(child).attempt == 1, "on record it counts once it is over"


# -- who waits for whom --


def test_what_a_job_waits_for_goes_before_all_others() -> None:
    """Else each of a thousand parents would begin, and wait, before the first child is served."""
    desk = Desk(workers=1)
    desk.hire()
    parent, *others = desk.submit(4)
    desk.act()
    desk.commit()
    (child,) = desk.submit()
    desk.wait(parent, child)
    desk.hire()
    assert desk.holder(child)
    desk.end(child, took_us=LONG)
    desk.commit()
    assert [bool(desk.holder(number)) for number in others] == [True, True, False]  # one on deck


def test_what_goes_first_runs_once() -> None:
    """Its usual place in the queue is passed over, also when it has ended and was queued anew."""
    desk = Desk(workers=1)
    desk.hire()
    parent, other, child = desk.submit(3)
    desk.act()
    desk.commit()
    desk.wait(parent, child)
    desk.hire()
    desk.commit()
    desk.end(child, verdict=Verdict.RAISED, took_us=LONG)
    desk.commit()
    row = desk.row(child)
    assert desk.scheduler.control.retry(desk.scheduler.window.load(row)) == "queued again"
    desk.commit()
    desk.end(other, took_us=LONG)
    desk.commit()
    desk.end(child, took_us=LONG)
    desk.commit()
    runs = [number for uid in desk.spawned for number in desk.runs(uid)]
    assert sorted(runs) == sorted([parent, child, child, other])
    assert len(desk.scheduler.window) == 0


def test_what_goes_first_does_not_start_before_it_is_on_record() -> None:
    """Handed out together with an older job: the order waits if one of them has to."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:short", SHORT)
    parent, older = desk.submit(2, "m:short")
    desk.act()
    desk.commit()
    (child,) = desk.submit(1, "m:short")
    desk.wait(parent, child)
    desk.scheduler.workforce.given_back(desk.holder(parent), [(older, 1)])
    second = desk.hire()[1]
    assert desk.holder(child) == desk.holder(older) == second
    assert desk.runs(second) == [], "its lease is not stored"
    desk.commit()
    assert desk.runs(second) == [child, older]


@pytest.mark.parametrize("length", [2, 3, 10])
def test_a_wait_that_would_close_a_circle_is_refused(length: int) -> None:
    """The youngest wait hears of it, with the whole circle; the others go on."""
    desk = Desk(workers=1)
    ring = desk.submit(length)
    for number, following in pairwise(ring):
        desk.hire()
        desk.wait(number, following)
    desk.hire()
    last = desk.holder(ring[-1])
    desk.wait(ring[-1], ring[0])
    (answer,) = desk.told_to(last, Lent)
    assert isinstance(answer, Lent)
    assert answer.error == "deadlock"
    named = [
        int(word)
        for word in answer.message.replace(",", " ").replace(":", " ").split()
        if word.isdigit()
    ]
    assert named == [ring[-1], *ring[:-1], ring[-1]]
    assert len(desk.spawned) == length


def test_waits_that_only_meet_are_no_circle() -> None:
    """Two jobs may wait for the same one, and one for two."""
    desk = Desk(workers=1)
    top, left, right, bottom = desk.submit(4)
    for number, awaited in ((top, [left, right]), (left, [bottom]), (right, [bottom])):
        desk.hire()
        desk.wait(number, *awaited)
    answers = [order for _, order in desk.orders if isinstance(order, Lent)]
    assert [answer.error for answer in answers] == ["", "", ""]


# -- time limits --


def submit_limited(desk: Desk, **policy: Any) -> int:
    """Submit one job with these limits, and let it start; return its id."""
    number = desk.scheduler.ledger.next_id
    request = Submit(1, b"limited." + number.to_bytes(8, "big"), "m:f", [b"0"], [(0, ())])
    desk.scheduler.intake.submit(PEER, request, Policy(**policy))
    desk.act()
    return number


def test_a_hard_limit_stops_the_attempt_and_then_kills_it(desk: Desk) -> None:
    """TERM when the time is over, KILL after the job's own grace; the end names the limit."""
    number = submit_limited(desk, timeout=2.0, kill_grace=0.5)
    uid = desk.holder(number)
    desk.act(1_999_999)
    assert desk.told_to(uid, StopJob) == []
    desk.act(1)
    assert desk.told_to(uid, StopJob) == [StopJob(number, 1)]
    desk.act(499_999)
    assert desk.killed == []
    desk.act(1)
    assert desk.killed == [(uid, number, 1)]
    desk.die(uid, number)
    desk.commit()
    row = desk.row(number)
    assert (row.state, row.cause, row.crashes) == (State.TIMED_OUT, "hard, after 2 s", 0)
    assert row.error is not None
    assert row.error.type == "jobd.TimeLimitExceeded"


def test_the_loop_wakes_up_when_a_hard_limit_is_over(desk: Desk) -> None:
    """Nobody else would tell it to."""
    submit_limited(desk, timeout=2.0)
    desk.commit()
    assert desk.scheduler.wake_at() == desk.now_us + 2_000_000


def test_a_job_that_ends_in_time_leaves_no_limit_behind(desk: Desk) -> None:
    """It would hit the next job of that worker, or one that is no more."""
    number = submit_limited(desk, timeout=2.0)
    desk.end(number)
    desk.act(3_000_000)
    assert [order for _, order in desk.orders if isinstance(order, StopJob)] == []


def test_a_soft_limit_that_ended_the_job_is_its_end(desk: Desk) -> None:
    """The worker tells so, and the exception with its traceback is kept."""
    number = submit_limited(desk, soft_timeout=1.0)
    uid = desk.holder(number)
    error = ErrorInfo("jobd.TimeLimitExceeded", "why", "where")
    late = Outcome(number, 1, Verdict.TIMED_OUT, None, error, 1, LONG)
    desk.scheduler.workforce.outcomes(uid, 1, [late])
    desk.act()
    desk.commit()
    row = desk.row(number)
    assert (row.state, row.cause, row.error) == (State.TIMED_OUT, "soft, after 1 s", error)


def test_a_job_that_is_done_when_its_time_is_over_has_succeeded(desk: Desk) -> None:
    """The stop came too late."""
    number = submit_limited(desk, timeout=2.0)
    desk.act(2_000_000)
    desk.end(number)
    desk.commit()
    assert (desk.row(number).state, desk.row(number).cause) == (State.SUCCEEDED, "")


def test_a_cancel_outranks_a_time_limit(desk: Desk) -> None:
    """A person has said so."""
    number = submit_limited(desk, timeout=2.0)
    desk.act(2_000_000)
    assert desk.scheduler.control.cancel(desk.job(number), "enough") == "stopping"
    desk.die(desk.holder(number), number)
    desk.commit()
    assert (desk.row(number).state, desk.row(number).cause) == (State.CANCELLED, "enough")


def test_a_job_with_a_limit_is_not_handed_out_ahead_of_time() -> None:
    """Its time would run while it waits behind another."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:f", SHORT)
    (first,) = desk.submit()
    desk.act()
    number = submit_limited(desk, timeout=2.0)
    assert (desk.holder(first), desk.holder(number)) == (desk.spawned[0], "")


def test_a_limit_goes_on_under_the_next_daemon_from_where_it_was(desk: Desk) -> None:
    """The worker tells how long its job has been running; until then nothing ends early."""
    number = submit_limited(desk, timeout=2.0)
    uid = desk.holder(number)
    desk.commit()
    after = Scheduler("next", desk.options, next_id=desk.store.next, counts=desk.store.counts())
    desk.scheduler = after
    after.begin(desk.now_us, 10**15)
    after.workforce.add_orphan(uid, 100)
    (lease,) = desk.store.leases()
    after.workforce.resume(uid, desk.row(number), 1, lease)
    desk.act(1_999_999)
    assert desk.told_to(uid, StopJob) == []
    after.workforce.handed_over(uid, 100, (number, 1), for_us=1_999_999)
    desk.act()
    assert desk.told_to(uid, StopJob) == []
    desk.act(1)
    assert desk.told_to(uid, StopJob) == [StopJob(number, 1)]


# -- values that are put ------------------------------------------------------


def put(desk: Desk, value: bytes = b"j5") -> int:
    """Put a value; return its job's id."""
    number = desk.scheduler.ledger.next_id
    desk.scheduler.intake.put(PEER, Put(1, b"putting." + number.to_bytes(8, "big"), value))
    return number


def test_a_value_that_was_put_has_succeeded_once_it_is_stored_and_never_runs() -> None:
    """Its client is told the id and the end, in this order, and not before the commit."""
    desk = Desk()
    desk.hire()
    number = put(desk)
    desk.act()
    assert desk.told == []
    desk.commit()
    assert [type(reply) for reply in desk.told] == [Submitted, Ended]
    row = desk.store.job(number)
    assert row is not None
    assert (row.state, row.value, row.attempt) == (State.SUCCEEDED, b"j5", 0)
    assert not [order for _, order in desk.orders if isinstance(order, Run)]
    assert desk.scheduler.ledger.counts[State.SUCCEEDED] == 1
    assert desk.scheduler.ledger.counts[State.QUEUED] == 0


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_value_that_is_put_while_the_window_is_full_is_not_looked_for_in_the_store(
    monkeypatch: pytest.MonkeyPatch, *, is_stored: bool
) -> None:
    """It is no job that waits, whether the disk has room for it or not."""
    monkeypatch.setattr(plain, "JOBS", 1)
    desk = Desk(workers=1)
    desk.submit(3)
    desk.commit()
    before = desk.scheduler.window.spilled
    put(desk)
    desk.write()
    if is_stored:
        desk.store.commit()
        desk.scheduler.committed()
    else:
        desk.scheduler.not_committed(DiskFull("full"))
    assert desk.scheduler.window.spilled == before


# -- workers that are used up --


def test_a_worker_whose_job_has_limits_gets_no_other_job() -> None:
    """Some limits cannot be lifted again; it is told to retire behind the order to run."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:f", SHORT)
    number = submit_limited(desk, nice=5)
    (uid,) = desk.spawned
    (following,) = desk.submit()
    desk.commit()
    assert (desk.holder(number), desk.holder(following)) == (uid, "")
    kinds = [type(order) for to, order in desk.orders if to == uid]
    assert kinds.index(Retire) > max(n for n, kind in enumerate(kinds) if kind is Run)
    desk.end(number)
    assert desk.holder(following) == ""


def test_a_worker_retires_after_as_many_jobs_as_it_may_run() -> None:
    """It is not handed more of them ahead of time than that, either."""
    desk = Desk(workers=1, max_jobs_per_worker=4)
    desk.hire()
    desk.learn("m:f", SHORT)
    numbers = desk.submit(10)
    desk.act()
    held = [number for number in numbers if desk.holder(number)]
    assert len(held) == 3
    desk.end(*held[:2])
    assert desk.told_to(desk.spawned[0], Retire) == []
    desk.end(held[2])
    assert desk.told_to(desk.spawned[0], Retire) == [Retire()]
    assert [number for number in numbers if desk.holder(number)] == []


def test_a_worker_that_is_to_be_replaced_keeps_what_it_is_at(desk: Desk) -> None:
    """It gives back what has not started, and ends after its job."""
    (number,) = desk.submit()
    desk.act()
    uid = desk.holder(number)
    desk.scheduler.workforce.retire(uid)
    desk.scheduler.workforce.retire(uid)
    desk.act()
    assert desk.holder(number) == uid
    assert len(desk.told_to(uid, GiveBack)) == len(desk.told_to(uid, Retire)) == 1


def test_a_worker_that_leaves_gives_back_what_it_had_and_is_replaced() -> None:
    """Nothing of that counts as a start or as a crash."""
    desk = Desk(workers=1)
    desk.hire()
    desk.learn("m:f", SHORT)
    numbers = desk.submit(3)
    desk.act()
    desk.commit()
    (uid,) = desk.spawned
    attempts = [desk.job(number).attempt for number in numbers]
    desk.scheduler.workforce.leaves(uid, list(zip(numbers[1:], attempts[1:], strict=True)))
    desk.end(numbers[0])
    desk.act()
    assert len(desk.spawned) == 2, "the next one is on its way before this one is dead"
    assert desk.told_to(uid, GiveBack), "it may be long before it reads what is on its way to it"
    desk.hire()
    assert {desk.holder(number) for number in numbers[1:]} == {desk.spawned[1]}
    desk.die(uid)
    assert desk.scheduler.workforce.failed_starts == 0
    assert [desk.job(n).attempt for n in numbers[1:]] == attempts[1:]
    assert [desk.job(n).crashes for n in numbers[1:]] == [0, 0]


def test_those_that_leave_are_replaced_only_so_far() -> None:
    """Each waits for the disk before it ends: there must not be any number of them meanwhile."""
    desk = Desk(workers=2)
    for _ in range(5):
        for uid in desk.hire():
            desk.scheduler.workforce.leaves(uid, [])
        desk.act()
    assert len(desk.spawned) == 4


def test_a_submit_that_waits_for_a_refused_one_is_refused_with_it(desk: Desk) -> None:
    """Its input will never be: one in the open batch, and what waits for that, goes too; others stay."""
    first = desk.submit()[0]
    desk.scheduler.take_batch()
    uids = [b"waiting." + bytes([n]) * 8 for n in range(3)]
    for uid, inputs in zip(uids, ([first], [first + 1], []), strict=True):
        request = Submit(7, uid, "m:f", [b"x"], [(1, ())], check=False, inputs=[[*inputs]])
        sources = Sources(dict.fromkeys(inputs, State.QUEUED), {})
        desk.scheduler.intake.submit(PEER, request, None, sources if inputs else None)
    desk.scheduler.not_committed(DiskFull("disk full"))
    desk.act()
    refused = [reply for reply in desk.told if isinstance(reply, Refused)]
    assert [reply.rid for reply in refused] == [1, 7, 7]
    assert [*desk.scheduler.ledger.submissions] == uids[2:]
    assert not desk.scheduler.blocked.missing
