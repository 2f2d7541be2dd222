"""Results of other jobs among the arguments of a call.

What stands for such a result is a `Reference`.  The call that is sent holds in its
place an index into the list of the call's inputs, and a path; the daemon sees the list
and no more, and hands the worker the inputs' encoded values in the same order.  A pickle
needs no pickler of its own for this: a reference reduces to a call of `_part`, so that
whoever makes the pickle, and whatever the reference is nested in, it costs other
objects nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from jobd.model.errors import AlreadyTaken, ResultExpired
from jobd.model.item import shown
from jobd.model.job import EXPIRED, TAKEN
from jobd.model.path import PREFIX, Path, follow, show_path

Input = int | bytes
"""A job: its id, or the key of its submit and 8 bytes, big-endian, that tell which of its jobs."""

Place = tuple[list[str | int], int, Path]
"""Where in ``[args, kwargs]`` a reference stood, the index of its input, and its path."""


class _Now(threading.local):
    """What this thread is at."""

    gathering: Gathering | None = None
    feeding: Feeding | None = None


_now = _Now()


class Reference:
    """Stands for another job's result, or a part of it, among the arguments of a call."""

    __slots__ = ()

    def input_of(self) -> Input:
        """Return which job: its id, or the key of its submit and its index there."""
        raise NotImplementedError

    def path_of(self) -> Path:
        """Return the path to the part that is meant; empty: all of it."""
        return ()

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Travel as an argument of a job, and in no other way."""
        if _now.gathering is None:
            raise TypeError("a deferred result can travel only as an argument of a job")
        return _part, (_now.gathering.index(self.input_of()), self.path_of())


_HOLDERS = (Reference, list, dict)


class JobResult(Reference):
    """The result of a job that is known by its id."""

    __slots__ = ("number", "path")

    def __init__(self, number: int, path: Path = ()) -> None:
        self.number = number
        self.path = path

    def input_of(self) -> Input:
        """Return the job's id."""
        return self.number

    def path_of(self) -> Path:
        """Return the path."""
        return self.path

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JobResult):
            return NotImplemented
        return (self.number, self.path) == (other.number, other.path)

    def __hash__(self) -> int:
        return hash((self.number, self.path))

    def __repr__(self) -> str:
        return show_input(self.number, self.path)


def show_input(number: int, path: Path) -> str:
    """Return a reference as it is written on a command line."""
    return f"{PREFIX}{number}{show_path(path)}"


# -- where a call is made -----------------------------------------------------


class Gathering:
    """Gathers the inputs of one call, each once, while the call is encoded in this thread."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self._index: dict[Input, int] = {}

    def index(self, job: Input) -> int:
        """Return the place of a job in the list of inputs."""
        found = self._index.setdefault(job, len(self.inputs))
        if found == len(self.inputs):
            self.inputs.append(job)
        return found

    def lift(self, value: Any, where: list[str | int], places: list[Place]) -> Any:
        """Return plain data with None for each reference, and add where they were to ``places``."""
        if isinstance(value, Reference):
            places.append((where, self.index(value.input_of()), value.path_of()))
            return None
        if type(value) is list:
            return [
                self.lift(item, [*where, n], places) if isinstance(item, _HOLDERS) else item
                for n, item in enumerate(value)
            ]
        if type(value) is dict:
            return {
                key: self.lift(item, [*where, key], places) if isinstance(item, _HOLDERS) else item
                for key, item in value.items()
            }
        return value

    def __enter__(self) -> Self:
        _now.gathering = self
        return self

    def __exit__(self, *error: object) -> None:
        _now.gathering = None


# -- where it is run ----------------------------------------------------------


class Feeding:
    """Gives the inputs' values to the arguments of one call, while they are decoded in this thread."""

    def __init__(self, encoded: Sequence[bytes], decode: Callable[[bytes], Any]) -> None:
        self._encoded = encoded
        self._decode = decode
        self._values: dict[int, Any] = {}

    def part(self, index: int, path: Path) -> Any:
        """Return what a reference stood for.

        Raises:
            AlreadyTaken, ResultExpired: the value is not there any more.
            NoSuchPart: the value has no such part.
        """
        if index not in self._values:
            refuse_gone(self._encoded[index], number_of(self._encoded[index]))
            self._values[index] = self._decode(self._encoded[index])
        return follow(self._values[index], path)

    def place(self, call: list[Any], places: list[Place]) -> None:
        """Put the values where the references were."""
        for where, index, path in places:
            put(call, where, self.part(index, path))

    def __enter__(self) -> Self:
        _now.feeding = self
        return self

    def __exit__(self, *error: object) -> None:
        _now.feeding = None


def put(call: list[Any], where: list[str | int], value: Any) -> None:
    """Put a value in its place in ``[args, kwargs]``."""
    holder: Any = call
    for step in where[:-1]:
        holder = holder[step]
    holder[where[-1]] = value


def refuse_gone(value: bytes, number: int) -> None:
    """Raise if this stands for a job's value that is gone: if it is one of the tombstones.

    Raises:
        AlreadyTaken, ResultExpired: so it is.
    """
    if value.startswith(TAKEN):
        raise AlreadyTaken(
            f"the result of job {shown(number)} was taken already", "it can be read once"
        )
    if value.startswith(EXPIRED):
        raise ResultExpired(
            f"the result of job {shown(number)} has expired", "submit the job again"
        )


def number_of(tombstone: bytes) -> int:
    """Return the job of a tombstone that stands for an input; 0 for a value."""
    word = tombstone.rpartition(b" ")[2]
    return int(word) if tombstone[:1] == b"!" and word.isdigit() else 0


def _part(index: int, path: Path) -> Any:
    """Return a part of an input; a pickle calls this."""
    if _now.feeding is None:
        raise TypeError("the arguments of a job with inputs can be decoded in a worker only")
    return _now.feeding.part(index, path)
