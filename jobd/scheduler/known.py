"""The lanes that are known, their queues, and how many of their jobs are in memory."""

from __future__ import annotations

from collections import OrderedDict

from jobd.model.lane import Gate, parse_lane, span_of
from jobd.model.options import HIGHEST
from jobd.model.queues import DEFAULT

JOBS = 65_536
"""Laned jobs in memory; a lane of which there is nothing yet gets ``LEAST`` beyond that."""

BYTES = 64 * 1024 * 1024
"""What their arguments may take."""

MOST, LEAST = 8_192, 4
"""Jobs of one lane in memory; the more lanes there are, the fewer."""

LANES = 4_096
"""Known lanes of one priority and queue."""

ALL_LANES = 65_536

FIRST = HIGHEST + 1
"""The priority of jobs for which others wait."""


class Line:
    """A lane, as far as it is in memory."""

    __slots__ = (
        "bytes",
        "cursor",
        "entry",
        "fair_key",
        "gates",
        "has_more",
        "high",
        "ids",
        "is_thirsty",
        "key",
        "node",
        "parked",
        "text",
    )

    def __init__(
        self, key: str, text: str, node: Node, fair_key: str, gates: tuple[Gate, ...]
    ) -> None:
        self.key = key
        """Its name here."""
        self.text = text
        """Its name in the store; "" if it is not there."""
        self.node = node
        self.fair_key = fair_key
        self.gates = gates
        self.ids: list[int] = []
        """A heap of the jobs that are ready; some may have been cancelled since."""
        self.bytes = 0
        self.entry = 0
        """Under which id it takes part in its ring; 0: it does not."""
        self.parked = 0
        """Which of those that wait for gates it is; 0: none."""
        self.has_more = False
        """There may be more of its jobs in the store only, beyond the cursor."""
        self.cursor = 0
        self.high = 0
        """The highest id that was left to the store."""
        self.is_thirsty = False


class Node:
    """The lanes of one priority and queue: a ring of fair keys, each with a heap of (id, lane)."""

    __slots__ = (
        "has_beyond",
        "has_missed",
        "lanes",
        "name",
        "priority",
        "queue",
        "ring",
        "scan_at",
        "span",
    )

    def __init__(self, priority: int, queue: str, span: tuple[str, str]) -> None:
        self.priority = priority
        self.queue = queue
        self.ring: OrderedDict[str, list[tuple[int, str]]] = OrderedDict()
        self.lanes = 0
        self.has_beyond = False
        """There may be lanes in the store that are not known here."""
        self.has_missed = False
        """One of them came since the walk over them has begun anew."""
        self.span = span
        self.scan_at = span[0]


class Known:
    """All of them."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.nodes: dict[tuple[int, str], Node] = {}
        self.count = 0
        """Ready jobs in all lanes; some may have been cancelled since."""
        self.bytes = 0

    def make(self, text: str) -> Line:
        """Make a lane known."""
        lane = parse_lane(text)
        node = self.node(lane.priority, lane.queue)
        line = self.lines[text] = Line(text, text, node, lane.fair_key, lane.gates)
        node.lanes += 1
        return line

    def make_first(self, key: str, text: str) -> Line:
        """Make a lane for those of its jobs for which others wait."""
        lane = parse_lane(text)
        node = self.node(FIRST, lane.queue)
        line = self.lines[key] = Line(key, "", node, lane.fair_key, lane.gates)
        node.lanes += 1
        return line

    def forget(self, line: Line) -> bool:
        """Know a lane no longer; return whether it was known."""
        if self.lines.pop(line.key, None) is None:
            return False
        line.node.lanes -= 1
        self.drop(line.node)
        return True

    def node(self, priority: int, queue: str) -> Node:
        """Return what is known of a priority and queue."""
        node = self.nodes.get((priority, queue))
        if node is None:
            span = span_of(f"{HIGHEST - priority:04d}\t{queue}\t")
            node = self.nodes[priority, queue] = Node(priority, queue, span)
        return node

    def drop(self, node: Node) -> None:
        """Forget a priority of a queue that has no lanes."""
        has_plain = node.queue == DEFAULT and node.priority in (0, FIRST)
        if not (node.lanes or node.has_beyond or has_plain):
            self.nodes.pop((node.priority, node.queue), None)

    def has_room_for(self, text: str) -> bool:
        """Whether a lane that is not known may be made known."""
        lane = parse_lane(text)
        return not self.is_crowded(self.node(lane.priority, lane.queue))

    def is_crowded(self, node: Node) -> bool:
        """Whether no more lanes of this priority and queue may be known."""
        return node.lanes >= LANES or len(self.lines) >= ALL_LANES

    def share(self) -> int:
        """Return how many jobs of a lane may be in memory."""
        if self.count >= JOBS or self.bytes >= BYTES:
            return LEAST
        return max(LEAST, min(MOST, JOBS // (len(self.lines) or 1)))

    def is_spare(self, line: Line, count: int) -> bool:
        """Whether there is room for so many jobs more in a lane."""
        return len(line.ids) + count <= self.share()
