"""Which jobs a command is about, and how they are read page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jobd.model.errors import NotFound, UsageError, no_such_job
from jobd.model.item import LAST_INDEX, is_item, item_of
from jobd.model.selector import Selector, parse_selector

if TYPE_CHECKING:
    from jobd.client import Client
    from jobd.model.job import JobInfo

PAGE = 1000


def select(words: Sequence[str], states: Sequence[str]) -> Selector:
    """Parse the words of a command line, and its ``--state`` options.

    Raises:
        UsageError: a word is not a selector, a state is unknown, or nothing is selected.
    """
    return parse_selector(list(words), list(states))


def one_job(client: Client, word: str) -> int:
    """Return the id that a command for one job means: a number or ``last``.

    Raises:
        UsageError: the word means several jobs.
        NotFound: it is ``last``, and there is none.
    """
    selector = select([word], [])
    if selector.last == 1:
        return newest(client)
    if len(selector.ranges) != 1 or selector.ranges[0][0] != selector.ranges[0][1]:
        raise UsageError(f"{word!r} is not one job", "give one id, such as 42, or last")
    return selector.ranges[0][0]


def with_items(client: Client, selector: Selector) -> Selector:
    """Return a selector that has, for one number that is an array's, its items in its place."""
    if selector.states or not is_one(selector) or selector.last:
        return selector
    number = selector.ranges[0][0]
    if is_item(number) or client.fetch(number).items is None:
        return selector
    return Selector([(item_of(number, 0), item_of(number, LAST_INDEX))])


def newest(client: Client) -> int:
    """Return the id of the newest job.

    Raises:
        NotFound: there is none.
    """
    jobs, _ = client.page(Selector(last=1), 1)
    if not jobs:
        raise NotFound("there is no job yet", "submit one: jobd submit math:factorial 20")
    return jobs[0].id


def is_one(selector: Selector) -> bool:
    """Whether the selector is of the form that means one job, not a list of them."""
    if selector.all or selector.states:
        return False
    if selector.ranges:
        return not selector.last and _named(selector) == [selector.ranges[0][0]]
    return selector.last == 1


def pages(
    client: Client, selector: Selector, most: int = 0
) -> Iterator[tuple[list[JobInfo], bool]]:
    """Yield the selected jobs, the newest first, and whether there are more than these.

    ``most`` is how many are wanted in all; 0 is all.
    """
    before, left = 0, most
    more = True
    while more:
        jobs, more = client.page(selector, min(left, PAGE) if most else PAGE, before)
        yield jobs, more
        left -= len(jobs)
        if not jobs or (most and left <= 0):
            return
        before = jobs[-1].id


def ids_of(client: Client, selector: Selector) -> list[int]:
    """Return the ids of the selected jobs, the oldest first.

    Raises:
        NotFound: none is selected, or one that is named does not exist.
    """
    found = [info.id for jobs, _ in pages(client, selector) for info in jobs]
    found.reverse()
    refuse_missing(selector, found)
    return found


def refuse_missing(selector: Selector, found: Sequence[int]) -> None:
    """Refuse a selector that selects nothing, or names a job that does not exist.

    Raises:
        NotFound: it does.
    """
    known = set(found)
    # With a state, a job that is named may exist and be in another.
    missing = [] if selector.states else [n for n in _named(selector) if n not in known]
    if missing:
        raise no_such_job(missing[0])
    refuse_none(found)


def refuse_none(found: Sequence[object]) -> None:
    """Refuse a selector that selects nothing.

    Raises:
        NotFound: nothing was found.
    """
    if not found:
        raise NotFound("there is no such job", "see 'jobd ls'")


def _named(selector: Selector) -> list[int]:
    """Return the ids that are named one by one."""
    return [low for low, high in selector.ranges if low == high]
