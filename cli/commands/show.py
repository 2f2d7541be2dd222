"""``jobd show``: all that is known of jobs."""

from __future__ import annotations

from jobd.cli import render
from jobd.cli.options import selector_arguments, verb
from jobd.cli.selection import is_one, refuse_missing, select
from jobd.cli.session import Session
from jobd.model.item import shown

EXAMPLES = """
jobd show 4              one job
jobd show last:3         the three newest
jobd show 4 --json       {"schema": "jobd.job/1", "id": 4, …}
jobd show 4-9 --json     {"schema": "jobd.jobs/1", "jobs": […]}
"""


@verb(examples=EXAMPLES)
@selector_arguments
def command(session: Session, *, selector: tuple[str, ...], states: tuple[str, ...]) -> int:
    """Show all that is known of jobs: the call, the times, the error with its traceback."""
    selected = select(selector, states)
    with session.connect() as client:
        found = client.find(selected)
    found.sort(key=lambda info: info.id)
    refuse_missing(selected, [info.id for info in found])
    if session.json:
        jobs = [render.job_json(info) for info in found]
        one = is_one(selected)
        session.write_json(jobs[0] if one else {"schema": "jobd.jobs/1", "jobs": jobs})
        return 0
    for index, info in enumerate(found):
        if session.quiet:
            session.write(shown(info.id))
            continue
        if index:
            session.write("")
        session.write_table((), render.job_details(info))
        traceback = info.error.traceback.rstrip() if info.error else ""
        if "\n" in traceback:  # else it says no more than the error
            session.write("\n" + traceback)
        for block in render.last_words(info):
            session.write("\n" + block)
    return 0
