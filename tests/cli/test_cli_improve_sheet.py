"""A person fills in the sheet that `embed-plus improve` drew, and it decides: by the command that was printed."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from command_line import error_line
from test_cli_improve import (  # noqa: F401
    ASKED,
    QUERIES,
    asked,
    improve,
    logged,
    model,
    next_of,
    partly_said,
    report_of,
    searches,
)


@pytest.fixture
def drawn(improve, asked, tmp_path):  # noqa: F811
    """A model that its log could not prove, and what was printed; returns the folder and the command that leads on."""
    log = logged(tmp_path / "log.sqlite", partly_said(asked))
    code, _, err = improve("--log", log, "--heldout-share", "0.3", "--shared-passages")
    assert code == 0, err
    return tmp_path / "better", next_of(err)


def fill(sheet, asked):  # noqa: F811
    """As somebody does who knows the answers: the passages that people liked."""
    _, shown, known, liked = asked
    right = {query: known[shown[query][place].id] for query, place in zip(QUERIES, liked, strict=True)}
    with sheet.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with sheet.open("w", encoding="utf-8", newline="") as file:
        filled = csv.DictWriter(file, rows[0].keys())
        filled.writeheader()
        filled.writerows(row | {"relevant": str(int(right[row["query"]] == row["passage"]))} for row in rows)
    return rows


def test_a_filled_sheet_decides_by_the_command_that_was_printed(run, asked, drawn):  # noqa: F811
    folder, command = drawn
    before = report_of(folder)
    rows = fill(folder / before["sheet"], asked)
    code, out, err = run(*command)
    assert code == 0, err
    after = report_of(folder)
    assert after["decided_by"] == "the last sessions of the log, of which a person judged passages"
    assert after["decide_queries"] == before["sheet_questions"] > before["decide_queries"]
    assert "of which a sample of passages was judged" in after["verdict"] and after["verdict"] in out
    assert next_of(err)[:4] == ["log", "import", str(folder.parent / "log.sqlite"), "FILES..."] or after["promotable"]
    assert len(rows) == before["sheet_rows"] and "of the judged passages that it ranks higher" in out
    proof = json.loads((folder / "model" / "train_report.json").read_text())["proof"]
    assert proof["evidence"] == "sample" and proof["queries"] == after["decide_queries"]


def test_its_verdict_is_that_of_prove_and_stays_when_improve_runs_again(run, asked, drawn, tmp_path):  # noqa: F811
    folder, command = drawn
    sheet = folder / report_of(folder)["sheet"]
    fill(sheet, asked)
    shutil.copytree(folder / "model", tmp_path / "model")
    location = command[command.index("--location") + 1]
    code, out, err = run("prove", "docs", "--model", "model", "--sheet", sheet, "--location", location)
    assert code == 0, err
    assert run(*command)[0] == 0
    judged = report_of(folder)
    assert judged["verdict"] in out
    assert run(*command[:-2])[0] == 0
    again = report_of(folder)
    assert (again["verdict"], again["decided_by"]) == (judged["verdict"], judged["decided_by"])


def test_a_sheet_trains_nothing_and_is_about_no_other_model(run, asked, drawn, tmp_path):  # noqa: F811
    folder, command = drawn
    sheet, model_of = folder / report_of(folder)["sheet"], folder / "model" / "train_report.json"
    fill(sheet, asked)
    written = model_of.read_bytes(), (folder / "examples.jsonl").read_bytes()
    code, _, err = run(*command, "--seed", "7")
    assert code == 2 and "cannot be about the model of this log and these settings" in error_line(err)
    more = [*searches(asked)][ASKED // 2 :: 4]
    logged(tmp_path / "log.sqlite", [one.__class__(**{**one.__dict__, "id": f"more {one.id}"}) for one in more])
    code, _, err = run(*command)
    assert code == 2 and "leave the sheet out to make that" in error_line(err)
    assert (model_of.read_bytes(), (folder / "examples.jsonl").read_bytes()) == written
    assert not (folder / "improve.json").exists()


def test_a_sheet_that_nobody_filled_in_decides_nothing(run, drawn):
    folder, command = drawn
    code, _, err = run(*command)
    assert code == 1 and "expected at least 10" in error_line(err)
    assert json.loads((folder / "model" / "train_report.json").read_text())["proof"]["evidence"] == "answers"
