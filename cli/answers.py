"""What became of each job of a command that changes jobs: ``cancel``, ``retry``, ``hold``, ``release``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobd.cli.render import answers_json, exit_code
from jobd.model.errors import DuplicateKey, JobAborted, NotFound, NotReady
from jobd.model.item import shown

if TYPE_CHECKING:
    from jobd.cli.session import Session

CODES = {
    "not found": NotFound.code,
    "has not ended": NotReady.code,
    "it comes after": NotReady.code,
    "it waits for a failure": JobAborted.code,
    "is running": NotReady.code,
    "its key": DuplicateKey.code,
}
"""Exit codes of the answers that are refusals; all others mean that the job is as it was asked."""


def tell(
    session: Session,
    verb: str,
    answers: Sequence[tuple[int, str]],
    ends: Mapping[int, str] | None = None,
) -> int:
    """Print the answers; return the exit code that they share, or 8.

    ``ends`` are the states in which jobs have ended that were waited for.
    """
    ordered = sorted(answers)
    if session.json:
        session.write_json(answers_json(verb, ordered, ends))
    elif session.quiet:
        session.write_lines(shown(number) for number, _ in ordered)
    elif ordered:
        session.write_table((), [(shown(number), answer) for number, answer in ordered])
    else:
        session.note("no jobs")
    return exit_code([_code(answer) for _, answer in ordered])


def _code(answer: str) -> int:
    return next((code for word, code in CODES.items() if answer.startswith(word)), 0)
