"""``jobd logs``: what a job wrote."""

from __future__ import annotations

import click

from jobd.cli.options import job_argument, option, verb
from jobd.cli.selection import one_job
from jobd.cli.session import Session
from jobd.cli.stream import copy
from jobd.model.states import EXIT_CODES, NAMES

EXAMPLES = """
jobd logs 4                what it has written so far
jobd logs -f last          follow until it has ended; exit as it did
jobd logs 4 --attempt 1    what an earlier attempt wrote
jobd logs 4 > out.bin      in a pipe or a file: byte by byte
"""


@verb(examples=EXAMPLES)
@job_argument
@option("-f", "--follow", is_flag=True, help="Go on until the job has ended; exit as it did.")
@option("--attempt", type=click.IntRange(1), metavar="N", help="Which attempt, if not the last.")
def command(session: Session, *, job: str, follow: bool, attempt: int | None) -> int:
    """Print what a job wrote to stdout and stderr.

    That is everything that came out of its process: of C code and child processes
    too. On a terminal control characters are shown, not obeyed.
    """
    with session.connect() as client:
        number = one_job(client, job)
        session.attached = [number] if follow else []
        pieces = client.logs(number, attempt=attempt or 0, follow=follow)
        if session.json:
            text = b"".join(pieces).decode(errors="backslashreplace")
        else:
            text = ""
            copy(session, pieces)
        fetched = client.fetch(number)
    if session.json:
        state = NAMES[fetched.state]
        session.write_json(
            {
                "schema": "jobd.logs/1",
                "id": number,
                "attempt": attempt,
                "state": state,
                "output": text,
            }
        )
    return EXIT_CODES[fetched.state] if follow else 0
