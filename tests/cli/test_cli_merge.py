"""Averaging a model with its base on the command line, and proving what came of it."""

from __future__ import annotations

import itertools
import json
from contextlib import closing

import pytest
from models import SENTENCE, save_model

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.training import train
from llama_index_embed_plus.training.proof.report import read_report
from llama_index_embed_plus.training.settings import TrainSettings
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Example, Passage, ScoredText

WORDS = SENTENCE.split()[9:18]
PASSAGES = [Passage(f"p{i}", f"the {a} and the {b}") for i, (a, b) in enumerate(itertools.combinations(WORDS, 2))]
QUESTIONS = [f"{b} {a} {b} {a}" for a, b in itertools.combinations(WORDS, 2)]
IN_DOCS = ("--queries", "queries.jsonl", "--qrels", "qrels.tsv", "docs", "--location", "here")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base, and a model that has learnt the very questions that the tests ask."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "base")
    rows = [Example(text, (ScoredText(p.id, p.text),)) for text, p in zip(QUESTIONS, PASSAGES, strict=True)]
    settings = TrainSettings(epochs=8, batch_size=12, max_tokens=16, learning_rate=2e-3, checkpoint_every=0)
    train(folder / "base", rows, folder / "tuned", settings)
    return folder


@pytest.fixture
def asked(run, models, tmp_path):
    """`run` in a folder with a collection `docs` of the base, and questions with their judgements."""
    encoder = open_encoder(models / "base", device="cpu")
    with closing(connect(tmp_path / "here")) as client:
        index_passages(CollectionManager(client).ensure("docs", encoder), PASSAGES, encoder)
    queries = [{"_id": f"q{i}", "text": text} for i, text in enumerate(QUESTIONS)]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (tmp_path / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\tp{i}\t1\n" for i in range(len(QUESTIONS)))
    )
    return run


def test_a_model_between_base_and_tuned_is_written_and_then_proved(asked, models, tmp_path):
    code, out, err = asked(
        "merge", "--model", models / "tuned", "--base", models / "base", "--coefficient", 0.5, "--out", "half"
    )
    assert code == 0 and out.splitlines()[0].startswith("wrote half: 0.5 of ")
    proving = f"next: embed-plus prove COLLECTION --model half --base {models / 'base'} --queries QUERIES.jsonl"
    assert err.splitlines()[-1] == f"{proving} --qrels QRELS.tsv"
    report = read_report(tmp_path / "half")
    assert report.proof is None and not report.promotable
    code, out, _ = asked("prove", "--model", "half", "--base", models / "base", *IN_DOCS)
    report = read_report(tmp_path / "half")
    assert code == 0 and report.proof.queries == len(QUESTIONS)
    judged = "may be promoted" if report.promotable else "not to be promoted"
    told = [*(f"  {change.figures}" for change in report.proof.changes), *(f"  note: {note}" for note in report.notes)]
    assert out.splitlines() == [*told, f"{judged}: {report.verdict}"]
    assert artifact.verify(tmp_path / "half")


def test_dev_queries_choose_the_coefficient_and_every_trial_is_told(asked, models, tmp_path):
    code, out, stderr = asked(
        "merge", "--model", models / "tuned", "--base", models / "base", "--out", "best", *IN_DOCS, "--json"
    )
    assert code == 0, stderr
    row = json.loads(out)
    after = {trial["coefficient"]: trial["change"]["after"] for trial in row["trials"] if trial["allowed"]}
    assert row["coefficient"] in after and after[row["coefficient"]] == max(after.values())
    assert not row["promotable"] and read_report(tmp_path / "best").proof is None


@pytest.mark.parametrize("given", [(), ("--coefficient", 0.5, *IN_DOCS), ("--queries", "queries.jsonl")])
def test_a_coefficient_or_dev_queries_to_choose_it_by_and_not_both(asked, models, tmp_path, given):
    code, _, stderr = asked("merge", "--model", models / "tuned", "--base", models / "base", "--out", "none", *given)
    assert code == 2 and "give either --coefficient, or a COLLECTION, --queries and --qrels" in stderr
    assert not (tmp_path / "none").exists()


def test_where_no_mixture_helps_the_base_is_kept(asked, models, tmp_path):
    code, _, stderr = asked("merge", "--model", models / "base", "--base", models / "base", "--out", "none", *IN_DOCS)
    assert code == 2 and "keep the base" in stderr
    assert not (tmp_path / "none").exists()


def test_a_proof_needs_a_report_to_go_into(asked, models):
    code, _, stderr = asked("prove", "--model", models / "base", "--base", models / "base", *IN_DOCS)
    assert code == 2 and "was not trained here" in stderr


def test_what_the_model_was_trained_on_may_not_prove_it(asked, models, tmp_path):
    assert (
        asked("merge", "--model", models / "tuned", "--base", models / "base", "--coefficient", 1, "--out", "all")[0]
        == 0
    )
    row = Example(QUESTIONS[3], (ScoredText("p3", PASSAGES[3].text),))
    (tmp_path / "examples.jsonl").write_text(json.dumps(row.as_row()) + "\n")
    code, _, stderr = asked(
        "prove", "--model", "all", "--base", models / "base", *IN_DOCS, "--examples", "examples.jsonl"
    )
    assert code == 1 and "1 of 1 training examples give held-out queries away" in stderr
    assert read_report(tmp_path / "all").proof is None
