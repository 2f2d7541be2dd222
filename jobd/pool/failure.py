"""Turn whatever a user's function raised into plain text that can travel.

An exception is the user's code: its ``__str__`` may raise, its class may lie, its
causes may form a ring, its traceback may have a million frames.  The end of a
job must be recorded all the same, so here

* facts are read through the slots of BaseException and type, which a subclass
  cannot override, and whatever has to run user code is guarded;
* every walk (frames, causes, groups) has a limit, and so has every text;
* the texts are valid UTF-8: a lone surrogate becomes its escape.

The standard library's TracebackException is not used: it follows a whole
chain of causes before a limit can be set, and recurses into groups.

The guards catch BaseException.  By then the job has ended, and a time limit that
fires inside a user's ``__str__`` is as good a reason to go on without it as any.
"""

import itertools
import linecache
import os
import textwrap
import traceback
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import cast

from jobd.model.job import ErrorInfo

MESSAGE_BYTES = 8 * 1024
TRACEBACK_BYTES = 64 * 1024
TYPE_BYTES = 500

HEAD_FRAMES = 100  # of a deep recursion: how it was entered ...
TAIL_FRAMES = 200  # ... and where it ended; the middle repeats itself
CHAIN_LINKS = 20  # causes and contexts shown for one exception ...
MEMBER_LINKS = 3  # ... and for a member of a group: these multiply
GROUP_MEMBERS = 5
GROUP_DEPTH = 3
NOTES = 20
SOURCE_BYTES = 4 * 1024 * 1024  # a larger "source file" is data: it is not read for one line
REPR_DEPTH = 10
INT_BITS = 10_000  # about 3,000 digits: below Python's own limit, and still quick

_OWN_DIRECTORY = f"{Path(__file__).parent.parent}/"
_LIBRARY = Path(os.__file__).parent
# What stands between jobd's frames and the user's: the import system, the event loop.
_MACHINERY = (
    "<frozen importlib",
    f"{_LIBRARY}/importlib/",
    f"{_LIBRARY}/asyncio/",
)
_TITLE = "Traceback (most recent call last):\n"
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    deque: ("deque([", "])"),
    dict: ("{", "}"),
    OrderedDict: ("OrderedDict({", "})"),
    defaultdict: ("defaultdict({", "})"),
    Counter: ("Counter({", "})"),
}


def describe(exc: BaseException) -> ErrorInfo:
    """Describe any exception in plain strings of bounded length.  Never raises.

    The traceback shows the user's frames only: those of the worker, which lead
    to the first of them, are left out.
    """
    text = _guarded(lambda: _chain(exc, 0, CHAIN_LINKS))
    return ErrorInfo(
        type=type_name(exc),
        message=clip(_message(exc), MESSAGE_BYTES),
        traceback=clip(text or _headline(exc), TRACEBACK_BYTES),
    )


def type_name(value: object) -> str:
    """Name a value's class: "ValueError" for a builtin, else "package.module.Name"."""
    return class_name(type(value))


def class_name(kind: type) -> str:
    """Name a class, as ``type_name`` does that of a value."""
    # Through type's own slots: a metaclass may lie about these names, or raise.
    qualname: object = vars(type)["__qualname__"].__get__(kind)
    module: object = vars(type)["__module__"].__get__(kind)
    prefix = f"{module}." if type(module) is str and module != "builtins" else ""
    return clip(f"{prefix}{qualname}", TYPE_BYTES)


def message_of(exc: BaseException) -> str:
    """Return an exception's message in one printable line.  Never raises."""
    return one_line(_message(exc))


def safe_repr(value: object, limit: int = 2000) -> str:
    """Return repr(value) in at most `limit` bytes of valid UTF-8.  Never raises.

    Builtin containers and strings are read only as far as they are shown, so a list
    of a million items costs no more than one of a thousand.  A user's own
    ``__repr__`` is called as it is.
    """
    try:
        return _joined(_pieces(value, limit, REPR_DEPTH), limit)
    except BaseException as exc:  # noqa: BLE001  # see the module's docstring
        return clip(f"<{type_name(value)}: its repr raised {type_name(exc)}>", limit)


def clip(text: str, limit: int) -> str:
    """Return the text as valid UTF-8 of at most `limit` bytes, keeping its head and tail."""
    short = len(text) <= limit
    # Cut before encoding: the text may be a gigabyte.
    data = _encoded(text if short else f"{text[:limit]}{text[-limit:]}")
    if short and len(data) <= limit:
        return data.decode()
    mark = b"\n[... cut ...]\n" if b"\n" in data else b"[... cut ...]"
    if limit < 4 * len(mark):
        return data[:limit].decode(errors="ignore")
    tail = (limit - len(mark)) // 2
    head = limit - len(mark) - tail
    return b"".join((data[:head], mark, data[-tail:])).decode(errors="ignore")


def one_line(text: str, limit: int = 300) -> str:
    """Fold a text into one printable line of at most `limit` bytes, for a sentence."""
    folded = " ".join(clip(text, 4 * limit).split())
    shown = (char if char.isprintable() else ascii(char)[1:-1] for char in folded)
    return clip("".join(shown), limit)


def origin(exc: BaseException) -> str:
    """Say where an exception was raised, as "file, line n"; "" if in no user's file."""
    entries = [entry for entry in _entries(exc) if not _file(entry).startswith(_MACHINERY)]
    return f"{_file(entries[-1])}, line {entries[-1].tb_lineno}" if entries else ""


def _guarded(call: Callable[[], str], otherwise: str = "") -> str:
    """Run what may run user code; any failure in it yields the other text."""
    try:
        return call()
    except BaseException:  # noqa: BLE001  # see the module's docstring
        return otherwise


def _plain(text: str) -> str:
    """Copy a text to an exact str: str() and repr() let subclasses with own methods through."""
    return str.__str__(text)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _slot(exc: BaseException, name: str, owner: type = BaseException) -> object:
    """Read a field of an exception past any property of the same name in its class."""
    return vars(owner)[name].__get__(exc)


# --- texts of one exception


def _message(exc: BaseException) -> str:
    """Return str(exc), else repr(exc), else a sentence that says why there is none."""
    try:
        return _plain(str(exc))
    except BaseException as failure:  # noqa: BLE001  # see the module's docstring
        reason = f"({type_name(exc)}: its __str__ raised {type_name(failure)})"
        return _guarded(lambda: _plain(repr(exc)), reason)


def _headline(exc: BaseException) -> str:
    """Return the "Type: message" line that ends a traceback."""
    message = clip(_message(exc), MESSAGE_BYTES)
    return f"{type_name(exc)}: {message}\n" if message else f"{type_name(exc)}\n"


def _location(exc: BaseException) -> str:
    """Say where a SyntaxError is: it is in no frame, since the file never ran."""
    if not issubclass(type(exc), SyntaxError):
        return ""
    filename, lineno, text = (
        _slot(exc, name, SyntaxError) for name in ("filename", "lineno", "text")
    )
    if lineno is None:
        return ""
    source = f"    {_text(text).strip()}\n" if text else ""
    return f'  File "{_text(filename)}", line {_text(lineno)}\n{source}'


def _text(value: object) -> str:
    """Return a string as it is, and anything else as its repr."""
    return clip(value, MESSAGE_BYTES) if type(value) is str else safe_repr(value)


def _notes(exc: BaseException) -> str:
    """Return the notes that PEP 678 lets anyone add: a list of what anyone put there."""
    notes = getattr(exc, "__notes__", None)
    return "".join(f"{_text(note)}\n" for note in notes[:NOTES]) if type(notes) is list else ""


# --- frames


def _stack(exc: BaseException) -> str:
    """Format the user's frames, without the middle of a very deep stack; "" if there are none."""
    entries = _entries(exc)
    if not entries:
        return ""
    left_out = len(entries) - HEAD_FRAMES - TAIL_FRAMES
    if left_out <= 0:
        return f"{_TITLE}{_lines(entries)}"
    gap = f"  [... {left_out} frames are left out ...]\n"
    return f"{_TITLE}{_lines(entries[:HEAD_FRAMES])}{gap}{_lines(entries[-TAIL_FRAMES:])}"


def _entries(exc: BaseException) -> list[TracebackType]:
    """List a traceback's entries, oldest first, from the first one that is the user's."""
    entries: list[TracebackType] = []
    entry = _slot(exc, "__traceback__")
    while isinstance(entry, TracebackType):
        entries.append(entry)
        entry = entry.tb_next
    entries = _without_first(entries, _OWN_DIRECTORY)
    # Nothing but machinery: then the user called it by name, and it is what failed.
    return _without_first(entries, _MACHINERY) or entries


def _without_first(
    entries: list[TracebackType], prefixes: str | tuple[str, ...]
) -> list[TracebackType]:
    """Drop the leading entries whose files lie under any of the prefixes."""
    return list(itertools.dropwhile(lambda entry: _file(entry).startswith(prefixes), entries))


def _file(entry: TracebackType) -> str:
    return entry.tb_frame.f_code.co_filename


def _lines(entries: list[TracebackType]) -> str:
    """Format entries as Python does; without source lines if that fails."""
    return _guarded(
        lambda: "".join(traceback.StackSummary.from_list(map(_summary, entries)).format()),
        "".join(f'  File "{_file(entry)}", line {entry.tb_lineno}\n' for entry in entries),
    )


def _summary(entry: TracebackType) -> traceback.FrameSummary:
    """Copy one entry's place in the source, with the columns for the carets."""
    code = entry.tb_frame.f_code
    positions = itertools.islice(code.co_positions(), entry.tb_lasti // 2, None)
    _, end_lineno, colno, end_colno = next(positions, (None, None, None, None))
    return traceback.FrameSummary(
        code.co_filename,
        entry.tb_lineno,
        code.co_name,
        lookup_line=False,
        line=None if _readable(code.co_filename) else "",
        end_lineno=end_lineno,
        colno=colno,
        end_colno=end_colno,
    )


def _readable(filename: str) -> bool:
    """Tell whether a file may be read for its lines: code can name /dev/zero as its source."""
    if filename in linecache.cache:
        return True
    try:
        status = Path(filename).stat()
    except (OSError, ValueError):
        return False
    return S_ISREG(status.st_mode) and status.st_size <= SOURCE_BYTES


# --- chains and groups


def _chain(exc: BaseException, depth: int, limit: int) -> str:
    """Format an exception and at most `limit` of those that led to it, oldest first."""
    links = _links(exc, limit + 1)
    texts = [_single(link, depth) + connective for link, connective in links[:limit]]
    if len(links) > limit:
        texts.append("[... earlier exceptions are left out ...]\n")
    return "".join(reversed(texts))


def _links(exc: BaseException, limit: int) -> list[tuple[BaseException, str]]:
    """List an exception and its causes, newest first, each with the words that follow it."""
    links: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    link, connective = cast("BaseException | None", exc), ""
    while link is not None and id(link) not in seen and len(links) < limit:
        seen.add(id(link))
        links.append((link, connective))
        link, connective = _before(link)
    return links


def _before(exc: BaseException) -> tuple[BaseException | None, str]:
    """Return what led to an exception, and the words that Python puts between the two."""
    cause = cast("BaseException | None", _slot(exc, "__cause__"))
    if cause is not None or _slot(exc, "__suppress_context__"):
        return cause, _CAUSE
    return cast("BaseException | None", _slot(exc, "__context__")), _CONTEXT


def _single(exc: BaseException, depth: int) -> str:
    """Format one exception without its causes, but with a group's members.

    Each part is guarded by itself: a hostile one does not cost the others.
    """
    parts = (_stack, _location, _headline, _notes, lambda exc: _members(exc, depth + 1))
    return "".join(_guarded(partial(part, exc)) for part in parts)


def _members(exc: BaseException, depth: int) -> str:
    """Format the members of a group, indented; "" for any other exception."""
    if not issubclass(type(exc), BaseExceptionGroup):
        return ""
    members = cast("tuple[BaseException, ...]", _slot(exc, "exceptions", BaseExceptionGroup))
    shown = members[:GROUP_MEMBERS] if depth <= GROUP_DEPTH else ()
    texts = [
        f"---- {number} of {len(members)} ----\n{_chain(member, depth, MEMBER_LINKS)}"
        for number, member in enumerate(shown, 1)
    ]
    if len(shown) < len(members):
        texts.append(f"[... {len(members) - len(shown)} more exceptions are left out ...]\n")
    return textwrap.indent("".join(texts), "  ")


# --- repr


def _joined(pieces: Iterator[str], limit: int) -> str:
    """Join pieces until there is enough: what lies beyond the limit is never made."""
    kept: list[str] = []
    missing = limit
    for piece in pieces:
        kept.append(piece)
        missing -= len(piece)
        if missing < 0:
            break
    data = _encoded("".join(kept)[: limit + 1])
    if len(data) <= limit:
        return data.decode()
    return data[: max(limit - 3, 0)].decode(errors="ignore") + "..."[:limit]


def _pieces(value: object, limit: int, depth: int) -> Iterator[str]:
    """Yield the repr of a value bit by bit; only exact builtin types are taken apart."""
    if type(value) in _BRACKETS:
        yield from _container(cast("Collection[object]", value), limit, depth)
    elif type(value) in (str, bytes, bytearray):
        yield repr(cast("str | bytes", value)[: limit + 1])
    elif type(value) is int and value.bit_length() > INT_BITS:
        yield f"<int of {value.bit_length()} bits>"
    else:
        yield _plain(repr(value))


def _container(value: Collection[object], limit: int, depth: int) -> Iterator[str]:
    """Yield the repr of a builtin container, item by item."""
    opening, closing = _BRACKETS[type(value)]
    if not value and type(value) in (set, frozenset):
        yield f"{type(value).__name__}()"
        return
    yield opening
    if depth == 0:
        yield "..."  # also what a container that holds itself comes to
    else:
        yield from _items(value, limit, depth - 1)
    yield ",)" if type(value) is tuple and len(value) == 1 else closing


def _items(value: Collection[object], limit: int, depth: int) -> Iterator[str]:
    """Yield the items of a container, with commas between them."""
    comma = ""
    for item in value:
        yield comma
        yield from _pieces(item, limit, depth)
        if isinstance(value, dict):
            yield ": "
            yield from _pieces(value[item], limit, depth)
        comma = ", "
