"""From a log to a model that serves: held-out queries lie beside it, every refusal names the next command."""

from __future__ import annotations

import csv
import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_cli_train import IN_DOCS, PAIRS, PASSAGES, QUESTIONS, TRAIN, base, place  # noqa: F401 - fixtures
from tiny import NoisyEncoder, WordEncoder

from llama_index_embed_plus.cli.training.held_out import queries_of_log
from llama_index_embed_plus.cli.training.prove import unseen
from llama_index_embed_plus.cli.training.verdict import show_next
from llama_index_embed_plus.evaluate.retrieval.held_out import held_out_of, trained_on
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.training.proof.proof import ProofSettings, prove
from llama_index_embed_plus.training.proof.report import Lineage, TrainReport, read_report
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.files.rows import read_rows
from qdrant_tools.log.records import LoggedHit, LoggedSearch
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.records import CLICKS, SAMPLE, Example, HeldOut, Passage, Query, ScoredText

HERE = ("--location", "here")
SHARE = ("--heldout-share", 0.3, "--shared-passages", "--no-plot")


@pytest.fixture
def clicked(place):  # noqa: F811
    """The examples, as `mine` writes those of clicks."""
    rows = [json.loads(line) for line in (place / "examples.jsonl").read_text().splitlines()]
    lines = (json.dumps(row | {"evidence": "clicks"}) + "\n" for row in rows)
    (place / "clicked.jsonl").write_text("".join(lines))
    return "clicked.jsonl"


@pytest.fixture
def adapted(run, base, clicked):  # noqa: F811
    """A query adapter of clicks, with its held-out queries beside it: (stdout, stderr) of its training."""
    code, out, err = run("train", *IN_DOCS, "--model", base, "--examples", clicked, "--out", "adapted", *SHARE)
    assert code == 0, err
    return out, err


def error_line(err):
    """The one line that says what is wrong; lines on what was found may stand before it."""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


def last(err):
    return err.splitlines()[-1]


def test_what_was_held_out_lies_beside_the_model_and_no_copy_takes_it_along(adapted, place, tmp_path):  # noqa: F811
    held_out = held_out_of(place / "adapted")
    report = read_report(place / "adapted")
    assert len(held_out.queries) == report.proof.queries and held_out.evidence == CLICKS
    artifact.verify(place / "adapted")
    artifact.copy_artifact(place / "adapted", tmp_path / "copy")
    artifact.copy_model(place / "adapted", tmp_path / "bare")
    assert not (tmp_path / "copy" / "heldout").exists() and not (tmp_path / "bare" / "heldout").exists()
    (place / "adapted" / "heldout" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nheldout-0\tp1\t1\n")
    with pytest.raises(Exception, match="not the file that the manifest lists"):
        held_out_of(place / "adapted")


def test_figures_stand_before_and_after_and_what_learned_nothing_is_told_what_may_help(adapted, place):  # noqa: F811
    out, err = adapted
    assert " -> 0." in out.splitlines()[1]
    proof = read_report(place / "adapted").proof
    if not proof.wins and not proof.losses:
        assert "nothing changed on" in out and "whose answers are clicks on what a search had shown" in out
        assert "no judgement can tell the two apart" in err
        assert last(err) == "next: embed-plus synthesize docs --location here --out more.jsonl"


def test_clicks_are_said_to_favour_what_ranked_them_and_three_ways_lead_on(capsys):
    passages = tuple(Passage(f"p{i}", f"w{i} opens this passage. w{i} goes on") for i in range(60))
    queries = tuple(Query(f"q{i}", f"w{i} asked") for i in range(30))
    held_out = HeldOut(queries, {f"q{i}": {f"p{i}": 1} for i in range(30)}, passages, evidence=CLICKS)
    proof = prove(NoisyEncoder(1.0, asked=1.0), NoisyEncoder(1.0, asked=1.05), held_out, ProofSettings(known_items=0))
    report = TrainReport("adapter", {}, {}, (), 1.0, 0, Lineage("base", "base@1", "onnx"), proof=proof)
    assert not report.promotable and "whose answers are clicks on what a search had shown" in report.verdict
    show_next(report, Path("my model"), "docs", "here")
    err = capsys.readouterr().err
    assert "They favour what ranked it" in err and "They are not corrected for their ranks" in err
    assert ("  collect more: about " in err) == (proof.needed is not None and proof.needed > proof.queries)
    assert "  or take other queries: embed-plus prove docs" in err
    prove_it = "embed-plus prove docs --model 'my model' --location here --write-sheet 'my model-sheet.csv'"
    assert f"  judge a sample: {prove_it}" in err and last(err) == f"next: {prove_it}"


def test_a_plain_collection_gets_its_alias_only_after_asking(run, adapted, place):  # noqa: F811
    promote = ("promote", "run", "docs", "--model", "adapted", "--force", *HERE)
    code, _, err = run(*promote)
    line = error_line(err)
    assert code == 1 and "--yes" in line and "'docs-live'" in line and "--alias NAME" in line and "(" not in line
    with closing(connect(place / "here")) as client:
        assert not CollectionManager(client).aliases()
    code, out, err = run(*promote, "--yes")
    assert code == 0, err
    assert "held-out queries: the " in err and "(clicks)" in err and "let applications open 'docs-live'" in err
    assert out.splitlines()[-1].startswith("docs-live serves ") and " with adapter@" in out.splitlines()[-1]
    code, out, err = run(*promote)  # the alias is found
    assert code == 0 and "'docs' is served as 'docs-live'" in err
    code, _, err = run(*promote, "--alias", "docs")
    assert code == 2 and "choose another with --alias NAME" in error_line(err)


def test_a_refused_model_names_the_commands_that_could_prove_it(run, adapted, place):  # noqa: F811
    if not read_report(place / "adapted").promotable:
        code, _, err = run("promote", "run", "docs", "--model", "adapted", "--yes", *HERE)
        line = error_line(err)
        assert (
            code == 1 and "embed-plus prove docs --model adapted --write-sheet SHEET.csv" in line and "--force" in line
        )
        with closing(connect(place / "here")) as client:
            assert not CollectionManager(client).aliases()  # nothing is made for it


def test_evaluate_and_prove_take_the_queries_beside_the_model(run, adapted, base):  # noqa: F811
    code, out, err = run("evaluate", "docs", "--model", base, "--against", "model=adapted", *HERE)
    assert code == 0 and "judged queries: the " in err, err
    assert f"{len(held_out_of('adapted').queries)} queries measured" in out
    code, out, err = run("prove", "docs", "--model", "adapted", *HERE)
    assert code == 0 and "held-out queries: the " in err, err
    code, _, err = run("evaluate", "docs", "--model", base, *HERE)
    assert code == 2 and "give --queries and --qrels" in error_line(err)


def fill(path, verdict):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["relevant"] = verdict(row["query"], row["passage"])
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_a_sheet_is_drawn_filled_in_and_decides(run, clicked, base, place):  # noqa: F811
    small = ("--method", "full", "--epochs", 4, "--batch-size", 8, "--max-tokens", 16, "--learning-rate", 0.01)
    train = ("train", *IN_DOCS, "--model", base, "--examples", clicked, "--out", "tuned", *SHARE, *small)
    assert run(*train)[0] == 0
    prove_it = ("prove", "docs", "--model", "tuned", *HERE)
    code, _, err = run(*prove_it, "--write-sheet", "sheet.csv")
    assert code == 2 and "with --base" in error_line(err)
    prove_it = (*prove_it, "--base", base)
    code, out, err = run(*prove_it, "--write-sheet", "sheet.csv", "--rows", 60)
    assert code == 0 and out.startswith("wrote sheet.csv: "), err
    assert last(err) == f"next: embed-plus prove docs --model tuned --base {base} --sheet sheet.csv --location here"
    text = (place / "sheet.csv").read_text()
    assert text.startswith("row,query,passage,relevant") and "@" not in text
    code, _, err = run(*prove_it, "--sheet", "sheet.csv")
    assert code == 1 and "0 of the" in error_line(err)
    right = {QUESTIONS[i]: PASSAGES[i].text for i in range(len(PAIRS))}
    rows = fill("sheet.csv", lambda query, passage: int(right[query] == passage))
    code, out, err = run(*prove_it, "--sheet", "sheet.csv")
    if not any(row["relevant"] for row in rows):
        assert code == 1 and "judge more rows" in error_line(err)
        return
    assert code == 0, err
    proof = read_report(place / "tuned").proof
    assert proof.evidence == SAMPLE and proof.changes[0].metric == "dcg@10"
    assert f"of the judged passages that it ranks higher {proof.higher[0]} of {proof.higher[1]} answer" in out
    assert held_out_of(place / "tuned").evidence == SAMPLE  # so a promotion compares on the same
    code, _, err = run("evaluate", "docs", "--model", "tuned", *HERE)
    assert code == 2 and "judged sample" in error_line(err)


def test_questions_of_a_log_are_taken_only_where_those_trained_on_are_known(run, adapted, place):  # noqa: F811
    with closing(RetrievalLog(place / "log.sqlite")) as log:
        at, hits = datetime(2026, 1, 1, tzinfo=UTC), (LoggedHit("p0", 1, 0.5),)
        log.extend(LoggedSearch(f"s{i}", at, question, hits=hits) for i, question in enumerate(QUESTIONS[:9]))
    prove_it = ("prove", "docs", "--model", "adapted", *HERE)
    code, _, err = run(*prove_it, "--write-sheet", "sheet.csv", "--log", "log.sqlite")
    assert code == 2 and "give the --examples" in error_line(err)
    assert [query.text for query in queries_of_log(place / "log.sqlite", ("docs", "docs"))] == QUESTIONS[:9]


def test_what_was_trained_on_is_in_no_sheet():
    trained = [Example("who makes honey", (ScoredText("bees", ""),))]
    asked = [Query("a", "Who makes  honey?"), Query("b", "where do whales sleep"), Query("c", "who makes honey now")]
    assert [query.id for query in unseen(asked, trained, WordEncoder())] == ["b", "c"]


def test_leaks_can_be_dropped_on_either_side(run, base, place):  # noqa: F811
    rows = (place / "examples.jsonl").read_text()
    leak = {"query": QUESTIONS[-1], "positives": [{"id": "p1", "text": PASSAGES[1].text}]}
    (place / "leaking.jsonl").write_text(rows + json.dumps(leak) + "\n")
    files = ("--queries", "queries.jsonl", "--qrels", "qrels.tsv")
    train = ("train", *IN_DOCS, "--model", base, "--examples", "leaking.jsonl", *files, "--no-plot")
    code, _, err = run(*train, "--out", "refused")
    line = error_line(err)
    assert code == 1 and "1 of 36 training examples give held-out queries away" in line and "--drop-leaks" in line
    assert "split_queries" not in line and "without_leaks" not in line
    code, out, err = run(*train, "--out", "tuned", "--drop-leaks")
    assert code == 0 and "  1 examples gave held-out queries away, and were left out" in out, err
    prove_it = ("prove", "docs", "--model", "tuned", *HERE, *files, "--examples", "leaking.jsonl")
    assert run(*prove_it)[0] == 1
    code, out, err = run(*prove_it, "--drop-leaks")
    assert code == 0 and "1 of 21 held-out queries were known to training, and are left out" in err
    assert read_report(place / "tuned").proof.queries == 20


def test_a_model_remembers_what_it_was_trained_on(run, base, place):  # noqa: F811
    train = ("train", *IN_DOCS, "--model", base, "--examples", "examples.jsonl", "--no-plot")
    assert run(*train, "--out", "tuned")[0] == 0
    known = read_rows(place / "examples.jsonl")
    assert [example.query for example in trained_on(place / "tuned")] == [row.text("query") for row in known]
    queries = [json.loads(line) for line in (place / "queries.jsonl").read_text().splitlines()]
    trained = {"id": "trained", "text": trained_on(place / "tuned")[0].query.upper() + "?"}
    (place / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*queries, trained]))
    (place / "mixed.tsv").write_text((place / "qrels.tsv").read_text() + "trained\tp0\t1\n")
    prove_it = ("prove", "docs", "--model", "tuned", *HERE, "--queries", "mixed.jsonl", "--qrels", "mixed.tsv")
    code, _, err = run(*prove_it)
    assert code == 1 and "give held-out queries away" in error_line(err) and "--drop-leaks" in error_line(err)
    for _ in range(2):  # a proof does not make it forget
        code, _, err = run(*prove_it, "--drop-leaks")
        assert code == 0 and "1 of 22 held-out queries were known to training, and are left out" in err, err
    (place / "tuned" / "heldout" / "trained.jsonl").write_text("")
    code, _, err = run(*prove_it)
    assert code == 1 and "trained.jsonl" in error_line(err)


def test_queries_that_nobody_judged_are_no_leaks(run, base, place):  # noqa: F811
    """A file of queries as BEIR has it holds those of training too; the judgements say which are measured."""
    every = [{"_id": f"q{i}", "text": QUESTIONS[i]} for i in range(len(PAIRS))]
    (place / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in every))
    files = ("--queries", "all.jsonl", "--qrels", "qrels.tsv")
    train = ("train", *IN_DOCS, "--model", base, "--examples", "examples.jsonl", *files, "--no-plot")
    code, _, err = run(*train, "--out", "tuned")
    assert code == 0, err
    assert read_report(place / "tuned").proof.queries == 21 and len(held_out_of(place / "tuned").queries) == 21
    assert run("prove", "docs", "--model", "tuned", *HERE, *files, "--examples", "examples.jsonl")[0] == 0
