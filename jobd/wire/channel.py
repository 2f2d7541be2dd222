"""What a client has to the daemon, whatever it goes over."""

from __future__ import annotations

from typing import Protocol


class Channel(Protocol):
    """Carries messages to the daemon and back; ``zmtp.Transport`` says what each method promises."""

    def send(self, body: bytes, deadline: float | None) -> None:
        """Write a message whole, by a time on the monotonic clock."""

    def post(self, body: bytes) -> None:
        """Send a message without waiting."""

    @property
    def unsent(self) -> bool:
        """Whether something stays in line until more can be written."""

    def flush(self) -> None:
        """Write what stays in line, as much as is taken now."""

    def receive(self, timeout_s: float | None) -> list[bytes]:
        """Return the messages that have come, waiting at most so long for the first."""

    @property
    def has_read(self) -> bool:
        """Whether something is here already, of which the file descriptor need not tell."""

    def fileno(self) -> int:
        """Return what becomes readable when something comes."""

    def close(self) -> None:
        """Close; again does nothing."""
