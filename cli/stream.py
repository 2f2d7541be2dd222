"""A job's output on its way to stdout, piece by piece."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobd.cli.text import harmless

if TYPE_CHECKING:
    from jobd.cli.session import Session


def copy(session: Session, pieces: Iterator[bytes]) -> None:
    """Write the pieces as they come: bytes into a pipe or file, harmless text to a terminal."""
    if not session.on_terminal:
        for piece in pieces:
            session.write_bytes(piece)
        return
    # Incremental, since a character may be cut by the end of a piece.
    decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
    for piece in pieces:
        session.write_bytes(_shown(decode(piece)))
    session.write_bytes(_shown(decode(b"", final=True)))


def _shown(text: str) -> bytes:
    # Lines of Windows, and of terminals that a job has opened, end so: that is no trick.
    return harmless(text.replace("\r\n", "\n")).encode()
