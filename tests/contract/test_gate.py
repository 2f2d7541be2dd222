"""The gate of the pool's socket: who comes through it, and what becomes of all others."""

from __future__ import annotations

import os
import resource
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import TypeVar

import pytest

from jobd.wire import gate
from jobd.wire.gate import pass_gate
from jobd.wire.pool_router import PoolRouter
from jobd.wire.zmtp import Transport

T = TypeVar("T")

WAIT_S = 20.0


@pytest.fixture
def path() -> Iterator[str]:
    """Return a path that is short enough for a socket."""
    directory = tempfile.mkdtemp(prefix="j", dir="/tmp")
    yield f"{directory}/s"
    shutil.rmtree(directory)


@pytest.fixture
def router(path: str) -> Iterator[PoolRouter]:
    """Return the pool's router, for which this process is the worker ``w``."""
    heard.clear()
    made = PoolRouter(path, 1_000_000)
    made.let_in(lambda identity, pid: (identity, pid) == (b"w/j", os.getpid()))
    with closing(made):
        yield made


heard: list[tuple[bytes, bytes]] = []
"""What has arrived in this test."""


def until(router: PoolRouter, is_so: Callable[[], object]) -> None:
    """Do what the daemon's loop does until something is so."""
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "it does not come to be"
        assert not router.is_ready  # its descriptor tells of all; this lets in who is known by now
        heard.extend(router.drain(10))


def meanwhile(router: PoolRouter, call: Callable[[], T]) -> T:
    """Return what a call returns that waits for the router."""
    with ThreadPoolExecutor(1) as thread:
        made = thread.submit(call)
        until(router, made.done)
        return made.result()


def come(router: PoolRouter, path: str, within_s: float = WAIT_S) -> socket.socket:
    """Come as the worker."""
    return meanwhile(router, lambda: pass_gate(path, b"w/j", time.monotonic() + within_s))


def greets(router: PoolRouter, connected: socket.socket) -> bool:
    """Shake hands and say something; return whether that arrives."""
    deadline = time.monotonic() + WAIT_S
    transport = meanwhile(
        router,
        lambda: Transport.shake_hands(connected, deadline, max_message_bytes=1000, identity=b"w/j"),
    )
    with closing(transport):
        transport.send(b"here", deadline)
        until(router, lambda: heard)
    return heard == [(b"w/j", b"here")]


def is_short(router: PoolRouter) -> bool:
    """Whether the router says that files are missing."""
    return router.is_short


def files() -> int:
    """Return how many files this process has."""
    return len(os.listdir("/proc/self/fd"))


def knock(path: str, said: bytes) -> socket.socket:
    """Come as somebody else."""
    stranger = socket.socket(socket.AF_UNIX)
    stranger.settimeout(WAIT_S)
    stranger.connect(path)
    if said:
        stranger.sendall(said)
    return stranger


@contextmanager
def no_files_left() -> Iterator[None]:
    """Leave this process so few files that nobody can be let in."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 2, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_worker_comes_through(router: PoolRouter, path: str) -> None:
    """And only the owner may come near."""
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert greets(router, come(router, path))


def test_nothing_else_is_in_the_directory(router: PoolRouter, path: str) -> None:
    """There is one socket: the gate's."""
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    assert not router.is_ready


def test_strangers_cost_a_few_files_for_a_moment(
    router: PoolRouter, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of them, with and without a word, keep no worker out; then they are sent away."""
    before = files()
    with ExitStack() as stack:
        for number in range(300):
            stack.enter_context(knock(path, b"me" if number % 2 else b""))
        for _ in range(300 // gate.AT_ONCE + 1):
            router.drain(1)
        until(router, lambda: files() == before + 300 + gate.PLACES)
        assert greets(router, come(router, path))
        monkeypatch.setattr(gate, "PATIENCE_S", 0.0)
        router.look()
        until(router, lambda: files() == before + 300)
    until(router, lambda: files() == before)


def test_who_pretends_to_be_a_worker_is_none(router: PoolRouter, path: str) -> None:
    """The kernel tells who it is."""
    pid = os.fork()
    if pid == 0:
        try:
            pass_gate(path, b"w/j", time.monotonic() + 0.5)
        except OSError:
            os._exit(3)
        os._exit(0)
    ended: list[int] = []

    def has_ended() -> bool:
        found, status = os.waitpid(pid, os.WNOHANG)
        ended.append(os.waitstatus_to_exitcode(status))
        return bool(found)

    until(router, has_ended)
    assert ended[-1] == 3


def test_who_is_not_known_yet_waits(router: PoolRouter, path: str) -> None:
    """A worker may be faster than the word of its zygote."""
    known: list[bytes] = []
    router.let_in(lambda identity, _: identity in known)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(pass_gate, path, b"w/j", time.monotonic() + WAIT_S)
        until(router, lambda: router._gate.is_awaited)
        assert not coming.done()
        known.append(b"w/j")
        until(router, coming.done)
        assert greets(router, coming.result())


def test_without_files_nobody_is_let_in(router: PoolRouter, path: str) -> None:
    """Who waits is let in once there are some."""
    with knock(path, b"w/j") as outside:
        with no_files_left():
            assert router.drain(1) == []
            assert is_short(router)
            assert not select.select([router.fd], [], [], 0)[0], "the loop could not sleep"
        router.look()
        assert not is_short(router)
        until(router, lambda: not router._gate.is_awaited)
        _, fds, _, _ = socket.recv_fds(outside, 1, 1)
    assert greets(router, socket.socket(fileno=fds[0]))
