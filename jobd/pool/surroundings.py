"""What a job finds around it: its arguments as a program, its variables, its directory.

A function gets them in the worker's own process, which has its own again afterwards.  A command
is started with them, and the worker does not change.
"""

from __future__ import annotations

import os
import sys
import time

import msgspec

from jobd.model.environment import environment_of
from jobd.model.job import COMMAND
from jobd.model.orders import Run, Surroundings, Task


def spread(run: Run) -> list[Task]:
    """Return the tasks of an order, each with its variables, of which the order has one copy."""
    for task in run.tasks:
        around = task.surroundings
        if around is not None and around.env:
            data = run.environments[around.env]
            task.surroundings = msgspec.structs.replace(around, env=data)
    return run.tasks


def set_argv(function: str, around: Surroundings | None) -> None:
    """Let ``sys.argv`` be the reference, and what the job was given; whatever the last one has left there."""
    sys.argv = [function] if around is None else [function, *around.argv]


class Surrounded:
    """The surroundings of one attempt, and those that were there before."""

    def __init__(self, around: Surroundings, function: str) -> None:
        self._around = around
        self._is_command = function == COMMAND
        self._has_own = bool(around.env or around.inherit_env)
        self._environ = os.environ
        self._before = dict(os.environ) if self._has_own else {}
        self._home = -1

    def enter(self) -> None:
        """Make them so.

        Raises:
            OSError: there is no such directory, or it cannot be entered.
        """
        around = self._around
        if self._has_own:
            found = environment_of(self._before, around.env, around.inherit_env)
            if self._is_command:
                from jobd import shell  # noqa: PLC0415  # with subprocess, which few workers need

                shell.environment = found
            else:
                _replace(self._environ, found)
        if around.cwd and not self._is_command:  # which has its directory among its arguments
            self._home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            os.chdir(around.cwd)

    def leave(self) -> None:
        """Make all as it was before."""
        if self._is_command:
            from jobd import shell  # noqa: PLC0415  # as above

            shell.environment = None
        elif self._has_own:
            os.environ = self._environ  # noqa: B003  # the job may have put another object there
            _replace(os.environ, self._before)
        if self._home >= 0:
            os.fchdir(self._home)
            os.close(self._home)
            self._home = -1


def _replace(environ: os._Environ[str], wanted: dict[str, str]) -> None:
    """Let the variables of this process be these."""
    zone = environ.get("TZ")
    for name in [name for name in environ if name not in wanted]:
        del environ[name]
    for name, value in wanted.items():
        if environ.get(name) != value:
            environ[name] = value
    if environ.get("TZ") != zone:
        time.tzset()
