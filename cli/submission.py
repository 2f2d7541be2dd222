"""Submitting one job from a command line: what ``submit`` and ``run`` share, the options first."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import click
import msgspec

from jobd import payload
from jobd.cli.arguments import Call
from jobd.cli.options import Option, option
from jobd.cli.selection import newest
from jobd.client.caller import travelling, with_files
from jobd.inputs import Input
from jobd.model.edges import OPTIONS as AFTER
from jobd.model.errors import UsageError
from jobd.model.instants import read_instant
from jobd.model.options import OPTIONS, Said, parse_options
from jobd.model.options import Option as Told
from jobd.model.selector import one

if TYPE_CHECKING:
    from jobd.cli.session import Session
    from jobd.client import Client

LARGEST_BYTES = 256 * 1024 * 1024
"""Of a file that is an argument: /dev/zero has no end, and memory has one."""


class JobOption(Option):
    """An option of the job, and not of the command; its help stands under a heading of its own."""

    def __init__(self, *args: Any, group: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self.group = group


SEVERAL = frozenset({*AFTER, "argv", "env", "env_file"})
"""Options that may be given several times."""


def call_options(function: Any) -> Any:
    """Add the options that say how the words of a call are read, and whether it is checked first."""
    for add in (
        option("--kwargs-json", metavar="JSON", help="An object of arguments by name."),
        option("--args-json", metavar="JSON", help="An array of arguments, before all others."),
        option(
            "--raw", is_flag=True, help="VALUE and NAME=VALUE are text, whatever they look like."
        ),
        option(
            "--check/--no-check",
            default=True,
            help="Check the function and its arguments first.",
        ),
    ):
        function = add(function)
    return function


def job_options(function: Any) -> Any:
    """Add all options of jobs, as text: `parse_options` checks them."""
    for name, told in reversed(OPTIONS.items()):
        function = _job_option(name, told)(function)
    return function


def command_options(function: Any) -> Any:
    """Add all options of jobs that are commands, whose words are their ``argv``."""
    for name, told in reversed(OPTIONS.items()):
        if name != "argv":
            function = _job_option(name, told)(function)
    return function


def _job_option(name: str, told: Told) -> Callable[[Any], Any]:
    flag = "--" + name.replace("_", "-")
    more: dict[str, Any] = {"metavar": told.metavar}
    if not told.metavar:
        more = {"is_flag": True, "default": None}
    if name == "inherit_env":
        flag += f"/--no-{flag[2:]}"
    return click.option(
        flag,
        name,
        cls=JobOption,
        group=told.group,
        help=told.help,
        multiple=name in SEVERAL,
        **more,
    )


def parted(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a command's options into those of the job, and the others."""
    of_job = {name: value for name, value in values.items() if name in OPTIONS and value != ()}
    return of_job, {name: value for name, value in values.items() if name not in OPTIONS}


def submit(  # what is said on a command line
    session: Session,
    client: Client,
    function: str,
    call: Call,
    options: Mapping[str, object],
    *,
    check: bool,
) -> int:
    """Queue a call with options (`jobd.model.options`), and return the job's id once it is durable.

    Raises:
        UsageError: the arguments cannot travel, or do not fit the function; or an option cannot be used.
    """
    said = said_of(with_ids(client, options))
    if said.get("inherit_env"):
        said = travelling(said, session.load().settings.environment.inherit)
    shape = (len(call.args), tuple(call.kwargs))
    data, inputs = encode(call)
    session.submitting = True
    (deferred,) = client.submit_encoded(
        function, [data], [shape], inputs=[inputs], options=said, check=check
    )
    session.attached = [deferred.id]
    session.submitting = False
    if not deferred.is_new:
        session.note(f"jobd: job {deferred.id} has this key already, and no other was queued")
        return deferred.id
    told = [f"job {deferred.id} {sentence}" for sentence in instants(said)]
    for sentence in clock_notes(options) + told:
        session.note(f"jobd: {sentence}")
    return deferred.id


# -- arrays -------------------------------------------------------------------

MOST_ITEMS = 10_000_000
"""Of one array."""

ERRORS = ("fail", "skip", "keep")
"""What becomes of an array's results where items have failed; see ``jobd map --help``."""


class Source(Protocol):
    """The items of an array: `jobd.cli.sources.Items`."""

    count: int | None
    """None: that is known at the end."""

    def encoded(self) -> Iterator[tuple[bytes, tuple[int, tuple[str, ...]], list[Input]]]:
        """Yield each item's call, with how many positional arguments and which names it has, and its inputs.

        Raises:
            UsageError: an item makes no sense: then nothing may have been queued.
        """


class ArraySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How an array is to run, beside the options of its jobs.

    Attributes:
        max_fails: when more than so many items have failed, what has not started is aborted.
        errors: one of `ERRORS`.
        slots: no more than so many of its items run at once; 0: no limit.
        then: a function that is called when all have succeeded; empty: none is.
        then_any: one that is called when all have ended.
        then_fail: one that is called when all have ended, and not all have succeeded.
        wait: whether to wait for the end.
        wait_timeout: how many seconds to wait for it, even if ``wait`` is false.
    """

    max_fails: int | None = None
    errors: str = "fail"
    slots: int = 0
    then: str = ""
    then_any: str = ""
    then_fail: str = ""
    wait: bool = False
    wait_timeout: float | None = None


def with_ids(client: Client, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options with an id for each ``last`` among the jobs to come after.

    Raises:
        NotFound: there is no job yet.
    """
    return {
        name: [_with_id(client, words) for words in value]
        if name in AFTER and isinstance(value, tuple)
        else value
        for name, value in options.items()
    }


def _with_id(client: Client, words: str) -> str:
    parts = [part.strip() for part in words.split(",")]
    return ",".join(str(newest(client)) if part == "last" else part for part in parts)


def clock_notes(options: Mapping[str, object]) -> list[str]:
    """Say of a time of start that is no time, or two, because clocks are changed, which is meant."""
    note = read_instant(options["at"]).note if options.get("at") else ""
    return [note] if note else []


def instants(said: Said) -> list[str]:
    """Say when a job that is submitted now starts and expires, if that was asked for, in local time."""
    now_us = time.time_ns() // 1000
    told = []
    for name, verb in (("at", "starts"), ("in", "starts"), ("expires", "expires")):
        value = said.get(name)
        if isinstance(value, int | float) and value:
            at_us = value if name == "at" else now_us + value * 1e6
            at = datetime.fromtimestamp(at_us / 1e6, UTC).astimezone()
            told.append(f"{verb} at {at.isoformat(timespec='seconds')}")
    return told


def said_of(options: Mapping[str, object]) -> Said:
    """Check options of a job, as flags gave them; errors name the flag.

    Raises:
        UsageError: a value cannot be used.
    """
    try:
        return with_files(parse_options(options))
    except UsageError as error:
        name, colon, rest = error.message.partition(": ")
        flag = f"--{name.replace('_', '-')}" if colon and name in OPTIONS else name
        raise UsageError(f"{flag}{colon}{rest}", error.hint) from None


def encode(call: Call) -> tuple[bytes, list[Input]]:
    """Return a call's arguments as JSON, and its inputs; the result is wanted as JSON too.

    Raises:
        UsageError: JSON cannot say them.
    """
    try:
        data, inputs = payload.encode_call(tuple(call.args), call.kwargs, json=True)
    except payload.Unencodable as error:
        raise UsageError(f"an argument cannot travel: {error}", "pass plain data") from None
    if data[:1] == b"p":
        # What came from a command line is plain data. What JSON cannot say of it are bytes
        # that are no UTF-8, and a nesting beyond all reason: the codec has fallen back.
        raise UsageError(
            "an argument is not UTF-8, or is nested too deeply", "pass the name of a file"
        )
    return data, inputs


def tell_id(session: Session, client: Client, number: int) -> int:
    """Print the id of a job that was just submitted; return exit code 0."""
    if session.json:
        from jobd.cli.render import job_json  # noqa: PLC0415  # an id needs no rendering

        (info,) = client.find(one(number))
        session.write_json(job_json(info))
    else:
        session.write(str(number))
    return 0


def wait_and_tell(session: Session, client: Client, number: int, timeout_s: float | None) -> int:
    """Wait for a job, print its value or complain; return the exit code that mirrors it."""
    from jobd.cli import outcome  # noqa: PLC0415  # most submits do not wait

    return outcome.tell(session, outcome.wait(session, client, number, timeout_s))


def bounded(data: bytes, name: str) -> bytes:
    """Return what was read of a file, if it was all of it.

    Raises:
        UsageError: it has more bytes than any message may have.
    """
    if len(data) > LARGEST_BYTES:
        raise UsageError(
            f"{name} has over {LARGEST_BYTES} bytes",
            "pass its name, and let the function read it",
        )
    return data


class FileReader:
    """Reads the files that the words of a command line name; stdin only once."""

    def __init__(self) -> None:
        self._has_read_stdin = False

    def __call__(self, name: str) -> bytes:
        """Return what a file holds.

        Raises:
            UsageError: it cannot be read, or is too long for an argument.
        """
        if name == "-":
            return bounded(self.stdin().read(LARGEST_BYTES + 1), "stdin")
        try:
            with open(name, "rb") as file:
                return bounded(file.read(LARGEST_BYTES + 1), name)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise unreadable(
                name, error, "to pass a text that begins with @, write :'\"@…\"'"
            ) from None

    def stdin(self) -> BinaryIO:
        """Return stdin, for whoever asks first.

        Raises:
            UsageError: somebody has asked before.
        """
        if self._has_read_stdin:
            raise UsageError("stdin can be read only once", "write it to a file first")
        self._has_read_stdin = True
        return sys.stdin.buffer


def unreadable(name: str, error: Exception, hint: str) -> UsageError:
    """Return the error of a file that cannot be opened, or read."""
    problem = getattr(error, "strerror", None) or error
    return UsageError(f"{name}: {problem}", hint)


def file_reader() -> FileReader:
    """Return what reads the files that arguments name; stdin only once."""
    return FileReader()
