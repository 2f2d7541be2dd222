"""Jobs of real length: from one millisecond on, one or two workers, beside the pool of the standard library."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jobd.client import Client
from tests.benchmarks import bench_jobs, harness
from tests.benchmarks.harness import JOBD, PPE, Bench
from tests.benchmarks.report import Measured, Series
from tests.benchmarks.scaling import TURNS

NAPS_S = (0.001, 0.003, 0.005, 0.020)
LONG_S = 1.0
"""What the jobs of a round take together, for each worker."""


def _jobd(client: Client, function: str, values: list[float]) -> None:
    for _ in client.map(function, values, timeout=harness.TIMEOUT_S):
        pass


def _pool(
    mapped: Callable[..., object], function: Callable[..., object], values: list[float]
) -> None:
    list(mapped(function, values))  # type: ignore[call-overload]  # it is iterable


def run(bench: Bench) -> Measured:
    """Measure jobs a second of each length."""
    rounds, share = bench.pick(5, 2), bench.pick(1.0, 0.2)
    series: list[Series] = []
    for workers in (1, 2):
        with harness.executor(workers) as executor, harness.daemon(bench, workers) as daemon:
            for nap_s in (*NAPS_S, 0.0):
                count = max(20, int(share * LONG_S * workers / (nap_s or 0.015)))
                value: float = nap_s or TURNS
                name, function = ("nap", bench_jobs.nap) if nap_s else ("spin", bench_jobs.spin)
                values = [value] * count
                works = {
                    JOBD: partial(_jobd, daemon.client, f"bench_jobs:{name}", values),
                    PPE: partial(_pool, executor.map, function, values),
                }
                works[JOBD]()  # the daemon learns how long a job takes
                timed = {key: partial(harness.seconds, work) for key, work in works.items()}
                what = f"{nap_s * 1000:g} ms asleep" if nap_s else "15 ms of pure Python"
                took = harness.in_rounds(f"lengths, {what}, {workers}", rounds, timed)
                rates = [{key: count / row[key] for key in works} for row in took]
                title = f"{count} jobs, {what}, {workers} worker{'s'[: workers - 1]}"
                series.append(Series(name=title, unit="jobs/s", rounds=rates))
    return Measured(name="lengths", title="jobs of real length", series=series)
