"""How the loop waits: asleep, but for a moment in which something is most likely about to come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobd.daemon import loop as module
from jobd.daemon.loop import Loop

SPINS = 5


class Poller:
    """What the loop polls: it notes the timeouts, and is ready at the look that a test says."""

    def __init__(self, ready_at: int) -> None:
        self.timeouts: list[int] = []
        self._ready_at = ready_at

    def poll(self, timeout_ms: int) -> list[tuple[int, int]]:
        """Look, or wait: a wait ends with something."""
        self.timeouts.append(timeout_ms)
        return [(7, 1)] if timeout_ms or len(self.timeouts) == self._ready_at else []


def wait(
    *,
    awaited: bool,
    comes_back: bool,
    busy: bool = False,
    ready_at: int = 0,
) -> Any:
    """Have a loop wait that would sleep for 500 ms; return what it has of itself then."""
    loop = SimpleNamespace(
        scheduler=SimpleNamespace(commits=SimpleNamespace(is_awaited=lambda: awaited)),
        committer=SimpleNamespace(busy=busy),
        pool=SimpleNamespace(fds=lambda: ()),
        _comes_back=comes_back,
        doors=[],
        workers=SimpleNamespace(router=SimpleNamespace(is_ready=False)),
        _pool_fds=set[int](),
        _poller=Poller(ready_at),
        _timeout_ms=lambda: 500,
    )
    loop._is_short_wait = lambda: Loop._is_short_wait(cast("Loop", loop))
    loop._spin = lambda: Loop._spin(cast("Loop", loop))
    assert Loop._poll(cast("Loop", loop)) == {7: 1}
    return loop


@pytest.fixture(autouse=True)
def _spins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have several processors, whatever the machine has."""
    monkeypatch.setattr(module, "SPINS", SPINS)


@pytest.mark.parametrize("busy", [False, True])
def test_a_loop_with_nothing_to_expect_sleeps_at_once(*, busy: bool) -> None:
    """Nor does it look for anything while the disk is written: that takes longer."""
    assert wait(awaited=busy, comes_back=busy, busy=busy)._poller.timeouts == [500]


@pytest.mark.parametrize(("awaited", "comes_back"), [(True, False), (False, True)])
def test_what_is_about_to_come_is_looked_for(*, awaited: bool, comes_back: bool) -> None:
    """The end of a lone short job, and the next request of a client that asks one after the other."""
    loop = wait(awaited=awaited, comes_back=comes_back, ready_at=3)
    assert loop._poller.timeouts == [0, 0, 0]
    assert loop._comes_back == comes_back


def test_with_one_processor_every_wait_is_slept_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for could not run meanwhile."""
    monkeypatch.setattr(module, "SPINS", 0)
    assert wait(awaited=True, comes_back=True)._poller.timeouts == [500]


def test_it_is_looked_for_in_vain_only_so_long() -> None:
    """A client that was not back so soon is not expected again."""
    loop = wait(awaited=False, comes_back=True)
    assert loop._poller.timeouts == [0] * SPINS + [500]
    assert not loop._comes_back


@pytest.mark.parametrize(
    ("now_ns", "wall_us"), [(-5_000_000_000, 1), (0, 1), (1_999, 1), (7_000_000, 7_000)]
)
def test_a_clock_before_1970_is_wrong(
    now_ns: int, wall_us: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store takes 0 for "not yet", and has nothing before it."""
    monkeypatch.setattr("time.time_ns", lambda: now_ns)
    assert module.wall_us() == wall_us
