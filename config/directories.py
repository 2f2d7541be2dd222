"""Where the daemon's files are when nobody says, after the XDG base directories.

A daemon *is* its state directory, and several live side by side.  So the
default socket is a function of the state directory and of what a user's
session has in common, never of what only the daemon can see: a client that
knows the state directory finds the daemon.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jobd.config.settings import WORKER_SUFFIX
from jobd.model.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

# sockaddr_un.sun_path has 108 bytes, the last of them a NUL: unix(7).
SOCKET_PATH_BYTES = 107


def config_file(environ: Mapping[str, str]) -> str:
    """The user's own configuration file, which need not exist."""
    return _xdg(environ, "XDG_CONFIG_HOME", "~/.config") + "/jobd/jobd.toml"


def state_dir(environ: Mapping[str, str]) -> str:
    """The default state directory: systemd's, where a unit has ``StateDirectory=``."""
    by_systemd = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return by_systemd or _user_state_dir(environ)


def socket(state_dir: str, environ: Mapping[str, str]) -> str:
    """The default socket of the daemon with this state directory (an absolute path)."""
    # Not for what STATE_DIRECTORY names: two units of one user would share a socket,
    # and a client, which does not have that variable, would look elsewhere.
    runtime_dir = environ.get("XDG_RUNTIME_DIR", "")
    if state_dir == _user_state_dir(environ) and _usable(runtime_dir):
        return os.path.join(runtime_dir, "jobd", "client.sock")
    return os.path.join(state_dir, "client.sock")


def check_socket(path: str) -> None:
    """Refuse a path that is too long for a socket, or for the workers' beside it.

    Raises:
        ConfigError: it is too long; the message tells by how much.
    """
    size = len(os.fsencode(path + WORKER_SUFFIX))
    if size > SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the socket's path is too long: {path}{WORKER_SUFFIX} has {size} bytes, "
            f"and the system allows {SOCKET_PATH_BYTES}",
            "name a shorter one with --socket",
        )


def absolute(path: str, base: str, environ: Mapping[str, str]) -> str:
    """Expand ``~`` and put a relative path under ``base`` (a directory's absolute path).

    Raises:
        ConfigError: it has a NUL, or a home directory that nobody knows.
    """
    if "\0" in path:
        raise ConfigError(f"a path cannot have a NUL character: {path!r}")
    return os.path.normpath(os.path.join(base, _expand(path, environ)))


def _expand(path: str, environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    if home and (path == "~" or path.startswith("~/")):
        return home + path[1:]
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = path.partition("/")[0]
        raise ConfigError(
            f"cannot tell the home directory in {path}",
            "set HOME" if user == "~" else f"is there a user {user[1:]}?",
        )
    return expanded


def _xdg(environ: Mapping[str, str], name: str, default: str) -> str:
    """One of the XDG base directories; by its standard a relative one is ignored."""
    given = environ.get(name, "")
    return os.path.normpath(given if os.path.isabs(given) else _expand(default, environ))


def _user_state_dir(environ: Mapping[str, str]) -> str:
    return _xdg(environ, "XDG_STATE_HOME", "~/.local/state") + "/jobd"


def _usable(directory: str) -> bool:
    """Whether the directory is there and ours: after `su` it may be another user's."""
    return os.path.isabs(directory) and os.path.isdir(directory) and os.access(directory, os.W_OK)
