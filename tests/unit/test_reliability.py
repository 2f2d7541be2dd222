"""The table of faults in ``docs/reliability.md`` names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_every_test_that_the_table_names_exists() -> None:
    """And none was renamed without it."""
    named = re.findall(r"`([a-z0-9]+/test_\w+\.py)::(test_\w+)`", TABLE)
    assert len(named) > 80
    for file, name in named:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *(async )?def {name}\b", source, re.MULTILINE), (file, name)


def test_every_fault_has_a_row() -> None:
    """With a test, or the reason why there is none."""
    rows = re.findall(r"^\| (F\d\d(?:, F\d\d)*) \|([^|]*)\|(.*)\|$", TABLE, re.MULTILINE)
    numbers = [number for first, _, _ in rows for number in first.split(", ")]
    assert numbers == [f"F{number:02}" for number in range(1, 85)]
    for first, _, held in rows:
        assert "::test_" in held or "not tested" in held or "make chaos" in held, first
