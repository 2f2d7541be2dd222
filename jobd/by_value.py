"""Pickles by value: of functions and classes that no other process could import.

cloudpickle makes them, with two things of ours:

- **A mark.**  Compiled code is for the version of Python that has compiled it; another one does not
  refuse it, but dies.  So a pickle with code begins with a call of ``require`` that does
  refuse.  A client that knows which version the workers have looks for the mark before it submits.
- **Slots.**  A class that is made anew has its ``__slots__``; without them its instances would have
  a ``__dict__``, and could not come back to where their class is the original.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cache
from types import MemberDescriptorType
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


def dumps(value: object, buffer_callback: Callable[[PickleBuffer], Any] | None = None) -> bytes:
    """Pickle a value, by value whatever of it cannot be imported; raises whatever that raises."""
    import io  # noqa: PLC0415  # as below

    with io.BytesIO() as file:
        _pickler()(file, 5, buffer_callback).dump(value)
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
def _pickler() -> type:
    import cloudpickle  # noqa: PLC0415  # 20 ms, and most that travels does so by name

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # it has no types
        """As cloudpickle's, but for classes with slots."""

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
