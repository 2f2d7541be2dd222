"""A million queued jobs: the daemon's memory, and whether anything is slower than with a thousand.

Two daemons, one with a long queue and one with a short one.  While the two
workers of each wait at a gate, submitting and looking jobs up are measured on
both in turn; then the gates are opened.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from statistics import median

from jobd.model.queues import DEFAULT
from jobd.model.selector import Selector
from jobd.model.states import State
from jobd.payload import encode_call
from tests.benchmarks import harness
from tests.benchmarks.harness import JOBD, NOOP, WORKERS, Bench, Daemon, progress
from tests.benchmarks.report import FOLD, Measured, Series, Target

SHORT = 1_000
PART = 1_000
"""Jobs submitted for as many that have run, to keep a queue's length."""

FILL = 1_000
"""Jobs in one message while a queue is filled; the same for both, as it tells how they are stored."""

ACKS = 100
PIPELINED = 2_000
LOOKS = 60
PAGE = 50

MEMORY_MB = 150.0
TOLERANCE = 1.2
CALL, _ = encode_call((), {})


class Queue:
    """Jobs behind a gate, of a daemon with no other client: their ids are in sequence."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.client = daemon.client
        self.next = 0
        """The id of the next job to run, but for a few."""
        self.last = 0
        """The id of the last job."""
        self._gates = 0
        self._random = random.Random(0)

    def close_gate(self) -> None:
        """Keep all workers busy; the queue must be empty."""
        self._gates += 1
        deferreds = self.client.submit_many("bench_jobs:gate", [(self._gate(),)] * WORKERS)
        self.next = self.last = deferreds[-1].id
        while self.client.status().jobs["running"] < WORKERS:
            time.sleep(0.005)

    def open_gate(self) -> None:
        """Let the workers go on."""
        with open(self._gate(), "x", encoding="ascii"):
            pass

    def _gate(self) -> str:
        return str(self.daemon.place.directory / f"gate-{self._gates}")

    def add(self, count: int) -> None:
        """Submit jobs in one message, and forget them: nobody is told how they end."""
        deferreds = self.client.submit_encoded(NOOP, [CALL] * count, [(0, ())])
        self.last = deferreds[-1].id

    def fill(self, count: int) -> None:
        """Submit many jobs."""
        for done in range(0, count, FILL):
            self.add(min(FILL, count - done))
            if not done % 100_000:
                progress(f"backlog: {done:,} jobs queued")

    def submit_and_ack_us(self) -> float:
        """Return the median time until one more job is durable."""
        took = []
        for _ in range(ACKS):
            began = time.perf_counter()
            self.last = self.client.submit(NOOP).id
            took.append(time.perf_counter() - began)
        return median(took) * 1e6

    def submits_per_s(self) -> float:
        """Return how many submits a second are made durable, none waiting for the one before."""
        began = time.perf_counter()
        deferreds = [self.client.submit(NOOP) for _ in range(PIPELINED)]
        self.client.flush()
        took = time.perf_counter() - began
        self.last = deferreds[-1].id
        return PIPELINED / took

    def list_us(self, *states: State) -> float:
        """Return the median time to get the newest jobs, as ``jobd ls`` does."""
        selector = Selector(all=True, states=list(states))
        return self._median_us(lambda: self.client.page(selector, PAGE))

    def show_us(self) -> float:
        """Return the median time to get one job, as ``jobd show`` does."""

        def look() -> None:
            number = self._random.randint(self.next + 1, self.last)
            (info,) = self.client.find(Selector(ranges=[(number, number)]))
            assert info.id == number

        return self._median_us(look)

    def _median_us(self, look: Callable[[], object]) -> float:
        return median(harness.seconds(look) for _ in range(LOOKS)) * 1e6

    def drain_per_s(self, count: int) -> float:
        """Return how many jobs a second are run while none is submitted, by the workers' clocks."""
        first, last = self.next + 1, self.next + count
        self.client.wait([last], harness.TIMEOUT_S)
        self.next = last
        infos = [self.client.find(Selector(ranges=[(one, one)]))[0] for one in (first, last)]
        return (count - 1) / (infos[1].ended_at - infos[0].ended_at) * 1e6

    def pause(self) -> None:
        """Have the workers stop, once they have run what they have in hand."""
        self.client.pause(DEFAULT)
        while self.client.status().jobs["running"]:
            time.sleep(0.005)
        self.next = self._run_by_now()

    def resume(self) -> None:
        """Have them go on."""
        self.client.resume(DEFAULT)

    def drain_all(self) -> None:
        """Wait until nothing is queued."""
        self.client.wait(range(max(1, self.last - 1_000), self.last + 1), harness.TIMEOUT_S)
        self.next = self.last

    def steady_per_s(self, count: int) -> float:
        """Return how many jobs a second are run while about as many are submitted; the gate is open.

        By the daemon's count: a long queue's workers do not wait for those that are submitted.
        """
        self._step()
        before, began = self._run_by_now(), time.perf_counter()
        for _ in range(count // PART):
            self._step()
        return (self._run_by_now() - before) / (time.perf_counter() - began)

    def _run_by_now(self) -> int:
        return self.client.status().jobs["succeeded"]

    def _step(self) -> None:
        self.next += PART
        self.client.wait([self.next], harness.TIMEOUT_S)
        self.add(PART)


def run(bench: Bench) -> Measured:
    """Measure with a million jobs queued, and with a thousand."""
    length, rounds = bench.pick(1_000_000, 100_000), bench.pick(15, 3)
    drained, steady = bench.pick(50_000, 10_000), bench.pick(5, 3)
    long, short = f"{length:,} queued", f"{SHORT:,} queued"
    with harness.daemon(bench) as short_daemon:
        one = Queue(short_daemon)
        with harness.daemon(bench) as long_daemon:
            other = Queue(long_daemon)
            own = _fill(other, length)
            found: list[dict[str, dict[str, float]]] = []
            for turn in range(rounds):
                progress(f"backlog: round {turn + 1} of {rounds}")
                one.close_gate()
                one.fill(SHORT)
                found.append({long: _gated(other), short: _gated(one)})
                one.open_gate()
                found[-1][short]["dispatch"] = one.drain_per_s(SHORT)
                one.drain_all()
            progress("backlog: dispatching from the long queue")
            other.open_gate()
            for row in found[:steady]:
                row[long]["dispatch"] = other.drain_per_s(drained)
            other.pause()
            one.add(2 * PART)
            paces: list[dict[str, float]] = []
            for turn in range(steady):
                progress(f"backlog: dispatching from both in turn, {turn + 1} of {steady}")
                paces.append({short: one.steady_per_s(drained)})
                other.resume()
                paces[-1][long] = other.steady_per_s(drained)
                other.pause()
            one.drain_all()
    series = _series(found, [long, short], steady)
    series.append(
        Series(
            name="jobs run, as many submitted meanwhile",
            unit="jobs/s",
            rounds=[{who: pace[who] for who in (long, short)} for pace in paces],
        )
    )
    return Measured(
        name="backlog",
        title="backlog",
        series=[*own, *series],
        targets=[*_memory_target(own[0], length), *_targets(series, short)],
    )


def _fill(queue: Queue, length: int) -> list[Series]:
    """Queue so many jobs; return what that took."""
    daemon = queue.daemon
    at_start = daemon.memory("VmRSS")
    queue.close_gate()
    took = harness.seconds(lambda: queue.fill(length))
    figures = {
        f"daemon's memory above its start, {length:,} queued": (
            "MB",
            daemon.memory("VmRSS") - at_start,
        ),
        "… at its peak": ("MB", daemon.memory("VmHWM") - at_start),
        "daemon's memory at its start": ("MB", at_start),
        "database": ("MB", sum(f.stat().st_size for f in daemon.place.state_dir.glob("jobd.db*"))),
        f"submitted in parts of {FILL:,}": ("jobs/s", length / took),
    }
    return [
        Series(name=name, unit=unit, rounds=[{JOBD: value / 1e6 if unit == "MB" else value}])
        for name, (unit, value) in figures.items()
    ]


RATES = {
    "pipelined": "submits made durable, pipelined",
    "dispatch": "jobs run, none submitted meanwhile",
}
TIMES = {
    "ack": "submit until durable",
    "ls": f"ls, {PAGE} newest",
    "ls queued": f"ls of queued ones, {PAGE} newest",
    "ls failed": "ls of failed ones (there are none)",
    "show": "show",
}


def _gated(queue: Queue) -> dict[str, float]:
    """Measure what does not need the workers."""
    return {
        "ls": queue.list_us(),
        "ls queued": queue.list_us(State.QUEUED),
        "ls failed": queue.list_us(State.FAILED),
        "show": queue.show_us(),
        "ack": queue.submit_and_ack_us(),
        "pipelined": queue.submits_per_s(),
    }


def _series(
    found: list[dict[str, dict[str, float]]], names: list[str], steady: int
) -> list[Series]:
    made = []
    for key, name in {**TIMES, **RATES}.items():
        rows = found[:steady] if key == "dispatch" else found
        rounds = [{who: row[who][key] for who in names} for row in rows]
        made.append(Series(name=name, unit="µs" if key in TIMES else "jobs/s", rounds=rounds))
    return made


def _memory_target(memory: Series, length: int) -> list[Target]:
    value = memory.medians[JOBD]
    return [
        Target(
            text=f"daemon's memory, {length:,} queued", value=value, unit="MB", at_most=MEMORY_MB
        )
    ]


def _targets(series: list[Series], short: str) -> list[Target]:
    """Return, for each figure, how much worse the long queue makes it."""
    made = []
    for one in series:
        if one.name == RATES["dispatch"]:
            continue  # a thousand are in the workers' hands at once: no commit is among them
        ratio = one.ratios[short]
        slowdown = 1 / ratio if one.unit == "jobs/s" else ratio
        made.append(
            Target(
                text=f"{one.name}: slower than with a thousand",
                value=slowdown,
                unit=FOLD,
                at_most=TOLERANCE,
            )
        )
    return made
