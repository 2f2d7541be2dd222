"""Whose turn it is: priorities, turns between queues and fair keys, and gates.

A job that is not plain waits in its lane (jobd.model.lane), in the order of ids.  The next
to start is the one of the highest priority; among the queues of that priority they take
turns, among the fair keys of a queue as well, and of one fair key the job with the lowest id
comes first.  The plain jobs take part as one more lane, of the priority 0, the queue
``default`` and no fair key.  Jobs for which others wait have lanes of their own, of a priority
above all.

Gates.  A queue may be closed (jobd.scheduler.queues), and so may a gate of the lane itself
(jobd.scheduler.gates).  A queue that is closed is parked too: it comes back when something of
it has ended or its rate allows the next start.  No choice looks at all lanes.

A lane has the first of its jobs here; what is in the store only, ``stock`` knows.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush, heapreplace

from jobd.model.job import Job, Record
from jobd.model.lane import Gate, gates_of, parse_lane, words_of
from jobd.model.queues import DEFAULT
from jobd.model.states import State
from jobd.scheduler import known
from jobd.scheduler.batch import Backlog
from jobd.scheduler.gates import Gates
from jobd.scheduler.known import FIRST, Known, Line, Node
from jobd.scheduler.plain import PlainQueue
from jobd.scheduler.queues import Queues
from jobd.scheduler.stock import Stock


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
        self._known = Known()
        self._gates = Gates()
        self.stock = Stock(self._known, self._forget, has_stored=has_stored)
        self._levels: dict[int, Level] = {}
        self._active: list[int] = []
        """A heap of the priorities of which something is open, as negative numbers."""
        self._plain = Line("plain", "", self._known.node(0, DEFAULT), "", ())
        self._plain_first = Line("plain, first", "", self._known.node(FIRST, DEFAULT), "", ())
        self._pseudo = {line.key: line for line in (self._plain, self._plain_first)}
        """Lines that stand for the window of plain jobs."""
        self._woken: dict[str, None] = {}
        """Lanes that were let out of a gate, and not served since."""
        self._shut: dict[str, set[int]] = {}
        """Parked queues, and of which priorities."""
        self._opens: list[tuple[int, str]] = []
        """A heap of when the rates of queues open them."""
        self._chosen: tuple[Level, Node, Line, Job] | None = None

    @property
    def count(self) -> int:
        """Ready jobs in all lanes; some may have been cancelled since."""
        return self._known.count

    @property
    def is_used(self) -> bool:
        """Whether there is anything but plain jobs in an unlimited queue."""
        is_limited = self._queues.is_limited(DEFAULT)
        return bool(self._known.lines) or is_limited or self.stock.is_used

    # -- coming --

    def has_room(self, job: Job) -> bool:
        """Whether a new job may be in memory; else its lane takes note that it is in the store only."""
        line = self._known.lines.get(job.lane)
        if line is None:
            if not self._known.has_room_for(job.lane):
                return False
            line = self.stock.make(job.lane)
        if self._known.is_spare(line, 1) and not (line.has_more and job.id > line.cursor):
            return True
        self.stock.leave(line, job.id, job.id)
        return False

    def push(self, job: Job) -> None:
        """Make a job ready, in its place in its lane."""
        line = self._known.lines.get(job.lane) or self.stock.make(job.lane)
        self._add(line, job)
        if len(line.ids) > 2 * known.MOST:
            self._tidy(line)

    def hasten(self, job: Job) -> None:
        """Let a job go before all others, if it is ready and its gates are open."""
        key = f"first\t{job.lane}"
        line = self._known.lines.get(key) or self._known.make_first(key, job.lane)
        if job.id not in line.ids:
            self._add(line, job)

    def admit(self, record: Record, lane: str, peer: bytes | None) -> bool:
        """Take in the jobs of a new record, or leave them to the store; ``peer`` watches them.

        False: there is no room for their lane either, and ``stored`` has to be told so.
        """
        first, count = record.first, len(record.args)
        line = self._known.lines.get(lane)
        if line is None and self._known.has_room_for(lane):
            line = self.stock.make(lane)
        if line is None or line.has_more or not self._known.is_spare(line, count):
            if line is not None:
                self.stock.leave(line, first, first + count - 1)
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
        self._known.bytes += len(job.args)
        self._known.count += 1
        if not line.parked and (not line.entry or job.id < line.entry):
            self._enter(line, job.id)

    def _tidy(self, line: Line) -> None:
        """Drop the ids of jobs that were cancelled while nobody looked."""
        before = len(line.ids)
        line.ids = sorted({number for number in line.ids if self._is_ready(number)})
        self._known.count -= before - len(line.ids)

    def _is_ready(self, number: int) -> bool:
        job = self._jobs.get(number)
        return job is not None and job.state is State.QUEUED and not job.void

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
            self._known.count -= 1
            line.bytes -= len(job.args)
            self._known.bytes -= len(job.args)
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
            self.stock.thirst(line)

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
        ring, lines = node.ring, self._known.lines
        while ring:
            fair_key, heap = next(iter(ring.items()))
            while heap:
                number, key = heap[0]
                line = lines.get(key) or self._pseudo.get(key)
                if line is None or line.entry != number or line.node is not node:
                    heappop(heap)  # it has another entry, or none
                    continue
                job = self._head(line)
                gate = None if job is None else self._gates.closed(line.gates)
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
            self._known.count -= 1
        return None

    def _emptied(self, line: Line) -> None:
        """A lane that is out of its ring has no more jobs in memory."""
        self._give_up(line)
        if line.key in self._pseudo:
            return
        self._known.bytes -= line.bytes
        line.bytes = 0
        if line.has_more:
            self.stock.thirst(line)
        elif not line.ids:
            self._forget(line)

    def _forget(self, line: Line) -> None:
        if self._known.forget(line):
            self.stock.dropped(line)
            self._give_up(line)

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
        self._gates.started(lane)
        for name, _ in gates_of(lane):
            self._wake(name)

    def ended(self, lane: str) -> None:
        """A job of this lane is in nobody's hands any more."""
        self._gates.ended(lane)
        for name, _ in gates_of(lane):
            self._wake(name)

    def passed(self, lane: str) -> None:
        """What was taken out of this lane does not start after all: others may, that wait for its gates."""
        for name, _ in gates_of(lane):
            self._wake(name)

    def closed_gates(self, lane: str) -> list[str]:
        """Return the names of the gates of a lane that let nobody through."""
        return [name for name, limit in gates_of(lane) if self._gates.running[name] >= limit]

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
            return f"{_jobs_run(self._gates.running[name])} with {words_of(name)}, as many as may"
        return ""

    def running(self, name: str) -> int:
        """Return how many jobs run that go through the gate of this name."""
        return self._gates.running[name]

    def queue_changed(self, queue: str) -> None:
        """Something has happened that may have opened a queue."""
        for priority in self._shut.pop(queue, ()):
            level = self._levels[priority]
            node = level.parked.pop(queue)
            if node.ring:
                self._open(level, node)

    def tick(self, now_us: int) -> None:
        """Open the queues whose rates allow a start by now."""
        opens = self._opens
        while opens and opens[0][0] <= now_us:
            self.queue_changed(heappop(opens)[1])

    def next_at(self) -> int | None:
        """Return when the next queue opens by itself, or None."""
        return self._opens[0][0] if self._opens else None

    def _park(self, line: Line, gate: Gate) -> None:
        """Put a lane that is out of its ring among those that wait for a gate."""
        line.parked = self._gates.park(line.key, line.node.priority, gate)
        self._give_up(line)

    def _give_up(self, line: Line) -> None:
        """Another lane may have the start that this one was let out for."""
        if line.key in self._woken:
            del self._woken[line.key]
            for name, _ in line.gates:
                self._wake(name)

    def _wake(self, name: str) -> None:
        self._gates.wake(name, self._let_out)

    def _let_out(self, parked: int, key: str) -> bool:
        """Let a lane take part again; return whether it can be served."""
        line = self._known.lines.get(key)
        if line is None or line.parked != parked:
            return False
        line.parked = 0
        job = self._head(line)
        if job is None:
            self._emptied(line)
            return False
        gate = self._gates.closed(line.gates)
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
        for key in [key for key in self._woken if self._known.lines[key].node is node]:
            self._give_up(self._known.lines[key])

    # -- what is in the store only --

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
        self.stock.filled(line, reached, high, settled)
        return ended


def _jobs_run(count: int) -> str:
    return "1 job runs" if count == 1 else f"{count} jobs run"


def _by_id(job: Job) -> int:
    return job.id
