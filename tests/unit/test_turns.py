"""Each client in its turn: what is done at once, what waits, and what becomes of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, cast

import pytest

from jobd.daemon.outbox import Clients
from jobd.daemon.turns import IN_A_TURN, UNDER_WAY, Steps, Turns
from jobd.model.messages import Cancel, Find, Ping, Status, Submit
from jobd.model.selector import Selector

ALL = Selector(all=True)
SUBMIT = Submit(1, b"k" * 16, "m:f", [b"j[[],{}]"], [(0, ())])


class FakeClients:
    """Clients that are behind when a test says so."""

    def __init__(self) -> None:
        self.behind: set[bytes] = set()
        self.lagging = self.behind
        self.paused: list[bytes] = []

    def is_behind(self, peer: bytes) -> bool:
        """Whether this one has to read."""
        return peer in self.behind

    def pause(self, peer: bytes) -> None:
        """It is not read any more."""
        self.paused.append(peer)

    def resume(self, peer: bytes) -> None:
        """It is read again."""
        self.paused.remove(peer)


class Desk:
    """Turns, and what is done in them."""

    def __init__(self) -> None:
        self.clients = FakeClients()
        self.tasks: deque[Steps] = deque()
        self.done: list[tuple[bytes, Any]] = []
        self.turns = Turns(cast("Clients", self.clients), self.tasks, self.handle)

    def handle(self, peer: bytes, request: Any) -> None:
        """Do a request; a long one goes on in the turns that follow."""
        self.done.append((peer, request))
        if isinstance(request, Find | Cancel):
            self.turns.begin(peer, self.steps(request), is_question=isinstance(request, Find))

    def steps(self, request: Any) -> Iterator[None]:
        """Take two turns."""
        yield
        self.done.append((b"", request.rid))

    def turn(self) -> None:
        """Go through one turn of the loop."""
        self.turns.go_on()
        for _ in range(len(self.tasks)):
            task = self.tasks.popleft()
            if next(task, True) is None:
                self.tasks.append(task)

    def count(self, peer: bytes) -> int:
        """Return how much of this client was done."""
        return sum(name == peer for name, _ in self.done)


@pytest.fixture
def desk() -> Desk:
    """Return turns in which nothing has been asked."""
    return Desk()


def test_so_many_questions_in_a_turn(desk: Desk) -> None:
    """The others wait, in their order, and so does what comes behind; another client is served."""
    desk.turns.take(b"a", [Status(n) for n in range(2 * IN_A_TURN)])
    desk.turns.take(b"a", [Status(2 * IN_A_TURN)])
    desk.turns.take(b"b", [Status(1)])
    assert (desk.count(b"a"), desk.count(b"b")) == (IN_A_TURN, 1)
    assert desk.clients.paused == [b"a"]
    assert desk.turns.has_more
    desk.turn()
    assert desk.count(b"a") == 2 * IN_A_TURN
    desk.turn()
    assert [r.rid for name, r in desk.done if name == b"a"] == list(range(2 * IN_A_TURN + 1))
    assert desk.clients.paused == []
    desk.turn()
    assert not desk.turns.has_more


def test_submits_and_pings_are_not_counted(desk: Desk) -> None:
    """They are what a busy client sends by the thousand, and cost little."""
    desk.turns.take(b"a", [SUBMIT, Ping(1)] * 1000)
    assert desk.count(b"a") == 2000
    assert not desk.clients.paused


@pytest.mark.parametrize("request_", [Status(1), SUBMIT, Ping(1)])
def test_who_is_behind_has_to_read_first(desk: Desk, request_: Any) -> None:
    """Nothing is done for it, the loop can sleep, and nothing more is read from it meanwhile."""
    desk.clients.behind.add(b"a")
    desk.turns.take(b"a", [request_] * 3)
    assert desk.done == []
    assert desk.clients.paused == [b"a"]
    desk.turn()
    assert not desk.turns.has_more
    assert desk.done == []
    desk.clients.behind.clear()
    desk.turn()
    assert desk.count(b"a") == 3
    assert desk.clients.paused == []


def test_who_comes_to_be_behind_in_the_midst_waits_from_there(desk: Desk) -> None:
    """A large answer is enough."""
    done = desk.handle

    def handle(peer: bytes, request: Any) -> None:
        done(peer, request)
        if request.rid == 2:
            desk.clients.behind.add(peer)

    desk.turns._handle = handle
    desk.turns.take(b"a", [Status(n) for n in range(5)])
    assert desk.count(b"a") == 3


def test_so_many_long_requests_at_a_time(desk: Desk) -> None:
    """Each is done in the end."""
    desk.turns.take(b"a", [Cancel(n, ALL) for n in range(3 * UNDER_WAY)])
    assert len(desk.tasks) == UNDER_WAY
    for _ in range(10):
        desk.turn()
        assert len(desk.tasks) <= UNDER_WAY
    assert sorted(r for name, r in desk.done if name == b"") == list(range(3 * UNDER_WAY))
    assert not desk.turns.has_more
    assert not desk.clients.paused


def test_a_long_question_stands_still_while_its_client_has_to_read(desk: Desk) -> None:
    """A change does not; and the loop can sleep."""
    desk.turns.take(b"a", [Find(1, ALL), Cancel(2, ALL)])
    desk.clients.behind.add(b"a")
    for _ in range(3):
        desk.turn()
    assert [r for name, r in desk.done if name == b""] == [2]
    assert not desk.tasks
    assert not desk.turns.has_more
    desk.clients.behind.clear()
    for _ in range(3):
        desk.turn()
    assert [r for name, r in desk.done if name == b""] == [2, 1]


def test_of_who_has_left_only_changes_are_done(desk: Desk) -> None:
    """Nobody waits for an answer; what was to be cancelled is."""
    desk.turns.take(b"a", [Find(1, ALL)])
    desk.clients.behind.add(b"a")
    desk.turn()
    desk.turns.take(b"a", [Status(2), Cancel(3, ALL), Find(4, ALL)])
    desk.clients.behind.clear()
    desk.turns.gone(b"a")
    for _ in range(4):
        desk.turn()
    assert [r for name, r in desk.done if name == b""] == [3]
    assert not desk.tasks
    assert desk.turns._under_way == {}
    assert desk.turns._waiting == {}
