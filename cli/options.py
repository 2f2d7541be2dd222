"""The options that commands share, and how commands are declared and explained.

The common options may stand before the verb and after it.  They are the same
`click.Option` objects in both places and write into the one `Session`, so there
is nothing to merge.  Every option can come from the environment too:
``JOBD_JSON`` for a common one, ``JOBD_LS_LIMIT`` for ``jobd ls --limit``;
what is also a setting is read from there by ``jobd.config``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from jobd.model.durations import parse_duration
from jobd.model.errors import UsageError

if TYPE_CHECKING:
    from jobd.cli.session import Session

CONTEXT: dict[str, Any] = {
    "help_option_names": []
}  # `HELP` is ours: click's looks for translations


class Option(click.Option):
    """An option whose help is taken as it is: click would load ``inspect`` to tidy it."""

    def __init__(self, *args: Any, help: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self.help = help


def option(*names: str, **more: Any) -> Callable[[Any], Any]:
    """Add an option to a command; as `click.option`."""
    return click.option(*names, cls=Option, **more)


def _keep(context: click.Context, option: click.Parameter, value: object) -> None:
    """Put the value of a common option into the session; what was not given changes nothing."""
    if value:
        assert option.name is not None
        session: Session = context.obj
        setattr(session, option.name, value)


def _common(*names: str, **more: Any) -> click.Option:
    # Eager, so that an error in another option is told as --json asks for.
    shared: dict[str, Any] = {"expose_value": False, "is_eager": True, "callback": _keep}
    return Option(names, allow_from_autoenv=False, **shared, **more)


def _help(context: click.Context, _option: click.Parameter, value: object) -> None:
    """Print the help, and end."""
    if value:
        click.echo(context.get_help(), color=context.color)
        context.exit()


HELP = Option(
    ["-h", "--help"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    allow_from_autoenv=False,
    callback=_help,
    help="Show this text.",
)


COMMON = [
    _common("--json", is_flag=True, envvar="JOBD_JSON", help="Write one JSON value to stdout."),
    _common("-q", "--quiet", is_flag=True, envvar="JOBD_QUIET", help="Write ids only, and errors."),
    _common("--verbose", is_flag=True, envvar="JOBD_VERBOSE", help="Write tracebacks too."),
    _common("--socket", metavar="PATH", help="Where the daemon listens (JOBD_SOCKET)."),
    _common("--state-dir", metavar="DIR", help="Which daemon: its directory (JOBD_STATE_DIR)."),
    _common("--config", metavar="FILE", help="One more file of settings (JOBD_CONFIG)."),
]


class Explained(click.Command):
    """A command whose help ends with the common options and with examples."""

    def __init__(self, *, examples: str, **more: Any) -> None:
        more["context_settings"] = CONTEXT | more.get("context_settings", {})
        super().__init__(**more)
        self.examples = examples
        self.params += [HELP, *COMMON]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words; say of every error which command it is about."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def explain(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, the common ones apart, and the examples."""
        groups: dict[str, list[click.Option]] = {"Options": []}
        for param in self.params:
            if isinstance(param, click.Option) and param not in COMMON:
                groups.setdefault(getattr(param, "group", "Options"), []).append(param)
        for title, params in (*groups.items(), ("Options of every command", COMMON)):
            records = [record for p in params if (record := p.get_help_record(context))]
            with formatter.section(title):
                formatter.write_dl(records)
        with formatter.section("Examples"):
            for line in self.examples.strip().splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line.strip()}\n")


class Verb(Explained):
    """A command that does something; made by `verb`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the second half of the help."""
        self.explain(ctx, formatter)


class Noun(Explained, click.Group):
    """A command that has verbs of its own."""

    def __init__(self, *, examples: str, **more: Any) -> None:
        super().__init__(examples=examples, no_args_is_help=False, **more)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words up to the verb; show the help where there are none."""
        if not args:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the second half of the help."""
        self.format_commands(ctx, formatter)
        self.explain(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that is meant.

        Raises:
            UsageError: there is none; the hint names the nearest.
        """
        name = args[0]
        found = self.get_command(ctx, name)
        if found is None:
            path = ctx.command_path
            problem = f"{path} has no command {name!r}"
            raise UsageError(problem, did_you_mean(name, self.list_commands(ctx), f"{path} --help"))
        return name, found, args[1:]


def did_you_mean(name: str, known: Sequence[str], see: str) -> str:
    """Return a hint: the known name that is most like this one, and where all are."""
    import difflib  # noqa: PLC0415  # 3 ms, and only an error needs it

    found = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {found[0]!r}? See '{see}'" if found else f"see '{see}'"


def verb(
    *, examples: str, cls: type[Verb] = Verb, **more: Any
) -> Callable[[Callable[..., int]], Verb]:
    """Make a command of a function.

    The function gets the `Session`, then its own options by name, and returns the
    exit code.  Its docstring is the help.
    """

    def make(function: Callable[..., int]) -> Verb:
        return click.command(cls=cls, examples=examples, **more)(click.pass_obj(function))

    return make


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """``90s``, ``1h30m``, ``2d``: in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds.

        Raises:
            BadParameter: it is no duration.
        """
        if isinstance(value, float):
            return value
        try:
            return parse_duration(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


def timeout_option(help: str, name: str = "--timeout") -> Callable[[Any], Any]:
    """Add ``--timeout``: how long the command itself waits."""
    return option(name, type=Duration(), metavar="DURATION", help=help)


def selector_arguments(function: Any) -> Any:
    """Add ``SELECTOR…`` and ``--state``, for the commands that take several jobs."""
    function = option(
        "-s",
        "--state",
        "states",
        multiple=True,
        metavar="STATE",
        help="Only those in this state, or one of several: -s failed,crashed.",
    )(function)
    return click.argument("selector", nargs=-1)(function)


def job_argument(function: Any) -> Any:
    """Add ``ID``, for the commands that take one job: a number or ``last``."""
    return click.argument("job", metavar="ID")(function)
