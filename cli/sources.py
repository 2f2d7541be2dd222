"""Where the items of an array come from: lines, JSON, values of parameters, or numbers.

=====================  =================================================================
``--each-line FILE``   each line is the first positional argument, as a text
``--from-jsonl FILE``  each line is JSON: positional arguments in ``[..]``, arguments by
                       name in ``{..}``, any other value is one positional argument
``--param NAME=a,b``   arguments by name: each part a JSON scalar if it reads as one, else
                       text; ``NAME:=JSON`` has them in an array, or ``range(1, 51)``;
                       several make all combinations, the last one varying fastest
``--array 0-99:10``    each number is the first positional argument
``--only 3,8-10``      of these the items at those places, counted from 0
=====================  =================================================================

What an item does not say, the words after the function's name do, for all of them: its
own positional arguments stand before theirs.  ``-`` is stdin.  A file is read as its items
are asked for, and never held as a whole.  What stands in a file is data: a text in it that
begins with ``@`` names neither a file nor a result.

An item is encoded by putting what is its own between the pieces of the call that all
share, which is encoded once (`encoded`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from errno import EAGAIN
from itertools import chain, islice
from math import prod
from typing import IO, Any, Self

import msgspec

from jobd.cli.arguments import Call, parse_arguments, split_word
from jobd.cli.ranges import merged, parse_call, parse_ranges, repeated
from jobd.cli.submission import LARGEST_BYTES, FileReader, encode, unreadable
from jobd.inputs import Gathering, Input
from jobd.model.errors import UsageError
from jobd.model.path import PREFIX
from jobd.payload import is_exact

Part = tuple[Sequence[Any], Mapping[str, Any]]
"""What an item adds to the call that all share: plain data by position, and by name."""

Shape = tuple[int, tuple[str, ...]]
"""How many positional arguments a call has, and the names of the others."""

PIECE_BYTES = 256 * 1024
FLAT = 50
"""JSON with so few brackets is not nested deeply, and most has fewer."""
SHOWN_CHARACTERS = 60

_NONE: dict[str, Any] = {}
_ONE_SOURCE = "give one of --each-line, --from-jsonl, --param and --array"
_JSON_LINES = "each line is one JSON value: [..] by position, {..} by name, or one argument"
_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


class Said(msgspec.Struct, frozen=True):
    """The options that say where items come from, as they were given; empty: it was not.

    Attributes:
        raw: a part of ``--param`` is a text, whatever it looks like.
    """

    each_line: str = ""
    from_jsonl: str = ""
    params: tuple[str, ...] = ()
    array: str = ""
    only: str = ""
    raw: bool = False


class Items:
    """The items of an array, as calls; those of a file are there once.

    Attributes:
        fixed: the call that all share.
        count: how many there are; None: that is known at the end of the file.
    """

    def __init__(
        self,
        fixed: Call,
        count: int | None,
        parts: Callable[[], Iterator[Part]],
        close: Callable[[], object] = bool,
    ) -> None:
        self.fixed = fixed
        self.count = count
        self.parts = parts
        self.close = close

    def __iter__(self) -> Iterator[Call]:
        fixed = self.fixed
        for args, kwargs in self.parts():
            yield Call([*args, *fixed.args], {**kwargs, **fixed.kwargs})

    def encoded(self) -> Iterator[tuple[bytes, Shape, list[Input]]]:
        """Yield them as they travel, much faster."""
        return encoded(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_items(said: Said, fixed: Call, *, most: int, read: FileReader | None = None) -> Items:
    """Find out where the items come from, and open the file that has them.

    Args:
        said: the options.
        fixed: the call that all items share.
        most: so many items may be submitted; those that ``--only`` leaves out do not count.
        read: what has read the files that the call's words name: stdin can be read only once.

    Raises:
        UsageError: an option makes no sense, there are too many items, or a file cannot be read.
            What is wrong with a line of a file is raised when it is come to.
    """
    sources = {
        "--each-line": said.each_line,
        "--from-jsonl": said.from_jsonl,
        "--param": said.params,
        "--array": said.array,
    }
    given = [option for option, value in sources.items() if value]
    if not given:
        raise UsageError("nothing says where the items come from", _ONE_SOURCE)
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} contradict each other", _ONE_SOURCE)
    only = _only(said.only) if said.only else None
    if said.array:
        return _counted(_Numbers(said.array), fixed, only, most)
    if said.params:
        return _counted(_Product(said, fixed), fixed, only, most)
    if only is not None:
        _refuse_many(sum(map(len, only)), most, "--only")
    stream = _Stream(said.each_line or said.from_jsonl, given[0], read or FileReader())
    return _streamed(stream, fixed, only, most)


def _only(text: str) -> list[range]:
    """Read ``--only``: the places in order, each once."""
    ranges = parse_ranges(text, "--only")
    if any(each.step > 1 for each in ranges):
        raise UsageError("--only takes no step", "write 3,8-10 for the items at 3, 8, 9 and 10")
    return merged(ranges)


def _refuse_many(count: int, most: int, what: str) -> None:
    if count > most:
        raise _too_many(f"{what} makes {count:,} items, and a job may have {most:,}", most)


def _too_many(problem: str, most: int) -> UsageError:
    return UsageError(problem, f"submit several jobs: the first with --only 0-{most - 1}")


def _outside(place: int, count: int) -> UsageError:
    """Return the error of a place at which there is no item."""
    if not count:
        return UsageError(f"--only: there is no item {place}, as there are none at all")
    there_are = "there is one" if count == 1 else f"there are {count:,}"
    return UsageError(
        f"--only: there is no item {place}, as {there_are}", f"the last one is {count - 1}"
    )


# -- what is known beforehand -------------------------------------------------


class _Numbers:
    """The items of ``--array``."""

    option = "--array"

    def __init__(self, text: str) -> None:
        self._ranges = parse_ranges(text, self.option)
        twice = repeated(self._ranges)
        if twice is not None:
            raise UsageError(f"--array has {twice} twice", "each number makes one item")
        self.count = sum(map(len, self._ranges))

    def all(self) -> Iterator[Part]:
        """Yield the items in order."""
        for number in chain.from_iterable(self._ranges):
            yield (number,), _NONE

    def some(self, places: Iterable[int]) -> Iterator[Part]:
        """Yield the items at these places, which are in order."""
        ranges = iter(self._ranges)
        current, before = next(ranges), 0
        for place in places:
            while place - before >= len(current):
                before += len(current)
                current = next(ranges)
            yield (current[place - before],), _NONE


class _Product:
    """The items of ``--param``: all combinations, the last one varying fastest."""

    option = "--param"

    def __init__(self, said: Said, fixed: Call) -> None:
        self._values: dict[str, Sequence[Any]] = {}
        for word in said.params:
            name, values = _parameter(word, raw=said.raw)
            if name in self._values or name in fixed.kwargs:
                raise UsageError(
                    f"the argument {name} is given twice", "a name can have one value only"
                )
            self._values[name] = values
        self.count = prod(map(len, self._values.values()))

    def all(self) -> Iterator[Part]:
        """Yield the items in order."""
        return self.some(range(self.count))

    def some(self, places: Iterable[int]) -> Iterator[Part]:
        """Yield the items at these places."""
        pools, place = [], self.count
        for name, values in self._values.items():
            place //= len(values)
            pools.append((name, values, place, len(values)))
        for place in places:
            yield (), {name: values[place // each % n] for name, values, each, n in pools}


def _counted(
    source: _Numbers | _Product, fixed: Call, only: list[range] | None, most: int
) -> Items:
    """Return the items of a source that knows how many it has."""
    if only is None:
        _refuse_many(source.count, most, source.option)
        return Items(fixed, source.count, source.all)
    if only[-1].stop > source.count:
        place = next(max(each.start, source.count) for each in only if each.stop > source.count)
        raise _outside(place, source.count)
    count = sum(map(len, only))
    _refuse_many(count, most, "--only")
    return Items(fixed, count, lambda: source.some(chain.from_iterable(only)))


# -- the values of a parameter ------------------------------------------------


def _parameter(word: str, *, raw: bool) -> tuple[str, Sequence[Any]]:
    """Return the name and the values that ``--param`` has."""
    name, form, text = split_word(word)
    if not name:
        raise UsageError(
            f"--param: {_short(word)} has no name",
            "write width=640,1280 or width:='[640, 1280]' or width:='range(1, 51)'",
        )
    values = _parts(name, text, raw=raw) if form == "=" else _array(name, text)
    if not values:
        raise UsageError(f"--param: {name} has no values, so there would be no items")
    return name, values


def _parts(name: str, text: str, *, raw: bool) -> list[Any]:
    """Return the values that stand between commas."""
    values = []
    for part in text.split(",") if raw else _split(text):
        if not part:
            if not text:
                return []
            raise UsageError(
                f"--param: a value of {name} is empty",
                f"leave out the comma, or write {name}:='[\"\"]' for an empty text",
            )
        if part.startswith("@") and not (raw and part.startswith(PREFIX)):
            raise UsageError(
                f"--param: {_short(part)} is a file or a result, which {name} cannot vary over",
                f"for the text, write it in JSON: {name}:='[\"@…\"]'",
            )
        call = parse_arguments([f"{name}={part}"], raw=raw, read=FileReader())
        values.append(call.kwargs[name])
    return values


def _split(text: str) -> Iterator[str]:
    """Split at commas, but for those in a text in double quotes."""
    import re  # noqa: PLC0415  # as `jobd.cli.ranges` has it: few commands need it

    rest = text
    while True:
        quoted = re.match(r'"(?:[^"\\]|\\.)*"(?=,|\Z)', rest)
        part = quoted[0] if quoted else rest.partition(",")[0]
        yield part
        if part == rest:
            return
        rest = rest[len(part) + 1 :]


def _array(name: str, text: str) -> Sequence[Any]:
    """Return the values in a JSON array, or those of a range."""
    numbers = parse_call(text)
    if numbers is not None:
        return numbers
    values = None
    try:
        values = _decode_json(text)
        _refuse_depth(text, values)
    except RecursionError:
        raise UsageError(f"--param: the JSON of {name} is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeEncodeError):
        pass
    if not isinstance(values, list):
        raise UsageError(
            f"--param: {_short(text)} is neither a JSON array nor a range",
            f"write {name}:='[1, 2, 3]' or {name}:='range(1, 51)'",
        )
    return values


def _refuse_depth(text: str, value: object) -> None:
    """Raise RecursionError for JSON that can be read, and is too deep to be written."""
    if text.count("[") + text.count("{") > FLAT:
        is_exact(value)


# -- what comes from a file ---------------------------------------------------


class _Stream:
    """The lines of a file, or of stdin, each read when it is come to."""

    def __init__(self, name: str, option: str, read: FileReader) -> None:
        self.name = "stdin" if name == "-" else name
        self.is_json = option == "--from-jsonl"
        self._hint = f"{option} takes the name of a file, or - for stdin"
        if name == "-":
            self._file: IO[Any] = read.stdin()
            if self._file.isatty():
                raise UsageError(
                    "stdin is a terminal", f"pipe the items in, or name a file: {option} FILE"
                )
            self.close: Callable[[], object] = bool
            return
        try:
            self._file = open(name, "rb")  # noqa: SIM115  # `close` does
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise unreadable(name, error, self._hint) from None
        self.close = self._file.close

    def lines(self) -> Iterator[str]:
        """Return the lines, without their ends."""
        return chain.from_iterable(self._batches())

    def _batches(self) -> Iterator[list[str]]:
        """Yield the lines of each piece that is read."""
        begun: list[bytes] = []
        number, size = 1, 0
        while piece := self._piece():
            whole, newline, tail = piece.rpartition(b"\n")
            if newline:
                lines = self._decoded(b"".join((*begun, whole)), number).split("\n")
                yield lines
                number, begun, size = number + len(lines), [], 0
            begun.append(tail)
            size += len(tail)
            if size > LARGEST_BYTES:
                raise UsageError(
                    f"line {number} of {self.name} has over {LARGEST_BYTES} bytes",
                    "pass the name of a file, and let the function read it",
                )
        if size:
            yield self._decoded(b"".join(begun), number).split("\n")

    def _piece(self) -> bytes:
        try:
            piece = self._file.read(PIECE_BYTES)
            if piece is None:  # stdin that somebody has made so: this is not its end
                raise BlockingIOError(EAGAIN, "it does not block, and has nothing yet")
        except OSError as error:
            raise unreadable(self.name, error, self._hint) from None
        assert isinstance(piece, bytes)
        return piece

    def _decoded(self, data: bytes, number: int) -> str:
        """Decode lines, the first of which has this number."""
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            number += data.count(b"\n", 0, error.start)
            raise UsageError(
                f"line {number} of {self.name} is not UTF-8", "convert the file with iconv"
            ) from None


Line = tuple[int, str]
"""A line, and its place in the file, counted from 0."""


def _streamed(stream: _Stream, fixed: Call, only: list[range] | None, most: int) -> Items:
    """Return the items of a file."""

    def parts() -> Iterator[Part]:
        try:
            lines: Iterator[Line] = enumerate(stream.lines())
            if stream.is_json:
                lines = _without_last_blank(lines, stream.name)
            if only is not None:
                lines = _chosen(lines, only)
            lines = _limited(lines, most, stream.name)
            yield from _json_parts(lines, stream.name, fixed) if stream.is_json else _texts(lines)
        finally:
            stream.close()

    return Items(fixed, None if only is None else sum(map(len, only)), parts, stream.close)


def _without_last_blank(lines: Iterator[Line], name: str) -> Iterator[Line]:
    """Leave a blank line out at the end; elsewhere it is a mistake."""
    for place, line in lines:
        if not line or line.isspace():
            if next(lines, None) is None:
                return
            raise UsageError(f"line {place + 1} of {name} is blank", _JSON_LINES)
        yield place, line


def _chosen(lines: Iterator[Line], only: list[range]) -> Iterator[Line]:
    """Yield the lines at these places, and read no more of them."""
    seen = 0
    for span in only:
        for _ in islice(lines, span.start - seen):
            seen += 1
        for line in islice(lines, len(span) if seen == span.start else 0):
            seen += 1
            yield line
        if seen < span.stop:
            raise _outside(max(span.start, seen), seen)


def _limited(lines: Iterator[Line], most: int, name: str) -> Iterator[Line]:
    """Yield the lines unless there are too many."""
    yield from islice(lines, most)
    if next(lines, None) is not None:
        raise _too_many(f"{name} has more items than the {most:,} that a job may have", most)


def _texts(lines: Iterator[Line]) -> Iterator[Part]:
    for _, line in lines:
        yield (line,), _NONE


def _json_parts(lines: Iterator[Line], name: str, fixed: Call) -> Iterator[Part]:
    """Yield what each line of JSON says."""
    for place, line in lines:
        value = _decoded(line, f"line {place + 1} of {name}")
        if type(value) is list:
            yield value, _NONE
        elif type(value) is dict:
            twice = next((key for key in value if key in fixed.kwargs), None)
            if twice is not None:
                raise UsageError(
                    f"line {place + 1} of {name} has the argument {_short(twice)} again",
                    "it stands on the command line, for all of them",
                )
            yield (), value
        else:
            yield (value,), _NONE


def _decoded(line: str, where: str) -> Any:
    """Return the JSON that a line has."""
    try:
        value = _decode_json(line)
        _refuse_depth(line, value)
    except RecursionError:
        raise UsageError(f"{where} is nested too deeply", "pass the name of a file") from None
    except msgspec.MsgspecError as error:
        problem = str(error).removeprefix("JSON is malformed: ")
        raise UsageError(f"{where} is not JSON: {problem}", _JSON_LINES) from None
    return value


# -- as bytes -----------------------------------------------------------------


def encoded(items: Items) -> Iterator[tuple[bytes, Shape, list[Input]]]:
    """Encode each item's call (`jobd.cli.submission.encode`); with its shape, and its inputs.

    The list of inputs is the same one for all, for whatever refers to a result is fixed.

    Raises:
        UsageError: as for ``encode``, or what is wrong with an item.
    """
    names = tuple(items.fixed.kwargs)
    comma = b"," if names else b""
    frames: dict[int, _Frame] = {}
    for args, kwargs in items.parts():
        frame = frames.get(len(args))
        if frame is None:
            frame = frames[len(args)] = _Frame(items.fixed, len(args))
        data = frame.before + _encode_json(args)[1:-1] + frame.between
        if kwargs:
            shape = (frame.shape[0], (*kwargs, *names))
            yield data + _encode_json(kwargs)[1:-1] + comma + frame.after, shape, frame.inputs
        else:
            yield data + frame.after, frame.shape, frame.inputs


class _Frame:
    """The call that all items share, in pieces; items add so many positional arguments to it.

    Attributes:
        before: what stands before these.
        between: what stands between them and an item's arguments by name.
        after: what stands after those.
        shape: that of a call without such.
        inputs: the jobs whose results it has.
    """

    def __init__(self, fixed: Call, added: int) -> None:
        data, self.inputs = encode(Call([None] * added + fixed.args, fixed.kwargs))
        # "J[[null,1,2],{"a":3}]"; or "R", the length of where results go, that, and the same JSON.
        first = 3 if data[:1] == b"J" else 7 + int.from_bytes(data[1:5], "big")
        named = _encode_json(Gathering().lift(fixed.kwargs, [], []))
        brace = len(data) - len(named)  # it ends with these, and "]"
        self.before = data[:first]
        self.between = data[first + max(0, len("null,") * added - 1) : brace]
        self.after = data[brace:]
        self.shape: Shape = (added + len(fixed.args), tuple(fixed.kwargs))


def _short(text: str) -> str:
    """Quote a text, cut to a bearable length."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")
