"""The guides to click logs and to spans run from top to bottom, and their tables say what the code does."""

from __future__ import annotations

import re

import pytest
from pages import run_page
from paths import DOCS

from llama_index_embed_plus.integrations.spans import KEPT
from qdrant_tools.clicks import FORMS
from qdrant_tools.log import RetrievalLog


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracing")
    run_page(DOCS / "tracing.md", folder, model=folder)
    return folder


def test_the_guide_to_spans_brings_a_thumb_back_to_its_search(traced):
    with RetrievalLog(traced / "log.sqlite", read_only=True) as log:
        (search,) = log.searches()
    assert search.query == "how do I cancel an order?" and [hit.id for hit in search.hits] == ["kb-1", "kb-2"]
    assert [(said.kind, said.value, said.by) for said in search.answer.verdicts] == [("thumb", 1.0, "person")]
    assert not search.feedback


def test_every_attribute_of_the_table_is_written_or_is_said_to_be_asked_for(traced):
    page, spans = (DOCS / "tracing.md").read_text(), (traced / "spans.jsonl").read_text()
    assert f"{KEPT} attributes" in page
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", page, flags=re.M)
    assert len(rows) == 5
    for names, says in rows:
        for name in re.findall(r"`([\w.]+)`", names):
            assert (f'"{name}"' in spans) != ("only with" in says), name


def test_the_guide_to_click_logs_runs_and_its_table_has_every_format(tmp_path):
    printed = run_page(DOCS / "click-logs.md", tmp_path, model=tmp_path)
    assert "cancel an order ['kb-8', 'kb-2', 'kb-5'] [('click', 'kb-2'), ('up', 'kb-2')]" in printed
    rows = re.findall(r"^\| `(\w[\w-]*)` \| .*? \| .*? \| (.*?) \|", (DOCS / "click-logs.md").read_text(), flags=re.M)
    assert [name for name, _ in rows] and {name for name, _ in rows} == set(FORMS)
    for name, clicks in rows:
        said = {word.lower() for word in re.findall(r"`(\w+)`", clicks)} - {"judged"}
        assert said <= FORMS[name].clicks and bool(said) == bool(FORMS[name].clicks)
