"""What there is of lanes in the store only.

A lane has the first of its jobs in memory, and the others in the store, beyond its ``cursor``
(``has_more``).  One that runs low is *thirsty*, and filled from the store.  Of each priority and
queue a bounded number of lanes is known; the others are found by a walk over the store's
index of lanes once there is room (``next_scan``), as all of them are at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from jobd.model.job import Job
from jobd.model.lane import parse_lane
from jobd.scheduler import known
from jobd.scheduler.batch import Submission
from jobd.scheduler.known import Known, Line, Node

SCAN = 200
"""Lanes that are looked up in one turn of the loop."""

REFILLS = 16
"""Lanes that are filled in one turn."""

REFILL = 4_000
"""Jobs that are loaded for one lane at a time."""

_BEHIND = ":"
"""A text behind all lanes: they begin with digits."""


class Stock:
    """Which lanes have jobs in the store only, and which of them are to be filled."""

    def __init__(self, lanes: Known, forget: Callable[[Line], None], *, has_stored: bool) -> None:
        """``forget`` is told of lanes without jobs; ``has_stored``: there may be some in the store already."""
        self._known = lanes
        self._forget = forget
        self.more: dict[str, Line] = {}
        self._thirsty: list[str] = []
        """A heap of lanes: those of the highest priority are filled first."""
        self._unsettled: dict[str, None] = {}
        """Lanes with jobs that are on their way to the store."""
        self.scan: str | None = "" if has_stored else None
        """At the start: up to which lane the store was looked through; None: all are known."""
        self._beyond: dict[tuple[int, str], Node] = {}

    @property
    def is_used(self) -> bool:
        """Whether there may be lanes in the store that are not known."""
        return self.scan is not None or bool(self._beyond)

    def make(self, text: str) -> Line:
        """Make a lane known; if it may be in the store, it is to be looked for there."""
        line = self._known.make(text)
        if line.node.has_beyond or (self.scan is not None and text > self.scan):
            line.has_more = True
            self.more[text] = line
            self.thirst(line)
        return line

    def dropped(self, line: Line) -> None:
        """A lane is known no longer."""
        self._unsettled.pop(line.key, None)
        self.more.pop(line.key, None)

    @property
    def wants_more(self) -> bool:
        """Whether something should be looked up in the store."""
        return bool(self._thirsty) or self.next_scan() is not None

    def thirsty(self, high: int, settled: int) -> list[tuple[Line, int]]:
        """Return lanes that are to be filled now, and with how many jobs; ``high`` is as for ``refill``."""
        found: list[tuple[Line, int]] = []
        while self._thirsty and len(found) < REFILLS:
            line = self._known.lines.get(heappop(self._thirsty))
            if line is None or not line.is_thirsty:
                continue
            line.is_thirsty = False
            if line.cursor >= high:
                self._looked_up(line, settled)
            elif self._is_low(line):
                found.append((line, min(REFILL, self._known.share() - len(line.ids))))
        return found

    def filled(self, line: Line, reached: int, high: int, settled: int) -> None:
        """A lane has what is stored of it up to the id ``reached``; for the others see ``thirsty``."""
        line.cursor = max(line.cursor, reached)
        if line.cursor < high:
            self.thirst(line)
        else:
            self._looked_up(line, settled)

    def _looked_up(self, line: Line, settled: int) -> None:
        """All that is stored of a lane is in memory; more may be on its way to the store."""
        if line.high > settled:
            self._unsettled[line.key] = None
            return
        line.has_more = False
        self.more.pop(line.key, None)
        if not line.ids:
            self._forget(line)

    def stored(self, submissions: Iterable[Submission], high: int) -> None:
        """These are in the store; what was left to it up to the id ``high`` is there by now, if ever."""
        for submission in submissions:
            if submission.lane:
                self._arrived(submission.lane, submission.first if submission.is_unseen else 0)
        for key in [key for key in self._unsettled if self._known.lines[key].high <= high]:
            del self._unsettled[key]
            line = self._known.lines[key]
            self.thirst(line)

    def spill(self, job: Job) -> None:
        """A job is in the store only from now on."""
        line = self._known.lines.get(job.lane)
        if line is None:
            self._arrived(job.lane)
            return
        self.leave(line, job.id, job.id)
        line.cursor = min(line.cursor, job.id - 1)
        self.thirst(line)

    def _arrived(self, text: str, unseen: int = 0) -> None:
        """There are jobs of this lane in the store; it is one that is not known, maybe.

        From the id ``unseen`` on there are some of which a lane that is known by now does not know.
        """
        line = self._known.lines.get(text)
        if line is not None:
            if unseen:
                line.cursor = min(line.cursor, unseen - 1) if line.has_more else unseen - 1
                line.has_more = True
                self.more[text] = line
            if line.has_more:
                self.thirst(line)
            return
        lane = parse_lane(text)
        node = self._known.node(lane.priority, lane.queue)
        if self._known.is_crowded(node):
            self._miss(node)
            return
        line = self.make(text)
        if not line.has_more:
            line.has_more = True
            self.more[text] = line
            self.thirst(line)

    def leave(self, line: Line, first: int, last: int) -> None:
        """Leave jobs of a lane to the store: those from the first id to the last."""
        line.high = max(line.high, last)
        if not line.has_more:
            line.has_more = True
            line.cursor = first - 1
            self.more[line.key] = line
        self._unsettled[line.key] = None

    def _is_low(self, line: Line) -> bool:
        return len(line.ids) <= self._known.share() // 4

    def thirst(self, line: Line) -> None:
        """Have a lane filled if it runs low."""
        if line.has_more and not line.is_thirsty and self._is_low(line):
            line.is_thirsty = True
            heappush(self._thirsty, line.key)

    # -- lanes that are not known --

    def next_scan(self) -> tuple[str, str] | None:
        """Return between which texts lanes are to be looked for, ``SCAN`` of them; None: nowhere."""
        if self.scan is not None:
            return self.scan, _BEHIND
        for node in self._beyond.values():
            if node.lanes <= known.LANES // 2 and len(self._known.lines) < known.ALL_LANES:
                return node.scan_at, node.span[1]
        return None

    def scanned(self, found: Iterable[str], *, is_all: bool) -> None:
        """Take in the lanes that were found from where ``next_scan`` said; ``is_all``: up to the end."""
        if self.scan is not None:
            self._scanned_first(found, is_all=is_all)
            return
        span = self.next_scan()
        assert span is not None
        node = next(node for node in self._beyond.values() if node.span[1] == span[1])
        for text in found:
            if text not in self._known.lines:
                if self._known.is_crowded(node):
                    return  # it goes on from here
                self.make(text)
            node.scan_at = text
        if is_all:
            node.scan_at = node.span[0]
            if node.has_missed:
                node.has_missed = False  # another round, from the beginning
            else:
                node.has_beyond = False
                del self._beyond[node.priority, node.queue]
                self._known.drop(node)

    def _scanned_first(self, found: Iterable[str], *, is_all: bool) -> None:
        for text in found:
            lane = parse_lane(text)
            node = self._known.node(lane.priority, lane.queue)
            if text not in self._known.lines:
                if self._known.is_crowded(node):
                    self._miss(node)
                    self.scan = node.span[1]
                    return
                self.make(text)
            self.scan = text
        if is_all:
            self.scan = None

    def _miss(self, node: Node) -> None:
        node.has_beyond = node.has_missed = True
        self._beyond[node.priority, node.queue] = node
