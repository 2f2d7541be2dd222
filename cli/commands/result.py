"""``jobd result``: what a job returned."""

from __future__ import annotations

from jobd.cli import outcome
from jobd.cli.options import job_argument, option, timeout_option, verb
from jobd.cli.selection import one_job
from jobd.cli.session import Session

EXAMPLES = """
jobd result 42                       the value; exit code 3 while there is none
jobd result --wait 42                wait for it
jobd result --wait --timeout 30s 42  exit code 124 if it takes longer
jobd result last --json              {"schema": "jobd.result/1", "value": …}
jobd result 7/3                      of item 3 of the array 7
jobd result 7 > out.jsonl            of all its items, in order, a line of JSON each
"""


@verb(examples=EXAMPLES)
@job_argument
@option("--wait", is_flag=True, help="Wait until the job has ended.")
@timeout_option("Wait no longer than that (and do wait).")
def command(session: Session, *, job: str, wait: bool, timeout: float | None) -> int:
    """Print what a job returned, or tell how it failed; exit as the job did.

    A text is printed as it is, any other value as JSON, and what JSON cannot say as
    its repr. Reading a result does not use it up.
    """
    with session.connect() as client:
        number = one_job(client, job)
        if wait or timeout is not None:
            outcome.wait_all(session, client, [number], timeout)
        fetched = client.fetch(number)
        if fetched.items is not None:
            from jobd.cli.arrays import tell_results  # noqa: PLC0415  # most are single jobs

            return tell_results(session, client, fetched)
        return outcome.tell(session, outcome.ended_from(fetched))
