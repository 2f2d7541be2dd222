"""A module that has imported more than it defines."""

from __future__ import annotations

from os.path import join as put_together

__all__: list[str] = []


def here(*parts: str) -> str:
    """Use what was imported."""
    return put_together(*parts)
