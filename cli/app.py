"""The program ``jobd``: which commands there are, and how an error becomes an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from jobd._version import __version__
from jobd.cli.errors import Bug, as_jobd_error, interrupted, wants_json
from jobd.cli.options import Noun, option
from jobd.cli.session import Session
from jobd.model.errors import UsageError

VERBS: dict[str, dict[str, str]] = {
    "Jobs": {
        "submit": "Queue a call of a function, and print the job's id.",
        "run": "Queue a shell command, and print the job's id.",
        "map": "Queue a call for each of many items, and print the one id of all.",
        "apply": "Submit a graph of jobs from a file, all of them or none.",
        "result": "Print what a job returned, or tell how it failed.",
        "take": "Consume what a job returned: once, and nobody else.",
        "wait": "Wait until jobs have ended.",
        "follow": "Print what a generator function produces, while it runs.",
        "logs": "Print what a job wrote to stdout and stderr.",
        "ls": "List jobs, the newest first.",
        "show": "Show all that is known of jobs.",
        "graph": "Draw what a job comes after, and what comes after it.",
        "cancel": "Cancel jobs that wait or run.",
        "hold": "Set jobs aside that have not started, until they are released.",
        "release": "Let jobs go that are held.",
        "failed": "Group the jobs that failed by what they died of.",
        "set": "Change an array that has not ended.",
        "retry": "Queue jobs again that ended without a result.",
    },
    "Queues": {
        "queue": "Make queues, limit them, pause and resume them.",
    },
    "The daemon": {
        "start": "Start the daemon.",
        "stop": "Stop the daemon; what waits, waits for the next one.",
        "reload": "Replace the workers, so that they see new code.",
        "ping": "Ask whether the daemon answers.",
        "status": "Show how the daemon and its workers are.",
        "config": "Show the settings.",
        "key": "Make and show keys, for clients on other machines.",
        "db": "Check the database that holds the jobs.",
    },
}
"""Every command and what it does, so that the list of them loads none of them.

The command ``name`` is ``command`` in the module ``jobd.cli.commands.name``.
"""

EXIT_CODES = [
    ("0", "the job succeeded; the command did what was asked"),
    ("1", "the job failed"),
    ("2", "the command line makes no sense"),
    ("3", "not ready: there is no result yet"),
    ("4", "no such job or queue; or its result was taken, or has expired"),
    ("5", "the job was cancelled or aborted, or has expired"),
    ("6", "the job took longer than its --timeout or --soft-timeout"),
    ("7", "the job crashed: its worker died"),
    ("8", "several jobs, different ends"),
    ("9", "another job has the same --key: its id is on stdout"),
    ("69, 75, 77, 78", "no daemon; busy or already running; denied; bad configuration"),
    ("124", "the command's own --timeout ran out; the job goes on"),
    ("130", "Ctrl-C; the job goes on"),
]

HELP = """Run Python functions in the background.

jobd hands functions to a daemon, which runs them in workers and keeps what they
return. Submitting gives an id; the id gives the result, now or next week.
"""

EXAMPLES = """
jobd start                                  a daemon for the functions in this directory
jobd submit math:factorial 20               queue a call; prints its id, say 1
jobd result 1                               print what it returned
jobd submit --wait os.path:join usr lib     submit, wait and print in one
jobd submit mytasks:resize cat.jpg width:=640 meta:='{"a": [1, 2]}'
jobd run -- sh -c 'echo hi; exit 3'         a shell command as a job
jobd logs -f last                           follow what the newest job writes
jobd queue set etl --slots 2                a queue: at most two of its jobs at once
jobd ls -s failed                           which jobs failed
jobd COMMAND --help                         more about a command
"""

EXIT_BROKEN_PIPE = 141
"""What a shell shows for a program that SIGPIPE ended: as ``yes | head`` would have it."""


class Jobd(Noun):
    """The commands, each loaded when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the names of all commands."""
        return [name for names in VERBS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        from importlib import import_module  # noqa: PLC0415  # `jobd --help` loads no command

        command = import_module(f"jobd.cli.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        """Write the commands by what they are about."""
        for title, names in VERBS.items():
            with formatter.section(title):
                formatter.write_dl(list(names.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        """Write the exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl(EXIT_CODES)


def _version(context: click.Context, _option: click.Parameter, value: object) -> None:
    """Print the version, and end."""
    if value:
        click.echo(f"jobd {__version__}")
        context.exit()


def _stdio(context: click.Context, _option: click.Parameter, value: object) -> None:
    """Join the standard streams to the daemon's socket, and end."""
    if value:
        from jobd.cli.stdio import join  # noqa: PLC0415  # only ssh asks for it

        context.exit(join(context.obj))


@click.group(name="jobd", cls=Jobd, help=HELP, examples=EXAMPLES)
@option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    allow_from_autoenv=False,
    callback=_version,
    help="Show the version.",
)
@option(
    "--stdio",
    is_flag=True,
    hidden=True,
    expose_value=False,
    is_eager=True,
    allow_from_autoenv=False,
    callback=_stdio,
    help="Be the other end of JOBD_SOCKET=ssh://...",
)
def jobd() -> None:
    """Take the options before the verb; the common ones keep themselves."""


def run(argv: Sequence[str]) -> int:
    """Run one command line to its end; return the exit code.  The streams are flushed."""
    _prepare_streams()
    session = Session()
    try:
        code = _run(list(argv), session)
        sys.stdout.flush()
    except BrokenPipeError:  # who read has had enough
        _give_up_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as error:  # a full disk behind stdout, found out by a flush
        _give_up_stdout()
        session.json = False
        return session.fail(as_jobd_error(error))
    return code


def _give_up_stdout() -> None:
    """What is still buffered must not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_streams() -> None:
    """Make sure that there are three streams, and that any text can be written to two."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # `jobd ls >&-`: a socket would get the number, and what we write would go there.
            mode = "w" if number else "r"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # for good
    # A name that no encoding can write must not end in an error: lone surrogates, or LANG=C.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a TextIOWrapper


def _run(argv: list[str], session: Session) -> int:
    """Run one command line; tell what went wrong, whatever it is."""
    try:
        return _invoke(argv, session)
    except click.exceptions.Exit as end:  # --help and --version
        return end.exit_code
    except KeyboardInterrupt:
        told = interrupted(session.attached, session.again, submitting=session.submitting)
        return session.fail(told)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  # a bug is told in a sentence too
        return _fail(session, argv, error)


def _invoke(argv: list[str], session: Session) -> int:
    # Not jobd.main(): it turns Ctrl-C into an error of its own, and costs a little more.
    with jobd.make_context("jobd", argv, obj=session, auto_envvar_prefix="JOBD") as context:
        code = jobd.invoke(context)
    assert isinstance(code, int)
    return code


def _fail(session: Session, argv: list[str], error: Exception) -> int:
    """Tell an error; return its exit code."""
    told = as_jobd_error(error)
    if isinstance(told, UsageError):
        session.json = session.json or wants_json(argv)  # the parser may not have come to it
    if isinstance(told, Bug) and session.verbose:
        sys.excepthook(type(error), error, error.__traceback__)
    return session.fail(told)
