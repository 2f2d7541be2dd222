"""``jobd graph``: what a job comes after, and what comes after it."""

from __future__ import annotations

import click

from jobd.cli import drawing, render
from jobd.cli.drawing import Key, Source
from jobd.cli.options import job_argument, option, verb
from jobd.cli.selection import one_job
from jobd.cli.session import Session
from jobd.cli.text import counted, one_line
from jobd.model.edges import joined
from jobd.model.job import JobInfo
from jobd.model.messages import GraphInfo
from jobd.model.states import NAMES

SHOWN = 50

EXAMPLES = """
jobd graph 7              what job 7 comes after and what comes after it, all the way
jobd graph last -n 500    up to 500 jobs in each direction
jobd graph 7 --json       {"schema": "jobd.graph/1", "id": 7, "jobs": […], "edges": […]}
"""

COLUMNS = ("GRAPH", "STATE", "FUNCTION", "AFTER")


@verb(examples=EXAMPLES)
@job_argument
@option(
    "-n",
    "--limit",
    type=click.IntRange(1, 2000),
    default=SHOWN,
    metavar="N",
    help=f"Jobs in each direction, the nearest ones; {SHOWN} if not given.",
)
def command(session: Session, *, job: str, limit: int) -> int:
    """Draw what a job comes after and what comes after it, with the state of each.

    Each job stands under one of those that it comes after. The last column has all of these: "7 (value)"
    where its result is an argument, "any 7" and "fail 7" for --after-any and --after-fail.
    """
    with session.connect() as client:
        number = one_job(client, job)
        found = client.graph(number, limit)
    jobs = sorted(found.jobs, key=lambda info: info.id)
    if session.json:
        session.write_json(_json(number, found))
    elif session.quiet:
        session.write_lines(str(info.id) for info in jobs)
    else:
        known = {info.id: info for info in jobs}
        graph: dict[Key, list[Source]] = {info.id: sources_of(info) for info in jobs}
        rows = []
        for prefix, key in drawing.tree(graph, drawing.branches()):
            info = known[int(key)]
            mark = " *" if info.id == number else ""
            after = drawing.sources_text(graph[key])
            function = one_line(info.name or info.function)
            rows.append((f"{prefix}{info.id}{mark}", NAMES[info.state], function, after))
        session.write_table(COLUMNS, rows)
        for sentence in _left_out(found):
            session.note(f"jobd: {sentence}")
    return 0


def sources_of(info: JobInfo) -> list[Source]:
    """Return the jobs that a job comes after."""
    inputs = set(info.inputs)
    return [
        Source(number, when, number in inputs)
        for number, when in joined(info.inputs, info.after).items()
    ]


def _left_out(found: GraphInfo) -> list[str]:
    """Say how many jobs are not shown."""
    more = "" if found.whole else "at least "
    told = []
    if found.before:
        told.append(f"{more}{counted(found.before, 'more job')} before these: see --limit")
    if found.after:
        told.append(f"{more}{counted(found.after, 'more job')} after these: see --limit")
    return told


def _json(number: int, found: GraphInfo) -> dict[str, object]:
    """Return a graph: ``jobd.graph/1``."""
    jobs = [
        {
            "id": info.id,
            "state": NAMES[info.state],
            "function": info.function,
            "name": info.name or None,
        }
        for info in found.jobs
    ]
    edges = [
        {"from": edge["id"], "to": info.id, "when": edge["when"], "value": edge["value"]}
        for info in found.jobs
        for edge in render.after_json(info)
    ]
    return {
        "schema": "jobd.graph/1",
        "id": number,
        "jobs": jobs,
        "edges": edges,
        "more_before": found.before,
        "more_after": found.after,
        "whole": found.whole,
    }
