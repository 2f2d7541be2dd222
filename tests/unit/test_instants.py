"""Instants as people write them: where clocks are changed, what is not there, and what is there twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.model.errors import UsageError
from jobd.model.instants import Instant, read_instant

Live = Callable[[str], None]

GAPS = [
    ("Europe/Berlin", "2027-03-28T02:30", "2027-03-28T01:00", "02:00", "03:00 CEST"),
    ("Europe/Berlin", "2027-03-28T02:00", "2027-03-28T01:00", "02:00", "03:00 CEST"),
    ("Europe/Berlin", "2027-03-28T02:59:59", "2027-03-28T01:00", "02:00", "03:00 CEST"),
    ("America/New_York", "2026-03-08T02:15", "2026-03-08T07:00", "02:00", "03:00 EDT"),
    ("Pacific/Chatham", "2026-09-27T03:00", "2026-09-26T14:00", "02:45", "03:45 +1345"),
    ("Australia/Lord_Howe", "2026-10-04T02:10", "2026-10-03T15:30", "02:00", "02:30 +11"),
    ("Antarctica/Troll", "2026-03-29T01:30", "2026-03-29T01:00", "01:00", "03:00 +02"),
    ("America/Santiago", "2026-09-06T00:10", "2026-09-06T04:00", "00:00", "01:00 -03"),
    ("Pacific/Apia", "2011-12-30T10:00", "2011-12-30T10:00", "00:00", "2011-12-31 00:00 +14"),
]
"""Zone, what is written, the instant in UTC, and how the clocks go."""

FOLDS = [
    ("Europe/Berlin", "2026-10-25T02:30", "00:30", "02:30 CEST", "2026-10-25T02:30+01:00"),
    ("Europe/Berlin", "2026-10-25T02:00", "00:00", "02:00 CEST", "2026-10-25T02:00+01:00"),
    ("Pacific/Chatham", "2026-04-05T03:00", "13:15", "03:00 +1345", "2026-04-05T03:00+12:45"),
    ("Antarctica/Troll", "2026-10-25T01:30", "23:30", "01:30 +02", "2026-10-25T01:30+00:00"),
    ("Australia/Lord_Howe", "2026-04-05T01:45", "14:45", "01:45 +11", "2026-04-05T01:45+10:30"),
]
"""Zone, what is written, the first instant's time in UTC and in the zone, and how to write the second."""


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """Return what moves this process to a zone, until the test is over."""
    with monkeypatch.context() as patch:

        def move(zone: str) -> None:
            patch.setenv("TZ", zone)
            time.tzset()

        yield move
    time.tzset()


def in_utc(instant: Instant) -> str:
    """An instant as a text."""
    text = datetime.fromtimestamp(instant.at_us // 10**6, UTC).isoformat(timespec="minutes")
    return text.removesuffix("+00:00")


def read_in(zone: str, text: str) -> Instant:
    """What a Python client says who has a zone at hand."""
    return read_instant(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)))


@pytest.mark.parametrize(("zone", "text", "expected", "start", "end"), GAPS)
def test_a_time_that_is_left_out_is_moved_to_the_end_of_the_gap(
    live: Live, zone: str, text: str, expected: str, start: str, end: str
) -> None:
    """To the first instant that there is; and it is said what was done, and why."""
    live(zone)
    instant = read_instant(text)
    assert in_utc(instant) == expected
    utc = expected.partition("T")[2]
    assert f"clocks go from {start} to {end} ({utc} UTC)" in instant.note
    assert instant.note.startswith(f"there is no {text[11:]} on {text[:10]}: ")
    live("Asia/Tokyo")
    assert read_in(zone, text) == instant


@pytest.mark.parametrize(("zone", "text", "utc", "first", "second"), FOLDS)
def test_of_a_time_that_comes_twice_the_first_is_taken(
    live: Live, zone: str, text: str, utc: str, first: str, second: str
) -> None:
    """And it is said how to write the other."""
    live(zone)
    instant = read_instant(text)
    assert in_utc(instant)[11:] == utc
    assert instant.note == (
        f"{text[11:]} comes twice on {text[:10]}: this is the first, {first} ({utc} UTC); "
        f"the second is {second}"
    )
    later = read_instant(second)
    assert later.note == ""
    assert later.at_us > instant.at_us
    live("Asia/Tokyo")
    assert read_in(zone, text) == instant
    aware = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=1)
    assert read_instant(aware) == later


def test_all_others_are_what_is_written(live: Live) -> None:
    """Also right before and after a change, and with an offset in the midst of it."""
    live("Europe/Berlin")
    for text, expected in (
        ("2027-03-28T01:59", "2027-03-28T00:59"),
        ("2027-03-28T03:00", "2027-03-28T01:00"),
        ("2027-03-29T02:30", "2027-03-29T00:30"),
        ("2027-03-28T02:30Z", "2027-03-28T02:30"),
        ("2026-10-25T01:59", "2026-10-24T23:59"),
        ("2026-10-25T03:00", "2026-10-25T02:00"),
    ):
        instant = read_instant(text)
        assert (in_utc(instant), instant.note) == (expected, "")


@pytest.mark.parametrize(
    "said",
    [
        *("9999-12-31T23:59", "0001-01-01", "1969-12-31T23:59Z", "2200-01-01T00:00Z"),
        *("2199-12-31T23:59-05:00", "1970-01-01T00:00+05:00", datetime.max.replace(tzinfo=UTC)),
    ],
    ids=str,
)
def test_a_year_that_is_far_away_is_refused(live: Live, said: object) -> None:
    """In a sentence; some of these no clock can tell."""
    for zone in ("America/New_York", "Asia/Tokyo"):
        live(zone)
        with pytest.raises(UsageError, match="is too far away") as caught:
            read_instant(said)
        assert "is the year right?" in str(caught.value.hint)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1)), st.sampled_from(GAPS))  # noqa: DTZ001  # local times
def test_it_is_the_first_minute_that_is_not_before_it(said: datetime, gap: tuple[str, ...]) -> None:
    """As a look at each minute in turn finds it."""
    zone = ZoneInfo(gap[0])
    for local in (said, datetime.fromisoformat(gap[1]) + (said - said.replace(minute=0))):
        local = local.replace(second=0, microsecond=0)  # noqa: PLW2901  # to the minute
        found = datetime.fromtimestamp(read_instant(local.replace(tzinfo=zone)).at_us // 10**6, UTC)
        minute = local.replace(tzinfo=UTC) - timedelta(hours=15)
        while minute.astimezone(zone).replace(tzinfo=None) < local:
            minute += timedelta(minutes=1)
        assert found == minute
