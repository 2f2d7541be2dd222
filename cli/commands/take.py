"""``jobd take``: consume what a job returned."""

from __future__ import annotations

from jobd.cli import outcome
from jobd.cli.options import job_argument, option, timeout_option, verb
from jobd.cli.selection import one_job
from jobd.cli.session import Session
from jobd.model.errors import JobError

EXAMPLES = """
jobd take 42                       the value; exit code 4 if it was taken
jobd take --wait 42                wait for it
jobd take --wait --timeout 30s 42  exit code 124 if it takes longer
"""


@verb(examples=EXAMPLES)
@job_argument
@option("--wait", is_flag=True, help="Wait until the job has ended.")
@timeout_option("Wait no longer than that (and do wait).")
def command(session: Session, *, job: str, wait: bool, timeout: float | None) -> int:
    """Consume what a job returned: print it, and have it removed.

    Of several that take the same result, one gets it; the others exit with code 4. Who
    dies before the result has arrived has taken nothing.
    """
    with session.connect() as client:
        number = one_job(client, job)
        session.again = "take --wait"
        if wait or timeout is not None:
            outcome.wait(session, client, number, timeout)
        try:
            ended = client.take_encoded(number)
        except JobError:
            ended = outcome.fetch(client, number)
        return outcome.tell(session, ended)
