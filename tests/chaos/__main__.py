"""``python tests/chaos``: see ``command_line``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    sys.path[0:0] = [str(TESTS.parent), str(TESTS / "support")]
    sys.exit(import_module("tests.chaos.command_line").main())
