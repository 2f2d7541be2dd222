"""How long will a job take: learned for each function, unknown means long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.scheduler import forecast, supply
from jobd.scheduler.forecast import FLOOR_US, UNKNOWN_US, Forecast


def test_a_function_that_never_ran_is_expected_to_take_long() -> None:
    """So that its first job is handed out alone."""
    assert Forecast().expected_us("m:f") == UNKNOWN_US > supply.SHORT_US


def test_the_first_job_tells_what_to_expect() -> None:
    """From then on the function is known."""
    known = Forecast()
    known.learn("m:f", 300)
    assert known.expected_us("m:f") == 300
    assert known.expected_us("m:other") == UNKNOWN_US


def test_a_few_long_jobs_make_a_short_function_long() -> None:
    """The average follows what happens now, not what happened once."""
    known = Forecast()
    for _ in range(1000):
        known.learn("m:f", 20)
    known.learn("m:f", 100_000)
    assert known.expected_us("m:f") > supply.SHORT_US
    for _ in range(40):
        known.learn("m:f", 20)
    assert known.expected_us("m:f") < supply.SHORT_US


def test_what_several_took_together_counts_as_much_as_one_by_one() -> None:
    """The outcomes of a frame are learned from in one step."""
    together, one_by_one = Forecast(), Forecast()
    for known in (together, one_by_one):
        known.learn("m:f", 1_000)
    together.learn("m:f", 5 * 100, 5)
    for _ in range(5):
        one_by_one.learn("m:f", 100)
    assert together.expected_us("m:f") == pytest.approx(one_by_one.expected_us("m:f"))
    together.learn("m:f", 0, 0)
    assert together.expected_us("m:f") == pytest.approx(one_by_one.expected_us("m:f"))


def test_even_an_empty_job_costs_something() -> None:
    """Else a worker could be handed any number of them."""
    known = Forecast()
    for _ in range(50):
        known.learn("m:f", 0)
    assert known.expected_us("m:f") == FLOOR_US


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_the_average_stays_between_the_extremes(durations: list[int]) -> None:
    """Whatever was measured."""
    known = Forecast()
    for duration in durations:
        known.learn("m:f", duration)
    least, most = max(FLOOR_US, min(durations)), max(FLOOR_US, *durations)
    assert least - 1 <= known.expected_us("m:f") <= most + 1


def test_memory_does_not_grow_with_the_number_of_functions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that makes up references must not fill the daemon."""
    monkeypatch.setattr(forecast, "_MOST_FUNCTIONS", 10)
    known = Forecast()
    for number in range(100):
        known.learn(f"m:f{number}", 50)
        assert len(known._average) <= 10
    assert known.expected_us("m:f99") == 50
