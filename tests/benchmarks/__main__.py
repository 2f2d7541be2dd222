"""``python tests/benchmarks``: measure the installed jobd beside the standard library's pools.

Nothing here is a test: what is printed depends on the machine and on what else
it does.  ``--help`` tells the options.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    # At the end, so that `jobd` is the installed one and not the repository's directory.
    sys.path = [
        *(entry for entry in sys.path if Path(entry).resolve() != HERE),
        str(HERE.parents[1]),
    ]
    sys.exit(import_module("tests.benchmarks.command_line").main())
