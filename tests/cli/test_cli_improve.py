"""`embed-plus improve`: from a log, or traces and annotations, to a model, a verdict and the command that leads on."""

from __future__ import annotations

import csv
import json
import shlex
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from command_line import error_line
from tiny_words import SENTENCE

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.training.adapter.unlabelled import whitening
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import Answer, Feedback, LoggedHit, LoggedSearch, RetrievalLog, Verdict
from qdrant_tools.records import Passage
from qdrant_tools.search.dense import search
from qdrant_tools.validation import unit_rows

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
WORDS = SENTENCE.split()
ASKED = 40
QUERIES = [f"{WORDS[i % len(WORDS)]} {WORDS[(i * 3 + 1) % len(WORDS)]} question{i}" for i in range(ASKED)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny ONNX artifact: nothing that opens it imports torch, nor does a program that imports this module."""
    from models import save_model

    folder = tmp_path_factory.mktemp("tiny")
    save_model(folder / "weights")
    export_onnx(folder / "weights", folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def asked(model, tmp_path_factory):
    """A collection, what a search for each query shows, and which hit people like: the one that would be the first if
    passages did not lie alike in some directions. Every passage has words of its own."""
    folder = tmp_path_factory.mktemp("asked")
    encoder = open_encoder(model, device="cpu")
    passages = [
        Passage(f"p{i}", f"{WORDS[i % len(WORDS)]} {WORDS[(i * 7) % len(WORDS)]} alpha{i} bravo{i} delta{i} gamma{i}")
        for i in range(2 * ASKED)
    ]
    known = {passage.id: passage.text for passage in passages}
    with closing(connect(folder / "data")) as client:
        collection = CollectionManager(client).ensure("docs", encoder)
        index_passages(collection, passages, encoder)
        shown = {query: search(collection, query, encoder, k=4) for query in QUERIES}
    vectors = encoder.encode_passages(list(known.values()))
    row = {name: number for number, name in enumerate(known)}
    flat = unit_rows(encoder.encode_queries(QUERIES) @ whitening(vectors, strength=1.0, floor=0.3)) @ vectors.T
    liked = [
        max(range(4), key=lambda place: flat[number, row[shown[query][place].id]])
        for number, query in enumerate(QUERIES)
    ]
    return folder / "data", shown, known, liked


@pytest.fixture
def improve(run, asked, model, tmp_path):
    """Run the command on the collection; returns exit code, stdout and stderr."""

    def improve(*arguments, out="better"):
        return run("improve", "docs", *arguments, "--out", out, "--location", asked[0], "--model", model)

    return improve


def searches(asked, liked=lambda number: True, place=lambda number: number % 4, **changed):
    """One search per query and minute; its answer has the words of one of its hits, another one each time."""
    _, shown, known, _ = asked
    for number, query in enumerate(QUERIES):
        at = NOON + timedelta(minutes=number)
        hits = shown[query]
        said = (Verdict("thumb", float(liked(number)), at, name="user_feedback", who=f"u{number}"),)
        answer = Answer(f"t{number}", f"It says: {known[hits[place(number)].id]}", verdicts=said)
        listed = tuple(LoggedHit(hit.id, hit.rank, hit.score) for hit in hits)
        values = {"session": f"session {number // 2}", "answer": answer} | changed
        yield LoggedSearch(f"s{number}", at, query, "docs", "", listed, **values)


def partly_said(asked):
    """Of the later half, every fourth answer got no thumb; something is to be learnt of the others."""
    silent = {search.id: search for search in searches(asked, answer=None)}
    for number, search_ in enumerate(searches(asked, place=asked[3].__getitem__)):
        yield silent[search_.id] if number >= ASKED // 2 and number % 4 == 0 else search_


def logged(path, rows):
    with RetrievalLog(path) as log:
        log.extend(rows)
    return path


def report_of(folder):
    return json.loads((folder / "improve.json").read_text())


def next_of(err):
    """The words of the command that leads on."""
    (line,) = [line for line in err.splitlines() if line.startswith("next: ")]
    return shlex.split(line.removeprefix("next: embed-plus "))


def test_liked_answers_become_a_model_with_a_verdict_and_what_was_not_learnt_from_is_said(improve, asked, tmp_path):
    log = logged(tmp_path / "log.sqlite", searches(asked, liked=lambda number: number % 8 != 7))
    code, out, err = improve("--log", log)
    assert code == 0, err
    report = report_of(tmp_path / "better")
    assert (tmp_path / "better" / "model" / "train_report.json").is_file()
    assert report["said"] == {"thumb up": 35, "thumb down": 5} and report["rules"].keys() == {"supported"}
    assert f"learnt: {report['train_queries']} queries with a label" in out
    assert "weight 0.8 (a guess, log audit measures it)" in out and "thumb down" in out
    assert not report["promotable"] and "not to be promoted" in out


def test_the_last_sessions_decide_and_no_session_lies_on_both_sides(improve, asked, tmp_path):
    log = logged(tmp_path / "log.sqlite", searches(asked))
    code, _, err = improve("--log", log, "--heldout-share", "0.25", "--json")
    assert code == 0, err
    report = report_of(tmp_path / "better")
    assert report["decided_by"] == "the last sessions of the log" and report["decide_queries"] == 10
    assert report["since"] == (NOON + timedelta(minutes=30)).isoformat()
    trained = (tmp_path / "better" / "examples.jsonl").read_text().splitlines()
    assert {json.loads(row)["query"] for row in trained} <= set(QUERIES[:30])


def test_too_few_queries_that_decide_are_never_a_proof(improve, asked, tmp_path):
    code, out, err = improve("--log", logged(tmp_path / "log.sqlite", searches(asked)))
    assert code == 0, err
    assert "are too few to exclude harm, expected at least 20" in out and "promote run" not in err


def test_where_the_log_proves_nothing_passages_of_all_later_questions_are_drawn_for_a_person(improve, asked, tmp_path):
    log = logged(tmp_path / "log.sqlite", partly_said(asked))
    code, _, err = improve("--log", log, "--heldout-share", "0.3", "--shared-passages")
    assert code == 0, err
    report, folder = report_of(tmp_path / "better"), tmp_path / "better"
    sheet = folder / report["sheet"]
    assert next_of(err)[-2:] == ["--sheet", f"better/{report['sheet']}"]
    with sheet.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == report["sheet_rows"] > 0 and {row["relevant"] for row in rows} == {""}
    # those of whose answers nobody said anything are asked about too
    assert report["sheet_questions"] > report["decide_queries"]


def test_a_second_run_trains_nothing_doubles_nothing_and_leaves_a_sheet_that_somebody_fills_in(
    improve, asked, tmp_path
):
    log = logged(tmp_path / "log.sqlite", partly_said(asked))
    improve("--log", log, "--heldout-share", "0.3", "--shared-passages")
    first, folder = report_of(tmp_path / "better"), tmp_path / "better"
    model, sheet = (folder / "model" / "train_report.json"), folder / first["sheet"]
    written = model.stat().st_mtime_ns, (folder / "examples.jsonl").read_bytes()
    sheet.write_text(sheet.read_text().replace(",\r\n", ",1\r\n"))
    filled = sheet.read_bytes()
    code, _, err = improve("--log", log, "--heldout-share", "0.3", "--shared-passages")
    assert code == 0, err
    assert (model.stat().st_mtime_ns, (folder / "examples.jsonl").read_bytes()) == written
    assert sheet.read_bytes() == filled
    second = report_of(folder)
    assert {**second, "sheet_rows": 0, "sheet_questions": 0} == {**first, "sheet_rows": 0, "sheet_questions": 0}


def test_more_searches_are_learnt_from_anew_in_the_same_folder(improve, asked, tmp_path):
    found = list(searches(asked))
    log = logged(tmp_path / "log.sqlite", found[:30])
    assert improve("--log", log)[0] == 0
    before = report_of(tmp_path / "better")
    logged(log, found)
    code, _, err = improve("--log", log)
    assert code == 0, err
    after = report_of(tmp_path / "better")
    assert after["train_queries"] > before["train_queries"] and after["sheet"] != before["sheet"]


def test_judged_queries_decide_instead_of_the_log_and_those_that_know_them_are_not_trained_on(improve, asked, tmp_path):
    log = logged(tmp_path / "log.sqlite", searches(asked))
    (tmp_path / "q.jsonl").write_text(json.dumps({"_id": "q", "text": QUERIES[0]}) + "\n")
    (tmp_path / "q.tsv").write_text("query-id\tcorpus-id\tscore\nq\tp1\t1\n")
    code, out, err = improve("--log", log, "--queries", "q.jsonl", "--qrels", "q.tsv")
    assert code == 0, err
    report = report_of(tmp_path / "better")
    assert (report["decided_by"], report["decide_queries"]) == ("queries that were given", 1)
    assert report["trained"]["data"]["leaks"] >= 1 and "know a query that decides, and were left out" in out


def test_clicks_are_learnt_from_where_nobody_thumbs(improve, asked, tmp_path):
    rows = []
    for search_ in searches(asked, answer=None):
        click = Feedback(search_.hits[1].id, "click", 1.0, search_.at)
        rows.append(LoggedSearch(search_.id, search_.at, search_.query, "docs", "", search_.hits, (click,)))
    code, out, err = improve("--log", logged(tmp_path / "log.sqlite", rows))
    assert code == 0, err
    report = report_of(tmp_path / "better")
    assert report["rules"].keys() == {"click"} and "no answer" not in report["refused"]


def test_a_person_who_says_no_is_not_overruled_by_a_click(improve, asked, tmp_path):
    rows = []
    for search_ in searches(asked, answer=None):
        events = tuple(Feedback(search_.hits[1].id, kind, 1.0, search_.at) for kind in ("click", "down"))
        rows.append(LoggedSearch(search_.id, search_.at, search_.query, "docs", "", search_.hits, events))
    code, _, err = improve("--log", logged(tmp_path / "log.sqlite", rows))
    assert code == 0, err
    assert report_of(tmp_path / "better")["train_queries"] == 0


def test_a_log_of_which_nobody_said_anything_trains_nothing_and_says_what_is_missing(improve, asked, tmp_path):
    code, out, err = improve("--log", logged(tmp_path / "log.sqlite", searches(asked, answer=None)))
    assert code == 0, err
    assert "nobody said anything of 40 searches" in out and "not to be promoted" in out
    assert "synthesize docs" in err and not (tmp_path / "better" / "model").exists()


def test_a_log_that_is_one_session_says_that_it_cannot_be_parted(improve, asked, tmp_path):
    log = logged(tmp_path / "log.sqlite", searches(asked, session="default"))
    code, out, _ = improve("--log", log)
    assert "not to be promoted: nothing was trained: the first of 1 sessions has most of the labelled queries" in out
    assert code == 0 and not (tmp_path / "better" / "model").exists()


def test_a_few_thumbs_say_about_how_many_searches_are_missing(improve, asked, tmp_path):
    few = [search for number, search in enumerate(searches(asked)) if number < 10]
    rest = [search for number, search in enumerate(searches(asked, answer=None)) if number >= 10]
    code, out, err = improve("--log", logged(tmp_path / "log.sqlite", [*few, *rest]))
    assert code == 0, err
    assert "queries have a label to train on, expected at least 20" in out
    assert "more searches give as many" in out


def test_traces_and_annotations_are_learnt_from_in_one_command(improve, asked, tmp_path):
    spans, annotations = traced(asked, tmp_path)
    given = ("--traces", spans, "--annotations", annotations, "--thumb", "user_feedback")
    code, out, err = improve(*given)
    assert code == 0, err
    report = report_of(tmp_path / "better")
    assert report["searches"] == ASKED and report["said"]["thumb up"] == ASKED
    assert report["rules"].keys() == {"supported"} and report["trained"] is not None
    code, _, err = improve(*given)
    assert code == 0 and "0 searches added, 40 in all" in err


def test_an_annotation_that_comes_later_is_found_again(improve, asked, tmp_path):
    spans, annotations = traced(asked, tmp_path)
    code, out, err = improve("--traces", spans)
    assert code == 0 and "nobody said anything" in out, err
    code, out, err = improve("--traces", spans, "--annotations", annotations)
    assert code == 0, err
    assert report_of(tmp_path / "better")["said"]["thumb up"] == ASKED


def test_no_user_of_a_file_trains_and_decides(improve, asked, tmp_path):
    """Eight people come back all the time: those who came last decide, with all that they ever asked."""
    spans, annotations = traced(asked, tmp_path, user=lambda number: f"person {number // 2 % 8}@example.org")
    code, out, err = improve("--traces", spans, "--annotations", annotations, "--heldout-share", "0.2")
    assert code == 0, err
    report = report_of(tmp_path / "better")
    assert (report["users"], report["users_on_both_sides"], report["decide_queries"]) == (8, 0, 8)
    held_out = (tmp_path / "better" / "model" / "heldout" / "queries.jsonl").read_text().splitlines()
    trained = (tmp_path / "better" / "examples.jsonl").read_text().splitlines()
    people = [
        {QUERIES.index(json.loads(row)[name]) // 2 % 8 for row in rows}
        for name, rows in (("text", held_out), ("query", trained))
    ]
    assert people == [{6, 7}, {0, 1, 2, 3, 4, 5}] and "both sides" not in out
    assert "example.org" not in (tmp_path / "better" / "improve.json").read_text()


def test_a_user_who_is_the_whole_log_is_told(improve, asked, tmp_path):
    spans, annotations = traced(asked, tmp_path, user=lambda number: "owner")
    code, out, err = improve("--traces", spans, "--annotations", annotations, "--heldout-share", "0.25")
    assert code == 0, err
    assert "1 of 1 users stand on both sides" in out and report_of(tmp_path / "better")["decide_queries"] == 10


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "nothing says what to learn from"),
        (("--log", "log.sqlite", "--traces", "log.sqlite"), "--log is learnt from as it is"),
        (("--traces", "no.jsonl"), "there is no such file"),
        (("--log", "log.sqlite", "--queries", "q.jsonl"), "--queries and --qrels go together"),
        (("--log", "log.sqlite", "--thumb", "liked"), "say how files are read, and none is given"),
        (("--log", "log.sqlite", "--sheet", "no.csv"), "there is no such sheet"),
        (("--log", "log.sqlite", "--sheet", "s.csv", "--queries", "q", "--qrels", "q"), "--sheet decides by itself"),
        (("--log", "log.sqlite", "--heldout-share", "1"), "expected a share between 0 and 1"),
    ],
)
def test_what_cannot_be_honoured_is_one_line_before_anything_is_written(improve, asked, tmp_path, arguments, problem):
    logged(tmp_path / "log.sqlite", list(searches(asked))[:1])
    code, _, err = improve(*arguments)
    assert code in (1, 2) and problem in error_line(err)
    assert not (tmp_path / "better").exists()


def test_a_folder_of_something_else_is_not_written_into(improve, asked, tmp_path):
    log = logged(tmp_path / "log.sqlite", list(searches(asked))[:1])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    code, _, err = improve("--log", log, out="mine")
    assert code == 2 and "holds something else" in error_line(err)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def traced(
    asked,
    folder,
    *,
    named=lambda hit: hit.id,
    place=lambda number: number % 4,
    thumbed=lambda number: True,
    user=lambda number: f"u{number}",
):
    """The same searches as spans of OpenInference, two a trace, and thumbs as Phoenix exports them."""
    _, shown, known, _ = asked
    spans, thumbs = folder / "spans.jsonl", folder / "annotations.csv"
    with spans.open("w") as lines, thumbs.open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["span_id", "annotation_name", "annotator_kind", "identifier", "result.label", "result.score"])
        for number, query in enumerate(QUERIES):
            hits, at = shown[query], NOON + timedelta(minutes=number)
            listed = {
                f"retrieval.documents.{rank}.document.{name}": value
                for rank, hit in enumerate(hits)
                for name, value in (("id", named(hit)), ("content", known[hit.id]), ("score", float(hit.score)))
            }
            answer = f"It says: {known[hits[place(number)].id]}"
            root = {"openinference.span.kind": "CHAIN", "input.value": query, "output.value": answer}
            retriever = {"openinference.span.kind": "RETRIEVER", "input.value": query, **listed}
            for step, attributes in enumerate((root, retriever), start=1):
                row = {
                    "name": "query" if step == 1 else "retrieve",
                    "context": {"trace_id": f"0x{number + 1:032x}", "span_id": f"0x{2 * number + step:016x}"},
                    "parent_id": None if step == 1 else f"0x{2 * number + 1:016x}",
                    "start_time": at.isoformat(),
                    "end_time": at.isoformat(),
                    "status": {"status_code": "OK"},
                    "attributes": {**attributes, "session.id": f"session {number // 2}", "user.id": user(number)},
                    "resource": {"attributes": {"service.name": "app"}},
                }
                print(json.dumps(row), file=lines)
            if thumbed(number):
                rows.writerow([f"{2 * number + 1:016x}", "user_feedback", "HUMAN", f"u{number}", "thumbs-up", 1.0])
    return spans, thumbs
