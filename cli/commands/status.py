"""``jobd status``: how the daemon is."""

from __future__ import annotations

import os

from jobd.cli import render
from jobd.cli.options import verb
from jobd.cli.session import Session
from jobd.cli.text import home_shortened, one_line

EXAMPLES = """
jobd status
jobd status --json         {"schema": "jobd.status/1", "workers": […], "jobs": {…}}
"""


@verb(examples=EXAMPLES)
def command(session: Session) -> int:
    """Show how the daemon is, what its workers do, and how many jobs there are."""
    session.errand = True
    with session.connect() as client:
        status = client.status()
    if session.json:
        session.write_json(render.status_json(status))
        return 0
    if session.quiet:
        return 0
    where = one_line(home_shortened(status.state_dir, os.environ.get("HOME", "")))
    session.write_table((), render.status_details(status, where))
    session.write("")
    session.write_table(render.WORKER_COLUMNS, render.worker_rows(status))
    return 0
