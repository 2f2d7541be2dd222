"""Short jobs among long ones: how long until all the short ones are done."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain

from jobd.client import Client
from tests.benchmarks import bench_jobs, harness
from tests.benchmarks.harness import JOBD, POOL, PPE, Bench
from tests.benchmarks.report import FOLD, Measured, Series, Target

SHORT_S, LONG_S = 0.001, 2.0

NEAR = 3.0
"""Times as long as a rival that stores nothing: what waits behind a long job would take many times as long."""

Wait = Callable[[], object]
"""What returns when a job is done."""


def _mixed(count: int, longs: int) -> list[float]:
    """Return what each job takes: long ones among short ones, one worker less of them than there are."""
    short = [SHORT_S] * (count // (longs + 1))
    return [*chain.from_iterable([*short, LONG_S] for _ in range(longs)), *short]


def _until_short(takes: list[float], submit: Callable[[float], Wait]) -> float:
    """Submit all, in their order; return after how long the short ones are done.  Then wait for the others."""
    waits: list[Wait] = []

    def wait() -> None:
        waits[:] = map(submit, takes)
        for seconds, done in zip(takes, waits, strict=True):
            if seconds == SHORT_S:
                done()

    took = harness.seconds(wait)
    for done in waits:
        done()
    return took


def _jobd(client: Client, seconds: float) -> Wait:
    function = "bench_jobs:nap" if seconds == SHORT_S else "bench_jobs:sleep"
    return partial(client.submit(function, seconds).result, harness.TIMEOUT_S)


def run(bench: Bench) -> Measured:
    """Measure seconds; the long jobs hold all workers but one."""
    count, rounds = bench.pick(1_000, 300), bench.pick(3, 1)
    takes = _mixed(count, harness.WORKERS - 1)
    with harness.side_by_side(bench) as (daemon, executor, pool):
        for _ in range(harness.WORKERS):  # the daemon learns how long a short one takes
            daemon.client.submit("bench_jobs:nap", SHORT_S).result(harness.TIMEOUT_S)
        runs: dict[str, Callable[[], float]] = {
            JOBD: lambda: _until_short(takes, partial(_jobd, daemon.client)),
            PPE: lambda: _until_short(takes, lambda s: executor.submit(bench_jobs.nap, s).result),
            POOL: lambda: _until_short(takes, lambda s: pool.apply_async(bench_jobs.nap, (s,)).get),
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
