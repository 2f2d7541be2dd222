"""What clients want changed: jobs cancelled, held, released, retried; the daemon ended or reloaded.

Each page of jobs is answered once it is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from jobd.daemon import listing
from jobd.daemon.array_verbs import ArrayVerbs, Span, refuse_items, whole
from jobd.daemon.dependencies import Dependencies
from jobd.daemon.lifecycle import Lifecycle
from jobd.daemon.listing import Listing, missing
from jobd.daemon.outbox import Clients
from jobd.daemon.policies import Policies
from jobd.daemon.turns import Handlers, Steps
from jobd.daemon.view import View
from jobd.failpoints import hit
from jobd.model.errors import UsageError, no_such_job
from jobd.model.job import JSON, Job
from jobd.model.messages import (
    Accepted,
    Answers,
    Cancel,
    Hold,
    Release,
    Reload,
    Retry,
    Stop,
)
from jobd.model.selector import Selector
from jobd.model.states import ENDED, State
from jobd.scheduler import Scheduler


@dataclass(frozen=True)
class ControlDesk:
    """Changes jobs that are there, and ends the daemon."""

    scheduler: Scheduler
    view: View
    listing: Listing
    dependencies: Dependencies
    arrays: ArrayVerbs
    policies: Policies
    clients: Clients
    lifecycle: Lifecycle

    @property
    def handlers(self) -> Handlers:
        """What it answers."""
        return {
            Cancel: self._cancel,
            Hold: self._hold,
            Release: self._release,
            Retry: self._retry,
            Stop: self._stop,
            Reload: self._reload,
        }

    def _cancel(self, peer: bytes, request: Cancel) -> Steps:
        scheduler = self.scheduler
        grace_us = None if request.grace_s is None else round(request.grace_s * 1e6)

        def change(job: Job) -> str:
            if job.state >= ENDED and job.id not in scheduler.window.jobs:
                return "already finished"
            if job.array is not None and job.state in (State.QUEUED, State.HELD):
                return self._cancel_array(job, request)
            return scheduler.control.cancel(
                scheduler.window.load(job),
                request.reason,
                only_waiting=request.only_waiting,
                grace_us=grace_us,
            )

        def change_items(job: Job, span: Span) -> Iterator[str]:
            yield self.arrays.cancel(job, span, request, request.selector.states)

        yield from self._change(peer, request.rid, request.selector, change, change_items)

    def _cancel_array(self, job: Job, request: Cancel) -> str:
        answer = self.arrays.cancel(job, whole(job), request)
        if not answer.startswith("cancelled"):
            return answer
        array = self.scheduler.arrays.live.get(job.id)
        is_left = array is not None and array.open > 0
        if not is_left:
            return "cancelled"
        return "is running" if request.only_waiting else "stopping"

    def _hold(self, peer: bytes, request: Hold) -> Steps:
        scheduler = self.scheduler

        def change(job: Job) -> str:
            if job.id not in scheduler.window.jobs:
                if job.state >= ENDED:
                    return "already finished"
                if job.state is State.HELD:
                    return "held"
            return scheduler.control.hold(scheduler.window.load(job))

        refuse_items(request.selector, "held")
        yield from self._change(peer, request.rid, request.selector, change)

    def _release(self, peer: bytes, request: Release) -> Steps:
        scheduler = self.scheduler

        def change(job: Job) -> str:
            if job.id not in scheduler.window.jobs and job.state is not State.HELD:
                return "already finished" if job.state >= ENDED else "is not held"
            return scheduler.control.release(scheduler.window.load(job))

        refuse_items(request.selector, "released")
        yield from self._change(peer, request.rid, request.selector, change)

    def _retry(self, peer: bytes, request: Retry) -> Steps:
        scheduler = self.scheduler

        def change(job: Job) -> str:
            if job.id in scheduler.window.jobs or job.state < ENDED:
                return "has not ended"
            if job.state is State.SUCCEEDED:
                return "already succeeded"
            if request.args:
                return self._retry_edited(job, request.args)
            if job.array is not None and self.arrays.has_begun(job):
                return _last(self._retry_items(job, whole(job), ()))
            return self.dependencies.retry(job)

        def change_items(job: Job, span: Span) -> Iterator[str]:
            return self._retry_items(job, span, request.selector.states)

        if request.args:
            self.policies.refuse_size(len(request.args), "the arguments have")
            _refuse_several(request.selector)
        yield from self._change(peer, request.rid, request.selector, change, change_items)

    def _retry_items(self, job: Job, span: Span, states: Collection[State]) -> Iterator[str]:
        """Give items of an array another round; yield "" until the last step, which yields the answer."""
        if job.state >= ENDED and (refusal := self._refusal(job, span)):
            yield refusal
            return
        count = 0
        for part in self.arrays.retry(job, span, states):
            count += part
            yield ""
        if not count:
            yield "has nothing to retry"
        elif span[1] - span[0] == 1:
            yield "queued again"
        else:
            yield f"queued {count} items again" if count > 1 else "queued 1 item again"

    def _refusal(self, job: Job, span: Span) -> str:
        """Return why items of an array that has ended get no other round; "": they do."""
        if self.scheduler.control.is_unsettled(job.id):
            return "has not ended"
        if job.state is State.SUCCEEDED:
            return "its array has succeeded" if span[1] - span[0] == 1 else "already succeeded"
        if not self.arrays.has_begun(job):
            return "has nothing to retry"
        if job.edges() and not self.arrays.has_run(job):
            answer = self.dependencies.retry(job)
            return "" if answer == "queued again" else answer
        return ""

    def _retry_edited(self, job: Job, args: bytes) -> str:
        """Open another round of a job with another call, in JSON as the one before."""
        if job.inputs or job.args[:1] not in JSON or args[:1] not in JSON:
            raise UsageError(
                f"the arguments of job {job.id} are not plain JSON, and cannot be edited",
                "submit it again with others",
            )
        job.args = args  # it comes from the store: should it not be loaded now, nobody sees this
        answer = self.dependencies.retry(job)
        if answer == "queued again":
            self.scheduler.ledger.batch.edited[job.id] = args
        return answer

    def _change(
        self,
        peer: bytes,
        rid: int,
        selector: Selector,
        change: Callable[[Job], str],
        change_items: Callable[[Job, Span], Iterator[str]] | None = None,
    ) -> Steps:
        """Apply a change to every selected job; each page is answered once it is durable."""
        scheduler = self.scheduler
        seen: set[int] = set()
        spans = [] if change_items is None else [*self.arrays.spans(selector)]
        if change_items is not None and spans:
            yield from self._change_items(peer, rid, spans, change_items, seen)
            selector = self.arrays.without(selector, spans)
        for infos in self.listing.matching(selector, listing.SLICE):
            answers: list[tuple[int, str]] = []
            for info in infos:
                seen.add(info.id)
                job = self.view.job(info.id)
                if job is not None:
                    answers.append((job.id, change(job)))
            hit("cancel.decided")
            if answers:
                scheduler.answer(peer, Answers(rid, answers, more=True))
            yield
        unknown = [number for number in missing(selector, seen) if number]
        if unknown and not seen:
            raise no_such_job(unknown[0])
        scheduler.answer(peer, Answers(rid, [(n, "not found") for n in unknown], more=False))

    def _change_items(
        self,
        peer: bytes,
        rid: int,
        spans: list[tuple[Job, Span]],
        change: Callable[[Job, Span], Iterator[str]],
        seen: set[int],
    ) -> Steps:
        """Apply a change to items, array by array; ``seen`` gets the numbers that are answered."""
        for job, span in spans:
            number = span[0] if span[1] - span[0] == 1 else job.id
            for answer in change(job, span):
                if answer:
                    seen.add(number)
                    self.scheduler.answer(peer, Answers(rid, [(number, answer)], more=True))
                yield

    def _stop(self, peer: bytes, request: Stop) -> None:
        self.clients.reply(peer, Accepted(request.rid))
        self.lifecycle.stop(request.drain_s)

    def _reload(self, peer: bytes, request: Reload) -> None:
        self.clients.reply(peer, Accepted(request.rid))
        self.lifecycle.reload()


def _refuse_several(selector: Selector) -> None:
    """Refuse another call for more than one job.

    Raises:
        UsageError: several may be selected.
    """
    if selector.all or selector.last or len(missing(selector, set())) != 1:
        raise UsageError("another call is for one job", "name it by its id")


def _last(steps: Iterator[str]) -> str:
    answer = ""
    for answer in steps:  # noqa: B007  # the last one counts
        pass
    return answer
