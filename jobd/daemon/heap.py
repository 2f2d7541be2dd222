"""The daemon's own memory: what was needed for somebody who has left goes back to the kernel.

libc keeps what is freed for later.  That is quick, and of no use to anybody if one client
in a year asks for gigabytes.
"""

from __future__ import annotations

import os

from jobd.pool import linux

MUCH_BYTES = 16 * 1024 * 1024


class Heap:
    """When to give memory back."""

    def __init__(self) -> None:
        self._lean_bytes = linux.rss_bytes(os.getpid())
        """What we had after it was done last."""
        self._has_ended = False

    def has_ended(self) -> None:
        """Something is over for which memory may have been needed."""
        self._has_ended = True

    def look(self) -> None:
        """Give back what is not needed, if it can be much; called about once a second."""
        if not self._has_ended:
            return
        self._has_ended = False
        if linux.rss_bytes(os.getpid()) > self._lean_bytes + MUCH_BYTES:
            linux.trim()
            self._lean_bytes = linux.rss_bytes(os.getpid())
