"""Passages of no text are counted and reported, by one rule, wherever a corpus is read."""

from __future__ import annotations

import json

import pytest
from models import SENTENCE, save_model

WORDS = [word for word in SENTENCE.split() if word.isalpha()]
TEXTS = {"p1": " ".join(WORDS[:6]), "p2": "", "p3": " ".join(WORDS[6:12]), "p4": "  "}


@pytest.fixture
def corpus(tmp_path):
    """A folder as BEIR has it, two of whose four passages are empty; one of these is judged."""
    save_model(tmp_path / "model", seed=0)
    (tmp_path / "set" / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": name, "text": text}) for name, text in TEXTS.items()]
    (tmp_path / "set" / "corpus.jsonl").write_text("\n".join(rows))
    queries = [json.dumps({"_id": f"q{name[1]}", "text": TEXTS[name]}) for name in ("p1", "p3")]
    (tmp_path / "set" / "queries.jsonl").write_text("\n".join(queries))
    (tmp_path / "set" / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\tp1\t1\nq1\tp2\t1\nq3\tp3\t1\n"
    )
    return ("--queries", "set/queries.jsonl", "--qrels", "set/qrels/test.tsv", "--model", "model")


def test_index_evaluate_and_benchmark_count_empty_passages_and_measure_the_same(run, corpus, caplog):
    model = corpus[-2:]
    code, out, err = run("index", "docs", "set/corpus.jsonl", "--json", "--location", "data", *model)
    assert code == 0 and "text is '', expected a non-empty text" in out, err
    of_a_collection = run("evaluate", "docs", *corpus, "--location", "data", "--json")
    of_a_file = run("evaluate", "--passages", "set/corpus.jsonl", *corpus, "--json")
    assert "2 files or rows were not read (2 empty row), such as set/corpus.jsonl:2" in caplog.text
    assert "'p2' is not among the passages, which have ids such as 'p1'" in of_a_file[1]
    figures = [json.loads(out)["systems"][0]["means"]["ndcg@10"] for _, out, _ in (of_a_collection, of_a_file)]
    code, out, err = run("benchmark", ".", "--json", *model)
    task = json.loads(out.splitlines()[0])
    assert code == 0 and task["task"] == "set/retrieval", err
    assert task["details"]["empty_passages"] == 2 and task["details"]["passages"] == 2
    assert figures == pytest.approx([task["value"]] * 2, abs=1e-4)
