"""Arguments and results as bytes: one codec byte, then the data.

=====  ==========================================================================
byte   what follows
=====  ==========================================================================
``j``  JSON, and Python reads back exactly what was written
``J``  JSON that was asked for as JSON: tuples have become lists, keys strings
``r``  a call with results of other jobs among its arguments: 4 bytes big-endian
       length, that many bytes of JSON (where they go, see jobd.inputs), JSON
``R``  the same, of a call whose result is wanted as JSON
``p``  4 bytes big-endian length, that many bytes of ``repr`` (UTF-8), pickle 5
=====  ==========================================================================

JSON is used wherever it loses nothing, so that people and other languages can
read what is stored; a pickle carries its ``repr`` for those who must not
unpickle it: the daemon and the command line.  This module is imported by
workers and clients only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import msgspec

from jobd.inputs import Feeding, Gathering, Input, Place, put, show_input

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode

NONE = b"jnull"
_SCALARS = (str, int, bool, type(None))


_ODD = (RuntimeError, ValueError, TypeError)
"""Too deep for JSON, lone surrogates, changed meanwhile, or of a class that is nearly an int or a str:
pickle may still say it."""


class Unencodable(Exception):
    """The value cannot travel; the text says what and why."""


def is_exact(value: object) -> bool:
    """Whether JSON gives this value back unchanged, type for type.

    Raises:
        RecursionError: the value is nested too deeply, or contains itself.
    """
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is float:
        return isfinite(value)  # type: ignore[arg-type]  # narrowed by kind
    if kind is list:
        return all(map(is_exact, value))  # type: ignore[call-overload]  # narrowed by kind
    if kind is dict:
        return all(type(k) is str and is_exact(v) for k, v in value.items())  # type: ignore[attr-defined]
    return False


def is_json(value: object) -> bool:
    """Whether JSON can say this value, if tuples may become lists and keys strings."""
    if value is None or isinstance(value, str | bool | int):
        return True
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, list | tuple):
        return all(map(is_json, value))
    if isinstance(value, dict):
        distinct = len(set(map(str, value))) == len(value)  # 1 and "1" would become one key
        return distinct and all(
            isinstance(k, str | int) and not isinstance(k, bool) and is_json(v)
            for k, v in value.items()
        )
    return False


def encode(
    value: object, *, shown_as: Callable[[object], str] | None = None, lossy: bool = False
) -> bytes:
    """Encode a value.

    Args:
        value: anything that JSON or pickle can say.
        shown_as: makes the text that people are shown if it must be a pickle; None: nothing.
        lossy: JSON is wanted, even where it gives lists for tuples.

    Raises:
        Unencodable: neither JSON nor pickle can say it.
    """
    if value is None:
        return NONE
    try:
        if is_exact(value):
            return b"j" + _encode_json(value)
        if lossy and is_json(value):
            return b"J" + _encode_json(value)
    except _ODD:
        pass
    return _pickled(value, shown_as(value) if shown_as else "")


def _pickled(value: object, repr_text: str) -> bytes:
    import pickle  # noqa: PLC0415  # 2 ms that the command line must not pay, and need not

    try:
        data = pickle.dumps(value, protocol=5)
    except Exception as error:  # whatever a user's __reduce__ raises
        raise Unencodable(f"{type(error).__name__}: {error}") from error
    text = repr_text.encode("utf-8", "backslashreplace")
    return b"p" + len(text).to_bytes(4, "big") + text + data


def shown(data: bytes) -> tuple[str, bool]:
    """Return what people are shown without unpickling: JSON text and True, or a repr and False."""
    if data[:1] != b"p":
        return data[1:].decode(), True
    end = 5 + int.from_bytes(data[1:5], "big")
    return data[5:end].decode(), False


def decode(data: bytes) -> Any:
    """Return the value; runs whatever a pickle asks for, so only where user code may run."""
    if data[:1] != b"p":
        return _decode_json(memoryview(data)[1:])
    start = 5 + int.from_bytes(data[1:5], "big")
    return unpickle(memoryview(data)[start:])


def unpickle(data: bytes | memoryview) -> Any:
    """Return what a pickle holds; runs whatever it asks for, so only where user code may run."""
    import pickle  # noqa: PLC0415  # as in _pickled

    return pickle.loads(data)  # noqa: S301  # the point of this module


def encode_call(
    args: tuple[object, ...], kwargs: dict[str, object], *, json: bool = False
) -> tuple[bytes, list[Input]]:
    """Encode a call's arguments; ``json`` asks for the result as JSON.

    Returns also the jobs whose results are among the arguments, each once, in the order in
    which ``decode_call`` needs their values.

    Raises:
        Unencodable: an argument cannot travel.
    """
    if not args and not kwargs:
        return _NO_ARGS_JSON if json else _NO_ARGS, []
    call = [list(args), kwargs]
    try:
        if is_exact(call):
            return (b"J" if json else b"j") + _encode_json(call), []
    except _ODD:
        pass
    with Gathering() as gathering:
        data = _with_places(call, gathering, json=json) or _pickled(call, "")
    return data, gathering.inputs


def _with_places(call: list[Any], gathering: Gathering, *, json: bool) -> bytes:
    """Encode a call that is JSON but for references; empty if it is not, or has none."""
    places: list[Place] = []
    try:
        plain = gathering.lift(call, [], places)
        if not places or not is_exact(plain):
            return b""
        header = _encode_json(places)
        data = _encode_json(plain)
    except _ODD:
        return b""
    return (b"R" if json else b"r") + len(header).to_bytes(4, "big") + header + data


def _without_places(data: bytes) -> tuple[list[Place], list[Any]]:
    end = 5 + int.from_bytes(data[1:5], "big")
    return _decode_json(data[5:end]), _decode_json(memoryview(data)[end:])


def decode_call(
    data: bytes, inputs: Sequence[bytes] = ()
) -> tuple[list[Any], dict[str, Any], bool]:
    """Return positional arguments, keyword arguments, and whether the result is wanted as JSON.

    ``inputs`` are the encoded values of the call's inputs, or what stands for one that is gone.

    Raises:
        AlreadyTaken, ResultExpired: an input's value is gone.
        NoSuchPart: an input's value has no such part as was asked for.
    """
    if data == _NO_ARGS:
        return [], {}, False
    if not inputs:
        args, kwargs = decode(data)
        return args, kwargs, data[:1] == b"J"
    with Feeding(inputs, decode) as feeding:
        if data[:1] == b"p":
            args, kwargs = decode(data)
            return args, kwargs, False
        places, call = _without_places(data)
        feeding.place(call, places)
    return call[0], call[1], data[:1] == b"R"


def shown_call(data: bytes, inputs: list[int]) -> tuple[list[Any], dict[str, Any]] | None:
    """Return a call as people are shown it: references as they are written; None for a pickle."""
    if data[:1] == b"p":
        return None
    if data[:1] not in (b"r", b"R"):
        args, kwargs = _decode_json(memoryview(data)[1:])
        return args, kwargs
    places, call = _without_places(data)
    for where, index, path in places:
        put(call, where, show_input(inputs[index], path))
    return call[0], call[1]


_NO_ARGS = b"j[[],{}]"
_NO_ARGS_JSON = b"J[[],{}]"
