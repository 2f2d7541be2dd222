"""``jobd ls``: the jobs, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jobd.cli import render
from jobd.cli.options import option, selector_arguments, verb
from jobd.cli.selection import pages, select
from jobd.cli.session import Session
from jobd.model.states import NAMES

if TYPE_CHECKING:
    from jobd.client import Client
    from jobd.model.job import JobInfo
    from jobd.model.selector import Selector

SHOWN = 20

EXAMPLES = """
jobd ls                     the newest 20
jobd ls -n 100              the newest 100; -n 0 is all
jobd ls -s failed -s crashed
jobd ls 40-45,50            these
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
    terminal it is a table; in a pipe a line has the same columns separated by tabs.
    """
    selected = select(selector or ("all",), states)
    with session.connect() as client:
        if session.json:
            _stream_json(session, client, selected, limit or 0)
            return 0
        found: list[JobInfo] = []
        more = False
        for jobs, older in pages(client, selected, SHOWN if limit is None else limit):
            found += jobs
            more = older
        if session.quiet:
            session.write_lines(str(info.id) for info in found)
            return 0
        if found:
            session.write_table(render.JOB_COLUMNS, map(render.job_row, found))
        else:
            session.note("no jobs")
        if more:
            session.note(
                f"… {_older(client, selected, len(found))}: -n {_next(len(found))}, or --json"
            )
    return 0


def _stream_json(session: Session, client: Client, selector: Selector, most: int) -> None:
    """Write ``jobd.jobs/1`` page by page: there may be a million jobs."""
    before = b'{"schema":"jobd.jobs/1","jobs":['
    for jobs, _ in pages(client, selector, most):
        for info in jobs:
            session.write_bytes(before + session.encode_json(render.job_json(info)))
            session.streaming = True
            before = b",\n"
    session.write_bytes((before if not session.streaming else b"") + b"]}\n")


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
