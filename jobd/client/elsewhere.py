"""Reaching a daemon on another machine: over TCP with a key, or by way of ssh."""

from __future__ import annotations

import os
import time

from jobd.config import load
from jobd.model.errors import ConfigError, DaemonUnreachable, Denied
from jobd.wire import keys, ssh
from jobd.wire.channel import Channel


def reach(socket: str, deadline: float, max_message_bytes: int) -> Channel:
    """Connect to ``tcp://host:port`` or ``ssh://host`` and shake hands, by a time on the monotonic clock.

    Raises:
        ConfigError: it is neither, or there is no key to use.
        Denied: the daemon does not know our key, or is not the one that we know.
        DaemonUnreachable: ssh has ended without having reached one.
        OSError, ProtocolError: nobody is there, or it is no jobd.
    """
    if socket.startswith("ssh://"):
        try:
            return ssh.connect(socket, deadline=deadline, max_message_bytes=max_message_bytes)
        except ssh.SshFailed as failed:
            hint = "does 'ssh HOST jobd ping' work?"
            raise DaemonUnreachable(f"no daemon at {socket}: {failed}", hint) from None
    if socket.startswith("tcp://"):
        return _over_tcp(socket, deadline, max_message_bytes)
    raise ConfigError(
        f"{socket} is no place for a daemon", "give a path, tcp://HOST:PORT or ssh://HOST"
    )


def _over_tcp(socket: str, deadline: float, max_message_bytes: int) -> Channel:
    from jobd.wire.tcp import TcpChannel, WrongKey, WrongServer  # noqa: PLC0415  # libzmq takes 20 ms

    key, path = _key_for(socket)
    try:
        return TcpChannel.connect(
            socket,
            public=key.public,
            secret=key.secret,
            server=key.server,
            timeout_s=deadline - time.monotonic(),
            max_message_bytes=max_message_bytes,
        )
    except WrongKey:
        raise Denied(
            f"the daemon at {socket} does not know the key {path}",
            "its public half has to be among those that it allows: --allow, or [remote] allow",
        ) from None
    except WrongServer:
        raise Denied(
            f"the daemon at {socket} has not the key that {path} is for",
            "set JOBD_SERVER_KEY to what 'jobd key show' prints on its machine",
        ) from None


def _key_for(socket: str) -> tuple[keys.Key, str]:
    """Return our key, with the daemon's public one, and the file that it is from."""
    settings = load(config_file=None, flags={}, environ=os.environ).settings
    if not settings.key:
        raise ConfigError(
            f"the daemon at {socket} lets in nobody without a key",
            "name yours with JOBD_KEY; 'jobd key new NAME' makes one",
        )
    key = keys.read_key(settings.key)
    server = key.server
    if settings.server_key:
        try:
            server = keys.parse_public(settings.server_key)
        except ValueError:
            raise ConfigError(
                f"server_key is no key: {settings.server_key!r:.80}", "it has 64 hexadecimal digits"
            ) from None
    if not key.secret or not server:
        what = "the secret half" if not key.secret else "the daemon's public key"
        raise ConfigError(
            f"{settings.key} has not {what}",
            "set JOBD_SERVER_KEY to what 'jobd key show' prints on the daemon's machine"
            if key.secret
            else "name the .key file, not the .pub file",
        )
    return keys.Key(key.public, key.secret, server), settings.key
