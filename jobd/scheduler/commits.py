"""When the open batch is stored.

At once, as a rule, if the disk is free.  A batch that holds only jobs which are expected to end
soon is *patient*: it waits for their ends, to be one commit instead of two.  After a failure
what was kept waits for a while, but a new submit is tried at once, to be refused if need be.
"""

from __future__ import annotations

from jobd.scheduler.ledger import Ledger

RETRY_STORE_US = 1_000_000
"""After the disk was full: when to try again."""

LOCKED_US = 3_000_000
"""How long submits wait for a store that another process has locked, before they are refused."""

RETRY_LOCKED_US = 20_000


class Commits:
    """Says when to store."""

    def __init__(self, ledger: Ledger) -> None:
        self.now = 0
        self._ledger = ledger
        self._store_at = 0
        """After a failure: when to try again; else 0."""
        self._locked_at = 0
        """Since when another process has had the store locked; 0: it has not."""
        self._try_at = 0
        """Until then nothing is tried, as it is locked."""

    def times(self) -> list[int]:
        """Return when the open batch is to be stored, if it is not now."""
        batch, try_at = self._ledger.batch, self._try_at
        times = [try_at] if try_at > self.now else []
        if not batch.urgent:
            times.append(max(batch.patient_until, try_at))
        if self._store_at:
            times.append(max(self._store_at, try_at))
        return times

    def is_due(self) -> bool:
        """Whether the open batch should be stored now (given that the disk is free)."""
        batch = self._ledger.batch
        if not batch or self.now < self._try_at:
            return False
        if self._store_at and not batch.submissions:
            return self.now >= self._store_at
        return batch.urgent or self.now >= batch.patient_until

    def is_awaited(self) -> bool:
        """Whether the open batch is stored as soon as jobs have ended that are about to."""
        patient = not self._ledger.batch.urgent and not self._store_at
        return patient and bool(self._ledger.batch) and self.now >= self._try_at

    def puts_off(self) -> bool:
        """The store is locked by somebody else: whether that is waited for, for a while more."""
        self._locked_at = self._locked_at or self.now
        waits = self.now < self._locked_at + LOCKED_US
        if waits:
            self._try_at = self.now + RETRY_LOCKED_US
        return waits

    def succeeded(self) -> None:
        """A commit has come about."""
        self._locked_at = 0
        self._store_at = 0

    def failed(self) -> None:
        """A commit was rolled back."""
        self._store_at = self.now + RETRY_STORE_US
