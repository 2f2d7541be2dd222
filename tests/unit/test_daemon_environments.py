"""Where the variables of jobs are: said, on their way to the store, stored."""

from __future__ import annotations

from typing import Any

import pytest

from jobd.daemon import environments
from jobd.daemon.environments import Environments
from jobd.model.environment import MASK, decoded, digest_of, encoded
from jobd.model.errors import StoreFailed
from jobd.model.options import Policy
from jobd.model.orders import Run, Surroundings, Task
from jobd.scheduler.ledger import Ledger

DATA = encoded({"FOO": "bar", "API_TOKEN": "hush"})
DIGEST = digest_of(DATA)


class Desk:
    """Variables, a ledger, and a store that counts how often it is read."""

    def __init__(self) -> None:
        self.stored: dict[bytes, bytes] = {}
        self.reads = 0
        self.ledger = Ledger(1, {}, 1)
        store: Any = self
        self.environments = Environments(self.ledger, store)

    def environment(self, digest: bytes) -> bytes | None:
        """Read the store."""
        self.reads += 1
        return self.stored.get(digest)

    def submit(self) -> None:
        """Take in a job."""
        assert self.environments.keep(DATA) == DIGEST
        self.environments.record([None, Policy(), Policy(env=DIGEST)])


def test_they_are_found_wherever_they_are() -> None:
    """Also when what was said is forgotten, before the commit, while it is in flight, and after it."""
    desk = Desk()
    desk.submit()
    assert desk.ledger.batch.environments == {DIGEST: DATA}
    desk.environments.forget()
    assert desk.environments.of(DIGEST) == DATA
    desk.ledger.in_flight = desk.ledger.take()
    assert desk.ledger.batch.environments == {}
    assert desk.environments.of(DIGEST) == DATA
    assert desk.reads == 0
    desk.ledger.in_flight = None
    desk.stored[DIGEST] = DATA
    assert [desk.environments.of(DIGEST) for _ in range(3)] == [DATA] * 3
    assert desk.reads == 1


def test_a_commit_that_failed_keeps_them_for_the_next() -> None:
    """An order that has not left yet may be about one of its jobs."""
    desk = Desk()
    desk.submit()
    desk.environments.forget()
    desk.ledger.in_flight = desk.ledger.take()
    desk.ledger.lost({})
    assert desk.environments.of(DIGEST) == DATA


def test_those_that_are_gone_are_an_error() -> None:
    """A job must not run without them."""
    with pytest.raises(StoreFailed):
        Desk().environments.of(DIGEST)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what was said, which is forgotten, and by what was read."""
    monkeypatch.setattr(environments, "MOST_BYTES", 100)
    desk = Desk()
    full = []
    for size in (100, 1):
        desk.environments.count(size)
        full.append(desk.environments.is_full)
    desk.environments.forget()
    assert [*full, desk.environments.is_full] == [False, True, False]
    many = {bytes([n]): bytes(60) for n in range(10)}
    desk.stored.update(many)
    for digest in many:
        assert desk.environments.of(digest) == bytes(60)
    assert desk.reads == 10
    assert desk.environments.of(b"\x00") == bytes(60)
    assert desk.reads == 11


def test_an_order_gets_each_set_once_and_people_no_secret() -> None:
    """Tasks have the digest."""
    desk = Desk()
    desk.submit()
    around = Surroundings(DIGEST)
    run = Run("b", [Task(1, 1, "f", b"", surroundings=around), Task(2, 1, "f", b"")])
    run.tasks.append(Task(3, 1, "f", b"", surroundings=around))
    desk.environments.feed(run)
    assert run.environments == {DIGEST: DATA}
    shown = desk.environments.shown(Policy(env=DIGEST, cwd="/"))
    assert shown is not None
    assert (decoded(shown.env), shown.cwd) == ({"FOO": "bar", "API_TOKEN": MASK}, "/")
    assert desk.environments.shown(None) is None
    assert desk.environments.around(Policy(env=DIGEST, argv=["a"])) == Surroundings(
        DATA, argv=["a"]
    )
    assert desk.environments.around(Policy()) is None
