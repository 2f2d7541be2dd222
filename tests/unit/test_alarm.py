"""When what ends a job is raised again, and when not; with real signals, in this very thread."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from harness import eventually

from jobd.context import TimeLimitExceeded
from jobd.pool import alarm as module
from jobd.pool import timer as timers
from jobd.pool.alarm import Alarm, Stopped
from jobd.pool.timer import SIGNAL, KernelTimer, ThreadTimer, make_timer


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Alarm]:
    """Give an alarm that rings ten times as fast as in a worker, while ``in_job`` is entered."""
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_S", 0.02)
    made = Alarm(lambda: bool(INSIDE))
    yield made
    made.clear()
    signal.signal(SIGNAL, signal.SIG_DFL)


INSIDE: list[int] = []
"""Not empty while a job's code runs: what is raised must not hit pytest's."""


@contextmanager
def in_job() -> Iterator[None]:
    """Run what is inside as a job's."""
    INSIDE.append(1)
    try:
        yield
    finally:
        INSIDE.pop()


def wait(seconds: float = 10.0) -> None:
    """Sleep, if nothing is raised."""
    INSIDE.append(1)
    try:
        time.sleep(seconds)
    finally:
        INSIDE.pop()


# -- the timer --


def count_signals() -> list[int]:
    """Return a list that grows with each signal of a timer."""
    came: list[int] = []
    signal.signal(SIGNAL, lambda number, _: came.append(number))
    return came


@pytest.fixture(params=[KernelTimer, ThreadTimer])
def heard(request: pytest.FixtureRequest) -> Iterator[tuple[KernelTimer, list[int]]]:
    """Give a timer, and the list of its signals."""
    came = count_signals()
    timer = request.param()
    yield timer, came
    timer.start(0)
    signal.signal(SIGNAL, signal.SIG_DFL)


def test_a_timer_signals_once_after_each_start(heard: tuple[KernelTimer, list[int]]) -> None:
    """The last start counts; it wakes this thread from its sleep."""
    timer, came = heard
    began = time.monotonic()
    timer.start(600)
    timer.start(0.02)
    eventually(lambda: came)
    assert time.monotonic() - began < 19
    timer.start(0.01)
    eventually(lambda: len(came) > 1)
    wait(0.05)
    assert came == [SIGNAL] * 2


def test_a_timer_that_was_ended_does_not_signal(heard: tuple[KernelTimer, list[int]]) -> None:
    """Not even then."""
    timer, came = heard
    timer.start(0.5)
    timer.start(0)
    wait(0.7)
    assert came == []


def test_a_fork_has_no_timer_and_changes_none() -> None:
    """An id may be that of another timer there."""
    came = count_signals()
    timer = KernelTimer()
    timer.start(0.05)
    pid = os.fork()
    if pid == 0:
        timer.start(0)
        os._exit(len(came))
    assert os.waitpid(pid, 0)[1] == 0
    eventually(lambda: came)
    signal.signal(SIGNAL, signal.SIG_DFL)


def test_where_the_kernel_has_no_timer_a_thread_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is late where the GIL is kept, but it comes."""

    def none() -> None:
        raise AttributeError("timer_create")

    monkeypatch.setattr(timers, "_library", none)
    assert isinstance(make_timer(), ThreadTimer)


# -- again, until the job has taken notice --


def test_it_is_raised_in_what_sleeps(alarm: Alarm) -> None:
    """With the limit in its words."""
    alarm.set(0.01)
    with pytest.raises(TimeLimitExceeded, match=r"it took longer than 0.01 s") as ended:
        wait()
    assert alarm.ended_by_limit(ended.value) is ended.value
    assert traceback.extract_tb(ended.value.__traceback__)[-1].name == "wait"
    assert alarm.note() == "its soft time limit of 0.01 s had passed"


def swallowed() -> None:
    """Lose whatever is raised, by a name that does not tell what."""
    with suppress(Exception):
        wait()


def test_what_was_swallowed_is_raised_again(alarm: Alarm) -> None:
    """And again."""
    alarm.set(0.01)
    swallowed()
    swallowed()
    with pytest.raises(TimeLimitExceeded):
        wait()


def try_for_ever(caught: list[int]) -> None:
    """Do as a decorator that tries again."""
    while len(caught) < 50:
        try:
            wait()
        except Exception:  # noqa: BLE001  # whatever it is
            caught.append(1)


def test_who_swallows_for_ever_is_ended_all_the_same(alarm: Alarm) -> None:
    """By something that is no Exception; what is told is the limit."""
    alarm.set(0.01)
    caught: list[int] = []
    with pytest.raises(module.Overdue) as ended:
        try_for_ever(caught)
    assert len(caught) == module.HEEDLESS
    limit = alarm.ended_by_limit(ended.value)
    assert type(limit) is TimeLimitExceeded
    assert limit.__traceback__ is ended.value.__traceback__


def test_who_is_called_for_ever_and_swallows_each_is_ended_too(alarm: Alarm) -> None:
    """As a handler of ``logging`` is: no frame that has caught one still runs when the next comes."""

    def handle(record: int) -> None:
        try:
            wait()
        except Exception:  # noqa: BLE001  # whatever it is
            caught.append(record)

    alarm.set(0.01)
    caught: list[int] = []
    with pytest.raises(module.Overdue) as ended:
        for record in range(50):
            handle(record)
    assert len(caught) == module.LOST
    assert type(alarm.ended_by_limit(ended.value)) is TimeLimitExceeded


def test_who_names_it_is_left_in_peace(alarm: Alarm) -> None:
    """As this function does."""
    alarm.set(0.01)
    with suppress(TimeLimitExceeded):
        wait()
    wait(0.1)


def test_it_waits_for_the_end_of_what_tidies_up(alarm: Alarm) -> None:
    """As long as that takes; a block that nobody knows what it was for is over when it is left."""

    def tidying() -> None:
        try:
            wait()
        finally:
            wait(0.1)
            done.append(1)

    done: list[int] = []
    alarm.set(0.01)
    with suppress(Exception):
        tidying()
    assert done == [1]
    assert alarm.has_rung


def test_a_stop_is_raised_again_too_and_outranks_the_limit(alarm: Alarm) -> None:
    """Whoever catches everything gets it again; it cannot be named."""

    def lost() -> None:
        with suppress(BaseException):
            alarm.stop()

    alarm.set(0.03)
    lost()
    with pytest.raises(Stopped):
        wait()
    assert not alarm.has_rung


def test_nothing_comes_when_the_job_is_over(alarm: Alarm) -> None:
    """Neither what has rung nor what would."""
    alarm.set(0.01)
    swallowed()
    alarm.clear()
    wait(0.05)
    assert (alarm.is_set, alarm.has_rung, alarm.note()) == (False, False, "")


def test_nothing_is_raised_while_no_code_of_the_job_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """But it is as soon as some does."""
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    runs = [False]
    made = Alarm(lambda: runs[0])
    try:
        made.set(0.01)
        wait(0.05)
        runs[0] = True
        with pytest.raises(TimeLimitExceeded):
            made.check()
    finally:
        made.clear()
        signal.signal(SIGNAL, signal.SIG_DFL)


# -- whether it was the limit --


def own_answer() -> None:
    """Catch it by its name, and raise something else."""
    try:
        wait()
    except TimeLimitExceeded:
        raise KeyError("mine") from None


def made_of_it() -> None:
    """Turn whatever comes into something else."""
    try:
        wait()
    except Exception as error:
        raise KeyError("theirs") from error


@pytest.mark.parametrize("job", [own_answer, made_of_it])
def test_an_error_after_the_limit_is_the_limits_unless_it_was_named(
    alarm: Alarm, job: Callable[[], None]
) -> None:
    """An answer to it is the job's own."""
    alarm.set(0.01)
    with pytest.raises(KeyError) as ended:
        job()
    limit = alarm.ended_by_limit(ended.value)
    assert limit is (ended.value if job is made_of_it else None)


def test_an_error_before_the_limit_is_not_the_limits(alarm: Alarm) -> None:
    """Whatever its name."""
    alarm.set(600)
    assert alarm.ended_by_limit(KeyError()) is None
    assert alarm.ended_by_limit(TimeLimitExceeded()) is None


# -- event loops --


def test_a_coroutine_is_cancelled_once(alarm: Alarm) -> None:
    """One that takes its time to tidy up is not cancelled again; what comes of it is the limit."""
    done: list[int] = []

    async def main() -> None:
        alarm.set(0.01)  # not before: this is about the loop
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.1)
            done.append(1)

    alarm.set(600)
    with pytest.raises(asyncio.CancelledError) as ended, in_job():
        alarm.run(main())
    assert done == [1]
    assert isinstance(alarm.ended_by_limit(ended.value), TimeLimitExceeded)


def test_an_error_that_answers_a_cancel_is_the_jobs_own(alarm: Alarm) -> None:
    """As with an ordinary function."""

    async def main() -> None:
        alarm.set(0.01)  # not before: this is about the loop
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise KeyError("mine") from None

    alarm.set(600)
    with pytest.raises(KeyError) as ended, in_job():
        alarm.run(main())
    assert alarm.ended_by_limit(ended.value) is None


def test_a_task_that_takes_all_the_time_is_what_it_is_raised_in(alarm: Alarm) -> None:
    """A cancel would not come to its turn."""

    async def busy() -> None:
        alarm.set(0.01)
        wait()

    async def main() -> None:
        await asyncio.gather(busy())

    alarm.set(600)
    with pytest.raises(asyncio.CancelledError), in_job():
        alarm.run(main())
    assert alarm.has_rung


def test_no_thread_is_needed(alarm: Alarm) -> None:
    """None that a job could see."""
    before = threading.active_count()
    alarm.set(600)
    assert threading.active_count() == before
