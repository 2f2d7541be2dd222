"""How long a job is expected to take."""

from __future__ import annotations

from jobd.scheduler.forecast import FLOOR_US, UNKNOWN_US, Forecast


def test_an_unknown_function_is_expected_to_be_long() -> None:
    """So that nothing is handed out behind it."""
    assert Forecast().expected_us("m:f") == UNKNOWN_US


def test_the_first_outcome_counts_in_full_and_later_ones_in_part() -> None:
    """A moving average: one slow run does not make a fast function slow, but it shows."""
    forecast = Forecast()
    forecast.learn("m:f", 100)
    assert forecast.expected_us("m:f") == 100
    forecast.learn("m:f", 500)
    assert 100 < forecast.expected_us("m:f") < 500


def test_nothing_is_expected_to_be_free() -> None:
    """Even an empty job costs the worker something."""
    forecast = Forecast()
    forecast.learn("m:f", 0)
    assert forecast.expected_us("m:f") == FLOOR_US
