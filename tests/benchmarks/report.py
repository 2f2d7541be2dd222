"""What was measured, how it is shown, and how it is kept."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

FOLD = "\N{MULTIPLICATION SIGN}"
"""The unit of what is a multiple of something."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One figure of everybody who takes part, once for each round.

    The first one of a round is the subject, the others are what it is compared with.
    """

    name: str
    unit: str
    rounds: list[dict[str, float]]

    @property
    def medians(self) -> dict[str, float]:
        """The median of all rounds, by participant."""
        return {who: median(row[who] for row in self.rounds) for who in self.rounds[0]}

    @property
    def ratios(self) -> dict[str, float]:
        """The subject's median as a multiple of each other's."""
        (_, own), *others = self.medians.items()
        return {who: own / value for who, value in others}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the figures are to reach; it informs and decides nothing."""

    text: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the value is within its limit."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return self.at_most is None or self.value <= self.at_most

    def __str__(self) -> str:
        low = self.at_least is not None
        limit = self.at_least if low else self.at_most
        verdict = "reached" if self.reached else "MISSED "
        bound = f"{'at least' if low else 'at most'} {limit:g} {self.unit}"
        note = f"; {self.note}" if self.note else ""
        return f"{verdict}  {self.text}: {number(self.value)} {self.unit} ({bound}{note})"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The outcome of one measure."""

    name: str
    title: str
    series: list[Series]
    targets: list[Target] = field(default_factory=list)


def number(value: float) -> str:
    """Return a figure with about three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _shape(measured: Measured) -> list[tuple[list[str], list[list[str]]]]:
    """Return tables, a head and rows each: series of the same participants share one."""
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for series in measured.series:
        figures = [f"{number(value)} {series.unit}" for value in series.medians.values()]
        ratios = [f"{number(ratio)} {FOLD}" for ratio in series.ratios.values()]
        tables.setdefault(tuple(series.medians), []).append([series.name, *figures, *ratios])
    shaped = []
    for (subject, *others), rows in tables.items():
        shaped.append(([measured.title, subject, *others, *(f"to {who}" for who in others)], rows))
    return shaped


def show(measured: Measured) -> None:
    """Print tables, drawn on a terminal and plain elsewhere, and the targets under them."""
    for head, rows in _shape(measured):
        if sys.stdout.isatty():
            _draw(head, rows)
        else:
            _write(head, rows)
    for target in measured.targets:
        print(f"  {target}")
    print(flush=True)


def _draw(head: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415  # a pipe needs none of it
    from rich.table import Table  # noqa: PLC0415  # as above

    table = Table(title_justify="left")
    for index, title in enumerate(head):
        table.add_column(
            title, justify="right" if index else "left", no_wrap=not index, overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _write(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in [head, *rows]:
        first, *rest = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]))


def as_json(measured: Measured) -> dict[str, Any]:
    """Return everything, every round included."""
    return {
        "name": measured.name,
        "title": measured.title,
        "series": [
            {
                "name": series.name,
                "unit": series.unit,
                "medians": series.medians,
                "ratios": series.ratios,
                "rounds": series.rounds,
            }
            for series in measured.series
        ],
        "targets": [
            {
                "text": target.text,
                "value": target.value,
                "unit": target.unit,
                "at_least": target.at_least,
                "at_most": target.at_most,
                "reached": target.reached,
                "note": target.note,
            }
            for target in measured.targets
        ],
    }


def save(file: Path, about: dict[str, Any], outcomes: list[Measured]) -> None:
    """Write the JSON file."""
    document = {
        "schema": "jobd.benchmarks/1",
        **about,
        "measures": [as_json(one) for one in outcomes],
    }
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
