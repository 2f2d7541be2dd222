"""What JSON says of values that it has no words for: each kind, at any depth, within its bound."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import pathlib
import types
import uuid
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.plain import to_json

MOST = 4096
Point = collections.namedtuple("Point", "x y")  # noqa: PYI024  # what a user's function may return


class Colour(enum.Enum):
    """Plain members."""

    RED = 1
    DARK = (1, 2)


class Level(enum.IntEnum):
    """Members that are numbers, too."""

    HIGH = 3


class Unit(enum.StrEnum):
    """Members that are texts, too."""

    METRE = "m"


@dataclasses.dataclass
class Order:
    """What most functions return that return no plain data."""

    number: int
    placed: dt.datetime
    lines: list[Any] = dataclasses.field(default_factory=list)
    never_set: int = dataclasses.field(init=False, repr=False)


@dataclasses.dataclass(slots=True, frozen=True)
class Slim:
    """Without a dictionary."""

    size: decimal.Decimal


class Struct(msgspec.Struct):
    """Fields, listed in another way."""

    a: int = 1


class Count(int):
    """Nearly an int."""


class Name(str):
    """Nearly a str."""

    __slots__ = ()


class Zoned(dt.datetime):
    """Nearly a datetime."""


class Loud:
    """Something that JSON has no words for."""


class Trap:
    """Fields of which one cannot be read."""

    __struct_fields__ = ("a",)
    __attrs_attrs__ = ()
    __dataclass_fields__ = 7


NOON = dt.datetime(2026, 12, 24, 12)  # noqa: DTZ001  # what many functions return
VALUES: list[tuple[object, Any]] = [
    (NOON, "2026-12-24T12:00:00"),
    (NOON.replace(tzinfo=dt.UTC), "2026-12-24T12:00:00Z"),
    (NOON.replace(tzinfo=ZoneInfo("Europe/Berlin")), "2026-12-24T12:00:00+01:00"),
    (NOON.replace(microsecond=5), "2026-12-24T12:00:00.000005"),
    (Zoned(2026, 1, 1), "2026-01-01T00:00:00"),
    (dt.date(2026, 12, 24), "2026-12-24"),
    (dt.time(1, 2, 3), "01:02:03"),
    (dt.timedelta(minutes=1, milliseconds=500), 60.5),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (decimal.Decimal("1.50"), "1.50"),
    (fractions.Fraction(1, 3), "1/3"),
    (pathlib.Path("/srv/a b"), "/srv/a b"),
    (Colour.RED, 1),
    (Colour.DARK, [1, 2]),
    (Level.HIGH, 3),
    (Unit.METRE, "m"),
    (Point(1, NOON.date()), [1, "2026-12-24"]),
    ((1, (2.5, None)), [1, [2.5, None]]),
    (range(3), [0, 1, 2]),
    (collections.deque([1, "a"]), [1, "a"]),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset("ba"), ["a", "b"]),
    ({1, "a", None}, ["a", 1, None]),
    ({frozenset({2, 1}), frozenset()}, [[], [1, 2]]),
    (b"\x00jobd", {"base64": "AGpvYmQ="}),
    (bytearray(b"jobd"), {"base64": "am9iZA=="}),
    (math.nan, "NaN"),
    ([1.5, -math.inf, math.inf], [1.5, "-Infinity", "Infinity"]),
    ([1, "a", math.nan], [1, "a", "NaN"]),
    (Count(3), 3),
    (Name("a"), "a"),
    (Order(7, NOON), {"number": 7, "placed": "2026-12-24T12:00:00", "lines": []}),
    (Slim(decimal.Decimal("2.0")), {"size": "2.0"}),
    (Struct(), {"a": 1}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    ({1: "a", None: 2, 2.5: 3}, {"1": "a", "null": 2, "2.5": 3}),
    ({True: 1}, {"true": 1}),
    ({NOON.date(): 1, Colour.RED: 2}, {"2026-12-24": 1, "1": 2}),
    ({(1, 2): 3}, {"(1, 2)": 3}),
    ({uuid.UUID(int=1): 1}, {"00000000-0000-0000-0000-000000000001": 1}),
    (
        [{"a": [(Slim(decimal.Decimal(1)), {"b": {2, 1}})]}],
        [{"a": [[{"size": "1"}, {"b": [1, 2]}]]}],
    ),
]


def said(value: object, most: int = MOST) -> Any:
    """What JSON says of a value, read back."""
    text = to_json(value, most)
    assert text is not None
    return json.loads(text)


@pytest.mark.parametrize(
    ("value", "expected"), VALUES, ids=[type(value).__name__ for value, _ in VALUES]
)
def test_each_kind_has_a_value(value: object, expected: object) -> None:
    """By itself, and in a list, a dictionary and a tuple."""
    found = said(value)
    assert (found, type(found)) == (expected, type(expected))
    assert said(({"a": [value]},)) == [{"a": [expected]}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(2.0), 2.0),
        (np.float32(0.5), 0.5),
        (np.longdouble(1.5), 1.5),
        (np.float64("nan"), "NaN"),
        (np.float16("-inf"), "-Infinity"),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), {"base64": "YQ=="}),
        (np.datetime64("2026-12-24T12:00:00.123"), "2026-12-24T12:00:00.123"),
        (np.datetime64("2026-12-24"), "2026-12-24"),
        (np.datetime64("NaT"), None),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.timedelta64("NaT"), None),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([1.0, np.nan]), [1.0, "NaN"]),
        (np.array([], dtype=int), []),
        (np.array(5), 5),
        (np.array([True]), [True]),
        (np.array(["a"]), ["a"]),
        (np.array(["2026-12-24", "NaT"], dtype="M8[ns]"), ["2026-12-24T00:00:00.000000000", None]),
        (np.array([[1500]], dtype="m8[ms]"), [[1.5]]),
        (np.array([1, Colour.RED, b"a"], dtype=object), [1, 1, {"base64": "YQ=="}]),
        ({np.int64(1): np.float64(2.0)}, {"1": 2.0}),
    ],
    ids=repr,
)
def test_numpy_has_values_like_pythons(value: object, expected: object) -> None:
    """No type of numpy's is left in it."""
    found = said(value)
    assert (found, type(found)) == (expected, type(expected))
    assert said([value]) == [expected]


def test_the_scalars_of_pandas_have_values() -> None:
    """What is missing is null; a time keeps its nanoseconds."""
    pd = pytest.importorskip("pandas")
    row = {
        "at": pd.Timestamp("2026-12-24T12:00:00.123456789"),
        "utc": pd.Timestamp("2026-12-24", tz="UTC"),
        "took": pd.Timedelta("1h"),
        "nat": pd.NaT,
        "na": pd.NA,
        "month": pd.Period("2026-12", "M"),
    }
    assert said([row]) == [
        {
            "at": "2026-12-24T12:00:00.123456789",
            "utc": "2026-12-24T00:00:00Z",
            "took": 3600.0,
            "nat": None,
            "na": None,
            "month": "2026-12",
        }
    ]


def test_classes_of_attrs_have_their_fields() -> None:
    """As dataclasses have, slots or not."""
    attrs = pytest.importorskip("attrs")
    kind = attrs.make_class("Order", {"number": attrs.field(), "placed": attrs.field()})
    assert said([kind(1, NOON)]) == [{"number": 1, "placed": "2026-12-24T12:00:00"}]


def test_models_of_pydantic_have_their_fields() -> None:
    """Nested ones too."""
    pydantic = pytest.importorskip("pydantic")
    line = pydantic.create_model("Line", price=(decimal.Decimal, ...))
    order = pydantic.create_model(
        "Order", placed=(dt.datetime, ...), lines=(types.GenericAlias(list, (line,)), ...)
    )
    value = order(placed=NOON, lines=[line(price="1.50")])
    assert said(value) == {"placed": "2026-12-24T12:00:00", "lines": [{"price": "1.50"}]}


def a_loop() -> list[Any]:
    """A list that contains itself."""
    value: list[Any] = [Loud]
    value[0] = value
    return value


def deep(levels: int) -> Any:
    """Tuples in tuples."""
    value: Any = ()
    for _ in range(levels):
        value = (value,)
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(Loud(), [1, {"a": Loud()}], 1j, int, len, {1: "a", "1": "b"}, {Loud(): 1}, "\ud800"),
        *(Trap(), a_loop(), deep(200), np.array([1j]), np.complex64(1)),
        *(np.zeros(1, dtype="i,f")[0], np.ma.masked_array([1], mask=[True])),
        *(10**5000, ValueError("a")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_has_no_words_for_has_none(value: object) -> None:
    """All of it or nothing, and no error."""
    assert to_json(value, MOST) is None


@pytest.mark.parametrize(
    "value",
    [
        *([(1, 2)] * 10**6, (1,) * 10**6, ("a" * 10**8,), bytes(10**8), np.zeros(10**7)),
        *({n: n for n in range(10**5)}, {str(n) for n in range(10**5)}, [NOON] * 10**6),
        *((1.5,) * MOST, ("\n" * (MOST - 10), 1), [10**4000] * 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_too_long_has_none(value: object) -> None:
    """However it comes to its length."""
    assert to_json(value, MOST) is None


def test_what_is_looked_at_is_bounded() -> None:
    """A look at a million would be too much."""
    looks = 0

    class Counted:
        __struct_fields__ = ()

        def __fspath__(self) -> str:
            nonlocal looks
            looks += 1
            return "a"

    assert to_json([Counted()] * 1000, 10_000) is not None
    looks = 0
    assert to_json([(Counted(),)] * 3000, MOST) is None
    assert looks <= MOST


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
FLAT = st.lists(SCALARS, max_size=4) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=4)
PLAIN = st.lists(FLAT | SCALARS, max_size=4) | st.dictionaries(
    st.text(max_size=4), FLAT, max_size=4
)


@given(PLAIN)
def test_plain_data_is_said_as_it_is(value: object) -> None:
    """The same as any encoder would."""
    assert said(value, 10**6) == value


@given(PLAIN, st.integers(0, 200))
def test_it_is_never_longer_than_asked_for(value: object, most: int) -> None:
    """In bytes."""
    text = to_json((value, {"ä"}), most)
    assert text is None or len(text.encode()) <= most
