"""No-op jobs submitted in bulk: beside the rivals' one by one, and their own bulk calls."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.pool import Pool

from jobd.client import Client
from tests.benchmarks import bench_jobs, harness
from tests.benchmarks.harness import JOBD, NOOP, POOL, PPE, Bench
from tests.benchmarks.one_by_one import of_executor, of_pool
from tests.benchmarks.report import FOLD, Measured, Series, Target

FLOOR = 8.0

SINGLE, CHUNKED = "map, chunksize=1", "map, in chunks"


def of_jobd(client: Client, count: int) -> None:
    """Submit all at once, and await all."""
    for deferred in client.submit_many(NOOP, [()] * count):
        deferred.result(harness.TIMEOUT_S)


def _jobd_map(client: Client, count: int) -> None:
    for _ in client.map("bench_jobs:take", range(count), timeout=harness.TIMEOUT_S):
        pass


def _executor_map(pool: ProcessPoolExecutor, count: int, chunk: int) -> None:
    for _ in pool.map(bench_jobs.take, range(count), chunksize=chunk):
        pass


def _pool_map(pool: Pool, count: int, chunk: int) -> None:
    pool.map(bench_jobs.take, range(count), chunksize=chunk)


def run(bench: Bench) -> Measured:
    """Measure jobs a second, submitting included."""
    count, rounds = bench.pick(20_000, 10_000), bench.pick(5, 1)
    chunk = -(-count // (4 * harness.WORKERS))  # what Pool.map takes by default
    with harness.side_by_side(bench) as (daemon, executor, pool):
        client = daemon.client
        _jobd_map(client, harness.WARM_UP)
        runs: dict[str, Callable[[], None]] = {
            JOBD: partial(of_jobd, client, count),
            f"{JOBD} {SINGLE}": partial(_jobd_map, client, count),
            PPE: partial(of_executor, executor, count),
            f"{PPE} {SINGLE}": partial(_executor_map, executor, count, 1),
            f"{PPE} {CHUNKED}": partial(_executor_map, executor, count, chunk),
            POOL: partial(of_pool, pool, count),
            f"{POOL} {SINGLE}": partial(_pool_map, pool, count, 1),
            f"{POOL} {CHUNKED}": partial(_pool_map, pool, count, chunk),
        }
        timed = {name: partial(_rate, work, count) for name, work in runs.items()}
        rates = harness.in_rounds("bulk", rounds, timed)
    series = [
        _series(f"{count:,} no-op jobs; rivals one by one", rates, "", ""),
        _series(f"{count:,} calls by map, chunksize=1", rates, f" {SINGLE}", f" {SINGLE}"),
        _series(f"… rivals in chunks of {chunk:,}", rates, f" {SINGLE}", f" {CHUNKED}"),
    ]
    target = Target(
        text="jobs submitted in bulk, to ProcessPoolExecutor one by one",
        value=series[0].ratios[PPE],
        unit=FOLD,
        at_least=FLOOR,
    )
    return Measured(name="bulk", title="bulk", series=series, targets=[target])


def _rate(work: Callable[[], None], count: int) -> float:
    return count / harness.seconds(work)


def _series(name: str, rates: list[dict[str, float]], own: str, others: str) -> Series:
    names = {JOBD: JOBD + own, PPE: PPE + others, POOL: POOL + others}
    rounds = [{who: row[key] for who, key in names.items()} for row in rates]
    return Series(name=name, unit="jobs/s", rounds=rounds)
