"""``jobd db``: the file that holds the queue and the results."""

from __future__ import annotations

from pathlib import Path

import click

from jobd.cli.options import Noun, verb
from jobd.cli.session import Session
from jobd.cli.text import one_line

EXAMPLES = """
jobd db check                         read all of it, and say what is damaged
"""

CHECK_EXAMPLES = """
jobd db check                         "ok", or what is wrong, a line each, and exit code 78
jobd db check --json                  {"schema": "jobd.check/1", "path": …, "ok": true, "problems": []}
"""


@click.group(cls=Noun, examples=EXAMPLES)
def command() -> None:
    """Look after the database in the daemon's state directory.

    The daemon looks at it for a moment at each start, whatever its size; all of it is read here.
    """


@verb(name="check", examples=CHECK_EXAMPLES)
def check(session: Session) -> int:
    """Read all of the database, and say what is damaged.

    It takes half a minute for a gigabyte, changes nothing, and may be done while the daemon runs,
    whose write-ahead log grows meanwhile.
    """
    path = Path(session.load().settings.state_dir) / "jobd.db"
    from jobd.store import files  # noqa: PLC0415  # SQLite, which no other command needs

    problems = files.problems(path)
    if session.json:
        told = {"path": str(path), "ok": not problems, "problems": problems}
        session.write_json({"schema": "jobd.check/1"} | told)
    else:
        session.write_lines(map(one_line, problems or ["ok"]))
    if not problems:
        return 0
    session.note(f"{path} is damaged; {files.what_to_do(path)}")
    return 78


command.add_command(check)
