"""What a job finds around it, and that nothing of it is left afterwards."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobd import shell
from jobd.model.environment import encoded
from jobd.model.job import COMMAND
from jobd.model.orders import Run, Surroundings, Task
from jobd.pool.surroundings import Surrounded, set_argv, spread


@pytest.fixture(autouse=True)
def keep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have this process as it was, whatever a test finds wrong."""
    home, real, before = Path.cwd(), os.environ, dict(os.environ)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    yield
    os.environ = real  # noqa: B003
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    time.tzset()
    os.chdir(home)


def test_variables_and_directory_are_there_and_gone_again(tmp_path: Path) -> None:
    """Also those that the job has changed or taken away; the C library sees them too."""
    before, home = dict(os.environ), Path.cwd()
    around = Surrounded(
        Surroundings(encoded({"FOO": "bar", "PATH": "/x"}), cwd=str(tmp_path)), "m:f"
    )
    around.enter()
    assert (os.environ["FOO"], os.getenv("PATH"), Path.cwd()) == ("bar", "/x", tmp_path)
    os.environ["LEFT"] = "1"
    del os.environ["PATH"]
    around.leave()
    assert dict(os.environ) == before
    assert Path.cwd() == home


def test_what_is_inherited_takes_away_what_the_caller_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But for what is not to be inherited."""
    monkeypatch.setenv("ONLY_HERE", "1")
    monkeypatch.setenv("JOBD_SOCKET", "/s")
    around = Surrounded(Surroundings(encoded({"FOO": "bar"}), ["*"]), "m:f")
    around.enter()
    found = dict(os.environ)
    around.leave()
    assert {"FOO": "bar", "JOBD_SOCKET": "/s"}.items() <= found.items()
    assert "ONLY_HERE" not in found
    assert os.environ["ONLY_HERE"] == "1"


def test_the_time_zone_follows() -> None:
    """As it would in a program that is started with it."""
    here = time.localtime(0)
    around = Surrounded(Surroundings(encoded({"TZ": "XYZ-3"})), "m:f")
    around.enter()
    there = time.localtime(0)
    around.leave()
    assert (there.tm_hour, time.localtime(0)) == (3, here)


def test_an_environment_that_the_job_has_put_in_place_of_ours_goes() -> None:
    """A test that mocks it, and was stopped."""
    real = os.environ
    around = Surrounded(Surroundings(encoded({"FOO": "bar"})), "m:f")
    around.enter()
    os.environ = {}  # type: ignore[assignment]  # noqa: B003
    around.leave()
    assert os.environ is real
    assert "FOO" not in os.environ


def test_a_directory_that_is_not_there_leaves_nothing_behind() -> None:
    """The job fails, and has not run."""
    before = dict(os.environ)
    around = Surrounded(Surroundings(encoded({"FOO": "bar"}), cwd="/nonexistent"), "m:f")
    with pytest.raises(FileNotFoundError, match="/nonexistent"):
        around.enter()
    around.leave()
    assert dict(os.environ) == before


def test_a_command_gets_variables_and_the_worker_does_not_change() -> None:
    """Its directory is among its arguments."""
    before, home = dict(os.environ), Path.cwd()
    around = Surrounded(Surroundings(encoded({"FOO": "bar"}), cwd="/"), COMMAND)
    around.enter()
    assert (dict(os.environ), Path.cwd()) == (before, home)
    assert shell.environment == before | {"FOO": "bar"}
    around.leave()
    assert shell.environment is None


@pytest.mark.parametrize("left", [["other:f"], ["m:f", "x"], [], ("m:f",), None])
def test_argv_is_the_reference_whatever_was_left_there(
    left: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another job, or in place."""
    monkeypatch.setattr(sys, "argv", left)
    set_argv("m:f", None)
    assert sys.argv == ["m:f"]
    assert type(sys.argv) is list
    set_argv("m:f", Surroundings(argv=["a", "-b"]))
    assert sys.argv == ["m:f", "a", "-b"]
    del sys.argv
    set_argv("m:f", Surroundings())
    assert sys.argv == ["m:f"]


def test_an_order_has_each_set_of_variables_once() -> None:
    """The tasks share it."""
    data = encoded({"FOO": "bar"})
    tasks = [Task(n, 1, "m:f", b"", surroundings=Surroundings(b"#", ["*"])) for n in (1, 2)]
    others = [Task(3, 1, "m:f", b""), Task(4, 1, "m:f", b"", surroundings=Surroundings(cwd="/"))]
    found = spread(Run("boot", tasks + others, 1, {b"#": data}))
    assert [task.surroundings and task.surroundings.env for task in found] == [
        data,
        data,
        None,
        b"",
    ]
