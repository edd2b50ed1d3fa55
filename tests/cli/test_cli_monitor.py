"""`embed-plus monitor` and `embed-plus canary`: what they print, what they write, and how they exit."""

from __future__ import annotations

import json
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
    assert "no alarm (false alarms: 0.01)" in out and "click-through by rank" in out
    assert out.splitlines()[-1] == "wrote monitor.json, monitor.png"
    row = json.loads((tmp_path / "monitor.json").read_text())
    assert row["alarms"] == [] and row["counts"]["current"]["searches"] == 20
    assert (tmp_path / "monitor.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("monitor", "docs", "log.sqlite", "--json", "--no-page", "--out", "again.json", *UNTIL, *where)
    assert code == 0 and json.loads(out) == json.loads((tmp_path / "again.json").read_text()) == row


def test_an_alarm_exits_3(run, where, tmp_path):
    with RetrievalLog(tmp_path / "log.sqlite") as log, log.batch():
        for number in range(60):
            log.record(f"wholly : other ! {'?' * number}", [], collection="docs", space="", at=NOW - timedelta(days=1))
    code, out, err = run("monitor", "docs", "log.sqlite", *UNTIL, *where)
    assert code == 3, err
    assert out.splitlines()[-2].startswith("ALARM: ") and "without_hits" in out.splitlines()[-2]


def test_a_candidate_is_judged_by_the_clicks(run, where, model, tmp_path):
    arguments = ["--candidate", model, "--no-page", *UNTIL]
    code, out, err = run("monitor", "docs", "log.sqlite", *arguments, *where)
    assert code == 0 and "candidate: mean gain of a relevant hit" in out, err
    estimate = json.loads((tmp_path / "monitor.json").read_text())["estimate"]
    assert estimate["difference"] == pytest.approx(0.0, abs=1e-6), "the same encoder ranks as logged"
    assert estimate["clicks"] == 20 and estimate["verdict"] == "undecided"


def test_canaries_are_frozen_asked_and_exit_4_when_they_fail(run, where, tmp_path):
    (tmp_path / "queries.txt").write_text("\n".join(TEXTS[:4]) + "\n\n")
    code, out, err = run("canary", "freeze", "docs", "queries.txt", "canaries.jsonl", "-k", 5, *where)
    assert code == 0 and out.startswith("wrote canaries.jsonl: 4 canaries"), err
    code, out, _ = run("canary", "run", "docs", "canaries.jsonl", *where)
    assert code == 0 and out.startswith("canaries passed: 100.0%")
    lost = json.loads((tmp_path / "canaries.jsonl").read_text().splitlines()[0])["expected"]
    with closing(connect(tmp_path / "data")) as client:
        client.delete("docs", [point_id(passage) for passage in lost])
    code, out, _ = run("canary", "run", "docs", "canaries.jsonl", *where)
    assert code == 4 and out.startswith("canaries FAILED") and "5 of them gone from the collection" in out
    code, out, _ = run("canary", "run", "docs", "canaries.jsonl", "--json", *where)
    assert code == 4 and json.loads(out)["passed"] is False
    code, out, _ = run("monitor", "docs", "log.sqlite", "--canaries", "canaries.jsonl", "--no-page", *UNTIL, *where)
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
        (["canary", "freeze", "docs", "queries.jsonl", "x.jsonl"], 1, "queries.jsonl has no queries"),
    ]:
        found, out, err = run(*arguments, *where)
        assert (found, message in error_line(err)) == (code, True), err
    assert not (tmp_path / "monitor.json").exists()
