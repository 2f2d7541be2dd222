"""What a second worker brings to jobs that need the processor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jobd.client import Client
from tests.benchmarks import bench_jobs, harness
from tests.benchmarks.harness import JOBD, POOL, PPE, Bench
from tests.benchmarks.report import FOLD, Measured, Series

TURNS = 200_000
"""About 15 ms of pure Python."""


def _jobd(client: Client, count: int) -> None:
    for _ in client.map("bench_jobs:spin", [TURNS] * count, timeout=harness.TIMEOUT_S):
        pass


def _spin(mapped: Callable[..., object], count: int) -> None:
    list(mapped(bench_jobs.spin, [TURNS] * count, chunksize=1))  # type: ignore[call-overload]  # both are iterable


def run(bench: Bench) -> Measured:
    """Measure jobs a second with one worker and with two."""
    count, rounds = bench.pick(60, 20), bench.pick(5, 2)
    with (
        harness.executor(1) as executor_1,
        harness.executor(2) as executor_2,
        harness.process_pool(1) as pool_1,
        harness.process_pool(2) as pool_2,
        harness.daemon(bench, 1) as daemon_1,
        harness.daemon(bench, 2) as daemon_2,
    ):
        works: dict[str, Callable[[], None]] = {
            f"{JOBD} 1": partial(_jobd, daemon_1.client, count),
            f"{JOBD} 2": partial(_jobd, daemon_2.client, count),
            f"{PPE} 1": partial(_spin, executor_1.map, count),
            f"{PPE} 2": partial(_spin, executor_2.map, count),
            f"{POOL} 1": partial(_spin, pool_1.map, count),
            f"{POOL} 2": partial(_spin, pool_2.map, count),
        }
        for name in (f"{JOBD} 1", f"{JOBD} 2"):
            works[name]()  # the daemon learns how long a job takes
        timed = {name: partial(harness.seconds, work) for name, work in works.items()}
        took = harness.in_rounds("scaling", rounds, timed)
    names = (JOBD, PPE, POOL)
    rates = [
        Series(
            name=f"{count} CPU-bound jobs, {workers} worker{'s'[: workers - 1]}",
            unit="jobs/s",
            rounds=[{name: count / row[f"{name} {workers}"] for name in names} for row in took],
        )
        for workers in (1, 2)
    ]
    gain = Series(
        name="2 workers to 1",
        unit=FOLD,
        rounds=[{name: row[f"{name} 1"] / row[f"{name} 2"] for name in names} for row in took],
    )
    return Measured(name="scaling", title="CPU-bound jobs", series=[*rates, gain])
