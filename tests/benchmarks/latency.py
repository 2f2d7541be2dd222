"""The round trip of one job: submit, run, result, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from statistics import quantiles

from tests.benchmarks import bench_jobs, harness
from tests.benchmarks.harness import JOBD, NOOP, POOL, PPE, Bench
from tests.benchmarks.report import FOLD, Measured, Series, Target

CEILING = 2.0


def percentiles(call: Callable[[], object], count: int) -> tuple[float, float]:
    """Return p50 and p99 in microseconds."""
    took = sorted(harness.seconds(call) * 1e6 for _ in range(count))
    cuts = quantiles(took, n=100, method="inclusive")
    return cuts[49], cuts[98]


def run(bench: Bench) -> Measured:
    """Measure p50 and p99 of a no-op job's round trip."""
    count, rounds = bench.pick(1_000, 400), bench.pick(7, 2)
    with harness.side_by_side(bench) as (daemon, executor, pool):
        client = daemon.client
        both = harness.in_rounds(
            "latency",
            rounds,
            {
                JOBD: lambda: percentiles(lambda: client.submit(NOOP).result(), count),
                PPE: lambda: percentiles(lambda: executor.submit(bench_jobs.noop).result(), count),
                POOL: lambda: percentiles(lambda: pool.apply(bench_jobs.noop), count),
            },
        )
    series = [
        Series(
            name=name,
            unit="µs",
            rounds=[{who: cuts[index] for who, cuts in row.items()} for row in both],
        )
        for index, name in enumerate(("p50", "p99"))
    ]
    target = Target(
        text="latency p50, to ProcessPoolExecutor",
        value=series[0].ratios[PPE],
        unit=FOLD,
        at_most=CEILING,
    )
    return Measured(name="latency", title="round trip", series=series, targets=[target])
