"""The write-ahead log: how large it is, and folding it into the database.

SQLite folds it by itself with the commits, as far as no reader needs what the database
holds still.  A reader that does not end keeps it from that, whoever he is, and the log grows
with every commit; once he is gone it is the next commit that folds it, if there is one.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path


class WriteAheadLog:
    """The log of one database, as its writer sees it."""

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self.paths = (str(path), f"{path}-wal", f"{path}-shm")
        self._writer = writer

    def size(self) -> int:
        """Return how many bytes its file has."""
        # Nothing but this call: to open one of the files, and close it, gives up SQLite's locks.
        try:
            return os.stat(self.paths[1]).st_size
        except OSError:
            return 0

    def fold(self) -> bool:
        """Fold all of it into the database, and cut it; return False if that cannot be done now.

        It waits for nobody, but blocks on the disk; nothing may be in the midst of a commit.
        """
        if self._writer.in_transaction:
            return False
        try:
            row = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            return False  # the next commit tells, if it is the disk
        return row is not None and row[0] == 0
