"""Durations as people write them: ``90s``, ``1h30m``, ``2d``, ``500ms``, or plain seconds.

    duration = number | part+
    part     = number unit          each unit once, the larger ones first
    number   = digits ["." digits]

So ``1h30m`` and ``1.5h`` are the same, and ``30m1h`` is refused: it is most likely a slip.
"""

from __future__ import annotations

import re

from jobd.model.errors import UsageError

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
"""How many seconds a unit has, the largest first."""

LONGEST_S = 100 * 365 * UNITS["d"]
"""What is longer is a slip, and clocks would overflow."""

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"


def parse_duration(text: str) -> float:
    """Return how many seconds the text means.

    Raises:
        UsageError: it is no duration, or one of more than a hundred years.
    """
    seconds = _parse(text.strip())
    if seconds is None:
        raise UsageError(f"{text!r} is not a duration", "write 90s, 1h30m, 2d or 500ms")
    if seconds > LONGEST_S:
        raise UsageError(f"{text!r} is more than a hundred years", "leave it out to wait for ever")
    return seconds


def _parse(text: str) -> float | None:
    if re.fullmatch(_NUMBER, text, re.ASCII):
        return float(text)
    # (\d h)? (\d m)? ...: the order of the groups is the order of the units.
    parts = "".join(f"(?:({_NUMBER}){unit})?" for unit in UNITS)
    found = re.fullmatch(parts, text, re.ASCII)
    if not text or found is None:
        return None
    return sum(
        float(number) * size
        for number, size in zip(found.groups(), UNITS.values(), strict=True)
        if number
    )


def show_duration(seconds: float) -> str:
    """Return a duration as people read it: ``350ms``, ``4.2s``, ``1h30m``.

    Two units at most: nobody looks for the seconds of a day.
    """
    if seconds < 0.9995:  # what would be rounded up to the next unit is written in it
        return f"{seconds * 1000:.0f}ms" if seconds >= 0.01 else f"{seconds * 1000:.1f}ms"
    if seconds < 59.5:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    whole = round(seconds)
    for larger, smaller in (("d", "h"), ("h", "m"), ("m", "s")):
        count, rest = divmod(whole, int(UNITS[larger]))
        if count:
            few = rest // int(UNITS[smaller])
            return f"{count}{larger}{few}{smaller}" if few else f"{count}{larger}"
    return f"{whole}s"
