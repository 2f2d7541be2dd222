"""Streams as clients see them: who follows, what is sent to whom, and who is gone.

The scheduler knows how far each follower may be served; here the items are read from
the store, which shows only what is durable, and sent.  A client that is killed while
it is at an item says nothing any more, and nothing is sent to it either, so each is
probed now and then: an empty frame cannot be sent to a connection that is gone.  A
client that is only slow or stopped stays connected, for as long as it likes.
"""

from __future__ import annotations

from jobd.daemon.outbox import Clients
from jobd.daemon.turns import Handlers
from jobd.model.errors import UsageError, no_such_job
from jobd.model.job import Job
from jobd.model.messages import Follow, Items, More, Unfollow, refusal
from jobd.model.states import ENDED, State
from jobd.scheduler import Follower, Scheduler
from jobd.store import Store


class StreamDesk:
    """Serves the followers of streams."""

    def __init__(self, scheduler: Scheduler, store: Store, clients: Clients) -> None:
        self._scheduler = scheduler
        self._streams = scheduler.streams
        self._store = store
        self._clients = clients
        self.has_more = False
        """There is more to do than was done in one turn of the loop."""

    @property
    def handlers(self) -> Handlers:
        """What it answers."""
        return {Follow: self._follow, More: self._more, Unfollow: self._unfollow}

    # -- requests --

    def _follow(self, peer: bytes, request: Follow) -> None:
        """Push the items of a stream, or of a job that may become one."""
        number = request.id
        if number not in self._streams.live:
            self._load(number)
        self._streams.follow(peer, request)

    def _more(self, peer: bytes, request: More) -> None:
        """A follower has consumed something."""
        self._streams.more(peer, request.rid, request.id, request.seq, request.credit)

    def _unfollow(self, peer: bytes, request: Unfollow) -> None:
        """A follower wants no more."""
        self._scheduler.unfollow(peer, request.rid, request.id, close=request.close)

    def _load(self, number: int) -> None:
        """Bring what is stored of a stream into memory.

        Raises:
            NotFound: there is no such job.
            UsageError: it has succeeded, and was no stream.
        """
        scheduler, store = self._scheduler, self._store
        live = scheduler.window.jobs.get(number)
        job = live or store.job(number)
        if job is None:
            on_their_way = scheduler.ledger.submissions.values()
            if not any(s.first <= number < s.first + s.count for s in on_their_way):
                raise no_such_job(number)
            return
        has_ended = live is None and job.state >= ENDED
        kept = store.kept_items(number) if has_ended else None
        if has_ended and kept is None and job.state is State.SUCCEEDED:
            raise _no_stream(job)
        self._streams.load(job, kept).over = has_ended

    # -- serving --

    def serve(self) -> None:
        """Send what may be sent, as much to each as one reading of the store gives."""
        self.has_more = False
        for follower in list(self._streams.due.values()):
            if not self._clients.is_behind(follower.peer):
                self._serve(follower)
                self.has_more |= (follower.peer, follower.rid) in self._streams.due

    def _serve(self, follower: Follower) -> None:
        streams = self._streams
        first, last = streams.wanted(follower)
        values = self._store.items(follower.job, first, last) if last >= first else []
        stream = streams.live[follower.job]
        is_stream = stream.made >= 0
        over = streams.pushed(follower, first + len(values) - 1)
        if over and not is_stream:
            job = self._store.job(follower.job)
            if job is not None and job.state is State.SUCCEEDED:
                self._clients.reply(follower.peer, refusal(follower.rid, _no_stream(job)))
                return
        if values or over:
            items = Items(follower.rid, follower.job, stream.attempt, first, values, over)
            self._clients.reply(follower.peer, items, sum(map(len, values)))

    # -- those that are gone --

    def probe(self) -> None:
        """Find out which followers are not connected any more."""
        for peer in dict.fromkeys(follower.peer for follower in self._streams.followers()):
            self.check(peer)

    def check(self, peer: bytes) -> None:
        """If this client is gone, it follows nothing any more."""
        mine = self._streams.of_peer(peer)
        if mine and not self._clients.reaches(peer):
            self.has_more = True
            for follower in mine:
                self._scheduler.unfollow(peer, follower.rid, follower.job, close=True)


def _no_stream(job: Job) -> UsageError:
    return UsageError(
        f"job {job.id} is no stream: {job.function} has returned one value",
        f"'jobd result {job.id}' prints it",
    )
