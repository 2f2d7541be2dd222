"""Instants as people write them: ``2026-12-24T18:00``, ``tomorrow 09:00``, or a datetime.

What names no zone is local time, and local time is not always an instant.  In spring, or
wherever else clocks are put forward, an hour is left out: what lies in that gap is moved to
its end, the first instant that there is after it.  In autumn an hour comes twice: the first
is taken, unless a datetime asks for the second (``fold=1``).  Both are told by ``note``.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from jobd.model.errors import UsageError

FIRST_YEAR, LAST_YEAR = 1970, 2199

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


class Instant(msgspec.Struct, frozen=True):
    """An instant that somebody has written."""

    at_us: int
    """Microseconds since 1970 in UTC."""
    note: str = ""
    """What has to be said of it: a sentence, if it was not, or not only, what was written."""


def read_instant(said: Any) -> Instant:
    """Read an instant in ISO 8601, ``tomorrow 09:00``, or a datetime; without a zone it is local time.

    Raises:
        UsageError: it is none, or too far away.
    """
    if isinstance(said, str):
        try:
            said = datetime.fromisoformat(_dated(said.strip()))
        except ValueError:
            raise UsageError(
                f"{said!r} is not an instant", "write 2026-12-24T18:00 or tomorrow 09:00"
            ) from None
    if not isinstance(said, datetime):
        raise UsageError(f"{said!r} is not an instant", "give a datetime or a text in ISO 8601")
    if not FIRST_YEAR <= said.year <= LAST_YEAR:
        raise _too_far(said)
    moment, note = _resolved(said)
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise _too_far(said)
    return Instant((moment - _EPOCH) // timedelta(microseconds=1), note)


def _too_far(said: datetime) -> UsageError:
    return UsageError(
        f"{said.isoformat()} is too far away",
        f"is the year right? it may be {FIRST_YEAR} to {LAST_YEAR}",
    )


def _dated(text: str) -> str:
    """Return a text with the date instead of ``today`` and ``tomorrow``."""
    day, _, rest = text.partition(" ")
    days = {"today": 0, "tomorrow": 1}.get(day.lower())
    if days is None or not rest:
        return text
    date = datetime.now().astimezone().date() + timedelta(days)
    return f"{date.isoformat()}T{rest.strip()}"


def _resolved(said: datetime) -> tuple[datetime, str]:
    """Return the instant in UTC, and what has to be said of it."""
    zone = said.tzinfo

    def in_zone(moment: datetime) -> datetime:
        return moment.astimezone(zone)

    # In which order these come depends: for local time `astimezone` and `timestamp` do not agree.
    first, second = sorted(said.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return first, ""
    if in_zone(first).replace(tzinfo=None, fold=0) != said.replace(tzinfo=None, fold=0):
        return _after_gap(said, first, second, in_zone)
    if said.fold:
        return second, ""
    return first, (
        f"{_clock(said)} comes twice on {said.date()}: this is the first, {_told(in_zone(first))}; "
        f"the second is {in_zone(second).isoformat(timespec=_spec(said))}"
    )


def _after_gap(
    said: datetime, before: datetime, after: datetime, in_zone: Callable[[datetime], datetime]
) -> tuple[datetime, str]:
    """Return the first instant after the gap that begins or ends between these two."""
    old = in_zone(before).utcoffset()
    first, last = int(before.timestamp()), int(after.timestamp())
    while last - first > 1:  # clocks are changed at whole seconds
        middle = (first + last) // 2
        if in_zone(datetime.fromtimestamp(middle, UTC)).utcoffset() == old:
            first = middle
        else:
            last = middle
    change = datetime.fromtimestamp(last, UTC)
    end = in_zone(change)
    start = in_zone(change - _SECOND) + _SECOND  # as if the clocks were not changed
    day = (
        "" if end.date() == said.date() else f"{end.date()} "
    )  # an island has crossed the date line
    return change, (
        f"there is no {_clock(said)} on {said.date()}: clocks go from {_clock(start)} to "
        f"{day}{_told(end)}, and that is when it may start"
    )


def _spec(moment: datetime) -> str:
    return "seconds" if moment.second or moment.microsecond else "minutes"


def _clock(moment: datetime) -> str:
    return moment.replace(tzinfo=None).time().isoformat(timespec=_spec(moment))


def _told(moment: datetime) -> str:
    """Return a time with its zone, and in UTC: ``02:30 CEST (00:30 UTC)``."""
    return f"{_clock(moment)} {moment.tzname()} ({_clock(moment.astimezone(UTC))} UTC)"
