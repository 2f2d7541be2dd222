"""Make the client for threads of the one for asyncio: each verb is written once.

    python scripts/unasync.py           write jobd/client/sync_api.py
    python scripts/unasync.py --check   exit with 1 if it is not what this would write

The rules are few and textual, so that what comes out is what one would have written; the
formatter then gives it its form.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parent.parent / "jobd" / "client"
SOURCE, TARGET = CLIENT / "aio_api.py", CLIENT / "sync_api.py"

DOCSTRING = '''"""What a client for threads can be asked for, and what it gives back.

Made by ``scripts/unasync.py`` of ``aio_api``: change that, and run ``make format``.
"""'''

RULES = [
    (r"\A\"\"\".*?\"\"\"", DOCSTRING),
    (r"    # asyncio only:\n.*?    # both:\n", ""),
    (r"  # noqa: ASYNC\d+.*", ""),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsync(Deferred|Stream|Batch|Submitter|ClientWithOptions|Client|Api|Iterator)\b", r"\1"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\b__a(iter|next)__\b", r"__\1__"),
]
"""What becomes of what: regular expressions, one after the other."""


def unasync(source: str) -> str:
    """Return the same for threads."""
    for pattern, replacement in RULES:
        source = re.sub(pattern, replacement, source, flags=re.DOTALL if ".*?" in pattern else 0)
    return source


def formatted(source: str) -> str:
    """Return what ruff makes of it: imports that are of no use are gone."""
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--fix-only", "--quiet"], ["format"]):
        done = subprocess.run(
            [*ruff, *command, "--stdin-filename", str(TARGET), "-"],
            input=source,
            capture_output=True,
            text=True,
            check=True,
        )
        source = done.stdout
    return source


def main() -> int:
    """Write, or check; return the exit code."""
    wanted = formatted(unasync(SOURCE.read_text(encoding="utf-8")))
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(wanted, encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != wanted:
        print(f"{TARGET} is not what {SOURCE.name} makes: run 'make format'", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
