"""Durations and sizes as people write them: ``90s``, ``1h30m``, ``2d``, ``500ms``; ``2G``, ``512K``.

    duration = number | part+
    part     = number unit          each unit once, the larger ones first
    number   = digits ["." digits]
    size     = number [K | M | G | T]

A duration without a unit is in seconds, a size without one in bytes; units of sizes
are powers of 1024.  So ``1h30m`` and ``1.5h`` are the same, and ``30m1h`` is refused:
it is most likely a slip.
"""

from __future__ import annotations

import re

from jobd.model.errors import UsageError

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
"""How many seconds a unit has, the largest first."""

LONGEST_S = 100 * 365 * UNITS["d"]
"""What is longer is a slip, and clocks would overflow."""

SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
LARGEST = 2**60

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


def parse_size(text: str) -> int:
    """Return how many bytes the text means.

    Raises:
        UsageError: it is no size.
    """
    found = re.fullmatch(
        rf"({_NUMBER})\s*([KMGT]?)(?:i?B)?", text.strip(), re.ASCII | re.IGNORECASE
    )
    size = int(float(found[1]) * SIZES[found[2].upper()]) if found else -1
    if not 0 <= size <= LARGEST:
        raise UsageError(f"{text!r} is not a size", "write 512M, 2G or a number of bytes")
    return size


def written_size(count: int) -> str:
    """Return so many bytes as people write them, without loss: ``300M``."""
    unit, size = max(
        (pair for pair in SIZES.items() if count % pair[1] == 0), key=lambda pair: pair[1]
    )
    return f"{count // size}{unit}" if count else "0"
