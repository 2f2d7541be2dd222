"""Which part of a value is told to be why it cannot travel."""

from __future__ import annotations

import pickle
import threading
from typing import Any

from jobd.client.blame import blamed


def test_the_innermost_part_is_blamed() -> None:
    """With the expression that leads to it."""
    value = {"jobs": [1, {"lock": threading.Lock()}]}
    assert (
        blamed({"argument 1": value}, pickle.dumps)
        == "argument 1['jobs'][1]['lock'] (_thread.lock)"
    )


def test_what_is_nested_too_deeply_is_blamed_as_a_whole() -> None:
    """Not its thousandth part, with a path of as many steps, after as many tries."""
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    assert blamed({"argument 1": [1, value]}, pickle.dumps) == "argument 1 (list)"
