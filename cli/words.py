"""A command whose words are a call: what ``submit`` and ``map`` share, beside the options of jobs."""

from __future__ import annotations

import click

from jobd.cli.options import Verb
from jobd.model.errors import UsageError

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
    """A command that takes ``-5`` for an argument: no option begins with a digit."""

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
