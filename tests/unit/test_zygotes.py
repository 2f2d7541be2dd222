"""What a zygote owes, and for how long that is waited for; its process stands still or is a real one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from jobd.model.blob import Place
from jobd.pool import linux
from jobd.pool.protocol import Preloading, Settings, Spawn, Up
from jobd.pool.zygotes import ANSWERS_S, LONG_S, STOPPED_S, ZygoteProcess

BEGAN = 100.0


@pytest.fixture
def settings() -> Settings:
    """Return settings with which a zygote starts."""
    return Settings(
        boot="boot",
        socket="",
        client_socket="",
        boards_dir="",
        logs_dir="",
        path=[],
        preload=[],
        orphan_s=1.0,
        preload_timeout_s=60.0,
        max_payload_bytes=1024,
        place=Place("", "", "disk", True, False, 1024, 1024),
        max_output_bytes=1024,
        nofile_soft=100,
        umask=0o022,
    )


@pytest.fixture
def zygote(settings: Settings) -> Iterator[ZygoteProcess]:
    """Return a zygote; the clock is the test's."""
    made = ZygoteProcess(settings, BEGAN)
    yield made
    made.channel.close()
    made.kill()


def overdue(zygote: ZygoteProcess, after_s: float, *, has_workers: bool = False) -> str:
    """Return why the zygote is to be replaced, so long after it began."""
    return zygote.overdue(BEGAN + after_s, has_workers=has_workers)


def test_one_that_owes_nothing_is_never_overdue(zygote: ZygoteProcess) -> None:
    """It may sleep for days."""
    zygote.hear(Up(), BEGAN)
    assert overdue(zygote, 1e6) == ""
    assert zygote.trouble(BEGAN + 1e6) == ""


def test_a_fork_has_its_time(zygote: ZygoteProcess) -> None:
    """It is told of after a while, and given up after a longer one; an answer ends both."""
    zygote.hear(Up(), BEGAN)
    zygote.ask(Spawn("w1"), BEGAN + 50)
    zygote.ask(Spawn("w2"), BEGAN + 58)
    assert zygote.trouble(BEGAN + 50 + LONG_S) == ""
    assert "has not answered for 4 s" in zygote.trouble(BEGAN + 54)
    assert overdue(zygote, 50 + ANSWERS_S) == ""
    assert overdue(zygote, 50.1 + ANSWERS_S).endswith(f"did not answer within {ANSWERS_S:g} s")
    del zygote.asked["w1"]
    assert overdue(zygote, 50.1 + ANSWERS_S) == ""
    del zygote.asked["w2"]
    assert overdue(zygote, 1000) == ""


def test_while_it_imports_that_has_another_time(zygote: ZygoteProcess) -> None:
    """What is asked for meanwhile counts from when it is up."""
    zygote.ask(Spawn("w"), BEGAN)
    zygote.hear(Preloading("heavy"), BEGAN)
    assert overdue(zygote, 60.0) == ""
    assert "the preload module heavy is being imported for 30 s" in zygote.trouble(BEGAN + 30)
    assert overdue(zygote, 60.1) == "the preload module heavy was not imported within 60 s"
    zygote.hear(Up(), BEGAN + 59)
    assert overdue(zygote, 59 + ANSWERS_S) == ""
    assert overdue(zygote, 59.1 + ANSWERS_S)


def test_one_that_is_stopped_is_not_waited_for(
    zygote: ZygoteProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it owes; one that goes on in time is kept."""
    is_stopped = True
    monkeypatch.setattr(linux, "is_stopped", lambda _: is_stopped)
    zygote.hear(Up(), BEGAN)
    assert overdue(zygote, 10.0) == ""
    assert "is stopped by a signal" in zygote.trouble(BEGAN + 10)
    is_stopped = False
    assert overdue(zygote, 11.0) == ""
    assert zygote.trouble(BEGAN + 11) == ""
    is_stopped = True
    assert overdue(zygote, 12.0) == ""
    assert "was stopped by a signal" in overdue(zygote, 12.0 + STOPPED_S)


def test_one_that_is_retired_ends_with_its_workers(zygote: ZygoteProcess) -> None:
    """As long as they live it is waited for."""
    zygote.hear(Up(), BEGAN)
    zygote.retire()
    assert overdue(zygote, 1000, has_workers=True) == ""
    assert overdue(zygote, 1001) == ""
    assert overdue(zygote, 1001 + ANSWERS_S) == ""
    assert "did not end after its last worker" in overdue(zygote, 1001.1 + ANSWERS_S)


def test_one_that_cannot_be_started_leaves_no_file_behind(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an OSError, for whoever asks to say."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        ZygoteProcess(settings, BEGAN)


def test_it_is_ended_at_once_if_it_stands_still(
    zygote: ZygoteProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is not awaited for the time that it could have."""
    waited: list[float] = []
    monkeypatch.setattr(linux, "is_stopped", lambda _: True)
    real = zygote._process.wait

    def wait(timeout: float | None = None) -> int:
        if timeout is not None:
            waited.append(timeout)
        return real(timeout)

    monkeypatch.setattr(zygote._process, "wait", wait)
    zygote.end(60.0)
    assert waited
    assert max(waited) < 1
