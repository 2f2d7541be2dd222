"""How a function travels: by the name under which a worker imports it, or else by value.

By value go functions of the script that runs (``__main__``), lambdas, functions inside
functions, bound methods, partial functions: whatever its own ``module:qualname`` does not
lead back to.  ``jobd.by_value`` makes the pickle; the class of an object that is defined in the
script travels with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from jobd import payload
from jobd.model.errors import BadFunction, UsageError
from jobd.model.reference import MAX_CHARACTERS

Shape = tuple[int, tuple[str, ...]]
"""A count of positional arguments, and the names of keyword arguments."""

Function = str | Callable[..., Any]
"""A reference ``module:func``, or the function itself."""


def named(function: Function, shapes: Iterable[Shape]) -> tuple[str, bytes]:
    """Return a function's reference and nothing, or its name to show and its pickle.

    Raises:
        UsageError: it cannot travel.
        BadFunction: it does not take these arguments.
    """
    if isinstance(function, str):
        return function, b""
    module = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if isinstance(module, str) and isinstance(path, str) and module != "__main__":
        if _at(module, path) == function:
            return f"{module}:{path}", b""
    elif not callable(function):
        raise UsageError(f"{function!r:.80} is no function", "pass one, or its name: module:func")
    _check(function, shapes)
    name = f"{module or 'builtins'}:{path or type(function).__qualname__}"
    return name[:MAX_CHARACTERS], _pickled(function)


def _at(module: str, path: str) -> object:
    """Return what a reference leads to in this process; None if it leads nowhere."""
    found: object = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _check(function: Callable[..., Any], shapes: Iterable[Shape]) -> None:
    """Bind arguments to the signature, as the daemon has it done for those that it can import."""
    import inspect  # noqa: PLC0415  # 10 ms, and only functions by value need it

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # it has none: the call will tell
    for count, names in shapes:
        try:
            signature.bind(*range(count), **dict.fromkeys(names))
        except TypeError as error:
            name = getattr(function, "__qualname__", repr(function))
            raise BadFunction(f"{name}: {error}", f"its signature is {signature}") from None


def _pickled(function: Callable[..., Any]) -> bytes:
    try:
        return payload.pickled(function)
    except payload.Unencodable as failed:
        from jobd import by_value  # noqa: PLC0415  # only an error needs it
        from jobd.client.blame import blamed  # noqa: PLC0415  # as above

        culprit = blamed({"the function": function}, by_value.dumps)
        raise UsageError(
            f"{culprit} cannot travel to the worker: {failed}",
            "open or make it inside the function",
        ) from failed.__cause__
