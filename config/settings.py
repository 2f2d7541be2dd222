"""Every setting, declared once: its type, its range and its default.

A *key* is a setting's dotted name, ``pool.workers`` say.  Everything else that
names a setting is derived from the structs below: `KEYS`, the environment
variable (`env_name`), the flag (`flag_name`).  ``jobd.toml`` beside this file
explains the keys to people; a test compares the two.
"""

import os
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

MIB = 1024 * 1024
_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S

Seconds = Annotated[float, Meta(ge=0, le=_DAY_S)]


class Pool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The workers; as ``[pool]`` in the file."""

    workers: Annotated[int, Meta(ge=0, le=4096)] = 0
    preload: tuple[str, ...] = ()
    preload_timeout_s: Annotated[float, Meta(gt=0, le=_DAY_S)] = 600.0
    threads_per_worker: Annotated[int, Meta(ge=0, le=4096)] | Literal["auto"] = "auto"
    kill_grace_s: Seconds = 5.0
    orphan_s: Seconds = 60.0
    max_lent: Annotated[int, Meta(ge=0, le=4096)] = 64
    max_jobs_per_worker: Annotated[int, Meta(ge=0, le=2**31)] = 0
    max_worker_rss: Annotated[int, Meta(ge=0, le=2**60)] = 0
    cgroup: Literal["auto", "off"] = "auto"

    @property
    def worker_count(self) -> int:
        """How many workers there are to be: ``workers``, or one for each usable core."""
        # Not os.cpu_count(): a container or a unit may have been given fewer.
        return self.workers or len(os.sched_getaffinity(0))


class Daemon(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The daemon's own conduct; as ``[daemon]`` in the file."""

    drain_s: Seconds = 30.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Store(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept on disk, and how surely; as ``[store]`` in the file."""

    durability: Literal["full", "normal", "off"] = "full"


class Jobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for every job; as ``[jobs]`` in the file."""

    max_crashes: Annotated[int, Meta(ge=0, le=1000)] = 1
    check_timeout_s: Annotated[float, Meta(gt=0, le=_HOUR_S)] = 10.0


class Payloads(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where large arguments and results are kept; as ``[payloads]`` in the file."""

    place: Literal["memory", "disk"] = "memory"
    spill: bool = True


class Results(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of results; as ``[results]`` in the file."""

    keep_s: Annotated[float, Meta(ge=0, le=10**10)] = 0.0


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the daemon says no; as ``[limits]`` in the file."""

    # SQLite holds a row to 10**9 bytes, and a message's length has 32 bits in msgpack.
    max_payload_bytes: Annotated[int, Meta(ge=1024, le=512 * MIB)] = 16 * MIB
    max_blob_bytes: Annotated[int, Meta(ge=1024, le=2**46)] = 4096 * MIB
    max_message_bytes: Annotated[int, Meta(ge=64 * 1024, le=2048 * MIB)] = 64 * MIB
    max_queued: Annotated[int, Meta(ge=1, le=10**9)] = 10_000_000
    max_output_bytes: Annotated[int, Meta(ge=0, le=2**40)] = 64 * MIB
    max_clients: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000


class Security(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What clients may run; as ``[security]`` in the file."""

    allow: tuple[str, ...] = ()


class Remote(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Clients on other machines; as ``[remote]`` in the file."""

    listen: str = ""
    allow: tuple[str, ...] = ()


class Caller(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What jobs get from the environment of who submits them; as ``[environment]`` in the file."""

    inherit: tuple[str, ...] = (
        "*",
        *("!TERM*", "!COLORTERM", "!COLUMNS", "!LINES", "!WINDOWID", "!SSH_TTY", "!GPG_TTY"),
        *("!TMUX*", "!STY", "!XDG_SESSION_ID"),
    )


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings.

    As `jobd.config.load` returns it, ``state_dir`` and ``socket`` are filled in
    and every path is absolute.  Until then "" stands for the default, which
    depends on the user's environment.
    """

    state_dir: str = ""
    socket: str = ""
    key: str = ""
    server_key: str = ""
    path: tuple[str, ...] = ()
    pool: Pool = Pool()
    daemon: Daemon = Daemon()
    store: Store = Store()
    jobs: Jobs = Jobs()
    payloads: Payloads = Payloads()
    results: Results = Results()
    limits: Limits = Limits()
    security: Security = Security()
    remote: Remote = Remote()
    environment: Caller = Caller()
    rules: dict[str, dict[str, Any]] = {}
    """Options of jobs, checked, by the table in the file: ``defaults``, ``queues.etl``, ``functions.m:f``.

    No keys: only a file has them (``jobd.model.options`` has the names).
    """

    @property
    def worker_socket(self) -> str:
        """The path of the socket at which the workers meet the daemon."""
        return self.socket + WORKER_SUFFIX


WORKER_SUFFIX = ".workers"

# Not by `msgspec.structs.fields`, which makes an object of each field: 1 ms at each start of a command.
TABLES: dict[str, type[Struct]] = {
    name: kind
    for name, kind in Settings.__annotations__.items()
    if isinstance(kind, type) and issubclass(kind, Struct)
}


def _declared() -> dict[str, Any]:
    """The type of each key, in the order of declaration."""
    found: dict[str, Any] = {}
    for name, kind in Settings.__annotations__.items():
        if name in TABLES:
            found |= {f"{name}.{leaf}": of for leaf, of in kind.__annotations__.items()}
        elif name != "rules":
            found[name] = kind
    return found


KEYS: dict[str, Any] = _declared()


def env_name(key: str) -> str:
    """The environment variable of a key: ``JOBD_POOL_WORKERS`` for ``pool.workers``."""
    return "JOBD_" + key.replace(".", "_").upper()


def flag_name(key: str) -> str:
    """The flag of a key: ``--kill-grace-s`` for ``pool.kill_grace_s``."""
    leaf = key if key == "security.allow" else key.rpartition(".")[2]  # `--allow` is [remote]'s
    return "--" + leaf.replace(".", "-").replace("_", "-")


def values(settings: Settings) -> dict[str, Any]:
    """The value of each key, in the order of declaration, then the rules."""
    found: dict[str, Any] = {}
    for key in KEYS:
        table, _, leaf = key.rpartition(".")
        found[key] = getattr(getattr(settings, table) if table else settings, leaf)
    for table, rules in settings.rules.items():
        found |= {f"{table}.{name}": value for name, value in rules.items()}
    return found


def build(given: dict[str, Any], rules: dict[str, dict[str, Any]]) -> Settings:
    """Make the tree from checked values by key; what is not given has its default."""
    top: dict[str, Any] = {"rules": rules}
    leaves: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    for key, value in given.items():
        table, _, leaf = key.rpartition(".")
        (leaves[table] if table else top)[leaf] = value
    top |= {name: table(**leaves[name]) for name, table in TABLES.items()}
    return Settings(**top)
