"""The list of functions that clients may run, if there is one."""

from __future__ import annotations

from fnmatch import fnmatchcase

from jobd.model.errors import NotAllowed
from jobd.model.job import JSON
from jobd.model.messages import Put, Submit

_JSON = frozenset(b"jJrR")
"""The codecs, by their first bytes, that can only say data (jobd.payload has the table)."""


class AllowList:
    """Judges submits by ``security.allow``."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        """Allow what one of ``patterns`` matches; everything if there are none."""
        self._patterns = patterns

    def refuse_foreign(self, request: Submit) -> None:
        """Let a submit pass, or raise.

        Raises:
            NotAllowed: the function is not on the list, or it or an argument is a pickle.
        """
        if not self._patterns:
            return
        if request.by_value:
            raise NotAllowed(
                f"{request.function} travels by value, and security.allow lists what may run",
                "put it into a module of the workers",
            )
        if not any(_matches(request.function, pattern) for pattern in self._patterns):
            raise NotAllowed(
                f"{request.function} may not be run", "security.allow does not list it"
            )
        if any(call[0] not in _JSON for call in request.args if call):
            raise _pickled(f"an argument of {request.function}")

    def refuse_pickle(self, request: Put) -> None:
        """Let a value pass, or raise.

        Raises:
            NotAllowed: it is a pickle, which a job that has it as an argument would load.
        """
        if self._patterns and request.value[:1] not in JSON:
            raise _pickled("the value")


def _pickled(what: str) -> NotAllowed:
    return NotAllowed(
        f"{what} is a pickle, and security.allow is set",
        "pass plain data: None, true and false, numbers, texts, lists, objects",
    )


def _matches(function: str, pattern: str) -> bool:
    """Whether a pattern allows a function; in its name no wildcard stands for a dot.

    Or ``mytasks:*`` would allow ``mytasks:os.system``, by way of what the module has imported.
    """
    dots = function.partition(":")[2].count(".")
    return pattern.partition(":")[2].count(".") == dots and fnmatchcase(function, pattern)
