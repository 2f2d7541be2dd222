"""``jobd ping``: whether the daemon answers."""

from __future__ import annotations

from jobd.cli.durations import show_duration
from jobd.cli.options import verb
from jobd.cli.session import Session

EXAMPLES = """
jobd ping                     exit code 69 if nobody answers
jobd ping -q && echo up
"""


@verb(examples=EXAMPLES)
def command(session: Session) -> int:
    """Ask whether the daemon answers, and print how long that takes."""
    session.errand = True
    with session.connect() as client:
        took_s = client.ping()
        welcome = client.welcome
    if session.json:
        session.write_json(
            {
                "schema": "jobd.ping/1",
                "version": welcome.version,
                "pid": welcome.pid,
                "took_s": took_s,
            }
        )
    elif not session.quiet:
        session.write(
            f"jobd {welcome.version} answers: pid {welcome.pid}, in {show_duration(took_s)}"
        )
    return 0
