"""The keys of submits, and the files of large arguments: written before the submit that refers to them.

Their names have the submit's key, which is therefore taken as soon as one is written.
From then on until the answer they are the client's: it marks that it lives, and removes
them when the submit is refused.
"""

from __future__ import annotations

import os
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from jobd.model.blob import Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobd.blobs import Blobs, Claim
    from jobd.client.drafts import Draft


class Files:
    """The keys and the files of one client's submits."""

    def __init__(self) -> None:
        self._session = os.urandom(8)
        self._numbers = count(1)
        self._place: Place | None = None
        self._blobs: Blobs | None = None
        self._is_writable = False
        self._new_draft: Callable[[], Draft] | None = None
        self._claim: Claim | None = None
        self._open: dict[bytes, list[bytes]] = {}
        """References in submits that are not answered, by key."""

    def next_key(self) -> bytes:
        """Return a new key for a submit: 8 bytes of this client's, 8 that only rise."""
        return self._session + next(self._numbers).to_bytes(8, "big")

    def connected(self, place: Place | None) -> None:
        """Take in where the daemon keeps large payloads."""
        self._place, self._blobs, self._new_draft = place, None, None
        self._is_writable = False
        if place is not None:
            # In another container, or as another user, the files are out of reach: then all is sent in line.
            directory = place.memory if place.kind == "memory" else place.disk
            self._is_writable = os.access(directory, os.W_OK | os.X_OK)

    @property
    def blobs(self) -> Blobs | None:
        """Where the daemon has its files; None: it has none."""
        if self._blobs is None and self._place is not None:
            from jobd.blobs import Blobs  # noqa: PLC0415  # the command line needs none

            self._blobs = Blobs(self._place)
        return self._blobs

    def draft(self) -> Draft | None:
        """Return what gives the calls of a new submit their places; None: there are none."""
        if self._new_draft is None:
            if not self._is_writable or self.blobs is None:
                return None
            from jobd.client.drafts import Draft  # noqa: PLC0415  # as above

            self._new_draft = partial(Draft, self, self.blobs)
        return self._new_draft()

    def claim(self) -> None:
        """Mark that this client lives, so that nobody removes its files as ownerless."""
        if self._claim is None:
            from jobd.blobs import Claim  # noqa: PLC0415  # as above

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
