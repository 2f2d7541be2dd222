"""What ends a command that is neither the daemon's answer nor the user's doing."""

from __future__ import annotations

import os

import click

from jobd.cli import EXIT_INTERRUPTED
from jobd.model.errors import JobdError, UsageError


class Interrupted(JobdError):
    """Ctrl-C: the command ends, its jobs do not."""

    code = EXIT_INTERRUPTED
    error = "interrupted"


class IoFailed(JobdError):
    """The operating system refused to read or write for us."""

    code = 74
    error = "io"


class Bug(JobdError):
    """jobd did something that it should not."""

    code = 70
    error = "bug"


def interrupted(
    ids: list[int], again: str = "result --wait", *, submitting: bool = False
) -> Interrupted:
    """Return what Ctrl-C is told as, while the command waited for these jobs or for an id.

    Args:
        ids: the jobs that are waited for.
        again: the command that goes on where this one stops.
        submitting: the id of a new job is waited for.
    """
    if submitting:
        return Interrupted("interrupted: the job may have been queued", "see 'jobd ls'")
    if not ids:
        return Interrupted("interrupted")
    if again == "cancel --wait":
        return Interrupted("interrupted: what was cancelled ends all the same", "see 'jobd ls'")
    if len(ids) > 1:
        return Interrupted(f"detached: the {len(ids)} jobs go on", "'jobd wait' waits again")
    hint = f"'jobd {again} {ids[0]}' waits for it, 'jobd cancel {ids[0]}' ends it"
    return Interrupted(f"detached: job {ids[0]} goes on", hint)


def as_jobd_error(error: Exception) -> JobdError:
    """Return the error to tell for whatever a command raised."""
    match error:
        case JobdError():
            return error
        case click.UsageError():
            return _usage(error)
        case OSError():
            what = f"{error.filename}: " if error.filename else ""
            return IoFailed(f"{what}{error.strerror or error}")
        case _:
            hint = "this is a bug in jobd: please report it, with what --verbose shows"
            return Bug(f"{type(error).__name__}: {error}", hint)


def wants_json(argv: list[str]) -> bool:
    """Whether a command line that could not be parsed asks for JSON."""
    before = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in before or bool(os.environ.get("JOBD_JSON"))


def _usage(error: click.UsageError) -> UsageError:
    """Say what click found wrong: one sentence, and what to do next."""
    path = error.ctx.command_path if error.ctx else "jobd"
    see = f"see '{path} --help'"
    if isinstance(error, click.NoSuchOption):
        nearest = list(error.possibilities or ())  # the most similar one first
        hint = f"did you mean {nearest[0]}? See '{path} --help'" if nearest else see
        return UsageError(f"{path} has no option {error.option_name}", hint)
    message = error.format_message().rstrip(".")
    return UsageError(message[:1].lower() + message[1:], see)
