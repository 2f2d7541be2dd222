"""What ``security.allow`` lets run: patterns of references, read in the daemon and again in the workers.

A pattern has the form of a reference, with wildcards.  In the part behind the colon no
wildcard stands for a dot or for a name with a leading underscore; what they find has to
be *defined* in the module, or be listed in its ``__all__``: a module's names are also
what it has imported, and nearly every module would lead to a shell.  Only who has
imported the module can tell that, so the daemon judges the text alone, and the worker
both (``jobd.pool.confine``).  A pattern without a wildcard behind the colon names one
thing, wherever that comes from.
"""

from collections.abc import Sequence
from enum import IntEnum
from fnmatch import fnmatchcase

_WILD = frozenset("*?[")


class Match(IntEnum):
    """What a list of patterns says of a reference."""

    NONE = 0
    IF_DEFINED_THERE = 1
    NAMED = 2


def match(reference: str, patterns: Sequence[str]) -> Match:
    """Return the most that one of the patterns allows."""
    return max((_match(reference, pattern) for pattern in patterns), default=Match.NONE)


def _match(reference: str, pattern: str) -> Match:
    module, _, path = reference.partition(":")
    wanted_module, _, wanted_path = pattern.partition(":")
    if not fnmatchcase(module, wanted_module):
        return Match.NONE
    if _is_wild(wanted_module) and any(name.startswith("_") for name in module.split(".")):
        return Match.NONE
    names, wanted = path.split("."), wanted_path.split(".")
    if len(names) != len(wanted) or not all(map(_is_like, names, wanted)):
        return Match.NONE
    return Match.IF_DEFINED_THERE if _is_wild(wanted_path) else Match.NAMED


def _is_like(name: str, wanted: str) -> bool:
    return name == wanted or (not name.startswith("_") and fnmatchcase(name, wanted))


def _is_wild(text: str) -> bool:
    return not _WILD.isdisjoint(text)
