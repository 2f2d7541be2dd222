"""Whose turn it is: what must be so of priorities, turns and gates, whatever happens in a simulation."""

from __future__ import annotations

from collections import Counter

from fake_store import FakeStore
from simulation_inputs import Broken

from jobd.daemon.assembly import Daemon
from jobd.model.item import FIRST_ITEM
from jobd.model.job import Job
from jobd.model.lane import Lane, parse_lane
from jobd.model.orders import Task
from jobd.model.queues import DEFAULT
from jobd.model.states import State
from jobd.scheduler import Scheduler
from jobd.scheduler.known import Line
from jobd.scheduler.queues import queue_of

PLAIN = Lane(0, DEFAULT, "", ())


def lane_of(job: Job) -> Lane:
    """Return what decides whose turn it is before this job."""
    return parse_lane(job.lane) if job.lane else PLAIN


def is_open(scheduler: Scheduler, job: Job) -> bool:
    """Whether no gate keeps a job from being started."""
    lane = lane_of(job)
    if scheduler.queues.opens_at(lane.queue, scheduler._now) != 0:
        return False
    return all(scheduler.lanes.running(name) < limit for name, limit in lane.gates)


def runnable(scheduler: Scheduler) -> list[Job]:
    """Return the jobs in memory that may start now."""
    ledger = scheduler.ledger
    spill = {n for b in (ledger.batch, ledger.in_flight) if b is not None for n in b.spill}
    waiting = [j for j in scheduler.window.jobs.values() if j.state is State.QUEUED]
    waiting = [job for job in waiting if has_ready(scheduler, job)]
    return [job for job in waiting if job.id not in spill and is_open(scheduler, job)]


def has_ready(scheduler: Scheduler, job: Job) -> bool:
    """Whether a job may start, or items of an array, which stands in line for them."""
    if job.id >= FIRST_ITEM:
        return False
    if job.array is None:
        return True
    array = scheduler.arrays.live.get(job.id)
    return array is not None and array.has_ready


class OrderTruth:
    """Who really runs, and in whose turn."""

    def __init__(self) -> None:
        self._lanes: dict[bytes, Lane] = {}

    def started(self, task: Task, job: Job | None, running: dict[bytes, object]) -> None:
        """Judge a start: no more than so many of its keys run, by the largest number that one of them says."""
        if job is None:
            return
        lane = self._lanes[task.args] = lane_of(job)
        gates = [gate for args in running for gate in self._lanes.get(args, PLAIN).gates]
        for name, own in lane.gates:
            limits = [limit for other, limit in gates if other == name]
            if len(limits) >= max([own, *limits]):
                raise Broken(f"{task} starts, and {len(limits)} jobs with {name!r} run")


class Turns:
    """Judges each choice of one daemon's scheduler, in the moment in which it is made."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._served: dict[tuple[int, str, str], set[str]] = {}
        """For each tenant in its ring: who was served since it is there, or was itself served."""
        self._take, self._choose = scheduler.lanes.take, scheduler.lanes.choose
        scheduler.lanes.choose = self._look  # type: ignore[method-assign]  # as below
        scheduler.lanes.take = self._judge  # type: ignore[method-assign]  # so that each is seen

    def _look(self, now_us: int) -> Job | None:
        """Take note of who has left the rings, to come back to their ends."""
        job = self._choose(now_us)
        self._review()
        return job

    def _judge(self) -> None:
        scheduler = self._scheduler
        chosen = scheduler.lanes._chosen
        assert chosen is not None
        _, node, line, job = chosen
        if not (is_open(scheduler, job) or _may_inherit(scheduler, job)):
            raise Broken(f"job {job.id} is to start, and a gate of {job.lane!r} is closed")
        before = [j for j in runnable(scheduler) if lane_of(j).priority > node.priority]
        if before:
            raise Broken(f"job {job.id} is to start, before {[(j.id, j.lane) for j in before]}")
        self._judge_turn(line, job)
        self._take()

    def _judge_turn(self, line: Line, job: Job) -> None:
        """Nobody is served twice while another waits in the same ring."""
        node = line.node
        for (priority, queue, tenant), served in self._served.items():
            if (priority, queue) != (node.priority, node.queue) or tenant == line.fair_key:
                continue
            if line.fair_key in served:
                raise Broken(f"job {job.id} of {line.fair_key!r} starts, and {tenant!r} waits")
            served.add(line.fair_key)
        self._served[node.priority, node.queue, line.fair_key] = set()

    def _review(self) -> None:
        lanes = self._scheduler.lanes
        present = {
            (priority, queue, tenant)
            for priority, level in lanes._levels.items()
            for queue, node in level.ring.items()
            for tenant, entries in node.ring.items()
            if any(
                _is_live(lanes._known.lines.get(k) or lanes._pseudo.get(k), n) for n, k in entries
            )
        }
        self._served = {key: self._served.get(key, set()) for key in present}


def _may_inherit(scheduler: Scheduler, job: Job) -> bool:
    """Whether a job that runs takes the very places that this one needs."""
    heads = [
        worker.keeper or next(iter(worker.assigned.values()))
        for worker in scheduler.workers.values()
        if worker.assigned and worker.waiting is None
    ]
    gates = lane_of(job).gates
    return any(queue_of(h) == queue_of(job) and lane_of(h).gates == gates for h in heads)


def _is_live(line: Line | None, number: int) -> bool:
    return line is not None and line.entry == number


def check_order(daemon: Daemon, store: FakeStore) -> None:
    """After each turn: what runs is counted, and every laned job is known or will be found."""
    scheduler = daemon.scheduler
    lanes = scheduler.lanes
    hands = [
        job
        for worker in scheduler.workers.values()
        for job in worker.assigned.values()
        if not job.is_heir  # it has no place of its own yet
    ]
    laned = [job for job in hands if job.lane]
    if laned or lanes._gates.running:
        gates = Counter(gate.name for job in laned for gate in lane_of(job).gates)
        if lanes._gates.running != gates:
            raise Broken(f"of gates {gates} run, {lanes._gates.running} are counted")
    if scheduler.queues.counts:
        waiting = [worker.waiting for worker in scheduler.workers.values()]
        queues = Counter(queue_of(job) for job in hands if not any(job is w for w in waiting))
        if scheduler.queues._running != queues:
            raise Broken(f"of queues {queues} run, {scheduler.queues._running} are counted")
    if lanes.count != sum(len(line.ids) for line in lanes._known.lines.values()):
        raise Broken(f"{lanes.count} laned jobs are counted")
    if lanes._known.nodes:
        counted = Counter(
            (line.node.priority, line.node.queue) for line in lanes._known.lines.values()
        )
        for key, node in lanes._known.nodes.items():
            if node.lanes != counted[key]:
                raise Broken(f"{node.lanes} lanes of {key} are counted, there are {counted[key]}")
    _check_lines(scheduler)
    _check_stored(scheduler, store)


def _check_lines(scheduler: Scheduler) -> None:
    """Every laned job in memory is in its lane, and every lane takes part or is parked."""
    lanes, ledger = scheduler.lanes, scheduler.ledger
    spill = {n for b in (ledger.batch, ledger.in_flight) if b is not None for n in b.spill}
    for number, job in scheduler.window.jobs.items():
        is_waiting = job.state is State.QUEUED and number not in spill
        if is_waiting and job.lane and has_ready(scheduler, job):
            line = lanes._known.lines.get(job.lane)
            if line is None or number not in line.ids:
                raise Broken(f"1: job {number} is in memory, and not in its lane {job.lane!r}")
            if not (line.entry or line.parked):
                raise Broken(f"6: the lane {job.lane!r} has no part, with {number}")
    for key, line in lanes._known.lines.items():
        if line.has_more is not (key in lanes.stock.more):
            raise Broken(f"the lane {key!r} has more: {line.has_more}, {lanes.stock.more.keys()}")
        if not (line.ids or line.has_more):
            raise Broken(f"9: the lane {key!r} is empty")


def _check_stored(scheduler: Scheduler, store: FakeStore) -> None:
    """1: a laned job in the store only is beyond its lane's cursor, and that will be filled."""
    lanes, jobs, high = scheduler.lanes, scheduler.window.jobs, scheduler.ledger.stored_high
    for number, key in store.waiting():
        if not key or number in jobs or number > high:
            continue
        line = lanes._known.lines.get(key)
        if line is None:
            lane = parse_lane(key)
            node = lanes._known.nodes.get((lane.priority, lane.queue))
            is_ahead = lanes.stock.scan is not None and key > lanes.stock.scan
            if not (is_ahead or (node is not None and node.has_beyond)):
                raise Broken(f"1: nobody knows the lane {key!r} of job {number}")
        elif not (line.has_more and number > line.cursor):
            raise Broken(f"1: job {number} is lost, its lane is at {line.cursor}")
        elif not (line.ids or line.is_thirsty):
            raise Broken(f"6: the lane {key!r} is empty, and is not filled")


def check_order_end(scheduler: Scheduler) -> None:
    """At the end nothing of all that is left."""
    lanes = scheduler.lanes
    known, gates, stock = lanes._known, lanes._gates, lanes.stock
    leaks = {
        "lanes": known.lines,
        "jobs that run through gates": gates.running,
        "lanes that wait for gates": gates._waiters,
        "lanes that were let out": lanes._woken,
        "lanes with more in the store": stock.more,
        "lanes with jobs on their way there": stock._unsettled,
        "queues with lanes beyond": stock._beyond,
    }
    for what, found in leaks.items():
        if found:
            raise Broken(f"9: at the end there are {what}: {found}")
    if lanes.count or lanes._known.bytes or lanes.stock.scan is not None:
        raise Broken(
            f"9: at the end {lanes.count} laned jobs are ready, {lanes._known.bytes} bytes"
        )
