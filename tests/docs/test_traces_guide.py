"""The guide to traces cannot lie: its files are written, its commands and its Python run, and its formats exist."""

from __future__ import annotations

import re

from pages import run_page
from paths import DOCS

from qdrant_tools.traces.detect import form_names

PAGE = DOCS / "traces.md"


def test_the_guide_runs_from_top_to_bottom(tmp_path, minilm):
    printed = run_page(PAGE, tmp_path, model=minilm)
    assert "2 searches\nWho makes honey? ['bees', 'ants'] False {'thumb'}\n" in printed
    assert "Which animal hunts at night? ['owls'] True {" in printed
    assert "3 annotations: none on documents; 2 thumb, 1 comment" in printed and "ann@example.org" not in printed
    assert "1 annotations answer a question that is neither a thumb nor relevance" in printed


def test_the_table_of_formats_has_those_that_there_are():
    table = PAGE.read_text()[PAGE.read_text().index("| `--format` |") :].split("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    assert len(named) > 12 and named <= set(form_names())
