"""What a type checker makes of the client in a user's hands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "support" / "typed_sample.py"


def checked(file: Path, cache: Path) -> str:
    """Run mypy --strict on a file that imports jobd, as a user would; return what it says."""
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "mypy", "--strict", "--config-file="),
            *("--cache-dir", str(cache), "--follow-imports=silent", str(file)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=cache,
        env=os.environ | {"MYPYPATH": str(ROOT)},
    )
    return done.stdout


def test_a_users_module_is_checked_strictly(tmp_path: Path) -> None:
    """Values have the type that the function gives; mistakes are found."""
    assert "Success" in checked(SAMPLE, tmp_path)
    wrong = tmp_path / "wrong.py"
    text = SAMPLE.read_text(encoding="utf-8")
    wrong.write_text(text.replace("bytes)", "str)"), encoding="utf-8")
    said = checked(wrong, tmp_path)
    assert 'Expression is of type "bytes", not "str"' in said, said
