"""Whose daemon it is: a private one belongs to one process, and ends with it."""

from __future__ import annotations

import os

import msgspec

INITIALIZER = "initializer"
"""The file in the owner's directory that has the call which each worker makes first, pickled."""


AUTHKEY = "authkey"
"""The file there that has the key by which the owner's processes of ``multiprocessing`` know each other."""


class Owner(msgspec.Struct, frozen=True):
    """The process that has started a daemon for itself alone."""

    fd: int
    """A pidfd of it, inherited: readable once it is dead, however it has died."""

    directory: str
    """What was made for this daemon; removed at its end."""

    outputs: tuple[int, int] | None = None
    """Where its jobs write, inherited: the owner's standard output and error output; None: into logs."""

    @classmethod
    def parse(cls, word: str) -> Owner:
        """Return what ``--owner FD[,OUT,ERR]:DIRECTORY`` says."""
        numbers, _, directory = word.partition(":")
        fd, *outputs = map(int, numbers.split(","))
        return cls(fd, directory, (outputs[0], outputs[1]) if outputs else None)

    @property
    def initializer(self) -> str:
        """The path of the file with the call that each worker makes first; "" if there is none."""
        return self._file(INITIALIZER)

    @property
    def authkey(self) -> str:
        """The path of the file with the key of ``multiprocessing``; "" if there is none."""
        return self._file(AUTHKEY)

    def _file(self, name: str) -> str:
        path = os.path.join(self.directory, name)
        return path if os.path.exists(path) else ""
