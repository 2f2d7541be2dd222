"""Whose turn it is: priorities, turns between queues and fair keys, and gates.

A job that is not plain waits in its lane (jobd.model.lane), in the order of ids.  The next
to start is the one of the highest priority; among the queues of that priority they take
turns, among the fair keys of a queue as well, and of one fair key the job with the lowest id
comes first.  The plain jobs take part as one more lane, of the priority 0, the queue
``default`` and no fair key.  Jobs for which others wait have lanes of their own, of a priority
above all.

Gates.  A queue may be closed (jobd.scheduler.queues), and so may a gate of the lane itself: a
name of which as many jobs run as may.  What is closed is *parked*, and found closed only
once: a queue comes back when something of it has ended or its rate allows the next start;
of the lanes that wait for a name one comes back for each start that has become possible, the one of
the highest priority that waits for nothing else.  No choice looks at all lanes.

Memory.  A lane has the first of its jobs here, and the others in the store only, beyond its
``cursor`` (``has_more``).  One that runs low is *thirsty*, and filled from the store.  Of each
priority and queue a bounded number of lanes is known; the others are found by a walk over the
store's index of lanes once there is room (``next_scan``), as all of them are at the start.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from heapq import heappop, heappush, heapreplace

from jobd.model.job import Job, Record
from jobd.model.lane import Gate, gates_of, parse_lane, span_of, words_of
from jobd.model.options import HIGHEST
from jobd.model.queues import DEFAULT
from jobd.model.states import State
from jobd.scheduler.batch import Backlog, Submission
from jobd.scheduler.plain import PlainQueue
from jobd.scheduler.queues import Queues

JOBS = 65_536
"""Laned jobs in memory; a lane of which there is nothing yet gets ``LEAST`` beyond that."""

BYTES = 64 * 1024 * 1024
"""What their arguments may take."""

MOST, LEAST = 8_192, 4
"""Jobs of one lane in memory; the more lanes there are, the fewer."""

LANES = 4_096
"""Known lanes of one priority and queue."""

ALL_LANES = 65_536

SCAN = 200
"""Lanes that are looked up in one turn of the loop."""

REFILLS = 16
"""Lanes that are filled in one turn."""

REFILL = 4_000
"""Jobs that are loaded for one lane at a time."""

FIRST = HIGHEST + 1
"""The priority of jobs for which others wait."""

_BEHIND = ":"
"""A text behind all lanes: they begin with digits."""


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


class Level:
    """The queues of one priority: a ring of those that are open, as far as is known."""

    __slots__ = ("parked", "ring")

    def __init__(self) -> None:
        self.ring: OrderedDict[str, Node] = OrderedDict()
        self.parked: dict[str, Node] = {}


class Lanes:
    """All lanes in memory, and what keeps each of them from being served."""

    def __init__(self, queues: Queues, plain: PlainQueue, *, has_stored: bool) -> None:
        """``has_stored``: there may be lanes in the store already."""
        self._queues = queues
        self._plain_jobs = plain
        self._jobs = plain.jobs
        self.count = 0
        """Ready jobs in all lanes; some may have been cancelled since."""
        self._bytes = 0
        self._lines: dict[str, Line] = {}
        self._nodes: dict[tuple[int, str], Node] = {}
        self._levels: dict[int, Level] = {}
        self._active: list[int] = []
        """A heap of the priorities of which something is open, as negative numbers."""
        self._plain = Line("plain", "", self._node(0, DEFAULT), "", ())
        self._plain_first = Line("plain, first", "", self._node(FIRST, DEFAULT), "", ())
        self._pseudo = {line.key: line for line in (self._plain, self._plain_first)}
        """Lines that stand for the window of plain jobs."""
        self._running: Counter[str] = Counter()
        """Jobs that run, by the names of their gates."""
        self._waiters: dict[str, dict[int, list[tuple[int, int, str]]]] = {}
        """Parked lanes by name and limit: a heap of (-priority, number, lane)."""
        self._parkings = 0
        self._woken: dict[str, None] = {}
        """Lanes that were let out of a gate, and not served since."""
        self._shut: dict[str, set[int]] = {}
        """Parked queues, and of which priorities."""
        self._opens: list[tuple[int, str]] = []
        """A heap of when the rates of queues open them."""
        self._more: dict[str, Line] = {}
        self._thirsty: list[str] = []
        """A heap of lanes: those of the highest priority are filled first."""
        self._unsettled: dict[str, None] = {}
        """Lanes with jobs that are on their way to the store."""
        self._scan: str | None = "" if has_stored else None
        """At the start: up to which lane the store was looked through; None: all are known."""
        self._beyond: dict[tuple[int, str], Node] = {}
        self._chosen: tuple[Level, Node, Line, Job] | None = None
        self.is_used = has_stored or queues.is_limited(DEFAULT)
        """Whether there is anything but plain jobs in an unlimited queue."""

    # -- coming --

    def has_room(self, job: Job) -> bool:
        """Whether a new job may be in memory; else its lane takes note that it is in the store only."""
        line = self._lines.get(job.lane)
        if line is None:
            lane = parse_lane(job.lane)
            if self._is_crowded(self._node(lane.priority, lane.queue)):
                return False
            line = self._make(job.lane)
        if self._is_spare(line, 1) and not (line.has_more and job.id > line.cursor):
            return True
        self._leave(line, job.id, job.id)
        return False

    def push(self, job: Job) -> None:
        """Make a job ready, in its place in its lane."""
        line = self._lines.get(job.lane) or self._make(job.lane)
        self._add(line, job)
        if len(line.ids) > 2 * MOST:
            self._tidy(line)

    def hasten(self, job: Job) -> None:
        """Let a job go before all others, if it is ready and its gates are open."""
        key = f"first\t{job.lane}"
        line = self._lines.get(key)
        if line is None:
            lane = parse_lane(job.lane)
            node = self._node(FIRST, lane.queue)
            line = self._lines[key] = Line(key, "", node, lane.fair_key, lane.gates)
            node.lanes += 1
            self.is_used = True
        if job.id not in line.ids:
            self._add(line, job)

    def admit(self, record: Record, lane: str, peer: bytes | None) -> bool:
        """Take in the jobs of a new record, or leave them to the store; ``peer`` watches them.

        False: there is no room for their lane either, and ``stored`` has to be told so.
        """
        first, count = record.first, len(record.args)
        line = self._lines.get(lane)
        if line is None:
            parsed = parse_lane(lane)
            if not self._is_crowded(self._node(parsed.priority, parsed.queue)):
                line = self._make(lane)
        if line is None or line.has_more or not self._is_spare(line, count):
            if line is not None:
                self._leave(line, first, first + count - 1)
            if peer is not None:
                self._plain_jobs.watchers.add(peer, first, first + count - 1)
            return line is not None
        batch = record.batch
        for number, args in enumerate(record.args, first):
            job = Job(
                number, record.uid, batch, record.function, args, record.created_at, record.policy
            )
            batch = 0
            job.lane, job.record = lane, record
            job.watchers = None if peer is None else (peer,)
            self._jobs[number] = job
            self._add(line, job)
        return True

    def _add(self, line: Line, job: Job) -> None:
        heappush(line.ids, job.id)
        line.bytes += len(job.args)
        self._bytes += len(job.args)
        self.count += 1
        if not line.parked and (not line.entry or job.id < line.entry):
            self._enter(line, job.id)

    def _tidy(self, line: Line) -> None:
        """Drop the ids of jobs that were cancelled while nobody looked."""
        before = len(line.ids)
        line.ids = sorted({number for number in line.ids if self._is_ready(number)})
        self.count -= before - len(line.ids)

    def _is_ready(self, number: int) -> bool:
        job = self._jobs.get(number)
        return job is not None and job.state is State.QUEUED and not job.void

    def _make(self, text: str) -> Line:
        """Make a lane known; if it may be in the store, it is to be looked for there."""
        lane = parse_lane(text)
        node = self._node(lane.priority, lane.queue)
        line = self._lines[text] = Line(text, text, node, lane.fair_key, lane.gates)
        node.lanes += 1
        self.is_used = True
        if node.has_beyond or (self._scan is not None and text > self._scan):
            line.has_more = True
            self._more[text] = line
            self._thirst(line)
        return line

    def _node(self, priority: int, queue: str) -> Node:
        node = self._nodes.get((priority, queue))
        if node is None:
            span = span_of(f"{HIGHEST - priority:04d}\t{queue}\t")
            node = self._nodes[priority, queue] = Node(priority, queue, span)
        return node

    def _is_crowded(self, node: Node) -> bool:
        return node.lanes >= LANES or len(self._lines) >= ALL_LANES

    def _share(self) -> int:
        """Return how many jobs of a lane may be in memory."""
        if self.count >= JOBS or self._bytes >= BYTES:
            return LEAST
        return max(LEAST, min(MOST, JOBS // (len(self._lines) or 1)))

    def _is_spare(self, line: Line, count: int) -> bool:
        """Whether there is room for so many jobs more in a lane."""
        return len(line.ids) + count <= self._share()

    # -- going --

    def choose(self, now_us: int) -> Job | None:
        """Return the job that is to be the next to start, which stays until it is taken."""
        window = self._plain_jobs
        if not self._plain.entry and len(window):
            self._enter(self._plain, 1)
        if not self._plain_first.entry and window.has_first:
            self._enter(self._plain_first, 1)
        active = self._active
        while active:
            level = self._levels[-active[0]]
            if self._choose_in(level, now_us):
                assert self._chosen is not None
                return self._chosen[3]
            heappop(active)
        self._chosen = None
        return None

    def may_go_ahead(self) -> bool:
        """Whether the chosen job may be given to a worker that has another: no gate has to count it."""
        assert self._chosen is not None
        _, node, line, _ = self._chosen
        return not line.gates and not self._queues.is_limited(node.queue)

    def take(self) -> None:
        """Take the chosen job out: it is about to start, and it is the others' turn."""
        assert self._chosen is not None
        level, node, line, job = self._chosen
        heap = node.ring[line.fair_key]
        if line.key in self._pseudo:
            self._plain_jobs.pop()
        else:
            heappop(line.ids)
            self.count -= 1
            line.bytes -= len(job.args)
            self._bytes -= len(job.args)
        self._woken.pop(line.key, None)  # the start that it was let out for is this one
        following = self._head(line)
        if following is None:
            heappop(heap)
            line.entry = 0
        else:
            line.entry = following.id
            heapreplace(heap, (following.id, line.key))
        if not heap:
            del node.ring[line.fair_key]
        if not node.ring:
            del level.ring[node.queue]
        self._turn(level, node, line.fair_key)
        if following is None:
            self._emptied(line)
        elif line.has_more:
            self._thirst(line)

    def _turn(self, level: Level, node: Node, fair_key: str) -> None:
        """Put those who were served behind the others."""
        if fair_key in node.ring:
            node.ring.move_to_end(fair_key)
        if node.queue in level.ring:
            level.ring.move_to_end(node.queue)

    def _choose_in(self, level: Level, now_us: int) -> bool:
        ring, queues = level.ring, self._queues
        while ring:
            queue, node = next(iter(ring.items()))
            opens_at = queues.opens_at(queue, now_us) if queues.counts else 0
            if opens_at != 0:
                self._park_queue(level, node, opens_at)
                continue
            found = self._first_of(node)
            if found is not None:
                self._chosen = level, node, *found
                return True
            del ring[queue]
        return False

    def _first_of(self, node: Node) -> tuple[Line, Job] | None:
        ring, lines = node.ring, self._lines
        while ring:
            fair_key, heap = next(iter(ring.items()))
            while heap:
                number, key = heap[0]
                line = lines.get(key) or self._pseudo.get(key)
                if line is None or line.entry != number or line.node is not node:
                    heappop(heap)  # it has another entry, or none
                    continue
                job = self._head(line)
                gate = None if job is None else self._closed_gate(line)
                if job is None or gate is not None:
                    heappop(heap)
                    line.entry = 0
                    if gate is None:
                        self._emptied(line)
                    else:
                        self._park(line, gate)
                elif job.id != number:
                    heapreplace(heap, (job.id, key))
                    line.entry = job.id
                else:
                    return line, job
            del ring[fair_key]
        return None

    def _head(self, line: Line) -> Job | None:
        """Return the first ready job of a lane; what was cancelled meanwhile is dropped."""
        if line is self._plain:
            return self._plain_jobs.head()
        if line is self._plain_first:
            job = self._plain_jobs.head()
            return job if self._plain_jobs.has_first else None
        ids, jobs = line.ids, self._jobs
        while ids:
            job = jobs.get(ids[0])
            if job is not None and job.state is State.QUEUED and not job.void:
                return job
            heappop(ids)
            self.count -= 1
        return None

    def _emptied(self, line: Line) -> None:
        """A lane that is out of its ring has no more jobs in memory."""
        self._give_up(line)
        if line.key in self._pseudo:
            return
        self._bytes -= line.bytes
        line.bytes = 0
        if line.has_more:
            self._thirst(line)
        elif not line.ids:
            self._forget(line)

    def _forget(self, line: Line) -> None:
        if self._lines.pop(line.key, None) is None:
            return
        self._unsettled.pop(line.key, None)
        self._more.pop(line.key, None)
        self._give_up(line)
        line.node.lanes -= 1
        self._drop(line.node)
        self._review_use()

    def _drop(self, node: Node) -> None:
        """Forget a priority of a queue that has no lanes."""
        has_plain = node.queue == DEFAULT and node.priority in (0, FIRST)
        if not (node.lanes or node.has_beyond or has_plain):
            self._nodes.pop((node.priority, node.queue), None)

    def _enter(self, line: Line, number: int) -> None:
        """Let a lane take part, with its first job."""
        node = line.node
        level = self._levels.get(node.priority)
        if level is None:
            level = self._levels[node.priority] = Level()
        if node.queue in level.parked:
            level.parked[node.queue] = node
        elif level.ring.get(node.queue) is not node:
            self._open(level, node)
        heappush(node.ring.setdefault(line.fair_key, []), (number, line.key))
        line.entry = number

    def _open(self, level: Level, node: Node) -> None:
        if not level.ring and -node.priority not in self._active:
            heappush(self._active, -node.priority)
        level.ring[node.queue] = node

    # -- gates --

    def started(self, lane: str) -> None:
        """A job of this lane is in a worker's hands."""
        gates = gates_of(lane)
        for name, _ in gates:
            self._running[name] += 1
        for name, _ in gates:
            self._wake(name)

    def ended(self, lane: str) -> None:
        """A job of this lane is in nobody's hands any more."""
        for name, _ in gates_of(lane):
            self._running[name] -= 1
            assert self._running[name] >= 0
            if not self._running[name]:
                del self._running[name]
            self._wake(name)

    def closed_gates(self, lane: str) -> list[str]:
        """Return the names of the gates of a lane that let nobody through."""
        return [name for name, limit in gates_of(lane) if self._running[name] >= limit]

    def waits_for(self, lane: str, now_us: int) -> str:
        """Return what keeps a job of this lane from being started, in words; "" if it is the workers."""
        queue = parse_lane(lane).queue if lane else DEFAULT
        opens_at = self._queues.opens_at(queue, now_us)
        if opens_at:
            wait_s = (opens_at - now_us) / 1e6
            return f"the rate of its queue {queue!r} allows the next start in {wait_s:.3g} s"
        rule = self._queues.rules.get(queue)
        if opens_at is None and rule is not None:
            if rule.paused:
                return f"its queue {queue!r} is paused"
            return (
                f"{_jobs_run(self._queues.running(queue))} of its queue {queue!r}, as many as may"
            )
        for name in self.closed_gates(lane):
            return f"{_jobs_run(self._running[name])} with {words_of(name)}, as many as may"
        return ""

    def running(self, name: str) -> int:
        """Return how many jobs run that go through the gate of this name."""
        return self._running[name]

    def queue_changed(self, queue: str) -> None:
        """Something has happened that may have opened a queue."""
        for priority in self._shut.pop(queue, ()):
            level = self._levels[priority]
            node = level.parked.pop(queue)
            if node.ring:
                self._open(level, node)
        self._review_use()

    def tick(self, now_us: int) -> None:
        """Open the queues whose rates allow a start by now."""
        opens = self._opens
        while opens and opens[0][0] <= now_us:
            self.queue_changed(heappop(opens)[1])

    def next_at(self) -> int | None:
        """Return when the next queue opens by itself, or None."""
        return self._opens[0][0] if self._opens else None

    def _review_use(self) -> None:
        self.is_used = bool(
            self._lines
            or self._scan is not None
            or self._beyond
            or self._queues.is_limited(DEFAULT)
        )

    def _closed_gate(self, line: Line) -> Gate | None:
        running = self._running
        for gate in line.gates:
            if running[gate.name] >= gate.limit:
                return gate
        return None

    def _park(self, line: Line, gate: Gate) -> None:
        """Put a lane that is out of its ring among those that wait for a gate."""
        self._parkings += 1
        line.parked = self._parkings
        waiters = self._waiters.setdefault(gate.name, {}).setdefault(gate.limit, [])
        heappush(waiters, (-line.node.priority, line.parked, line.key))
        self._give_up(line)

    def _give_up(self, line: Line) -> None:
        """Another lane may have the start that this one was let out for."""
        if line.key in self._woken:
            del self._woken[line.key]
            for name, _ in line.gates:
                self._wake(name)

    def _wake(self, name: str) -> None:
        """Let out one of the lanes that wait for a gate, for each limit that is not reached."""
        groups = self._waiters.get(name)
        if groups is None:
            return
        for limit in [limit for limit in groups if self._running[name] < limit]:
            waiters = groups[limit]
            while waiters and not self._let_out(*heappop(waiters)[1:]):
                pass
            if not waiters:
                del groups[limit]
        if not groups:
            self._waiters.pop(name, None)

    def _let_out(self, parked: int, key: str) -> bool:
        """Let a lane take part again; return whether it can be served."""
        line = self._lines.get(key)
        if line is None or line.parked != parked:
            return False
        line.parked = 0
        job = self._head(line)
        if job is None:
            self._emptied(line)
            return False
        gate = self._closed_gate(line)
        if gate is not None:
            self._park(line, gate)
            return False
        self._enter(line, job.id)
        if line.node.queue in self._levels[line.node.priority].parked:
            return False
        self._woken[key] = None
        return True

    def _park_queue(self, level: Level, node: Node, opens_at: int | None) -> None:
        level.parked[node.queue] = level.ring.pop(node.queue)
        self._shut.setdefault(node.queue, set()).add(node.priority)
        if opens_at:
            heappush(self._opens, (opens_at, node.queue))
        for key in [key for key in self._woken if self._lines[key].node is node]:
            self._give_up(self._lines[key])

    # -- what is in the store only --

    @property
    def wants_more(self) -> bool:
        """Whether something should be looked up in the store."""
        return bool(self._thirsty) or self.next_scan() is not None

    def thirsty(self, high: int, settled: int) -> list[tuple[Line, int]]:
        """Return lanes that are to be filled now, and with how many jobs; ``high`` is as for ``refill``."""
        found: list[tuple[Line, int]] = []
        while self._thirsty and len(found) < REFILLS:
            line = self._lines.get(heappop(self._thirsty))
            if line is None or not line.is_thirsty:
                continue
            line.is_thirsty = False
            if line.cursor >= high:
                self._looked_up(line, settled)
            elif self._is_low(line):
                found.append((line, min(REFILL, self._share() - len(line.ids))))
        return found

    def refill(
        self, line: Line, wanted: int, backlog: Backlog, high: int, settled: int
    ) -> list[int]:
        """Take in what the store has of a lane from its cursor on, so many jobs at most.

        All that is stored goes up to ``high``; what was left to the store up to the id
        ``settled`` is there, or never will be.  Returns the parcels that hold nothing any more.
        """
        window, found = self._plain_jobs, list[Job]()
        ended = window.unpack(backlog, found.append)
        _, rows, reached = backlog
        found += [
            job for number, job in rows.items() if job is not None and number not in self._jobs
        ]
        found.sort(key=_by_id)
        if len(found) > wanted:
            reached = found[wanted - 1].id
            del found[wanted:]
        for job in found:
            job.lane = line.text
            window.recover(job)
            self._add(line, job)
            if window.is_awaited(job.id):
                self.hasten(job)
        line.cursor = max(line.cursor, reached)
        if line.cursor < high:
            self._thirst(line)
        else:
            self._looked_up(line, settled)
        return ended

    def _looked_up(self, line: Line, settled: int) -> None:
        """All that is stored of a lane is in memory; more may be on its way to the store."""
        if line.high > settled:
            self._unsettled[line.key] = None
            return
        line.has_more = False
        self._more.pop(line.key, None)
        if not line.ids:
            self._forget(line)

    def stored(self, submissions: Iterable[Submission], high: int) -> None:
        """These are in the store; what was left to it up to the id ``high`` is there by now, if ever."""
        for submission in submissions:
            if submission.lane:
                self._arrived(submission.lane, submission.first if submission.is_unseen else 0)
        for key in [key for key in self._unsettled if self._lines[key].high <= high]:
            del self._unsettled[key]
            line = self._lines[key]
            self._thirst(line)

    def spill(self, job: Job) -> None:
        """A job is in the store only from now on."""
        line = self._lines.get(job.lane)
        if line is None:
            self._arrived(job.lane)
            return
        self._leave(line, job.id, job.id)
        line.cursor = min(line.cursor, job.id - 1)
        self._thirst(line)

    def _arrived(self, text: str, unseen: int = 0) -> None:
        """There are jobs of this lane in the store; it is one that is not known, maybe.

        From the id ``unseen`` on there are some of which a lane that is known by now does not know.
        """
        line = self._lines.get(text)
        if line is not None:
            if unseen:
                line.cursor = min(line.cursor, unseen - 1) if line.has_more else unseen - 1
                line.has_more = True
                self._more[text] = line
            if line.has_more:
                self._thirst(line)
            return
        lane = parse_lane(text)
        node = self._node(lane.priority, lane.queue)
        if self._is_crowded(node):
            self._miss(node)
            return
        line = self._make(text)
        if not line.has_more:
            line.has_more = True
            self._more[text] = line
            self._thirst(line)

    def _leave(self, line: Line, first: int, last: int) -> None:
        line.high = max(line.high, last)
        if not line.has_more:
            line.has_more = True
            line.cursor = first - 1
            self._more[line.key] = line
        self._unsettled[line.key] = None

    def _is_low(self, line: Line) -> bool:
        return len(line.ids) <= self._share() // 4

    def _thirst(self, line: Line) -> None:
        """Have a lane filled if it runs low."""
        if line.has_more and not line.is_thirsty and self._is_low(line):
            line.is_thirsty = True
            heappush(self._thirsty, line.key)

    # -- lanes that are not known --

    def next_scan(self) -> tuple[str, str] | None:
        """Return between which texts lanes are to be looked for, ``SCAN`` of them; None: nowhere."""
        if self._scan is not None:
            return self._scan, _BEHIND
        for node in self._beyond.values():
            if node.lanes <= LANES // 2 and len(self._lines) < ALL_LANES:
                return node.scan_at, node.span[1]
        return None

    def scanned(self, found: Iterable[str], *, is_all: bool) -> None:
        """Take in the lanes that were found from where ``next_scan`` said; ``is_all``: up to the end."""
        if self._scan is not None:
            self._scanned_first(found, is_all=is_all)
            return
        span = self.next_scan()
        assert span is not None
        node = next(node for node in self._beyond.values() if node.span[1] == span[1])
        for text in found:
            if text not in self._lines:
                if self._is_crowded(node):
                    return  # it goes on from here
                self._make(text)
            node.scan_at = text
        if is_all:
            node.scan_at = node.span[0]
            if node.has_missed:
                node.has_missed = False  # another round, from the beginning
            else:
                node.has_beyond = False
                del self._beyond[node.priority, node.queue]
                self._drop(node)
                self._review_use()

    def _scanned_first(self, found: Iterable[str], *, is_all: bool) -> None:
        for text in found:
            lane = parse_lane(text)
            node = self._node(lane.priority, lane.queue)
            if text not in self._lines:
                if self._is_crowded(node):
                    self._miss(node)
                    self._scan = node.span[1]
                    return
                self._make(text)
            self._scan = text
        if is_all:
            self._scan = None
            self._review_use()

    def _miss(self, node: Node) -> None:
        node.has_beyond = node.has_missed = self.is_used = True
        self._beyond[node.priority, node.queue] = node


def _jobs_run(count: int) -> str:
    return "1 job runs" if count == 1 else f"{count} jobs run"


def _by_id(job: Job) -> int:
    return job.id
