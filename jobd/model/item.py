"""Items of arrays: the numbers that they have, and how people write them.

An array is one job; its items are counted from 0.  Item 3 of the array 7 is ``7/3`` to people, and one
number wherever jobs have numbers: the array's in the upper half of 64 bits, the item's in the lower.
Jobs themselves have numbers under ``FIRST_ITEM``.
"""

from __future__ import annotations

SHIFT = 32

FIRST_ITEM = 1 << SHIFT
"""A number from here on is an item's; item 0 of the array 1 has it."""

LAST_INDEX = FIRST_ITEM - 1
"""No array has so many items."""


def item_of(array: int, index: int) -> int:
    """Return the number of an item."""
    return array << SHIFT | index


def items_of(array: int, count: int) -> tuple[int, int]:
    """Return the numbers of all items of an array that has so many: from which to which, which is none."""
    return item_of(array, 0), item_of(array, count)


def array_of(number: int) -> int:
    """Return the array that an item is of; 0: it is a job."""
    return number >> SHIFT


def index_of(number: int) -> int:
    """Return which of its array's items this is."""
    return number & LAST_INDEX


def owner_of(number: int) -> int:
    """Return the job that this is, or of which it is an item."""
    return number >> SHIFT or number


def is_item(number: int) -> bool:
    """Whether this is the number of an item."""
    return number >= FIRST_ITEM


def shown(number: int) -> str:
    """Return a number as people write it: ``42``, ``7/3``."""
    return f"{number >> SHIFT}/{number & LAST_INDEX}" if number >= FIRST_ITEM else str(number)
