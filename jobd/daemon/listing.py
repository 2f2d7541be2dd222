"""Jobs as people see them: page by page, each with what it is at by now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from jobd.daemon.progress import ProgressBoard
from jobd.daemon.view import View
from jobd.model.item import array_of, is_item, items_of
from jobd.model.job import ArrayInfo, Job, JobInfo
from jobd.model.selector import MAX_ID, Selector
from jobd.model.states import NAMES, State
from jobd.pool.scoreboard import Now
from jobd.scheduler import Scheduler
from jobd.scheduler.timers import expires_at
from jobd.store import Store
from jobd.store.questions import walk

SLICE = 500
"""Jobs that a long request looks at in one turn of the loop."""


@dataclass(frozen=True)
class Listing:
    """Finds jobs, and says how they are."""

    scheduler: Scheduler
    store: Store
    view: View
    progress: ProgressBoard

    def matching(self, selector: Selector, page: int) -> Iterator[list[JobInfo]]:
        """Yield the jobs that are selected, page by page; a page may be empty."""
        yield from self._items(selector, page)
        running = self.view.running()
        wanted = selector.states
        if selector.ranges:
            selector = self.settled(selector)
            selector = self._jobs_only(selector)
            if not (selector.ranges or selector.all):
                return
        if wanted == [State.RUNNING]:
            every = selector.all or selector.last
            ids = [n for n in running if every or any(a <= n <= b for a, b in selector.ranges)]
            selector = Selector([(n, n) for n in ids], 0, False, [State.QUEUED])
        elif State.RUNNING in wanted and State.QUEUED not in wanted:
            selector = msgspec.structs.replace(selector, states=[*wanted, State.QUEUED])
        for jobs in walk(self.store, selector, page):
            running = self.view.running()  # anew: turns of the loop lie between two pages
            infos = [self.info(job, running) for job in jobs]
            yield [info for info in infos if not wanted or info.state in wanted]

    def _jobs_only(self, selector: Selector) -> Selector:
        """Return a selector without items: an array with a state means its items in that state."""
        ranges = [
            (low, high)
            for low, high in selector.ranges
            if not is_item(low) and not (selector.states and low == high and self._array(low))
        ]
        return msgspec.structs.replace(selector, ranges=ranges)

    def _array(self, number: int) -> Job | None:
        """Return the job of this number if it is an array."""
        job = self.view.job(number)
        return job if job is not None and job.array is not None else None

    def _items(self, selector: Selector, page: int) -> Iterator[list[JobInfo]]:
        """Yield the items that are selected, page by page, the highest numbers of an array first."""
        states = selector.states
        for low, high in sorted(selector.ranges, reverse=True):
            own = self._array(array_of(low) if is_item(low) else low)
            if own is None or not (is_item(low) or (states and low == high)):
                continue
            first, behind = items_of(own.id, own.array.items)  # type: ignore[union-attr]  # it is one
            if is_item(low):
                first, behind = max(first, low), min(behind, high + 1)
            asked = states
            if State.RUNNING in states and State.QUEUED not in states:
                asked = [*states, State.QUEUED]
            while behind > first:
                jobs, behind = self.store.arrays.page(own, first, behind, asked, page)
                running = self.view.running()
                infos = [self.info(job, running) for job in jobs]
                yield [info for info in infos if not states or info.state in states]

    def info(self, job: Job, running: dict[int, tuple[str, Now]]) -> JobInfo:
        """Return what is told of a job; ``running`` is who is at what."""
        info = JobInfo(
            job.id,
            job.uid,
            job.state,
            job.function,
            job.created_at,
            job.started_at,
            job.ended_at,
            job.attempt,
            job.crashes,
            job.pid,
            job.cause,
            job.error,
            job.log.end - job.log.start if job.log else 0,
        )
        if job.policy is not None:
            info.queue, info.name = job.policy.queue, job.policy.name
        info.root, info.usage, info.due_at, info.notes = job.root, job.usage, job.due_at, job.notes
        info.at_bound = self.scheduler.at_bound(job.id)
        if job.state is State.HELD:
            info.due_at = expires_at(job)
        if job.array is not None:
            info.array = self._array_info(job, running)
            if job.state is State.QUEUED and len(info.array.states) > 1:
                info.state = State.RUNNING  # some of it has started
        if job.id in running and job.state is State.QUEUED:
            uid, now = running[job.id]
            info.state, info.attempt, info.started_at = State.RUNNING, now.attempt, now.started_at
            info.pid = self.scheduler.workers[uid].pid
            info.progress = self.progress.of(uid, now)
        return info

    def _array_info(self, job: Job, running: dict[int, tuple[str, Now]]) -> ArrayInfo:
        """Count the items of an array, by state."""
        assert job.array is not None
        array = self.scheduler.arrays.live.get(job.id)
        first, behind = items_of(job.id, job.array.items)
        counts = self.store.arrays.counts(first, behind) if array is None else array.counts()
        left = job.array.items - sum(counts.values())
        run = sum(array_of(number) == job.id for number in running)
        if run and left:
            counts[State.RUNNING] = min(run, left)
            left -= counts[State.RUNNING]
        if left:
            counts[min(State.QUEUED, job.state)] = left
        states = {NAMES[state]: counts[state] for state in sorted(counts) if counts[state]}
        has_failed = any(state > State.SUCCEEDED and counts[state] for state in counts)
        failure = self.store.arrays.first_failure(first, behind) if has_failed else 0
        return ArrayInfo(job.array, states, failure)

    def settled(self, selector: Selector) -> Selector:
        """Turn ``last`` into the range of ids that it means now, beside the other ranges."""
        if not selector.last:
            return selector
        newest, _ = self.store.page(Selector([], 0, all=True), MAX_ID, 1)
        if not newest:
            return selector
        top = newest[0].id
        ranges = [*selector.ranges, (max(1, top - selector.last + 1), top)]
        return msgspec.structs.replace(selector, ranges=ranges, last=0)


def missing(selector: Selector, seen: set[int]) -> list[int]:
    """Return the ids that were named one by one and do not exist (or are not in the wanted state)."""
    return [low for low, high in selector.ranges if low == high and low not in seen]


def below(selector: Selector, before: int) -> Selector:
    """Return a selector without the ids from ``before`` on."""
    ranges = [(1, MAX_ID)] if selector.all else selector.ranges
    cut = [(low, min(high, before - 1)) for low, high in ranges if low < before]
    return Selector(cut or [(0, 0)], 0, False, selector.states)


def size_of(infos: list[JobInfo]) -> int:
    """Return about how many bytes these jobs take in an answer."""
    texts = sum(len(info.error.traceback) for info in infos if info.error)
    texts += sum(len(info.tail) + sum(len(a.tail) for a in info.earlier) for info in infos)
    texts += sum(len(info.policy.env) for info in infos if info.policy)
    return texts + sum(200 + len(info.args or b"") for info in infos)
