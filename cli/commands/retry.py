"""``jobd retry``: jobs that ended without a result."""

from __future__ import annotations

from jobd.cli.answers import tell
from jobd.cli.options import selector_arguments, verb
from jobd.cli.selection import select
from jobd.cli.session import Session

EXAMPLES = """
jobd retry 4
jobd retry -s failed          all that failed
jobd retry 40-60 -s crashed   of these, those that crashed
"""


@verb(examples=EXAMPLES)
@selector_arguments
def command(session: Session, *, selector: tuple[str, ...], states: tuple[str, ...]) -> int:
    """Queue jobs again that failed, crashed or were cancelled, and print what became of each.

    A job keeps its id and its arguments; its earlier attempts stay on record. Jobs that
    were aborted for its sake wait for it again.
    """
    selected = select(selector, states)
    with session.connect() as client:
        return tell(session, "retry", client.retry(selected))
