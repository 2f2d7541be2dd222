"""Lays the sources of settings over each other; a later one wins, key by key.

1. the defaults
2. ``/etc/jobd/jobd.toml``
3. ``$XDG_CONFIG_HOME/jobd/jobd.toml``
4. the file that ``--config`` or ``JOBD_CONFIG`` names; only this one must exist
5. the environment: ``JOBD_STATE_DIR``, ``JOBD_POOL_WORKERS``; one that is empty
   counts as not set
6. flags

Each source is read into a stream of `_Given`, in this order, and one loop checks
and keeps them.  A relative path counts from the directory of the file it stands
in, elsewhere from the current directory.  A list in the environment is
separated by ``:``, as in ``PATH``, or, where that is a part of the items, by ``,``.

The command line loads this module each time it starts, so what only a file or
an error needs is imported where it is needed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from jobd.config import directories
from jobd.config.settings import (
    KEYS,
    TABLES,
    Settings,
    build,
    env_name,
    flag_name,
)
from jobd.model.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM_FILE = "/etc/jobd/jobd.toml"
DEFAULT = "default"

_PATH_KEYS = frozenset({"state_dir", "socket", "key", "path", "remote.allow"})
_WITH_COMMAS = frozenset({"security.allow", "environment.inherit"})
"""Lists whose items may have a colon, or are separated by commas elsewhere too."""
_SHOWN_CHARACTERS = 60


class Loaded(msgspec.Struct, frozen=True):
    """The settings, and for each key where its value came from.

    Attributes:
        settings: the tree; paths are absolute.
        origins: by key: "default", a file's path, "environment (JOBD_POOL_WORKERS)"
            or "--workers".
    """

    settings: Settings
    origins: dict[str, str]


class _Given(msgspec.Struct, frozen=True, kw_only=True):
    """A value as its source has it, not yet checked.

    Attributes:
        where: how an error names the place, such as "/etc/jobd/jobd.toml: pool.workers".
        base: the directory from which a relative path counts.
        text: whether the source knows only text, so that "4" may be a number.
        table: the rule's table if it is one, such as "queues.etl"; ``key`` is an option's name then,
            and ``raw`` is None to say that there is such a table.
    """

    key: str
    raw: object
    origin: str
    where: str
    base: str
    text: bool
    table: str = ""


def load(
    *,
    config_file: str | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    system_file: str = SYSTEM_FILE,
) -> Loaded:
    """Read all sources of settings.

    Args:
        config_file: what ``--config`` names, if it was given.
        flags: values by key, such as ``{"pool.workers": 4}``; None is "not given".
        environ: the environment variables.
        system_file: the file that holds for all users of the machine.

    Raises:
        ConfigError: a source cannot be read or has a value that cannot be used.
    """
    values: dict[str, Any] = {}
    origins = dict.fromkeys(KEYS, DEFAULT)
    rules: dict[str, dict[str, Any]] = {}
    for given in _sources(config_file, flags, environ, system_file):
        if given.table:
            found = _checked_rule(given, environ)
            rules.setdefault(given.table, {}).update(found)
            origins |= {f"{given.table}.{key}": given.origin for key in found}
            continue
        values[given.key] = _checked(given, environ)
        origins[given.key] = given.origin
    _fill_in_directories(values, environ)
    settings = build(values, rules)
    _check_together(settings, origins)
    return Loaded(settings, origins)


def _sources(
    config_file: str | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    system_file: str,
) -> Iterator[_Given]:
    """Everything that is given, in the order of precedence: the last one wins."""
    yield from _in_file(system_file, "")
    yield from _in_file(directories.config_file(environ), "")
    if config_file is not None:
        yield from _in_file(config_file, "--config")
    elif environ.get("JOBD_CONFIG"):
        yield from _in_file(environ["JOBD_CONFIG"], "JOBD_CONFIG")
    yield from _in_environment(environ)
    yield from _in_flags(flags)


def _in_file(path: str, named_by: str) -> Iterator[_Given]:
    """The values in a file; ``named_by`` is what demands that it exists, or "".

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has an unknown key.
    """
    file = os.path.abspath(path)
    document = _read_toml(file, named_by)
    yield from _rules_in(file, document)
    for key, raw in _flat(file, document):
        if key not in KEYS:
            raise ConfigError(f"{file}: unknown key {key!r}", _nearest(key, KEYS))
        where = f"{file}: {key}"
        base = os.path.dirname(file)
        yield _Given(key=key, raw=raw, origin=file, where=where, base=base, text=False)


def _rules_in(file: str, document: dict[str, object]) -> Iterator[_Given]:
    """Take the options of jobs out of a file: ``[defaults]``, ``[queues.NAME]``, ``[functions."m:f"]``."""
    tables: dict[str, object] = {}
    if "defaults" in document:
        tables["defaults"] = document.pop("defaults")
    for kind in ("queues", "functions"):
        named = document.pop(kind, {})
        if not isinstance(named, dict):
            raise ConfigError(
                f"{file}: {kind} must be a table", f"write [{kind}.NAME] above its keys"
            )
        tables |= {f"{kind}.{name}": table for name, table in named.items()}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {name} must be a table", f"write [{name}] above its keys")
        # None first: that there is such a table, which is what makes a queue.
        for key, raw in [("", None), *table.items()]:
            where = f"{file}: {name}.{key}".removesuffix(".")
            yield _Given(
                key=key, raw=raw, origin=file, where=where, base="", text=False, table=name
            )


def _checked_rule(given: _Given, environ: Mapping[str, str]) -> dict[str, Any]:
    """The option by its name; none, where it was only said that there is such a table."""
    from jobd.model import options  # noqa: PLC0415  # most users have no such table

    kind, _, name = given.table.partition(".")
    of_queue = kind == "queues"
    try:
        if of_queue:
            options.check_queue_name(name)
        if given.raw is None:
            return {}
        raw = given.raw
        if given.key == "cwd" and isinstance(raw, str) and raw:
            raw = directories.absolute(raw, os.path.dirname(given.origin), environ)
        return {given.key: options.check_default(given.key, raw, of_queue=of_queue)}
    except UsageError as error:
        raise ConfigError(f"{given.where}: {error.message}", error.hint) from None


def _read_toml(file: str, named_by: str) -> dict[str, object]:
    try:
        with open(file, "rb") as stream:
            content = stream.read()
    except FileNotFoundError as error:
        if named_by:
            raise ConfigError(f"{file}: there is no such file", f"{named_by} names it") from error
        return {}
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    import tomllib  # noqa: PLC0415  # takes 5 ms, and most users have no file

    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from error


def _flat(file: str, document: dict[str, object]) -> Iterator[tuple[str, object]]:
    """The file's content by dotted name, known or not."""
    for name, value in document.items():
        if name in TABLES and not isinstance(value, dict):
            raise ConfigError(f"{file}: {name} must be a table", f"write [{name}] above its keys")
        if name in KEYS or not isinstance(value, dict):
            yield name, value
        elif name in TABLES or value:
            yield from ((f"{name}.{leaf}", raw) for leaf, raw in value.items())
        else:
            yield name, value


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        raise ConfigError(
            "the current directory does not exist any more", "change to one that does"
        ) from None


def _in_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    """The values in environment variables.

    Raises:
        ConfigError: a variable begins like those of a table, but is none of them.
    """
    keys = {env_name(key): key for key in KEYS}
    _refuse_unknown_variables(environ, keys)
    base = _current_directory()
    for name, key in keys.items():
        if raw := environ.get(name):
            origin = f"environment ({name})"
            yield _Given(key=key, raw=raw, origin=origin, where=name, base=base, text=True)


def _refuse_unknown_variables(environ: Mapping[str, str], known: Mapping[str, str]) -> None:
    # Only those: JOBD_SOMETHING may be an option of a command, or a later version's.
    prefixes = tuple(env_name(table) + "_" for table in TABLES)
    for name, value in environ.items():
        if value and name not in known and name.startswith(prefixes):
            raise ConfigError(f"unknown environment variable {name!r}", _nearest(name, known))


def _in_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    base = _current_directory()
    for key, raw in flags.items():
        if raw is None:
            continue
        name = flag_name(key)
        if raw == "" and key in _PATH_KEYS:
            # An unset shell variable, most likely; the default would surprise.
            raise ConfigError(f"{name} must not be empty")
        yield _Given(key=key, raw=raw, origin=name, where=name, base=base, text=True)


def _checked(given: _Given, environ: Mapping[str, str]) -> Any:
    """The value in its declared type and range, a path made absolute.

    Raises:
        ConfigError: it has another type, or is out of range.
    """
    kind, raw = KEYS[given.key], given.raw
    if given.text and isinstance(raw, str) and kind == tuple[str, ...]:
        separator = "," if given.key in _WITH_COMMAS else os.pathsep
        raw = [item for item in raw.split(separator) if item]
    try:
        value = msgspec.convert(raw, kind, strict=not given.text)
    except msgspec.ValidationError as error:
        expected = _expected(kind)
        raise ConfigError(f"{given.where} must be {expected}, not {_shown(given.raw)}") from error
    if given.key == "pool.preload":
        _check_module_names(given.where, value)
    if given.key == "security.allow":
        _check_patterns(given.where, value)
    if given.key == "environment.inherit":
        _check_names(given.where, value)
    return _absolute(given, value, environ) if given.key in _PATH_KEYS else value


def _check_names(where: str, patterns: tuple[str, ...]) -> None:
    from jobd.model.environment import check_patterns  # noqa: PLC0415  # most users have no such setting

    try:
        check_patterns(patterns)
    except UsageError as error:
        raise ConfigError(f"{where}: {error.message}", error.hint) from None


def _absolute(
    given: _Given, value: str | tuple[str, ...], environ: Mapping[str, str]
) -> str | tuple[str, ...]:
    if value == "" or (given.key == "socket" and "://" in value):
        return value
    try:
        if isinstance(value, str):
            return directories.absolute(value, given.base, environ)
        return tuple(directories.absolute(item, given.base, environ) for item in value)
    except ConfigError as error:
        raise ConfigError(f"{given.where}: {error.message}", error.hint) from None


def _check_module_names(where: str, names: tuple[str, ...]) -> None:
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"{where} must be names of modules, and {_shown(name)} is none")


def _check_patterns(where: str, patterns: tuple[str, ...]) -> None:
    # A mistake that allows too much must not pass in silence: "*" would allow everything.
    for pattern in patterns:
        if pattern.count(":") != 1:
            raise ConfigError(
                f"{where} must be patterns of references, and {_shown(pattern)} is none",
                'as in "mytasks:*", with one colon',
            )


def _fill_in_directories(values: dict[str, Any], environ: Mapping[str, str]) -> None:
    if not values.get("state_dir"):
        default = directories.state_dir(environ)
        values["state_dir"] = directories.absolute(default, "/", environ)
    if not values.get("socket"):
        values["socket"] = directories.socket(values["state_dir"], environ)
    if "://" not in values["socket"]:  # else it is on another machine
        directories.check_socket(values["socket"])


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse values that are right one by one, and contradict each other.

    Raises:
        ConfigError: they do; the hint tells where the two come from.
    """
    limits = settings.limits
    if limits.max_message_bytes < limits.max_payload_bytes:
        message, payload = "limits.max_message_bytes", "limits.max_payload_bytes"
        raise ConfigError(
            f"{message} ({limits.max_message_bytes}) must not be less than "
            f"{payload} ({limits.max_payload_bytes}), which travels in it",
            f"the first is set by: {origins[message]}; the second by: {origins[payload]}",
        )


def _nearest(name: str, known: Mapping[str, object]) -> str:
    """A hint that names the known name most like this one."""
    import difflib  # noqa: PLC0415  # takes 3 ms, and only an error needs it

    found = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {found[0]}?" if found else "`jobd config show` lists the keys"


def _expected(kind: Any) -> str:
    """What a value must be, in words."""
    words = "a text"
    match msgspec.inspect.type_info(kind):
        case msgspec.inspect.UnionType():
            words = " or ".join(map(_expected, reversed(get_args(kind))))
        case msgspec.inspect.LiteralType():
            several = "one of " if len(get_args(kind)) > 1 else ""
            words = several + ", ".join(map(repr, get_args(kind)))
        case msgspec.inspect.IntType(ge=lowest, le=highest):
            words = f"a whole number from {lowest} to {highest}"
        case msgspec.inspect.FloatType(ge=None, gt=above, le=highest):
            words = f"a number above {above:g}, at most {highest:g}"
        case msgspec.inspect.FloatType(ge=lowest, le=highest):
            words = f"a number from {lowest:g} to {highest:g}"
        case msgspec.inspect.VarTupleType():
            words = "a list of texts"
    return words


def _shown(raw: object) -> str:
    """A value as an error shows it: on one line, short, without control characters."""
    if isinstance(raw, dict):
        return "a table"
    text = repr(raw)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
