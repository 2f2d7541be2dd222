"""Arguments and results as bytes: exact wherever it says so, readable wherever it can be."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
import pickle
import threading
from collections import namedtuple
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobd import payload
from jobd.payload import Unencodable

TEXTS = st.text(st.characters(), max_size=8)
"""Lone surrogates included."""
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | TEXTS
    | st.binary(max_size=8)
)
EXACT = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(TEXTS | st.integers() | st.booleans(), inner, max_size=4)
        | st.frozensets(st.integers() | TEXTS, max_size=3)
    ),
    max_leaves=12,
)

Point = namedtuple("Point", "x y")  # noqa: PYI024  # what a user's function may return


class Colour(enum.Enum):
    """JSON has no enumerations."""

    RED = 1


class Count(int):
    """Nearly an int."""


class Name(str):
    """Nearly a str."""

    __slots__ = ()


class Thing:
    """Something of a user's own."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"Thing({self.number})"  # names a test, and must be the same in every process

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and other.number == self.number

    def __hash__(self) -> int:
        return self.number


class Unpicklable:
    """Something that refuses to travel."""

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("not me")


def boom(value: object) -> NoReturn:
    """Be no repr."""
    raise AssertionError(f"asked for the repr of {value!r}")


def same(left: object, right: object) -> bool:
    """Whether two values are equal, type for type all the way down; NaN equals itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float) and isinstance(right, float):
        return math.copysign(1, left) == math.copysign(1, right) and (
            left == right or (math.isnan(left) and math.isnan(right))
        )
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return list(map(type, left)) == list(map(type, right)) and all(
            a == b and same(left[a], right[b]) for a, b in zip(left, right, strict=True)
        )
    return left == right


@given(VALUES)
@example((1, [2, (3,)]))
@example({1: "a", "1": "b"})
@example([2**64, -(2**63) - 1, -0.0, 1e16])
@example("\ud800")
def test_every_value_comes_back_as_it_went(value: object) -> None:
    """Type for type: a tuple stays a tuple, 1.0 stays a float, True stays no 1."""
    assert same(payload.decode(payload.encode(value)), value)


@given(EXACT)
def test_what_json_can_say_exactly_is_json(value: object) -> None:
    """People and other languages can read it, and nothing needs to be unpickled."""
    data = payload.encode(value)
    assert data[:1] == b"j"
    text, is_json = payload.shown(data)
    assert is_json
    assert same(json.loads(text), value)


@pytest.mark.parametrize(
    "value",
    [
        *((1, 2), {1: "a"}, {(1, 2): 3}, b"bytes", {1, 2}, math.nan, [math.inf], {"a": (1,)}),
        *(Point(1, 2), Colour.RED, Count(3), Name("a"), [Name("a")], Thing(1), 1j, range(3)),
        *(decimal.Decimal("1.5"), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
    ],
    ids=repr,
)
def test_what_json_would_change_is_a_pickle(value: object) -> None:
    """Unless JSON was asked for, nothing is lost on the way."""
    data = payload.encode(value)
    assert data[:1] == b"p"
    assert same(payload.decode(data), value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        ({1: "a", 2: "b"}, {"1": "a", "2": "b"}),
        (Point(1, 2), [1, 2]),
        ({"a": (1, None)}, {"a": [1, None]}),
        (["a", 1.5, True], ["a", 1.5, True]),
    ],
    ids=repr,
)
def test_where_json_is_wanted_tuples_are_lists_and_keys_are_strings(
    value: object, expected: object
) -> None:
    """So a result can be read by ``jq``."""
    data = payload.encode(value, lossy=True)
    assert data[:1] in (b"j", b"J")
    assert payload.decode(data) == expected
    assert json.loads(payload.shown(data)[0]) == expected


@pytest.mark.parametrize(
    "value",
    [
        *(Thing(1), {1: "a", "1": "b"}, [1, [Thing(2)]], "\ud800", 1j),
        *(b"bytes", {1, 2}, math.nan, {(1, 2): 3}, {True: 1}, Count(3), Name("a"), {Count(1): 2}),
    ],
    ids=ascii,
)
def test_what_json_cannot_say_is_a_pickle_even_where_json_is_wanted(value: object) -> None:
    """The result is kept whole: another job gets it as an argument."""
    data = payload.encode(value, shown_as=repr, lossy=True)
    assert data[:1] in (b"p", b"P")
    assert same(payload.decode(data), value)


@pytest.mark.parametrize("lossy", [False, True])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "2020-01-01T00:00:00Z"),
        (
            {"at": [dt.date(2020, 1, 1)], "took": dt.timedelta(1)},
            {"at": ["2020-01-01"], "took": 86400},
        ),
        (b"bytes", {"base64": "Ynl0ZXM="}),
        ({2, 1}, [1, 2]),
        (math.nan, "NaN"),
        (Colour.RED, 1),
    ],
    ids=repr,
)
def test_a_pickle_is_shown_as_the_json_of_its_value(
    value: object, expected: object, *, lossy: bool
) -> None:
    """A Python client gets the value itself, everybody else what JSON says of it; no repr is made."""
    data = payload.encode(value, shown_as=boom, lossy=lossy)
    text, is_json = payload.shown(data)
    assert is_json
    assert json.loads(text) == expected
    assert same(payload.decode(data), value)


def test_a_tuple_for_a_python_client_is_shown_as_a_list() -> None:
    """It comes back as a tuple all the same."""
    data = payload.encode((1, (2,)), shown_as=boom)
    assert payload.shown(data) == ("[1,[2]]", True)
    assert payload.decode(data) == (1, (2,))


def test_too_much_json_is_a_repr_unless_it_was_asked_for() -> None:
    """It is stored beside the value, so there is a bound; where JSON was asked for a higher one."""
    value = [dt.date(2020, 1, 1)] * 2000
    assert payload.shown(payload.encode(value, shown_as=lambda _: "dates")) == ("dates", False)
    text, is_json = payload.shown(payload.encode(value, shown_as=boom, lossy=True))
    assert is_json
    assert json.loads(text) == ["2020-01-01"] * 2000
    assert payload.shown(payload.encode(value * 50, shown_as=lambda _: "dates", lossy=True)) == (
        "dates",
        False,
    )


def test_what_was_stored_before_there_was_json_beside_pickles_can_be_read() -> None:
    """Stores outlive versions."""
    data = b"p\0\0\0\x03{1}" + pickle.dumps({1}, 5)
    assert payload.shown(data) == ("{1}", False)
    assert payload.decode(data) == {1}
    before = b"F" + msgspec.msgpack.encode([1, "r-1-1-ab", 9, "a repr"])
    assert payload.shown(before) == ("a repr", False)


@given(VALUES)
def test_a_wish_for_json_never_fails(value: object) -> None:
    """Whatever it is, it comes back, exactly or as JSON has it."""
    data = payload.encode(value, shown_as=repr, lossy=True)
    text, is_json = payload.shown(data)
    if is_json:
        json.loads(text)
    else:
        assert same(payload.decode(data), value)


def test_a_pickle_is_shown_without_being_unpickled() -> None:
    """The repr travels before it, in UTF-8; what UTF-8 cannot say is escaped."""
    data = payload.encode(1j, shown_as=lambda _: "≈ one \ud800")
    assert payload.shown(data) == ("≈ one \\ud800", False)
    assert payload.decode(data) == 1j
    assert payload.shown(payload.encode({1})) == ("", False)


def test_the_repr_is_made_only_where_it_is_needed() -> None:
    """A repr may be slow, or wrong."""
    for value in (None, 1, "a", [1, {"a": 2.5}]):
        payload.encode(value, shown_as=boom)


def test_nothing_is_a_constant() -> None:
    """Most functions return None."""
    assert payload.encode(None) is payload.NONE
    assert payload.decode(payload.NONE) is None


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Unpicklable, "RuntimeError: not me"),
        (lambda: (each for each in [1]), "generator"),
        (lambda: [1, {"a": threading.Lock()}], "lock"),
    ],
    ids=["reduce raises", "generator", "lock"],
)
def test_what_cannot_travel_is_refused_with_the_reason(
    make: Callable[[], object], why: str
) -> None:
    """One error for all of them, which says what and why."""
    with pytest.raises(Unencodable, match=why):
        payload.encode(make())


def test_what_no_name_leads_to_travels_by_value() -> None:
    """A function without a name, and what it closes over."""
    base = 40
    again = payload.decode(payload.encode({"add": lambda number: base + number}))
    assert again["add"](2) == 42


def test_what_is_nested_too_deeply_is_refused() -> None:
    """Not a crash, and not an endless loop."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    try:
        with pytest.raises(Unencodable, match="RecursionError"):
            payload.encode(value)
    finally:
        while value:  # or its end would be as deep a recursion
            value = value[0]


def test_what_contains_itself_comes_back_so() -> None:
    """JSON cannot say it, pickle can."""
    value: list[Any] = [1]
    value.append(value)
    found = payload.decode(payload.encode(value))
    assert found[0] == 1
    assert found[1] is found


# -- calls --


@given(st.lists(VALUES, max_size=3), st.dictionaries(st.text(max_size=4), VALUES, max_size=3))
def test_the_arguments_of_a_call_come_back_as_they_went(
    args: list[object], kwargs: dict[str, object]
) -> None:
    """Positional ones in their order, the others by name."""
    found, names, as_json = payload.decode_call(payload.encode_call(tuple(args), kwargs)[0])
    assert same(found, args)
    assert same(names, kwargs)
    assert not as_json


@pytest.mark.parametrize("args", [(), (1, "a")])
def test_a_call_says_that_its_result_is_wanted_as_json(args: tuple[object, ...]) -> None:
    """The worker reads it off the codec byte."""
    data, _ = payload.encode_call(args, {}, json=True)
    assert payload.decode_call(data) == (list(args), {}, True)
    assert payload.decode_call(payload.encode_call(args, {})[0]) == (list(args), {}, False)


def test_an_argument_that_cannot_travel_is_refused() -> None:
    """Before anything is sent."""
    with pytest.raises(Unencodable):
        payload.encode_call((Unpicklable(),), {})
