"""The guide to `improve` cannot lie: its commands run over the files of a traced application; a sheet proves."""

from __future__ import annotations

import csv
import json
import os
import subprocess

from pages import run_page
from paths import DOCS

from llama_index_embed_plus.demo import load_docstrings

PAGE = DOCS / "improve.md"


def test_its_commands_run_on_what_an_exporter_wrote_and_what_they_refuse_a_person_can_judge(traced, onnx_minilm):
    run_page(PAGE, traced, model=onnx_minilm)
    by_log, by_judged = (json.loads((traced / out / "improve.json").read_text()) for out in ("better", "judged"))
    assert by_log["decided_by"] == "the last sessions of the log" and by_log["rules"].keys() == {"supported"}
    assert by_judged["decided_by"] == "queries that were given" and by_judged["trained"]
    # so few queries prove nothing
    assert not by_log["promotable"] and by_log["trained"] and by_log["sheet"]
    sheet = traced / "better" / by_log["sheet"]
    fill_in(sheet)
    proved = subprocess.run(
        [traced / ".bin" / "embed-plus", "improve", "docs", "--out", "better", "--sheet", sheet],
        cwd=traced,
        env=os.environ | {"EMBED_PLUS_LOCATION": "qdrant", "EMBED_PLUS_MODEL": "model"},
        capture_output=True,
        text=True,
    )
    assert proved.returncode == 0, proved.stderr
    judged = json.loads((traced / "better" / "improve.json").read_text())
    assert judged["verdict"] in proved.stdout and "of which a person judged passages" in judged["decided_by"]
    assert judged["decide_queries"] == by_log["sheet_questions"]


def fill_in(sheet):
    """With the answers that the corpus knows: all that the simulated users were after."""
    corpus = load_docstrings(limit=160)
    texts = {passage.id: passage.text for passage in corpus.passages}
    right = {
        query.text: {texts[passage] for passage, grade in corpus.train.qrels[query.id].items() if grade}
        for query in corpus.train.queries
    }
    with sheet.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with sheet.open("w", encoding="utf-8", newline="") as file:
        filled = csv.DictWriter(file, rows[0].keys())
        filled.writeheader()
        filled.writerows(row | {"relevant": str(int(row["passage"] in right[row["query"]]))} for row in rows)
