"""What ``python tests/benchmarks`` takes and does."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from tests.benchmarks import (
    arrays,
    backlog,
    bulk,
    chain,
    commands,
    executor,
    harness,
    latency,
    lengths,
    machine,
    mixed,
    one_by_one,
    payload,
    remote,
    report,
    scaling,
    start,
)

MEASURES = {
    "one_by_one": one_by_one.run,
    "bulk": bulk.run,
    "arrays": arrays.run,
    "executor": executor.run,
    "chain": chain.run,
    "latency": latency.run,
    "scaling": scaling.run,
    "lengths": lengths.run,
    "mixed": mixed.run,
    "start": start.run,
    "commands": commands.run,
    "backlog": backlog.run,
    "payload": payload.run,
    "remote": remote.run,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks",
        description="Measure the installed jobd with two workers and full durability, beside "
        "ProcessPoolExecutor and multiprocessing.Pool. Figures are medians of interleaved rounds; "
        "targets inform, and never make this fail.",
    )
    parser.add_argument("--quick", action="store_true", help="half a minute instead of three")
    parser.add_argument(
        "--only",
        action="append",
        choices=MEASURES,
        metavar="NAME",
        help=f"one of: {', '.join(MEASURES)}",
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), metavar="FILE")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("/var/tmp"),  # noqa: S108  # what is made there has a name that nobody guesses
        help="where the daemons' state is; a real disk",
    )
    return parser.parse_args()


def _leave(number: int, _: object) -> NoReturn:
    """Leave every ``with`` block, once: a second signal must not end that half-way."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    harness.progress("")
    print("stopping, and removing what was started", file=sys.stderr)
    raise SystemExit(128 + number)


def main() -> int:
    """Measure, print and save; return the exit code."""
    options = _options()
    if not harness.SCRIPT.exists():
        print(f"there is no {harness.SCRIPT}: is jobd installed for this Python?", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    bench = harness.Bench(directory=options.dir, quick=options.quick)
    if machine.filesystem(options.dir) in machine.IN_MEMORY:
        print(f"{options.dir} is in memory: durability costs nothing there", file=sys.stderr)
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "mode": "quick" if options.quick else "full",
        "settings": {"workers": harness.WORKERS, "durability": "full"},
        "machine": machine.describe(options.dir),
    }
    try:
        outcomes = _measure(bench, options.only or list(MEASURES))
    except harness.CannotMeasureError as error:
        print(error, file=sys.stderr)
        return 1
    report.save(options.json, about, outcomes)
    print(f"every round is in {options.json}", file=sys.stderr)
    return 0


def _measure(bench: harness.Bench, names: list[str]) -> list[report.Measured]:
    began = time.monotonic()
    outcomes = []
    for name in names:
        outcome = MEASURES[name](bench)
        harness.progress("")
        report.show(outcome)
        outcomes.append(outcome)
    print(f"measured for {time.monotonic() - began:.0f} s", file=sys.stderr)
    return outcomes
