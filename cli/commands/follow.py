"""``jobd follow``: what a generator function produces, while it runs."""

from __future__ import annotations

from jobd.cli.items import follow
from jobd.cli.options import job_argument, verb
from jobd.cli.selection import one_job
from jobd.cli.session import Session

EXAMPLES = """
jobd follow 4                  one JSON value a line, as produced
jobd follow last | head -3     three items; then the generator is closed
jobd follow 4 --json           {"schema": "jobd.items/1", "items": […], …}
jobd submit mytasks:tail_log /var/log/x | xargs jobd follow
"""


@verb(examples=EXAMPLES)
@job_argument
def command(session: Session, *, job: str) -> int:
    """Print what a generator function produces, item by item; exit as the job did.

    The generator runs as far ahead as its bound allows and then waits, and items that have
    been consumed are deleted in time. Several may follow one job: each gets every item, from the
    oldest that is kept. When the last of them is gone, the generator is closed; Ctrl-C only
    detaches from it.
    """
    with session.connect() as client:
        return follow(session, client, one_job(client, job))
