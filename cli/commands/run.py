"""``jobd run``: queue a shell command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from jobd.cli import outcome
from jobd.cli.arguments import Call
from jobd.cli.options import option, timeout_option, verb
from jobd.cli.session import Session
from jobd.cli.stream import copy
from jobd.cli.submission import command_options, parted, said_of, submit, tell_id
from jobd.model.job import COMMAND
from jobd.model.states import EXIT_CODES

if TYPE_CHECKING:
    from jobd.client import Client

EXAMPLES = """
jobd run -- make test                        prints the id
jobd run -- sh -c 'echo hi; exit 3'          the job fails with exit code 3
jobd run --wait -- tar czf backup.tgz data   wait, and print what it wrote
jobd logs -f last                            follow what it writes
jobd run --cwd /srv/www --env-file .env -- ./deploy.sh
jobd run --no-inherit-env -- env             what the daemon was started with
"""


@verb(examples=EXAMPLES, context_settings={"allow_interspersed_args": False})
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND [ARGUMENT]...")
@option("--wait", is_flag=True, help="Wait, print what it wrote, and exit as the job did.")
@timeout_option("Wait no longer than that (and do wait).", "--wait-timeout")
@command_options
def command(
    session: Session,
    *,
    words: tuple[str, ...],
    wait: bool,
    wait_timeout: float | None,
    **more: object,
) -> int:
    """Queue a shell command, and print the job's id.

    It runs in the current directory, with the variables that are set here. The job
    succeeds if the command ends with exit code 0, and fails otherwise; what it writes
    is the job's output.
    """
    options, _ = parted(more)
    cwd = options.pop("cwd", None)
    directory = said_of({"cwd": os.curdir if cwd is None else cwd})["cwd"]
    if options.get("inherit_env") is None:
        options["inherit_env"] = True
    call = Call([], {"argv": list(words), "cwd": directory})
    with session.connect() as client:
        # No check: the function is our own, and a worker that is busy need not be asked.
        number = submit(session, client, COMMAND, call, options, check=False)
        if wait or wait_timeout is not None:
            return _wait(session, client, number, wait_timeout)
        return tell_id(session, client, number)


def _wait(session: Session, client: Client, number: int, timeout_s: float | None) -> int:
    """Wait for the command, and print what it wrote: that is its result."""
    live = timeout_s is None and not session.json  # else it is told at the end, if it is in time
    if live:
        copy(session, client.logs(number, follow=True))
    ended = outcome.wait(session, client, number, timeout_s)
    if session.json:
        return outcome.tell(session, ended)
    if not live:
        copy(session, client.logs(number))
    outcome.complain(session, ended)
    return EXIT_CODES[ended.state]
