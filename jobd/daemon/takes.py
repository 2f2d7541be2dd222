"""Results that are consumed: each exactly once, whoever asks, and whoever dies over it.

A value is offered to one client at a time; the others wait.  Only when that client says
that it has it is a tombstone stored in its place, and only then are the others refused.
A client that is gone before, seen by its connection, has consumed nothing: the next one
is offered the value.  The token, chosen by the client, tells one who asks again after
the daemon was killed from one who comes too late.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from jobd.daemon.outbox import Clients
from jobd.daemon.payloads import Payloads
from jobd.daemon.turns import Handlers
from jobd.daemon.view import View
from jobd.inputs import refuse_gone
from jobd.model.errors import AlreadyTaken, JobdError, NotReady, UsageError, no_such_job
from jobd.model.item import shown
from jobd.model.job import TAKEN, Job
from jobd.model.messages import Accepted, Offered, Take, Taken, refusal
from jobd.model.states import ENDED, NAMES, State
from jobd.scheduler import Scheduler
from jobd.store import Store


class Offer(msgspec.Struct):
    """A value that somebody has been sent, and those who wait for the same."""

    peer: bytes
    token: bytes
    waiting: deque[tuple[bytes, Take]]


@dataclass
class TakeDesk:
    """Who consumes what."""

    scheduler: Scheduler
    store: Store
    view: View
    payloads: Payloads
    clients: Clients
    offers: dict[int, Offer] = field(default_factory=dict)

    @property
    def handlers(self) -> Handlers:
        """What it answers."""
        return {Take: self._take, Taken: self._taken}

    # -- requests --

    def _take(self, peer: bytes, request: Take) -> None:
        """Offer a value to somebody who wants to consume it, or have him wait.

        Raises:
            NotFound: there is no such job.
            NotReady: it has not ended.
            UsageError: it is an array, whose items have results, each its own.
            AlreadyTaken, ResultExpired: its value is gone.
        """
        number = request.id
        job = self.store.job(number)
        if job is None:
            raise no_such_job(number)
        _refuse(job)
        if job.state is not State.SUCCEEDED:
            self._reply(peer, request, job)
            return
        if job.value != TAKEN + request.token:
            refuse_gone(job.value or b"", number)
        offer = self.offers.get(number)
        if number in self.scheduler.window.jobs:  # it is being stored that it was taken
            self.scheduler.answer(peer, refusal(request.rid, _was_taken(number)))
        elif offer is None:
            self.offers[number] = Offer(peer, request.token, deque())
            self._reply(peer, request, job)
        elif offer.token == request.token:
            offer.peer = peer
            self._reply(peer, request, job)
        else:
            offer.waiting.append((peer, request))
            self._probe(number, offer)

    def _taken(self, peer: bytes, request: Taken) -> None:
        """Somebody has the value: it is consumed.

        Raises:
            NotFound: there is no such job.
            AlreadyTaken, ResultExpired: it has become somebody else's meanwhile, or is gone.
        """
        scheduler, number = self.scheduler, request.id
        job = self.view.job(number)
        if job is None or job.value is None:
            raise no_such_job(number)
        tombstone = TAKEN + request.token
        if job.value != tombstone:
            refuse_gone(job.value, number)
            offer = self.offers.get(number)
            if offer is not None and offer.token != request.token:
                raise _was_taken(number)
            self.offers.pop(number, None)
            self.payloads.release(job.value, job)
            scheduler.control.consume(scheduler.window.load(job), tombstone)
            for other, waiting in offer.waiting if offer else ():
                scheduler.answer(other, refusal(waiting.rid, _was_taken(number)))
        scheduler.answer(peer, Accepted(request.rid))

    # -- those that are gone --

    def probe(self) -> None:
        """Pass values on whose takers are not connected any more."""
        for number, offer in list(self.offers.items()):
            self._probe(number, offer)

    def forget(self, peer: bytes) -> None:
        """This client is gone."""
        for number, offer in list(self.offers.items()):
            offer.waiting = deque(entry for entry in offer.waiting if entry[0] != peer)
            if offer.peer == peer:
                self._pass_on(number, offer)

    def _probe(self, number: int, offer: Offer) -> None:
        if not self.clients.reaches(offer.peer):
            self._pass_on(number, offer)

    def _pass_on(self, number: int, offer: Offer) -> None:
        del self.offers[number]
        waiting = list(offer.waiting)
        for peer, request in waiting:  # the first gets it, the others wait behind it
            try:
                self._take(peer, request)
            except JobdError as error:
                self.clients.reply(peer, refusal(request.rid, error))

    def _reply(self, peer: bytes, request: Take, job: Job) -> None:
        offered = Offered(request.rid, job.id, job.state, job.value, job.error, job.cause, job.root)
        self.clients.reply(peer, offered, len(job.value or b""))


def _was_taken(number: int) -> AlreadyTaken:
    return AlreadyTaken(
        f"the result of job {shown(number)} was taken already", "it can be taken once"
    )


def _refuse(job: Job) -> None:
    """Refuse to hand out what no job has: the result of one that has not ended, or of a whole array."""
    number = shown(job.id)
    if job.array is not None:
        raise UsageError(
            f"job {number} is an array: each item has a result of its own",
            f"'jobd take {number}/0' takes one, 'jobd result {number}' reads all",
        )
    if job.state < ENDED:
        raise NotReady(
            f"job {number} is {NAMES[job.state]}: there is no result yet",
            f"'jobd take --wait {number}' waits for it",
        )
