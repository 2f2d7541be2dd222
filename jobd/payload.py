"""Arguments and results as bytes: one codec byte, then the data.

=====  ==========================================================================
byte   what follows
=====  ==========================================================================
``j``  JSON, and Python reads back exactly what was written
``J``  JSON that was asked for as JSON: tuples have become lists, keys strings
``r``  a call with results of other jobs among its arguments: 4 bytes big-endian
       length, that many bytes of JSON (where they go, see jobd.inputs), JSON
``R``  the same, of a call whose result is wanted as JSON
``v``  a call of a function that travels by value: 4 bytes big-endian length, that
       many bytes of pickle (the function), the call in one of the other codecs
``x``  ``None``, of a job that has ended by a ``SystemExit`` without an error; for an executor,
       to which that is one: 4 bytes big-endian length, that many bytes of pickle (the
       exception), the text of its traceback
``p``  4 bytes big-endian length, that many bytes of ``repr`` (UTF-8), pickle 5, the
       versions of the packages that it names (``jobd.versions``), if there are any
``P``  the same with JSON in place of the ``repr``: what it says of the value (``jobd.plain``)
``l``  what the items of an array have returned: a MessagePack array of encoded values
``F``  a reference to a file (``jobd.blobs``) that holds one of these two, and beside it
       the large blocks of memory of which it consists: they are read by mapping them
``B``  such a reference, and what its file holds: for a client that cannot map it
=====  ==========================================================================

JSON is used wherever it loses nothing, so that people and other languages can
read what is stored; a pickle carries what JSON says of it, or else its ``repr``, for
those who must not unpickle it: the daemon and the command line.  This module is imported by
workers and clients only.

Files are for pickles of more than ``FILE_BYTES``, and for what is too long for a
row.  JSON stays in the row if it fits, with all that the store promises, and so
that people can read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from math import isfinite
from typing import TYPE_CHECKING, Any

import msgspec

from jobd import by_value
from jobd.inputs import Feeding, Gathering, Input, Place, put, show_input
from jobd.model import blob
from jobd.model.errors import JobdError, PayloadUnreadable
from jobd.model.job import LIST, NO_ARGS, ErrorInfo
from jobd.model.path import NoSuchPart
from jobd.model.stretch import unpack
from jobd.versions import skew, versions_after, versions_in, written

if TYPE_CHECKING:
    from pickle import PickleBuffer

    from jobd.blobs import Blobs, Spot

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode
_decode_calls = msgspec.json.Decoder(list[list[Any]]).decode

NONE = b"jnull"
EXITED = b"x"
EXIT_CHARACTERS = 4_000
"""What is kept of the traceback of an exit: so short a value is pushed to whoever waits for it."""
_SCALARS = frozenset((str, int, bool, type(None)))
_NO_KWARGS: dict[str, object] = {}

FILE_BYTES = 32 * 1024
"""A larger pickle goes into a file."""

BUFFER_BYTES = 4 * 1024
"""A block of memory under this size is not worth a place of its own: it stays in the pickle."""

JSON_BYTES = 16 * 1024
"""More JSON than that is not put beside a pickle ..."""

WANTED_JSON_BYTES = 1024 * 1024
"""... or than that, where it was asked for; people are shown the repr then."""

_PICKLES = (b"p", b"P")

_ODD = (RuntimeError, ValueError, TypeError)
"""Too deep for JSON, lone surrogates, changed meanwhile, or of a class that is nearly an int or a str:
pickle may still say it."""

EXCEPTION_BYTES = 64 * 1024
"""A larger exception travels as text only."""


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
        # The first test is by far the quicker one, and true of nearly all.
        return _SCALARS.issuperset(map(type, value)) or all(map(is_exact, value))  # type: ignore[call-overload]  # narrowed by kind
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
    value: object,
    *,
    shown_as: Callable[[object], str] | None = None,
    lossy: bool = False,
    spot: Spot | None = None,
) -> bytes:
    """Encode a value.

    Args:
        value: anything that JSON or pickle can say.
        shown_as: makes the text that people are shown if it must be a pickle and JSON cannot say
            anything of it; None: they are shown nothing.
        lossy: JSON is wanted, even where it gives lists for tuples.
        spot: where a large pickle goes; None: it stays in line.

    Raises:
        Unencodable: neither JSON nor pickle can say it.
        PayloadTooLarge, DiskFull, PayloadNotStored: its file cannot be written.
    """
    if value is None:
        return NONE
    try:
        if is_exact(value):
            data = b"j" + _encode_json(value)
            if lossy or spot is None or len(data) <= spot.row_bytes:
                return data
        elif lossy and is_json(value):
            return b"J" + _encode_json(value)
    except _ODD:
        pass
    if shown_as is None:
        return _pickled(value, "", spot)
    from jobd.plain import to_json  # noqa: PLC0415  # the command line needs none

    most = WANTED_JSON_BYTES if lossy else JSON_BYTES
    json = to_json(value, most if spot is None else min(most, spot.row_bytes // 2))
    if json is None:
        return _pickled(value, shown_as(value), spot)
    return _pickled(value, json, spot, is_json=True)


def _pickled(value: object, shown: str, spot: Spot | None, *, is_json: bool = False) -> bytes:
    text = shown.encode("utf-8", "backslashreplace")
    head = (b"P" if is_json else b"p") + len(text).to_bytes(4, "big") + text
    if spot is None:
        data = _dumps(value)
        return b"".join((head, data, written(versions_in(data))))
    blocks = _Blocks()
    data = _dumps(value, blocks)
    versions = versions_in(data)
    tail = written(versions)
    if len(data) + blocks.size > min(FILE_BYTES, spot.row_bytes - len(head) - len(tail)):
        return spot.write(
            (head, data), blocks.views, text=shown, is_json=is_json, versions=versions
        )
    return b"".join((head, _dumps(value) if blocks.views else data, tail))


class _Blocks:
    """The blocks of memory that a pickle leaves out."""

    def __init__(self) -> None:
        self.views: list[memoryview] = []
        self.size = 0

    def clear(self) -> None:
        """Begin again."""
        self.__init__()  # type: ignore[misc]  # nobody derives from it

    def leave_out(self, buffer: PickleBuffer) -> bool:
        """Take a block, and return False, or leave it in the pickle."""
        view = buffer.raw()
        if view.nbytes < BUFFER_BYTES:
            return True
        self.views.append(view)
        self.size += view.nbytes
        return False


def pickled(value: object) -> bytes:
    """Return a pickle of a value: by its name what can be imported, by value what cannot.

    Raises:
        Unencodable: it cannot be pickled.
    """
    return _dumps(value)


def _dumps(value: object, blocks: _Blocks | None = None) -> bytes:
    """Pickle a value; by value whatever of it no other process could import.

    That is what the script that runs has defined, and functions without a name.
    """
    import pickle  # noqa: PLC0415  # 2 ms that the command line must not pay, and need not

    callback = None if blocks is None else blocks.leave_out
    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=callback)
    except RecursionError as error:
        raise Unencodable(f"RecursionError: {error}") from error
    except Exception:  # noqa: BLE001  # whatever a user's __reduce__ raises: the next one tells
        data = b""
    if data and b"__main__" not in data:
        return data
    if blocks is not None:
        blocks.clear()
    try:
        return by_value.dumps(value, callback)  # ten times slower
    except Exception as error:
        raise Unencodable(f"{type(error).__name__}: {error}") from error


def shown(data: bytes) -> tuple[str, bool]:
    """Return what people are shown without unpickling: JSON text and True, or a repr and False."""
    if data[:1] == blob.CODEC:
        reference = blob.unpack(data)
        return reference.text, reference.is_json
    if data[:1] == blob.INLINE:
        reference = blob.unpack(data[5 : 5 + int.from_bytes(data[1:5], "big")])
        return reference.text, reference.is_json
    if data[:1] == EXITED:
        return "null", True
    if data[:1] not in _PICKLES:
        return data[1:].decode(), True
    end = 5 + int.from_bytes(data[1:5], "big")
    return data[5:end].decode(), data[:1] == b"P"


def decode(data: bytes, blobs: Blobs | None = None) -> Any:
    """Return the value; runs whatever a pickle asks for, so only where user code may run.

    Large blocks of memory are views of a private mapping of their file: the value may be changed in
    place, and nobody else sees it.

    Raises:
        PayloadLost: its file is gone.
        PayloadUnreadable: its file is damaged, or what was pickled cannot be unpickled here.
    """
    if data[:1] in _PICKLES:
        return _loads(memoryview(data), (), {})
    if data[:1] == EXITED:
        return None
    if data[:1] == LIST:
        return [decode(each, blobs) for each in unpack(data[1:])]
    if data[:1] == blob.INLINE:
        from jobd.blobs import unfolded  # noqa: PLC0415  # only a client on another machine gets one

        content = unfolded(data)
    elif data[:1] != blob.CODEC:
        return _decode_json(memoryview(data)[1:])
    elif blobs is None:
        raise PayloadUnreadable("the file of a large payload is gone", "submit the job again")
    else:
        content = blobs.read(data)
    return _loads(content.payload, content.buffers, content.versions)


def pickle_exception(error: BaseException) -> bytes:
    """Pickle an exception for Python clients; b"" if that cannot be done, or is too large.  Never raises."""
    try:
        data = _dumps(error)
    except BaseException:  # noqa: BLE001  # the user's own __reduce__; its text travels all the same
        return b""
    return data if len(data) <= EXCEPTION_BYTES else b""


def unpickle_exception(data: bytes) -> BaseException | None:
    """Return the exception that was pickled; None if there is none, or it cannot be made here.

    Many classes take other arguments than those that they give to ``Exception``, and a
    class may be known to the workers only: so this may fail for what was pickled well.
    """
    try:
        error = unpickle(data) if data else None
    except Exception:  # noqa: BLE001  # whatever the user's class raises
        return None
    return error if isinstance(error, BaseException) else None


def unpickle(data: bytes | memoryview, buffers: Sequence[memoryview] = ()) -> Any:
    """Return what a pickle holds; runs whatever it asks for, so only where user code may run."""
    import pickle  # noqa: PLC0415  # as in _dumps

    return pickle.loads(data, buffers=buffers)  # noqa: S301  # the point of this module


def _loads(data: memoryview, buffers: Sequence[memoryview], versions: dict[str, str]) -> Any:
    start = 5 + int.from_bytes(data[1:5], "big")
    try:
        return unpickle(data[start:], buffers)
    except (JobdError, NoSuchPart):
        raise  # an input of the call, and what is wrong with it
    except (Exception, SystemExit) as error:  # whatever a user's class raises that is made again
        others = skew(versions or versions_after(data))
        unreadable = PayloadUnreadable(
            f"a value cannot be unpickled here: {type(error).__name__}: {error}{others}",
            _what_to_do(error, others),
        )
        unreadable.original = pickle_exception(error)
        raise unreadable from error


def _what_to_do(error: BaseException, others: str) -> str:
    """Return what to do about an error in unpickling; ``others`` are the packages that differ."""
    if others:
        return "install the same versions of the modules for the client and for the workers"
    if isinstance(error, ImportError) or "get attribute" in str(error):
        return "what it is made of has to be importable here too, in the same version"
    return "does its class survive pickle.loads(pickle.dumps(value))?"


def encode_call(
    args: tuple[object, ...],
    kwargs: dict[str, object],
    *,
    json: bool = False,
    spot: Spot | None = None,
) -> tuple[bytes, list[Input]]:
    """Encode a call's arguments; ``json`` asks for the result as JSON.

    Returns also the jobs whose results are among the arguments, each once, in the order in
    which ``decode_call`` needs their values.

    Raises:
        Unencodable: an argument cannot travel.
        PayloadTooLarge, DiskFull, PayloadNotStored: as for ``encode``.
    """
    if not json and not kwargs and (data := encode_plain(args, spot)):
        return data, []
    call = [list(args), kwargs]
    try:
        if is_exact(call[0]) and (not kwargs or is_exact(kwargs)):
            data = (b"J" if json else b"j") + _encode_json(call)
            if spot is None or len(data) <= spot.row_bytes:
                return data, []
    except _ODD:
        pass
    with Gathering() as gathering:
        data = _with_places(call, gathering, json=json)
        if not data or (spot is not None and len(data) > spot.row_bytes):
            data = _pickled(call, "", spot)
    return data, gathering.inputs


def encode_plain(args: Sequence[object], spot: Spot | None = None) -> bytes:
    """Encode a call with none but positional arguments, none of which holds others, as most are.

    Empty: it is not one of those, or too long for a row; ``encode_call`` can say any.
    """
    if not args:
        return NO_ARGS
    if not _SCALARS.issuperset(map(type, args)):
        return b""
    try:
        data = b"j" + _encode_json((args, _NO_KWARGS))
    except _ODD:
        return b""
    return data if spot is None or len(data) <= spot.row_bytes else b""


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


def is_success(error: BaseException) -> bool:
    """Whether a program that ends by this exception has succeeded."""
    if not issubclass(type(error), SystemExit):
        return False
    code = vars(SystemExit)["code"].__get__(error)  # which no property of a subclass stands before
    return code is None or (type(code) is int and code == 0)


def encode_exit(told: ErrorInfo) -> bytes:
    """Return the value of a job that has ended by such an exception."""
    trace = told.traceback[-EXIT_CHARACTERS:].encode()
    return EXITED + len(told.pickled).to_bytes(4, "big") + told.pickled + trace


def exit_of(value: bytes | None) -> tuple[bytes, str] | None:
    """Return the pickle and the traceback of the exception by which a job has succeeded; None: by none."""
    if value is None or value[:1] != EXITED:
        return None
    end = 5 + int.from_bytes(value[1:5], "big")
    return value[5:end], value[end:].decode(errors="replace")


def encode_by_value(function: bytes, call: bytes) -> bytes:
    """Return an encoded call together with the pickle of the function that is called."""
    return blob.BY_VALUE + len(function).to_bytes(4, "big") + function + call


def split_by_value(data: bytes) -> tuple[bytes, bytes]:
    """Return the pickle of the function, empty if it travels by its name, and the encoded call."""
    if data[:1] != blob.BY_VALUE:
        return b"", data
    end = 5 + int.from_bytes(data[1:5], "big")
    return data[5:end], data[end:]


def decode_call(
    data: bytes, inputs: Sequence[bytes] = (), blobs: Blobs | None = None
) -> tuple[list[Any], dict[str, Any], bool]:
    """Return positional arguments, keyword arguments, and whether the result is wanted as JSON.

    ``inputs`` are the encoded values of the call's inputs, or what stands for one that is gone.

    Raises:
        AlreadyTaken, ResultExpired: an input's value is gone.
        NoSuchPart: an input's value has no such part as was asked for.
        PayloadLost, PayloadUnreadable: as for ``decode``.
    """
    if data == NO_ARGS:
        return [], {}, False
    if not inputs:
        args, kwargs = decode(data, blobs)
        return args, kwargs, data[:1] == b"J"
    with Feeding(inputs, partial(decode, blobs=blobs)) as feeding:
        if data[:1] not in (b"r", b"R"):
            args, kwargs = decode(data, blobs)
            return args, kwargs, False
        places, call = _without_places(data)
        feeding.place(call, places)
    return call[0], call[1], data[:1] == b"R"


def decode_chunk(chunk: bytes) -> list[list[Any]]:
    """Return the arguments, all by position, of each call of a plain chunk (``jobd.model.stretch``)."""
    return _decode_calls(memoryview(chunk)[1:])


def encode_chunk(calls: Sequence[tuple[object, ...]], *, json: bool = False) -> bytes:
    """Encode calls with arguments by position, none of which holds others, as a chunk; b"": some are others."""
    if not _SCALARS.issuperset(map(type, chain.from_iterable(calls))):
        return b""
    try:
        return (b"J" if json else b"j") + _encode_json(calls)
    except _ODD:
        return b""


def shown_call(data: bytes, inputs: list[int]) -> tuple[list[Any], dict[str, Any]] | None:
    """Return a call as people are shown it: references as they are written; None for a pickle."""
    _, data = split_by_value(data)
    if data[:1] in (b"p", blob.CODEC):
        return None
    if data[:1] not in (b"r", b"R"):
        args, kwargs = _decode_json(memoryview(data)[1:])
        return args, kwargs
    places, call = _without_places(data)
    for where, index, path in places:
        put(call, where, show_input(inputs[index], path))
    return call[0], call[1]
