"""The command line as whole processes, beside a Python that does nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from tests.benchmarks import harness
from tests.benchmarks.harness import JOBD, NOOP, Bench
from tests.benchmarks.report import FOLD, Measured, Series, Target

CEILING = 5.0
BARE = "python -c pass"
VERBS = {
    "jobd submit": ("submit", NOOP),
    "jobd result": ("result", "1"),
    "jobd submit --wait": ("submit", "--wait", NOOP),
    "jobd ls": ("ls",),
    "jobd --version": ("--version",),
}


def run(bench: Bench) -> Measured:
    """Measure the wall time of processes."""
    with harness.daemon(bench) as daemon:
        where = daemon.place
        bare = partial(harness.process_seconds, [sys.executable, "-c", "pass"], where.environ)
        runs: dict[str, Callable[[], float]] = {BARE: bare}
        runs |= {name: partial(where.jobd, *words) for name, words in VERBS.items()}
        for once in runs.values():
            once()  # the first writes what Python compiles
        took = harness.in_rounds("commands", bench.pick(41, 15), runs)
    series = [
        Series(
            name=name,
            unit="ms",
            rounds=[{JOBD: row[name] * 1e3, BARE: row[BARE] * 1e3} for row in took],
        )
        for name in VERBS
    ]
    targets = [
        Target(text=f"{one.name}, to {BARE}", value=one.ratios[BARE], unit=FOLD, at_most=CEILING)
        for one in series[:2]
    ]
    return Measured(name="commands", title="command", series=series, targets=targets)
