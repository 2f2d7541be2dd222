"""A submit in the making, whose large arguments are written into files."""

from __future__ import annotations

from collections.abc import Sequence

from jobd.blobs import Blobs, Buffer, Spot
from jobd.client.files import Files
from jobd.model.blob import argument_name


class Draft:
    """A submit in the making."""

    __slots__ = ("_blobs", "_files", "key")

    def __init__(self, files: Files, blobs: Blobs) -> None:
        self._files = files
        self._blobs = blobs
        self.key = b""
        """The submit's key; empty until a file is written."""

    def spot(self, index: int) -> ArgumentSpot:
        """Return the place for the arguments of one of its calls."""
        return ArgumentSpot(self, index)

    def write(
        self,
        index: int,
        payload: Sequence[Buffer],
        buffers: Sequence[Buffer],
        text: str,
        versions: dict[str, str] | None,
    ) -> bytes:
        """Store the arguments of one call; return the reference."""
        if not self.key:
            self._files.claim()
            self.key = self._files.next_key()
        name = argument_name(self.key, index)
        reference = self._blobs.write(name, payload, buffers, text=text, versions=versions)
        self._files.written(self.key, reference)
        return reference

    def discard(self) -> None:
        """There will be no submit: remove what was written."""
        self._files.settle(self.key, refused=True)


class ArgumentSpot(Spot):
    """Where the arguments of one call go; their name is made when it is needed."""

    def __init__(self, draft: Draft, index: int) -> None:
        super().__init__(draft._blobs, "")  # noqa: SLF001  # the two are one
        self._draft = draft
        self._index = index

    def write(
        self,
        payload: Sequence[Buffer],
        buffers: Sequence[Buffer],
        *,
        text: str = "",
        versions: dict[str, str] | None = None,
    ) -> bytes:
        """Store the arguments there; as ``Blobs.write``."""
        return self._draft.write(self._index, payload, buffers, text, versions)
