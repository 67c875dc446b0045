"""docs/remote_bench.md names the test of each fault: the names must hold."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs/remote_bench.md"
TABLE = PAGE.read_text("utf-8").partition("| FILE: WORDS |")[2].partition("\n\n")[0]
ROWS = [line.split(" | ") for line in TABLE.splitlines()[2:]]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("| "))
def test_each_fault_of_the_page_has_the_tests_that_it_names(row):
    for place in row[2].split("; "):
        name, _, words = place.partition(": ")
        pattern = f"{name}.py" if "/" in name else f"remote_bench/**/test_{name}.py"
        (path,) = TESTS.glob(pattern)
        text = path.read_text("utf-8")
        names = re.findall(r"def test_\w+|\"\w+\"", text)  # of tests, and of their parameters
        for word in filter(None, words.split(" or ")):
            assert any(word in found for found in names)


def test_the_page_has_all_faults():
    assert len(ROWS) > 30
