"""A client over TCP with CURVE, through the loopback, beside one at the local socket of the same daemon."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

from jobd.client import Client
from tests.benchmarks import harness
from tests.benchmarks.bulk import of_jobd as in_bulk
from tests.benchmarks.harness import Bench
from tests.benchmarks.latency import percentiles
from tests.benchmarks.report import FOLD, Measured, Series, Target

CEILING, FLOOR = 1.5, 0.9
REMOTE, LOCAL = "tcp and CURVE", "local"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _connect(endpoint: str, key: Path) -> Client:
    os.environ["JOBD_KEY"] = str(key)
    try:
        return Client(endpoint, timeout_s=harness.TIMEOUT_S)
    finally:
        del os.environ["JOBD_KEY"]


def run(bench: Bench) -> Measured:
    """Measure a round trip, and jobs in bulk."""
    trips, jobs, rounds = bench.pick(1_000, 400), bench.pick(20_000, 10_000), bench.pick(7, 2)
    endpoint = f"tcp://127.0.0.1:{_free_port()}"
    with harness.place(bench) as where:
        key = where.directory / "bench.key"
        where.jobd("key", "new", str(key))
        where.jobd("start", "--listen", endpoint, "--allow", str(key.with_suffix(".pub")))
        with _connect(endpoint, key) as remote, Client(where.socket) as local:
            clients = {REMOTE: remote, LOCAL: local}
            for client in clients.values():
                in_bulk(client, harness.WARM_UP)
            took = harness.in_rounds(
                "remote, round trip",
                rounds,
                {who: partial(_trips, client, trips) for who, client in clients.items()},
            )
            rates = harness.in_rounds(
                "remote, bulk",
                rounds,
                {who: partial(_rate, client, jobs) for who, client in clients.items()},
            )
    p50 = [{who: cuts[0] for who, cuts in row.items()} for row in took]
    series = [
        Series(name="p50", unit="µs", rounds=p50),
        Series(name=f"{jobs:,} no-op jobs in bulk", unit="jobs/s", rounds=rates),
    ]
    targets = [
        Target(
            text="round trip over tcp, to the local one",
            value=series[0].ratios[LOCAL],
            unit=FOLD,
            at_most=CEILING,
        ),
        Target(
            text="bulk over tcp, to the local one",
            value=series[1].ratios[LOCAL],
            unit=FOLD,
            at_least=FLOOR,
        ),
    ]
    return Measured(name="remote", title="from another machine", series=series, targets=targets)


def _trips(client: Client, count: int) -> tuple[float, float]:
    return percentiles(lambda: client.submit(harness.NOOP).result(), count)


def _rate(client: Client, count: int) -> float:
    return count / harness.seconds(lambda: in_bulk(client, count))
