"""``jobd cancel``: jobs that wait or run."""

from __future__ import annotations

from jobd.cli.answers import tell
from jobd.cli.options import option, selector_arguments, verb
from jobd.cli.selection import select
from jobd.cli.session import Session

EXAMPLES = """
jobd cancel 5
jobd cancel 40-45,50
jobd cancel -s queued --reason 'wrong input'
"""


@verb(examples=EXAMPLES)
@selector_arguments
@option("--reason", default="", metavar="TEXT", help="Why; kept with the job.")
def command(
    session: Session, *, selector: tuple[str, ...], states: tuple[str, ...], reason: str
) -> int:
    """Cancel jobs, and print what became of each.

    A job that waits is "cancelled" at once; one that runs is "stopping", and ends
    within a few seconds; one that has ended has "already finished".
    """
    selected = select(selector, states)
    with session.connect() as client:
        return tell(session, "cancel", client.cancel(selected, reason))
