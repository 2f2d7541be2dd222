"""A worker as it was before its first job: each job finds it so, or another worker.

There are two looks.  The *quick* one, after every job, takes a fraction of a microsecond, and
sees what short jobs change most: threads, the environment, ``sys.path``, filters of warnings, the
root logger's handlers.  The *whole* one sees all that is listed in ``process_state``,
``library_state``, ``logging_state`` and ``threads``.  It follows

- a function that was not found clean ``TRUSTED`` times in a row in this worker,
- a job that has failed, and whatever the quick look finds,
- any job once ``LOOK_S`` have passed since the last whole one, or ``SHARE`` times as long as that took,
- and the last of some short jobs, before one that may be long, or a wait for longer than that.

So what only the whole look sees, and a function does for the first time after it was found clean
so often, can meet short jobs of the next hundredths of a second, and no others.

What differs is put back.  What cannot be is told in sentences: then the worker must be replaced.
What a *module* changes when it is imported stays, as the module itself does: after the import of a job's
function, and of what its arguments need, the state is taken anew (``adopt``).
"""

from __future__ import annotations

import _thread
import asyncio
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from typing import Any

from jobd.pool import growth, library_state, process_state, threads

TRUSTED = 16
LOOK_S = 0.001
FILES_S = 0.0001
"""After so much of jobs the files are looked at: they may be used up before the next whole look."""

SHARE = 250
"""The time between two whole looks is at least so many times what one takes."""

TRIES = 1000
"""How often handlers of a job's signals may raise while they are being put back."""


class Pristine:
    """The state of a worker between its jobs."""

    def __init__(self, ours: Iterable[int], crashes: Callable[[], object]) -> None:
        """``ours`` are the signals that the worker waits for; ``crashes`` has them written to its log again."""
        self._crashes = crashes
        self._environment = process_state.Environment()
        self._threads = threads.Threads()
        self._jobd = {name: sys.modules[name] for name in sys.modules if _is_jobds(name)}
        self._around = process_state.surroundings()
        self._files = growth.Files()
        self._busy_s = 0.0
        """For how long jobs have run since the last look for files that are left open."""
        self._parts = [
            *process_state.parts(ours, crashes),
            *library_state.parts(),
            *growth.parts(self._files),
        ]
        self._late: set[str] = set()
        self._decimals: list[object] = []
        """Contexts of decimal numbers that have a part."""
        self._context = copy_context()
        self._clean: dict[str, int] = {}
        """How often in a row each function was found to have left nothing."""
        self._next_s = 0.0
        self.is_fresh = False
        """No job has run since the last whole look."""
        self.adopt()

    def adopt(self, *, is_surrounded: bool = False) -> None:
        """What is now is as it is to be; but for a job's own environment, if it ``is_surrounded`` by one."""
        if not is_surrounded:
            self._environment.adopt()
            for part in self._around:
                part.adopt()
        self._threads.adopt()
        self._context = copy_context()
        for part in self._parts:
            part.adopt()
        for shared in library_state.decimals_of(self._context):
            if not any(shared is known for known in self._decimals):
                self._decimals.append(shared)
                self._parts.append(library_state.decimal_part(shared))
        self._load(by_job=False)
        self._arm()

    def context(self) -> Context:
        """Return a context for a job to run in: of its own, with what was set before all jobs."""
        return self._context.copy()

    # -- after a job --

    def after(
        self, function: str, began_s: float, ended_s: float, *, sure: bool = False
    ) -> list[str]:
        """Put back what a job has changed that ended now, by ``perf_counter``; tell what cannot be.

        ``sure``: have the whole look in any case.
        """
        self.is_fresh = False
        clean = self._clean.get(function, 0)
        try:
            is_clean = self._is_clean()
        except Exception:  # noqa: BLE001  # a job has removed what is looked at
            is_clean = False
        self._busy_s += ended_s - began_s
        if self._busy_s >= FILES_S:
            self._busy_s = 0.0
            sure = sure or not self._files.is_low()
        if is_clean and clean >= TRUSTED and ended_s < self._next_s and not sure:
            return []
        changed, losses = self._look()
        self._clean[function] = clean + 1 if is_clean and not (changed or losses) else 0
        return losses

    def is_as_it_was(self, function: str, began_s: float, ended_s: float) -> bool:
        """Whether the quick look is enough after a job that has returned, and it sees nothing."""
        self.is_fresh = False
        self._busy_s += ended_s - began_s
        if self._busy_s >= FILES_S or ended_s >= self._next_s:
            return False
        try:
            return self._clean.get(function, 0) >= TRUSTED and self._is_clean()
        except Exception:  # noqa: BLE001  # a job has removed what is looked at
            return False

    def threads_left(self) -> list[str]:
        """Tell of threads only: after a job that was restricted nothing else runs here."""
        names = self._threads.left()
        return [threads.sentence(names)] if names else []

    def patience_s(self) -> float | None:
        """Return after how long a worker that waits should look; None: it has looked."""
        return None if self.is_fresh else max(0.0, self._next_s - time.perf_counter())

    def look_ahead(self, *, sure: bool = True) -> list[str]:
        """Do as ``after``, for jobs that had a quick look only; not ``sure``: if it is time for that."""
        if self.is_fresh or not (sure or time.perf_counter() >= self._next_s):
            return []
        return self._look()[1]

    def _look(self) -> tuple[bool, list[str]]:
        """Look at everything; return whether something had to be put back, and what cannot be."""
        began = time.perf_counter()
        for _ in range(TRIES):
            try:
                changed, losses = self._put_back()
                break
            except BaseException:  # noqa: BLE001, S112  # a handler of signals that a job has left
                continue
        else:
            changed, losses = True, ["it left signal handlers that raise again and again"]
        self.is_fresh = True
        ended = time.perf_counter()
        self._next_s = ended + max(LOOK_S, SHARE * (ended - began))
        return changed, losses

    def _put_back(self) -> tuple[bool, list[str]]:
        changed, losses = process_state.always(), []
        self._crashes()
        if not self._environment.is_same():
            changed = True
            self._environment.put_back()
        for part in (*self._around, *self._parts):
            if not part.is_same:
                changed = True
                loss = part.put_back()
                if loss:
                    losses.append(loss)
        if len(sys.modules) != self._modules:
            self._load(by_job=True)
        losses += self._others()
        if changed:
            self._arm()
        return changed, losses

    def _others(self) -> list[str]:
        """Tell what can only be lost: threads that were left, and modules of ours that are others now."""
        found = self.threads_left()
        modules = sys.modules
        if [*map(modules.get, self._jobd)] != self._jobd_modules:
            replaced = [name for name, ours in self._jobd.items() if modules.get(name) is not ours]
            found.append(f"it changed sys.modules[{', '.join(map(repr, sorted(replaced)))}]")
        return found

    def _load(self, *, by_job: bool) -> None:
        """Know of the parts of modules that were imported meanwhile."""
        self._modules = len(sys.modules)
        for name, make in library_state.LATE.items():
            if name not in self._late and name in sys.modules:
                self._late.add(name)
                self._parts += make(sys.modules[name], by_job=by_job)
        for name in sys.modules:
            if name not in self._jobd and _is_jobds(name):
                self._jobd[name] = sys.modules[name]
        self._jobd_modules = [*self._jobd.values()]
        self._modules = len(sys.modules)

    # -- the quick look --

    def _arm(self) -> None:
        """Take note of what the quick look compares: lists as they are, by value."""
        lists = [*sys.path], [*warnings.filters], [*_root.handlers]
        is_same_environment, threads = self._environment.is_same, self._threads

        policy = vars(_events).get("_event_loop_policy")

        def is_clean() -> bool:
            _events._event_loop_policy = policy  # every asyncio.run leaves one
            return (
                _count() == threads.count
                and (sys.path, warnings.filters, _root.handlers) == lists
                and is_same_environment()
            )

        self._is_clean = is_clean


_events: Any = asyncio.events
_count = _thread._count
_root = logging.root


def _is_jobds(name: str) -> bool:
    return name == "jobd" or name.startswith("jobd.")
