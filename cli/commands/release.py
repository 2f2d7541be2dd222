"""``jobd release``: jobs that are held."""

from __future__ import annotations

from jobd.cli.answers import tell
from jobd.cli.options import selector_arguments, verb
from jobd.cli.selection import select
from jobd.cli.session import Session

EXAMPLES = """
jobd release 5
jobd release -s held          all that are held
jobd release 40-60            of these, those that are
"""


@verb(examples=EXAMPLES)
@selector_arguments
def command(session: Session, *, selector: tuple[str, ...], states: tuple[str, ...]) -> int:
    """Let jobs go that are held, and print what became of each.

    A job that is "released" waits for what it would have waited for: its inputs, its time,
    a worker. One whose --expires is over by now "has expired"; all others are as they
    were: one "is not held", another "is running".
    """
    selected = select(selector, states)
    with session.connect() as client:
        return tell(session, "release", client.release(selected))
