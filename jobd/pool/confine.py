"""What a wildcard of ``security.allow`` has found must be the module's own.

The daemon has judged the name when it was submitted (``jobd.daemon.allowed``); but only
here is the module imported, and a job may have been queued before the list was made.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobd.model.allowed import Match, match
from jobd.model.errors import NotAllowed
from jobd.model.job import PLAIN
from jobd.model.orders import Task


def refuse_foreign(reference: str, found: object, allow: Sequence[str]) -> None:
    """Let what a reference has led to pass, or raise; without a list everything passes.

    Raises:
        NotAllowed: the list does not have it, or has it by a wildcard and it comes from elsewhere.
    """
    if not allow:
        return
    said = match(reference, allow)
    if said is Match.NONE:
        raise NotAllowed(f"{reference} may not be run", "security.allow does not list it")
    if said is Match.IF_DEFINED_THERE and not _is_own(reference, found):
        module, _, path = reference.partition(":")
        raise NotAllowed(
            f"{reference} may not be run: {module} neither defines {path} nor lists it in __all__",
            f'security.allow can name it without a wildcard: "{reference}"',
        )


def refuse_pickles(task: Task, allow: Sequence[str]) -> None:
    """Let the call of a job pass, or raise: with a list, it is plain data and a name.

    Raises:
        NotAllowed: it is not, though it was accepted, before there was a list.
    """
    if allow and task.args[:1] not in PLAIN:
        raise NotAllowed(
            f"the call of {task.function} is a pickle, and security.allow is set",
            "submit it again, by name and with plain data",
        )


def _is_own(reference: str, found: object) -> bool:
    module, _, path = reference.partition(":")
    public = getattr(sys.modules.get(module), "__all__", ())
    if isinstance(public, list | tuple) and path in public:
        return True
    # An instance has no __qualname__ of its own: only functions, methods and classes have both.
    home, name = (getattr(found, key, None) for key in ("__module__", "__qualname__"))
    return (home, name) == (module, path)
