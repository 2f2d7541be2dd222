"""From ``jobd start`` in an empty directory to the first result."""

from __future__ import annotations

import sys
import time

from jobd.client import Client
from tests.benchmarks import harness
from tests.benchmarks.harness import HERE, JOBD, NOOP, POOL, PPE, Bench, progress
from tests.benchmarks.report import Measured, Series, Target

CEILING_S = 1.0

SCRIPTS = {
    PPE: "from concurrent.futures import *; p = ProcessPoolExecutor(2); p.submit(noop).result()",
    POOL: "from multiprocessing import *; p = Pool(2); p.apply(noop)",
}
ENDING = {PPE: "p.shutdown()", POOL: "p.terminate()"}


def _by_command_line(bench: Bench) -> tuple[float, float]:
    """Return when ``jobd start`` was back, and when ``jobd submit --wait`` was."""
    with harness.place(bench) as where:
        started = where.jobd("start")
        return started, started + where.jobd("submit", "--wait", NOOP)


def _by_client(bench: Bench) -> float:
    with harness.place(bench) as where:
        began = time.perf_counter()
        where.jobd("start")
        with Client(where.socket) as client:
            client.submit(NOOP).result(harness.TIMEOUT_S)
            return time.perf_counter() - began


def _rival(bench: Bench, name: str) -> float:
    """Return how long a program takes that makes a pool, calls one job and ends."""
    program = (
        f"import sys; sys.path.append({str(HERE)!r}); from bench_jobs import noop; {SCRIPTS[name]}"
    )
    with harness.place(bench) as where:
        return harness.process_seconds(
            [sys.executable, "-c", f"{program}; {ENDING[name]}"], where.environ
        )


def run(bench: Bench) -> Measured:
    """Measure whole processes, each time in a new directory."""
    rounds = bench.pick(9, 3)
    begun, line, client = [], [], []
    for turn in range(rounds):
        progress(f"start: round {turn + 1} of {rounds}")
        started, shown = _by_command_line(bench)
        by_client = _by_client(bench)
        rivals = {name: _rival(bench, name) * 1e3 for name in SCRIPTS}
        begun.append({JOBD: started * 1e3} | rivals)
        line.append({JOBD: shown * 1e3} | rivals)
        client.append({JOBD: by_client * 1e3} | rivals)
    series = [
        Series(name="jobd start has returned; a rival's whole program", unit="ms", rounds=begun),
        Series(name="… first result of jobd submit --wait", unit="ms", rounds=line),
        Series(name="… first result through jobd.Client", unit="ms", rounds=client),
    ]
    targets = [
        Target(
            text=f"jobd start to the first result, {how}",
            value=one.medians[JOBD] / 1e3,
            unit="s",
            at_most=CEILING_S,
        )
        for one, how in zip(series[1:], ("jobd submit --wait", "jobd.Client"), strict=True)
    ]
    return Measured(name="start", title="start", series=series, targets=targets)
