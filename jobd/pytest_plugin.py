"""What jobd gives to pytest: the fixture ``jobd_daemon``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from jobd.testing import Daemon


@pytest.fixture
def jobd_daemon() -> Iterator[Daemon]:
    """Return a running daemon with two workers, in a temporary directory, for one test."""
    # Here, not above: pytest loads this module in every session, whether a test uses it or not.
    from jobd.testing import daemon  # noqa: PLC0415  # loads the client

    with daemon() as running:
        yield running
