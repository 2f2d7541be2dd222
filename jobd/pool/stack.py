"""The interpreter's last words of a process that crashes, without what is no news to anybody."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_OURS = f'  File "{Path(__file__).parent}/'
_FRAME = '  File "'


def without_ours(lines: Iterable[str]) -> list[str]:
    """Leave out the frames that led to the job, which are the worker's and stand last in a stack.

    They take as many lines as people are shown of what the job wrote.
    """
    kept, is_ours = [], False
    for line in lines:
        is_ours = line.startswith(_OURS) or (is_ours and line.startswith(_FRAME))
        if not is_ours:
            kept.append(line)
    return kept
