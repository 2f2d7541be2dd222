"""Each client in its turn: how much of what it asks is done at once, and when it has to read first.

A client may ask faster than it reads, or not read at all.  What it has not read is kept here,
so there is a bound on it: a client that is behind is not answered any further, what it has asked
already waits, and nothing more is read from it, so that its own socket fills up and it has
to wait as well.  Once it has read, it goes on.  What changes something is done whoever reads.

And in one turn of the loop only so many questions of one client are answered, and so many of
its long ones are under way, because others want to be heard too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from jobd.daemon.outbox import Clients
from jobd.model.messages import (
    Apply,
    Cancel,
    Fetch,
    Find,
    Gather,
    Graph,
    Hold,
    List,
    Logs,
    More,
    Ping,
    Put,
    Release,
    Retry,
    Status,
    Submit,
    Taken,
    Unfollow,
    Watch,
)

Steps = Iterator[None]
"""What may take long, a step for each turn of the loop."""

Handlers = dict[type, Callable[[bytes, Any], Steps | None]]
"""By the type of a request, who answers it: at once, or in steps."""

IN_A_TURN = 64
"""Questions of one client that are answered in one turn: a few milliseconds' worth."""

UNDER_WAY = 4
"""Long requests of one client at a time."""

QUICK = frozenset((Submit, Put, Apply, More, Ping, Taken, Unfollow))
"""Requests that cost next to nothing, or that go to the store anyway: as many as come."""

LONG = frozenset((Cancel, Find, Graph, Hold, List, Release, Retry, Watch))

QUESTIONS = frozenset((Fetch, Find, Gather, Graph, List, Logs, Status, Watch))
"""Requests that are of no use once nobody is there to be answered."""


class Paced:
    """A long request; with ``is_question`` it stands still while its client has to read."""

    __slots__ = ("is_question", "peer", "steps", "turns")

    def __init__(self, turns: Turns, peer: bytes, steps: Steps, *, is_question: bool) -> None:
        self.turns, self.peer, self.steps, self.is_question = turns, peer, steps, is_question

    def __iter__(self) -> Paced:
        return self

    def __next__(self) -> None:
        """Do a step; StopIteration also if there is none to do before the client has read."""
        if self.is_question and self.turns.puts_off(self):
            raise StopIteration
        try:
            next(self.steps)
        except BaseException:
            self.turns.ended(self)
            raise


class Turns:
    """What clients have asked, and is not done yet."""

    def __init__(
        self, clients: Clients, tasks: deque[Steps], handle: Callable[[bytes, Any], None]
    ) -> None:
        self._clients = clients
        self._tasks = tasks
        self._handle = handle
        self._lagging = clients.lagging
        self._asked: dict[bytes, int] = {}
        """Questions of each client in this turn."""
        self._waiting: dict[bytes, deque[Any]] = {}
        self._put_off: dict[bytes, list[Paced]] = {}
        self._under_way: dict[bytes, int] = {}
        self.has_more = False
        """Whether there is something to do that waits for the next turn only."""

    def take(self, peer: bytes, requests: list[Any]) -> None:
        """Handle requests, or have them wait for those before, or for their client to read."""
        nobody_waits = not (self._waiting or self._lagging)
        if nobody_waits and len(requests) == 1 and type(requests[0]) in QUICK:  # the usual case
            self._handle(peer, requests[0])
            return
        waiting = self._waiting.get(peer)
        if waiting is not None:
            waiting.extend(requests)
        elif self._clients.is_behind(peer):
            self._has_to_wait(peer, requests)
        else:
            for place, request in enumerate(requests):
                if type(request) not in QUICK and not self._has_room(peer, request):
                    self._has_to_wait(peer, requests[place:])
                    return
                self._handle(peer, request)

    def go_on(self) -> None:
        """A new turn: take up again what can be done now."""
        self._asked.clear()
        self.has_more = False
        if self._waiting:
            for peer in list(self._waiting):
                self._go_on_with(peer)
        if self._put_off:
            for peer in [peer for peer in self._put_off if not self._clients.is_behind(peer)]:
                self._tasks.extend(self._put_off.pop(peer))

    def begin(self, peer: bytes, steps: Steps, *, is_question: bool) -> None:
        """Do something long, a step in each turn."""
        self._under_way[peer] = self._under_way.get(peer, 0) + 1
        self._tasks.append(Paced(self, peer, steps, is_question=is_question))

    def puts_off(self, paced: Paced) -> bool:
        """Whether a question has to stand still because its client is behind; it is kept then."""
        if not self._clients.is_behind(paced.peer):
            return False
        self._put_off.setdefault(paced.peer, []).append(paced)
        return True

    def ended(self, paced: Paced) -> None:
        """A long request is over."""
        left = self._under_way.get(paced.peer, 0) - 1
        if left > 0:
            self._under_way[paced.peer] = left
        else:
            self._under_way.pop(paced.peer, None)

    def gone(self, peer: bytes) -> None:
        """A client has hung up: its questions are dropped, what it wants done is done."""
        for paced in self._put_off.pop(peer, ()):
            self.ended(paced)
        waiting = self._waiting.get(peer)
        if waiting is not None:
            self._waiting[peer] = deque(r for r in waiting if type(r) not in QUESTIONS)

    # -- inside --

    def _has_room(self, peer: bytes, request: Any) -> bool:
        """Whether one more request of this client can be done in this turn."""
        asked = self._asked.get(peer, 0)
        if asked >= IN_A_TURN or self._clients.is_behind(peer):
            return False
        if type(request) in LONG and self._under_way.get(peer, 0) >= UNDER_WAY:
            return False
        self._asked[peer] = asked + 1
        return True

    def _has_to_wait(self, peer: bytes, requests: list[Any]) -> None:
        self._waiting[peer] = deque(requests)
        self._clients.pause(peer)
        self.has_more = True

    def _go_on_with(self, peer: bytes) -> None:
        waiting = self._waiting[peer]
        while waiting:
            if self._clients.is_behind(peer):
                return  # its socket tells when it has read
            if type(waiting[0]) not in QUICK and not self._has_room(peer, waiting[0]):
                self.has_more = (
                    True  # or a task of it goes on, which does not let the loop sleep either
                )
                return
            self._handle(peer, waiting.popleft())
        del self._waiting[peer]
        self._clients.resume(peer)
