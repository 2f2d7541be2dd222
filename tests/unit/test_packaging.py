"""What is installed: all of jobd, and nothing under any other name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import jobd

ROOT = Path(__file__).parents[2]
DATA = {"jobd/py.typed", "jobd/config/jobd.toml", "jobd/store/schema.sql"}


def sources() -> set[str]:
    """Every module of jobd in the working tree, as a path below its root."""
    # os.walk, because Path.rglob does not follow jobd/cli and jobd/config.
    return {
        os.path.relpath(os.path.join(directory, name), ROOT)
        for directory, _, names in os.walk(ROOT / "jobd", followlinks=True)
        for name in names
        if name.endswith(".py")
    }


def build(tmp_path: Path, *options: str) -> set[str]:
    """Build a wheel from a copy of the sources, and return the names in it.

    From a copy, so that neither a build/ left over in the tree plays a part nor
    a new one is left there.
    """
    tree = tmp_path / "tree"
    skip = shutil.ignore_patterns("__pycache__")
    for name in ["jobd", "cli", "config"]:
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=skip)
    for name in ["pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-P", "-m", "build", "--no-isolation", *options]
    done = subprocess.run(
        [*command, "--outdir", str(tmp_path / "dist"), str(tree)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def run(program: str) -> str:
    """What a fresh Python prints for a program, away from the sources."""
    command = [sys.executable, "-P", "-c", program]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd="/"
    ).stdout.strip()


@pytest.mark.parametrize("options", [["--wheel"], []], ids=["tree", "sdist"])
def test_a_wheel_has_all_of_jobd_under_one_name(tmp_path: Path, options: list[str]) -> None:
    """From the tree or from an sdist: every module, the data, and no `cli` or `config`."""
    names = build(tmp_path, *options)
    installed = {name for name in names if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in installed} == {"jobd"}
    assert installed == sources() | DATA


def test_our_packages_are_not_importable_by_their_plain_names() -> None:
    """A user's own `cli`, `config` or `tests` must win: ours are not in the way."""
    # In another process: pytest makes a module `tests` of its own.
    names = ["cli", "config", "tests", "jobd.cli", "jobd.config"]
    program = f"from importlib.util import find_spec; print([n for n in {names} if find_spec(n)])"
    assert run(program) == "['jobd.cli', 'jobd.config']"


def test_every_public_name_can_be_used() -> None:
    """What `__all__` promises is there, though it is loaded only when it is used."""
    assert [name for name in jobd.__all__ if not hasattr(jobd, name)] == []
    assert set(jobd.__all__) <= set(dir(jobd))


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    """The lazy loading answers for an unknown name as any module does."""
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = jobd.Nonsense  # type: ignore[attr-defined]  # that is what is tested


def test_importing_jobd_loads_nothing_heavy() -> None:
    """A worker and a user's `except jobd.NotFound` pay for no client, no ZeroMQ."""
    heavy = "'zmq', 'msgspec', 'asyncio', 'cloudpickle', 'pickle'"
    tell = f"print(*{{{heavy}}} & (set(sys.modules) - before))"
    assert run(f"import sys; before = set(sys.modules); import jobd; jobd.NotFound; {tell}") == ""


def test_the_client_for_threads_does_without_what_only_some_need() -> None:
    """asyncio, cloudpickle and pickle are for those who use them."""
    heavy = "'zmq', 'asyncio', 'cloudpickle', 'pickle'"
    tell = f"print(*{{{heavy}}} & (set(sys.modules) - before))"
    assert run(f"import sys; before = set(sys.modules); import jobd; jobd.Client; {tell}") == ""


def test_nobody_is_told_to_install_another_project() -> None:
    """On PyPI the name is another's: what is to be installed is a clone, and the README says why."""
    places = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "systemd").iterdir()]
    places += [ROOT / path for path in sources()] + [*(ROOT / "tests" / "benchmarks").glob("*.py")]
    told = {
        str(path.relative_to(ROOT)): re.findall(
            r"pip install[^\n`]*\bjobd\b[^\n`]*", path.read_text()
        )
        for path in places
    }
    assert {path: words for path, words in told.items() if words} == {
        "README.md": ["pip install jobd"]
    }
    assert "is\nanother project: `pip install jobd`" in (ROOT / "README.md").read_text()
