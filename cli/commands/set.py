"""``jobd set``: change an array that has not ended."""

from __future__ import annotations

import click

from jobd.cli.options import job_argument, option, verb
from jobd.cli.selection import one_job
from jobd.cli.session import Session

EXAMPLES = """
jobd set 7 --slots 4     no more than four of its items run at once
jobd set 7 --slots 0     any number
"""


@verb(examples=EXAMPLES)
@job_argument
@option(
    "--slots",
    type=click.IntRange(0),
    required=True,
    metavar="N",
    help="No more than N of its items run at once from now on; 0: no limit.",
)
def command(session: Session, *, job: str, slots: int) -> int:
    """Change an array that has not ended; what runs goes on."""
    with session.connect() as client:
        number = one_job(client, job)
        client.set_slots(number, slots)
    if session.json:
        session.write_json({"schema": "jobd.set/1", "id": number, "slots": slots or None})
    return 0
