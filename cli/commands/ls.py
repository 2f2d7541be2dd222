"""``jobd ls``: the jobs, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from jobd.cli import render
from jobd.cli.options import option, selector_arguments, verb
from jobd.cli.selection import pages, refuse_none, select, with_items
from jobd.cli.session import Session
from jobd.model.item import shown
from jobd.model.states import NAMES

if TYPE_CHECKING:
    from jobd.client import Client
    from jobd.model.job import JobInfo
    from jobd.model.selector import Selector

SHOWN = 20

EXAMPLES = """
jobd ls                     the newest 20
jobd ls -n 100              the newest 100; -n 0 is all
jobd ls -s failed,crashed
jobd ls 40-45,50            these
jobd ls 7                   the items of the array 7; jobd ls 7 -s failed, jobd ls 7/0-9
jobd ls -q -s queued        ids only, one a line
jobd ls --json              all, as one JSON value
"""


@verb(examples=EXAMPLES)
@selector_arguments
@option(
    "-n",
    "--limit",
    type=click.IntRange(0),
    metavar="N",
    help=f"How many, 0 for all; {SHOWN} if not given.",
)
def command(
    session: Session, *, selector: tuple[str, ...], states: tuple[str, ...], limit: int | None
) -> int:
    """List jobs, the newest first.

    SELECTOR is an id, a range 40-45, a list 40-45,50, last, last:3 or all. On a
    terminal it is a table; in a pipe a job is a line with the same columns separated by
    tabs, and the last of them is its name.
    """
    selected = select(selector or ("all",), states)
    with session.connect() as client:
        selected = with_items(client, selected)
        if session.json:
            _stream_json(session, client, selected, limit or 0)
        else:
            _list(session, client, selected, SHOWN if limit is None else limit)
    return 0


def _list(session: Session, client: Client, selector: Selector, most: int) -> None:
    """Write a table of up to so many jobs (0: all), and say whether there are more."""
    found: list[JobInfo] = []
    more = False
    for jobs, older in pages(client, selector, most):
        found += jobs
        more = older
    _refuse_nothing(selector, found)
    if session.quiet:
        session.write_lines(shown(info.id) for info in found)
    elif found:
        session.write_table(*render.jobs_table(found, name_last=not session.on_terminal))
    else:
        session.note("no jobs")
    if more:
        more_text = _older(client, selector, len(found))
        session.note(f"… {more_text}: -n {_next(len(found))}, or --json")


def _stream_json(session: Session, client: Client, selector: Selector, most: int) -> None:
    """Write ``jobd.jobs/1`` page by page: there may be a million jobs."""
    separator = b'{"schema":"jobd.jobs/1","jobs":['
    for jobs, _ in pages(client, selector, most):
        if session.open_end is None:
            _refuse_nothing(selector, jobs)
        for info in jobs:
            session.write_part(separator + session.encode_json(render.job_json(info)), {})
            separator = b",\n"
    session.close_json(b"" if session.open_end is not None else separator, {})


def _refuse_nothing(selector: Selector, found: Sequence[JobInfo]) -> None:
    """Refuse a selector of ids none of which exists; that no job is of a kind is an answer.

    Raises:
        NotFound: it is one.
    """
    if selector.ranges and not selector.states:
        refuse_none(found)


def _older(client: Client, selector: Selector, shown: int) -> str:
    """Say how many jobs are not shown, where the daemon's counters tell."""
    if selector.ranges or selector.last:
        return "there are older ones"
    counts = client.status().jobs
    names = [NAMES[state] for state in selector.states] or list(counts)
    return f"{max(1, sum(counts.get(name, 0) for name in names) - shown):,} older"


def _next(shown: int) -> int:
    """Return a limit worth trying: some more than these."""
    return 100 if shown < 100 else shown * 10
