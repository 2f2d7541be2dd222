"""Whose turn it is: priorities, turns between queues and fair keys, gates, and a bounded memory."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

import pytest
from fake_store import FakeStore

from jobd.model.job import Job, Parcel, Record
from jobd.model.lane import Gate, gates_of, lane_of, parse_lane, span_of
from jobd.model.options import Policy
from jobd.model.queues import Override, Rule
from jobd.model.states import State
from jobd.scheduler import lanes as module
from jobd.scheduler.batch import Submission
from jobd.scheduler.queues import Queues
from jobd.scheduler.window import Window


class Hall:
    """Jobs that wait, and somebody who calls one after the other."""

    def __init__(self, *, stored: FakeStore | None = None, **rules: Rule) -> None:
        self.store = stored or FakeStore()
        self.queues = Queues(rules)
        self.window = Window(self.queues, 0, has_stored=stored is not None)
        self.lanes = self.window.lanes
        self.now_us = 0
        self._numbers = count(max(self.store.rows, default=0) + 1)

    def wait(self, **options: Any) -> int:
        """Let a job wait, in memory or else in the store; return its id."""
        job = self.make(**options)
        self.window.jobs[job.id] = job
        if self.window.has_room(job):
            self.window.push(job)
        else:
            self.put(job)
            self.window.spill(job)
            self.lanes.stored((), job.id)
        return job.id

    def make(self, **options: Any) -> Job:
        """Make a job with the next id."""
        policy = Policy(**options) if options else None
        job = Job(next(self._numbers), b"", 1, "m:f", b"", 0, policy)
        job.lane = lane_of(policy)
        return job

    def put(self, job: Job) -> None:
        """Put a job into the store."""
        self.store.rows[job.id] = self.store.live[job.id] = job
        self.store.next = max(self.store.next, job.id + 1)

    def call(self, *, starts: bool = True) -> int:
        """Start the next job, if one may start; return its id, or 0."""
        job = self.lanes.choose(self.now_us)
        if job is None:
            return 0
        if starts:
            self.lanes.take()
            queue = "default" if job.policy is None else job.policy.queue
            self.queues.started(queue)
            self.queues.left(queue, self.now_us)
            if job.lane:
                self.lanes.started(job.lane)
            job.state = State.RUNNING
            self.store.rows.pop(job.id, None)
            self.store.live.pop(job.id, None)
        return job.id

    def call_all(self) -> list[int]:
        """Start all that may start; return them in their order."""
        found = []
        while number := self.call():
            found.append(number)
        return found

    def end(self, number: int) -> None:
        """Let a job end that runs."""
        job = self.window.jobs.pop(number)
        queue = "default" if job.policy is None else job.policy.queue
        self.queues.ended(queue)
        self.lanes.queue_changed(queue)
        if job.lane:
            self.lanes.ended(job.lane)

    def cancel(self, number: int) -> None:
        """Cancel a job that waits."""
        self.window.jobs.pop(number).state = State.CANCELLED

    def fill(self) -> None:
        """Load from the store what is wanted of it, as the loop does."""
        lanes = self.lanes
        high = self.store.next - 1
        while lanes.wants_more:
            between = lanes.next_scan()
            if between is not None:
                found = self.store.lanes(*between, module.SCAN)
                lanes.scanned(found, is_all=len(found) < module.SCAN)
            for line, wanted in lanes.thirsty(high, high):
                backlog = self.store.backlog(line.cursor, high, wanted, line.text)
                lanes.refill(line, wanted, backlog, high, high)


# -- lanes as texts --


@pytest.mark.parametrize(
    ("options", "lane"),
    [
        ({"priority": 7}, (7, "default", "", ())),
        ({"queue": "etl"}, (0, "etl", "", ())),
        ({"fair_key": "a b"}, (0, "default", "a b", ())),
        ({"concurrency_key": "db"}, (0, "default", "", (Gate("key:db", 1),))),
        (
            {
                "priority": -1000,
                "queue": "q",
                "fair_key": "t",
                "concurrency_key": "k",
                "concurrency": 3,
            },
            (-1000, "q", "t", (Gate("key:k", 3),)),
        ),
    ],
)
def test_a_lane_is_read_as_it_was_written(options: dict[str, Any], lane: tuple[Any, ...]) -> None:
    """The store keeps it as a text."""
    text = lane_of(Policy(**options))
    assert parse_lane(text) == lane
    assert gates_of(text) == lane[3]


@pytest.mark.parametrize("policy", [None, Policy(), Policy(retries=3), Policy(concurrency=4)])
def test_a_plain_job_has_no_lane(policy: Policy | None) -> None:
    """Whatever else it is told: nothing of it says whose turn it is."""
    assert lane_of(policy) == ""
    assert gates_of("") == ()


def test_lanes_sort_by_priority_and_then_by_queue() -> None:
    """The highest first, and those of one queue together, whatever follows its name."""
    said: list[dict[str, Any]] = [
        {"priority": 1000, "queue": "b"},
        {"priority": 2, "queue": "a", "fair_key": "x"},
        {"priority": 2, "queue": "a", "concurrency_key": "x"},
        {"priority": 2, "queue": "a"},
        {"priority": 2, "queue": "a b"},
        {"priority": 2, "queue": "ab", "fair_key": "x"},
        {"priority": -3},
    ]
    texts = sorted(lane_of(Policy(**options)) for options in said)
    order = [(parse_lane(text).priority, parse_lane(text).queue) for text in texts]
    assert [priority for priority, _ in order] == [1000, 2, 2, 2, 2, 2, -3]
    assert [queue for _, queue in order][1:4] == ["a"] * 3
    low, high = span_of(texts[1])
    assert [low < text < high for text in texts] == [False, True, True, True, False, False, False]


# -- whose turn it is --


def test_the_higher_priority_goes_first_whatever_came_first() -> None:
    """Plain jobs have the priority 0; of one priority the older job goes first."""
    hall = Hall()
    low, plain, high = hall.wait(priority=-5), hall.wait(), hall.wait(priority=3)
    second, late = hall.wait(priority=3), hall.wait()
    assert hall.call_all() == [high, second, plain, late, low]


def test_tenants_take_turns_however_many_jobs_each_has() -> None:
    """One who comes late with one job waits for one of each of the others."""
    hall = Hall()
    many = [hall.wait(fair_key="many") for _ in range(50)]
    few = [hall.wait(fair_key="few") for _ in range(2)]
    assert [hall.call() for _ in range(3)] == [many[0], few[0], many[1]]
    one = hall.wait(fair_key="one")
    order = [hall.call() for _ in range(3)]
    assert one in order
    rest = order + hall.call_all()
    assert [number for number in rest if number in many] == many[2:]


def test_plain_jobs_take_turns_with_tenants_as_if_they_were_one() -> None:
    """They have no fair key, and share the queue and the priority."""
    hall = Hall()
    plain = [hall.wait() for _ in range(3)]
    tenant = [hall.wait(fair_key="a") for _ in range(3)]
    order = hall.call_all()
    assert sorted([order[0::2], order[1::2]]) == [plain, tenant]


def test_queues_of_one_priority_take_turns() -> None:
    """A queue with a million jobs leaves every other start to the other one."""
    hall = Hall(a=Rule(), b=Rule())
    first = [hall.wait(queue="a") for _ in range(3)]
    second = [hall.wait(queue="b") for _ in range(3)]
    order = hall.call_all()
    assert Counter(order[:2]) == Counter([first[0], second[0]])
    assert Counter(order[2:4]) == Counter([first[1], second[1]])


def test_jobs_of_one_fair_key_go_by_age_whatever_their_gates() -> None:
    """Two concurrency keys are two lanes, and no two tenants."""
    hall = Hall()
    numbers = [
        hall.wait(concurrency_key="x"),
        hall.wait(concurrency_key="y"),
        hall.wait(),
        hall.wait(concurrency_key="z"),
    ]
    assert hall.call_all() == numbers


def test_a_job_that_came_back_has_its_old_place() -> None:
    """It goes before those that came after it."""
    hall = Hall()
    first, second = hall.wait(priority=1), hall.wait(priority=1)
    assert hall.call() == first
    job = hall.window.jobs[first]
    hall.lanes.ended(job.lane)
    job.state = State.QUEUED
    hall.window.push(job)
    assert hall.call_all() == [first, second]


def test_what_was_cancelled_is_passed_over() -> None:
    """Nobody's turn is lost by it."""
    hall = Hall()
    first, second = hall.wait(priority=1), hall.wait(priority=1)
    other = hall.wait(priority=2)
    hall.cancel(other)
    hall.cancel(first)
    assert hall.call_all() == [second]
    assert not hall.lanes.count
    assert not hall.lanes.is_used


def test_a_job_that_is_only_looked_at_keeps_its_turn() -> None:
    """A worker that may not have it leaves it to the next."""
    hall = Hall()
    first, second = hall.wait(fair_key="a"), hall.wait(fair_key="b")
    assert [hall.call(starts=False) for _ in range(3)] == [first] * 3
    assert hall.call_all() == [first, second]


# -- gates --


def test_no_more_jobs_of_a_key_run_than_may() -> None:
    """The next one starts when one has ended; others are not kept by it."""
    hall = Hall()
    keyed = [hall.wait(concurrency_key="db", concurrency=2) for _ in range(4)]
    other = hall.wait(priority=-1)
    assert hall.call_all() == [*keyed[:2], other]
    hall.end(keyed[0])
    assert hall.call_all() == [keyed[2]]
    hall.end(keyed[2])
    hall.end(keyed[1])
    assert hall.call_all() == [keyed[3]]


def test_a_key_holds_over_all_queues_and_priorities() -> None:
    """Of those that wait for it the one of the highest priority is next."""
    hall = Hall(a=Rule())
    first = hall.wait(concurrency_key="db")
    low = hall.wait(concurrency_key="db", priority=-1)
    high = hall.wait(concurrency_key="db", priority=1, queue="a")
    assert hall.call() == high
    assert hall.call() == 0
    hall.end(high)
    assert hall.call_all() == [first]
    hall.end(first)
    assert hall.call_all() == [low]


def test_each_job_looks_at_its_own_number() -> None:
    """If jobs of one key say different things."""
    hall = Hall()
    one = hall.wait(concurrency_key="db", concurrency=1)
    two = [hall.wait(concurrency_key="db", concurrency=2) for _ in range(2)]
    assert hall.call_all() == [one, two[0]]
    hall.end(two[0])
    assert hall.call_all() == [two[1]]
    hall.end(two[1])
    hall.end(one)


def test_a_gate_lets_out_somebody_else_if_the_first_is_kept_by_another() -> None:
    """The one of the higher priority waits for its paused queue as well."""
    hall = Hall(a=Rule())
    running = hall.wait(concurrency_key="db")
    assert hall.call() == running
    paused = hall.wait(concurrency_key="db", priority=5, queue="a")
    other = hall.wait(concurrency_key="db")
    assert hall.call() == 0
    hall.queues.override("a", Override(paused=True))
    hall.end(running)
    assert hall.call_all() == [other]
    hall.end(other)
    assert hall.call_all() == []
    hall.queues.override("a", Override(paused=False))
    hall.lanes.queue_changed("a")
    assert hall.call_all() == [paused]


def test_a_gate_lets_out_somebody_else_if_the_first_was_cancelled() -> None:
    """Else nobody would come until the next end."""
    hall = Hall()
    running = hall.wait(concurrency_key="db")
    assert hall.call() == running
    first = hall.wait(concurrency_key="db", fair_key="a")
    second = hall.wait(concurrency_key="db", fair_key="b")
    assert hall.call() == 0
    hall.end(running)
    hall.cancel(first)
    assert hall.call_all() == [second]


def test_a_paused_queue_keeps_its_jobs_and_nobody_elses() -> None:
    """They start when it is resumed."""
    hall = Hall(a=Rule(paused=True))
    kept, other = hall.wait(queue="a", priority=9), hall.wait(priority=1)
    assert hall.call_all() == [other]
    hall.queues.override("a", Override(paused=False))
    hall.lanes.queue_changed("a")
    assert hall.call_all() == [kept]


def test_the_plain_queue_may_be_limited_from_the_start() -> None:
    """By the settings: nobody has to change anything for that to hold."""
    hall = Hall(default=Rule(slots=1))
    assert hall.lanes.is_used
    first, second = hall.wait(), hall.wait()
    assert hall.call_all() == [first]
    hall.end(first)
    assert hall.call_all() == [second]


def test_a_queue_with_slots_gives_each_to_the_next_in_turn() -> None:
    """Its jobs of all priorities share them."""
    hall = Hall(a=Rule(slots=1))
    low, high = hall.wait(queue="a"), hall.wait(queue="a", priority=1)
    assert hall.call_all() == [high]
    hall.end(high)
    assert hall.call_all() == [low]


def test_a_rate_says_when_it_is_time() -> None:
    """Until then nobody has to ask."""
    hall = Hall(a=Rule(rate="1/s"))
    first, second = hall.wait(queue="a"), hall.wait(queue="a")
    assert hall.call_all() == [first]
    assert hall.lanes.next_at() == 1_010_000
    hall.now_us = 1_009_999
    hall.lanes.tick(hall.now_us)
    assert hall.call() == 0
    hall.now_us = 1_010_000
    hall.lanes.tick(hall.now_us)
    assert hall.call_all() == [second]


def test_an_awaited_job_goes_before_all_others_but_through_no_closed_gate() -> None:
    """Somebody waits for it; who limits it limits it still."""
    hall = Hall()
    running = hall.wait(concurrency_key="db")
    assert hall.call() == running
    keyed = hall.wait(concurrency_key="db", priority=-9)
    awaited, urgent = hall.wait(priority=-9), hall.wait(priority=1000)
    for number in (keyed, awaited):
        hall.window.hasten(number)
    assert hall.call() == awaited
    last = hall.wait(concurrency_key="db", priority=9)
    assert hall.call_all() == [urgent]
    hall.end(running)
    assert hall.call() == keyed
    hall.end(keyed)
    assert hall.call_all() == [last]


def test_an_awaited_plain_job_goes_before_all_others() -> None:
    """It has its place in the window of plain jobs."""
    hall = Hall()
    first, awaited, urgent = hall.wait(), hall.wait(), hall.wait(priority=1000)
    hall.window.hasten(awaited)
    assert hall.call_all() == [awaited, urgent, first]


def test_only_jobs_that_nothing_counts_may_go_ahead() -> None:
    """A job that sits in a worker's hands would take a place that it does not use."""
    hall = Hall(a=Rule(slots=5), b=Rule())
    counted: list[dict[str, Any]] = [{"queue": "a"}, {"concurrency_key": "db"}]
    free: list[dict[str, Any]] = [{"queue": "b"}, {"priority": 1}, {"fair_key": "a"}]
    for options in counted:
        number = hall.wait(**options)
        assert hall.call(starts=False) == number
        assert not hall.lanes.may_go_ahead()
        hall.call()
    for options in free:
        number = hall.wait(**options)
        assert hall.call(starts=False) == number
        assert hall.lanes.may_go_ahead()
        hall.call()


# -- a bounded memory --


def test_a_tenants_million_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' jobs are in memory, and have their turns; in the end all have run, in order."""
    monkeypatch.setattr(module, "JOBS", 40)
    monkeypatch.setattr(module, "MOST", 20)
    hall = Hall()
    many = [hall.wait(fair_key="many") for _ in range(300)]
    few = [hall.wait(fair_key=f"tenant {n}") for n in range(10)]
    order = []
    while number := hall.call():
        order.append(number)
        hall.fill()
        waiting = [job for job in hall.window.jobs.values() if job.state is State.QUEUED]
        assert len(waiting) <= 40
    assert set(few) <= set(order[:25])
    assert [number for number in order if number in set(many)] == many
    assert not hall.lanes.is_used


def test_more_lanes_than_there_is_room_for_are_found_in_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key of its own for each job is as good as any other."""
    monkeypatch.setattr(module, "LANES", 8)
    monkeypatch.setattr(module, "SCAN", 3)
    hall = Hall()
    numbers = [hall.wait(concurrency_key=f"user {n}") for n in range(100)]
    order = []
    while number := hall.call():
        order.append(number)
        hall.fill()
        assert len(hall.lanes._lines) <= 8
    assert sorted(order) == numbers
    assert not hall.lanes.is_used


def test_jobs_that_came_when_their_lane_had_no_room_are_found_beside_later_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before they are stored the lane may become known, by a job that finds room again."""
    monkeypatch.setattr(module, "LANES", 1)
    hall = Hall()
    other = hall.wait(fair_key="other")
    early = [hall.make(fair_key="k"), hall.make(fair_key="k")]
    first, policy = early[0].id, early[0].policy
    record = Record(first, b"", 2, "m:f", 0, [b"", b""], policy, Parcel(first, first + 1, []))
    submission = Submission(b"", first, 2, [], lane=early[0].lane)
    submission.is_unseen = not hall.lanes.admit(record, submission.lane, None)
    assert hall.call() == other
    late = hall.wait(fair_key="k")
    for job in early:
        hall.put(job)
    hall.lanes.stored([submission], late)
    hall.fill()
    assert sorted(hall.call_all()) == [*(job.id for job in early), late]
    assert not hall.lanes.is_used


def test_a_start_finds_the_lanes_of_the_store_the_urgent_ones_first() -> None:
    """Nobody has told the new daemon of them."""
    before = Hall()
    jobs = [
        before.make(priority=1, fair_key="a"),
        before.make(fair_key="b"),
        before.make(priority=1000),
        before.make(priority=1, fair_key="a"),
    ]
    for job in jobs:
        before.put(job)
    hall = Hall(stored=before.store)
    late = hall.wait(priority=1, fair_key="a")
    hall.fill()
    assert hall.call_all() == [3, 1, 4, late, 2]


def test_cancelling_what_waits_behind_a_closed_gate_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody comes by to clear it away."""
    monkeypatch.setattr(module, "MOST", 10)
    hall = Hall(a=Rule(paused=True))
    for _ in range(500):
        number = hall.wait(queue="a")
        if number in hall.window.jobs:
            hall.cancel(number)
        hall.fill()
    assert hall.lanes.count <= 30
