"""How long will a job take?  A moving average for each function; unknown means long."""

from __future__ import annotations

UNKNOWN_US = 1_000_000.0
"""What a function that never ran is expected to take: long enough to be handed out alone."""

FLOOR_US = 5.0
"""What even an empty job costs a worker: decoding, the call, the outcome."""

_REMEMBERED = 0.75
"""What is left of an average after one more job."""

_MOST_FUNCTIONS = 10_000


class Forecast:
    """Expected running times, in microseconds, learned from outcomes."""

    def __init__(self) -> None:
        self._average: dict[str, float] = {}

    def expected_us(self, function: str) -> float:
        """Return the expected running time of one job of this function."""
        return self._average.get(function, UNKNOWN_US)

    def learn(self, function: str, took_us: int, count: int = 1) -> None:
        """Take measured running times into the average: what so many jobs took together."""
        if not count:
            return
        average = self._average
        known = average.get(function)
        mean_us = took_us / count
        if known is None:
            if len(average) >= _MOST_FUNCTIONS:
                average.clear()  # it is learned again within a few jobs
        else:
            mean_us += (known - mean_us) * _REMEMBERED**count
        average[function] = max(FLOOR_US, mean_us)
