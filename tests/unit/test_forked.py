"""Random numbers after a fork: no two processes draw the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import jobd
from jobd.pool.forked import differ

HEAD = f"""
import os, sys
sys.path.insert(0, {str(Path(jobd.__file__).parents[1])!r})
from jobd.pool.forked import differ
def drawn(draw):
    "What three children draw, and the same once more if they do nothing about it."
    found = []
    for change in (differ, differ, differ, int, int):
        read, write = os.pipe()
        if os.fork() == 0:
            change()
            os.write(write, repr(draw()).encode())
            os._exit(0)
        os.close(write)
        found.append(os.read(read, 1000))
        os.close(read)
        os.wait()
    return len(set(found[:3])), len(set(found[3:]))
"""


def run(program: str) -> str:
    """Run a program that has ``drawn``; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", HEAD + program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("module", "program"),
    [
        ("numpy", "import numpy.random as r\nprint(drawn(r.random))"),
        ("numpy", "import numpy.random as r\nr.seed(1)\nprint(drawn(lambda: r.choice(10**9)))"),
        (
            "numpy",
            "import numpy.random as r\nr.set_bit_generator(r.PCG64(1))\nprint(drawn(r.normal))",
        ),
        (
            "sqlite3",
            """
import sqlite3
def draw():
    return sqlite3.connect(':memory:').execute('select random()').fetchone()
draw()
print(drawn(draw))
""",
        ),
        ("torch", "import torch\nprint(drawn(lambda: torch.rand(1).item()))"),
    ],
)
def test_each_process_draws_numbers_of_its_own(module: str, program: str) -> None:
    """Where else they would be the same in all."""
    pytest.importorskip(module)
    assert run(program) == "(3, 1)\n"


def test_python_sees_to_its_own_numbers() -> None:
    """After any fork."""
    assert run("import random\nprint(drawn(random.random))") == "(3, 2)\n"


def test_nothing_is_imported_for_it() -> None:
    """A worker that has no use for numpy does not get it."""
    program = (
        "differ()\nprint([name for name in ('numpy', 'torch', 'sqlite3') if name in sys.modules])"
    )
    assert run(program) == "[]\n"


def test_what_cannot_be_seeded_anew_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are, and the worker works."""
    seeded: list[int] = []
    torch = SimpleNamespace(default_generator=SimpleNamespace(seed=lambda: seeded.append(1)))
    monkeypatch.setitem(sys.modules, "numpy.random", ModuleType("numpy.random"))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.delitem(sys.modules, "_sqlite3", raising=False)
    differ()
    assert seeded == [1]
    told = capsys.readouterr().err
    assert told.startswith("jobd: the random numbers of numpy.random are the same in all workers")
