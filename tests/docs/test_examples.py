"""Every example runs as it stands, offline, and prints what it promises."""

from __future__ import annotations

import runpy
import sys

import pytest
from llama_index.core import Settings
from paths import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run an example as `python examples/NAME.py ARGUMENTS` in an empty folder, and return what it prints."""
    monkeypatch.chdir(tmp_path)
    # as in a process of its own: LlamaIndex keeps the node parser of the first index that was made
    for name in ("_embed_model", "_node_parser", "_transformations"):
        monkeypatch.setattr(Settings, name, None)

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_llamaindex_quickstart_finds_the_answer(run):
    for _ in range(2):
        first, *_, last = run("llamaindex_quickstart").splitlines()
        assert "time.sleep suspends" in first and last.startswith("3 nodes")


def test_the_qdrant_quickstart_finds_the_answer_and_adds_nothing_twice(run):
    report, first, *_ = run("qdrant_quickstart", "folder").splitlines()
    assert "added=3" in report and "time.sleep suspends" in first
    assert "added=0, updated=0, refreshed=0, unchanged=3" in run("qdrant_quickstart", "folder")


def test_the_finetune_quickstart_mines_fits_and_measures(run):
    queries, ndcg, gain = run("finetune_quickstart", "120").splitlines()
    assert queries.endswith("held-out queries") and "->" in ndcg and "95 % interval" in gain


def test_the_rag_pipeline_retrieves_prompts_and_embeds_unchanged_documents_once(run):
    printed = run("rag", "folder")
    assert "shutil.copytree" in printed
    assert "Context information is below." in printed
    assert run("rag", "folder").startswith("0 new nodes")


def test_the_recording_example_writes_the_search_and_the_click(run):
    search, first, second = run("record_retrievals").splitlines()
    assert search.startswith("'how do I pause my program?' in notes, space all-MiniLM-L6-v2@")
    assert first.endswith("click") and not second.endswith("click")


def test_the_sample_log_is_a_table_with_a_row_for_each_search(run, tmp_path):
    assert run("sample_log", "40").startswith("wrote passages.jsonl (40 entries)")
    header, first, *_ = (tmp_path / "searches.csv").read_text().splitlines()
    assert header == "when,visitor,term,shown,clicked" and first.count("|") >= 9


def test_the_pictures_are_made_from_real_data_and_are_small(run, tmp_path):
    measured, *files = run("pictures", "shown", "60").splitlines()
    assert "ndcg@10" in measured
    names = {
        "before-after",
        "map-pca",
        "map-tsne",
        "query-differences",
        "recall-latency",
        "score-histograms",
        "similarity",
    }
    assert {line.split(".png: ")[0] for line in files} == names
    for name in names:
        content = (tmp_path / "shown" / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG") and 10_000 < len(content) < 120_000


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "finetune_quickstart", "llamaindex_quickstart", "pictures", "qdrant_quickstart", "rag", "record_retrievals",
        "sample_log", "traced_pipeline",
    }  # fmt: skip


def test_traces_of_a_llamaindex_application_and_thumbs_become_labels_and_a_verdict(run):
    printed = run("traced_pipeline", "folder", "60")
    assert "annotations: none on documents" in printed and "'supported':" in printed
    assert "not to be promoted: " in printed
