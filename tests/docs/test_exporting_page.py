"""docs/exporting.md: the tests that it names as proof exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/exporting.md").read_text("utf-8")


def test_every_pain_has_a_row_and_every_named_test_exists() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| (.+) \|$", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 22))
    tests = "\n".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    for number, proof in rows:
        named = re.findall(r"`(test_\w+)`", proof)
        assert named, f"row {number} names no test"
        assert [name for name in named if f"def {name}(" not in tests] == []
