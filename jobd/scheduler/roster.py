"""The workers as the scheduler sees them: who has what in hand, and who has room."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from jobd.model.job import Job, Usage


class Phase(IntEnum):
    """Where a worker is in its life."""

    STARTING = 1  # asked for, has not reported yet
    READY = 2
    RETIRING = 3  # gets no more jobs, ends when its hands are empty
    ORPHAN = 4  # of a dead daemon; has not handed over yet


class Worker(msgspec.Struct):
    """One worker process."""

    uid: str
    phase: Phase
    pid: int = 0
    assigned: dict[int, Job] = {}
    """Jobs handed to it that have neither ended nor come back, in the order it runs them."""
    load_us: float = 0.0
    load_bytes: int = 0
    """The arguments of what it has in hand."""
    stall_at: int = 0
    """µs; with several jobs in hand and no sign of progress by then, it is asked to give them back."""
    stalled: bool = False
    """It was asked, and gets nothing ahead of time until it makes progress again."""
    is_single_use: bool = False
    """What it has in hand has limits that cannot be lifted again: it gets nothing else."""
    done: int = 0
    """How many attempts it has handed in."""
    sent: int = 0
    """How many orders to run it was sent."""
    adopted: bool = False
    """A daemon that is dead had started it."""
    unsent: int = 0
    """Jobs among the assigned whose order to run waits for a commit."""
    waiting: Job | None = None
    """The job that it runs waits for others: its slot is lent to another worker."""
    keeper: Job | None = None
    """Of the assigned the one that has the slot, and the places at gates, that its heirs take over."""
    awaited: list[int] = []
    """Those others, as far as they are known, and the inputs that they wait for themselves."""

    @property
    def is_active(self) -> bool:
        """Whether it takes a slot: it has jobs in hand, and the one that it runs does not wait."""
        return bool(self.assigned) and self.waiting is None

    @property
    def heir(self) -> Job | None:
        """The first of those that take over places."""
        if self.keeper is None:
            return None
        return next((job for job in self.assigned.values() if job.is_heir), None)

    @property
    def has_more_than_one(self) -> bool:
        """Whether there is something in its hands that it has not come to: a job, or an item of a stretch."""
        sent = len(self.assigned) - self.unsent
        if sent != 1:
            return sent > 1
        return next(iter(self.assigned.values())).count > 1

    def stretch_of(self, number: int) -> Job | None:
        """Return the stretch in its hands that an item is of, which is the first there."""
        head = next(iter(self.assigned.values()), None)
        if head is None or head.count == 1:
            return None
        return head if head.id <= number < head.id + head.count else None


class Death(msgspec.Struct):
    """What was seen of a worker's death."""

    cause: str
    """``SIGSEGV``, ``exit code 3``, …"""
    running: tuple[int, int] = (0, 0)
    """The attempt (job, attempt) it was in; (0, 0): none."""
    unknown: bool = False
    """Nobody can tell what it was in (the machine went down): all it had counts."""
    started_at: int = 0
    tail: str = ""
    """The last lines that the attempt wrote."""
    log: tuple[str, int, int, int] | None = None
    """Log file, first byte, byte after the last, bytes that were not kept."""
    usage: Usage | None = None
    by_rlimit: bool = False
    """A limit of memory was enforced by rlimit, which kills nobody, so that nothing names it."""
