"""What JSON says of a Python value, for people and programs that must not unpickle it.

================================  ====================================================
a value                           its JSON
================================  ====================================================
date, time, datetime              text in ISO 8601; in UTC with a ``Z``
timedelta                         seconds
NaN, the infinities               ``"NaN"``, ``"Infinity"``, ``"-Infinity"``, which
                                  ``float`` reads
UUID, Decimal, Fraction, a path   text
a member of an enum               its value
a tuple, named or not, a range    a list
a set                             a list, sorted if its items can be
bytes                             ``{"base64": "…"}``
a dataclass, and what is alike    an object, with its fields by name
a scalar of numpy or pandas       as Python's own; NaT and NA are ``null``
an array of numpy                 lists in lists
================================  ====================================================

At any depth; keys are texts.  It is made beside a pickle, and has a bound for its
size, which bounds the work too: a list of a million dates is looked at no further
than that.  Nothing is imported for it: what a library has made is known by its class's name.
"""

from __future__ import annotations

import datetime as dt
import enum
import os
import sys
from binascii import b2a_base64
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from math import isfinite, isnan
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode

DEEPEST = 100
"""What is nested more deeply contains itself, or nobody would read it."""

_PLAIN = frozenset((str, int, bool, float, type(None)))
_WHOLE = frozenset((int, bool, type(None)))
_NUMBER_BYTES = 8


class Unsayable(Exception):
    """JSON has no words for this, or too many."""


def to_json(value: object, most_bytes: int) -> str | None:
    """Return the JSON of a value; None: JSON cannot say it, or not in so many bytes.

    Runs what a user's class has for its fields and its order; whatever that raises, there is no JSON then.
    """
    try:
        data = _encode(_Walk(most_bytes).plain(value, 0))
    except Exception:  # noqa: BLE001  # as said: there is a pickle, and its repr, too
        return None
    return data.decode() if len(data) <= most_bytes else None


class _Walk:
    """A walk through one value, which ends when what it has seen would be too long."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def plain(self, value: Any, depth: int) -> Any:
        """Return what the encoder can say; raises Unsayable, or anything that a user's class does."""
        kind = type(value)
        if kind in _WHOLE:
            self.spend(1)
            return value
        if kind is str:
            self.spend(len(value))
            return value
        return _sayer(kind)(self, value, depth)  # type: ignore[arg-type]  # a class can be hashed

    def spend(self, size: int) -> None:
        """Count what is about to be said."""
        self._left -= size
        if self._left < 0:
            raise Unsayable

    def items(self, values: Iterable[Any], depth: int) -> list[Any]:
        """Return the items of what is sized and can be walked through."""
        size = len(values)  # type: ignore[arg-type]  # so its class says
        self.spend(size)
        kinds = set(map(type, values))
        if kinds <= _PLAIN and self._are_plain(values, kinds, size):
            return list(values)
        if depth >= DEEPEST:
            raise Unsayable
        return [self.plain(value, depth + 1) for value in values]

    def _are_plain(self, values: Iterable[Any], kinds: set[type], size: int) -> bool:
        """Whether they need no look at each, as nearly always."""
        if float in kinds:
            if str in kinds or type(None) in kinds or not all(map(isfinite, values)):
                return False
            self.spend(_NUMBER_BYTES * size)
        elif str in kinds:
            self.spend(sum(len(value) for value in values if type(value) is str))
        return True

    def entries(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        """Return an object."""
        if depth >= DEEPEST:
            raise Unsayable
        found: dict[str, Any] = {}
        for key, value in pairs:
            text = key if type(key) is str else self._key(key, depth)
            if text in found:
                raise Unsayable  # 1 and "1" would become one
            found[text] = self.plain(value, depth + 1)
            self.spend(len(text))
        return found

    def _key(self, key: Any, depth: int) -> str:
        said = self.plain(key, depth + 1)
        if type(said) is str:
            return said
        return str(key) if isinstance(said, list | dict) else _encode(said).decode()


Sayer = Callable[[_Walk, Any, int], Any]


# -- of each kind -------------------------------------------------------------


def _number(walk: _Walk, value: Any, _: int) -> float | str:
    walk.spend(_NUMBER_BYTES)
    number = float.__float__(value)
    if isfinite(number):
        return number
    return "NaN" if isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _text(walk: _Walk, value: Any, _: int) -> str:
    text = str(value)
    walk.spend(len(text))
    return text


def _moment(walk: _Walk, value: Any, _: int) -> str:
    text: str = value.isoformat()
    walk.spend(len(text))
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


def _bytes(walk: _Walk, value: Any, _: int) -> dict[str, str]:
    walk.spend(memoryview(value).nbytes)
    return {"base64": b2a_base64(value, newline=False).decode()}


def _list(walk: _Walk, value: Any, depth: int) -> list[Any]:
    return walk.items(value, depth)


def _set(walk: _Walk, value: Any, depth: int) -> list[Any]:
    items = walk.items(value, depth)
    try:
        items.sort()
    except TypeError:
        items.sort(key=_encode)  # of several kinds: in some order, and always the same
    return items


def _mapping(walk: _Walk, value: Any, depth: int) -> dict[str, Any]:
    return walk.entries(value.items(), depth)


def _attributes(names: Callable[[Any], Iterable[str]]) -> Sayer:
    def say(walk: _Walk, value: Any, depth: int) -> dict[str, Any]:
        pairs = ((name, getattr(value, name)) for name in names(value) if hasattr(value, name))
        return walk.entries(pairs, depth)

    return say


_dataclass = _attributes(
    lambda value: [field.name for field in sys.modules["dataclasses"].fields(value)]
)
_struct = _attributes(lambda value: value.__struct_fields__)
_attrs = _attributes(lambda value: [field.name for field in value.__attrs_attrs__])
_model = _attributes(lambda value: list(type(value).model_fields))


def _null(walk: _Walk, _: Any, __: int) -> None:
    walk.spend(1)


def _nothing(_: _Walk, __: Any, ___: int) -> None:
    raise Unsayable


def _numpy_scalar(walk: _Walk, value: Any, depth: int) -> Any:
    kind = value.dtype.kind
    if kind in "mM":
        if value != value:  # noqa: PLR0124  # NaT
            return _null(walk, value, depth)
        return _text(walk, value, depth) if kind == "M" else _number(walk, _seconds(value), depth)
    if kind == "f":  # also a long double, for which Python has no type
        return _number(walk, float(value), depth)
    if kind not in "biu":
        raise Unsayable  # complex numbers, records
    return walk.plain(value.item(), depth)


def _numpy_array(walk: _Walk, value: Any, depth: int) -> Any:
    if value.dtype.kind not in "biufOSUmM":
        raise Unsayable
    walk.spend(2 * value.size)
    if value.dtype.kind in "mM":
        return _nested(walk, value, depth)
    plain = value.tolist()
    return walk.items(plain, depth) if type(plain) is list else walk.plain(plain, depth)


def _nested(walk: _Walk, value: Any, depth: int) -> Any:
    """Say an array of times item by item: what Python would have for them are integers."""
    if value.ndim == 0:
        return _numpy_scalar(walk, value[()], depth)
    return [
        _nested(walk, item, depth) if value.ndim > 1 else _numpy_scalar(walk, item, depth)
        for item in value
    ]


def _seconds(value: Any) -> float:
    return float(value / sys.modules["numpy"].timedelta64(1, "s"))


@lru_cache(maxsize=512)
def _sayer(kind: type) -> Sayer:
    """Return what says the values of a class."""
    return _of_missing(kind) or _of_python(kind) or _of_name(kind) or _of_fields(kind) or _nothing


def _of_missing(kind: type) -> Sayer | None:
    """Return what says NaT, which says of itself that it is a datetime, and NA."""
    is_one = kind.__name__ in ("NaTType", "NAType") and kind.__module__.startswith("pandas.")
    return _null if is_one else None


_OF_PYTHON: tuple[tuple[type | tuple[type, ...], Sayer], ...] = (
    # A member of an enum may be an int or a str, too.
    (enum.Enum, lambda walk, value, depth: walk.plain(value.value, depth + 1)),
    (float, _number),
    (str, lambda walk, value, depth: walk.plain(str.__str__(value), depth)),
    (int, lambda walk, value, depth: walk.plain(int.__index__(value), depth)),
    ((dt.date, dt.time), _moment),  # a datetime is a date
    (dt.timedelta, lambda walk, value, depth: _number(walk, value.total_seconds(), depth)),
    (os.PathLike, lambda walk, value, depth: walk.plain(os.fspath(value), depth)),
    ((bytes, bytearray, memoryview), _bytes),
    ((list, tuple, deque, range), _list),
    ((set, frozenset), _set),
    (Mapping, _mapping),
)
"""In this order: the first that it is one of."""


def _of_python(kind: type) -> Sayer | None:
    return next((sayer for classes, sayer in _OF_PYTHON if issubclass(kind, classes)), None)


_OF_NAME: dict[str, Sayer] = {
    "uuid.UUID": _text,
    "decimal.Decimal": _text,
    "fractions.Fraction": _text,
    "pandas.Period": _text,
    "numpy.generic": _numpy_scalar,
    "numpy.ndarray": _numpy_array,
}
"""By package and name of a class or a base of it."""


def _of_name(kind: type) -> Sayer | None:
    names = [f"{base.__module__.partition('.')[0]}.{base.__qualname__}" for base in kind.__mro__]
    if "numpy.ndarray" in names[1:]:
        return None  # a mask or units are a part of what it says
    return next((_OF_NAME[name] for name in names if name in _OF_NAME), None)


def _of_fields(kind: type) -> Sayer | None:
    """Return what says a class that lists its fields, as dataclasses do."""
    if hasattr(kind, "__dataclass_fields__"):
        return _dataclass
    if hasattr(kind, "__attrs_attrs__"):
        return _attrs
    if issubclass(kind, msgspec.Struct):
        return _struct
    if hasattr(kind, "model_fields") and hasattr(kind, "model_dump"):
        return _model
    return None
