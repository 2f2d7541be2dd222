"""Streams in a simulation: what a worker has produced, what a client follows, and the rules for both.

A value names the job, the attempt and its own number, so that nothing that is lost,
doubled, mixed up or out of order can pass for what was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
from fake_store import FakeStore

from jobd.model.job import Job
from jobd.model.messages import Follow, Items, More, Unfollow
from jobd.model.orders import CloseStream, Grant, Produced, Task
from jobd.model.states import ENDED
from jobd.scheduler import Scheduler

FUNCTION = "m:stream"


def value_of(task: Task, seq: int) -> bytes:
    """Return an item: no other one is the same."""
    return b"%s/%d#%d" % (task.args, task.attempt, seq)


class FakeStream:
    """A generator at work in a worker; as ``jobd.pool.streams.Stream``."""

    def __init__(self, task: Task, total: int) -> None:
        self.task = task
        self.total = total
        """How many items it produces if nobody stops it."""
        self.is_open = False
        self.made = 0
        self.credit = 0
        self.closing = False
        self.kept: list[Produced] = []

    def next(self, number: int) -> Produced:
        """Make the next item, or say that this is a stream; ``number`` is that of the frame."""
        task = self.task
        self.made += self.is_open
        values = [value_of(task, self.made)] if self.is_open else []
        first = self.made + (not self.is_open)
        self.is_open = True
        message = Produced(number, task.id, task.attempt, first, values)
        self.kept.append(message)
        return message

    def obey(self, order: Grant | CloseStream) -> None:
        """Hear from the daemon."""
        if (order.id, order.attempt) != (self.task.id, self.task.attempt):
            return
        if isinstance(order, CloseStream):
            self.closing = True
            return
        self.credit = max(self.credit, order.credit)
        upto = order.recorded
        self.kept = [m for m in self.kept if m.first + len(m.values) - 1 > upto]


class Pass(msgspec.Struct):
    """What one follower has had."""

    rid: int
    job: int
    credit: int
    received: int = 0
    consumed: int = 0
    attempt: int = 0
    of: bytes = b""
    """The job and the attempt, as the items have it."""
    is_again: bool = False
    """A daemon has died since: what others have consumed meanwhile may be gone."""


class Follower:
    """A client's half of streams."""

    def __init__(self, ask: Callable[[Follow | More | Unfollow], None]) -> None:
        self.passes: dict[int, Pass] = {}
        self._ask = ask

    def follow(self, rid: int, job: int, credit: int) -> None:
        """Begin to follow a job, or go on with another daemon."""
        one = self.passes.setdefault(rid, Pass(rid, job, credit))
        self._ask(Follow(rid, one.job, one.attempt, one.received, one.consumed, one.credit))

    def hear(self, told: Items) -> None:
        """Take in items; they must be the next ones."""
        one = self.passes.get(told.rid)
        if one is None:
            return  # it has turned away meanwhile
        if one.received and told.first != one.received + 1 and told.values and not one.is_again:
            raise AssertionError(f"{told} is told to one who has had {one.received}")
        for seq, value in enumerate(told.values, told.first):
            of, _, number = value.rpartition(b"#")
            if int(number) != seq or (one.of and of != one.of):
                raise AssertionError(f"{value!r} is told as item {seq} of {one.of!r}")
            one.of = of
        if told.values:
            one.attempt = told.attempt
            if not one.received:
                one.consumed = told.first - 1
                one.is_again = False
            one.received = told.first + len(told.values) - 1
        if told.over:
            del self.passes[told.rid]

    def consume(self, choose: Callable[[int], int]) -> tuple[bytes, int] | None:
        """Consume something of what was received; ``choose`` draws a number under its argument."""
        hungry = [one for one in self.passes.values() if one.consumed < one.received]
        if not hungry:
            return None
        one = hungry[choose(len(hungry))]
        one.consumed += choose(one.received - one.consumed) + 1
        self._ask(More(one.rid, one.job, one.consumed, one.credit))
        return one.of, one.consumed

    def turn_away(self, choose: Callable[[int], int]) -> None:
        """Stop following something."""
        if self.passes:
            rid = list(self.passes)[choose(len(self.passes))]
            self._ask(Unfollow(rid, self.passes.pop(rid).job, close=choose(2) == 0))


class StreamTruth:
    """What was really produced and consumed, by job and attempt."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self.passes: Callable[[], Iterator[Pass]] = lambda: iter(())
        self._made: dict[bytes, int] = {}
        self._consumed: dict[bytes, int] = {}

    def begun(self, task: Task) -> None:
        """An attempt starts; what had its number before was promised to nobody."""
        of = value_of(task, 0).rpartition(b"#")[0]
        self._made.pop(of, None)
        self._consumed.pop(of, None)

    def produced(self, stream: FakeStream) -> None:
        """Judge how far a producer is ahead: what nobody has consumed is bounded."""
        of = value_of(stream.task, 0).rpartition(b"#")[0]
        self._made[of] = stream.made
        ahead = stream.made - self._consumed.get(of, 0)
        job = self._store.job(stream.task.id)
        bound = job.policy.bound if job and job.policy and job.args == stream.task.args else 3
        if ahead > bound:
            raise AssertionError(f"{of!r} is {ahead} items ahead, over {bound}")
        for one in self.passes():
            # Who came late had up to as many again to catch up with.
            if one.of == of and not one.is_again and stream.made - one.consumed > 2 * bound:
                raise AssertionError(f"{of!r} is at {stream.made}, far ahead of {one}")

    def consumed(self, of: bytes, seq: int) -> None:
        """A follower has consumed up to this item."""
        self._consumed[of] = max(seq, self._consumed.get(of, 0))

    def has_items(self, number: int) -> bool:
        """Whether items of a job are durable."""
        return any(self._store.produced.get(number, ()))

    def judge_told(self, told: Items, *, reopened: bool) -> None:
        """4: what is told is durable; the end comes after the last item."""
        kept = self._store.produced.get(told.id, {})
        for seq, value in enumerate(told.values, told.first):
            if kept.get(seq) != value:
                raise AssertionError(f"4: item {seq} of job {told.id} is told and not durable")
        if told.over and not reopened:
            if (self._store.state_of(told.id) or 0) < ENDED:
                raise AssertionError(f"4: {told} is told of a job that has not ended")
            if told.values and told.first + len(told.values) - 1 != max(kept):
                raise AssertionError(f"{told} is told to be all, and there are {max(kept)}")

    def judge_end(self, row: Job) -> None:
        """A producer that came to its end has left all that it made."""
        made = self._made.get(b"%s/%d" % (row.args, row.attempt))
        kept = self._store.produced.get(row.id)
        if made is not None and (not kept or max(kept) != made):
            raise AssertionError(f"job {row.id} has made {made} items, there are {kept}")


def check_streams(scheduler: Scheduler, store: FakeStore) -> None:
    """Look at the marks of every stream."""
    for number, stream in scheduler.streams.live.items():
        marks = [stream.stored, stream.made, stream.granted]
        least = [stream.first - 1, min(stream.consumed, max(stream.made, 0))]
        if marks != sorted(marks) or max(least) > max(stream.made, 0):
            raise AssertionError(f"the marks of {stream} are out of order")
        if not (stream.worker or stream.followers or number in scheduler.window.jobs):
            raise AssertionError(f"9: {stream} is in memory for nothing")
        for one in stream.followers.values():
            if not one.consumed <= one.pushed <= max(stream.stored, stream.first - 1, 0):
                raise AssertionError(f"{one} is ahead of {stream}")
        kept = sorted(seq for seq in store.produced.get(number, ()) if seq)
        if kept != list(range(kept[0], kept[-1] + 1) if kept else ()):
            raise AssertionError(f"of {stream} there are {kept}")
        if len(kept) > 2 * stream.bound + 1:
            raise AssertionError(f"9: {len(kept)} items are kept of {stream}")
