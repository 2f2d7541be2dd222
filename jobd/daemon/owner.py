"""Whose daemon it is: a private one belongs to one process, and ends with it."""

from __future__ import annotations

import os

import msgspec

INITIALIZER = "initializer"
"""The file in the owner's directory that has the call which each worker makes first, pickled."""


class Owner(msgspec.Struct, frozen=True):
    """The process that has started a daemon for itself alone."""

    fd: int
    """A pidfd of it, inherited: readable once it is dead, however it has died."""

    directory: str
    """What was made for this daemon; removed at its end."""

    @classmethod
    def parse(cls, word: str) -> Owner:
        """Return what ``--owner FD:DIRECTORY`` says."""
        fd, _, directory = word.partition(":")
        return cls(int(fd), directory)

    @property
    def initializer(self) -> str:
        """The path of the file with the call that each worker makes first; "" if there is none."""
        path = os.path.join(self.directory, INITIALIZER)
        return path if os.path.exists(path) else ""
