"""What a command is given: how it was called, its two streams, the settings and the daemon.

Values go to stdout, everything that is said about them to stderr, so that a pipe
gets values only.  With ``--json`` stdout has exactly one JSON value and stderr
nothing; with ``--quiet`` nothing is said that is not an error.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from jobd.cli.text import harmless, harmless_json, one_line
from jobd.model.errors import DuplicateKey

if TYPE_CHECKING:
    from jobd.client import Client
    from jobd.config import Loaded
    from jobd.model.errors import JobdError


class Session:
    """One call of the command line.

    Attributes:
        json: exactly one JSON value is wanted on stdout.
        quiet: only ids are wanted, and errors.
        verbose: tracebacks are wanted too.
        socket: what ``--socket`` says, or None; the others alike.
        errand: the command only asks how the daemon is, or ends it: an overcrowded one answers that.
        submitting: a submit is on its way, and its id not known yet.
        attached: the ids of the jobs that are being waited for.
        again: the command that goes on waiting for one of them after Ctrl-C.
        open_end: what is to follow the array that is open on stdout, in a JSON value that has begun.
    """

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.verbose = False
        self.socket: str | None = None
        self.state_dir: str | None = None
        self.config: str | None = None
        self.errand = False
        self.submitting = False
        self.attached: list[int] = []
        self.again = "result --wait"
        self.open_end: dict[str, object] | None = None

    # -- the daemon --

    def load(self, flags: Mapping[str, object] | None = None) -> Loaded:
        """Load the settings; ``flags`` are those that only this command has.

        Raises:
            ConfigError: a setting cannot be used.
        """
        from jobd.config import load  # noqa: PLC0415  # `--help` needs no settings

        common = {"socket": self.socket, "state_dir": self.state_dir}
        return load(config_file=self.config, flags=common | dict(flags or {}), environ=os.environ)

    def connect(self) -> Client:
        """Connect to the daemon.

        Raises:
            ConfigError: a setting cannot be used.
            DaemonUnreachable, Denied: there is nobody, or it is somebody else's.
            TooManyClients: it serves no more of them.
        """
        socket = self.load().settings.socket
        from jobd.client import Client  # noqa: PLC0415  # 6 ms, and an error comes before them

        # From here on a command may run for days (`logs -f`). What exists now stays anyway,
        # so the collector need not look at it: see `main`.
        gc.freeze()
        gc.enable()
        return Client(socket, errand=self.errand)

    # -- stdout --

    @property
    def watched(self) -> bool:
        """Whether a person looks on while the command waits."""
        return sys.stderr.isatty() and not (self.quiet or self.json)

    @property
    def on_terminal(self) -> bool:
        """Whether a person reads stdout."""
        return sys.stdout.isatty()

    def write(self, text: str) -> None:
        """Write a text and a newline to stdout."""
        sys.stdout.write((harmless(text) if self.on_terminal else text) + "\n")

    def write_lines(self, lines: Iterable[str]) -> None:
        """Write texts that have one line each."""
        for line in lines:
            self.write(line)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes to stdout as they are, at once."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def write_json(self, value: object) -> None:
        """Write one JSON value, and a newline."""
        self.write_bytes(self.encode_json(value) + b"\n")

    def write_part(self, data: bytes, rest: dict[str, object]) -> None:
        """Write a part of a JSON value up to somewhere in an array; ``rest`` is what follows that."""
        from jobd.cli.undivided import Undivided  # noqa: PLC0415  # most commands need no signals

        with Undivided():
            self.open_end = rest
            self.write_bytes(data)

    def close_json(self, data: bytes, rest: dict[str, object]) -> None:
        """Write the last part of a JSON value, close the array, and the value with these names."""
        from jobd.cli.undivided import Undivided  # noqa: PLC0415  # as above

        names = self.encode_json(rest)[1:]
        with Undivided():
            self.open_end = None
            self.write_bytes(data + (b"]," if rest else b"]") + names + b"\n")

    def encode_json(self, value: object) -> bytes:
        """Return a value as JSON, fit for where stdout leads."""
        import msgspec  # noqa: PLC0415  # 4 ms, and neither help nor most errors are JSON

        data = msgspec.json.encode(value)
        return harmless_json(data.decode()).encode() if self.on_terminal else data

    def write_table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write rows: as a table on a terminal, else one line each, separated by tabs.

        The texts must be lines of their own already; ``columns`` are the heads, or
        empty for a table of names and values.
        """
        if self.on_terminal:
            from jobd.cli.tables import draw  # noqa: PLC0415  # rich takes 40 ms

            draw(columns, rows)
            return
        for row in rows:
            sys.stdout.write("\t".join(row) + "\n")

    # -- stderr --

    def note(self, text: str) -> None:
        """Say something about what stdout shows."""
        if not (self.quiet or self.json):
            self.complain(text)

    def complain(self, text: str) -> None:
        """Write an error to stderr."""
        sys.stdout.flush()  # in the order in which things happened, where both are one
        sys.stderr.write(harmless(text) + "\n")

    def fail(self, error: JobdError) -> int:
        """Tell the error that ends the command, as JSON or in one line; return its exit code."""
        if self.json and self.open_end is not None:
            self.close_json(b"", self.open_end | {"cut_short": error_json(error)})
        elif self.json:
            self.write_json(error_json(error))
        else:
            if isinstance(error, DuplicateKey):
                self.write(str(error.id))
            text = f"{error.message}: {error.hint}" if error.hint else error.message
            self.complain("jobd: " + one_line(text))
        return error.code


def error_json(error: JobdError) -> dict[str, object]:
    """Return an error: ``jobd.error/1``."""
    value: dict[str, object] = {
        "schema": "jobd.error/1",
        "code": error.code,
        "error": error.error,
        "message": _sayable(error.message),
        "hint": _sayable(error.hint),
    }
    if isinstance(error, DuplicateKey):
        value["id"] = error.id
    return value


def _sayable(text: str) -> str:
    """Return a text as JSON takes it: there may be the name of a file in it, of any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()
