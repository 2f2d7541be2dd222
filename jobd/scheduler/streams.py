"""Streams: what generators produce, who consumes it, and how far a producer may run ahead.

Items count from 1.  The marks of a stream only rise, in this order:

    first - 1 <= consumed <= stored <= made <= granted = consumed + bound

``consumed`` is what every follower has had, so the slowest of them moves the bound;
while nobody follows, it stands still, and so does the producer once it has come to
the bound.  A follower gets what is ``stored``, each item once and in order, and no more
ahead of what it has consumed than it asks for.  It begins with the oldest item that is
kept: the last ``bound`` ones are, consumed or not, so that somebody who comes a little
late misses nothing.

A stream that has produced something is not run again by itself: its followers
would see its beginning twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from jobd.model.blob import CODEC
from jobd.model.errors import NotFound, no_such_job
from jobd.model.job import Job
from jobd.model.messages import Follow, Reply, refusal
from jobd.model.options import BUILT_IN
from jobd.model.orders import CloseStream, Grant, Order
from jobd.scheduler.batch import Batch
from jobd.scheduler.ledger import Ledger

NOT_OPEN = -1
"""``made`` of a job that has not turned out to be a stream."""


class Follower(msgspec.Struct):
    """One consumer: the client ``peer``, which knows it by the number ``rid`` of its request."""

    peer: bytes
    rid: int
    job: int
    pushed: int
    """The last item that was sent to it."""
    consumed: int
    limit: int
    """The last item that it takes for now."""


class Stream(msgspec.Struct):
    """A job that produces items, or one that somebody follows and that may come to do so."""

    job: int
    bound: int
    worker: str = ""
    """Who produces; empty: nobody yet, or any more."""
    attempt: int = 0
    made: int = NOT_OPEN
    stored: int = NOT_OPEN
    first: int = 1
    """The oldest item that is kept."""
    consumed: int = 0
    over: bool = False
    """The job has ended, durably."""
    followers: dict[tuple[bytes, int], Follower] = {}
    is_known_stuck: bool = False
    """Those who wait for the job were told that it waits for a follower."""
    files: dict[int, bytes] = {}
    """Kept items that are references to files, by number.

    Those from before a restart of the daemon are not among them: a sweep finds their files.
    """

    @property
    def granted(self) -> int:
        """The last item that may be produced."""
        return self.consumed + self.bound

    @property
    def is_stuck(self) -> bool:
        """Whether it waits at its bound, and nobody is there to consume anything."""
        return bool(self.worker) and self.made >= self.granted and not self.followers


class Streams:
    """All streams that are produced or followed."""

    def __init__(self, ledger: Ledger) -> None:
        self.live: dict[int, Stream] = {}
        """By job."""
        self.due: dict[tuple[bytes, int], Follower] = {}
        """Followers for whom there may be items, or the end."""
        self.orders: list[tuple[str, Order]] = []
        """To be taken by the scheduler."""
        self.replies: list[tuple[bytes, Reply]] = []
        self.stuck: list[Stream] = []
        """Those that have come to wait for a follower; to be taken by the scheduler."""
        self._ledger = ledger

    def has_items(self, number: int) -> bool:
        """Whether this job has produced something, and so must not run again by itself."""
        stream = self.live.get(number)
        return stream is not None and stream.made > 0

    # -- the producer --

    def produced(self, uid: str, job: Job, first: int, values: list[bytes]) -> None:
        """The worker sends items, some of them perhaps again; they are shown once they are durable."""
        stream = self._of(job.id)
        stream.bound = bound_of(job)
        stream.worker, stream.attempt = uid, job.attempt
        batch = self._ledger.batch
        if stream.made == NOT_OPEN:
            stream.made = 0
            batch.items.append((job.id, 0, b""))
            self._grant(stream)
        if first > stream.made + 1:
            return  # a gap: no worker of ours leaves one
        for value in values[stream.made + 1 - first :]:
            stream.made += 1
            batch.items.append((job.id, stream.made, value))
            if value[:1] == CODEC:
                stream.files[stream.made] = value
        batch.urgent = True
        self._trim(stream, batch)
        if first + len(values) - 1 <= stream.stored:  # sent again: it need not be kept any longer
            self._grant(stream)
        self._look(stream)

    def resume(self, uid: str, job: Job, kept: tuple[int, int] | None) -> None:
        """At start: this job may still be produced; ``kept`` are its first and last stored items."""
        if kept is not None:
            stream = self.load(job, kept)
            stream.worker, stream.attempt = uid, job.attempt
            self._grant(stream)

    def load(self, job: Job, kept: tuple[int, int] | None) -> Stream:
        """Bring a stored stream into memory; what was consumed of it is not known any more."""
        stream = self._of(job.id)
        stream.bound = bound_of(job)
        if kept is not None:
            stream.first, stream.made = kept
            stream.stored = stream.made
            stream.consumed = max(0, stream.made - stream.bound)
            stream.attempt = job.attempt
        return stream

    def committed(self, batch: Batch) -> None:
        """These items are durable: their producers may forget them, and followers get them."""
        touched = {number: seq for number, seq, _ in batch.items}
        for number, seq in touched.items():
            stream = self.live.get(number)
            if stream is not None:
                stream.stored = max(stream.stored, min(seq, stream.made))
                self._grant(stream)
                self._wake(stream)

    def ended(self, number: int) -> None:
        """The job's end is durable: its followers are told, after its last items."""
        stream = self.live[number]
        stream.over = True
        stream.worker = ""
        self._wake(stream)
        self._forget_if_idle(stream)

    def put_back(self, number: int) -> None:
        """The attempt came to nothing before its first item; another one may produce some."""
        stream = self.live.get(number)
        if stream is not None:
            stream.worker = ""
            self._forget_if_idle(stream)

    def restart(self, number: int) -> None:
        """The job gets another round: what the last one has produced is deleted."""
        self._ledger.batch.cleared.append(number)
        stream = self.live.pop(number, None)
        if stream is not None:
            self._refuse_all(stream, begun_anew(number))

    def void(self, numbers: range) -> None:
        """The submit of these jobs has failed: nothing of them is kept, and what runs of them ends."""
        streams = [stream for number, stream in self.live.items() if number in numbers]
        for stream in streams:
            del self.live[stream.job]
            self._refuse_all(stream, no_such_job(stream.job))
            self.close(stream.worker, stream.job, stream.attempt)
        if streams:
            batch = self._ledger.batch
            batch.items = [item for item in batch.items if item[0] not in numbers]

    def close(self, uid: str, number: int, attempt: int) -> None:
        """Have a worker close its generator."""
        if uid:
            self.orders.append((uid, CloseStream(number, attempt)))

    # -- the consumers --

    def follow(self, peer: bytes, request: Follow) -> None:
        """Push a job's items to somebody, or go on where the daemon before this one has stopped.

        Raises:
            NotFound: what was followed then was another round of the job.
        """
        stream, after = self._of(request.id), request.after
        if after > max(stream.made, 0) or (after and request.attempt != stream.attempt):
            self._forget_if_idle(stream)
            raise begun_anew(request.id)
        oldest = stream.first - 1
        start = max(after, oldest)
        consumed = min(request.consumed, after) if after >= oldest else oldest
        key = (peer, request.rid)
        follower = Follower(*key, request.id, start, consumed, consumed + request.credit)
        stream.followers[key] = self.due[key] = follower
        stream.is_known_stuck = False
        self._advance(stream)

    def more(self, peer: bytes, rid: int, number: int, seq: int, credit: int) -> None:
        """A follower has consumed items, and takes some more."""
        stream = self.live.get(number)
        follower = stream.followers.get((peer, rid)) if stream else None
        if stream is None or follower is None:
            return  # it has been told the end meanwhile
        follower.consumed = max(follower.consumed, min(seq, follower.pushed))
        follower.limit = follower.consumed + credit
        self._advance(stream)
        self._wake_one(stream, follower)

    def unfollow(self, peer: bytes, rid: int, number: int) -> Stream | None:
        """A follower wants no more; return the stream if it is produced, and was its last one."""
        stream = self.live.get(number)
        if stream is None or stream.followers.pop((peer, rid), None) is None:
            return None
        self.due.pop((peer, rid), None)
        self._advance(stream)
        self._look(stream)
        self._forget_if_idle(stream)
        is_last = not stream.followers and stream.worker and stream.made != NOT_OPEN
        return stream if is_last else None

    def of_peer(self, peer: bytes) -> list[Follower]:
        """Return what this client follows."""
        return [follower for follower in self.followers() if follower.peer == peer]

    def followers(self) -> Iterator[Follower]:
        """Yield all followers of all streams."""
        for stream in self.live.values():
            yield from stream.followers.values()

    def wanted(self, follower: Follower) -> tuple[int, int]:
        """Return the numbers of the first and the last item that may be pushed; perhaps none."""
        return follower.pushed + 1, min(follower.limit, self.live[follower.job].stored)

    def pushed(self, follower: Follower, last: int) -> bool:
        """Items up to ``last`` are on their way; return whether these were the last of all."""
        stream = self.live[follower.job]
        follower.pushed = last
        key = (follower.peer, follower.rid)
        over = stream.over and last >= stream.stored
        if over:
            del stream.followers[key]
            self._forget_if_idle(stream)
        if over or last >= min(follower.limit, stream.stored):
            self.due.pop(key, None)
        return over

    # -- inside --

    def _of(self, number: int) -> Stream:
        stream = self.live.get(number)
        if stream is None:
            stream = self.live[number] = Stream(number, BUILT_IN.bound)
        return stream

    def _forget_if_idle(self, stream: Stream) -> None:
        if not (stream.worker or stream.followers):
            self.live.pop(stream.job, None)

    def _advance(self, stream: Stream) -> None:
        """Let the producer go on if the slowest of the followers has."""
        consumed = min((f.consumed for f in stream.followers.values()), default=0)
        if consumed > stream.consumed:
            stream.consumed = consumed
            self._grant(stream)

    def _look(self, stream: Stream) -> None:
        """Take note of a stream that has come to wait for a follower."""
        if not stream.is_known_stuck and stream.is_stuck:
            stream.is_known_stuck = True
            self.stuck.append(stream)

    def _grant(self, stream: Stream) -> None:
        if stream.worker:
            grant = Grant(stream.job, stream.attempt, stream.granted, stream.stored)
            self.orders.append((stream.worker, grant))

    def _trim(self, stream: Stream, batch: Batch) -> None:
        """Delete what is older than the last ``bound`` items, and needed by nobody."""
        upto = stream.made - stream.bound
        if upto >= stream.first:
            upto = min([upto, *(f.consumed for f in stream.followers.values())])
        if upto >= stream.first:
            files = stream.files
            batch.released += [files.pop(n) for n in range(stream.first, upto + 1) if n in files]
            stream.first = upto + 1
            batch.dropped[stream.job] = upto

    def _refuse_all(self, stream: Stream, error: NotFound) -> None:
        for key, follower in stream.followers.items():
            self.due.pop(key, None)
            self.replies.append((follower.peer, refusal(follower.rid, error)))

    def _wake(self, stream: Stream) -> None:
        for follower in stream.followers.values():
            self._wake_one(stream, follower)

    def _wake_one(self, stream: Stream, follower: Follower) -> None:
        if stream.over or follower.pushed < min(follower.limit, stream.stored):
            self.due[follower.peer, follower.rid] = follower


def begun_anew(number: int) -> NotFound:
    """Return what those are told who follow a round of the job that is over."""
    return NotFound(
        f"job {number} was retried: what it had produced before is gone", "follow it again"
    )


def bound_of(job: Job) -> int:
    """Return how many items a job may be ahead of its consumers."""
    return (job.policy or BUILT_IN).bound
