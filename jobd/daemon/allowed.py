"""The list of functions that clients may run, if there is one."""

from __future__ import annotations

from collections.abc import Iterable

from jobd.model.allowed import Match, match
from jobd.model.errors import NotAllowed
from jobd.model.job import COMMAND, JSON, PLAIN
from jobd.model.messages import Put, Submit
from jobd.model.options import Said


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
        if match(request.function, self._patterns) is Match.NONE:
            raise NotAllowed(
                f"{request.function} may not be run", "security.allow does not list it"
            )
        self.refuse_calls(request.function, request.args)

    def refuse_calls(self, function: str, calls: Iterable[bytes]) -> None:
        """Let calls pass, or raise.

        Raises:
            NotAllowed: an argument is a pickle.
        """
        if self._patterns and any(call[:1] not in PLAIN for call in calls if call):
            raise _pickled(f"an argument of {function}")

    def refuse_surroundings(self, function: str, said: Said) -> None:
        """Let the options of a submit pass, or raise.

        Raises:
            NotAllowed: they have variables or a directory, by which a function that is allowed may
                be led to run another program (``PATH``, ``LD_PRELOAD``).
        """
        if not self._patterns or function == COMMAND:  # which can run everything anyhow
            return
        for name in ("env", "inherit_env", "cwd"):
            if name in said:
                raise NotAllowed(
                    f"{name}: security.allow is set, and {function} might run another program by it",
                    'the settings may have it: [functions."module:function"]',
                )

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
