"""Which part of a value cannot be pickled: pickle's own errors name a type, but not the place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

MOST_LOOKS = 2_000
"""Parts that are tried before the search contents itself with what it has."""


def blamed(named: Mapping[str, Any], dumps: Callable[[Any], object]) -> str:
    """Return the path and the type of the innermost part that ``dumps`` refuses.

    Args:
        named: the values that together cannot be pickled, by what each is called.
        dumps: pickles, or raises.
    """
    looks = iter(range(MOST_LOOKS))
    place, culprit = "", None
    seen: set[int] = set()
    parts: Iterator[tuple[str, Any]] = iter(named.items())
    while (found := _first(parts, dumps, looks)) is not None:
        place, culprit = found
        if id(culprit) in seen or _too_deep(culprit, dumps):
            break  # it contains itself; or every part of it is to blame, and none more than it
        seen.add(id(culprit))
        parts = _parts(place, culprit)
    return f"{place or 'something'} ({_kind(culprit)})"


def _first(
    parts: Iterator[tuple[str, Any]], dumps: Callable[[Any], object], looks: Iterator[int]
) -> tuple[str, Any] | None:
    """Return the first of some parts that cannot be pickled."""
    for place, part in parts:
        if next(looks, None) is None:
            return None
        try:
            dumps(part)
        except Exception:  # noqa: BLE001  # whatever it raises: this is it
            return place, part
    return None


def _too_deep(value: Any, dumps: Callable[[Any], object]) -> bool:
    try:
        dumps(value)
    except RecursionError:
        return True
    except Exception:  # noqa: BLE001  # whatever else it raises
        return False
    return False


def _parts(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value consists of, each with the expression that leads to it."""
    yield from _items(place, value)
    yield from _of_function(place, value)
    for name in _attributes(value):
        if hasattr(value, name):
            yield f"{place}.{name}", getattr(value, name)


def _items(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield f"{place}[{index}]", item
    elif isinstance(value, set | frozenset):
        for item in value:
            yield f"an item of {place}", item
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{place}[{key!r:.40}]", item
            yield f"a key of {place}", key


def _attributes(value: Any) -> Iterator[str]:
    """Yield the names of what an object holds."""
    state = getattr(value, "__dict__", None)
    yield from state if isinstance(state, dict) else ()
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _of_function(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a function takes along when it travels by value."""
    code = getattr(value, "__code__", None)
    if code is None:
        return
    for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=False):
        try:
            yield f"{name}, which {place} uses", cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    for name in code.co_names:
        if name in value.__globals__:
            yield f"{name}, which {place} uses", value.__globals__[name]
    for number, item in enumerate(value.__defaults__ or ()):
        yield f"default {number} of {place}", item


def _kind(value: object) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
