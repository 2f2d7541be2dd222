"""``jobd.Executor`` on a durable daemon, beside the standard library's: one by one, and by ``map``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

import jobd
from jobd.client import Client
from tests.benchmarks import bench_jobs, harness
from tests.benchmarks.harness import JOBD, PPE, Bench
from tests.benchmarks.report import FOLD, Measured, Series, Target

SUBMIT_FLOOR, MAP_FLOOR = 3.0, 6.0

SUBMIT, MAP, CLIENT_MAP = "Executor.submit", "Executor.map", "Client.map"


def _one_by_one(executor: Executor, count: int) -> None:
    for future in [executor.submit(bench_jobs.noop) for _ in range(count)]:
        future.result(harness.TIMEOUT_S)


def _by_map(mapper: Executor | Client, count: int) -> None:
    for _ in mapper.map(bench_jobs.take, range(count), timeout=harness.TIMEOUT_S):
        pass


def run(bench: Bench) -> Measured:
    """Measure jobs a second, submitting included."""
    count, rounds = bench.pick(20_000, 10_000), bench.pick(7, 2)
    with (
        harness.executor() as theirs,
        harness.daemon(bench) as daemon,
        jobd.Executor(socket=daemon.place.socket) as ours,
    ):
        _by_map(ours, harness.WARM_UP)
        runs: dict[str, Callable[[], None]] = {
            SUBMIT: partial(_one_by_one, ours, count),
            PPE: partial(_one_by_one, theirs, count),
            MAP: partial(_by_map, ours, count),
            CLIENT_MAP: partial(_by_map, daemon.client, count),
        }
        timed = {name: partial(_rate, work, count) for name, work in runs.items()}
        rates = harness.in_rounds("executor", rounds, timed)
    series = [
        Series(
            name=f"{count:,} no-op jobs by {name}; rival one by one",
            unit="jobs/s",
            rounds=[{JOBD: row[name], PPE: row[PPE]} for row in rates],
        )
        for name in (SUBMIT, MAP, CLIENT_MAP)
    ]
    targets = [
        Target(
            text=f"{name}, to ProcessPoolExecutor one by one",
            value=one.ratios[PPE],
            unit=FOLD,
            at_least=floor,
        )
        for name, one, floor in zip(
            (SUBMIT, MAP, CLIENT_MAP), series, (SUBMIT_FLOOR, MAP_FLOOR, MAP_FLOOR), strict=True
        )
    ]
    return Measured(name="executor", title="executor", series=series, targets=targets)


def _rate(work: Callable[[], None], count: int) -> float:
    return count / harness.seconds(work)
