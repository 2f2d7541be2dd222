"""Faults at random, for as long as one likes: ``make chaos SECONDS=600``, or ``python tests/chaos --help``.

Sessions follow on each other.  In each, jobs are submitted to a real daemon while faults
come and go, one or two at a time, drawn from a seed that is printed first; then all is
healed, every job has to end, and the oracle of the fault tests judges: nothing that was
acknowledged is lost, nothing ran more often than it has attempts, no end has changed.
With ``--power-cuts N`` the file system under the daemon is shut down N times as if the
power had gone (``power.py``); that needs root and a loop device.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random

from oracle import Counts

from jobd.client import Client
from jobd.model.errors import DaemonUnreachable, JobdError, TooManyClients
from tests.chaos import power
from tests.chaos.faults import FAULTS, World

ROUNDS = 15
"""Faults of a session."""

ANSWERS_S = 5.0
"""After a fault the daemon answers within so long."""

LONGEST_S = 1.5
"""A fault lasts no longer."""

ENDS_WITHIN_S = 120.0

BUG = "a bug in jobd"
"""What the daemon says of an exception that nobody has thought of."""


class Total:
    """What came of all sessions."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.faults: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.unexpected: list[str] = []

    def add(self, counts: Counts) -> None:
        """Add a session's counts."""
        for name, number in vars(counts).items():
            if isinstance(number, int):
                setattr(self.counts, name, getattr(self.counts, name) + number)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} times {name}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.counts}, unexpected {len(self.unexpected)}, "
            f"slowest answer after a fault {self.slowest_s:.2f} s\nfaults: {faults or 'none'}"
        )


def session(rng: Random, total: Total, until_s: float) -> None:
    """Let one daemon live through some faults, and judge it."""
    world = World(rng)
    try:
        world.start()
        client = world.daemon.client()
        for _ in range(ROUNDS):
            if time.monotonic() > until_s:
                break
            submit(world, client)
            names = rng.sample(list(FAULTS), rng.choice((1, 1, 1, 2)))
            total.faults.update(names)
            suffer(world, names)
            total.slowest_s = max(total.slowest_s, answer_s(world))
        total.add(world.oracle.judge(within_s=ENDS_WITHIN_S))
        assert BUG not in world.daemon.log, world.daemon.log
    finally:
        world.close()


def submit(world: World, client: Client) -> None:
    """Submit some jobs of several lengths, some of which end their worker."""
    rng, oracle = world.rng, world.oracle
    for _ in range(rng.randint(1, 4)):
        oracle.submit(client, count=rng.choice((1, 5, 50)))
    oracle.submit(client, "mark_slowly", rng.random(), count=2)
    if rng.random() < 0.3:
        oracle.submit(client, "mark_and_die")
    oracle.listen()


def suffer(world: World, names: list[str]) -> None:
    """Let these faults begin, last a while, and end; the daemon is started again if it has ended."""
    heals = [FAULTS[name](world) for name in names if world.is_alive()]
    try:
        time.sleep(world.rng.random() * LONGEST_S)
    finally:
        for heal in reversed(heals):
            heal()
    world.oracle.listen()


def answer_s(world: World) -> float:
    """Return how long it takes until the daemon answers, once all is healed."""
    began = time.monotonic()
    while not answers(world):
        if not world.is_alive():
            world.oracle.fault()
            world.start()
        elif time.monotonic() - began > ANSWERS_S:
            raise AssertionError(f"no answer within {ANSWERS_S:g} s\n{world.daemon.log}")
    return time.monotonic() - began


def answers(world: World) -> bool:
    """Whether the daemon answers a new client; it may be about to end, or have no room for a moment."""
    try:
        with Client(world.daemon.socket, timeout_s=ANSWERS_S, reconnects=False) as client:
            client.ping()
    except (TooManyClients, DaemonUnreachable):
        return False
    return True


def main() -> int:
    """Run, and print the counts; exit code 1 after anything unexpected."""
    parser = argparse.ArgumentParser(prog="tests/chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", type=float, nargs="?", default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--power-cuts", type=int, default=0, metavar="N")
    said = parser.parse_args()
    print(f"seed {said.seed}, {said.seconds:g} s, {said.power_cuts} power cuts", flush=True)
    rng, total = Random(said.seed), Total()
    until_s = time.monotonic() + said.seconds
    number = 0
    while time.monotonic() < until_s:
        number += 1
        attempt(f"session {number}", total, partial(session, rng, total, until_s))
    for cut in range(said.power_cuts):
        attempt(f"power cut {cut + 1}", total, lambda: total.add(power.cut(rng)))
        total.faults["power cut"] += 1
    print(total)
    return 1 if total.unexpected else 0


def attempt(what: str, total: Total, run: Callable[[], None]) -> None:
    """Run a session; whatever goes wrong in it is told, and counted."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            run()
    except (AssertionError, JobdError, OSError, subprocess.SubprocessError) as error:
        total.unexpected.append(what)
        print(f"{told.getvalue()}\n{what}: {type(error).__name__}: {error}", flush=True)
    else:
        print(f"{what}: well", flush=True)
