"""``jobd stop``: the end of the daemon."""

from __future__ import annotations

import os
import select

from jobd.cli.options import Duration, option, verb
from jobd.cli.session import Session
from jobd.model.errors import UsageError

LINGER_S = 10
"""How long the process may take to end once it has hung up."""

EXAMPLES = """
jobd stop                  running jobs get the time that daemon.drain_s says
jobd stop --drain 10m      they get ten minutes
jobd stop --now            they get none
"""


@verb(examples=EXAMPLES)
@option(
    "--drain",
    type=Duration(),
    metavar="[DURATION]",
    is_flag=False,
    flag_value=-1.0,
    help="Let running jobs end first; no longer than that (daemon.drain_s).",
)
@option("--now", is_flag=True, help="Put running jobs back at once.")
def command(session: Session, *, drain: float | None, now: bool) -> int:
    """Stop the daemon, and return once it is gone.

    No job is lost: what waits, and what was put back, runs at the next start.
    """
    if now and drain is not None:
        raise UsageError("--drain and --now contradict each other", "give one of them")
    drain_s = 0.0 if now else drain if drain is not None and drain >= 0 else None
    session.errand = True
    with session.connect() as client:
        pid = client.welcome.pid
        process = _pidfd(pid)
        client.stop(drain_s)
    if process is not None:
        _await_end(process)
    if session.json:
        session.write_json({"schema": "jobd.stop/1", "pid": pid, "stopped": True})
    elif not session.quiet:
        session.write(f"jobd has stopped: pid {pid}")
    return 0


def _pidfd(pid: int) -> int | None:
    """Return what tells of the daemon's end; None if its pid means nothing here."""
    try:
        return os.pidfd_open(pid)
    except OSError:  # it runs in another container
        return None


def _await_end(process: int) -> None:
    """Wait until the daemon's process is gone.

    It hangs up on its clients a little earlier, and a `jobd start` in between would
    find the state directory taken.
    """
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll(LINGER_S * 1000)
    os.close(process)
