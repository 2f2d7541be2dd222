"""What a submit takes from the process that makes it: files of variables, and its own environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

from jobd.model.environment import encoded, inherited, masked, parse_file
from jobd.model.errors import UsageError
from jobd.model.options import Said, laid_over


def with_files(said: Said) -> Said:
    """Return options with what the files of variables say; ``env`` wins, and a later file.

    Raises:
        UsageError: a file cannot be read, or has a line that is no variable.
    """
    if "env_file" not in said:
        return said
    rest = {name: value for name, value in said.items() if name != "env_file"}
    found: dict[str, str] = {}
    for path in said["env_file"]:  # type: ignore[union-attr]  # as it is parsed
        found |= parse_file(_read(str(path)), str(path))
    return laid_over({"env": found}, rest)


def shown(said: Said | None) -> Said:
    """Return options as people may see them."""
    return {name: masked(v) if isinstance(v, dict) else v for name, v in (said or {}).items()}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        problem = f"env_file: {path}: {error.strerror}"
        raise UsageError(problem, "name a file of NAME=VALUE lines") from None


def travelling(said: Said, patterns: Sequence[str] | None = None) -> Said:
    """Return options as they are sent: with the variables that the job inherits, as they are now.

    Args:
        said: the options; others that name a variable win over what is inherited.
        patterns: which variables it inherits, if it does; None: as the settings of this process say.
    """
    found = with_patterns(said, patterns)
    if found is said or "inherit_env" not in found:
        return found
    chosen: list[str] = found["inherit_env"]  # type: ignore[assignment]  # as it is made
    return laid_over({"env": inherited(os.environ, chosen)}, found)


def with_patterns(said: Said, patterns: Sequence[str] | None = None) -> Said:
    """As ``travelling``, without the variables, which a graph has once for all of its jobs."""
    wanted = said.get("inherit_env")
    if not isinstance(wanted, bool):
        return said
    rest = {name: value for name, value in said.items() if name != "inherit_env"}
    chosen = [*(_patterns() if patterns is None else patterns)] if wanted else []
    return rest | {"inherit_env": chosen} if chosen else rest


def variables_of(said: Said) -> bytes:
    """Return the variables that jobs inherit which are sent with these options (``with_patterns``)."""
    chosen: list[str] = said["inherit_env"]  # type: ignore[assignment]  # as it is made
    return encoded(inherited(os.environ, chosen))


@lru_cache(maxsize=1)
def _patterns() -> Sequence[str]:
    """Return what the settings say; read once, as this takes longer than a submit."""
    from jobd.config import load  # noqa: PLC0415  # the command line has loaded them already

    return load(config_file=None, flags={}, environ=os.environ).settings.environment.inherit
