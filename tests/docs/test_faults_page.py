"""docs/faults.md names the tests that inject each fault: the names must hold."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/faults.md").read_text("utf-8")
FILES = {file: file.read_text("utf-8") for file in TESTS.rglob("test_*.py")}
BOARD, EXPORT = (
    [line.strip("| ").split(" | ") for line in re.findall(r"^\| .*$", part, re.MULTILINE)[1:]]
    for part in PAGE.split("## In an export")
)


@pytest.mark.parametrize("row", BOARD, ids=lambda row: row[0])
def test_a_fault_on_a_board_has_the_tests_that_it_names(row: list[str]) -> None:
    for place in row[2].split("; "):
        name, _, words = place.partition(": ")
        texts = [text for file, text in FILES.items() if file.as_posix().endswith(f"/{name}.py")]
        assert texts, name
        named = re.findall(r"def test_\w+|\"\w+\"", "".join(texts))  # tests, and their parameters
        for word in filter(None, words.split(" or ")):
            assert any(word in found for found in named), word


@pytest.mark.parametrize("row", EXPORT, ids=lambda row: row[0])
def test_a_fault_of_an_export_has_the_tests_that_it_names(row: list[str]) -> None:
    named = re.findall(r"`(test_\w+)`", row[3])
    assert named
    assert [name for name in named if f"def {name}(" not in "".join(FILES.values())] == []


def test_the_page_has_all_faults() -> None:
    assert len(BOARD) > 30
    assert len(EXPORT) > 20
    assert [int(row[0]) for row in EXPORT] == list(range(1, len(EXPORT) + 1))
