"""``jobd wait``: until jobs have ended."""

from __future__ import annotations

from jobd.cli import outcome, render
from jobd.cli.options import selector_arguments, timeout_option, verb
from jobd.cli.selection import ids_of, select
from jobd.cli.session import Session
from jobd.model.item import shown
from jobd.model.states import EXIT_CODES, NAMES

EXAMPLES = """
jobd wait 4 5              until both have ended
jobd wait 40-45,50         ranges and lists
jobd wait last:3           the three newest
jobd wait -s running       all that run now
jobd wait all --timeout 1h
"""


@verb(examples=EXAMPLES)
@selector_arguments
@timeout_option("Wait no longer than that: exit code 124.")
def command(
    session: Session, *, selector: tuple[str, ...], states: tuple[str, ...], timeout: float | None
) -> int:
    """Wait until jobs have ended, and print how each did.

    The exit code is the job's; for several jobs the one they share, or 8.
    """
    selected = select(selector, states)
    with session.connect() as client:
        found = outcome.wait_all(session, client, ids_of(client, selected), timeout)
    ends = [found[number] for number in sorted(found)]
    if session.json:
        session.write_json(render.ends_json(ends))
    elif session.quiet:
        session.write_lines(shown(ended.id) for ended in ends)
    else:
        session.write_table((), [(shown(ended.id), NAMES[ended.state]) for ended in ends])
    for ended in ends:
        outcome.complain(session, ended)
    return render.exit_code([EXIT_CODES[ended.state] for ended in ends])
