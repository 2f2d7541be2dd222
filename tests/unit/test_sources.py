"""Where the items of an array come from."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.cli import sources
from jobd.cli.arguments import Call, parse_arguments
from jobd.cli.ranges import merged, parse_ranges, repeated
from jobd.cli.sources import Items, Said, encoded, read_items
from jobd.cli.submission import FileReader, encode
from jobd.inputs import JobResult
from jobd.model.errors import UsageError

MOST = 1000
NOTHING = Call([], {})
FIXED = Call(["out"], {"width": 640})


def items(fixed: Call = NOTHING, *, most: int = MOST, **said: Any) -> Items:
    """Read items."""
    return read_items(Said(**said), fixed, most=most)


def calls(fixed: Call = NOTHING, *, most: int = MOST, **said: Any) -> list[Call]:
    """All items, as calls; the bytes are of the same ones."""
    found = list(items(fixed, most=most, **said))
    count = items(fixed, most=most, **said)
    count.close()
    assert count.count in (None, len(found))
    as_bytes = list(encoded(items(fixed, most=most, **said)))
    assert [(data, inputs) for data, _, inputs in as_bytes] == [encode(call) for call in found]
    shapes = [(len(call.args), tuple(call.kwargs)) for call in found]
    assert [shape for _, shape, _ in as_bytes] == shapes
    return found


def firsts(**said: Any) -> list[Any]:
    """The items' only argument."""
    found = calls(**said)
    assert all(len(call.args) == 1 and not call.kwargs for call in found)
    return [call.args[0] for call in found]


def named(**said: Any) -> list[dict[str, Any]]:
    """The items' arguments by name; they have no others."""
    found = calls(**said)
    assert not any(call.args for call in found)
    return [call.kwargs for call in found]


def refusal(fixed: Call = NOTHING, *, most: int = MOST, **said: Any) -> str:
    """The error in which reading the items ends, at once or at a line."""
    with pytest.raises(UsageError) as caught, items(fixed, most=most, **said) as found:
        list(found)
    assert caught.value.code == 2
    return (
        f"{caught.value.message}: {caught.value.hint}" if caught.value.hint else str(caught.value)
    )


def early_refusal(fixed: Call = NOTHING, *, most: int = MOST, **said: Any) -> str:
    """The error that is raised before any item."""
    with pytest.raises(UsageError) as caught:
        items(fixed, most=most, **said)
    return (
        f"{caught.value.message}: {caught.value.hint}" if caught.value.hint else str(caught.value)
    )


def of(option: str, value: str) -> dict[str, Any]:
    """An option that is one of several."""
    return {option: value}


def as_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Have something on stdin."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files have short names."""
    monkeypatch.chdir(tmp_path)


def file(data: bytes | str, name: str = "f") -> str:
    """Write a file; return its name."""
    Path(name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return name


# -- one source ---------------------------------------------------------------

ONE = "give one of --each-line, --from-jsonl, --param and --array"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, f"nothing says where the items come from: {ONE}"),
        ({"only": "1"}, f"nothing says where the items come from: {ONE}"),
        ({"each_line": "f", "array": "1"}, f"--each-line and --array contradict each other: {ONE}"),
        (
            {"each_line": "-", "from_jsonl": "-"},
            f"--each-line and --from-jsonl contradict each other: {ONE}",
        ),
        ({"params": ("a=1",), "array": "1"}, f"--param and --array contradict each other: {ONE}"),
    ],
)
def test_there_is_one_source(said: dict[str, Any], message: str) -> None:
    """Neither none nor two."""
    assert early_refusal(**said) == message


# -- lines --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("", []),
        ("\n", [""]),
        ("a", ["a"]),
        ("a\nb\n", ["a", "b"]),
        ("a\n\nb", ["a", "", "b"]),
        (" 5 \n@x\n@job:7\n", [" 5 ", "@x", "@job:7"]),
        ("é\u2028\x0b\x0c\x85\n\U0001f600", ["é\u2028\x0b\x0c\x85", "\U0001f600"]),
        ("a\r\nb\r\n", ["a\r", "b\r"]),
        ('"\\\0\n', ['"\\\0']),
    ],
)
def test_each_line_is_a_text(data: str, lines: list[str]) -> None:
    """As it stands there: nothing is stripped or guessed, and only a newline ends it."""
    assert firsts(each_line=file(data)) == lines


def test_a_line_stands_before_what_all_share() -> None:
    """By position first; by name beside it."""
    assert calls(FIXED, each_line=file("a\nb")) == [
        Call(["a", "out"], {"width": 640}),
        Call(["b", "out"], {"width": 640}),
    ]


@given(
    lines=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))),
    piece=st.integers(1, 20),
    is_ended=st.booleans(),
)
def test_lines_are_whole_however_they_are_read(
    lines: list[str], piece: int, *, is_ended: bool
) -> None:
    """A piece may end in the middle of a line, or of a character."""
    data = "\n".join(lines) + ("\n" if is_ended and lines else "")
    expected = data.removesuffix("\n").split("\n") if data else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PIECE_BYTES", piece)
        assert firsts(each_line=file(data), most=10**6) == expected


@pytest.mark.parametrize("piece", [1, 5, 1000])
@pytest.mark.parametrize(
    ("data", "number"), [(b"\xff", 1), (b"a\nb\n\xc3\nd", 3), (b"a\n\n\n\ne\xc3", 5)]
)
def test_a_line_that_is_no_text(
    monkeypatch: pytest.MonkeyPatch, data: bytes, number: int, piece: int
) -> None:
    """Its number is told."""
    monkeypatch.setattr(sources, "PIECE_BYTES", piece)
    message = f"line {number} of f is not UTF-8: convert the file with iconv"
    assert refusal(each_line=file(data)) == message
    assert refusal(from_jsonl=file(data.replace(b"a", b"1"))).startswith("line ")


def test_a_line_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of /dev/zero, say."""
    monkeypatch.setattr(sources, "LARGEST_BYTES", 10**6)
    hint = "pass the name of a file, and let the function read it"
    assert refusal(each_line="/dev/zero") == f"line 1 of /dev/zero has over 1000000 bytes: {hint}"


@pytest.mark.parametrize("option", ["each_line", "from_jsonl"])
def test_a_file_that_cannot_be_read(option: str) -> None:
    """It is told before anything is asked of the daemon."""
    flag = "--" + option.replace("_", "-")
    hint = f"{flag} takes the name of a file, or - for stdin"
    assert early_refusal(**of(option, "no")) == f"no: No such file or directory: {hint}"
    assert early_refusal(**of(option, ".")) == f".: Is a directory: {hint}"
    assert early_refusal(**of(option, "a\0b")) == f"a\0b: embedded null byte: {hint}"
    assert refusal(**of(option, "/proc/self/mem")) == f"/proc/self/mem: Input/output error: {hint}"


def test_too_many_lines() -> None:
    """As many as a job may have are fine."""
    assert len(calls(each_line=file("a\n" * 3), most=3)) == 3
    hint = "submit several jobs: the first with --only 0-2"
    assert (
        refusal(each_line=file("a\n" * 4), most=3)
        == f"f has more items than the 3 that a job may have: {hint}"
    )
    assert len(calls(each_line=file("a\n" * 4), most=3, only="0-2")) == 3
    assert (
        early_refusal(each_line="f", most=3, only="0-3")
        == f"--only makes 4 items, and a job may have 3: {hint}"
    )


def test_a_file_is_not_held_in_memory() -> None:
    """However many lines it has."""
    Path("f").write_text(f"{'x' * 99}\n" * 200_000)
    tracemalloc.start()
    try:
        found = items(each_line="f", most=10**6)
        assert sum(1 for _ in encoded(found)) == 200_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


def test_a_file_is_closed() -> None:
    """Whether it was read to the end, or in part, or not at all; else Python warns."""
    file("a\nb\n")
    list(items(each_line="f"))
    with items(each_line="f") as found:
        assert next(iter(found)) == Call(["a"], {})
    items(each_line="f").close()


# -- stdin --------------------------------------------------------------------


@pytest.mark.parametrize("option", ["each_line", "from_jsonl"])
def test_stdin(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """It has another name in what is said of it."""
    as_stdin(monkeypatch, b"1\n2\n")
    one, two = list(items(**of(option, "-")))
    assert [*map(str, one.args + two.args)] == ["1", "2"]
    as_stdin(monkeypatch, b"\xff")
    assert refusal(**of(option, "-")) == "line 1 of stdin is not UTF-8: convert the file with iconv"


def test_stdin_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the words, or for the items."""
    as_stdin(monkeypatch, b"1\n2\n")
    read = FileReader()
    fixed = parse_arguments(["when=@-"], read=read)
    with pytest.raises(UsageError) as caught:
        read_items(Said(each_line="-"), fixed, most=MOST, read=read)
    assert str(caught.value) == "stdin can be read only once (write it to a file first)"


@pytest.mark.parametrize("option", ["each_line", "from_jsonl"])
def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """Whoever sits there would not know that lines are wanted."""
    ours, its = pty.openpty()
    try:
        with open(its, "rb", closefd=False) as terminal:
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=terminal))
            flag = "--" + option.replace("_", "-")
            hint = f"pipe the items in, or name a file: {flag} FILE"
            assert early_refusal(**of(option, "-")) == f"stdin is a terminal: {hint}"
    finally:
        os.close(ours)
        os.close(its)


def test_stdin_that_does_not_block_is_not_taken_for_an_empty_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else what comes later would be lost, and nothing said."""
    ours, its = os.pipe()
    os.set_blocking(ours, False)
    try:
        with open(ours, "rb", closefd=False) as pipe:
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
            hint = "--each-line takes the name of a file, or - for stdin"
            message = f"stdin: it does not block, and has nothing yet: {hint}"
            assert refusal(each_line="-") == message
    finally:
        os.close(ours)
        os.close(its)


# -- lines of JSON ------------------------------------------------------------

JSON_LINES = "each line is one JSON value: [..] by position, {..} by name, or one argument"


def test_json_says_a_call() -> None:
    """An array is by position, an object by name, and anything else is an argument."""
    lines = ["[1, [2]]", '{"a": 1, "b": {}}', '"x"', "5", "null", "[]", "{}", " 1.0 ", "[[]]\r"]
    name = file("\n".join(lines))
    expected = [
        Call([1, [2]], {}),
        Call([], {"a": 1, "b": {}}),
        *(Call([value], {}) for value in ("x", 5, None)),
        Call([], {}),
        Call([], {}),
        Call([1.0], {}),
        Call([[]], {}),
    ]
    assert calls(from_jsonl=name) == expected
    shared = [Call([*call.args, "out"], {**call.kwargs, "width": 640}) for call in expected]
    assert calls(FIXED, from_jsonl=name) == shared


def test_json_is_data() -> None:
    """What looks like a result or a file is a text."""
    assert firsts(from_jsonl=file('"@job:7"\n"@f"\n["@job:7"]')) == ["@job:7", "@f", "@job:7"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("1\nx", f"line 2 of f is not JSON: invalid character (byte 0): {JSON_LINES}"),
        ("[1\n", f"line 1 of f is not JSON: Input data was truncated: {JSON_LINES}"),
        ("1 2\n", f"line 1 of f is not JSON: trailing characters (byte 3): {JSON_LINES}"),
        ("1\n1e999\n", f"line 2 of f is not JSON: Number out of range: {JSON_LINES}"),
        (
            r'["\udfff"]',
            f"line 1 of f is not JSON: invalid utf-16 surrogate pair (byte 8): {JSON_LINES}",
        ),
        ("NaN\n", f"line 1 of f is not JSON: invalid character (byte 0): {JSON_LINES}"),
        ("1\n\n2\n", f"line 2 of f is blank: {JSON_LINES}"),
        ("1\n \n\n", f"line 2 of f is blank: {JSON_LINES}"),
        ("\n\n", f"line 1 of f is blank: {JSON_LINES}"),
        ("1\n" + "[" * 100_000, "line 2 of f is nested too deeply: pass the name of a file"),
    ],
)
def test_a_line_that_is_no_json(data: str, message: str) -> None:
    """Its number is told."""
    assert refusal(from_jsonl=file(data)) == message


@pytest.mark.parametrize("data", ["", "\n", " \r\n", "1\n", "1\n\n", "1\n  "])
def test_a_last_blank_line_is_none(data: str) -> None:
    """Programs write one."""
    assert firsts(from_jsonl=file(data)) == ([1] if "1" in data else [])


def test_a_name_that_all_items_have() -> None:
    """It is no default: which of the two is meant cannot be known."""
    hint = "it stands on the command line, for all of them"
    message = f"line 2 of f has the argument 'width' again: {hint}"
    assert refusal(FIXED, from_jsonl=file('{"a": 1}\n{"width": 2}')) == message


@pytest.mark.parametrize("depth", [10, 60, 200, 300, 400, 500, 700, 900, 990, 1000, 5000])
def test_what_can_be_read_can_be_encoded(depth: int) -> None:
    """Or else it is refused by its line."""
    name = file('{"a": ' + "[" * depth + "]" * depth + "}\n")
    try:
        (found,) = encoded(items(from_jsonl=name))
    except UsageError as error:
        assert depth > 100
        assert error.message == "line 1 of f is nested too deeply"
    else:
        assert found[0].count(b"[") == depth + 2


# -- parameters ---------------------------------------------------------------


def test_parameters_make_all_combinations() -> None:
    """The last one varies fastest."""
    assert named(params=("a=1,x", "b:=[true, {}]", "c:=range(2)")) == [
        {"a": a, "b": b, "c": c} for a, b, c in itertools.product([1, "x"], [True, {}], [0, 1])
    ]
    assert calls(FIXED, params=("a=1",)) == [Call(["out"], {"a": 1, "width": 640})]


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("a=5", [5]),
        ("a=1,1.5,-2,1e3", [1, 1.5, -2, 1000.0]),
        ("a=true,null,True,007", [True, None, "True", "007"]),
        ("a=x, y", ["x", " y"]),
        ('a="5",""', ["5", ""]),
        ('a="x,y",z', ["x,y", "z"]),
        ('a="x\\",y",z', ['x",y', "z"]),
        ('a="x,y', ['"x', "y"]),
        ('a="x"y,z', ['"x"y', "z"]),
        ("a=[1],{}", ["[1]", "{}"]),
        ("a=b=c,d", ["b=c", "d"]),
        ("a:=[1, [2], null]", [1, [2], None]),
        ('a:=["", "@x", "@job:7"]', ["", "@x", "@job:7"]),
        ("a:=range(3)", [0, 1, 2]),
        ("a:=range(1, 4)", [1, 2, 3]),
        ("a:= range( 5 , -2 ,-3 ) ", [5, 2, -1]),
        ("a:=range(0,10,4)", [0, 4, 8]),
    ],
)
def test_the_values_of_a_parameter(word: str, values: list[Any]) -> None:
    """JSON scalars or texts between commas, a JSON array, or a range."""
    found = [call["a"] for call in named(params=(word,))]
    assert found == values
    assert [*map(type, found)] == [*map(type, values)]


def test_raw_values_are_texts() -> None:
    """Quotes are part of them."""
    found = named(params=('a=007,5,"x,@job:7',), raw=True)
    assert [call["a"] for call in found] == ["007", "5", '"x', "@job:7"]
    message = "--param: '@f' is a file or a result, which a cannot vary over"
    assert early_refusal(params=("a=@f",), raw=True) == f"{message}: {TEXT}"


NAMELESS = "write width=640,1280 or width:='[640, 1280]' or width:='range(1, 51)'"
FORMS = "write a:='[1, 2, 3]' or a:='range(1, 51)'"
EMPTY = "write a:='[\"\"]' for an empty text"
TEXT = "for the text, write it in JSON: a:='[\"@…\"]'"
NO_ITEMS = "--param: a has no values, so there would be no items"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["5"], f"--param: '5' has no name: {NAMELESS}"),
        (["=5"], f"--param: '=5' has no name: {NAMELESS}"),
        ([":=[5]"], f"--param: ':=[5]' has no name: {NAMELESS}"),
        (["a-b=5"], f"--param: 'a-b=5' has no name: {NAMELESS}"),
        (["a="], NO_ITEMS),
        (["a:=[]"], NO_ITEMS),
        (["a:=range(0)"], NO_ITEMS),
        (["a:=range(5, 1)"], NO_ITEMS),
        (
            ["a=1,"],
            f"--param: a value of a is empty: leave out the comma, or {EMPTY}",
        ),
        (
            ["a=x,@f"],
            f"--param: '@f' is a file or a result, which a cannot vary over: {TEXT}",
        ),
        (
            ["a=@job:7"],
            f"--param: '@job:7' is a file or a result, which a cannot vary over: {TEXT}",
        ),
        (["a:=5"], f"--param: '5' is neither a JSON array nor a range: {FORMS}"),
        (["a:="], f"--param: '' is neither a JSON array nor a range: {FORMS}"),
        (["a:=[1"], f"--param: '[1' is neither a JSON array nor a range: {FORMS}"),
        (["a:=range()"], f"--param: 'range()' is neither a JSON array nor a range: {FORMS}"),
        (
            ["a:=range(1.5)"],
            f"--param: 'range(1.5)' is neither a JSON array nor a range: {FORMS}",
        ),
        (
            ["a:=range(f())"],
            f"--param: 'range(f())' is neither a JSON array nor a range: {FORMS}",
        ),
        (
            ["a:=range(1,2,3,4)"],
            f"--param: 'range(1,2,3,4)' is neither a JSON array nor a range: {FORMS}",
        ),
        (
            ["a:=range(1_000)"],
            f"--param: 'range(1_000)' is neither a JSON array nor a range: {FORMS}",
        ),
        (
            [f"a:=range({'9' * 70})"],
            f"--param: 'range({'9' * 53}…' is neither a JSON array nor a range: {FORMS}",
        ),
        (["a:=range(1, 9, 0)"], "range(1, 9, 0) has the step 0: a step leads up or down"),
        (["a:=" + "[" * 100_000], "--param: the JSON of a is nested too deeply"),
        (["a=1", "b=1", "a=2"], "the argument a is given twice: a name can have one value only"),
        (["width=1"], "the argument width is given twice: a name can have one value only"),
    ],
)
def test_parameters_that_make_no_sense(words: list[str], message: str) -> None:
    """Each is told in a sentence."""
    assert early_refusal(FIXED, params=tuple(words)) == message


def test_too_many_combinations() -> None:
    """The number is told, and nobody tries to make them."""
    words = ("a:=range(1000000000000)", "b:=range(-500, 500)", "c=x")
    message = "--param makes 1,000,000,000,000,000 items, and a job may have 1,000"
    assert early_refusal(params=words) == f"{message}: {SEVERAL}"
    assert named(params=words, only="999999999999999") == [{"a": 10**12 - 1, "b": 499, "c": "x"}]


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_combinations_are_those_of_itertools(sizes: list[int]) -> None:
    """In its order."""
    words = tuple(f"p{n}:=range({size})" for n, size in enumerate(sizes))
    found = [tuple(call.values()) for call in named(params=words)]
    assert found == list(itertools.product(*map(range, sizes)))


# -- numbers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("7", [7]),
        ("0-3", [0, 1, 2, 3]),
        ("0-999:250", [0, 250, 500, 750]),
        ("1-5,8,20-30:2", [1, 2, 3, 4, 5, 8, 20, 22, 24, 26, 28, 30]),
        ("5, 1-2 ,05-6:9", None),
        ("9,1-2", [9, 1, 2]),
        ("3-3:7", [3]),
        ("0-8:2,1-9:2", [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]),
    ],
)
def test_numbers(text: str, numbers: list[int] | None) -> None:
    """In the order in which they are written, both ends included."""
    if numbers is None:
        assert early_refusal(array=text) == "--array has 5 twice: each number makes one item"
    else:
        assert firsts(array=text) == numbers


SEVERAL = "submit several jobs: the first with --only 0-999"
WRITE = "write 7, 0-9 or 0-99:10, with commas between several; both ends are meant"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", f"--array: 'x' is neither a number nor a range: {WRITE}"),
        ("-5", f"--array: '-5' is neither a number nor a range: {WRITE}"),
        ("1,", f"--array: '' is neither a number nor a range: {WRITE}"),
        ("1-", f"--array: '1-' is neither a number nor a range: {WRITE}"),
        ("1:2", f"--array: '1:2' is neither a number nor a range: {WRITE}"),
        ("1-5:-1", f"--array: '1-5:-1' is neither a number nor a range: {WRITE}"),
        ("1.5", f"--array: '1.5' is neither a number nor a range: {WRITE}"),
        ("٣", f"--array: '٣' is neither a number nor a range: {WRITE}"),
        ("9" * 19, f"--array: '{'9' * 19}' is neither a number nor a range: {WRITE}"),
        ("5-1", "--array: 5-1 ends before it begins: write 1-5"),
        ("1-5:0", "--array: 1-5:0 has the step 0: write 1-5 for each of them"),
        ("1-5,3", "--array has 3 twice: each number makes one item"),
        ("0-1000000:7,5-999999:9", "--array has 14 twice: each number makes one item"),
        (
            "0-999999999999999999",
            f"--array makes 1,000,000,000,000,000,000 items, and a job may have 1,000: {SEVERAL}",
        ),
    ],
)
def test_numbers_that_make_no_sense(text: str, message: str) -> None:
    """Each is told in a sentence."""
    assert early_refusal(array=text) == message


steps = st.builds(
    lambda start, length, step: range(start, start + length, step),
    *(st.integers(0, 60), st.integers(1, 60), st.integers(1, 9)),
)


@given(st.lists(steps, max_size=6))
def test_a_number_that_is_there_twice_is_found(ranges: list[range]) -> None:
    """And only such a one."""
    every = [n for each in ranges for n in each]
    twice = {n for n in every if every.count(n) > 1}
    found = repeated(ranges)
    assert (found in twice) if twice else (found is None)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=8))
def test_places_are_put_in_order(ranges: list[tuple[int, int]]) -> None:
    """Each once."""
    text = ",".join(f"{low}-{low + more}" for low, more in ranges)
    found = merged(parse_ranges(text, "--only"))
    places = {n for low, more in ranges for n in range(low, low + more + 1)}
    assert [n for each in found for n in each] == sorted(places)


# -- some of them -------------------------------------------------------------

ABC = "".join(f"{n}\n" for n in range(10, 20))
TEN: list[dict[str, Any]] = [
    {"each_line": "abc"},
    {"from_jsonl": "abc"},
    {"array": "10-14,15-19"},
    {"params": ("a=1,2", "b:=range(5)")},
]


@given(source=st.sampled_from(TEN), places=st.sets(st.integers(0, 9), min_size=1), data=st.data())
def test_only_some(source: dict[str, Any], places: set[int], data: st.DataObject) -> None:
    """Those at the places that are named, in the order of the source."""
    file(ABC, "abc")
    every = calls(**source)
    only = ",".join(map(str, data.draw(st.permutations(sorted(places)))))
    assert calls(**source, only=only) == [every[place] for place in sorted(places)]


@pytest.mark.parametrize("source", TEN, ids=str)
@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("10", "--only: there is no item 10, as there are 10: the last one is 9"),
        ("3,8-10", "--only: there is no item 10, as there are 10: the last one is 9"),
        ("12-15,30", "--only: there is no item 12, as there are 10: the last one is 9"),
        ("0-99", "--only: there is no item 10, as there are 10: the last one is 9"),
        ("0-8:2", "--only takes no step: write 3,8-10 for the items at 3, 8, 9 and 10"),
        ("x", f"--only: 'x' is neither a number nor a range: {WRITE}"),
        ("5-1", "--only: 5-1 ends before it begins: write 1-5"),
    ],
)
def test_there_is_no_such_item(source: dict[str, Any], only: str, message: str) -> None:
    """It is no fault to be passed over: the first such place is named."""
    file(ABC, "abc")
    assert refusal(**source, only=only) == message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"array": "5"}, "--only: there is no item 1, as there is one: the last one is 0"),
        ({"each_line": "one"}, "--only: there is no item 1, as there is one: the last one is 0"),
        ({"each_line": "none"}, "--only: there is no item 1, as there are none at all"),
        ({"from_jsonl": "none"}, "--only: there is no item 1, as there are none at all"),
    ],
)
def test_there_are_fewer(source: dict[str, Any], message: str) -> None:
    """None, or one."""
    file("5", "one")
    file("", "none")
    assert refusal(**source, only="1") == message


def test_no_more_is_read_than_is_wanted() -> None:
    """What comes after may go on for ever, and a line that is left out may be any."""
    assert firsts(from_jsonl=file("x\n5\nx"), only="1") == [5]
    assert refusal(from_jsonl=file("\n5"), only="1").startswith("line 1 of f is blank")
    with items(each_line="/dev/zero", only="0") as found, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "LARGEST_BYTES", 10**6)
        with pytest.raises(UsageError, match="line 1 of /dev/zero has over 1000000 bytes"):
            list(found)


# -- as bytes -----------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
names = st.sampled_from(["a", "b", "é", 'q"', "null"])
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
).filter(lambda value: value not in (float("inf"), float("-inf")))
finite = plain.filter(lambda value: "Infinity" not in json.dumps(value))
results = st.builds(JobResult, st.integers(1, 9), st.sampled_from([(), ("rows", 0)]))
arguments = st.recursive(
    finite | results,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
fixed_calls = st.builds(
    Call,
    st.lists(arguments, max_size=3),
    st.dictionaries(names.map(lambda name: f"fixed {name}"), arguments, max_size=3),
)
values = st.lists(finite, max_size=3) | st.dictionaries(names, finite, max_size=3) | finite


@given(fixed=fixed_calls, rows=st.lists(values, max_size=4))
def test_an_item_is_encoded_as_its_call_would_be(fixed: Call, rows: list[Any]) -> None:
    """Byte for byte, with the same inputs: `calls` compares them."""
    name = file("".join(json.dumps(row) + "\n" for row in rows))
    assert len(calls(fixed, from_jsonl=name)) == len(rows)


@given(fixed=fixed_calls, line=texts.filter(lambda text: text and "\n" not in text))
def test_a_line_is_encoded_as_its_call_would_be(fixed: Call, line: str) -> None:
    """The same of a text, a number, and values by name."""
    assert calls(fixed, each_line=file(line)) == [Call([line, *fixed.args], fixed.kwargs)]
    assert calls(fixed, array="5-6") == [Call([n, *fixed.args], fixed.kwargs) for n in (5, 6)]
    assert [call.kwargs["p"] for call in calls(fixed, params=("p=1,x",))] == [1, "x"]


def test_what_cannot_travel_is_told() -> None:
    """It stands among what all share."""
    with pytest.raises(UsageError) as caught:
        next(encoded(items(Call(["\udcff"], {}), array="1")))
    assert caught.value.message == "an argument is not UTF-8, or is nested too deeply"


def test_no_item_can_change_another() -> None:
    """Each call has a list and a mapping of its own."""
    one, two = list(items(FIXED, array="1-2"))
    one.args.append(3)
    one.kwargs["a"] = 3
    assert (two, FIXED) == (Call([2, "out"], {"width": 640}), Call(["out"], {"width": 640}))
