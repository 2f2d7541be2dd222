"""``jobd cancel``: jobs that wait or run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobd.cli import answers, outcome
from jobd.cli.options import Duration, option, selector_arguments, timeout_option, verb
from jobd.cli.selection import select
from jobd.cli.session import Session
from jobd.model.errors import WaitTimeout
from jobd.model.states import NAMES, State

if TYPE_CHECKING:
    from jobd.client import Client

EXAMPLES = """
jobd cancel 5
jobd cancel 40-45,50
jobd cancel -s queued --reason 'wrong input'
jobd cancel 5 --grace 1m       a minute to tidy up in, then SIGKILL
jobd cancel 5 --now            SIGKILL at once
jobd cancel 5 --wait           return once it has ended
"""


@verb(examples=EXAMPLES)
@selector_arguments
@option("--reason", default="", metavar="TEXT", help="Why; kept with the job.")
@option(
    "--grace",
    type=Duration(),
    metavar="DURATION",
    help="The time between SIGTERM and SIGKILL, whatever the job's --kill-grace.",
)
@option("--now", is_flag=True, help="SIGKILL at once; also for one that is stopping already.")
@option("--wait", is_flag=True, help="Wait until all of them have ended.")
@timeout_option("Wait no longer than that (and do wait): exit code 124.", "--wait-timeout")
def command(  # noqa: PLR0913  # its options
    session: Session,
    *,
    selector: tuple[str, ...],
    states: tuple[str, ...],
    reason: str,
    grace: float | None,
    now: bool,
    wait: bool,
    wait_timeout: float | None,
) -> int:
    """Cancel jobs, and print what became of each.

    A job that waits is "cancelled" at once; one that runs is "stopping": it gets SIGTERM, and
    SIGKILL when its grace is over, its child processes too; one that has ended has "already
    finished". A second cancel can hasten a first one.
    """
    selected = select(selector, states)
    with session.connect() as client:
        answered = client.cancel(selected, reason, grace=grace, now=now)
        if not (wait or wait_timeout is not None):
            return answers.tell(session, "cancel", answered)
        return _wait(session, client, answered, wait_timeout)


def _wait(
    session: Session, client: Client, answered: list[tuple[int, str]], timeout_s: float | None
) -> int:
    """Wait for those that are stopping; a person is told the answers first, JSON has the ends too.

    Raises:
        WaitTimeout: one has not ended in time.
    """
    stopping = sorted(number for number, answer in answered if answer == "stopping")
    code = 0 if session.json else answers.tell(session, "cancel", answered)
    session.again = "cancel --wait"
    try:
        found = outcome.wait_all(session, client, stopping, timeout_s) if stopping else {}
    except WaitTimeout as error:
        raise WaitTimeout(error.message, "'jobd cancel --now' of the same kills at once") from None
    ends = {number: NAMES[ended.state] for number, ended in found.items()}
    if session.json:
        return answers.tell(session, "cancel", answered, ends)
    for number, ended in found.items():
        if ended.state is not State.CANCELLED:
            session.note(f"jobd: job {number} {NAMES[ended.state]} before it was stopped")
    return code
