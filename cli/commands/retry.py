"""``jobd retry``: jobs that ended without a result."""

from __future__ import annotations

from jobd.cli.answers import tell
from jobd.cli.editing import edit_call
from jobd.cli.options import option, selector_arguments, verb
from jobd.cli.selection import is_one, select
from jobd.cli.session import Session
from jobd.model.errors import NotFound, UsageError
from jobd.model.selector import one

EXAMPLES = """
jobd retry 4
jobd retry -s failed          all that failed
jobd retry 40-60 -s crashed   of these, those that crashed
jobd retry 4 --edit           change its arguments first, in $EDITOR
"""


@verb(examples=EXAMPLES)
@selector_arguments
@option("--edit", is_flag=True, help="Edit the call of one job first, as JSON in $EDITOR.")
def command(
    session: Session, *, selector: tuple[str, ...], states: tuple[str, ...], edit: bool
) -> int:
    """Queue jobs again that failed, crashed or were cancelled, and print what became of each.

    A job keeps its id and its arguments; its earlier attempts stay on record. Jobs that
    were aborted for its sake wait for it again.
    """
    selected = select(selector, states)
    if edit and not is_one(selected):
        raise UsageError("--edit takes one job", "give one id, such as 42, or last")
    with session.connect() as client:
        args: bytes | None = b""
        if edit:
            found = client.find(selected)
            if not found:
                raise NotFound("there is no job yet", "see 'jobd ls'")
            args = edit_call(found[0])
            selected = one(found[0].id)  # should another be the last by now
        if args is None:
            session.note("jobd: nothing was saved, and no job was queued")
            return 0
        return tell(session, "retry", client.retry(selected, args))
