"""A large array as an argument and back as a result, and the same result in the hands of others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from types import ModuleType
from typing import Any

from jobd.client import Client
from tests.benchmarks import bench_jobs, harness
from tests.benchmarks.harness import JOBD, PPE, Bench
from tests.benchmarks.report import FOLD, Measured, Series, Target

ARRAY_BYTES = 100_000_000
CONSUMERS = 8
FLOOR = 5.0
CEILING_MS = 1.0

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "there and back": bench_jobs.echo,
    "there, a new one back": bench_jobs.negative,
}


def _numpy() -> ModuleType:
    try:
        import numpy as np  # noqa: PLC0415  # the only measure that needs it
    except ImportError:
        raise harness.CannotMeasureError(
            "payload needs numpy: install it into the Python that measures"
        ) from None
    return np


def of_jobd(client: Client, function: Callable[[Any], Any], array: Any) -> float:
    """Return MB/s, both ways counted, until the first and the last number are read."""

    def run() -> None:
        name = f"bench_jobs:{function.__name__}"
        found = client.submit(name, array).result(harness.TIMEOUT_S)
        assert abs(found[0]) == array[0]
        assert abs(found[-1]) == array[-1]

    return 2 * ARRAY_BYTES / 1e6 / harness.seconds(run)


def of_executor(pool: ProcessPoolExecutor, function: Callable[[Any], Any], array: Any) -> float:
    """Do the same with a future."""

    def run() -> None:
        found = pool.submit(function, array).result()
        assert abs(found[0]) == array[0]
        assert abs(found[-1]) == array[-1]

    return 2 * ARRAY_BYTES / 1e6 / harness.seconds(run)


def of_consumers(
    client: Client, others: list[Client], array: Any, choose: Callable[[list[float]], float]
) -> float:
    """Return how long one of several clients takes to have one result in hand, in ms."""
    first = client.submit("bench_jobs:echo", array)
    first.result(harness.TIMEOUT_S)
    number, last = first.id, array[-1]

    def consume(other: Client) -> None:
        found = other.result(number, harness.TIMEOUT_S)
        assert found[-1] == last

    return 1000 * choose([harness.seconds(lambda: consume(other)) for other in others])  # noqa: B023  # called at once


def run(bench: Bench) -> Measured:
    """Measure MB/s, and the time until a result is in the second's and everybody else's hands."""
    rounds = bench.pick(7, 2)
    array = _numpy().random.default_rng(1).random(ARRAY_BYTES // 8)
    series = []
    with harness.executor() as executor, harness.daemon(bench) as daemon:
        client = daemon.client
        for name, function in FUNCTIONS.items():
            of_jobd(client, function, array)  # each worker imports numpy once
            of_executor(executor, function, array)
            rates = harness.in_rounds(
                f"payload, {name}",
                rounds,
                {
                    JOBD: lambda: of_jobd(client, function, array),  # noqa: B023  # called at once
                    PPE: lambda: of_executor(executor, function, array),  # noqa: B023  # as above
                },
            )
            series.append(Series(name=f"100 MB {name}", unit="MB/s", rounds=rates))
        others = [Client(daemon.place.socket) for _ in range(CONSUMERS)]
        try:
            took = harness.in_rounds(
                "payload, further consumers",
                rounds,
                {JOBD: lambda: of_consumers(client, others, array, median)},
            )
            slowest = harness.in_rounds(
                "payload, slowest of further consumers",
                rounds,
                {JOBD: lambda: of_consumers(client, others, array, max)},
            )
        finally:
            for other in others:
                other.close()
    further = Series(name=f"in hand, median of {CONSUMERS} others", unit="ms", rounds=took)
    last = Series(name=f"in hand, slowest of {CONSUMERS} others", unit="ms", rounds=slowest)
    targets = [
        Target(
            text=f"100 MB {name}, to ProcessPoolExecutor",
            value=one.ratios[PPE],
            unit=FOLD,
            at_least=FLOOR,
        )
        for name, one in zip(FUNCTIONS, series, strict=True)
    ]
    targets.append(
        Target(
            text="the second and further consumers",
            value=further.medians[JOBD],
            unit="ms",
            at_most=CEILING_MS,
        )
    )
    return Measured(
        name="payload", title="payload", series=[*series, further, last], targets=targets
    )
