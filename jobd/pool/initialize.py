"""The call that a pool's owner wants made first in every worker."""

from __future__ import annotations

import os
import sys

from jobd import by_value, payload
from jobd.pool.failure import describe
from jobd.pool.forks import Forks
from jobd.pool.output import Output

INITIALIZER_FAILED = 71
"""The exit code of a worker that could not make it."""


def initialize(path: str, output: Output, forks: Forks) -> None:
    """Make the call that this file has, pickled; a failure is the worker's end."""
    try:
        with open(path, "rb") as file:
            function, args = payload.unpickle(file.read())
        by_value.initialize(function, args)
        forks.end_child()
    except BaseException as error:  # noqa: BLE001  # whatever it raises is its failure
        forks.end_child(error)
        _log(error)
        output.settle()
        output.note(describe(error).traceback)
        finish_multiprocessing()
        os._exit(INITIALIZER_FAILED)
    output.settle()
    output.skip()


def _log(error: BaseException) -> None:
    """Tell loggers, as a worker of the standard library does: the call may have set them up."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logger = logging.getLogger("concurrent.futures")
        logger.critical("Exception in initializer:", exc_info=error)


def finish_multiprocessing() -> None:
    """Let what ``multiprocessing`` has at work here come to its end: queues have threads that send."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()  # noqa: SLF001  # what ends a process of its own
