"""Whole numbers as a command line says them: ``0-999:10``, ``1-5,8,20-30:2``, ``range(1, 51)``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import gcd

from jobd.model.errors import UsageError

MOST_DIGITS = 18
"""Of a number; any range of such numbers has a length that Python can tell."""

_RANGE = r"(\d+)(?:-(\d+)(?::(\d+))?)?"
_CALL = r"range\(\s*(-?\d+)\s*(?:,\s*(-?\d+)\s*)?(?:,\s*(-?\d+)\s*)?\)"
# Compiled where they are used, which `re` remembers: most commands need neither.

SHOWN_CHARACTERS = 60


def parse_ranges(text: str, option: str) -> list[range]:
    """Read numbers and ranges, both ends of which are meant, with commas between.

    Raises:
        UsageError: it is something else, or there is none.
    """
    return [_range(word.strip(), option) for word in text.split(",")]


def _range(word: str, option: str) -> range:
    found = re.fullmatch(_RANGE, word, re.ASCII)
    if found is None or any(len(digits or "") > MOST_DIGITS for digits in found.groups()):
        raise UsageError(
            f"{option}: {_short(word)} is neither a number nor a range",
            "write 7, 0-9 or 0-99:10, with commas between several; both ends are meant",
        )
    low, high, step = (int(digits) if digits else None for digits in found.groups())
    assert low is not None
    if high is not None and high < low:
        raise UsageError(f"{option}: {word} ends before it begins", f"write {high}-{low}")
    if step == 0:
        raise UsageError(f"{option}: {word} has the step 0", f"write {low}-{high} for each of them")
    return range(low, (low if high is None else high) + 1, step or 1)


def merged(ranges: Iterable[range]) -> list[range]:
    """Return what ranges without a step cover, in order, each number once."""
    found: list[range] = []
    for each in sorted(ranges, key=lambda each: each.start):
        if found and each.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, each.stop))
        else:
            found.append(each)
    return found


def repeated(ranges: Sequence[range]) -> int | None:
    """Return a number that is in two of these ranges; None: there is none."""
    open_ones: list[range] = []
    for each in sorted(ranges, key=lambda each: each.start):
        open_ones = [other for other in open_ones if other[-1] >= each.start]
        for other in open_ones:
            common = _common(other, each)
            if common is not None:
                return common
        open_ones.append(each)
    return None


def _common(one: range, other: range) -> int | None:
    """Return the smallest number that is in both; the second does not begin before the first."""
    divisor = gcd(one.step, other.step)
    apart, remainder = divmod(other.start - one.start, divisor)
    if remainder:
        return None
    # one.start + k * one.step is in the second range's row: solved for k, which repeats.
    period = other.step // divisor
    k = apart * pow(one.step // divisor, -1, period) % period
    number = one.start + k * one.step
    whole = one.step * period
    number += max(0, -((number - other.start) // whole)) * whole
    return number if number <= min(one[-1], other[-1]) else None


def parse_call(text: str) -> range | None:
    """Read ``range(stop)``, ``range(start, stop)`` or ``range(start, stop, step)``; None: it is none.

    Raises:
        UsageError: the step is 0.
    """
    found = re.fullmatch(_CALL, text.strip(), re.ASCII)
    if found is None or any(len(digits or "") > MOST_DIGITS for digits in found.groups()):
        return None
    numbers = [int(digits) for digits in found.groups() if digits]
    if numbers[2:] == [0]:
        raise UsageError(f"{text.strip()} has the step 0", "a step leads up or down")
    return range(*numbers)


def _short(text: str) -> str:
    """Quote a text, cut to a bearable length."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")
