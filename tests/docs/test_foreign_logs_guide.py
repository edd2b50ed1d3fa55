"""The guide to logs of other systems cannot lie: its Python runs, and its tables say what the reader does."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields

import pytest
from paths import DOCS

from qdrant_tools.errors import LogError
from qdrant_tools.log import LogColumns, read_log
from qdrant_tools.log.lists import list_in
from qdrant_tools.log.naming import written_columns

GUIDE = (DOCS / "foreign-logs.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)
COLUMNS = {"query": "q", "search": "s", "hit": "d"}
MEANT = {
    "any": {"click": "c"},
    "click": {"click": "c"},
    "cited": {"cited": "c"},
    "up": {"up": "c"},
    "down": {"down": "c"},
    "up and down in one column": {"up": "c", "down": "c"},
    "dwell": {"dwell": "c"},
    "rating": {"rating": "c"},
}


def table(title):
    """The rows of the first table behind a line of the guide, as lists of cells."""
    lines = GUIDE[GUIDE.index(title) :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    found = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            return found
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def spellings(title):
    for columns, cells, says in table(title):
        for column in columns.split(", "):
            for cell in re.findall("`([^`]+)`", cells):
                yield column, cell, says


def read(path, cell, **columns):
    path.write_text(f'{{"s": "1", "q": "tea", "d": "a", "c": {json.dumps(cell)}}}\n')
    (search,) = read_log(path, LogColumns(**COLUMNS, **columns))
    return search


def columns_of(column):
    if column == "score" or column == "rank":
        return {column: "c"}
    return {"at": "c"} if column == "time" else {"feedback": MEANT[column]}


@pytest.mark.parametrize(("column", "cell", "says"), spellings("## What a cell says"))
def test_a_cell_says_what_the_table_says(column, cell, says, tmp_path):
    search = read(tmp_path / "a.jsonl", cell, **columns_of(column))
    if column in ("score", "rank"):
        assert getattr(search.hits[0], column) == float(says)
        return
    event = {"yes": column, "a thumb up": "up", "a thumb down": "down"}.get(says.split(":")[0])
    if event is not None:
        assert [(found.kind, found.value) for found in search.feedback] == [(event, 1.0)]
    elif column in ("dwell", "rating"):
        assert [(found.kind, found.value) for found in search.feedback] == [(column, float(says.split()[0]))]
    else:
        assert says.split(":")[0] in ("nothing", "no", "no vote") and search.feedback == ()


@pytest.mark.parametrize(("column", "cell", "why"), spellings("Refused, for example"))
def test_what_the_table_refuses_is_refused(column, cell, why, tmp_path):
    if column in ("search", "session", "hit"):
        given = dict(COLUMNS) | {column: "c"}
        with pytest.raises(LogError, match="that a spreadsheet has rounded"):
            (tmp_path / "a.jsonl").write_text(f'{{"s": "1", "q": "tea", "d": "a", "c": "{cell}"}}\n')
            list(read_log(tmp_path / "a.jsonl", LogColumns(**given)))
        return
    columns = columns_of(column) | ({"at_format": "seconds"} if why.startswith("a year from") else {})
    if cell == "zone":
        return
    with pytest.raises(LogError, match=r"a.jsonl:1: column 'c' is "):
        read(tmp_path / "a.jsonl", cell, **columns)


def test_the_blocks_run_one_after_the_other_and_say_what_the_guide_says(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "2 searches; not read: score; of these, score may say what users did or saw",
        "[('v1', 'reset password', ['kb-1']), ('v1', 'cancel my order', ['kb-8'])]",
        "reset password ['kb-1', 'kb-2', 'kb-3'] ['kb-2']",
        "cancel my order ['kb-8', 'kb-9'] []",
    ]


def test_the_command_names_columns_that_there_are():
    (command,) = re.findall(r"^\$ embed-plus (log import .*)", GUIDE, flags=re.M)
    columns, _, zone = shlex.split(command)[-3:]
    assert written_columns(columns, zone=zone) == LogColumns(
        query="q", session="visit", at="time", zone="UTC", hit="doc", rank="pos", feedback={"click": "clicked"}
    )


def test_every_column_is_in_the_table_and_those_of_each_system_are_taken():
    named = {name for row in table("## What each column becomes") for name in re.findall("`([a-z_]+)`", row[0])}
    assert {field.name for field in fields(LogColumns)} - named == {"collection", "space"}
    systems = table("## Systems")
    assert len(systems) == 7
    for _, columns in systems:
        assert isinstance(eval(f"LogColumns({columns.strip('`')})"), LogColumns)


def test_every_form_of_a_list_in_the_guide_is_read():
    rows = re.findall(
        r"^\| (`.*`)(?:, lines, tabs)? \| ",
        GUIDE[GUIDE.index("## Lists in a cell") : GUIDE.index("## What is a search")],
        flags=re.M,
    )
    cells = [cell.replace("\\|", "|") for row in rows for cell in re.findall("`([^`]+)`", row)]
    assert len(cells) == 13
    for cell in cells:
        entries = [entry["id"] if isinstance(entry, dict) else entry for entry in list_in("it", cell).entries]
        assert entries[0] == "a" and entries[1:] in ([], ["b"], ["b", "c"], ["b, c"])
