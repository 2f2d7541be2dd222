"""``jobd submit``: queue a call of a function."""

from __future__ import annotations

from typing import Any

import click

from jobd.cli.arguments import parse_arguments
from jobd.cli.options import option, timeout_option, verb
from jobd.cli.session import Session
from jobd.cli.submission import (
    call_options,
    file_reader,
    job_options,
    parted,
    submit,
    tell_id,
    wait_and_tell,
)
from jobd.cli.words import Submit

EXAMPLES = """
jobd submit math:factorial 20                      prints the id
jobd submit --wait os.path:join usr lib            prints usr/lib
jobd submit mytasks:resize photo.jpg width:=640 crop=false meta:='{"a": [1, 2]}'
jobd submit mytasks:Report.build -5 'note=two words'
jobd submit --raw mytasks:lookup 007               the text 007, as a text
jobd submit mytasks:summarize @notes.txt           the text of a file
date | jobd submit mytasks:stamp when=@-           the text from stdin
jobd submit --follow mytasks:tail_log /var/log/x   a generator: one JSON value a line
jobd submit mytasks:fetch URL --retries 5 --backoff exponential:1s --timeout 30s
jobd submit mytasks:report --at 'tomorrow 09:00' --expires 1d
jobd submit mytasks:render a.blend --soft-timeout 50s --timeout 1m --mem 2G --nice 10
jobd submit mytasks:reindex --key index --unique waiting,running
jobd submit mytasks:sync --key sync --if-exists fail
jobd submit --hold mytasks:deploy v2.0             nothing happens until 'jobd release'
jobd submit --env-file .env --cwd /srv/data mytasks:load sales.csv
jobd submit --wait mytasks.cli:main --argv --verbose in.csv out.csv    a program's main
jobd submit math:dist --args-json '[[0, 0], [3, 4]]' --wait
"""


@verb(cls=Submit, examples=EXAMPLES)
@click.argument("reference", metavar="MODULE:FUNCTION")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...")
@option("--wait", is_flag=True, help="Wait, print the result, and exit as the job did.")
@timeout_option("Wait no longer than that (and do wait).", "--wait-timeout")
@option("--follow", is_flag=True, help="Print what a generator function produces, as produced.")
@call_options
@job_options
def command(  # noqa: PLR0913  # its options
    session: Session,
    *,
    reference: str,
    arguments: tuple[str, ...],
    wait: bool,
    wait_timeout: float | None,
    follow: bool,
    check: bool,
    **more: Any,
) -> int:
    """Queue a call of a function, and print the job's id.

    The function is looked up by a worker, which finds the modules of the directory
    in which the daemon was started.
    """
    options, forms = parted(more)
    call = parse_arguments(arguments, read=file_reader(), **forms)
    with session.connect() as client:
        number = submit(session, client, reference, call, options, check=check)
        if follow:
            from jobd.cli.items import follow as follow_items  # noqa: PLC0415  # most do not

            return follow_items(session, client, number)
        if wait or wait_timeout is not None:
            return wait_and_tell(session, client, number, wait_timeout)
        return tell_id(session, client, number)
