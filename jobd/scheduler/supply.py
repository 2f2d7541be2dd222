"""What comes next: jobs are taken out of the line, an array's items among them.

The window has the plain jobs, the lanes all others, and where an array's own job stands in line, it is
items of it that are taken out: one, or a stretch of them if they are short.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jobd.model.item import FIRST_ITEM
from jobd.model.job import Job
from jobd.model.lane import gates_of
from jobd.model.states import Event
from jobd.scheduler.aftermath import Aftermath
from jobd.scheduler.arrays import Arrays
from jobd.scheduler.clocks import has_to_be_first, is_limited
from jobd.scheduler.forecast import Forecast
from jobd.scheduler.queues import Queues, queue_of
from jobd.scheduler.window import Window

AHEAD_US = 2_000.0
"""A function that takes longer on average is handed out one job at a time, and one on deck."""

SHORT_US = 500.0
"""A commit does not wait for the end of a job whose function takes longer on average."""

STRETCH_US = 4_000.0
"""So much work is in one stretch of an array's items.  What has not begun comes back when it is wanted."""

LONGEST = 2_048
"""Items in a stretch."""


@dataclass
class Supply:
    """Takes out what is to start next; ``is_one_by_one``: workers count what they run."""

    window: Window
    arrays: Arrays
    queues: Queues
    aftermath: Aftermath
    is_one_by_one: bool
    forecast: Forecast = field(default_factory=Forecast)
    now: int = 0
    wall: int = 0

    def __post_init__(self) -> None:
        """Look the lanes up once."""
        self._lanes = self.window.lanes

    def next(self) -> Job | None:
        """Take the next job that is of use, and may start."""
        while (job := self._take_first()) is not None and job.array is not None:
            if (item := self._draw(job)) is not None:
                return item
        return job

    def _take_first(self) -> Job | None:
        if self._lanes.is_used:
            job = self.choose()
            if job is not None:
                self._lanes.take()
            return job
        while (job := self.window.pop()) is not None and 0 < job.due_at <= self.wall:
            self._expire(job)
        return job

    def choose(self) -> Job | None:
        """Return the next job that is of use, and may start, as its lane has it."""
        while (job := self._lanes.choose(self.now)) is not None and 0 < job.due_at <= self.wall:
            self._expire(job)
        return job

    def next_short(self) -> Job | None:
        """Take the next job if it may be handed out ahead of time; it loses its turn only if it is taken."""
        if self._lanes.is_used:
            return self._next_short_of_lanes()
        while (job := self.window.pop()) is not None:
            if job.due_at and job.due_at <= self.wall:
                self._expire(job)
            elif not self._is_short(job):
                self.window.push(job)
                return None
            elif job.array is None:
                return job
            elif (item := self._draw(job)) is not None:
                return item
        return None

    def _next_short_of_lanes(self) -> Job | None:
        while (job := self.choose()) is not None:
            if not (self._lanes.may_go_ahead() and self._is_short(job)):
                return None
            self._lanes.take()
            if job.array is None:
                return job
            if (item := self._draw(job)) is not None:
                return item
        return None

    def _is_short(self, job: Job) -> bool:
        """Whether a job, or an item of it, may be handed out ahead of time."""
        is_quick = self.forecast.expected_us(job.function) <= AHEAD_US
        return is_quick and not is_limited(job.policy)

    def next_for_deck(self) -> Job | None:
        """Take the next job if it may lie on deck; it loses its turn only if it is taken."""
        lanes = self._lanes
        if not lanes.is_used:
            job = self.next()
            if job is not None and not may_lie_on_deck(job):
                self._leave(job)
                return None
            return job
        job = self.choose()
        if job is None or not lanes.may_go_ahead() or not may_lie_on_deck(job):
            return None
        lanes.take()
        return job if job.array is None else self._draw(job)

    def next_heir(self, head: Job, *, is_short: bool) -> Job | None:
        """Take the job that is to take over this one's slot and places at gates, if it may lie on deck."""
        job = self.choose_after(head)
        if job is None or not may_lie_on_deck(job) or (is_short and not self._is_short(job)):
            return None
        self._lanes.take()
        return job if job.array is None else self._draw(job)

    def choose_after(self, head: Job) -> Job | None:
        """Return the job that would be next had this one ended; None: none that takes over its places."""
        queue, lane, gates = queue_of(head), head.lane, gates_of(head.lane)
        rule, is_limited_queue = self.queues.rules.get(queue), self.queues.is_limited(queue)
        is_rated = rule is not None and bool(rule.rate)  # then the next start is a matter of time
        if is_rated or not (self._lanes.is_used and (gates or is_limited_queue)):
            return None
        if self.queues.counts:
            self.queues.ended(queue)
            self._lanes.queue_changed(queue)
        if lane:
            self._lanes.ended(lane)
        job = self.choose()
        if self.queues.counts:
            self.queues.goes_on(queue)
        if lane:
            self._lanes.started(lane)
        if job is None or queue_of(job) != queue or gates_of(job.lane) != gates:
            return None
        return job

    def is_open(self, job: Job) -> bool:
        """Whether neither its queue nor a gate keeps a job from being started."""
        queues = self.queues
        is_shut = queues.counts and queues.opens_at(queue_of(job), self.now) != 0
        return not is_shut and not self._lanes.closed_gates(job.lane)

    def cost_us(self, job: Job) -> float:
        """Return what a job is expected to take, or a stretch of items."""
        return self.forecast.expected_us(job.function) * job.count

    def _draw(self, job: Job) -> Job | None:
        """Take out what comes next of an array that was in line; it goes on standing there if there is more."""
        expected_us = self.forecast.expected_us(job.function)
        most = 1
        if expected_us <= SHORT_US and self._may_be_stretched(job):
            most = min(LONGEST, max(1, int(STRETCH_US / expected_us)))
        drawn = self.arrays.draw(job, most)
        if drawn is None and job.lane:
            self._lanes.passed(job.lane)
        return drawn

    def _may_be_stretched(self, job: Job) -> bool:
        """Whether items of an array may be given out several at once: nothing has to count or to end each."""
        if self.is_one_by_one or self.arrays.live[job.id].spec.slots:
            return False
        if self.queues.counts and self.queues.is_limited(queue_of(job)):
            return False
        policy = job.policy
        return policy is None or not (is_limited(policy) or policy.max_crashes == 0)

    def _leave(self, job: Job) -> None:
        """Put a job back that was taken, and is not handed out now."""
        if job.id >= FIRST_ITEM:
            self.arrays.came_back(job)
        self.window.push(job)

    def _expire(self, job: Job) -> None:
        self.aftermath.finish(job, Event.EXPIRE)


def may_lie_on_deck(job: Job) -> bool:
    """Whether a job may be in the hands of a worker that is at another one.

    Should the machine go down, nobody can tell whether it had begun, and it counts as crashed.
    """
    policy = job.policy
    return policy is None or not (has_to_be_first(policy) or policy.max_crashes == 0)
