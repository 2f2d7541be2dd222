"""``jobd queue``: the queues and their rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobd.cli import render
from jobd.cli.options import Noun, option, verb
from jobd.cli.session import Session
from jobd.cli.text import one_line
from jobd.model.options import OF_QUEUE

if TYPE_CHECKING:
    from jobd.model.queues import QueueInfo

EXAMPLES = """
jobd queue set etl --slots 2          at most two of its jobs at once
jobd submit mytasks:load --queue etl
jobd queue ls
jobd queue pause etl
jobd queue resume etl
"""

LS_EXAMPLES = """
jobd queue ls
jobd queue ls etl mail
jobd queue ls -q                      names only, one a line
jobd queue ls --json                  {"schema": "jobd.queues/1", "queues": […]}
"""

SET_EXAMPLES = """
jobd queue set etl                    make it, without limits
jobd queue set etl --slots 2          at most two of its jobs at once
jobd queue set mail --rate 100/m      at most 100 starts in any minute; 3/10s, 5000/h
jobd queue set mail --rate 0          as fast as there are workers again
jobd queue set etl --reset            what the settings say, and nothing else
"""

RM_EXAMPLES = """
jobd queue rm etl
"""

PAUSE_EXAMPLES = """
jobd queue pause etl                  'jobd queue resume etl' goes on
jobd queue pause default              jobs that name no queue
"""

RESUME_EXAMPLES = """
jobd queue resume etl
"""


@click.group(cls=Noun, examples=EXAMPLES)
def command() -> None:
    """Make queues, limit them, pause and resume them.

    A job is in the queue that its --queue names, else in "default". A queue may have slots
    (so many of its jobs run at once) and a rate (so many start in a time). What is set here
    is kept by the daemon, and outranks [queues.NAME] of the settings.
    """


@verb(name="ls", examples=LS_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[NAME]…")
def ls(session: Session, *, names: tuple[str, ...]) -> int:
    """List the queues and their rules.

    RUNNING and WAITING count their jobs; those that wait for their time or for other jobs are among
    the latter. FROM says who made the queue: the settings, or 'jobd queue set'.
    """
    with session.connect() as client:
        found = client.queues(*names)
    if session.json:
        queues = [render.queue_json(info) for info in found]
        session.write_json({"schema": "jobd.queues/1", "queues": queues})
    elif session.quiet:
        session.write_lines(one_line(info.name) for info in found)
    else:
        session.write_table(render.QUEUE_COLUMNS, map(render.queue_row, found))
    return 0


def _rules(function: Any) -> Any:
    """Add ``--slots`` and ``--rate``, as text: ``parse_queue`` checks them."""
    for name, told in reversed(OF_QUEUE.items()):
        function = option(f"--{name}", metavar=told.metavar, help=told.help)(function)
    return function


@verb(name="set", examples=SET_EXAMPLES)
@click.argument("name")
@_rules
@option(
    "--reset",
    is_flag=True,
    help="First forget the slots and the rate that were set here.",
)
def set_(session: Session, *, name: str, reset: bool, **rules: str | None) -> int:
    """Make a queue, or change its rules.

    What is not named stays. It holds at once and for good, also after a restart. What runs goes on.
    """
    with session.connect() as client:
        return _tell(session, client.set_queue(name, reset=reset, **rules))


@verb(name="rm", examples=RM_EXAMPLES)
@click.argument("name")
def rm(session: Session, *, name: str) -> int:
    """Remove a queue.

    One of which jobs wait or run stays, and so does one that the settings have.
    """
    with session.connect() as client:
        client.remove_queue(name)
    if session.json:
        session.write_json({"schema": "jobd.queue_rm/1", "name": name, "removed": True})
    elif not session.quiet:
        session.write(f"the queue {one_line(name)} is removed")
    return 0


@verb(name="pause", examples=PAUSE_EXAMPLES)
@click.argument("name")
def pause(session: Session, *, name: str) -> int:
    """Start no more jobs of a queue.

    What runs goes on; what is submitted waits. It stays so over a restart.
    """
    with session.connect() as client:
        return _tell(session, client.pause(name))


@verb(name="resume", examples=RESUME_EXAMPLES)
@click.argument("name")
def resume(session: Session, *, name: str) -> int:
    """Start jobs of a queue again."""
    with session.connect() as client:
        return _tell(session, client.resume(name))


def _tell(session: Session, info: QueueInfo) -> int:
    """Print how a queue is now."""
    if session.json:
        session.write_json(render.queue_json(info))
    elif not session.quiet:
        session.write_table(render.QUEUE_COLUMNS, [render.queue_row(info)])
    return 0


for _verb in (ls, set_, rm, pause, resume):
    command.add_command(_verb)
