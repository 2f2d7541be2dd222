"""CPython's own tests of process pools, over jobd's executor; see ``tests/cpython/run.py``."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parent.parent / "cpython" / "run.py"
HANGS_S = 150

PARTS = (
    ["ExecutorDeadlockTest"],
    ["ProcessPoolExecutorTest"],
    ["ProcessPoolShutdownTest"],
    ["WaitTest", "AsCompletedTest", "InitializerTest"],
)
"""By what occurs in the names of the classes: each takes less than a minute."""


def _has_tests() -> bool:
    try:
        return importlib.util.find_spec("test.test_concurrent_futures") is not None
    except ImportError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(HANGS_S + 10)
@pytest.mark.skipif(
    not _has_tests(), reason="this Python was installed without its test_concurrent_futures"
)
@pytest.mark.parametrize("names", PARTS, ids=lambda names: names[0])
def test_the_tests_of_cpython_that_do_not_look_inside_pass(names: list[str]) -> None:
    """With one start method: for jobd they are all the same."""
    command = [sys.executable, "-P", str(RUNNER), "--start-methods", "spawn", *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
