"""Who hears what is logged: the handlers, levels and filters of all loggers."""

from __future__ import annotations

import logging
import sys
from typing import Any

_ATTRIBUTES = (
    "raiseExceptions",
    "lastResort",
    "_loggerClass",
    "_logRecordFactory",
    "_warnings_showwarning",
)


class Logging:
    """The state of logging.

    A logger that is new and whose name begins with that of a module which is new too is taken to
    have been set up by it, as an import that it is: that stays, as the module does.
    """

    def __init__(self) -> None:
        self._root = logging.root
        self._loggers: dict[str, Any] = logging.root.manager.loggerDict
        self._fresh: tuple[Any, ...] = (logging.NOTSET, True, False, list, [], [])
        self._modules = set(sys.modules)

    def read(self) -> dict[str, Any]:
        """Return the settings of each logger."""
        found = {
            name: _settings(logger)
            for name, logger in self._loggers.items()
            if logger.__class__ is not logging.PlaceHolder
        }
        found[""] = _settings(self._root)
        found[" "] = (self._root.manager.disable, *(getattr(logging, a) for a in _ATTRIBUTES))
        return found

    def write(self, was: dict[str, Any]) -> None:
        """Put back what differs; ``was`` learns of the loggers that are new."""
        rest = was[" "]
        for attribute, value in zip(_ATTRIBUTES, rest[1:], strict=True):
            setattr(logging, attribute, value)
        if self._root.manager.disable != rest[0]:
            logging.disable(rest[0])
        new = self.read().keys() - was.keys()
        modules = set(sys.modules)
        fresh = {name.partition(".")[0] for name in modules - self._modules} if new else set()
        self._modules = modules
        for name in new:
            is_its_modules = name.partition(".")[0] in fresh
            was[name] = _settings(self._loggers[name]) if is_its_modules else self._fresh
        for name, settings in was.items():
            logger = self._root if not name else self._loggers.get(name)
            if name != " " and logger is not None:
                _put_back(logger, settings)


def _settings(logger: Any) -> tuple[Any, ...]:
    try:
        lists = [*logger.handlers], [*logger.filters]
    except (AttributeError, TypeError):
        lists = [], []  # a job has put there what is none
    return (logger.level, logger.propagate, logger.disabled, type(logger.handlers), *lists)


def _put_back(logger: Any, was: tuple[Any, ...]) -> None:
    now = _settings(logger)
    if now == was:
        return
    for handler in now[4]:
        if handler not in was[4]:
            try:
                handler.flush()  # what it holds would be lost
            except Exception:  # noqa: BLE001, S110  # the user's own
                pass
    logger.setLevel(was[0])  # and clears what the others remember
    logger.propagate, logger.disabled = was[1], was[2]
    logger.handlers, logger.filters = [*was[4]], [*was[5]]
