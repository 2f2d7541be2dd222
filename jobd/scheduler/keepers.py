"""Those who keep jobs: an end, or a change from outside, concerns each of them."""

from __future__ import annotations

from dataclasses import dataclass

from jobd.scheduler.arrays import Arrays
from jobd.scheduler.blocked import Blocked
from jobd.scheduler.ledger import Ledger
from jobd.scheduler.streams import Streams
from jobd.scheduler.timers import Timers
from jobd.scheduler.window import Window


@dataclass(frozen=True)
class Keepers:
    """What is to be stored, what is in memory, what waits for its time or for others, what streams, arrays."""

    ledger: Ledger
    window: Window
    timers: Timers
    blocked: Blocked
    streams: Streams
    arrays: Arrays
