"""`embed-plus improve` on a log that gives too little: the next step is what fits, and an exit code is no verdict."""

from __future__ import annotations

import json

import pytest
from command_line import error_line
from test_cli_improve import asked, improve, logged, model, next_of, report_of, searches, traced  # noqa: F401

from qdrant_tools.log import Answer, Verdict


def ways_of(folder):
    return [way["name"] for way in report_of(folder)["ways"]]


def answered(asked, text="It says nothing of the kind.", liked=True, **changed):  # noqa: F811
    """The same searches with another answer."""
    for number, one in enumerate(searches(asked)):
        said = (Verdict("thumb", float(liked), one.at, name="user_feedback", who=f"u{number}"),)
        yield one.__class__(**{**one.__dict__, "answer": Answer(f"t{number}", text, verdicts=said, **changed)})


def test_where_nobody_said_anything_more_is_to_be_imported(improve, asked, tmp_path):  # noqa: F811
    code, out, err = improve("--log", logged(tmp_path / "log.sqlite", searches(asked, answer=None)))
    assert code == 0 and "nobody said anything of 40 searches" in out
    assert next_of(err)[:4] == ["log", "import", str(tmp_path / "log.sqlite"), "FILES..."]
    assert ways_of(tmp_path / "better") == ["feedback", "documents"]


def test_files_without_annotations_ask_for_them(improve, asked, tmp_path):  # noqa: F811
    spans, annotations = traced(asked, tmp_path)
    code, _, err = improve("--traces", spans)
    command = next_of(err)
    assert code == 0 and command[-2:] == ["--annotations", "ANNOTATIONS.csv"]
    *rest, out, folder, location, place, named, weights = command[1:-2]
    assert improve(*rest[1:], "--annotations", annotations)[0] == 0
    assert report_of(tmp_path / "better")["trained"] and (out, location, named) == ("--out", "--location", "--model")


def test_thumbs_down_are_no_labels_and_their_questions_are_listed(run, improve, asked, tmp_path):  # noqa: F811
    code, _, err = improve("--log", logged(tmp_path / "log.sqlite", answered(asked, liked=False)))
    assert code == 0 and ways_of(tmp_path / "better") == ["unanswered", "feedback", "documents"]
    assert "40 thumbs down are no labels" in err
    assert run(*next_of(err))[0] == 0
    assert len((tmp_path / "unanswered.jsonl").read_text().splitlines()) == 40


def test_answers_of_several_searches_are_taken_by_an_option_that_is_named(run, improve, asked, tmp_path):  # noqa: F811
    rows = [
        one.__class__(**{**one.__dict__, "answer": one.answer.__class__(**{**one.answer.__dict__, "searches": 2})})
        for one in searches(asked)
    ]
    code, _, err = improve("--log", logged(tmp_path / "log.sqlite", rows))
    assert code == 0 and ways_of(tmp_path / "better")[0] == "ambiguous"
    assert "40 answers were made of several searches" in err and next_of(err)[-1] == "--ambiguous"
    assert run(*next_of(err))[0] == 0
    assert report_of(tmp_path / "better")["trained"]


def test_answers_in_words_of_their_own_are_compared_by_the_encoder(run, improve, asked, tmp_path):  # noqa: F811
    code, _, err = improve("--log", logged(tmp_path / "log.sqlite", answered(asked)))
    assert code == 0 and ways_of(tmp_path / "better")[0] == "support"
    assert next_of(err)[-2:] == ["--support", "encoder"]
    assert run(*next_of(err))[0] == 0
    assert "support" not in ways_of(tmp_path / "better")


def test_ids_of_another_index_lead_to_a_match_by_text(run, improve, asked, tmp_path):  # noqa: F811
    spans, annotations = traced(asked, tmp_path, named=lambda hit: f"node-{hit.id}")
    code, _, err = improve("--traces", spans, "--annotations", annotations)
    assert code == 0 and ways_of(tmp_path / "better")[0] == "match"
    assert next_of(err)[-2:] == ["--match", "text"]


def test_a_few_thumbs_say_how_many_there_are_of_how_many_answers(improve, asked, tmp_path):  # noqa: F811
    rows = [*list(searches(asked))[:10], *list(searches(asked, answer=None))[10:]]
    code, out, err = improve("--log", logged(tmp_path / "log.sqlite", rows))
    assert code == 0 and "8 queries have a label to train on, expected at least 20" in out
    assert "at this rate (10 thumbs on 10 answers) about 60 more searches give as many" in out
    assert "synthesize docs" in err and next_of(err)[:2] == ["log", "import"]


def test_the_exit_code_is_0_whatever_the_verdict_and_1_and_2_for_errors(improve, asked, tmp_path):  # noqa: F811
    log = logged(tmp_path / "log.sqlite", searches(asked))
    assert improve("--log", log, "--json")[0] == 0 and report_of(tmp_path / "better")["promotable"] is False
    (tmp_path / "cut.jsonl").write_text('{"name": "retrieve", "conte')
    code, _, err = improve("--traces", "cut.jsonl", out="cut")
    assert code == 1 and "cut.jsonl" in error_line(err)
    code, _, err = improve("--log", log, "--heldout-share", "2", out="odd")
    assert code == 2 and "heldout_share" in error_line(err)


def test_the_help_names_the_exit_codes(run):
    code, out, _ = run("improve", "--help")
    assert code == 0 and "Exit code 0 whatever the verdict" in " ".join(out.split())


@pytest.mark.parametrize("clicked", [False, True])
def test_a_log_that_is_one_session_asks_for_judged_queries(improve, asked, tmp_path, clicked):  # noqa: F811
    rows = searches(asked, session="default", **({"user": "owner"} if clicked else {}))
    code, _, err = improve("--log", logged(tmp_path / "log.sqlite", rows))
    assert code == 0 and next_of(err)[-4:] == ["--queries", "QUERIES.jsonl", "--qrels", "QRELS.tsv"]
    assert json.loads((tmp_path / "better" / "improve.json").read_text())["ways"] == []
