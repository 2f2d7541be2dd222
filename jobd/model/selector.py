"""Which jobs a command means: ``42``, ``40-45,50``, ``last:3``, ``all``; and items: ``7/3``, ``7/9-``."""

from collections.abc import Iterable
from typing import Annotated, Protocol

import msgspec

from jobd.model.errors import UsageError
from jobd.model.item import LAST_INDEX, item_of
from jobd.model.states import BY_NAME, State

MAX_ID = 2**63 - 1

Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
"""What the store can hold; checked when a message is decoded."""


class Selector(msgspec.Struct, frozen=True, array_like=True):
    """Jobs by id ranges (ends included), the newest ``last``, or ``all``; of these, those in ``states``."""

    ranges: list[tuple[Number, Number]] = []
    last: Number = 0
    all: bool = False
    states: list[State] = []


def one(number: int) -> Selector:
    """Select one job."""
    return Selector([(number, number)])


class HasId(Protocol):
    """A job by what a client holds of it: a ``Deferred``, a ``JobInfo``."""

    @property
    def id(self) -> int:
        """Its number."""


Selection = Selector | int | str | HasId | Iterable[int | HasId]
"""Jobs as Python says them: ``42``, a ``Deferred``, a list of these, ``"40-45"``, ``"last:3"``, ``"all"``."""


def select(selection: Selection) -> Selector:
    """Return what selects these jobs.

    Raises:
        UsageError: it selects nothing, or is nothing that can.
    """
    if isinstance(selection, Selector):
        return selection
    if isinstance(selection, str):
        return parse_selector([selection], [])
    if not isinstance(selection, Iterable):
        return one(_id_of(selection))
    numbers = [_id_of(each) for each in selection]
    if not numbers:
        raise UsageError("no job is selected", "give ids, deferred results, or 'all'")
    return Selector([(number, number) for number in numbers])


def _id_of(job: object) -> int:
    number = getattr(job, "id", job)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= MAX_ID:
        raise UsageError(
            f"{job!r} is no job", "give its id, its deferred result, or a text such as '40-45'"
        )
    return number


def parse_selector(texts: list[str], states: list[str]) -> Selector:
    """Parse the words of a command line; of both kinds several may stand in one, with commas between.

    Raises:
        UsageError: a word is not a selector, or a state is unknown.
    """
    ranges: list[tuple[int, int]] = []
    last, every = 0, False
    for text in ",".join(texts).split(","):
        word = text.strip()
        if word == "all":
            every = True
        elif word == "last":
            last = max(last, 1)
        elif word.startswith("last:"):
            last = max(last, _number(word[5:], text))
        elif word:
            ranges.append(_range(word))
    if not (ranges or last or every):
        if not states:
            raise UsageError("no job is selected", "give ids such as 42 or 40-45, or last, or all")
        every = True
    names = [name.strip() for text in states for name in text.split(",")]
    return Selector(ranges, last, every, [_state(name) for name in dict.fromkeys(names)])


def _range(word: str) -> tuple[int, int]:
    array, slash, items = word.partition("/")
    if slash:
        return _items(_number(array, word), items, word)
    low, dash, high = word.partition("-")
    start = _number(low, word)
    end = _number(high, word) if dash else start
    if end < start:
        raise UsageError(f"{word!r} ends before it begins", f"write {end}-{start}")
    return start, end


def _items(array: int, text: str, word: str) -> tuple[int, int]:
    """Return the numbers of the first and the last item that ``0-9``, ``100-`` or ``3`` means."""
    low, dash, high = text.partition("-")
    first = _index(low, word)
    last = (_index(high, word) if high else LAST_INDEX) if dash else first
    if last < first:
        raise UsageError(f"{word!r} ends before it begins", f"write {array}/{last}-{first}")
    return item_of(array, first), item_of(array, last)


def _index(text: str, word: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= LAST_INDEX):
        raise UsageError(
            f"{word.strip()!r} is no item", "items are counted from 0: 7/3, 7/0-9, 7/100-"
        )
    return int(text)


def _number(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) > 0):
        raise UsageError(
            f"{whole.strip()!r} is not a job", "give ids such as 42 or 40-45, or last, last:3, all"
        )
    return int(text)


def _state(name: str) -> State:
    try:
        return BY_NAME[name]
    except KeyError:
        raise UsageError(f"{name!r} is not a state", f"states are {', '.join(BY_NAME)}") from None
