"""A submit in the making, whose large arguments are written into files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jobd.blobs import Blobs, Buffer, Spot
from jobd.model.blob import argument_name


class Keeper(Protocol):
    """Who has the keys of submits, and knows of their files (``jobd.client.files``)."""

    def claim(self) -> None:
        """Mark that this client lives, so that nobody removes its files as ownerless."""

    def next_key(self) -> bytes:
        """Return a new key."""

    def written(self, key: bytes, reference: bytes) -> None:
        """Take note of a file of a submit."""

    def settle(self, key: bytes, *, refused: bool) -> None:
        """The submit is over: its files are the jobs' now, or of no use."""


class Draft(Spot):
    """The place of the arguments of one call after the other; names are made when they are needed."""

    def __init__(self, files: Keeper, blobs: Blobs) -> None:
        # Not by way of the base: one is made for every submit.
        self.blobs = blobs
        self.key = b""
        """The submit's key; empty until a file is written."""
        self._files = files
        self._index = 0

    def spot(self, index: int) -> Draft:
        """Return the place for the arguments of one of its calls, until the next is asked for."""
        self._index = index
        return self

    def write(
        self,
        payload: Sequence[Buffer],
        buffers: Sequence[Buffer],
        *,
        text: str = "",
        is_json: bool = False,
        versions: dict[str, str] | None = None,
    ) -> bytes:
        """Store the arguments there; as ``Blobs.write``."""
        if not self.key:
            self._files.claim()
            self.key = self._files.next_key()
        name = argument_name(self.key, self._index)
        reference = self.blobs.write(
            name, payload, buffers, text=text, is_json=is_json, versions=versions
        )
        self._files.written(self.key, reference)
        return reference

    def discard(self) -> None:
        """There will be no submit: remove what was written."""
        self._files.settle(self.key, refused=True)
