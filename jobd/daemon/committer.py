"""The thread that waits for the disk, and does nothing else.

A thread that has to be woken, and has to wake another, costs as much as the disk
itself when a lone job is all there is to store.  For that the loop commits by
itself, as long as the disk is quick.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from jobd.model.errors import JobdError, StoreFailed

SWITCH_INTERVAL_S = 0.0001
"""How long the thread waits for the GIL after the disk is done, while the loop is busy.

Python's own 5 ms would be ten times what the commit itself takes.
"""


class Committer:
    """Runs one blocking COMMIT at a time; its end makes ``fd`` readable."""

    def __init__(self, commit: Callable[[], None]) -> None:
        self._commit = commit
        self._wanted: SimpleQueue[bool] = SimpleQueue()
        self._error: JobdError | None = None
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.busy = False
        self.took_s = float("inf")
        """How long the last commit took."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread = threading.Thread(target=self._run, name="jobd-commit", daemon=True)
        self._thread.start()

    def commit_here(self) -> JobdError | None:
        """Commit in this thread; return the error, or None.  Two hand-overs between threads less."""
        self._commit_timed()
        return self._error

    def start(self) -> None:
        """Commit what the store has written; ``busy`` until ``finish`` was called."""
        self.busy = True
        self._wanted.put(True)

    def finish(self) -> JobdError | None:
        """Take note that the commit is over; return its error, or None."""
        os.eventfd_read(self.fd)
        self.busy = False
        return self._error

    def is_over(self, timeout_s: float) -> bool:
        """Wait for the commit that is under way, if one is; return whether none is any more."""
        return not self.busy or bool(select.select([self.fd], [], [], timeout_s)[0])

    def close(self) -> None:
        """End the thread; a commit that is under way is waited for."""
        self._wanted.put(False)
        self._thread.join()
        os.close(self.fd)

    def _run(self) -> None:
        while self._wanted.get():
            self._commit_timed()
            os.eventfd_write(self.fd, 1)

    def _commit_timed(self) -> None:
        began = time.perf_counter()
        try:
            self._commit()
            self._error = None
        except JobdError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001  # the loop must hear of it, whatever it is
            self._error = StoreFailed(
                f"the commit failed: {error!r}", "jobd has to be started again"
            )
        self.took_s = time.perf_counter() - began
