"""How a client waits: asleep, but for a moment if the last answer came within one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobd.client import sync as module
from jobd.client.sync import SOON_S, Client

LOOK_S = SOON_S / 8


class Poll:
    """What a client polls, and its clock: something comes ``comes_s`` after the start."""

    def __init__(self, comes_s: float) -> None:
        self.now_s = 100.0
        self.timeouts: list[float] = []
        self._comes_s = self.now_s + comes_s

    def poll(self, timeout_ms: float) -> list[tuple[int, int]]:
        """Look, or wait: both take time."""
        self.timeouts.append(timeout_ms)
        until_s = self.now_s + max(LOOK_S, timeout_ms / 1000)
        self.now_s = min(until_s, max(self.now_s, self._comes_s)) if timeout_ms else until_s
        return [(7, 1)] if self.now_s >= self._comes_s else []


def wait(
    monkeypatch: pytest.MonkeyPatch, *, comes_s: float, soon: bool, timeout_s: float = 5.0
) -> tuple[list[float], bool]:
    """Have a client wait; return what it polled for, and whether it expects the next answer soon."""
    poll = Poll(comes_s)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: poll.now_s))
    client: Any = SimpleNamespace(_comes_soon=soon)
    Client._wait_at(cast("Client", client), cast("Any", poll), timeout_s)
    return poll.timeouts, client._comes_soon


@pytest.fixture(autouse=True)
def _parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have several processors, whatever the machine has."""
    monkeypatch.setattr(module, "IS_PARALLEL", True)


@pytest.mark.parametrize("comes_s", [SOON_S / 2, SOON_S * 2])
def test_what_came_late_before_is_slept_for(
    monkeypatch: pytest.MonkeyPatch, comes_s: float
) -> None:
    """If it comes soon this time, the next one is expected to."""
    assert wait(monkeypatch, comes_s=comes_s, soon=False) == ([5_000], comes_s < SOON_S)


def test_what_came_soon_before_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to wake up then."""
    assert wait(monkeypatch, comes_s=LOOK_S * 3, soon=True) == ([0, 0, 0], True)


def test_it_is_looked_for_in_vain_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long job costs the client a moment of a processor, and the next wait none."""
    timeouts, soon = wait(monkeypatch, comes_s=1.0, soon=True)
    assert timeouts[-1] == 5_000
    assert set(timeouts[:-1]) == {0}
    assert len(timeouts) - 1 <= SOON_S / LOOK_S + 1
    assert not soon


def test_nobody_looks_for_longer_than_he_would_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout may be shorter than that moment."""
    timeouts, _ = wait(monkeypatch, comes_s=1.0, soon=True, timeout_s=LOOK_S)
    assert timeouts == [0, LOOK_S * 1000]


def test_with_one_processor_every_wait_is_slept_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could answer meanwhile."""
    monkeypatch.setattr(module, "IS_PARALLEL", False)
    assert wait(monkeypatch, comes_s=SOON_S / 2, soon=False) == ([5_000], False)
