"""``jobd config``: the settings."""

from __future__ import annotations

import click

from jobd.cli import render
from jobd.cli.options import Noun, verb
from jobd.cli.session import Session
from jobd.cli.text import one_line
from jobd.model.environment import masked

EXAMPLES = """
jobd config show
JOBD_POOL_WORKERS=8 jobd config show
"""


@click.group(cls=Noun, examples=EXAMPLES)
def command() -> None:
    """Show the settings."""


@verb(name="show", examples=EXAMPLES)
def show(session: Session) -> int:
    """Print each setting, its value, and where it came from.

    These are the values that a command here and now would use; a daemon that runs
    already has those it was started with.
    """
    from jobd.config import values  # noqa: PLC0415  # `--help` needs no settings

    loaded = session.load()
    found = {
        key: masked(value) if isinstance(value, dict) else value  # variables of jobs
        for key, value in values(loaded.settings).items()
    }
    if session.json:
        settings = {
            key: {"value": value, "origin": loaded.origins[key]} for key, value in found.items()
        }
        session.write_json({"schema": "jobd.config/1", "settings": settings})
    elif session.quiet:
        session.write_lines(found)
    else:
        session.write_table(
            ("KEY", "VALUE", "FROM"),
            [
                (key, render.setting_text(value), one_line(loaded.origins[key]))
                for key, value in found.items()
            ],
        )
    return 0


command.add_command(show)
