"""Text on its way to a terminal, which must not take it for commands.

A job's name, its error and its output are whatever somebody chose them to be: an
escape sequence in them could clear the screen, retitle the window or answer in the
user's name.  What could do so is shown by its escape, as Python would write it.
"""

from __future__ import annotations

import re

# C0 but tab and newline, DEL, C1, what turns the writing direction or breaks lines
# unseen, and lone surrogates, which no encoding can write.
_UNSAFE = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def harmless(text: str) -> str:
    """Return the text with its control characters made visible; tabs and newlines stay."""
    return text if text.isprintable() else re.sub(_UNSAFE, _escape, text)


def one_line(text: str) -> str:
    """Return the text with all control characters made visible, so that it is one line."""
    return text if text.isprintable() else re.sub(f"[\t\n]|{_UNSAFE}", _escape, text)


def harmless_json(text: str) -> str:
    """Return the same JSON without characters that a terminal would act on."""
    # They can only stand in strings; the encoder has escaped those below U+0020 already.
    return re.sub(_UNSAFE, lambda found: f"\\u{ord(found[0]):04x}", text)


def first_line(text: str) -> str:
    """Return the first line of a text, with an ellipsis if it is not all."""
    lines = text.strip().splitlines() or [""]
    return one_line(lines[0]) + (" …" if len(lines) > 1 else "")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 worker``, ``1,000 jobs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def home_shortened(path: str, home: str) -> str:
    """Return a path as people write it, with ``~`` for their home directory."""
    home = home.rstrip("/")
    if home and (path == home or path.startswith(home + "/")):
        return "~" + path[len(home) :]
    return path


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
