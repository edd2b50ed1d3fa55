"""`mine --rule answers`, `log audit`, `unanswered` and `taught`, and what `log show` and `log stats` say of answers."""

from __future__ import annotations

import csv
import json
import shutil
from contextlib import closing
from datetime import UTC, datetime

import pytest
from command_line import error_line
from models import SENTENCE, save_model

from llama_index_embed_plus.encoders.open import open_encoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import Answer, Feedback, LoggedHit, LoggedSearch, RetrievalLog, Verdict
from qdrant_tools.records import Passage
from qdrant_tools.search.dense import search

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
QUERIES = 8
WORDS = SENTENCE.split()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_model(folder)
    return folder


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    """A collection, and a log of searches in it: each answer is the text of the third hit, and was liked."""
    folder = tmp_path_factory.mktemp("answered")
    encoder = open_encoder(model, device="cpu")
    texts = list(dict.fromkeys(f"{a} {b} {c} item{i}" for i, (a, b, c) in enumerate(zip(WORDS, WORDS[1:], WORDS[5:]))))
    # words of its own for each passage, so that an answer can be told to be its
    passages = [Passage(f"p{i}", f"{text} alpha{i} bravo{i} delta{i} gamma{i}") for i, text in enumerate(texts)]
    known = {passage.id: passage.text for passage in passages}
    with closing(connect(folder / "data")) as client, RetrievalLog(folder / "log.sqlite") as log:
        collection = CollectionManager(client).ensure("docs", encoder)
        index_passages(collection, passages, encoder)
        for number in range(QUERIES):
            hits = search(collection, texts[number], encoder, k=4)
            shown = tuple(LoggedHit(hit.id, hit.rank, hit.score) for hit in hits)
            scores = tuple(Feedback(hit.id, "reranked", float(hit.rank == 3), NOON) for hit in hits)
            said = (Verdict("thumb", 1.0, NOON, name="user_feedback", who=f"u{number}"),)
            answer = Answer(f"t{number}", f"It says: {known[hits[2].id]}", verdicts=said)
            log.extend([LoggedSearch(f"s{number}", NOON, texts[number], "docs", "", shown, scores, answer=answer)])
        down = Answer("t-down", "I do not know.", 2, verdicts=(Verdict("comment", 1.0, NOON, text="useless"),))
        log.extend([LoggedSearch("s-down", NOON, "where is the exit", "docs", "", shown, generated=True, answer=down)])
        log.extend([LoggedSearch("s-none", NOON, "nothing at all", "docs")])
    return folder


@pytest.fixture
def answered(made, model, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return ["--location", "data", "--model", model]


def test_liked_answers_become_examples_and_the_others_are_counted(run, answered, tmp_path):
    code, out, err = run(
        "mine", "docs", "log.sqlite", "--rule", "answers", "--max-share", 1.0, "--out", "m.jsonl", *answered
    )
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert f"{QUERIES} of {QUERIES + 2} searches give labels: supported {QUERIES}" in err
    assert "several searches behind one answer 1" in err and "no answer 1" in err
    assert "the weights of supported are guesses" in err
    with RetrievalLog(tmp_path / "log.sqlite", read_only=True) as log:
        third = {
            search.query: search.hits[2].id for search in log.searches() if search.answer and search.id != "s-down"
        }
    assert {row["query"]: row["positives"][0]["id"] for row in rows} == third
    assert {row["evidence"] for row in rows} == {"answers"}


@pytest.mark.parametrize("support", [["--support", "encoder", "--support-from", "0.0"], ["--support-from", "0.99"]])
def test_how_support_is_checked_can_be_said(run, answered, support):
    code, out, err = run("mine", "docs", "log.sqlite", "--rule", "answers", "--out", "m.jsonl", *support, *answered)
    assert code in (0, 2) and "Traceback" not in err
    if support[0] == "--support-from":
        assert code == 2 and "finds no positive" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--support", "encoder"], "are about answers: give --rule answers"),
        (["--rule", "answers", "--support", "judge"], "--support judge asks a cross-encoder"),
        (["--rule", "answers", "--answer-rule", "thumbs"], "there is no rule 'thumbs'"),
        (["--rule", "answers", "--weights", "none.json"], "none.json"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(run, answered, options, message):
    code, _, err = run("mine", "docs", "log.sqlite", "--out", "m.jsonl", *options, *answered)
    assert code in (1, 2) and message in error_line(err)


def test_rules_are_audited_by_a_sheet_and_their_weights_used(run, answered, tmp_path):
    audit = ["log", "audit", "log.sqlite", "--collection", "docs", "--location", "data"]
    code, out, err = run(*audit)
    assert code == 0 and f"supported: {QUERIES} passages, weight 0.8" in out and "the weights are guesses" in out
    assert "next: embed-plus log audit log.sqlite --collection docs --write-sheet rules.csv" in err
    assert f"wrote rules.csv: {QUERIES} passages" in run(*audit, "--write-sheet", "rules.csv")[1]
    with (tmp_path / "rules.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # as if each had been drawn five times: below thirty no weight is measured
    with (tmp_path / "filled.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"relevant": "1"} for row in rows * 5)
    code, out, err = run(*audit, "--sheet", "filled.csv", "--out", "weights.json")
    assert f"supported: {5 * QUERIES} of {5 * QUERIES} are relevant (100.0%, 95 % interval" in out
    assert "mine docs log.sqlite --rule answers --weights weights.json" in err
    mine = ["mine", "docs", "log.sqlite", "--rule", "answers", "--max-share", 1.0, "--out", "m.jsonl"]
    code, out, err = run(*mine, "--weights", "weights.json", *answered)
    assert code == 0 and "guesses" not in err


def test_rules_are_audited_by_judgements(run, answered, tmp_path):
    with RetrievalLog(tmp_path / "log.sqlite", read_only=True) as log:
        searches = [search for search in log.searches() if search.answer and search.id != "s-down"]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"_id": s.id, "text": s.query}) + "\n" for s in searches))
    lines = [f"{s.id}\t{s.hits[2].id}\t{int(n > 1)}" for n, s in enumerate(searches)]
    (tmp_path / "q.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n")
    audit = ["log", "audit", "log.sqlite", "--collection", "docs", "--location", "data"]
    code, out, _ = run(*audit, "--qrels", "q.tsv", "--queries", "q.jsonl")
    assert code == 0 and f"supported: {QUERIES - 2} of {QUERIES} are relevant" in out and "stays a guess" in out
    assert "go together" in run(*audit, "--qrels", "q.tsv")[2]


def test_queries_without_an_answer_are_listed_and_written(run, answered, tmp_path):
    code, out, _ = run("log", "unanswered", "log.sqlite", "--out", "queries.jsonl")
    assert code == 0 and "nothing at all  (no hits 1)" in out and "1 queries without an answer" in out
    assert json.loads((tmp_path / "queries.jsonl").read_text()) == {"id": "unanswered-0", "text": "nothing at all"}
    assert json.loads(run("log", "unanswered", "log.sqlite", "--json")[1])["reasons"] == {"no hits": 1}


def test_a_rerankers_scores_are_written_as_margins(run, answered, tmp_path):
    code, out, err = run(
        "log", "taught", "log.sqlite", "--collection", "docs", "--location", "data", "--out", "t.jsonl"
    )
    assert code == 0 and f"{QUERIES} queries with the margins of a reranker" in out, err
    row = json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0])
    assert row["margins"] == [1.0, 1.0, 1.0] and set(row) >= {"query", "positive", "negative_1"}
    assert "--loss margin_mse" in err


def test_show_and_stats_tell_of_answers(run, answered):
    out = run("log", "show", "log.sqlite", "-n", 3)[1]
    assert "where is the exit  (written by a language model)" in out
    assert "  =  I do not know. (of 2 searches)" in out and "comment: useless by a person" in out
    assert "thumb up by a person  (user_feedback)" in out and "reranked 1" in out
    stats = run("log", "stats", "log.sqlite")[1]
    for line in ("answers                 9", "comment 1, thumb up 8", "by a language model     1 queries"):
        assert line in stats
    assert json.loads(run("log", "stats", "log.sqlite", "--json")[1])["verdicts"] == {"comment": 1, "thumb up": 8}
