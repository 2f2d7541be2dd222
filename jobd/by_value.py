"""Pickles by value: of functions and classes that no other process could import.

cloudpickle makes them, with four things of ours:

- **A mark.**  Compiled code is for the version of Python that has compiled it; another one does not
  refuse it, but dies.  So a pickle with code begins with a call of ``require`` that does
  refuse.  A client that knows which version the workers have looks for the mark before it submits.
- **Slots.**  A class that is made anew has its ``__slots__``; without them its instances would have
  a ``__dict__``, and could not come back to where their class is the original.
- **A file.**  Code keeps the name of its file, so that a traceback from a worker shows the lines of
  the script as one of this process would.
- **Global variables.**  Functions of a script see in a worker those that the pool's initializer has
  set or changed there.  Each brings along what it uses, and would have only what the caller has.
"""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import CodeType, FunctionType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any

from jobd.model.errors import PayloadUnreadable

if TYPE_CHECKING:
    from pickle import PickleBuffer

VERSION = sys.version_info[:2]

_PROTOCOL = b"\x80\x05"
_BEGINNING = b"cjobd.by_value\nrequire\n"
"""Opcode GLOBAL; what follows are two BININT1, TUPLE2, REDUCE, POP: none leaves a trace."""
_CODE = b"CodeType"
"""By this name cloudpickle refers to the type of code objects."""

NAMELESS = "<dynamic-code>"
"""What cloudpickle 3.1 puts where the name of the file was."""

SCRIPT = "__main__"

INITIALIZED: dict[str, Any] = {}
"""Global variables of the caller's script, as the initializer has left them in this worker."""

Reducers = Mapping[type, Callable[[Any], Any]]


def dumps(
    value: object,
    buffer_callback: Callable[[PickleBuffer], Any] | None = None,
    reducers: Reducers | None = None,
) -> bytes:
    """Pickle a value, by value whatever of it cannot be imported; raises whatever that raises.

    ``reducers`` are for classes that need one of their own.
    """
    import io  # noqa: PLC0415  # as below

    with io.BytesIO() as file:
        kind = _pickler()
        if reducers:  # they are read from the class, when one is made
            table = ChainMap(dict(reducers), kind.dispatch_table)
            kind = type("Pickler", (kind,), {"dispatch_table": table})
        kind(file, 5, buffer_callback).dump(value)
        data = file.getvalue()
    if _CODE not in data or not data.startswith(_PROTOCOL):
        return data
    return b"".join((_PROTOCOL, _BEGINNING, b"K%cK%c\x86R0" % VERSION, data[len(_PROTOCOL) :]))


def require(major: int, minor: int) -> None:
    """Refuse to go on unless this is the Python that has compiled what follows."""
    if (major, minor) != VERSION:
        raise PayloadUnreadable(*refusal((major, minor), VERSION))


def made_by(pieces: Iterable[bytes | memoryview]) -> tuple[int, int] | None:
    """Return the version of Python whose code is in some encoded payloads; None: there is none."""
    for piece in pieces:
        _, mark, rest = bytes(piece).partition(_BEGINNING)
        if mark and rest[:1] == rest[2:3] == b"K" and rest[4:7] == b"\x86R0":
            return rest[1], rest[3]
    return None


def refusal(made: tuple[int, int], here: tuple[int, int]) -> tuple[str, str]:
    """Return what is wrong with code of one Python for another one, and what to do."""
    theirs, ours = written(made), written(here)
    problem = f"a function or class that travels by value has code of Python {theirs}"
    hint = f"define it in a module that both can import, or use Python {theirs} for both"
    return f"{problem}, which cannot run on Python {ours}", hint


def written(version: tuple[int, int]) -> str:
    """Return a version as people write it."""
    return "{}.{}".format(*version)


@cache
def _pickler() -> Any:
    import cloudpickle  # noqa: PLC0415  # 20 ms, and most that travels does so by name

    plain = cloudpickle.CloudPickler._dynamic_function_reduce  # noqa: SLF001  # there is no other way to add to it
    reduce_code = cloudpickle.CloudPickler.dispatch_table[CodeType]

    def with_file(code: CodeType) -> Any:
        make, args = reduce_code(code)
        name = code.co_filename
        return make, tuple(name if type(a) is str and a == NAMELESS else a for a in args)

    table = ChainMap({CodeType: with_file}, cloudpickle.CloudPickler.dispatch_table)

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # it has no types
        """As cloudpickle's, but for what the module's docstring says."""

        dispatch_table: Any = table

        def _dynamic_function_reduce(self, function: FunctionType) -> Any:
            reduced = plain(self, function)
            if function.__globals__.get("__name__") != SCRIPT:
                return reduced
            return (*reduced[:5], set_state)

        def reducer_override(self, obj: Any) -> Any:
            reduced = super().reducer_override(obj)
            if isinstance(obj, type) and type(reduced) is tuple and "__slots__" in vars(obj):
                _keep_slots(obj, reduced)
            return reduced

    return Pickler


def _keep_slots(kind: type, reduced: tuple[Any, ...]) -> None:
    """Have a class made with its slots, whose descriptors are then made by it, and not set."""
    slots = vars(kind)["__slots__"]
    if reduced[0].__name__ != "_make_skeleton_class" or not isinstance(slots, str | tuple | list):
        return
    reduced[1][3]["__slots__"] = slots
    members = reduced[2][0]
    for name, value in list(members.items()):
        if isinstance(value, MemberDescriptorType) and value.__objclass__ is kind:
            del members[name]  # one with two underscores, which bears its class's name


def set_state(function: FunctionType, state: Any) -> None:
    """Complete a script's function that has been unpickled."""
    import cloudpickle  # noqa: PLC0415  # as above

    cloudpickle.cloudpickle._function_setstate(function, state)  # noqa: SLF001  # what it would call itself
    function.__globals__.update(INITIALIZED)


def initialize(function: Any, args: Any) -> None:
    """Call a pool's initializer; have the script's functions see what it has done to global variables."""
    scope = getattr(function, "__globals__", None)
    if not isinstance(scope, dict) or scope.get("__name__") != SCRIPT:
        function(*args)
        return
    before = dict(scope)
    function(*args)
    for name, value in scope.items():
        is_changed = before.get(name, scope) is not value
        # A variable may be what it was, and hold something else.
        if is_changed or not isinstance(value, FunctionType | ModuleType | type):
            INITIALIZED[name] = value
    for name in [*INITIALIZED]:
        if name.startswith("__"):
            del INITIALIZED[name]
