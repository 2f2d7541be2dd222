"""Is the database whole?  A quick look at every start, and a long one when somebody asks.

The quick look reads all of a file of up to ``WHOLE_BYTES``.  Of a larger one it reads the
schema, the small tables, and both ends of each large table and of each index, which is
where new rows come and old ones go; a page in the middle that is damaged shows when it
is read.  Both take SQLite's own ``quick_check`` or ``integrity_check``.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

WHOLE_BYTES = 16 * 1024 * 1024
"""A file of that size is read in less than 0.1 s."""

SMALL = ("meta", "leases", "queues")
ENDS = 64
"""Rows that are read at each end."""

MOST_TOLD = 20
STEPS = 100_000
"""Of SQLite's virtual machine, between two looks at the clock."""

_NAMES = "SELECT type, name, tbl_name FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name"
_COLUMNS = (
    'SELECT name, "desc" FROM pragma_index_xinfo(?) WHERE key AND name IS NOT NULL ORDER BY seqno'
)


def quick(path: Path) -> None:
    """Look at a database for a moment, whatever its size.

    Raises:
        sqlite3.DatabaseError: it is damaged, or cannot be read.
    """
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        if path.stat().st_size <= WHOLE_BYTES:
            _judge(connection, "PRAGMA quick_check(1)")
            return
        for table in SMALL:
            _judge(connection, f"PRAGMA quick_check({table})")
        for kind, name, table in connection.execute(_NAMES).fetchall():
            _read_ends(connection, kind, name, table)
    finally:
        connection.close()


def whole(path: Path, within_s: float | None = None) -> list[str]:
    """Read all of a database, without changing it; return what is wrong with it, a line each.

    With ``within_s`` it gives up after so many seconds, and says so.

    Raises:
        sqlite3.Error: it cannot be read at all.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    if within_s is not None:
        until = time.monotonic() + within_s
        connection.set_progress_handler(lambda: time.monotonic() > until, STEPS)
    try:
        rows = connection.execute(f"PRAGMA integrity_check({MOST_TOLD})").fetchall()
    finally:
        connection.close()
    return [line for (line,) in rows if line != "ok"]


def _judge(connection: sqlite3.Connection, pragma: str) -> None:
    (word, *_) = connection.execute(pragma).fetchone()
    if word != "ok":
        # The first line is a title, with three asterisks around it.
        lines = [line for line in str(word).splitlines() if not line.startswith("***")]
        error = sqlite3.DatabaseError("; ".join(lines))
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _read_ends(connection: sqlite3.Connection, kind: str, name: str, table: str) -> None:
    if kind == "table":
        key = _key_of(connection, name)
        columns, hint = "*", ""
    else:
        key = [row[0] for row in connection.execute(_COLUMNS, (name,))]
        columns, hint = ", ".join(key), f" INDEXED BY {name}"
        (sql,) = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE name = ?", (name,)
        ).fetchone()
        _, where, condition = sql.partition(" WHERE ")
        hint += where + condition
    for order in ("", " DESC"):
        by = ", ".join(column + order for column in key)
        sql = f"SELECT {columns} FROM {table}{hint} ORDER BY {by} LIMIT {ENDS}"
        connection.execute(sql).fetchall()


def _key_of(connection: sqlite3.Connection, table: str) -> list[str]:
    rows = connection.execute(
        "SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", (table,)
    )
    return [row[0] for row in rows]
