"""Tables with colour, for terminals only.

Nothing else imports ``rich``: it takes longer to load than most commands to run.
It honours ``NO_COLOR`` and ``TERM=dumb`` by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {
    "queued": "cyan",
    "running": "bold blue",
    "succeeded": "green",
    "failed": "bold red",
    "crashed": "bold magenta",
    "timed_out": "bold magenta",
    "cancelled": "yellow",
    "aborted": "yellow",
    "expired": "yellow",
    "blocked": "cyan",
    "scheduled": "cyan",
    "idle": "green",
    "busy": "bold blue",
    "waiting": "cyan",
    "open": "green",
    "paused": "yellow",
}
"""How a cell looks whose whole text is the name of a state."""

_NUMBERS = frozenset({"ID", "TOOK", "WORKER", "JOB", "MEMORY", "SLOTS", "RUNNING", "WAITING"})
_WIDE = frozenset({"FUNCTION", "NAME", "WHY", "VALUE", "AFTER"})


def draw(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Draw a table on stdout: with heads, or as names and values where ``columns`` is empty."""
    table = Table(box=None, show_header=bool(columns), header_style="bold", pad_edge=False)
    if not columns:
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
    for name in columns:
        table.add_column(
            name, justify="right" if name in _NUMBERS else "left", no_wrap=name not in _WIDE
        )
    for row in rows:
        # Text, not str: a name such as "[red]" is not markup. A cell of a table with heads
        # that does not fit is cut; `jobd show` has all of it.
        table.add_row(*(Text(cell, STYLES.get(cell, ""), no_wrap=bool(columns)) for cell in row))
    Console().print(table, overflow="ellipsis")
