"""``jobd submit``: queue a call of a function."""

from __future__ import annotations

from typing import Any

import click

from jobd.cli.arguments import parse_arguments
from jobd.cli.options import Verb, option, timeout_option, verb
from jobd.cli.session import Session
from jobd.cli.submission import (
    file_reader,
    job_options,
    parted,
    submit,
    tell_id,
    wait_and_tell,
)
from jobd.model.errors import UsageError

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

FORMS = [
    ("VALUE", "by position: a text, or what reads as one in JSON: a number, true, false, null"),
    ("NAME=VALUE", "the same by name"),
    (":JSON", "by position, any JSON; :'\"5\"' is the text 5"),
    ("NAME:=JSON", "the same by name"),
    ("@FILE", "by position: the text of a file; @- is stdin"),
    ("NAME=@FILE", "the same by name; NAME:=@FILE is the JSON in it"),
    ("-5", "a negative number is no option; after -- nothing is"),
]
"""The forms of an argument, as the help has them; `jobd.cli.arguments` has the grammar."""

_SHIELD = "\0"
"""Stands before what must not be taken for an option; a NUL cannot come from a shell."""


class Submit(Verb):
    """The command, which takes ``-5`` for an argument: no option begins with a digit."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words, the negative numbers among them too."""
        args, argv = self._parted(args)
        try:
            rest = super().parse_args(ctx, self._shielded(args))
        except click.MissingParameter:
            if not argv:
                raise
            problem = f"no function stands before --argv, which takes all that follows: {argv[0]!r:.80} too"
            raise UsageError(
                problem, "write MODULE:FUNCTION, and jobd's own options, before it"
            ) from None
        words = ctx.params.get("arguments") or ()
        ctx.params["arguments"] = tuple(word.removeprefix(_SHIELD) for word in words)
        ctx.params["argv"] = (*(ctx.params.get("argv") or ()), *argv)
        return rest

    def explain(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write how arguments are written, then what every command has."""
        with formatter.section("Arguments"):
            formatter.write_dl(FORMS)
        super().explain(context, formatter)

    def _with_value(self) -> set[str]:
        """Return the options that a value follows."""
        return {
            name
            for param in self.params
            if isinstance(param, click.Option) and not param.is_flag
            for name in param.opts
        }

    def _parted(self, args: list[str]) -> tuple[list[str], list[str]]:
        """Part the words into jobd's, and those after ``--argv``, which are the program's."""
        values, before = self._with_value(), ""
        for index, word in enumerate(args):
            if word == "--" and before not in values:
                break
            if word == "--argv" and before not in values:
                return args[:index], args[index + 1 :]
            before = word
        return args, []

    def _shielded(self, args: list[str]) -> list[str]:
        values = self._with_value()
        shielded, before = [], ""
        for word in args:
            is_argument = looks_negative(word) and before not in values
            shielded.append(_SHIELD + word if is_argument else word)
            before = word
        return shielded


def looks_negative(word: str) -> bool:
    """Whether a word begins like a negative number."""
    # `isdecimal` of "" is false.
    digits = word[2:] if word[1:2] == "." else word[1:]
    return word[:1] == "-" and digits[:1].isdecimal()


@verb(cls=Submit, examples=EXAMPLES)
@click.argument("reference", metavar="MODULE:FUNCTION")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...")
@option("--wait", is_flag=True, help="Wait, print the result, and exit as the job did.")
@timeout_option("Wait no longer than that (and do wait).", "--wait-timeout")
@option("--follow", is_flag=True, help="Print what a generator function produces, as produced.")
@option("--check/--no-check", default=True, help="Check the function and its arguments first.")
@option("--raw", is_flag=True, help="VALUE and NAME=VALUE are text, whatever they look like.")
@option("--args-json", metavar="JSON", help="An array of arguments, before all others.")
@option("--kwargs-json", metavar="JSON", help="An object of arguments by name.")
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
