"""The arguments of a call as they are written on a command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.cli.arguments import Call, parse_arguments, split_word
from jobd.cli.words import looks_negative
from jobd.inputs import JobResult
from jobd.model.errors import UsageError

FILES = {
    "notes.txt": "two\nlines\n",
    "five": "5",
    "data.json": '{"a": [1, 2]}\n',
    "-": "from stdin",
}


def read(name: str) -> bytes:
    """Stand for the file system."""
    if name not in FILES:
        raise UsageError(f"{name}: No such file or directory")
    return FILES[name].encode()


def parse(*words: str, **more: Any) -> Call:
    """Parse words with the files above."""
    more.setdefault("read", read)
    return parse_arguments(words, **more)


def one(word: str, **more: Any) -> Any:
    """The value of a word that is an argument by position."""
    call = parse(word, **more)
    assert call.kwargs == {}
    (value,) = call.args
    return value


def refusal(*words: str, **more: Any) -> UsageError:
    """The error that these words end in."""
    with pytest.raises(UsageError) as caught:
        parse(*words, **more)
    return caught.value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("20", 20),
        ("-5", -5),
        ("0", 0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("false", False),
        ("null", None),
        ('"5"', "5"),
        ('""', ""),
        ('"a\\u0062"', "ab"),
        ("123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_a_json_scalar_is_what_it_says(word: str, value: object) -> None:
    """A number, true, false, null or a quoted text has its own type."""
    found = one(word)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "word",
    [
        *("", "usr", "two words", "True", "None", "NaN", "nan", "Infinity", "-Infinity"),
        *("007", "1.", ".5", "-.5", "+5", "1_000", "0x10", "1e999", "5 ", " 5", "5\n", "-"),
        *('"open', "'5'", "[1]", "{}", '{"a": 1}', "tru", "nullx", "1 2", "é", "\x1b"),
        *("1-2", "2026-11-23", "10:09", "1,5"),
    ],
)
def test_what_is_no_json_scalar_is_text(word: str) -> None:
    """Text stays as it is: nothing is stripped, no array or object is guessed."""
    assert one(word) == word


@pytest.mark.parametrize("word", ["5", "true", "null", '"5"', "-1", "usr"])
def test_raw_takes_text_as_text(word: str) -> None:
    """With --raw nothing is guessed, by position or by name."""
    assert one(word, raw=True) == word
    assert parse(f"k={word}", raw=True).kwargs == {"k": word}


def test_raw_leaves_json_and_files_alone() -> None:
    """What asks for JSON or a file gets it with --raw too."""
    call = parse("007", "n:=42", ":[1]", "@five", raw=True)
    assert call == Call(["007", [1], "5"], {"n": 42})


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("k=v", ("k", "=", "v")),
        ("k=", ("k", "=", "")),
        ("k==v", ("k", "=", "=v")),
        ("k=a=b", ("k", "=", "a=b")),
        ("k:=1", ("k", ":=", "1")),
        ("k:=", ("k", ":=", "")),
        ("k=:1", ("k", "=", ":1")),
        ("_k2=v", ("_k2", "=", "v")),
        ("größe=v", ("größe", "=", "v")),
        ("class=v", ("class", "=", "v")),
        (":1", ("", ":=", "1")),
        (":", ("", ":=", "")),
        (":=1", ("", ":=", "=1")),
        ("=v", ("", "=", "=v")),
        ("2k=v", ("", "=", "2k=v")),
        ("a-b=v", ("", "=", "a-b=v")),
        ("a b=v", ("", "=", "a b=v")),
        ("a.b=v", ("", "=", "a.b=v")),
        ("k::=v", ("", "=", "k::=v")),
        ("http://host/?q=1", ("", "=", "http://host/?q=1")),
        ("mytasks:f", ("", "=", "mytasks:f")),
        ("a\nb", ("", "=", "a\nb")),
    ],
)
def test_a_name_is_what_python_takes_for_one(word: str, split: tuple[str, str, str]) -> None:
    """Only an identifier before ``=`` or ``:=`` is a name; all else is text."""
    assert split_word(word) == split


def test_the_example_of_the_readme() -> None:
    """Text, JSON, a scalar and an object, by position and by name."""
    call = parse("photo.jpg", "width:=640", "crop=false", 'meta:={"a": [1, 2]}')
    assert call == Call(["photo.jpg"], {"width": 640, "crop": False, "meta": {"a": [1, 2]}})


def test_positions_keep_their_order_among_names() -> None:
    """Names may stand anywhere."""
    assert parse("a", "k=1", "b", ":[]") == Call(["a", "b", []], {"k": 1})


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("@notes.txt", "two\nlines\n"),
        ("@five", "5"),
        ("@-", "from stdin"),
        (":@data.json", {"a": [1, 2]}),
        (":@five", 5),
    ],
)
def test_a_file_is_read(word: str, value: object) -> None:
    """``@`` gives the text as it is, ``:@`` the JSON in it; so by name too."""
    assert one(word) == value
    name = f"k{word}" if word.startswith(":") else f"k={word}"
    assert parse(name.replace("k:@", "k:=@")).kwargs == {"k": value}


def test_a_file_that_is_missing_is_a_usage_error() -> None:
    """The reader's own words are told."""
    assert refusal("@nowhere").message == "nowhere: No such file or directory"


def test_a_file_without_text_is_refused() -> None:
    """JSON has no bytes."""
    error = refusal("@photo", read=lambda _: b"\xff\xd8")
    assert error.message == "photo is not a text in UTF-8"


def test_a_result_is_an_argument() -> None:
    """By position and by name, whole or a part of it; it is not taken for a file of that name."""
    assert one("@job:41") == JobResult(41)
    assert parse("k=@job:41.rows[0].name").kwargs == {"k": JobResult(41, ("rows", 0, "name"))}


def test_a_result_may_be_anywhere_in_json() -> None:
    """As a text that names it."""
    assert one(':["@job:7", {"a": "@job:8[0]"}]') == [JobResult(7), {"a": JobResult(8, (0,))}]
    assert parse(kwargs_json='{"a": ["@job:7"]}').kwargs == {"a": [JobResult(7)]}
    assert parse(args_json='["@job:7"]').args == [JobResult(7)]


def test_with_raw_a_result_is_a_text() -> None:
    """In words and in JSON."""
    assert parse("@job:7", ':["@job:8"]', "k=@job:9", raw=True) == Call(
        ["@job:7", ["@job:8"]], {"k": "@job:9"}
    )


@pytest.mark.parametrize("word", ["@job:x", "k=@job:", ':["@job:1x"]', "k=@job:7[", "@job:0"])
def test_a_result_that_is_none_is_refused(word: str) -> None:
    """The error tells how one is written, and how to pass the text."""
    assert "@job:" in refusal(word).message


def test_a_result_may_stand_for_all_of_the_json() -> None:
    """What looks like a file's name is none."""
    assert one(":@job:41") == JobResult(41)
    assert parse("x:=@job:41").kwargs == {"x": JobResult(41)}


def test_a_file_without_a_name_is_refused() -> None:
    """``@`` alone is most likely a slip."""
    assert refusal("@").message == "'@' names no file"


@pytest.mark.parametrize("word", [":", ":[1", "k:=", "k:={a: 1}", ":NaN", ":1e999", ":@notes.txt"])
def test_bad_json_is_refused_with_the_word(word: str) -> None:
    """The error names the word and what is wrong."""
    error = refusal(word)
    assert error.message.startswith(f"{word!r} is not JSON: ")
    assert error.code == 2


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    """No recursion ends in a traceback."""
    assert "nested too deeply" in refusal(":" + "[" * 100_000).message


def test_a_long_word_is_shown_in_part() -> None:
    """An error stays one line that can be read."""
    assert len(refusal(":" + "x" * 10_000).message) < 200


def test_lone_surrogates_are_refused_as_json() -> None:
    """What the shell gave as bytes that are no UTF-8."""
    assert "not UTF-8" in refusal(':"\udcff"').message


def test_a_name_given_twice_is_refused() -> None:
    """Neither of two values can win silently."""
    assert refusal("k=1", "k:=2").message == "the argument k is given twice"
    assert "given twice" in refusal("k=1", kwargs_json='{"k": 2}').message


def test_arguments_as_one_json_value() -> None:
    """``--args-json`` and ``--kwargs-json``, alone and before words."""
    assert parse(args_json="[1, [2]]", kwargs_json='{"a": null}') == Call([1, [2]], {"a": None})
    assert parse("x", "b=1", args_json="[0]", kwargs_json='{"a": 2}') == Call(
        [0, "x"], {"a": 2, "b": 1}
    )
    assert parse(kwargs_json="@data.json") == Call([], {"a": [1, 2]})


@pytest.mark.parametrize(
    ("option", "text"),
    [("args_json", "{}"), ("args_json", "5"), ("kwargs_json", "[]"), ("kwargs_json", "null")],
)
def test_arguments_of_the_wrong_json_type_are_refused(option: str, text: str) -> None:
    """An object is not an array, and the error says which is wanted."""
    message = refusal(**{option: text}).message
    assert message.startswith(f"--{option.replace('_', '-')} must be a JSON ")


@pytest.mark.parametrize("option", ["args_json", "kwargs_json"])
def test_arguments_that_are_no_json_are_refused(option: str) -> None:
    """The error names the option."""
    assert f"--{option.replace('_', '-')}" in refusal(**{option: "[1"}).message


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)


@given(JSON)
def test_any_json_comes_through(value: object) -> None:
    """What JSON can say arrives unchanged, by position and by name."""
    text = json.dumps(value)
    assert one(":" + text) == value
    assert parse("k:=" + text).kwargs == {"k": value}


@given(st.text().filter(lambda text: not text.startswith("@")))
def test_any_text_is_text_with_raw(text: str) -> None:
    """With --raw and a name, every text but ``@FILE`` arrives unchanged."""
    assert parse(f"k={text}", raw=True).kwargs == {"k": text}


@given(st.text().filter(lambda text: not text.startswith("@job:")))
def test_any_text_can_be_quoted(text: str) -> None:
    """As JSON every text can be passed, whatever it looks like."""
    assert one(":" + json.dumps(text)) == text


@given(st.lists(st.text(max_size=12), max_size=5))
def test_any_words_are_parsed_or_refused(words: list[str]) -> None:
    """No word ends in anything but a call or a usage error."""
    try:
        call = parse(*words)
    except UsageError as error:
        assert error.message  # either is right
    else:
        assert len(call.args) + len(call.kwargs) == len(words)


@given(st.lists(JSON, max_size=4), st.dictionaries(NAMES, JSON, max_size=4))
def test_a_call_survives_as_options_and_as_words(args: list[Any], kwargs: dict[str, Any]) -> None:
    """The two ways to write a call mean the same."""
    words = [":" + json.dumps(v) for v in args] + [
        f"{k}:={json.dumps(v)}" for k, v in kwargs.items()
    ]
    by_option = parse(args_json=json.dumps(args), kwargs_json=json.dumps(kwargs))
    assert parse(*words) == by_option == Call(args, kwargs)


@pytest.mark.parametrize(
    ("word", "negative"),
    [
        *(("-5", True), ("-.5", True), ("-1e3", True), ("-5x", True), ("-٣", True)),
        *(("-", False), ("--", False), ("-x", False), ("-.", False), ("--5", False), ("5", False)),
        *(("", False), ("-²", False)),
    ],
)
def test_negative_numbers_are_told_from_options(word: str, negative: bool) -> None:  # noqa: FBT001  # a case
    """No option begins with a digit, so what does is an argument."""
    assert looks_negative(word) is negative


def test_a_reader_is_asked_only_for_what_is_named() -> None:
    """Plain words read nothing."""
    reads: list[str] = []

    def spy(name: str) -> bytes:
        reads.append(name)
        return b"x"

    parse("a", "k=b", ":1", read=spy)
    assert reads == []
    parse("@one", "k=@two", read=spy)
    assert reads == ["one", "two"]
