"""Graphs of jobs as text: a tree, each job once, under the deepest of those that it comes after.

All that it comes after stands beside it, so that nothing is left out.  In a pipe the
columns are separated by tabs, as in every table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jobd.cli.text import one_line
from jobd.model.edges import When

WORDS = {When.SUCCEEDED: "", When.ENDED: "any ", When.FAILED: "fail "}

WIDEST = 60
"""What is deeper than so many characters goes straight down."""

Key = int | str


class Source(NamedTuple):
    """A job that another one comes after."""

    key: Key
    when: When
    value: bool


class Branches(NamedTuple):
    """What leads from a line to those under it."""

    more: str
    last: str
    passing: str


FINE = Branches("├─ ", "└─ ", "│  ")
PLAIN = Branches("|- ", "`- ", "|  ")


def branches() -> Branches:
    """Return the branches that stdout can write."""
    try:
        "".join(FINE).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return FINE


def tree(graph: Mapping[Key, Sequence[Source]], marks: Branches) -> Iterator[tuple[str, Key]]:
    """Yield what stands before each job, and the job, in the order of the lines.

    ``graph`` has the sources of each job, and the jobs in an order in which each follows its
    sources; sources that are not in it are passed over.
    """
    depths: dict[Key, int] = {}
    under: dict[Key | None, list[Key]] = {}
    for key, sources in graph.items():
        inside = [source.key for source in sources if source.key in depths]
        parent = max(inside, key=lambda other: depths[other], default=None)
        depths[key] = 0 if parent is None else depths[parent] + 1
        under.setdefault(parent, []).append(key)
    ahead = [("", "", key) for key in reversed(under.get(None, []))]
    while ahead:
        prefix, below, key = ahead.pop()
        yield prefix, key
        children = under.get(key, [])
        for child in reversed(children):
            is_last = child is children[-1]
            mark = marks.last if is_last else marks.more
            passing = " " * len(marks.passing) if is_last else marks.passing
            deeper = below + passing if len(below) < WIDEST else below
            ahead.append((below + mark, deeper, child))


def sources_text(sources: Sequence[Source]) -> str:
    """Return whom a job comes after, in a line: ``load (value), any 7``."""
    return one_line(", ".join(map(_source_text, sources)))


def _source_text(source: Source) -> str:
    return f"{WORDS[source.when]}{source.key}{' (value)' if source.value else ''}"
