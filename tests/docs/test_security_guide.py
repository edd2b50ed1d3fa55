"""The page on files of others names tests that are there, and all of them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
TESTS = {path.name for path in (ROOT / "tests" / "hostile").glob("test_*.py")}


def rows():
    table = PAGE[PAGE.index("| input |") : PAGE.index("Every test is in")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]


def test_every_input_has_what_it_can_and_cannot_do_and_a_test_that_holds_it():
    for name, can, cannot, _, held_by in rows():
        assert name and can and cannot
        named = re.findall(r"`(test_\w+\.py)`", held_by)
        assert named and set(named) <= TESTS, name


def test_every_hostile_test_holds_a_row_but_that_of_the_doors():
    named = set(re.findall(r"`(test_\w+\.py)`", PAGE))
    assert TESTS - named == {"test_doors.py"}


def test_the_doors_are_where_the_page_says():
    for name in ("qdrant_tools/files/trees.py", "qdrant_tools/files/json_files.py", "qdrant_tools/files/rows.py"):
        assert (ROOT / name).is_file()
        assert name.rpartition("/")[2] in PAGE
    assert "def visible" in (ROOT / "qdrant_tools" / "errors.py").read_text()
