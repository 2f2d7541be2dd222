"""Who is told of the ends of jobs."""

from __future__ import annotations

from dataclasses import dataclass

from jobd.daemon import listing
from jobd.daemon.outbox import Clients
from jobd.daemon.progress import ProgressBoard
from jobd.daemon.turns import Steps, Turns
from jobd.daemon.view import View
from jobd.model.messages import Stuck, Watch, Watching
from jobd.model.states import ENDED
from jobd.scheduler import Scheduler, ended_message


@dataclass(frozen=True)
class Watches:
    """Has clients told."""

    scheduler: Scheduler
    view: View
    progress: ProgressBoard
    clients: Clients
    turns: Turns

    def watch_all(self, peer: bytes, first: int, count: int) -> None:
        """Tell a client of the ends of these jobs."""
        steps = self.watch(peer, Watch(0, list(range(first, first + count))))
        self.turns.begin(peer, steps, is_question=True)

    def watch(self, peer: bytes, request: Watch) -> Steps:
        """Tell a client of the ends of jobs, at once of those that were."""
        scheduler, clients = self.scheduler, self.clients
        unknown: list[int] = []
        if request.progress:
            self.progress.look_on(peer, request.ids)
        for index, number in enumerate(request.ids):
            if index % listing.SLICE == listing.SLICE - 1:
                yield
            job = self.view.job(number)
            if job is None and scheduler.ledger.stored_high < number < scheduler.ledger.next_id:
                scheduler.window.watch(peer, number)
            elif job is None:
                unknown.append(number)
            elif job.state >= ENDED and number not in scheduler.window.jobs:
                clients.reply(peer, ended_message(job))
            else:
                self._watch_one(peer, number)
        if request.rid:
            clients.reply(peer, Watching(request.rid, unknown))

    def _watch_one(self, peer: bytes, number: int) -> None:
        """Tell a client of the end of a job that has not ended, and if it waits for a consumer."""
        scheduler = self.scheduler
        scheduler.window.watch(peer, number)
        at_bound = scheduler.at_bound(number)
        if at_bound is not None:
            self.clients.reply(peer, Stuck(number, at_bound))
