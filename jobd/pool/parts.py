"""A part of a process's state: how it was, whether it still is so, and how it is put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MISSING = object()


class Part:
    """One thing that a job can change.

    ``read`` returns it as a value of its own, not as an object that changes with it.
    ``write`` makes it what was read before; it may fail with any exception.
    """

    __slots__ = ("_loss", "_name", "read", "was", "write")

    def __init__(
        self,
        name: str,
        read: Callable[[], Any],
        write: Callable[[Any], object],
        *,
        loss: Callable[[Any, Any], str] | None = None,
    ) -> None:
        """``loss`` makes a sentence of how it was and how it is, for when it cannot be put back."""
        self.read = read
        self.was = read()
        self._name = name
        self.write = write
        self._loss = loss

    def adopt(self) -> None:
        """It is to be as it is now."""
        self.was = self.read()

    @property
    def is_same(self) -> bool:
        """Whether it is as it was; what cannot be read is not."""
        try:
            return bool(self.read() == self.was)
        except Exception:  # noqa: BLE001  # a job may have put anything there
            return False

    def put_back(self) -> str:
        """Make it what it was; return a sentence about what cannot be, or ""."""
        try:
            self.write(self.was)
        except Exception:  # noqa: BLE001, S110  # what counts is how it is now
            pass
        if self.is_same:
            return ""
        if self._loss is not None:
            return self._loss(self.was, self.read())
        return f"it changed {self._name}, which cannot be put back"


class Reseeded(Part):
    """The state of a random number generator: another one is as good, if nobody has chosen it."""

    __slots__ = ()

    def put_back(self) -> str:
        """Make it one that nobody knows."""
        self.write(self.was)
        self.was = self.read()
        return ""


def attributes(name: str, owner: object, *names: str) -> Part:
    """Return the part that these attributes of a module or an object are, compared by identity or value."""

    def read() -> tuple[object, ...]:
        return tuple([getattr(owner, each, _MISSING) for each in names])

    def write(was: tuple[object, ...]) -> None:
        for each, value, now in zip(names, was, read(), strict=True):
            if now is not value:
                setattr(owner, each, value)

    return Part(name, read, write)


def listed(name: str, owner: Any, attribute: str) -> Part:
    """Return the part that a list is which an attribute leads to: it stays the same object."""
    ours = getattr(owner, attribute)

    def read() -> tuple[bool, list[object]]:
        return getattr(owner, attribute, None) is ours, [*ours]

    def write(was: tuple[bool, list[object]]) -> None:
        ours[:] = was[1]
        setattr(owner, attribute, ours)

    return Part(name, read, write)


def mapping(name: str, ours: dict[str, object]) -> Part:
    """Return the part that the entries of a dictionary are, such as a module's."""

    def read() -> dict[str, object]:
        return ours.copy()

    def write(was: dict[str, object]) -> None:
        for key in [key for key in ours if key not in was]:
            del ours[key]
        ours.update(was)

    return Part(name, read, write)
