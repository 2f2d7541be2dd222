"""A path into a job's value: ``@job:7.rows[0].name`` is a part of what job 7 returned.

    reference = "@job:" number path
    path      = *("." name | "[" integer "]" | "[" text "]")

A name is a key of a mapping, or else a public data field; an integer is an index, or a key
that is one; a text, in double or single quotes, is a key whatever it holds.  A path leads
through data only: never to or through modules, classes, functions and methods, and to
no name with a leading underscore.  It is parsed where it is written and followed in a
worker, where the value is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import (
    BuiltinFunctionType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

from jobd.model.errors import UsageError
from jobd.model.selector import MAX_ID

PREFIX = "@job:"
MOST_STEPS = 100

Step = str | int | tuple[str]
"""A name, an index, or a key in a tuple of its own."""

Path = tuple[Step, ...]

_STEP = r"""\.(\w+)|\[(-?\d{1,18})\]|\["((?:[^"\\]|\\.)*)"\]|\['((?:[^'\\]|\\.)*)'\]"""
_NUMBER = r"\d+"
# Compiled where they are used, which `re` remembers: most commands need neither.


_CODE = (
    BuiltinFunctionType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
    type,
)


class NoSuchPart(LookupError):
    """A path leads to nothing."""

    __module__ = "jobd"


class _NoData(LookupError):
    """A step leads to code, or to a name that is nobody else's business."""


def parse_job(text: str) -> tuple[int, Path]:
    """Split ``@job:ID`` and what follows into the job's id and the path.

    Raises:
        UsageError: it is no such reference.
    """
    rest = text.removeprefix(PREFIX)
    number = re.match(_NUMBER, rest)
    if number is None or not 0 < (job := int(number[0][:20])) <= MAX_ID:
        raise UsageError(
            f"{_shown(text)} names no job by its id",
            "write @job:ID, as in @job:7 or @job:7.rows[0]; --raw passes it as text",
        )
    return job, parse_path(text, rest[number.end() :])


def parse_path(text: str, rest: str) -> Path:
    """Read ``rest``, what follows the job in ``text``.

    Raises:
        UsageError: it is no path.
    """
    steps: list[Step] = []
    at = 0
    while at < len(rest):
        found = re.compile(_STEP).match(rest, at)
        if found is None or len(steps) == MOST_STEPS:
            raise UsageError(
                f"{_shown(rest[at:])} in {_shown(text)} is no path into a value",
                'a path is made of .name, [0] and ["key"]',
            )
        name, index, *keys = found.groups()
        if name is not None:
            steps.append(name)
        elif index is not None:
            steps.append(int(index))
        else:
            key = next(key for key in keys if key is not None)
            steps.append((re.sub(r"\\(.)", r"\1", key),))
        at = found.end()
    return tuple(steps)


def show_path(path: Path) -> str:
    """Return a path as it is written."""
    return "".join(map(_show_step, path))


def _show_step(step: Step) -> str:
    if isinstance(step, str):
        return f".{step}"
    if isinstance(step, int):
        return f"[{step}]"
    quoted = step[0].replace("\\", "\\\\").replace('"', '\\"')
    return f'["{quoted}"]'


def follow(value: Any, path: Path) -> Any:
    """Return the part of a value that a path leads to; this may run the value's own code (a property).

    Raises:
        NoSuchPart: there is none, or it is no data; the text says which step failed, and where.
    """
    for depth, step in enumerate(path):
        try:
            value = _step(value, step)
        except (LookupError, AttributeError, TypeError) as error:
            place = show_path(path[:depth])
            raise NoSuchPart(
                f"an input has no {show_path(path[: depth + 1])}: "
                f"{place or 'it'} is {_kind(value)}{_why(value, step, error)}"
            ) from error
    return value


def _step(value: Any, step: Step) -> Any:
    if isinstance(value, _CODE):
        raise _NoData
    if isinstance(step, str):
        if isinstance(value, Mapping) and step in value:
            return value[step]  # before the attribute: rows are often called `items` or `values`
        return _field(value, step)
    return value[step if isinstance(step, int) else step[0]]


def _field(value: object, name: str) -> Any:
    """Return a public data field."""
    if name.startswith("_"):
        raise _NoData
    found = getattr(value, name)
    if isinstance(found, _CODE):
        raise _NoData
    return found


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _why(value: object, step: Step, error: Exception) -> str:
    if isinstance(error, _NoData):
        return ", and a path leads to data only"
    if isinstance(step, int) and isinstance(value, list | tuple | str | bytes):
        return f" of {len(value)} item{'' if len(value) == 1 else 's'}"
    return ""


def _shown(text: str) -> str:
    """Quote a text, cut to a bearable length."""
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
