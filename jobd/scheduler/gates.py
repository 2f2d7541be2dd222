"""Gates: names of which only so many jobs run at a time, and the lanes that wait for them.

A lane that is found closed is *parked*, and found closed only once: of those that wait for a name
one comes back for each start that has become possible, the one of the highest priority that
waits for nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from jobd.model.lane import Gate, gates_of

LetOut = Callable[[int, str], bool]
"""Lets the lane of this parking number and key take part again; returns whether it can be served."""


class Gates:
    """How many run with each name, and who waits."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        """Jobs that run, by the names of their gates."""
        self._waiters: dict[str, dict[int, list[tuple[int, int, str]]]] = {}
        """Parked lanes by name and limit: a heap of (-priority, number, lane)."""
        self._parkings = 0

    def started(self, lane: str) -> None:
        """A job of this lane runs."""
        for name, _ in gates_of(lane):
            self.running[name] += 1

    def ended(self, lane: str) -> None:
        """A job of this lane runs no longer."""
        for name, _ in gates_of(lane):
            self.running[name] -= 1
            assert self.running[name] >= 0
            if not self.running[name]:
                del self.running[name]

    def closed(self, gates: Iterable[Gate]) -> Gate | None:
        """Return the first of these that lets nobody through."""
        running = self.running
        for gate in gates:
            if running[gate.name] >= gate.limit:
                return gate
        return None

    def park(self, key: str, priority: int, gate: Gate) -> int:
        """Put a lane among those that wait for a gate; return its number there."""
        self._parkings += 1
        waiters = self._waiters.setdefault(gate.name, {}).setdefault(gate.limit, [])
        heappush(waiters, (-priority, self._parkings, key))
        return self._parkings

    def wake(self, name: str, let_out: LetOut) -> None:
        """Let out one of the lanes that wait for a name, for each limit that is not reached."""
        groups = self._waiters.get(name)
        if groups is None:
            return
        for limit in [limit for limit in groups if self.running[name] < limit]:
            waiters = groups[limit]
            while waiters and not let_out(*heappop(waiters)[1:]):
                pass
            if not waiters:
                del groups[limit]
        if not groups:
            self._waiters.pop(name, None)
