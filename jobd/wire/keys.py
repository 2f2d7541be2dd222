"""The keys by which a daemon and clients on other machines know each other (CurveZMQ, RFC 26).

A key file has lines ``name = "value"``: ``secret`` and ``public``, 32 bytes each as 64 hexadecimal digits,
and ``server``, the public key of the daemon that the key is for.  A file of the public half, which
is what a daemon is told, has ``public`` only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from jobd.model.errors import ConfigError

SECRET_SUFFIX, PUBLIC_SUFFIX = ".key", ".pub"

SERVER_NAME = "server.key"
"""The daemon's own key, in its state directory."""

KEY_BYTES = 32
RIGHTS = ("read", "submit", "control")

_ABOUT = (
    "# A key of jobd (docs/cli.md). Keep it secret: whoever has it may do what its owner may.\n"
)
_ABOUT_PUBLIC = (
    "# The public half of a key of jobd: tell a daemon of it with [remote] allow, or --allow.\n"
)


class Key(msgspec.Struct, frozen=True):
    """What a key file says; what it does not say is empty."""

    public: bytes
    secret: bytes = b""
    server: bytes = b""


class Allowed(msgspec.Struct, frozen=True):
    """A key that a daemon lets in."""

    name: str
    public: bytes
    rights: frozenset[str]


def new_key(server: bytes = b"") -> Key:
    """Return a new key."""
    import zmq  # noqa: PLC0415  # who only reads keys need not pay for it
    from zmq.utils import z85  # noqa: PLC0415  # as above

    public, secret = zmq.curve_keypair()
    return Key(z85.decode(public), z85.decode(secret), server)


def write_key(key: Key, path: str) -> None:
    """Write a key file that only its owner may read; one that is there already stays.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    named = {"secret": key.secret, "public": key.public, "server": key.server}
    lines = [f'{name} = "{value.hex()}"\n' for name, value in named.items() if value]
    _write(path, 0o600, _ABOUT + "".join(lines))


def write_public(key: Key, path: str) -> None:
    """Write the file of the public half.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    _write(path, 0o644, f'{_ABOUT_PUBLIC}public = "{key.public.hex()}"\n')


def read_key(path: str) -> Key:
    """Return what a key file says, of either kind.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read(4096).splitlines()
    except FileNotFoundError:
        raise ConfigError(f"there is no key {path}", "make one with 'jobd key new NAME'") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"the key {path} cannot be read: {why}") from None
    said = dict(_values(lines))
    try:
        return Key(**{name: parse_public(value) for name, value in said.items()})
    except (ValueError, TypeError):
        raise ConfigError(f"{path} is no key of jobd", "is it the right file?") from None


def server_key(state_dir: str) -> Key:
    """Return the daemon's own key; it is made if there is none yet.

    Raises:
        ConfigError: it cannot be read, or made.
    """
    path = os.path.join(state_dir, SERVER_NAME)
    if not os.path.exists(path):
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        write_key(new_key(), path)
    return read_key(path)


def parse_public(text: str) -> bytes:
    """Return the bytes of a key that is given in hexadecimal.

    Raises:
        ValueError: it is none.
    """
    found = bytes.fromhex(text)
    if len(found) != KEY_BYTES:
        raise ValueError("a key has 64 hexadecimal digits")
    return found


def read_allowed(entries: Iterable[str]) -> list[Allowed]:
    """Return the keys that ``[remote] allow`` names: ``laptop.pub``, or ``laptop.pub=read+submit``.

    Raises:
        ConfigError: a key cannot be read, or a right is none.
    """
    found = []
    for entry in entries:
        path, _, said = entry.partition("=")
        rights = frozenset(said.split("+")) if said else frozenset(RIGHTS)
        if odd := rights - {*RIGHTS}:
            raise ConfigError(
                f"remote.allow: a key has no right {min(odd)!r}",
                f"there are {', '.join(RIGHTS)}, as in 'laptop.pub=read+submit'",
            )
        name = os.path.basename(path).removesuffix(PUBLIC_SUFFIX)
        found.append(Allowed(name, read_key(path).public, rights))
    return found


def _values(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, is_said, value = line.partition("=")
        if is_said and not line.startswith("#"):
            yield name.strip(), value.strip().strip('"')


def _write(path: str, mode: int, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise ConfigError(f"{path} is there already", "choose another name, or remove it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
