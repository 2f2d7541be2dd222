"""``python -m jobd``: the command line, where the script ``jobd`` is not on the PATH."""

from __future__ import annotations

import sys

from jobd.cli import main

if __name__ == "__main__":
    sys.exit(main())
