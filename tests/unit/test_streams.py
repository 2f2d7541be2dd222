"""The marks of a stream: what may be made, what is shown to whom, and what is kept."""

from __future__ import annotations

from itertools import count

import pytest

from jobd.model.errors import NotFound
from jobd.model.job import Job
from jobd.model.messages import Follow, Refused
from jobd.model.options import Policy
from jobd.model.orders import CloseStream, Grant
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.streams import Follower, Streams

ANNE, BERT = b"anne", b"bert"
JOB = 7


class Desk:
    """Streams with a ledger, and a producer that makes what it may."""

    def __init__(self, bound: int = 3) -> None:
        self.ledger = Ledger(100, {}, 1)
        self.streams = Streams(self.ledger)
        self.job = Job(JOB, b"u" * 16, 1, "m:f", b"", 0, Policy(bound=bound), attempt=1)
        self.stored: dict[int, bytes] = {}
        self._rids = count(1)

    def produce(self, *seqs: int) -> None:
        """Hand in items, one report for each."""
        for seq in seqs:
            self.streams.produced("w1", self.job, seq, [b"%d" % seq])

    def open(self) -> None:
        """Say that the job is a stream."""
        self.streams.produced("w1", self.job, 1, [])

    def commit(self) -> None:
        """Store what was handed in."""
        batch = self.ledger.take()
        self.stored |= {seq: value for _, seq, value in batch.items}
        for seq in [seq for seq in self.stored if 1 <= seq <= batch.dropped.get(JOB, 0)]:
            del self.stored[seq]
        self.ledger.kept()
        self.streams.committed(batch)

    def follow(self, peer: bytes, after: int = 0, credit: int = 100, attempt: int = 1) -> Follower:
        """Have somebody follow."""
        rid = next(self._rids)
        seen = (attempt if after else 0, after, after)
        self.streams.follow(peer, Follow(rid, JOB, *seen, credit))
        return self.streams.live[JOB].followers[peer, rid]

    def push(self, follower: Follower) -> tuple[list[int], bool]:
        """Send a follower what it may have; return that, and whether it is all."""
        first, last = self.streams.wanted(follower)
        return list(range(first, last + 1)), self.streams.pushed(follower, max(last, first - 1))

    def consume(self, follower: Follower, upto: int, credit: int = 100) -> None:
        """Have a follower consume."""
        self.streams.more(follower.peer, follower.rid, JOB, upto, credit)

    @property
    def granted(self) -> tuple[int, int]:
        """What the producer was told last: how many items, and how many are durable."""
        order = [o for _, o in self.streams.orders if isinstance(o, Grant)][-1]
        return order.credit, order.recorded


@pytest.fixture
def desk() -> Desk:
    """Return streams with one that is open, and bound to three items."""
    desk = Desk()
    desk.open()
    desk.commit()
    return desk


class TestProducer:
    """How far it may go."""

    def test_it_may_make_as_many_as_the_bound_at_once(self) -> None:
        """It is told before anything of it is stored."""
        desk = Desk(bound=3)
        desk.open()
        assert desk.granted == (3, -1)
        desk.commit()
        assert desk.granted == (3, 0)

    def test_what_is_durable_need_not_be_kept_by_it(self, desk: Desk) -> None:
        """A commit tells up to where."""
        desk.produce(1, 2)
        assert desk.granted == (3, 0)
        desk.commit()
        assert desk.granted == (3, 2)

    def test_consumption_moves_the_bound(self, desk: Desk) -> None:
        """By as much as was consumed."""
        anne = desk.follow(ANNE)
        desk.produce(1, 2, 3)
        desk.commit()
        assert desk.push(anne) == ([1, 2, 3], False)
        desk.consume(anne, 2)
        assert desk.granted == (5, 3)

    def test_the_slowest_counts(self, desk: Desk) -> None:
        """Until it is gone."""
        anne, bert = desk.follow(ANNE), desk.follow(BERT)
        desk.produce(1, 2, 3)
        desk.commit()
        desk.push(anne), desk.push(bert)
        desk.consume(anne, 3)
        assert desk.granted == (3, 3)
        desk.consume(bert, 1)
        assert desk.granted == (4, 3)
        desk.streams.unfollow(BERT, bert.rid, JOB)
        assert desk.granted == (6, 3)

    def test_nobody_can_consume_what_was_not_sent_to_him(self, desk: Desk) -> None:
        """Whatever a client says."""
        anne = desk.follow(ANNE)
        desk.produce(1)
        desk.consume(anne, 3)
        assert desk.granted == (3, 0)

    def test_items_that_are_sent_again_count_once(self, desk: Desk) -> None:
        """Also when only some of them were known; a gap is not taken in."""
        desk.produce(1, 2)
        desk.streams.produced("w1", desk.job, 1, [b"1", b"2", b"3"])
        desk.streams.produced("w1", desk.job, 9, [b"9"])
        desk.commit()
        assert desk.stored == {0: b"", 1: b"1", 2: b"2", 3: b"3"}

    def test_what_is_sent_again_and_durable_is_acknowledged_again(self, desk: Desk) -> None:
        """Its producer did not hear it the first time."""
        desk.produce(1)
        desk.commit()
        desk.streams.orders.clear()
        desk.produce(1)
        assert desk.granted == (3, 1)


class TestFollower:
    """What it gets."""

    def test_nothing_before_it_is_durable(self, desk: Desk) -> None:
        """Then at once."""
        anne = desk.follow(ANNE)
        desk.push(anne)
        desk.produce(1)
        assert not desk.streams.due
        desk.commit()
        assert list(desk.streams.due.values()) == [anne]
        assert desk.push(anne) == ([1], False)
        assert not desk.streams.due

    def test_no_more_than_it_asks_for(self, desk: Desk) -> None:
        """Counted from what it has consumed."""
        anne = desk.follow(ANNE, credit=2)
        desk.produce(1, 2, 3)
        desk.commit()
        assert desk.push(anne) == ([1, 2], False)
        assert not desk.streams.due
        desk.consume(anne, 1, credit=2)
        assert desk.push(anne) == ([3], False)

    def test_the_end_comes_after_the_last_item_and_once(self, desk: Desk) -> None:
        """Then nothing of the stream is in memory."""
        anne = desk.follow(ANNE, credit=1)
        desk.produce(1, 2)
        desk.commit()
        desk.streams.ended(JOB)
        assert desk.push(anne) == ([1], False)
        desk.consume(anne, 1, credit=1)
        assert desk.push(anne) == ([2], True)
        assert not desk.streams.live
        assert not desk.streams.due

    def test_who_comes_late_begins_with_what_is_kept(self, desk: Desk) -> None:
        """The last items up to the bound, and what somebody slower still needs."""
        anne = desk.follow(ANNE)
        for seq in range(1, 8):
            desk.produce(seq)
            desk.commit()
            desk.push(anne)
            desk.consume(anne, seq)
        assert sorted(desk.stored) == [0, 5, 6, 7]
        bert = desk.follow(BERT)
        for seq in range(8, 11):
            desk.produce(seq)
            desk.commit()
        assert sorted(desk.stored) == [0, *range(5, 11)]
        assert desk.push(bert) == ([5, 6, 7, 8, 9, 10], False)

    def test_it_goes_on_with_the_next_daemon(self) -> None:
        """From the last item that it has received; what it has consumed is known again."""
        desk = Desk()
        desk.streams.resume("w1", desk.job, (4, 6))
        assert desk.granted == (6, 6)
        anne = desk.follow(ANNE, after=5)
        assert desk.push(anne) == ([6], False)
        assert desk.granted == (8, 6)

    def test_it_is_not_served_the_middle_of_another_round(self) -> None:
        """Neither by its attempt, nor by a number that there is not."""
        desk = Desk()
        desk.streams.resume("w1", desk.job, (1, 3))
        for after, attempt in ((2, 9), (5, 1)):
            with pytest.raises(NotFound, match="was retried"):
                desk.follow(ANNE, after=after, attempt=attempt)
        assert list(desk.streams.followers()) == []

    def test_a_retry_is_told_to_those_who_follow(self, desk: Desk) -> None:
        """What they have had is gone; the items are deleted."""
        anne = desk.follow(ANNE)
        desk.streams.restart(JOB)
        ((peer, refused),) = desk.streams.replies
        assert isinstance(refused, Refused)
        assert (peer, refused.rid, refused.error) == (ANNE, anne.rid, "not_found")
        assert desk.ledger.batch.cleared == [JOB]
        assert not desk.streams.live
        assert not desk.streams.due


class TestLastConsumer:
    """When a stream has nobody any more."""

    def test_only_the_last_one_leaves_it_alone(self, desk: Desk) -> None:
        """And only a stream that is produced."""
        anne, bert = desk.follow(ANNE), desk.follow(BERT)
        assert desk.streams.unfollow(ANNE, anne.rid, JOB) is None
        assert desk.streams.unfollow(BERT, bert.rid, JOB) is desk.streams.live[JOB]
        assert desk.streams.unfollow(BERT, bert.rid, JOB) is None

    def test_a_job_that_has_not_begun_is_left_to_itself(self) -> None:
        """It may turn out to be no stream."""
        desk = Desk()
        anne = desk.follow(ANNE)
        assert desk.streams.unfollow(ANNE, anne.rid, JOB) is None
        assert not desk.streams.live

    def test_all_that_a_client_follows_is_found(self, desk: Desk) -> None:
        """Once for each of its passes."""
        mine = [desk.follow(ANNE), desk.follow(ANNE)]
        desk.follow(BERT)
        assert desk.streams.of_peer(ANNE) == mine


class TestFailedSubmit:
    """A stream that was promised to nobody."""

    def test_nothing_of_it_is_stored(self, desk: Desk) -> None:
        """Its producer is closed, and who follows is told that there is no such job."""
        desk.follow(ANNE)
        desk.produce(1)
        desk.streams.void(range(JOB, JOB + 1))
        assert desk.ledger.batch.items == []
        assert ("w1", CloseStream(JOB, 1)) in desk.streams.orders
        assert [reply.error for _, reply in desk.streams.replies if isinstance(reply, Refused)] == [
            "not_found"
        ]
        assert not desk.streams.live
        assert not desk.streams.due


# -- a stream that nobody consumes --


def test_a_stream_at_its_bound_is_stuck_until_somebody_follows(desk: Desk) -> None:
    """That is told once, and again when the last one has gone."""
    stream = desk.streams.live[JOB]
    stuck = []
    for seq in (1, 2, 3, 3):
        desk.produce(seq)
        stuck.append(stream.is_stuck)
    assert stuck == [False, False, True, True]
    assert desk.streams.stuck == [stream]
    anne = desk.follow(ANNE)
    stuck.append(stream.is_stuck)
    assert not stuck[-1]
    desk.streams.unfollow(ANNE, anne.rid, JOB)
    assert desk.streams.stuck == [stream, stream]


def test_a_stream_that_has_ended_is_not_stuck(desk: Desk) -> None:
    """Nothing more is to come of it."""
    desk.produce(1, 2, 3)
    desk.commit()
    stream = desk.streams.live[JOB]
    desk.streams.ended(JOB)
    assert not stream.is_stuck
