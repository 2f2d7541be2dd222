"""The database file: made whole or not at all, and opened only when it is surely ours."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from pathlib import Path

import msgspec

from jobd.model.errors import ConfigError, NotFound
from jobd.store import check

APPLICATION_ID = 0x6A6F6264  # "jobd"
VERSION = 5
MOUNTS = Path("/proc/self/mounts")
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs"})
"""File systems on which SQLite's locks or shared memory cannot be trusted."""

MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
PAGE_SIZE_AT, PAGES_AT, APPLICATION_ID_AT = 16, 28, 68
"""Where they are in the header (sqlite.org/fileformat.html)."""

OLDER: dict[int, str] = {1: "UPDATE parcels SET records = with_policies(records);"}
"""The older versions that are led to this one, with what is to be done once their rows are in its tables.

A column or a table that an older version has not is empty, or has its default.  Versions that no
release had are not among them.
"""

READ_BYTES = 1024 * 1024

TELLS_MORE = "'jobd db check' tells more"

SAVED = ".backup-saved-"
"""What the name of a copy begins with, behind the database's, that a daemon makes whose database is deleted."""

TABLES = frozenset(
    {
        *("parcels", "jobs", "environments", "edges", "sessions", "attempts", "items", "leases"),
        *("queues", "meta", "chunks", "ranges"),
    }
)


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection without implicit transactions, usable from the thread that commits."""
    return sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=5.0
    )


def prepare(path: Path) -> None:
    """Make the database if there is none; else make sure that it is ours, whole, and of this version.

    Raises:
        ConfigError: it must not be used; the file is left as it is.
    """
    _refuse_network(path)
    if not path.exists():
        _refuse_saved(path)
        _refuse_stray_log(path)
        _create(path)
        return
    try:
        _refuse_foreign(path)
        _migrate(path)
        check.quick(path)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise  # a disk that is full or fails says nothing about the file
        raise _broken(path, str(error)) from error


def _create(path: Path) -> None:
    """Make a new database under another name and rename it, so that a crash leaves none or a whole one."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    connection = connect(fresh)
    try:
        connection.executescript(
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
            f"PRAGMA synchronous = FULL; BEGIN; {_schema()} COMMIT;"
        )
    finally:
        connection.close()
    fresh.rename(path)
    _sync(path.parent)


def _schema() -> str:
    return (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _refuse_stray_log(path: Path) -> None:
    """Refuse to make a database beside another one's log: SQLite would play that log into it."""
    wal = _log_of(path)
    if wal is not None:
        raise ConfigError(
            f"{path} is gone, but its write-ahead log {wal} is still there",
            "put the file back; or remove the log too, to start with an empty queue",
        )


def _refuse_saved(path: Path) -> None:
    """Refuse to begin anew where a daemon has saved what it held when its database was deleted."""
    saved = sorted(path.parent.glob(f"{path.name}{SAVED}*"))
    if saved:
        raise ConfigError(
            f"{path} was deleted while jobd used it; what it held is in {saved[-1]}",
            f"'mv {saved[-1]} {path}'; or remove it, to start with an empty queue",
        )


def _refuse_lost_log(path: Path) -> None:
    """Refuse a database whose log was deleted: SQLite would go on with what is not in the log.

    A clean end removes both the log and its index; a crash leaves both, since the log is made first.
    """
    wal, shm = _beside(path, "-wal"), _beside(path, "-shm")
    if shm.exists() and not wal.exists():
        raise ConfigError(
            f"{wal} is gone, and with it what jobd has stored last",
            f"put it back; or remove {shm}, to go on without, though ids may be given twice then",
        )


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _refuse_header(path: Path) -> None:
    """Look at the first bytes without SQLite, which would recover, and so change, what is not ours."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if not header:
        raise _broken(path, "it is empty")
    if not header.startswith(MAGIC):
        raise _broken(path, "it is no SQLite database")
    if len(header) < HEADER_BYTES:
        raise _broken(path, f"it is truncated: {len(header)} bytes")
    found = int.from_bytes(header[APPLICATION_ID_AT : APPLICATION_ID_AT + 4], "big")
    if found != APPLICATION_ID:
        raise ConfigError(
            f"{path} is not a database of jobd (application id {found:#x})",
            "move it away, or use another --state-dir",
        )
    if not _log_of(path):  # else there may be more in the log than in the file
        pages = int.from_bytes(header[PAGES_AT : PAGES_AT + 4], "big")
        whole = pages * int.from_bytes(header[PAGE_SIZE_AT : PAGE_SIZE_AT + 2], "big")
        if path.stat().st_size < whole:
            raise _broken(path, f"it is truncated: {path.stat().st_size} of {whole} bytes")


def _log_of(path: Path) -> Path | None:
    """Return the write-ahead log, if there is one with something in it."""
    wal = _beside(path, "-wal")
    return wal if wal.exists() and wal.stat().st_size else None


def _refuse_foreign(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"{path} is not a file", "move it away, or use another --state-dir")
    _refuse_header(path)
    _refuse_lost_log(path)  # before SQLite makes another one
    # For reading only, so that nothing is folded into a file that turns out not to be for us.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise ConfigError(
                f"{path} was made by a newer jobd (its schema is version {version}, "
                f"this jobd knows {VERSION})",
                "install that jobd again; nothing was changed",
            )
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        if version == VERSION and not names >= TABLES:
            missing = ", ".join(sorted(TABLES - names))
            raise _broken(path, f"it has no table {missing}")
    finally:
        connection.close()


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return code & 0xFF in damage or code == sqlite3.SQLITE_IOERR_SHORT_READ


def _broken(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path} cannot be used: {why}", f"{what_to_do(path)}; {TELLS_MORE}")


def what_to_do(path: Path) -> str:
    """Return what can be done about a database that is damaged."""
    backups = sorted(path.parent.glob(path.name + ".backup-*"), key=lambda p: p.stat().st_mtime)
    hint = (
        f"the newest backup is {backups[-1]}"
        if backups
        else "there is no backup; move the file away to start with an empty queue"
    )
    return f"{hint}; the file was not touched"


def problems(path: Path, within_s: float | None = None) -> list[str]:
    """Read all of a database, and return what is wrong with it, a line each.

    With ``within_s`` it gives up after so many seconds, and says so.

    Raises:
        NotFound: there is none.
        ConfigError: it is none of ours, or cannot be read.
    """
    if not path.exists():
        raise NotFound(f"there is no database {path}", "is it another --state-dir?")
    try:
        _refuse_foreign(path)
        return check.whole(path, within_s)
    except sqlite3.Error as error:
        return [str(error)]


def read_through(path: Path, within_s: float) -> None:
    """Read a file without SQLite, which takes some errors of the disk for damage; raises OSError."""
    until = time.monotonic() + within_s
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for offset in range(0, size, READ_BYTES):
            os.pread(file.fileno(), READ_BYTES, offset)
            if time.monotonic() > until:
                return


def save(connection: sqlite3.Connection, path: Path, *, log_only: bool) -> str:
    """Save what the open files of a store hold that somebody has deleted; return a sentence about it.

    Where only the log is gone, it is folded into the database; else all is copied beside it.

    Raises:
        sqlite3.Error, OSError: it cannot be done.
    """
    if log_only:
        busy, pages, folded = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy or pages != folded:
            raise sqlite3.OperationalError("another process reads the database")
        return f"nothing is lost: {path} has all that was in its log"
    saved = _beside(path, f"{SAVED}{time.strftime('%Y%m%d-%H%M%S')}")
    fresh = _beside(saved, ".new")
    connection.execute("VACUUM INTO ?", (str(fresh),))
    _sync(fresh)
    fresh.rename(saved)
    _sync(saved.parent)
    return f"what it held is in {saved}"


def _migrate(path: Path) -> None:
    """Lead an older schema to this one: a backup first, then all in one transaction."""
    connection = connect(path)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == VERSION:
            return
        if version not in OLDER:
            raise ConfigError(
                f"{path} has a schema of version {version}, and nothing leads from there to {VERSION}",
                "use the jobd that made it; nothing was changed",
            )
        _back_up(connection, path.with_name(f"{path.name}.backup-v{version}"))
        connection.create_function("with_policies", 1, _with_policies, deterministic=True)
        _rebuild(connection, OLDER[version])
    finally:
        connection.close()


def _rebuild(connection: sqlite3.Connection, afterwards: str) -> None:
    """Make this version's tables, and move into each what the older one of that name has."""
    names = [row[0] for row in connection.execute(_NAMES, ("table",))]
    indexes = [row[0] for row in connection.execute(_NAMES, ("index",))]
    script = [f"ALTER TABLE {name} RENAME TO old_{name};" for name in names]
    script += [f"DROP INDEX {name};" for name in indexes]
    script.append(_schema())
    for name in names:
        columns = ", ".join(r[1] for r in connection.execute(f"PRAGMA table_info({name})"))
        script.append(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM old_{name};")
        script.append(f"DROP TABLE old_{name};")
    steps = "\n".join(script)
    connection.executescript(
        f"BEGIN IMMEDIATE; {steps} {afterwards} PRAGMA user_version = {VERSION}; COMMIT;"
    )


_NAMES = "SELECT name FROM sqlite_schema WHERE type = ? AND name NOT LIKE 'sqlite_%'"


def _with_policies(records: bytes) -> bytes:
    """Return the records of a parcel, each with the policy that all had before there were any."""
    found = msgspec.msgpack.decode(records, type=list[list[object]])
    return msgspec.msgpack.encode([[*record, None] for record in found])


def _back_up(connection: sqlite3.Connection, backup: Path) -> None:
    """Copy the database under another name and rename it: a crash leaves no half of a backup."""
    if backup.exists():
        return
    fresh = backup.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    connection.execute("VACUUM INTO ?", (str(fresh),))
    _sync(fresh)
    fresh.rename(backup)
    _sync(backup.parent)


def _refuse_network(path: Path) -> None:
    kind = filesystem_of(path.parent)
    if kind in NETWORK:
        raise ConfigError(
            f"{path.parent} is on {kind}, where SQLite cannot keep a promise",
            "choose a --state-dir on a local disk",
        )


def filesystem_of(directory: Path) -> str:
    """Return the type of the file system that holds a directory, or "" if unknown."""
    real = str(directory.resolve())
    best, kind = "", ""
    for line in _mounts().splitlines():
        mount, name = line.split(" ")[1:3]
        mount = re.sub(r"\\([0-7]{3})", lambda blank: chr(int(blank[1], 8)), mount)
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def _mounts() -> str:
    try:
        return MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
