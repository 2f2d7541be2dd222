"""``jobd hold``: jobs that have not started."""

from __future__ import annotations

from jobd.cli.answers import tell
from jobd.cli.options import selector_arguments, verb
from jobd.cli.selection import select
from jobd.cli.session import Session

EXAMPLES = """
jobd hold 5
jobd hold -s queued                          all that wait for a worker
jobd submit --hold mytasks:deploy v2.0       a job that is held from the start
jobd release 5                               let it go
"""


@verb(examples=EXAMPLES)
@selector_arguments
def command(session: Session, *, selector: tuple[str, ...], states: tuple[str, ...]) -> int:
    """Set jobs aside until they are released, and print what became of each.

    A job that waits, for whatever, is "held"; one that runs goes on and "is running";
    one that has ended has "already finished". A held job can be cancelled, and expires
    when its --expires says so.
    """
    selected = select(selector, states)
    with session.connect() as client:
        return tell(session, "hold", client.hold(selected))
