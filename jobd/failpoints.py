"""Places where a test may make the process fail: ``JOBD_FAILPOINT=name:action[:nth]``.

``action`` is ``kill`` (SIGKILL to this process), ``exit`` (``os._exit(70)``),
``stop`` (SIGSTOP), or ``raise`` (OSError); ``nth`` counts from 1, the default.
Every edge in the life of a job that a crash could tear is named in ``NAMES``; a
test walks that list, so a new name is tested the day it is added.
"""

from __future__ import annotations

import os
import signal

NAMES = (
    "submit.received",
    "submit.accepted",
    "batch.taken",
    "batch.written",
    "batch.committing",
    "batch.committed",
    "batch.told",
    "dispatch.sent",
    "outcomes.received",
    "worker.spawned",
    "worker.dead",
    "cancel.decided",
    "start.locked",
    "start.recovered",
    "stop.draining",
    "stop.closed",
)
"""In the daemon."""

WORKER_NAMES = (
    "worker.started",
    "job.taken",
    "job.ended",
    "outcomes.sending",
    "outcomes.sent",
)
"""In a worker."""

STREAM_NAMES = ("produced.sending", "produced.received")
"""In a worker and in the daemon, for each item of a stream."""


class _Armed:
    """A failpoint that was asked for."""

    def __init__(self, text: str) -> None:
        name, _, rest = text.partition(":")
        action, colon, nth = rest.partition(":")
        left = int(nth) if nth.isdecimal() else 0 if colon else 1
        known = name in NAMES + WORKER_NAMES + STREAM_NAMES and action in (
            "kill",
            "exit",
            "stop",
            "raise",
        )
        if not (known and left):
            raise SystemExit(f"JOBD_FAILPOINT={text}: no such failpoint, action or number")
        self.name, self.action, self.left = name, action, left

    def __call__(self, name: str) -> None:
        if name != self.name:
            return
        self.left -= 1
        if self.left == 0:
            self._fail()

    def _fail(self) -> None:
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.action == "exit":
            os._exit(70)
        else:
            raise OSError(f"failpoint {self.name}")


def _nothing(name: str) -> None:
    """Cost next to nothing when no failpoint is set."""


_TEXT = os.environ.get("JOBD_FAILPOINT")
hit = _Armed(_TEXT) if _TEXT else _nothing
