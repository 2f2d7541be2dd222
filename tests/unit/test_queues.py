"""Queues: rates as they are written, and when a job of a queue may start."""

from __future__ import annotations

import random

import pytest

from jobd.model.errors import UsageError
from jobd.model.queues import Rate, parse_rate
from jobd.scheduler.queues import SLACK_US, Override, Queues, Rule

SECOND = 1_000_000
WINDOW = SECOND + SLACK_US
"""For how long a start counts where the rate is for a second."""


def start(queues: Queues, now_us: int, name: str = "etl") -> None:
    """Hand out a job, with an order that leaves at once."""
    queues.started(name)
    queues.left(name, now_us)


@pytest.mark.parametrize(
    ("text", "count", "per_us"),
    [
        ("10/s", 10, SECOND),
        ("100/m", 100, 60 * SECOND),
        ("5000/h", 5000, 3600 * SECOND),
        ("1/d", 1, 86400 * SECOND),
        ("3/10s", 3, 10 * SECOND),
        ("3/1h30m", 3, 5400 * SECOND),
        ("7/ms", 7, 1000),
        (" 10000/s ", 10_000, SECOND),
        ("2/0.5s", 2, SECOND // 2),
    ],
)
def test_a_rate_is_a_count_over_a_time(text: str, count: int, per_us: int) -> None:
    """The time is a unit, or a duration as everywhere."""
    assert parse_rate(text) == Rate(count, per_us)


@pytest.mark.parametrize(
    "text",
    ["", "10", "/s", "10/", "10/x", "-1/s", "1.5/s", "0/s", "10/0s", "10/s/s", "10 per s", "٣/s"],
)
def test_what_is_no_rate_is_refused_with_examples(text: str) -> None:
    """One sentence, and how to write it."""
    with pytest.raises(UsageError, match="is not a rate") as caught:
        parse_rate(text)
    assert "10/s" in caught.value.hint


def test_a_rate_counts_ten_thousand_jobs_at_most() -> None:
    """As many starts are remembered; the same rate can be said with a shorter time."""
    with pytest.raises(UsageError, match="more than 10000") as caught:
        parse_rate("10001/m")
    assert "shorter time" in caught.value.hint


def test_there_is_always_a_default_queue_without_limits() -> None:
    """Also after it was removed: it only loses its rules then."""
    queues = Queues()
    assert queues.is_known("default")
    assert not queues.is_known("etl")
    assert queues.opens_at("default", 0) == 0
    queues.override("default", Override(paused=True))
    assert queues.opens_at("default", 0) is None
    queues.restore("default")
    assert queues.rules == {"default": Rule()}


def test_as_long_as_there_is_only_a_free_default_nothing_is_counted() -> None:
    """Most users have no queues, and pay one test for them."""
    assert not Queues().counts
    assert Queues({"etl": Rule()}).counts
    assert Queues({"default": Rule(slots=1)}).counts
    queues = Queues()
    queues.override("etl", Override())
    assert queues.counts
    queues.restore("etl")
    assert queues.counts  # what was counted must be counted to its end


def test_a_queue_that_is_not_known_any_more_meets_no_limit() -> None:
    """Its jobs still wait in the store: they must not wait for ever."""
    queues = Queues(overrides={"etl": Override(slots=1, paused=True)})
    start(queues, 0)
    queues.restore("etl")
    assert not queues.is_known("etl")
    assert not queues.is_limited("etl")
    assert queues.opens_at("etl", 0) == 0
    queues.ended("etl")


@pytest.mark.parametrize(
    "rule", [Rule(slots=1), Rule(rate="1/s"), Rule(paused=True), Rule(2, "1/s", paused=True)]
)
def test_slots_a_rate_and_a_pause_are_limits(rule: Rule) -> None:
    """Each of them may keep a job from being started."""
    queues = Queues({"etl": rule})
    assert queues.is_limited("etl")
    queues.override("etl", Override(0, "", paused=False))
    assert not queues.is_limited("etl")


def test_a_paused_queue_opens_by_an_event_only() -> None:
    """Whatever its slots and its rate would allow."""
    queues = Queues({"etl": Rule(slots=2, rate="5/s", paused=True)})
    assert queues.opens_at("etl", 0) is None
    queues.override("etl", Override(paused=False))
    assert queues.opens_at("etl", 0) == 0


def test_a_queue_whose_slots_are_taken_opens_when_a_job_ends() -> None:
    """No other queue is concerned."""
    queues = Queues({"etl": Rule(slots=2), "mail": Rule(slots=1)})
    start(queues, 0)
    assert queues.opens_at("etl", 0) == 0
    start(queues, 0)
    assert queues.opens_at("etl", 10 * SECOND) is None
    assert queues.opens_at("mail", 0) == 0
    queues.ended("etl")
    assert queues.opens_at("etl", 0) == 0
    assert queues.running("etl") == 1


def test_a_rate_opens_when_the_oldest_start_leaves_the_window() -> None:
    """Not earlier by a microsecond; the end of a job has nothing to do with it."""
    queues = Queues({"etl": Rule(rate="2/s")})
    start(queues, 100)
    queues.ended("etl")
    start(queues, 400)
    queues.ended("etl")
    assert queues.opens_at("etl", 500) == WINDOW + 100
    assert queues.opens_at("etl", WINDOW + 99) == WINDOW + 100
    assert queues.opens_at("etl", WINDOW + 100) == 0
    start(queues, WINDOW + 100)
    assert queues.opens_at("etl", WINDOW + 100) == WINDOW + 400


def test_a_start_counts_from_the_moment_in_which_its_order_leaves() -> None:
    """Which may have to wait for the disk; until then it takes a place, and nothing is known of its end."""
    queues = Queues({"etl": Rule(rate="2/s")})
    start(queues, 0)
    queues.started("etl")
    assert queues.opens_at("etl", 10) == WINDOW  # when the first one has left the window
    queues.ended("etl")
    queues.ended("etl")
    queues.started("etl")
    assert queues.opens_at("etl", SECOND) == SECOND + WINDOW  # no sooner: both may leave only now
    queues.left("etl", SECOND + 500)
    queues.left("etl", SECOND + 700)
    assert queues.opens_at("etl", 2 * SECOND) == SECOND + 500 + WINDOW
    assert queues.opens_at("etl", SECOND + 500 + WINDOW) == 0


def test_an_order_that_never_leaves_is_no_start() -> None:
    """Its worker has died before, or its submit has failed."""
    queues = Queues({"etl": Rule(rate="1/s")})
    queues.started("etl")
    assert queues.opens_at("etl", 0) == WINDOW
    queues.ended("etl")
    queues.withdrawn("etl")
    assert queues.opens_at("etl", 0) == 0
    start(queues, 5)
    assert queues.opens_at("etl", 5) == WINDOW + 5


def test_what_was_handed_out_before_there_was_a_rate_starts_under_it() -> None:
    """Its order waits for the disk while the rate is set; that of one handed out since leaves behind it."""
    queues = Queues({"etl": Rule(slots=9)})
    queues.started("etl")
    queues.override("etl", Override(rate="2/s"))
    queues.started("etl")
    assert queues.opens_at("etl", 0) == WINDOW
    queues.left("etl", 10)
    queues.left("etl", 20)
    assert queues.opens_at("etl", 30) == WINDOW + 10


def test_what_has_started_counts_although_all_else_that_was_said_is_forgotten() -> None:
    """``--reset`` with the same rate must not let a job more start."""
    queues = Queues({"etl": Rule(slots=1)})
    queues.override("etl", Override(slots=3, rate="1/s"))
    start(queues, 5)
    queues.override("etl", Override(rate="1/s"), anew=True)
    assert queues.rules["etl"] == Rule(slots=1, rate="1/s")
    queues.ended("etl")
    assert queues.opens_at("etl", 10) == WINDOW + 5


def test_who_goes_on_takes_a_slot_and_is_no_start() -> None:
    """A job that had lent its slot, or that a daemon before had started; there may be too many then."""
    queues = Queues({"etl": Rule(slots=1, rate="1/s")})
    start(queues, 0)
    queues.ended("etl")  # it waits for others
    start(queues, SECOND)
    queues.goes_on("etl")
    assert queues.running("etl") == 2
    assert queues.opens_at("etl", 2 * SECOND) is None
    queues.ended("etl")
    assert queues.opens_at("etl", 2 * SECOND) is None
    queues.ended("etl")
    assert queues.opens_at("etl", SECOND + WINDOW) == 0


def test_other_rules_hold_at_once_and_remember_what_has_started() -> None:
    """Fewer slots than run start nothing until enough have ended; a changed rate counts old starts."""
    queues = Queues({"etl": Rule(slots=3, rate="3/s")})
    for at in (0, 1, 2):
        start(queues, at)
    queues.override("etl", Override(slots=1, rate="2/s"))
    queues.ended("etl")
    queues.ended("etl")
    assert queues.opens_at("etl", 10) is None
    queues.ended("etl")
    assert queues.opens_at("etl", 10) == WINDOW + 1  # of the last two starts the older one
    queues.override("etl", Override(rate=""))
    assert queues.opens_at("etl", 10) == 0


def test_what_is_said_outranks_the_settings_value_by_value() -> None:
    """What was not said stays as the settings have it; forgetting what was said brings that back."""
    queues = Queues({"etl": Rule(slots=3, rate="9/s")}, {"etl": Override(slots=1)})
    assert queues.rules["etl"] == Rule(slots=1, rate="9/s")
    assert queues.override("etl", Override(paused=True)) == Override(slots=1, paused=True)
    assert queues.override("etl", Override(slots=0)) == Override(slots=0, paused=True)
    assert queues.rules["etl"] == Rule(0, "9/s", paused=True)
    queues.restore("etl")
    assert queues.rules["etl"] == Rule(slots=3, rate="9/s")
    assert queues.is_known("etl")


def test_a_queue_may_be_made_while_the_daemon_runs_and_forgotten() -> None:
    """By saying anything of it, or nothing."""
    queues = Queues()
    queues.override("etl", Override())
    assert queues.is_known("etl")
    assert queues.rules["etl"] == Rule()
    queues.restore("etl")
    assert not queues.is_known("etl")


def test_a_recount_takes_what_runs_as_it_is() -> None:
    """For the moment at which the first rule is made, and jobs run that nobody has counted."""
    queues = Queues()
    queues.override("default", Override(slots=2, rate="2/s"))
    queues.recount(["default", "default"], ["default"])
    assert queues.opens_at("default", 0) is None
    queues.ended("default")
    assert queues.opens_at("default", 0) == 0
    start(queues, 1, "default")
    queues.ended("default")
    assert queues.opens_at("default", 2) == WINDOW + 1  # the other one is still to leave


@pytest.mark.parametrize("seed", range(50))
def test_no_window_ever_has_more_starts_than_the_rate_says(seed: int) -> None:
    """Random histories: whoever starts jobs as soon as it may is exact, and loses no moment."""
    rng = random.Random(seed)
    count, per_ms = rng.randint(1, 5), rng.randint(1, 40)
    slots = rng.randint(0, 4)
    queues = Queues({"etl": Rule(slots, f"{count}/{per_ms}ms")})
    starts: list[int] = []
    running = now = 0
    for _ in range(400):
        now += rng.choice([0, 0, 1, 3, 10])
        if running and rng.random() < 0.3:
            queues.ended("etl")
            running -= 1
        opens_at = queues.opens_at("etl", now * 1000)
        window = per_ms * 1000 + min(SLACK_US, per_ms * 10)
        recent = [at for at in starts if at * 1000 + window > now * 1000]
        if slots and running >= slots:
            assert opens_at is None
        elif len(recent) >= count:
            assert opens_at == starts[-count] * 1000 + window
        else:
            assert opens_at == 0
            if rng.random() < 0.7:
                start(queues, now * 1000)
                starts.append(now)
                running += 1
    assert starts
