"""The command line: parse, call the client, show what came of it.

A short command must not cost much more than starting Python, so nothing is
imported before it is needed: `app` knows the verbs by name only, each verb is a
module of `commands`, and what draws tables is loaded when one is drawn.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import typing
from types import ModuleType
from typing import NoReturn

EXIT_INTERRUPTED = 130

UNUSED: dict[str, dict[str, object]] = {
    "inspect": {},  # click: tidies indented help texts, and ours need none of that
    "msgspec.inspect": {},  # msgspec: tells what a type is; an error in the settings may ask
    "platform": {
        "system": lambda: os.uname().sysname
    },  # uuid, up to Python 3.11: which system it is
    "textwrap": {},  # msgspec: tidies docstrings for schemas
    "typing_extensions": {  # msgspec, where it is installed; else it takes these from `typing`
        "get_type_hints": typing.get_type_hints,
        "NotRequired": typing.NotRequired,
        "Required": typing.Required,
    },
}
"""What click and msgspec import, and a short command does not use, with all that uses ask for at once.

These, and what they bring along, would take a seventh of such a command's time, and the last one as much again.
"""


def main() -> NoReturn:
    """Run the command line of this process, and end it with the command's exit code."""
    # Loading modules makes a hundred thousand objects and no garbage: 2 ms to find that out.
    gc.disable()
    for name, known in UNUSED.items():
        sys.modules.setdefault(name, _Later(name, known))
    try:
        from jobd.cli.app import run  # noqa: PLC0415  # after the two above, which is why

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while loading; `run` tells of any other
        code = EXIT_INTERRUPTED
    # Not sys.exit(): taking the modules down again, one by one, costs 4 ms. What was
    # opened is closed by now (`run` has flushed the two streams), and no command leaves
    # a thread behind but `start --foreground`, which ends as Python programs do.
    os._exit(code)


def settle() -> None:
    """Take back what `main` does for the sake of short commands: this one becomes a daemon."""
    import contextlib  # noqa: PLC0415  # as all that a short command does without

    gc.enable()
    for name in UNUSED:
        with contextlib.suppress(ModuleNotFoundError):  # typing_extensions need not be installed
            _ = importlib.import_module(name).__file__  # loads it, while there is one thread


class _Later(ModuleType):
    """Stands for a module until something of it is used that is not known already, and loads it then."""

    def __init__(self, name: str, known: dict[str, object]) -> None:
        super().__init__(name)
        self.__dict__.update(known)

    def __getattr__(self, attribute: str) -> object:
        if attribute == "__path__":  # `from ... import` asks; none of them is a package
            raise AttributeError(attribute)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        self.__dict__.update(module.__dict__)  # for those who have imported this one
        return getattr(module, attribute)
