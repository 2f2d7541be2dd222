"""What is to be done at once: the effects that follow from the events of a turn."""

from __future__ import annotations

import msgspec

from jobd.model.messages import Reply
from jobd.model.orders import Order


class Effects(msgspec.Struct):
    """What is to be done now."""

    orders: list[tuple[str, Order]] = []
    replies: list[tuple[bytes, Reply]] = []
    spawn: list[str] = []
    """Workers to start, by uid."""
    kill: list[tuple[str, int, int]] = []
    """Workers to kill, and the attempt (job, attempt) for whose sake; (0, 0): whatever they run.

    For the sake of an attempt only while they run it: no other job may suffer.
    """

    def take(self) -> Effects:
        """Return all of it; what follows from now on is for the next time."""
        taken = Effects(self.orders, self.replies, self.spawn, self.kill)
        self.orders, self.replies, self.spawn, self.kill = [], [], [], []
        return taken
