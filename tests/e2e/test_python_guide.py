"""docs/python.md: every example is run, and prints what it says."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import DaemonUnderTest

GUIDE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def expected(block: str) -> list[str]:
    """Return the lines that a block says it prints: in comments behind a print, or after the code."""
    behind = re.findall(r"print\(.*\)  # (.*)$", block, re.MULTILINE)
    return behind or re.findall(r"^# (.*)$", block, re.MULTILINE)


def test_the_examples_of_the_guide_print_what_they_say(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """Each as a script of its own, as a reader would run it."""
    module, *examples = BLOCKS
    assert module.startswith("# mytasks.py\n")
    assert len(examples) >= 9
    daemon = make_daemon().start()
    daemon.write_module("mytasks", module)
    with contextlib.ExitStack() as running:
        scripts = []
        for number, example in enumerate(examples):
            daemon.write_module(f"example{number}", example)
            script = running.enter_context(
                subprocess.Popen(
                    [sys.executable, f"example{number}.py"],
                    cwd=daemon.work_dir,
                    env=daemon.environ | {"JOBD_SOCKET": daemon.socket},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            running.callback(script.kill)  # should another one be wrong
            scripts.append(script)
        for example, script in zip(examples, scripts, strict=True):
            out, err = script.communicate(timeout=60)
            assert out.splitlines() == expected(example), f"{example}\n{err}"
            assert script.returncode == 0, err


def test_an_example_that_prints_something_else_is_noticed() -> None:
    """The comments are what is compared, and none is passed over."""
    assert expected("print(1)  # 1\nprint(f(x))  # two words\n") == ["1", "two words"]
    assert expected("for x in y:\n    print(x)\n# a\n# b\n") == ["a", "b"]
    assert not [block for block in BLOCKS[1:] if "print(" in block and not expected(block)]
    with pytest.raises(AssertionError):
        assert expected("print(1)  # 2\n") == ["1"]
