"""What a worker may come to have too much of."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jobd.pool import growth


@contextmanager
def limited(kind: int, soft: int) -> Iterator[None]:
    """Have a soft limit of one's own."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_files_are_few_as_long_as_half_of_those_are_free_that_were() -> None:
    """Those that were open at first do not count; and when none is free, that is told too."""
    first = growth._lowest_free()
    with limited(resource.RLIMIT_NOFILE, first + 100):
        files = growth.Files()
        opened = [os.dup(0) for _ in range(45)]
        assert files.is_low()
        opened += [os.dup(0) for _ in range(10)]
        assert not files.is_low()
        try:
            while True:
                opened.append(os.dup(0))
        except OSError:
            pass
        assert not files.is_low()
        said = f"it left {first + 100} files open, of {first + 100} that a worker may have"
        assert files.loss() == said
        for fd in opened:
            os.close(fd)
        assert files.is_low()


def test_native_threads_are_few_up_to_a_part_of_their_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a limit up to some hundreds."""
    there = threading.active_count()
    assert growth._thread_count() >= there
    counts = iter([10, 10 + growth.THREADS - 1, 10 + growth.THREADS])
    monkeypatch.setattr(growth, "_thread_count", lambda: next(counts))
    threads = growth.Threads()
    assert threads.is_low()
    assert not threads.is_low()


def test_memory_is_a_part_only_where_it_is_limited() -> None:
    """And is low as long as a quarter of what was free still is."""
    kinds = [part._name for part in growth.parts(growth.Files())]
    assert kinds.count("memory") == (
        resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    ) + (resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY)
    used = growth.Memory(resource.RLIMIT_DATA, 5)._used()
    with limited(resource.RLIMIT_DATA, used + (400 << 20)):
        memory = growth.Memory(resource.RLIMIT_DATA, 5)
        assert memory.is_low()
        kept = bytearray(330 << 20)
        assert not memory.is_low()
        assert "MiB of memory in use, of" in memory.loss()
        del kept
        assert memory.is_low()
