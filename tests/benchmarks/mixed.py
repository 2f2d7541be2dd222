"""Short jobs among long ones: how long until all the short ones are done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import chain
from multiprocessing.pool import AsyncResult, Pool
from typing import Any, TypeVar

from jobd.client import Client
from tests.benchmarks import bench_jobs, harness
from tests.benchmarks.harness import JOBD, POOL, PPE, Bench
from tests.benchmarks.report import FOLD, Measured, Series, Target

SHORT_S, LONG_S = 0.001, 2.0

NEAR = 3.0
"""Times as long as a rival that stores nothing: what waits behind a long job would take many times as long."""

T = TypeVar("T")


def _mixed(count: int, longs: int) -> list[float]:
    """Return what each job takes: long ones among short ones, one worker less of them than there are."""
    short = [SHORT_S] * (count // (longs + 1))
    return [*chain.from_iterable([*short, LONG_S] for _ in range(longs)), *short]


def _short_ones(takes: list[float], submit: Callable[[float], T]) -> tuple[list[T], list[T]]:
    """Submit all, in their order; return the short ones, and the others."""
    jobs = [(seconds, submit(seconds)) for seconds in takes]
    short = [job for seconds, job in jobs if seconds == SHORT_S]
    return short, [job for seconds, job in jobs if seconds != SHORT_S]


def _jobd(client: Client, takes: list[float]) -> float:
    def submit(seconds: float) -> Any:
        function = "bench_jobs:nap" if seconds == SHORT_S else "bench_jobs:sleep"
        return client.submit(function, seconds)

    def wait() -> None:
        short, long[:] = _short_ones(takes, submit)
        for job in short:
            job.result(harness.TIMEOUT_S)

    long: list[Any] = []
    took = harness.seconds(wait)
    for job in long:
        job.result(harness.TIMEOUT_S)
    return took


def _executor(pool: ProcessPoolExecutor, takes: list[float]) -> float:
    def wait() -> None:
        short, long[:] = _short_ones(takes, lambda s: pool.submit(bench_jobs.nap, s))
        for future in short:
            future.result()

    long: list[Future[None]] = []
    took = harness.seconds(wait)
    for future in long:
        future.result()
    return took


def _pool(pool: Pool, takes: list[float]) -> float:
    def wait() -> None:
        short, long[:] = _short_ones(takes, lambda s: pool.apply_async(bench_jobs.nap, (s,)))
        for found in short:
            found.get()

    long: list[AsyncResult[None]] = []
    took = harness.seconds(wait)
    for found in long:
        found.get()
    return took


def run(bench: Bench) -> Measured:
    """Measure seconds; the long jobs hold all workers but one."""
    count, rounds = bench.pick(1_000, 300), bench.pick(3, 1)
    takes = _mixed(count, harness.WORKERS - 1)
    with (
        harness.executor() as executor,
        harness.process_pool() as pool,
        harness.daemon(bench) as daemon,
    ):
        for _ in range(harness.WORKERS):  # the daemon learns how long a short one takes
            daemon.client.submit("bench_jobs:nap", SHORT_S).result(harness.TIMEOUT_S)
        runs: dict[str, Callable[[], float]] = {
            JOBD: partial(_jobd, daemon.client, takes),
            PPE: partial(_executor, executor, takes),
            POOL: partial(_pool, pool, takes),
        }
        took = harness.in_rounds("mixed", rounds, runs)
    name = f"{count:,} jobs of 1 ms among some of {LONG_S:g} s, until the short ones are done"
    series = Series(name=name, unit="s", rounds=took)
    target = Target(
        text="short jobs among long ones, to ProcessPoolExecutor",
        value=series.ratios[PPE],
        unit=FOLD,
        at_most=NEAR,
    )
    return Measured(name="mixed", title="mixed", series=[series], targets=[target])
