"""Logs of other systems that are tables of nothing, and logs of ours whose pages are read again and again."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from logs import NOON, patched, root_of

from qdrant_tools.errors import LogError
from qdrant_tools.log import Feedback, LogColumns, LoggedHit, LoggedSearch, RetrievalLog, read_log

COLUMNS = '{"query": "q", "search": "s", "hit": "d", "feedback": {"click": "c"}}'
LIKE = ("log", "show", "no.sqlite")


# -- other systems


def test_short_rows_of_a_table_of_ten_thousand_columns_take_no_memory(tmp_path, refused):
    names = ",".join(f"c{number}" for number in range(9_990))
    (tmp_path / "in.csv").write_text(f"s,q,d,c,{names}\n" + "".join(f"one,q,{row}\n" for row in range(10_001)))
    message = refused("log", "import", "new.sqlite", "in.csv", "--columns", COLUMNS, like=LIKE)
    assert "in.csv:10002: more than 10,000 hits" in message


def test_what_the_rows_of_one_search_hold_besides_is_not_kept(tmp_path, refused):
    row = '{"s": "one", "q": "q", "d": "d", "no column": [%s[]]}\n' % ("[]," * 100_000)
    (tmp_path / "in.jsonl").write_text(row * 20 + row.replace('"d": "d"', '"d": []'))
    message = refused("log", "import", "new.sqlite", "in.jsonl", "--columns", COLUMNS, like=LIKE)
    assert "in.jsonl:21: column 'd' is []" in message


def test_a_passage_of_megabytes_in_each_row_is_refused_with_the_first(tmp_path, refused):
    (tmp_path / "in.csv").write_text("s,q,d,c\none,q,d\n" + "".join(f"one,q,{n}{'d' * 5_000_000}\n" for n in range(9)))
    message = refused("log", "import", "new.sqlite", "in.csv", "--columns", COLUMNS, like=LIKE)
    assert "in.csv:3: column 'd' is" in message and "5,000,001 characters" in message


def test_short_rows_end_in_empty_cells(tmp_path):
    (tmp_path / "in.csv").write_text("s,q,d,c\none,how,a\none,how,b,1\ntwo,why,c,0\n")
    columns = LogColumns(query="q", search="s", hit="d", feedback={"click": "c"})
    one, two = read_log(tmp_path / "in.csv", columns)
    assert [hit.id for hit in one.hits] == ["a", "b"] and [event.id for event in one.feedback] == ["b"]
    assert two.query == "why" and not two.feedback
    with pytest.raises(LogError, match=r"in.csv:2: column 'c' is '', expected .*; columns: .'c', 'd', 'q', 's'.;"):
        list(read_log(tmp_path / "in.csv", LogColumns(query="c", search="s", hit="d")))


# -- pages


def with_pages_at_two_places(path, table):
    """A log of one search; the last branch of a table's tree is its first one too."""
    hits = tuple(LoggedHit(f"passage {rank}", rank) for rank in range(1, 2_000))
    events = tuple(Feedback(hit.id, "click", 1.0, NOON) for hit in hits)
    with RetrievalLog(path) as log:
        log.extend([LoggedSearch("one", NOON, "q", hits=hits, feedback=events)])

    def repeat(page):
        assert page[0] == 2  # of a tree of keys, not a leaf
        cell = struct.unpack_from(">H", page, 12)[0]
        page[8:12] = page[cell : cell + 4]

    patched(path, root_of(path, table), repeat)
    return path


@pytest.mark.parametrize("table", ["hits", "sqlite_autoindex_feedback_1"])
def test_a_page_at_two_places_of_a_tree_is_found_when_it_comes_again(tmp_path, table):
    path = with_pages_at_two_places(tmp_path / "log.sqlite", table)
    with RetrievalLog(path, read_only=True) as log, pytest.raises(LogError, match="seq 1: rows out of order"):
        list(log.searches())


GUEST = """
import os, sys
from qdrant_tools.log import RetrievalLog
from qdrant_tools.errors import LogError
import encodings.idna
if os.geteuid() == 0:
    os.setuid(65534)  # nothing is forbidden to root
try:
    RetrievalLog(sys.argv[1], read_only=True)
except LogError as error:
    print(error)
"""


def test_newest_rows_that_only_a_writer_can_read_are_not_left_out(tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        with RetrievalLog(tmp_path / "log.sqlite") as log:
            log.record("q", [], collection="", space="")
            for ending in ("", "-wal"):  # as they are copied to a disk that is only read
                shutil.copy(f"{log.path}{ending}", folder)
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        done = subprocess.run([sys.executable, "-c", GUEST, folder / log.path.name], capture_output=True, text=True)
        folder.chmod(0o755)
        assert "its newest rows are in log.sqlite-wal" in done.stdout and len(list(folder.iterdir())) == 2, done
