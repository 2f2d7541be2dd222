"""Writing what must not be cut: a JSON value of which a part is on stdout already."""

from __future__ import annotations

import signal
from types import FrameType


class Undivided:
    """What is written within is written whole: a Ctrl-C comes after it, unless there is a second one."""

    def __enter__(self) -> None:
        self._came = False
        self._before = signal.signal(signal.SIGINT, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = True

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)
        if self._came:
            raise KeyboardInterrupt
