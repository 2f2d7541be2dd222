"""The keys of submits, and the files of large arguments: written before the submit that refers to them.

Their names have the submit's key, which is therefore taken as soon as one is written.
From then on until the answer they are the client's: it marks that it lives, and removes
them when the submit is refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count

from jobd.blobs import Blobs, Buffer, Claim, Spot
from jobd.model.blob import Place, argument_name


class Files:
    """The keys and the files of one client's submits."""

    def __init__(self) -> None:
        self._session = os.urandom(8)
        self._numbers = count(1)
        self.blobs: Blobs | None = None
        """Where the daemon has its files; None: it has none."""
        self._is_writable = False
        self._claim: Claim | None = None
        self._open: dict[bytes, list[bytes]] = {}
        """References in submits that are not answered, by key."""

    def next_key(self) -> bytes:
        """Return a new key for a submit: 8 bytes of this client's, 8 that only rise."""
        return self._session + next(self._numbers).to_bytes(8, "big")

    def connected(self, place: Place | None) -> None:
        """Take in where the daemon keeps large payloads."""
        self.blobs = None if place is None else Blobs(place)
        self._is_writable = False
        if place is not None:
            # In another container, or as another user, the files are out of reach: then all is sent in line.
            directory = place.memory if place.kind == "memory" else place.disk
            self._is_writable = os.access(directory, os.W_OK | os.X_OK)

    def draft(self) -> Draft | None:
        """Return what gives the calls of a new submit their places; None: there are none."""
        return Draft(self, self.blobs) if self._is_writable and self.blobs is not None else None

    def claim(self) -> None:
        """Mark that this client lives, so that nobody removes its files as ownerless."""
        if self._claim is None:
            assert self.blobs is not None
            self._claim = Claim(self.blobs.place, self._session)

    def written(self, key: bytes, reference: bytes) -> None:
        """Take note of a file of a submit."""
        self._open.setdefault(key, []).append(reference)

    def settle(self, key: bytes, *, refused: bool) -> None:
        """The submit is answered: its files are the jobs' now, or of no use."""
        references = self._open.pop(key, ()) if self._open else ()
        if refused and self.blobs is not None:
            for reference in references:
                self.blobs.remove(reference)

    def close(self) -> None:
        """Let go."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None


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
