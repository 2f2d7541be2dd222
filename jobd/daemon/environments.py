"""The variables of jobs: each set of them is in the store once, and jobs have its digest.

What a submit says is here from the moment that its words are understood until they are
forgotten (``forget``), in the batch that stores its jobs, and from then on in the store.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jobd.model.environment import decoded, digest_of, encoded, masked
from jobd.model.errors import StoreFailed
from jobd.model.options import Policy
from jobd.model.orders import Run, Surroundings
from jobd.scheduler.ledger import Ledger
from jobd.store import Store

MOST_BYTES = 8 * 1024 * 1024
"""What is kept in memory of them, and as much of those that were read."""


class Environments:
    """All of them."""

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._ledger = ledger
        self._store = store
        self._said: dict[bytes, bytes] = {}
        """Those of the submits whose words are remembered."""
        self._said_bytes = 0
        self._read: dict[bytes, bytes] = {}
        """Those that were read last."""
        self._read_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to forget what was said."""
        return self._said_bytes > MOST_BYTES

    def forget(self) -> None:
        """Forget what was said; what jobs were taken in with is in the store, or on its way."""
        self._said.clear()
        self._said_bytes = 0

    def keep(self, data: bytes) -> bytes:
        """Keep what a submit says; return its digest."""
        digest = digest_of(data)
        self._said[digest] = data
        return digest

    def count(self, size: int) -> None:
        """Take note that the words of one more submit are remembered, with what they say of variables."""
        self._said_bytes += size

    def record(self, policies: Iterable[Policy | None]) -> None:
        """Have the variables stored with the jobs with these policies, that were just taken in."""
        for policy in policies:
            if policy is not None and policy.env:
                self._ledger.batch.environments[policy.env] = self.of(policy.env)

    def of(self, digest: bytes) -> bytes:
        """Return variables, encoded.

        Raises:
            StoreFailed: they are not in the store any more.
        """
        flying = self._ledger.in_flight
        places = [self._said, self._ledger.batch.environments, self._read]
        places += [flying.environments] if flying is not None else []
        for place in places:
            if digest in place:
                return place[digest]
        data = self._store.environment(digest)
        if data is None:
            raise StoreFailed("the variables of a job are not in the store", "restore a backup")
        if self._read_bytes > MOST_BYTES:
            self._read.clear()
            self._read_bytes = 0
        self._read[digest] = data
        self._read_bytes += len(data)
        return data

    def feed(self, run: Run) -> None:
        """Put the variables of jobs into an order that goes to a worker."""
        for task in run.tasks:
            around = task.surroundings
            if around is not None and around.env and around.env not in run.environments:
                run.environments[around.env] = self.of(around.env)

    def around(self, policy: Policy | None) -> Surroundings | None:
        """Return what jobs with a policy are given, with the variables themselves."""
        found = Surroundings.of(policy) if policy is not None else None
        if found is None or not found.env:
            return found
        return msgspec.structs.replace(found, env=self.of(found.env))

    def shown(self, policy: Policy | None) -> Policy | None:
        """Return a policy as people may see it, with its variables, but for what looks secret."""
        if policy is None or not policy.env:
            return policy
        shown = encoded(masked(decoded(self.of(policy.env))))
        return msgspec.structs.replace(policy, env=shown)
