"""``jobd map``: queue a call of a function for each of many items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from jobd.cli.arguments import parse_arguments
from jobd.cli.arrays import submit_array
from jobd.cli.options import option, timeout_option, verb
from jobd.cli.session import Session
from jobd.cli.sources import Said, read_items
from jobd.cli.submission import (
    ERRORS,
    MOST_ITEMS,
    ArraySettings,
    JobOption,
    call_options,
    file_reader,
    job_options,
    parted,
)
from jobd.cli.words import Submit
from jobd.model.errors import UsageError
from jobd.model.reference import parse_reference

EXAMPLES = """
ls *.jpg | jobd map mytasks:resize --each-line - width:=640     prints one id
jobd map mytasks:simulate --array 1-1000 --wait
jobd map mytasks:train --param lr=0.1,0.01 --param seed:='range(1, 51)'    100 items
jobd map mytasks:load --from-jsonl rows.jsonl --slots 4 --max-fails 10
jobd map mytasks:train --array 0-999 --only 3,8-10       these items, counted from 0
jobd map mytasks:count --each-line files.txt --then mytasks:add_up --errors skip
jobd map mytasks:fetch --each-line urls.txt --retries 5 --backoff 1s --timeout 30s
"""

FORMS = [
    ("--each-line FILE", "each line, as a text, is the first argument by position"),
    ("--from-jsonl FILE", "each line is JSON: [..] by position, {..} by name, or one argument"),
    ("--param NAME=A,B", "by name, each a JSON scalar or a text; several: all combinations"),
    ("--param NAME:=JSON", "the same, of a JSON array, or of 'range(1, 51)'"),
    ("--array 0-99:10", "each number is the first argument by position; 1-5,8,20-30:2"),
]
"""Where items come from, as the help has it; `jobd.cli.sources` has the grammar."""


class Map(Submit):
    """The command, whose help says where items come from."""

    def explain(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write where items come from, then what submit has too."""
        with formatter.section("Items, from one of these"):
            formatter.write_dl(FORMS)
        super().explain(context, formatter)


def _not_empty(_context: click.Context, told: click.Parameter, value: Any) -> Any:
    """Refuse what a variable of the shell has left empty: it must not mean that nothing was said."""
    if value == "":
        raise UsageError(f"{told.opts[0]} has an empty value", "leave it out, or give one")
    return value


def _text(name: str, metavar: str, help: str, *, group: str) -> Callable[[Any], Any]:
    return click.option(
        name, cls=JobOption, group=group, metavar=metavar, help=help, callback=_not_empty
    )


_ITEMS = "Options of the items"
_ARRAY = "Options of all together"


def source_options(function: Any) -> Any:
    """Add the options that say where items come from."""
    for add in (
        _text("--only", "PLACES", "Only the items at these places: 3,8-10, from 0.", group=_ITEMS),
        _text("--array", "NUMBERS", "An item for each of these numbers.", group=_ITEMS),
        click.option(
            "--param",
            "params",
            cls=JobOption,
            group=_ITEMS,
            multiple=True,
            metavar="NAME=VALUES",
            help="An item for each value; again for all combinations.",
        ),
        _text("--from-jsonl", "FILE", "An item for each line of JSON; - is stdin.", group=_ITEMS),
        _text("--each-line", "FILE", "An item for each line of a file; - is stdin.", group=_ITEMS),
    ):
        function = add(function)
    return function


def array_options(function: Any) -> Any:
    """Add the options that all items have together."""
    called = "Call this function once all have"
    for add in (
        _text(
            "--then-fail",
            "MODULE:FUNCTION",
            f"{called} ended, and not all succeeded.",
            group=_ARRAY,
        ),
        _text("--then-any", "MODULE:FUNCTION", f"{called} ended, however.", group=_ARRAY),
        _text("--then", "MODULE:FUNCTION", f"{called} succeeded.", group=_ARRAY),
        click.option(
            "--errors",
            cls=JobOption,
            group=_ARRAY,
            type=click.Choice(ERRORS),
            default=ERRORS[0],
            help="Where items failed: fail the next function too, skip them, or keep their errors.",
        ),
        click.option(
            "--max-fails",
            cls=JobOption,
            group=_ARRAY,
            type=click.IntRange(0),
            metavar="N",
            help="Abort what has not started when more than N have failed.",
        ),
        click.option(
            "--slots",
            cls=JobOption,
            group=_ARRAY,
            type=click.IntRange(0),
            default=0,
            metavar="N",
            help="No more than N of the items run at once; 0: no limit.",
        ),
    ):
        function = add(function)
    return function


@verb(cls=Map, examples=EXAMPLES)
@click.argument("reference", metavar="MODULE:FUNCTION")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...")
@option("--wait", is_flag=True, help="Wait until all have ended, and exit as they did.")
@timeout_option("Wait no longer than that (and do wait).", "--wait-timeout")
@call_options
@source_options
@array_options
@job_options
def command(
    session: Session,
    *,
    reference: str,
    arguments: tuple[str, ...],
    check: bool,
    **more: Any,
) -> int:
    """Queue a call of a function for each of many items, and print the one id of all.

    The arguments are the same for all items: those by position stand after an item's own.
    All items are queued, or none.
    """
    options, rest = parted(more)
    said = Said(**_of(Said, rest))
    settings = ArraySettings(**_of(ArraySettings, rest))
    for function in (reference, settings.then, settings.then_any, settings.then_fail):
        if function:
            parse_reference(function)
    read = file_reader()
    forms = {name: rest[name] for name in ("raw", "args_json", "kwargs_json")}
    fixed = parse_arguments(arguments, read=read, **forms)
    with read_items(said, fixed, most=MOST_ITEMS, read=read) as source, session.connect() as client:
        return submit_array(session, client, reference, source, options, settings, check=check)


def _of(kind: type[Said | ArraySettings], values: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a kind has for fields, if they were given."""
    names = kind.__struct_fields__
    return {name: values[name] for name in names if values.get(name) is not None}
