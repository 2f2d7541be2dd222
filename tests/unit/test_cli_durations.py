"""Durations as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.cli.durations import show_duration, spell_duration
from jobd.model.durations import LONGEST_S, parse_duration, parse_size, written_size
from jobd.model.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("1s500ms", 1.5),
        ("1d2h3m4s", 93784),
        ("0", 0),
        ("0s", 0),
        ("30", 30),
        ("0.25", 0.25),
        (" 5s\n", 5),
        ("90m", 5400),
        ("1m", 60),
    ],
)
def test_what_a_duration_means(text: str, seconds: float) -> None:
    """Units, several of them, fractions, and plain seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "s", "h30", "-5s", "+5s", "5 s", "1h 30m", "30m1h", "1h1h", "5x", "1hour"),
        *("inf", "nan", "1e3", "1e3s", ".5s", "5.s", "0x5", "1,5h", "٣s", "5S", "5ms1s"),
    ],
)
def test_what_is_no_duration(text: str) -> None:
    """The error quotes the text and shows the form."""
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert repr(text) in caught.value.message
    assert "1h30m" in caught.value.hint


@pytest.mark.parametrize("text", ["40000d", "9" * 400, "9" * 400 + "d"])
def test_a_duration_of_more_than_a_century_is_refused(text: str) -> None:
    """Clocks and sockets would overflow."""
    with pytest.raises(UsageError, match="more than a hundred years"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0ms"),
        (0.00012, "0.1ms"),
        (0.35, "350ms"),
        (0.999, "999ms"),
        (0.9999, "1.0s"),
        (1, "1.0s"),
        (4.23, "4.2s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.9, "1m"),
        (60, "1m"),
        (61, "1m1s"),
        (5400, "1h30m"),
        (5401, "1h30m"),
        (86400, "1d"),
        (93784, "1d2h"),
    ],
)
def test_how_a_duration_is_shown(seconds: float, text: str) -> None:
    """Two units at most."""
    assert show_duration(seconds) == text


@given(st.floats(min_value=0, max_value=LONGEST_S))
def test_what_is_shown_can_be_read_back(seconds: float) -> None:
    """Within the precision that is shown."""
    again = parse_duration(show_duration(seconds))
    assert again == pytest.approx(seconds, rel=0.05, abs=0.0001)


@given(st.text(max_size=10))
def test_any_text_is_a_duration_or_a_usage_error(text: str) -> None:
    """Nothing else is raised, and nothing negative comes out."""
    try:
        assert 0 <= parse_duration(text) <= LONGEST_S
    except UsageError:
        pass


@given(st.floats(0, 10**6) | st.integers(0, 10**9) | st.sampled_from([1e-6, 0.1, 59.9999999, 59.5]))
def test_what_is_spelled_out_means_the_same(seconds: float) -> None:
    """To the microsecond, whatever the units."""
    assert parse_duration(spell_duration(seconds)) == pytest.approx(seconds, abs=1e-6)
    assert spell_duration(0) == "0s"


@given(st.integers(0, 2**53))
def test_a_size_that_is_written_means_the_same(count: int) -> None:
    """Nothing is rounded."""
    assert parse_size(written_size(count)) == count


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (300 * 1024**2, "300M"), (2**31, "2G"), (1536, "1536"), (1025, "1025")],
)
def test_a_size_is_written_with_the_largest_unit_that_fits(count: int, text: str) -> None:
    """As people do."""
    assert written_size(count) == text
