"""Which threads a job has left running, and which of them do no harm."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobd.pool import threads as module
from jobd.pool.threads import Threads, sentence


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Return what keeps the threads of a test, which end with it."""
    before = threading.active_count(), _thread._count()
    made = threading.Event()
    yield made
    made.set()
    deadline = time.monotonic() + 20
    while (threading.active_count(), _thread._count()) != before:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_one_that_goes_on_is_told_by_its_name(gate: threading.Event) -> None:
    """Each time, as long as it does."""
    threads = Threads()
    assert threads.left() == []
    threading.Thread(target=gate.wait, name="mine").start()
    assert threads.left() == ["mine"]
    assert threads.left() == ["mine"]


def test_those_that_were_there_are_no_jobs(gate: threading.Event) -> None:
    """Nor those that are taken for such later."""
    threading.Thread(target=gate.wait).start()
    threads = Threads()
    assert threads.left() == []
    threading.Thread(target=gate.wait).start()
    threads.adopt()
    assert threads.left() == []
    threading.Thread(target=gate.wait, name="mine").start()
    assert threads.left() == ["mine"]


def test_one_that_ends_by_itself_is_not_told(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a moment for that."""
    monkeypatch.setattr(module, "GRACE_S", 20.0)
    threads = Threads()
    threading.Timer(0.01, gate.set).start()
    threading.Thread(target=gate.wait).start()
    assert threads.left() == []
    assert threads.count == threads._base


def test_one_that_threading_does_not_know_is_told(gate: threading.Event) -> None:
    """Also one that has not begun yet, and one that runs no code of Python's."""
    threads = Threads()
    lock = _thread.allocate_lock()
    lock.acquire()
    ident = _thread.start_new_thread(gate.wait, ())
    _thread.start_new_thread(lock.acquire, ())
    assert threads.left() == [f"thread {ident}", "a thread without a name"]
    lock.release()


def test_those_of_a_pool_are_told_while_they_work(gate: threading.Event) -> None:
    """Not while they wait for work; nobody can tell without a look at them."""
    threads = Threads()
    with ThreadPoolExecutor(2, thread_name_prefix="pool") as pool:
        pool.submit(int).result()
        assert threads.left() == []
        assert threads.count == -1
        pool.submit(gate.wait)
        assert threads.left() == ["pool_0"]
        gate.set()
    assert threads.left() == []
    assert threads.count == threads._base


class TMonitor(threading.Thread):
    """As that of tqdm: it watches, and is told to end by ``exit``."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._told = threading.Event()

    def run(self) -> None:
        """Watch."""
        self._told.wait()

    def exit(self) -> None:
        """End it."""
        self._told.set()
        self.join()


def test_one_of_which_it_is_known_how_it_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not told."""
    monkeypatch.setattr(TMonitor, "__module__", "tqdm._monitor")
    threads = Threads()
    monitor = TMonitor()
    monitor.start()
    assert threads.left() == []
    assert not monitor.is_alive()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], "it left 1 thread running (a)"),
        (["a", "b"], "it left 2 threads running (a, b)"),
        ([*"abcdefg"], "it left 7 threads running (a, b, c, d, e, …)"),
    ],
)
def test_the_sentence_names_some(names: list[str], said: str) -> None:
    """As many as a person reads."""
    assert sentence(names) == said
