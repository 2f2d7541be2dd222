"""Lanes: the lines in which jobs wait that are not plain.

A *plain* job has the queue ``default``, the priority 0, no fair key and no gate.  All others
have a lane: the jobs that agree in priority, queue, fair key and gates.  A *gate* is a name
of which at most so many jobs run at the same time.  A lane is written as a text, because the
store finds jobs by it: one that sorts the higher priorities first, and keeps the lanes of
one priority and queue together.

    lane = rank TAB queue TAB fair key (TAB limit TAB gate)*

``rank`` is 1000 less the priority, in four digits.  Names are printable, so a tab ends them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from jobd.model.options import HIGHEST, Policy
from jobd.model.queues import DEFAULT

KEY = "key:"
"""Before the name of a gate that is a concurrency key."""

UNIQUE = "unique:"
"""Before the name of the gate of jobs with one key of which one runs at a time."""


def words_of(gate: str) -> str:
    """Return what people call the gate of this name."""
    if gate.startswith(UNIQUE):
        return f"the key {gate.removeprefix(UNIQUE)!r}"
    return f"the concurrency key {gate.removeprefix(KEY)!r}"


class Gate(NamedTuple):
    """At most ``limit`` jobs with this name run at the same time."""

    name: str
    limit: int


class Lane(NamedTuple):
    """What the jobs of a lane have in common."""

    priority: int
    queue: str
    fair_key: str
    gates: tuple[Gate, ...]


def lane_of(policy: Policy | None) -> str:
    """Return the lane of jobs with this policy; "" for plain ones."""
    if policy is None:
        return ""
    gates = (
        f"\t{policy.concurrency}\t{KEY}{policy.concurrency_key}" if policy.concurrency_key else ""
    )
    if "running" in policy.unique and policy.key:
        gates += f"\t1\t{UNIQUE}{policy.key}"
    if not (policy.priority or policy.fair_key or gates) and policy.queue == DEFAULT:
        return ""
    return f"{HIGHEST - policy.priority:04d}\t{policy.queue}\t{policy.fair_key}{gates}"


@lru_cache(maxsize=10_000)
def parse_lane(text: str) -> Lane:
    """Read a lane as ``lane_of`` has written it."""
    rank, queue, fair_key, *rest = text.split("\t")
    gates = zip(rest[1::2], map(int, rest[::2]), strict=True)
    return Lane(HIGHEST - int(rank), queue, fair_key, tuple(Gate(*gate) for gate in gates))


def gates_of(text: str) -> tuple[Gate, ...]:
    """Return the gates of a lane; plain jobs have none."""
    return parse_lane(text).gates if text else ()


def span_of(text: str) -> tuple[str, str]:
    """Return a text before, and one behind, all lanes of the same priority and queue as this one."""
    prefix = "\t".join(text.split("\t", 2)[:2])
    return prefix, f"{prefix}\n"
