"""A call in somebody's editor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from jobd.cli import render
from jobd.model.errors import UsageError
from jobd.model.job import JSON

if TYPE_CHECKING:
    from jobd.model.job import JobInfo


class EditedCall(msgspec.Struct, forbid_unknown_fields=True):
    """What is edited."""

    args: list[Any]
    kwargs: dict[str, Any]


def edit_call(info: JobInfo) -> bytes | None:
    """Let somebody edit a job's call in ``$EDITOR``; return it encoded, or None if it was not saved.

    Raises:
        UsageError: the call cannot be edited, or what was saved is none.
    """
    args, kwargs = render.call_of(info)
    kind = (info.args or b"")[:1]
    if args is None or kwargs is None or info.inputs or kind not in JSON:
        raise UsageError(
            f"the arguments of job {info.id} are not plain JSON, and cannot be edited",
            "submit it again with others",
        )
    before = msgspec.json.format(msgspec.json.encode({"args": args, "kwargs": kwargs}), indent=2)
    try:
        text = click.edit(before.decode() + "\n", extension=".json")
    except click.ClickException as error:
        raise UsageError(f"the editor failed: {error.message}", "set EDITOR") from None
    if text is None:
        return None
    try:
        call = msgspec.json.decode(text, type=EditedCall)
    except msgspec.MsgspecError as error:
        problem = f"what was saved is no call: {error}"
        raise UsageError(problem, 'write {"args": […], "kwargs": {…}}') from None
    return kind + msgspec.json.encode([call.args, call.kwargs])
