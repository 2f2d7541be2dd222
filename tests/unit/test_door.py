"""Who is let in, what the others are told, and what is kept back from clients."""

from __future__ import annotations

import resource
from typing import cast

import pytest

from jobd.daemon.door import FOR_A_WORKER, FOR_THE_HOUSE, Door
from jobd.model.messages import (
    PROTOCOL,
    Cancel,
    Hello,
    Ping,
    Refused,
    Request,
    Status,
    Stop,
    decode_replies,
    encode,
)
from jobd.model.selector import Selector
from jobd.wire.router import Router


class FakeRouter:
    """A router that admits whom a test names."""

    def __init__(self) -> None:
        self.friends: set[bytes] = set()
        self.guests = 2
        self.sent: list[tuple[bytes, bytes]] = []
        self.away: list[bytes] = []
        self.most_files = 0
        self.farewell = b""
        self.admitted = 3
        self.is_short = self.is_pressed = False

    def admits(self, peer: bytes) -> bool:
        """Whether this one is a friend."""
        return peer in self.friends

    def stays(self, peer: bytes) -> bool:  # noqa: ARG002  # as the real one
        """Take in two guests."""
        self.guests -= 1
        return self.guests >= 0

    def send(self, peer: bytes, frame: bytes) -> None:
        """Take a frame."""
        self.sent.append((peer, frame))

    def dismiss(self, peer: bytes) -> None:
        """Hang up on a peer."""
        self.away.append(peer)


def hello(*, errand: bool = False) -> Hello:
    """Return a client's first words."""
    return Hello(7, PROTOCOL, PROTOCOL, "1", errand)


def frame(peer: bytes, *requests: Request) -> tuple[bytes, bytes]:
    """Return what a client sends."""
    return peer, encode(list(requests))


@pytest.fixture
def router() -> FakeRouter:
    """Return a router that admits nobody."""
    return FakeRouter()


@pytest.fixture
def door(router: FakeRouter) -> Door:
    """Return the entrance of a daemon that serves three clients."""
    return Door(cast("Router", router), cast("Router", router), 3, 2, 4)


def test_friends_are_heard_and_the_others_are_told_why_not(door: Door, router: FakeRouter) -> None:
    """In one sentence, with a name and a number of its own; and what else they have sent is not heard."""
    router.friends.add(b"f")
    frames = [
        frame(b"f", Ping(1)),
        frame(b"x", hello()),
        frame(b"x", Cancel(9, Selector(all=True))),
        frame(b"f", Ping(2)),
    ]
    assert door.let_in(frames, 100.0) == [frames[0], frames[3]]
    ((peer, said),) = router.sent
    (refused,) = decode_replies(said)
    assert isinstance(refused, Refused)
    assert (peer, refused.rid, refused.error) == (b"x", 7, "too_many_clients")
    assert refused.message == "3 clients are connected, as many as this daemon serves"
    assert "limits.max_clients" in refused.hint
    assert router.away == [b"x"]


def test_it_counts_as_a_trouble_for_a_while(door: Door, router: FakeRouter) -> None:
    """Also if files were the reason; then that is what is to be raised."""
    assert door.trouble(100.0) == ""
    router.admitted = 1
    door.let_in([frame(b"x", hello())], 100.0)
    assert "1 client is connected, as many as this daemon has file descriptors" in door.trouble(101)
    assert "LimitNOFILE" in door.trouble(101)
    assert door.trouble(200.0) == ""


def test_errands_are_heard_all_the_same(door: Door, router: FakeRouter) -> None:
    """Of as many as there is room for; whoever asks for more than that is sent away."""
    frames = [
        frame(b"x", hello(errand=True)),
        frame(b"x", Status(1), Ping(2), Stop(3)),
    ]
    assert door.let_in(frames, 100.0) == frames
    assert door.let_in([frame(b"y", hello(errand=True))], 100.0) == []
    assert door.let_in([frame(b"x", Cancel(4, Selector(all=True)))], 100.0) == []
    assert router.away == [b"y", b"x"]


@pytest.mark.parametrize("said", [b"", b"\xff" * 20, encode([1, 2])])
def test_what_is_no_request_is_not_heard(door: Door, router: FakeRouter, said: bytes) -> None:
    """Nor does it break anything."""
    router.guests = 0
    assert door.let_in([(b"x", said)], 100.0) == []
    assert router.away == [b"x"]


@pytest.mark.parametrize(
    ("limit", "processes", "expected"),
    [
        (1000, 2, 1000 - FOR_THE_HOUSE - 6 * FOR_A_WORKER),
        (1000, 0, 1000 - FOR_THE_HOUSE - 8 * FOR_A_WORKER),
        (80, 2, 80 - FOR_THE_HOUSE - 20),
    ],
)
def test_files_are_kept_back(
    door: Door,
    router: FakeRouter,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    processes: int,
    expected: int,
) -> None:
    """For the house, the workers that are missing, and those that may come, within reason."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    door.look(processes)
    assert router.most_files == expected
    (refused,) = decode_replies(router.farewell)
    assert isinstance(refused, Refused)
