"""``jobd reload``: new workers."""

from __future__ import annotations

from jobd.cli.options import verb
from jobd.cli.session import Session
from jobd.cli.text import counted

EXAMPLES = """
jobd reload                after a change of the code that the jobs run
"""


@verb(examples=EXAMPLES)
def command(session: Session) -> int:
    """Replace every worker as soon as its job is done, so that the new ones see new code.

    Returns at once. No job is stopped for it.
    """
    session.errand = True
    with session.connect() as client:
        client.reload()
        welcome = client.welcome
    if session.json:
        session.write_json(
            {"schema": "jobd.reload/1", "pid": welcome.pid, "workers": welcome.workers}
        )
    elif not session.quiet:
        workers = counted(welcome.workers, "worker")
        session.write(f"jobd is reloading: {workers}, each as soon as its job is done")
    return 0
