"""`embed-plus monitor` and `embed-plus canary`: what they print, what they write, and how they exit."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from command_line import error_line
from models import SENTENCE, save_model

from llama_index_embed_plus import open_encoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import point_id
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import RetrievalLog
from qdrant_tools.records import Passage
from qdrant_tools.search.dense import search

WORDS = SENTENCE.split()[6:26]
TEXTS = [f"{a} {b} {c}" for a, b, c in zip(WORDS * 3, WORDS[1:] * 4, WORDS[5:] * 4)][:60]
NOW = datetime(2025, 6, 30, tzinfo=UTC)
UNTIL = ["--until", "2025-06-30"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_model(folder)
    return folder


@pytest.fixture
def where(model, tmp_path):
    """A collection of short passages, and a log of a month of quiet use with clicks."""
    encoder = open_encoder(model, device="cpu")
    with closing(connect(tmp_path / "data")) as client, RetrievalLog(tmp_path / "log.sqlite") as log, log.batch():
        collection = CollectionManager(client).ensure("docs", encoder)
        index_passages(collection, [Passage(f"p{i}", text) for i, text in enumerate(dict.fromkeys(TEXTS))], encoder)
        for number in range(60):
            text = TEXTS[number % 20]
            at = NOW - timedelta(days=20 if number < 40 else 3)
            hits = search(collection, text, encoder, k=5)
            search_id = log.record(text, hits, collection="docs", space=encoder.space, at=at)
            log.feedback(search_id, hits[number % 3].id, "click", at=at)
    return ["--location", "data", "--model", model]


def test_a_quiet_week_is_printed_and_written_and_exits_0(run, where, tmp_path):
    code, out, err = run("monitor", "docs", "log.sqlite", *UNTIL, *where)
    assert code == 0, err
    assert "no alarm\n  by Holm's correction the smallest p of 4 tests must be at most 0.0025" in out
    assert "click-through by rank" in out
    assert out.splitlines()[-1] == "wrote monitor.json, monitor.png"
    assert err.splitlines()[-1].startswith("next: embed-plus canary freeze docs QUERIES --out canaries.jsonl")
    row = json.loads((tmp_path / "monitor.json").read_text())
    assert row["alarms"] == [] and row["counts"]["current"]["searches"] == 20
    assert (tmp_path / "monitor.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("monitor", "docs", "log.sqlite", "--json", "--no-plot", "--out", "again.json", *UNTIL, *where)
    assert code == 0 and json.loads(out) == json.loads((tmp_path / "again.json").read_text()) == row


def test_an_alarm_exits_3(run, where, tmp_path):
    with RetrievalLog(tmp_path / "log.sqlite") as log, log.batch():
        for number in range(60):
            log.record(f"wholly : other ! {'?' * number}", [], collection="docs", space="", at=NOW - timedelta(days=1))
    code, out, err = run("monitor", "docs", "log.sqlite", *UNTIL, *where)
    assert code == 3, err
    assert out.splitlines()[-3].startswith("ALARM: ") and "without_hits" in out.splitlines()[-3]
    assert err.splitlines()[-1].startswith("next: embed-plus mine docs log.sqlite --out examples.jsonl")


def test_windows_that_hold_no_search_are_answered_with_those_that_do(run, where):
    code, _, err = run("monitor", "docs", "log.sqlite", "--until", "2020-01-01", *where)
    assert code == 1 and f"embed-plus monitor COLLECTION LOG --until {NOW:%Y-%m}" in err.splitlines()[-1]
    code, _, err = run("monitor", "docs", "log.sqlite", *UNTIL, "--days", 4000, *where)
    assert code == 1 and err.splitlines()[-1].endswith("embed-plus monitor COLLECTION LOG --days 1000")


def test_what_cannot_be_measured_is_said_to_be_so_and_shown_without_an_interval(run, where, tmp_path):
    with RetrievalLog(tmp_path / "scoreless.sqlite") as log, log.batch():
        for number in range(30):
            at = NOW - timedelta(days=20 if number < 20 else 3)
            log.record(TEXTS[number % 20], [], collection="docs", space="", at=at)
    code, out, err = run("monitor", "docs", "scoreless.sqlite", *UNTIL, *where)
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("low_score")]
    assert line.split(maxsplit=1)[1] == "not measurable (none) then, not measurable (none) now"


def test_without_matplotlib_the_report_is_printed_and_a_line_says_that_nothing_was_drawn(
    run, where, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run("monitor", "docs", "log.sqlite", *UNTIL, *where)
    assert code == 0 and "no alarm" in out and out.splitlines()[-1] == "wrote monitor.json"
    assert err.count("no picture is drawn: that needs the extra 'plot'") == 1
    code, out, err = run("monitor", "docs", "log.sqlite", "--plot", "--out", "again", *UNTIL, *where)
    assert (
        code == 1
        and out == ""
        and error_line(err) == ("error: drawing needs the extra 'plot': pip install 'llama-index-embed-plus[plot]'")
    ), "a picture that was asked for is missed before the work"
    assert not (tmp_path / "again.json").exists()


def test_a_candidate_is_judged_by_the_clicks(run, where, model, tmp_path):
    arguments = ["--candidate", model, "--no-plot", *UNTIL]
    code, out, err = run("monitor", "docs", "log.sqlite", *arguments, *where)
    assert code == 0 and "candidate: mean gain of a relevant hit" in out, err
    estimate = json.loads((tmp_path / "monitor.json").read_text())["estimate"]
    assert estimate["difference"] == pytest.approx(0.0, abs=1e-6), "the same encoder ranks as logged"
    assert estimate["clicks"] == 20 and estimate["verdict"] == "undecided"


def test_canaries_are_frozen_asked_and_exit_4_when_they_fail(run, where, tmp_path):
    (tmp_path / "queries.txt").write_text("\n".join(TEXTS[:4]) + "\n\n")
    code, out, err = run("canary", "freeze", "docs", "queries.txt", "--out", "canaries.jsonl", "-k", 5, *where)
    assert code == 0 and out.startswith("wrote canaries.jsonl: 4 canaries"), err
    code, out, err = run("canary", "run", "docs", "canaries.jsonl", *where)
    assert code == 0 and out.startswith("canaries passed: 100.0%")
    assert err.splitlines()[-1].startswith("next: embed-plus monitor docs LOG --canaries canaries.jsonl")
    lost = json.loads((tmp_path / "canaries.jsonl").read_text().splitlines()[0])["expected"]
    with closing(connect(tmp_path / "data")) as client:
        client.delete("docs", [point_id(passage) for passage in lost])
    code, out, err = run("canary", "run", "docs", "canaries.jsonl", *where)
    assert err.splitlines()[-1].startswith("next: embed-plus collection describe docs")
    assert code == 4 and out.startswith("canaries FAILED") and "5 of them gone from the collection" in out
    code, out, _ = run("canary", "run", "docs", "canaries.jsonl", "--json", *where)
    assert code == 4 and json.loads(out)["passed"] is False
    code, out, _ = run("monitor", "docs", "log.sqlite", "--canaries", "canaries.jsonl", "--no-plot", *UNTIL, *where)
    assert code == 4 and "ALARM: canaries" in out


def test_mistakes_are_one_line(run, where, tmp_path):
    RetrievalLog(tmp_path / "empty.sqlite").close()
    (tmp_path / "canaries.jsonl").write_text('{"query": "cat", "expected": ["p1"], "space": "other@000000000000"}\n')
    (tmp_path / "queries.jsonl").write_text("{}\n")
    for arguments, code, message in [
        (["monitor", "docs", "typo.sqlite"], 1, "no retrieval log typo.sqlite"),
        (["monitor", "docs", "empty.sqlite"], 1, "no searches in the reference window"),
        (["monitor", "docs", "log.sqlite"], 1, "no searches in the reference window"),
        (["monitor", "docs", "log.sqlite", *UNTIL, "--reference-days", "0.1"], 1, "(60 in all)"),
        (["monitor", "docs", "log.sqlite", "--until", "yesterday"], 2, "--until is 'yesterday'"),
        (["monitor", "docs", "log.sqlite", "--alpha", 2], 1, "alpha is 2"),
        (["monitor", "docs", "log.sqlite", *UNTIL, "--out", "no/folder"], 2, "cannot write no/folder.json"),
        (["monitor", "typo", "log.sqlite"], 1, "'typo'"),
        (["canary", "run", "docs", "typo.jsonl"], 1, "cannot read typo.jsonl"),
        (["canary", "run", "docs", "canaries.jsonl"], 1, "freeze the canaries again"),
        (["canary", "freeze", "docs", "queries.jsonl", "--out", "x.jsonl"], 1, "queries.jsonl has no queries"),
    ]:
        found, out, err = run(*arguments, *where)
        assert (found, message in error_line(err)) == (code, True), err
    assert not (tmp_path / "monitor.json").exists()
