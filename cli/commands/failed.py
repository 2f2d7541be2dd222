"""``jobd failed``: what jobs have died of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobd.cli import render
from jobd.cli.options import selector_arguments, verb
from jobd.cli.selection import pages, select
from jobd.cli.session import Session
from jobd.cli.text import first_line, one_line
from jobd.model.states import NAMES, State

if TYPE_CHECKING:
    from jobd.model.job import JobInfo

DEAD = (State.FAILED, State.CRASHED, State.TIMED_OUT)

COLUMNS = ("JOBS", "ERROR", "NEWEST", "FUNCTION", "EXAMPLE")

EXAMPLES = """
jobd failed                       the most frequent one first
jobd failed last:1000             of the newest thousand jobs
jobd failed -s crashed            of those that crashed
jobd retry $(jobd failed -q)      the newest of each group, once more
jobd failed --json                {"schema": "jobd.failed/1", "groups": […]}
"""


class Group:
    """Jobs that have died of the same."""

    def __init__(self, newest: JobInfo) -> None:
        self.newest = newest
        self.count = 0


@verb(examples=EXAMPLES)
@selector_arguments
def command(session: Session, *, selector: tuple[str, ...], states: tuple[str, ...]) -> int:
    """Group jobs that failed, crashed or timed out by what they died of.

    A group has how many they are, the exception or the cause, and the newest of them as
    an example.
    """
    chosen = states or tuple(NAMES[state] for state in DEAD)
    groups: dict[str, Group] = {}
    with session.connect() as client:
        for jobs, _ in pages(client, select(selector or ("all",), chosen)):
            for info in jobs:  # the newest first
                groups.setdefault(what_of(info), Group(info)).count += 1
    ordered = sorted(groups.items(), key=lambda item: (-item[1].count, -item[1].newest.id))
    if session.json:
        found = [group_json(error, group) for error, group in ordered]
        session.write_json({"schema": "jobd.failed/1", "groups": found})
    elif session.quiet:
        session.write_lines(str(group.newest.id) for _, group in ordered)
    elif ordered:
        session.write_table(COLUMNS, (row(error, group) for error, group in ordered))
    else:
        session.note("jobd: no jobs have failed")
    return 0


def what_of(info: JobInfo) -> str:
    """Return what a job has died of: its exception's class, or its cause."""
    if info.state is State.FAILED and info.error is not None:
        return one_line(info.error.type)
    return f"{NAMES[info.state]} ({one_line(info.cause)})"


def row(error: str, group: Group) -> render.Row:
    """Return a group as a line."""
    info = group.newest
    message = first_line(info.error.message) if info.error else ""
    return (str(group.count), error, str(info.id), one_line(info.function), message)


def group_json(error: str, group: Group) -> dict[str, Any]:
    """Return a group as JSON."""
    info = group.newest
    return {
        "error": error,
        "state": NAMES[info.state],
        "count": group.count,
        "newest": info.id,
        "function": info.function,
        "message": info.error.message if info.error else None,
    }
