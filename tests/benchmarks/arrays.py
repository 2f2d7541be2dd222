"""Arrays: a million calls as one job, beside the standard library's pool one by one, and in chunks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from jobd.client import Client
from tests.benchmarks import bench_jobs, harness
from tests.benchmarks.harness import JOBD, PPE, Bench, Daemon
from tests.benchmarks.one_by_one import of_executor
from tests.benchmarks.report import FOLD, Measured, Series, Target

FLOOR = 25.0
WANTED = 250_000
NAP_S = 0.005
CHUNKED = "map, in chunks"
SHELL = "jobd map --each-line"


def _map(client: Client, count: int) -> None:
    for _ in client.map("bench_jobs:take", range(count), timeout=harness.TIMEOUT_S):
        pass


def _from_shell(daemon: Daemon, lines: str) -> None:
    place = daemon.place
    place.jobd("map", "bench_jobs:take", "--each-line", lines, "--wait")


def _chunks(pool: ProcessPoolExecutor, count: int) -> None:
    for _ in pool.map(bench_jobs.take, range(count), chunksize=1_000):
        pass


def _naps(mapped: Callable[..., object], function: object, count: int) -> None:
    list(mapped(function, [NAP_S] * count))  # type: ignore[call-overload]  # it is iterable


def run(bench: Bench) -> Measured:
    """Measure items a second, from the call to the last result."""
    count, rounds = bench.pick(1_000_000, 100_000), bench.pick(5, 1)
    few, naps = bench.pick(20_000, 5_000), bench.pick(1_000, 100)
    with harness.executor() as pool, harness.daemon(bench) as daemon:
        client = daemon.client
        _map(client, 10_000)
        lines = daemon.place.directory / "lines"
        lines.write_text("".join(f"{n}\n" for n in range(count)), encoding="ascii")
        before = daemon.memory("VmHWM")
        works: dict[str, tuple[Callable[[], None], int]] = {
            JOBD: (partial(_map, client, count), count),
            SHELL: (partial(_from_shell, daemon, str(lines)), count),
            PPE: (partial(of_executor, pool, few), few),
            f"{PPE} {CHUNKED}": (partial(_chunks, pool, count), count),
        }
        timed = {name: partial(_rate, work, size) for name, (work, size) in works.items()}
        rates = harness.in_rounds("arrays", rounds, timed)
        grown = daemon.memory("VmHWM") - before
        slow = {
            JOBD: partial(_naps, client.map, "bench_jobs:nap", naps),
            PPE: partial(_naps, pool.map, bench_jobs.nap, naps),
        }
        slow[JOBD]()  # the daemon learns how long a call takes
        timed = {name: partial(_rate, work, naps) for name, work in slow.items()}
        napped = harness.in_rounds("arrays, 5 ms", rounds, timed)
    series = [
        Series(
            name=f"{count:,} no-op items; the rival one by one",
            unit="items/s",
            rounds=_of(rates, JOBD, PPE),
        ),
        Series(
            name="… as 'jobd map --each-line --wait'", unit="items/s", rounds=_of(rates, SHELL, PPE)
        ),
        Series(
            name="… the rival in chunks of 1,000",
            unit="items/s",
            rounds=_of(rates, JOBD, f"{PPE} {CHUNKED}"),
        ),
        Series(name=f"{naps:,} items of 5 ms", unit="items/s", rounds=napped),
        Series(
            name="memory of the daemon, at most, above the start",
            unit="MB",
            rounds=[{JOBD: grown / 1e6}],
        ),
    ]
    target = Target(
        text="no-op items, to ProcessPoolExecutor one by one",
        value=series[0].ratios[PPE],
        unit=FOLD,
        at_least=FLOOR,
    )
    return Measured(name="arrays", title="arrays", series=series, targets=[target])


def _of(rates: list[dict[str, float]], own: str, other: str) -> list[dict[str, float]]:
    return [{JOBD: row[own], PPE: row[other]} for row in rates]


def _rate(work: Callable[[], None], count: int) -> float:
    return count / harness.seconds(work)
