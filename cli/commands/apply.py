"""``jobd apply``: submit a graph of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobd.cli import drawing, outcome, render
from jobd.cli.drawing import Key, Source
from jobd.cli.options import Verb, option, timeout_option, verb
from jobd.cli.session import Session
from jobd.cli.submission import clock_notes, file_reader
from jobd.client.calls import graph_call
from jobd.client.graphs import Node, Plan, parse, plan_of
from jobd.model.edges import NAMES as WHEN
from jobd.model.edges import success_of
from jobd.model.states import EXIT_CODES, NAMES, State

if TYPE_CHECKING:
    from jobd.client import Client
    from jobd.client.sync_api import Deferred
    from jobd.model.messages import Ended

EXAMPLES = """
jobd apply nightly.toml              all of its jobs or none; prints their ids by name
jobd apply nightly.toml --dry-run    check it, draw it, submit nothing
jobd apply nightly.toml --wait       wait for all, and exit as jobd wait does
make-graph | jobd apply - -q         from stdin; ids only
"""

FORM = """
[jobs.load]
function = "mytasks:load"
args = ["sales.csv"]
retries = 3
[jobs.report]
function = "mytasks:report"
kwargs = {rows = "@job:load", first = "@job:load.rows[0]"}
[jobs.clean-up]
run = ["sh", "-c", "rm -f *.tmp"]
after_any = ["report"]
""".strip().splitlines()
"""A file, as the help has it."""


class Apply(Verb):
    """The command, whose help has a file as an example."""

    def explain(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what a file looks like, then what every command has."""
        with formatter.section("A file"):
            for line in FORM:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        super().explain(context, formatter)


@verb(cls=Apply, examples=EXAMPLES)
@click.argument("file", metavar="FILE.toml")
@option("--dry-run", is_flag=True, help="Check the graph and draw it; submit nothing.")
@option("--wait", is_flag=True, help="Wait until all have ended, and exit as jobd wait does.")
@timeout_option("Wait no longer than that (and do wait).", "--wait-timeout")
@option("--check/--no-check", default=True, help="Check the functions and arguments first.")
def command(
    session: Session,
    *,
    file: str,
    dry_run: bool,
    wait: bool,
    wait_timeout: float | None,
    check: bool,
) -> int:
    """Submit a graph of jobs, all of them or none, and print their ids by name.

    Each table [jobs.NAME] is a job: a function with args and kwargs, or a command (run), the options
    of submit by their names in the settings, and after, after_any, after_fail: names in the file, or
    ids. "@job:NAME" among the arguments is what that job returns.
    """
    plan = plan_of(parse(file_reader()(file), file))
    request = graph_call(plan, None, None, json=True, check=check)
    for node in plan.nodes:
        for note in clock_notes(node.options):
            session.note(f"jobd: jobs.{node.name}: {note}")
    if dry_run:
        if check:  # else nobody need be asked
            with session.connect() as client:
                client.try_graph(request)
        return _draw(session, plan)
    with session.connect() as client:
        session.submitting = True
        deferreds = client.submit_graph(request)
        session.attached = [deferred.id for deferred in deferreds]
        session.submitting, session.again = False, "wait"
        if wait or wait_timeout is not None:
            return _wait(session, client, plan, deferreds, wait_timeout)
    ids = [str(number) for number in session.attached]
    if session.json:
        _write_jobs(session, plan, [{"id": number} for number in session.attached])
    elif session.quiet:
        session.write_lines(ids)
    else:
        names = [node.name for node in plan.nodes]
        session.write_table((), zip(names, ids, map(_function, plan.nodes), strict=True))
    return 0


def _wait(
    session: Session,
    client: Client,
    plan: Plan,
    deferreds: list[Deferred[Any]],
    timeout_s: float | None,
) -> int:
    """Wait for all, and print how each ended."""
    found = outcome.wait_all(session, client, [deferred.id for deferred in deferreds], timeout_s)
    ends: list[Ended] = [found[deferred.id] for deferred in deferreds]
    if session.json:
        _write_jobs(session, plan, render.ends_json(ends)["jobs"])
    elif session.quiet:
        session.write_lines(str(ended.id) for ended in ends)
    else:
        rows = [
            (node.name, str(ended.id), NAMES[ended.state])
            for node, ended in zip(plan.nodes, ends, strict=True)
        ]
        session.write_table((), rows)
    counted = [ended for ended in ends if not _was_not_needed(ended)]
    for ended in counted:
        outcome.complain(session, ended)
    return render.exit_code([EXIT_CODES[ended.state] for ended in counted])


def _was_not_needed(ended: Ended) -> bool:
    """Whether a job did not run because another one has succeeded: an alarm, and what comes after it."""
    return ended.state is State.ABORTED and ended.cause == success_of(ended.root)


def _write_jobs(session: Session, plan: Plan, jobs: list[dict[str, Any]]) -> None:
    named = [{"name": node.name, **job} for node, job in zip(plan.nodes, jobs, strict=True)]
    session.write_json({"schema": "jobd.apply/1", "jobs": named})


def _draw(session: Session, plan: Plan) -> int:
    """Show a graph that is not submitted."""
    if session.json:
        jobs = [{"name": node.name, "function": _function(node)} for node in plan.nodes]
        edges = [
            {"from": link.source, "to": node.name, "when": WHEN[link.when], "value": link.value}
            for node in plan.nodes
            for link in node.links
        ]
        session.write_json({"schema": "jobd.plan/1", "jobs": jobs, "edges": edges})
        return 0
    sources: dict[Key, list[Source]] = {
        node.name: [Source(*link) for link in node.links] for node in plan.nodes
    }
    rows = []
    for prefix, name in drawing.tree(sources, drawing.branches()):
        node = plan.nodes[plan.places[str(name)]]
        rows.append((f"{prefix}{name}", _function(node), drawing.sources_text(sources[name])))
    if session.quiet:
        return 0
    session.write_table(("GRAPH", "FUNCTION", "AFTER"), rows)
    session.note("jobd: nothing was submitted")
    return 0


def _function(node: Node) -> str:
    return str(node.function)
