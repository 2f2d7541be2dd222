"""A chain of jobs, each with the result of the one before as its argument, submitted up front."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

from jobd.client import Client
from tests.benchmarks import bench_jobs, harness
from tests.benchmarks.harness import JOBD, WORKERS, Bench
from tests.benchmarks.report import FOLD, Measured, Series, Target

DASK = "Dask distributed"
FLOOR = 1.0


def of_jobd(client: Client, count: int) -> None:
    """Submit all, and await the last."""
    last = client.submit("bench_jobs:add_one", 0)
    for _ in range(count - 1):
        last = client.submit("bench_jobs:add_one", last)
    assert last.result(harness.TIMEOUT_S) == count


def of_dask(client: Any, count: int) -> None:
    """Do the same with Dask's futures."""
    last = client.submit(bench_jobs.add_one, 0, pure=False)
    for _ in range(count - 1):
        last = client.submit(bench_jobs.add_one, last, pure=False)
    assert last.result() == count


@contextmanager
def dask() -> Iterator[Any]:
    """Give a client of a cluster whose workers have started."""
    from distributed import Client as DaskClient  # noqa: PLC0415  # an extra, slow to import
    from distributed import LocalCluster  # noqa: PLC0415  # the same

    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        DaskClient(cluster) as client,
    ):
        client.submit(bench_jobs.add_one, 0, pure=False).result()
        yield client


def run(bench: Bench) -> Measured:
    """Measure jobs a second, submitting included."""
    if find_spec("distributed") is None:
        print("chain: Dask is not installed (in a clone: pip install '.[bench]')", file=sys.stderr)
        with harness.daemon(bench) as daemon:
            return _measured(bench, {JOBD: partial(of_jobd, daemon.client)})
    with dask() as other, harness.daemon(bench) as daemon:
        runs = {JOBD: partial(of_jobd, daemon.client), DASK: partial(of_dask, other)}
        return _measured(bench, runs)


def _measured(bench: Bench, chains: Mapping[str, Callable[[int], None]]) -> Measured:
    count, rounds = bench.pick(1_000, 300), bench.pick(5, 2)

    def rate(chain: Callable[[int], None]) -> float:
        return count / harness.seconds(lambda: chain(count))

    rates = harness.in_rounds(
        "chain", rounds, {name: partial(rate, chain) for name, chain in chains.items()}
    )
    series = Series(name=f"{count:,} jobs in a chain", unit="jobs/s", rounds=rates)
    targets = []
    if DASK in series.ratios:
        text = f"a chain submitted up front, to {DASK}"
        value = series.ratios[DASK]
        targets = [Target(text=text, value=value, unit=FOLD, at_least=FLOOR)]
    return Measured(name="chain", title="chain", series=[series], targets=targets)
