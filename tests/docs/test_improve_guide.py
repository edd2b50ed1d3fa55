"""The guide to `improve` cannot lie: its commands run over the files of a traced application; a sheet proves."""

from __future__ import annotations

import csv
import json
import os
import subprocess

from pages import run_page
from paths import DOCS

PAGE = DOCS / "improve.md"


def test_its_commands_run_on_what_an_exporter_wrote_and_what_they_refuse_a_person_can_judge(traced, onnx_minilm):
    run_page(PAGE, traced, model=onnx_minilm)
    by_log, by_judged = (json.loads((traced / out / "improve.json").read_text()) for out in ("better", "judged"))
    assert by_log["decided_by"] == "the last sessions of the log" and by_log["rules"].keys() == {"supported"}
    assert by_judged["decided_by"] == "queries that were given" and by_judged["trained"]
    # so few queries prove nothing
    assert not by_log["promotable"] and by_log["trained"] and by_log["sheet"]
    sheet = traced / "better" / by_log["sheet"]
    with sheet.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with sheet.open("w", encoding="utf-8", newline="") as file:
        filled = csv.DictWriter(file, rows[0].keys())
        filled.writeheader()
        filled.writerows(row | {"relevant": str(number % 2)} for number, row in enumerate(rows))
    proved = subprocess.run(
        [traced / ".bin" / "embed-plus", "prove", "docs", "--model", "better/model", "--sheet", sheet],
        cwd=traced, env=os.environ | {"EMBED_PLUS_LOCATION": "qdrant"}, capture_output=True, text=True,
    )  # fmt: skip
    assert "promoted: " in proved.stdout, proved.stderr
