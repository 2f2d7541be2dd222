"""No-op jobs submitted one by one, and all results awaited."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing.pool import Pool

from jobd.client import Client
from tests.benchmarks import bench_jobs, harness
from tests.benchmarks.harness import JOBD, NOOP, POOL, PPE, Bench
from tests.benchmarks.report import FOLD, Measured, Series, Target

FLOOR = 4.0


def of_jobd(client: Client, count: int) -> None:
    """Submit all, then await all, as one would with futures."""
    for deferred in [client.submit(NOOP) for _ in range(count)]:
        deferred.result(harness.TIMEOUT_S)


def of_executor(pool: ProcessPoolExecutor, count: int) -> None:
    """Do the same with futures."""
    for future in [pool.submit(bench_jobs.noop) for _ in range(count)]:
        future.result()


def of_pool(pool: Pool, count: int) -> None:
    """Do the same with the older pool."""
    for result in [pool.apply_async(bench_jobs.noop) for _ in range(count)]:
        result.get()


def run(bench: Bench) -> Measured:
    """Measure jobs a second, submitting included."""
    count, rounds = bench.pick(20_000, 10_000), bench.pick(7, 2)
    with harness.side_by_side(bench) as (daemon, executor, pool):
        rates = harness.in_rounds(
            "one by one",
            rounds,
            {
                JOBD: lambda: count / harness.seconds(lambda: of_jobd(daemon.client, count)),
                PPE: lambda: count / harness.seconds(lambda: of_executor(executor, count)),
                POOL: lambda: count / harness.seconds(lambda: of_pool(pool, count)),
            },
        )
    series = Series(name=f"{count:,} no-op jobs", unit="jobs/s", rounds=rates)
    target = Target(
        text="jobs submitted one by one, to ProcessPoolExecutor",
        value=series.ratios[PPE],
        unit=FOLD,
        at_least=FLOOR,
    )
    return Measured(name="one_by_one", title="one by one", series=[series], targets=[target])
