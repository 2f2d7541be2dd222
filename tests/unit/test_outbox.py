"""What goes out to peers: one frame for each, and for some it waits until they have connected."""

from __future__ import annotations

from typing import cast

from jobd.daemon.outbox import Outbox
from jobd.model.messages import encode
from jobd.model.orders import Recorded, Retire
from jobd.wire.router import Router


class FakeRouter:
    """A router with the peers that a test connects."""

    def __init__(self) -> None:
        self.connected: set[bytes] = set()
        self.sent: list[tuple[bytes, bytes]] = []

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Take a frame, if the peer is there."""
        if peer in self.connected:
            self.sent.append((peer, frame))
        return peer in self.connected


class TestOutbox:
    """Messages for the peers of one socket."""

    def test_one_frame_for_each_peer(self) -> None:
        """In the order in which the messages were put; those who are not there are named."""
        router = FakeRouter()
        router.connected |= {b"a", b"b"}
        outbox = Outbox(cast("Router", router))
        for peer, number in [(b"a", 1), (b"b", 2), (b"a", 3), (b"c", 4)]:
            outbox.put(peer, Recorded([number]))
        outbox.put_all([(b"b", Recorded([5])), (b"d", Recorded([6])), (b"b", Recorded([7]))])
        assert outbox.flush() == [b"c", b"d"]
        assert router.sent == [
            (b"a", encode([Recorded([1]), Recorded([3])])),
            (b"b", encode([Recorded([2]), Recorded([5]), Recorded([7])])),
        ]
        router.connected.add(b"c")
        assert outbox.flush() == []
        assert len(router.sent) == 2

    def test_for_some_peers_messages_wait(self) -> None:
        """They go out in their order, with what has come since, once the peer has connected."""
        router = FakeRouter()
        outbox = Outbox(cast("Router", router), lambda peer: peer == b"w")
        outbox.put(b"w", Recorded([1]))
        outbox.put(b"x", Recorded([2]))
        assert outbox.flush() == [b"w", b"x"]
        assert outbox.flush() == [b"w"]
        outbox.put(b"w", Retire())
        router.connected |= {b"w", b"x"}
        assert outbox.flush() == []
        assert router.sent == [(b"w", encode([Recorded([1]), Retire()]))]
        assert outbox.flush() == []

    def test_what_is_put_off_goes_with_what_comes_next(self) -> None:
        """Before it, in one frame; no frame is sent for it alone, until it is put off no more."""
        router = FakeRouter()
        router.connected |= {b"a", b"b"}
        outbox = Outbox(cast("Router", router))
        for peer, number in [(b"a", 1), (b"b", 2), (b"a", 3)]:
            outbox.put_off(peer, Recorded([number]))
        assert outbox.flush() == []
        assert router.sent == []
        outbox.put(b"a", Retire())
        assert outbox.flush() == []
        assert router.sent == [(b"a", encode([Recorded([1]), Recorded([3]), Retire()]))]
        outbox.put(b"b", Recorded([4]))
        outbox.put_off(b"b", Recorded([5]))
        outbox.put_off_no_more()
        outbox.put_off_no_more()
        assert outbox.flush() == []
        assert router.sent[1:] == [(b"b", encode([Recorded([2]), Recorded([4]), Recorded([5])]))]

    def test_it_waits_only_for_as_long_as_somebody_may_come(self) -> None:
        """When the peer is dead, what was kept for it is dropped."""
        router, alive = FakeRouter(), {b"w"}
        outbox = Outbox(cast("Router", router), alive.__contains__)
        outbox.put(b"w", Retire())
        outbox.flush()
        alive.clear()
        assert outbox.flush() == [b"w"]
        assert outbox.flush() == []
