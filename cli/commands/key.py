"""``jobd key``: the keys of clients on other machines, and the daemon's own."""

from __future__ import annotations

import os

import click

from jobd.cli.options import Noun, option, verb
from jobd.cli.session import Session
from jobd.cli.text import one_line
from jobd.model.errors import UsageError
from jobd.wire import keys

EXAMPLES = """
jobd key new laptop            on the daemon's machine: laptop.key and laptop.pub
jobd start --listen tcp://10.0.0.5:9750 --allow laptop.pub
JOBD_SOCKET=tcp://10.0.0.5:9750 JOBD_KEY=laptop.key jobd ls           elsewhere
jobd key show                  the daemon's own public key
"""

NEW_EXAMPLES = """
jobd key new laptop                 laptop.key and laptop.pub, for this machine's daemon
jobd key new ci --server 3f0c...    for the daemon whose public key this is
"""

SHOW_EXAMPLES = """
jobd key show
"""


@click.group(cls=Noun, examples=EXAMPLES)
def command() -> None:
    """Make and show keys, for clients on other machines.

    A daemon that listens at tcp:// lets in the clients whose public keys it is told, and
    a client talks to the daemon whose public key stands in its own key file.
    """


@verb(examples=NEW_EXAMPLES)
@click.argument("name")
@option(
    "--server",
    metavar="KEY",
    allow_from_autoenv=False,
    help="The daemon's public key.  [default: that of the daemon of this state directory]",
)
def new(session: Session, *, name: str, server: str | None) -> int:
    """Make a key: NAME.key is the client's secret, NAME.pub is what its daemon is told.

    The public key of this machine's daemon is written into NAME.key (and made, if it has none
    yet); on another machine, say with --server which daemon it is for.
    """
    name = name.removesuffix(keys.SECRET_SUFFIX)
    try:
        of_daemon = keys.parse_public(server) if server else _server(session).public
    except ValueError as error:
        raise UsageError(f"--server: {error}", "'jobd key show' prints it there") from None
    made = keys.new_key(of_daemon)
    secret, public = name + keys.SECRET_SUFFIX, name + keys.PUBLIC_SUFFIX
    keys.write_public(made, public)
    keys.write_key(made, secret)
    if session.json:
        told = {"schema": "jobd.key/1", "public": made.public.hex(), "server": of_daemon.hex()}
        session.write_json(told | {"key": os.path.abspath(secret), "pub": os.path.abspath(public)})
    else:
        session.write_lines([one_line(secret), one_line(public)])
        session.note(f"give {secret} to the client, and name {public} to its daemon with --allow")
    return 0


@verb(examples=SHOW_EXAMPLES)
def show(session: Session) -> int:
    """Print the daemon's own public key; it is made if there is none yet."""
    public = _server(session).public.hex()
    if session.json:
        session.write_json({"schema": "jobd.key/1", "server": public})
    else:
        session.write(public)
    return 0


def _server(session: Session) -> keys.Key:
    return keys.server_key(session.load().settings.state_dir)


for _verb in (new, show):
    command.add_command(_verb)
