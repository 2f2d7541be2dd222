"""Objects of ``multiprocessing`` that stay in one process and are used in another."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from multiprocessing import connection
from multiprocessing.connection import Client
from typing import Any

import pytest
from harness import eventually

from jobd import payload
from jobd.executor.sharing import Sharing

FORK: Any = multiprocessing.get_context("fork")


@pytest.fixture
def sharing() -> Iterator[Sharing]:
    """Return what hands out this process's objects, to itself."""
    sharing = Sharing()
    yield sharing
    sharing.close()


def travelled(sharing: Sharing, value: Any) -> Any:
    """Return what a worker would have of it."""
    return payload.unpickle(sharing.dumps(value))


def test_a_lock_is_the_same_on_both_sides(sharing: Sharing) -> None:
    """Taken here it is not to be had there, and the other way round; a wait may be given up."""
    here = FORK.Lock()
    there = travelled(sharing, here)
    assert type(there) is type(here)
    with here:
        assert not there.acquire(block=False)
        assert not there.acquire(timeout=0.01)
    with there:
        assert not here.acquire(block=False)
        assert there._semlock._is_mine()
    assert here.acquire(block=False)
    here.release()
    with pytest.raises(ValueError, match="released too many times"):
        there.release()


def test_a_lock_that_may_be_taken_again_is_the_threads_that_has_it(sharing: Sharing) -> None:
    """It is given back when it was given back as often."""
    here = FORK.RLock()
    there = travelled(sharing, here)
    with there, there:
        assert there._semlock._count() == 2
        assert not here.acquire(block=False)
        told: list[bool] = []
        thread = threading.Thread(target=lambda: told.append(there.acquire(block=False)))
        thread.start()
        thread.join()
        assert told == [False]
    assert here.acquire(block=False)
    here.release()
    with pytest.raises(AssertionError):
        there.release()


def test_who_has_gone_is_given_nothing(sharing: Sharing) -> None:
    """A worker that dies while it waits for a semaphore does not take it along."""
    others = set(threading.enumerate())
    here = FORK.Semaphore(0)
    there = travelled(sharing, here)
    inner = there._semlock
    assert inner._is_zero()
    inner._local.channel.send(("acquire", (None,)))
    inner._local.channel.close()
    eventually(lambda: len(set(threading.enumerate()) - others) == 1)  # who lets others in is left
    here.release()
    assert here.acquire(block=False)


def test_a_file_descriptor_is_sent_to_each_who_asks(sharing: Sharing) -> None:
    """It is a copy of its own."""
    reader, writer = FORK.Pipe(duplex=False)
    data = sharing.dumps(writer)
    ends = [payload.unpickle(data), payload.unpickle(data)]
    writer.close()
    for end in ends:
        end.send("here")
        assert reader.recv() == "here"
        end.close()


def test_a_stranger_is_handed_nothing(sharing: Sharing) -> None:
    """He has another key; and while he says nothing, others are served."""
    lock = FORK.Lock()
    theirs = travelled(sharing, lock)
    address = theirs._semlock._where[0]
    with Client(address, "AF_UNIX"), Client(address, "AF_UNIX") as stranger:
        with pytest.raises(multiprocessing.AuthenticationError):
            connection.answer_challenge(stranger, b"guessed")
        assert theirs.acquire()
    theirs.release()


def test_after_the_end_nothing_is_handed_out() -> None:
    """Nobody listens, and no descriptor is kept."""
    sharing = Sharing()
    reader, writer = FORK.Pipe(duplex=False)
    data = sharing.dumps(writer)
    writer.close()
    sharing.close()
    with pytest.raises(EOFError):
        reader.recv()
    with pytest.raises(OSError, match="No such file"):
        payload.unpickle(data)
    sharing.close()
