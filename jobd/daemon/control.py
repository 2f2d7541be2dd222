"""What clients want changed: jobs cancelled, held, released, retried; the daemon ended or reloaded.

Each page of jobs is answered once it is durable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobd.daemon import listing
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
            return scheduler.control.cancel(
                scheduler.window.load(job),
                request.reason,
                only_waiting=request.only_waiting,
                grace_us=grace_us,
            )

        yield from self._change(peer, request.rid, request.selector, change)

    def _hold(self, peer: bytes, request: Hold) -> Steps:
        scheduler = self.scheduler

        def change(job: Job) -> str:
            if job.id not in scheduler.window.jobs:
                if job.state >= ENDED:
                    return "already finished"
                if job.state is State.HELD:
                    return "held"
            return scheduler.control.hold(scheduler.window.load(job))

        yield from self._change(peer, request.rid, request.selector, change)

    def _release(self, peer: bytes, request: Release) -> Steps:
        scheduler = self.scheduler

        def change(job: Job) -> str:
            if job.id not in scheduler.window.jobs and job.state is not State.HELD:
                return "already finished" if job.state >= ENDED else "is not held"
            return scheduler.control.release(scheduler.window.load(job))

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
            return self.dependencies.retry(job)

        if request.args:
            self.policies.refuse_size(len(request.args), "the arguments have")
            chosen = request.selector
            if chosen.all or chosen.last or len(missing(chosen, set())) != 1:
                raise UsageError("another call is for one job", "name it by its id")
        yield from self._change(peer, request.rid, request.selector, change)

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
        self, peer: bytes, rid: int, selector: Selector, change: Callable[[Job], str]
    ) -> Steps:
        """Apply a change to every selected job; each page is answered once it is durable."""
        scheduler = self.scheduler
        seen: set[int] = set()
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
        unknown = missing(selector, seen)
        if unknown and not seen:
            raise no_such_job(unknown[0])
        scheduler.answer(peer, Answers(rid, [(n, "not found") for n in unknown], more=False))

    def _stop(self, peer: bytes, request: Stop) -> None:
        self.clients.reply(peer, Accepted(request.rid))
        self.lifecycle.stop(request.drain_s)

    def _reload(self, peer: bytes, request: Reload) -> None:
        self.clients.reply(peer, Accepted(request.rid))
        self.lifecycle.reload()
