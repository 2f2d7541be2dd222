"""The codecs of arguments and results."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd import payload

exact = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
odd = st.binary() | st.complex_numbers(allow_nan=False) | st.tuples(st.integers(), st.text())


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    return one == other and repr(one) == repr(other)


@given(exact | odd | st.dictionaries(st.integers(), odd))
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    """Whatever codec is chosen, type for type."""
    assert same(payload.decode(payload.encode(value)), value)


@given(exact)
def test_plain_values_are_json(value: Any) -> None:
    """People and other languages can read what is stored, unless JSON would lose something."""
    data = payload.encode(value)
    assert data[:1] in (b"j", b"p")
    if data[:1] == b"j":
        assert payload.shown(data)[1]


def test_lossy_json_is_only_given_to_those_who_asked() -> None:
    """A tuple is a list in JSON; a Python client gets its tuple."""
    assert payload.encode((1, 2), lossy=True) == b"J[1,2]"
    assert payload.decode(payload.encode((1, 2))) == (1, 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {1, 2}, {True: 1}])
def test_what_json_cannot_say_is_a_pickle_with_its_repr(value: object) -> None:
    """The command line shows the repr; it never unpickles."""
    data = payload.encode(value, shown_as=ascii, lossy=True)
    assert data[:1] == b"p"
    assert payload.shown(data) == (ascii(value), False)
    assert repr(payload.decode(data)) == repr(value)


def test_what_cannot_travel_is_named() -> None:
    """A lock in the middle of a value is an error of ours that quotes the reason."""
    with pytest.raises(payload.Unencodable, match="cannot pickle"):
        payload.encode([threading.Lock()])


def test_what_contains_itself_does_not_hang() -> None:
    """A cycle is too deep for JSON, and fine for pickle."""
    cycle: list[Any] = []
    cycle.append(cycle)
    back = payload.decode(payload.encode(cycle))
    assert back[0] is back


@given(st.lists(exact, max_size=3), st.dictionaries(st.text(), exact, max_size=3), st.booleans())
def test_a_call_comes_back_as_it_was(
    args: list[Any],
    kwargs: dict[str, Any],
    json: bool,  # noqa: FBT001  # drawn
) -> None:
    """Arguments by position and by name, and whether the result is wanted as JSON."""
    data = payload.encode_call(tuple(args), kwargs, json=json)
    back_args, back_kwargs, as_json = payload.decode_call(data)
    assert same(list(back_args), args)
    assert same(back_kwargs, kwargs)
    assert as_json == (json and data[:1] != b"p")
