"""Run CPython's own tests of process pools over ``jobd.Executor``.

    python tests/cpython/run.py [--tests DIR] [--start-methods spawn,forkserver,fork] [NAME ...]

The tests are those that the running interpreter has installed (``test.test_concurrent_futures``), or
lie in DIR; nothing of them is copied here.  ``jobd.Executor`` is put where they look for
``ProcessPoolExecutor``, before they are imported.  Those that look inside the standard library's
own are in ``INSIDE``, each with its reason; all others have to pass.  With NAMEs only tests are
run in whose names one of them occurs.
"""

from __future__ import annotations

import argparse
import atexit
import concurrent.futures
import faulthandler
import importlib
import os
import shutil
import sys
import tempfile
import unittest
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jobd

HANGS_S = 60.0
"""A test that takes longer ends the run, with where it is."""

METHODS = ("spawn", "forkserver", "fork")

MODULES = (
    "test_as_completed",
    "test_deadlock",
    "test_init",
    "test_process_pool",
    "test_shutdown",
    "test_wait",
)
"""Where the tests of process pools are, since they are in several modules (3.12)."""

PROCESSES = "it looks for worker processes in `_processes`"
THREAD = "it joins `_executor_manager_thread`"
INSIDE = {
    "test_killed_child": PROCESSES,
    "test_saturation": PROCESSES,
    "test_idle_process_reuse_one": PROCESSES,
    "test_idle_process_reuse_multiple": PROCESSES,
    "test_max_tasks_per_child": PROCESSES,
    "test_max_tasks_per_child_defaults_to_spawn_context": "it looks at `_mp_context`",
    "test_python_finalization_error": "it counts the threads that the standard library's pool starts",
    "test_processes_terminate": PROCESSES,
    "test_context_manager_shutdown": PROCESSES,
    "test_del_shutdown": THREAD,
    "test_shutdown_no_wait": THREAD,
    "test_shutdown_deadlock_pickle": THREAD,
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": "it replaces the pool's thread",
    "test_shutdown_gh_132969_case_1": THREAD,
    "test_shutdown_gh_132969_case_2": THREAD,
}
"""Tests that look inside, and at what."""


class ProcessPoolExecutor(jobd.Executor):
    """jobd's under the name by which the tests, and the programs that they start, ask for it."""

    @property
    def _broken(self) -> bool:
        """What one test waits for."""
        return self._engine.is_broken


def install() -> None:
    """Put it where it is looked for."""
    concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[assignment, misc]  # the point
    concurrent.futures.process.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[misc, assignment]


def load(directory: str | None) -> list[ModuleType]:
    """Import the tests.

    Raises:
        ImportError: there are none.
    """
    if directory is not None:
        _put_in_front(Path(directory))
    complete_support()
    _patch_programs()
    package = importlib.import_module("test.test_concurrent_futures")
    if not hasattr(package, "__path__"):
        return [package]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in MODULES]


def _put_in_front(directory: Path) -> None:
    """Make a package ``test`` of what is installed and those tests: workers find it there, too."""
    test = importlib.import_module("test")
    joined = Path(tempfile.mkdtemp(prefix="jobd-cpython-")) / "test"
    joined.mkdir()
    atexit.register(shutil.rmtree, joined.parent, ignore_errors=True)
    entries = {path.name: path for path in Path(test.__path__[0]).iterdir()}
    entries |= {path.name: path for path in directory.glob("test_concurrent_futures*")}
    for name, path in entries.items():
        if name not in ("__pycache__", "test_concurrent_futures"):
            (joined / name).symlink_to(path)
    here = str(Path(__file__).parent)
    tests = joined / "test_concurrent_futures"
    if "test_concurrent_futures" in entries:
        tests.mkdir()
        for path in entries[tests.name].glob("*.py"):
            (tests / path.name).symlink_to(path)
        (tests / "__init__.py").unlink()
        prelude = f"import sys; sys.path.append({here!r}); import run; run.complete_support()\n"
        said = prelude + (entries[tests.name] / "__init__.py").read_text(encoding="utf-8")
        (tests / "__init__.py").write_text(said, encoding="utf-8")
    sys.path.insert(0, str(joined.parent))
    del sys.modules["test"]
    importlib.invalidate_caches()


def complete_support() -> None:
    """Have what the tests of a later version ask of ``test.support``; workers need it, too."""
    support: Any = importlib.import_module("test.support")
    if hasattr(support, "Py_GIL_DISABLED"):
        return
    support.Py_GIL_DISABLED = False
    support.requires_gil_enabled = lambda _: lambda function: function
    check = support.check_sanitizer

    def check_sanitizer(*, thread: bool = False, **others: bool) -> bool:
        assert not thread or not others
        return bool(check(**others)) if others else False

    def skip_if_sanitizer(reason: str | None = None, **kinds: bool) -> Any:
        return unittest.skipIf(check_sanitizer(**kinds), reason or "not with a sanitizer")

    support.check_sanitizer, support.skip_if_sanitizer = check_sanitizer, skip_if_sanitizer


def _patch_programs() -> None:
    """Have the programs that tests run begin with what this one begins with."""
    helper: Any = importlib.import_module("test.support.script_helper")
    run = helper.assert_python_ok
    here = str(Path(__file__).parent)
    prelude = f"import sys; sys.path[0:0] = {[here, *sys.path]!r}; import run; run.install()\n"

    def assert_python_ok(*args: str, **environ: str) -> Any:
        assert args[0] == "-c"
        return run("-c", prelude + args[1], *args[2:], __isolated=False, **environ)

    helper.assert_python_ok = assert_python_ok


def chosen(
    modules: list[ModuleType], methods: list[str], names: list[str]
) -> Iterator[unittest.TestCase]:
    """Yield the tests of process pools that are to be run, those that look inside too."""
    loader = unittest.TestLoader()
    for module in modules:
        for kind in list(vars(module).values()):
            if not (isinstance(kind, type) and issubclass(kind, unittest.TestCase)):
                continue
            if getattr(kind, "executor_type", None) is not ProcessPoolExecutor:
                continue
            if getattr(kind, "ctx", None) not in methods:
                continue
            for test in loader.loadTestsFromTestCase(kind):
                assert isinstance(test, unittest.TestCase)
                if not names or any(name in test.id() for name in names):
                    yield test


class Result(unittest.TextTestResult):
    """Ends the run when a test hangs."""

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802  # its name there
        """Begin to count its time."""
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        super().startTest(test)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802  # its name there
        """Count anew: what a module has to do at its end may hang, too."""
        super().stopTest(test)
        faulthandler.dump_traceback_later(HANGS_S, exit=True)


def main(argv: list[str]) -> int:
    """Run them; return 0 if all have passed that do not look inside."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", help="the directory that has test_concurrent_futures")
    parser.add_argument("--start-methods", default=",".join(METHODS), help="which of them")
    parser.add_argument("names", nargs="*")
    said = parser.parse_args(argv)
    install()
    modules = load(said.tests)
    tests = list(chosen(modules, said.start_methods.split(","), said.names))
    inside = [test._testMethodName for test in tests if test._testMethodName in INSIDE]
    suite = unittest.TestSuite(test for test in tests if test._testMethodName not in INSIDE)
    tests.clear()  # a suite lets go of each that has run, and with it of what it holds
    for module in modules:
        if set_up := getattr(module, "setUpModule", None):
            set_up()
    kind: Any = Result
    result = unittest.TextTestRunner(resultclass=kind, verbosity=2).run(suite)
    unittest.doModuleCleanups()
    for reason, count in Counter(INSIDE[name] for name in inside).most_common():
        print(f"left out: {count:3}  {reason}")
    for test, why in result.skipped:
        print(f"skipped by itself: {test.id()}: {why}")
    bad = len(result.failures) + len(result.errors)
    passed = result.testsRun - bad - len(result.skipped)
    print(
        f"Python {sys.version.split()[0]}: {passed} passed, {bad} failed, "
        f"{len(result.skipped)} skipped by themselves, {len(inside)} look inside"
    )
    return 1 if bad or not passed else 0


if __name__ == "__main__":
    # Under its own name, so that workers find the class, and programs that tests run.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    sys.exit(importlib.import_module("run").main(sys.argv[1:]))
