"""From a log to audited negatives on the command line: results on stdout, one line for an error."""

from __future__ import annotations

import csv
import json
import re
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from command_line import error_line
from models import SENTENCE, save_cross_encoder, save_model
from sentence_transformers import CrossEncoder

from llama_index_embed_plus import open_encoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import point_id
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import RetrievalLog
from qdrant_tools.records import Hit, Passage
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.dense import search

WORDS = SENTENCE.split()[6:26]


@pytest.fixture
def log(tmp_path):
    """Three searches: one clicked and read, one old and long, one whose answer somebody named."""
    now = datetime.now(UTC)
    hits = [Hit("a", 0.9, 1), Hit("b", 0.8, 2)]
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        log.record("x" * 10_000, hits, collection="docs", space="s", at=now - timedelta(days=100))
        clicked = log.record("green tea", hits, collection="docs", space="s", at=now)
        log.feedback(clicked, "b", "click", at=now)
        log.feedback(clicked, "b", "dwell", 31.5, at=now)
        named = log.record("[red] tea", [], collection="other", space="s", at=now)
        log.feedback(named, "c", "rating", 2, at=now)
    return tmp_path / "log.sqlite"


def test_show_prints_the_latest_searches_and_what_was_done(run, log):
    code, out, _ = run("log", "show", log, "-n", 2)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].endswith("green tea") and lines[3].endswith("[red] tea")
    assert [line.split() for line in lines[1:3]] == [
        ["1", "0.900", "a"],
        ["2", "0.800", "b", "click,", "dwell", "31.5"],
    ]
    assert lines[4].split() == ["-", "c", "rating", "2", "(not", "shown)"]
    code, out, _ = run("log", "show", log, "--collection", "docs", "--json")
    assert [json.loads(line)["query"][:5] for line in out.splitlines()] == ["xxxxx", "green"]


def test_a_query_of_any_length_is_one_line(run, log):
    _, out, _ = run("log", "show", log, "--collection", "docs")
    assert out.splitlines()[0].endswith("xxx...") and max(map(len, out.splitlines())) < 130


def test_stats_print_the_counts_and_the_clicks_by_rank(run, log):
    code, out, _ = run("log", "stats", log)
    assert code == 0
    lines = {" ".join(line.split()) for line in out.splitlines()}
    assert {"searches 3", "without feedback 1", "without a click 2", "of that, on not shown 1"} <= lines
    assert "collections docs 2, other 1" in lines and "most frequent queries without a click" in lines
    assert ["2", "2", "1", "50.0%"] in [line.replace("│", " ").split() for line in out.splitlines()]
    row = json.loads(run("log", "stats", log, "--json")[1])
    assert row["clicks_by_rank"] == {"2": 1} and row["feedback"] == {"click": 1, "dwell": 1, "rating": 1}


def test_what_is_exported_can_be_imported_and_twice_is_once(run, log, tmp_path):
    assert run("log", "export", log, "--out", "out.jsonl")[1] == "wrote 3 searches to out.jsonl\n"
    assert run("log", "import", "new.sqlite", "out.jsonl")[1] == "new.sqlite: 3 searches added, 3 in all\n"
    assert run("log", "import", "new.sqlite", "out.jsonl")[1] == "new.sqlite: 0 searches added, 3 in all\n"


def test_another_systems_log_is_imported_by_its_columns(run, tmp_path):
    (tmp_path / "theirs.csv").write_text("session,q,doc,clicked,label\ns1,tea,a,f,0\ns1,tea,b,t,1\n")
    columns = {"query": "q", "session": "session", "hit": "doc", "feedback": {"click": "clicked"}}
    (tmp_path / "columns.json").write_text(json.dumps(columns))
    for given in (json.dumps(columns), "columns.json"):
        code, out, err = run("log", "import", "log.sqlite", "theirs.csv", "--columns", given)
        assert code == 0 and "theirs.csv: not read: label; of these, label may say what users did or saw" in out
        assert "not read" not in err, "said once"
    (row,) = map(json.loads, run("log", "show", "log.sqlite", "--json")[1].splitlines())
    assert [hit["id"] for hit in row["hits"]] == ["a", "b"] and row["feedback"][0]["id"] == "b"
    assert row["session"] == "s1" and json.loads(run("log", "stats", "log.sqlite", "--json")[1])["sessions"] == 1


def test_a_finetuning_data_set_of_llama_index_is_imported(run, tmp_path):
    data = {"queries": {"q": "tea?"}, "corpus": {"a": "Tea."}, "relevant_docs": {"q": ["a"]}, "mode": "text"}
    (tmp_path / "qa.json").write_text(json.dumps(data))
    assert run("log", "import", "log.sqlite", "qa.json")[0] == 0
    (row,) = map(json.loads, run("log", "show", "log.sqlite", "--json")[1].splitlines())
    assert row["query"] == "tea?" and row["feedback"][0] | {"at": ""} == {
        "id": "a",
        "kind": "rating",
        "value": 1.0,
        "at": "",
    }


def test_old_searches_are_forgotten_and_texts_taken_out(run, log):
    assert run("log", "redact", log, "--secret", "0123456789abcdef", "--days", 30)[1] == "1 queries redacted\n"
    assert run("log", "forget", log, "--days", 30)[1] == "1 searches deleted, 2 left\n"
    assert run("log", "redact", log)[1] == "2 queries redacted\n"
    assert b"green tea" not in log.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "typo.sqlite"], 1, "no retrieval log typo.sqlite"),
        (["stats", "notes.txt"], 1, "cannot open the retrieval log notes.txt"),
        (["import", "new.sqlite", "typo.jsonl"], 1, "cannot read typo.jsonl"),
        (["import", "new.sqlite", "theirs.csv"], 2, "say which of its columns is what"),
        (["import", "new.sqlite", "theirs.csv", "--columns", '{"q": "x"}'], 2, "the columns have ['q']"),
        (["import", "new.sqlite", "theirs.csv", "--columns", "typo.json"], 2, "the columns are 'typo.json'"),
        (["import", "new.sqlite", "theirs.csv", "--columns", '{"query": "q"}'], 1, "needs `search`"),
        (["redact", "log.sqlite", "--secret", "short"], 1, "at least 16"),
        (["stats", "."], 1, "is a folder, expected the file of a retrieval log in it"),
        (["forget", "log.sqlite", "--days", "1e9"], 2, "--days is 1e+09"),
        (["forget", "log.sqlite", "--days", "nan"], 2, "Invalid value for '--days'"),
    ],
)
def test_mistakes_are_one_line(run, log, tmp_path, arguments, code, message):
    (tmp_path / "notes.txt").write_text("these are my notes " * 100)
    (tmp_path / "theirs.csv").write_text("q\nx\n")
    found, _, err = run("log", *arguments)
    assert (found, message in error_line(err)) == (code, True), err
    assert not (tmp_path / "typo.sqlite").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_model(folder)
    return folder


@pytest.fixture
def searched(model, tmp_path):
    """A collection of 60 short passages, and a log of 12 searches in it, each with a click on its third hit."""
    encoder = open_encoder(model, device="cpu")
    texts = [f"{a} {b} {c}" for a, b, c in zip(WORDS * 3, WORDS[1:] * 4, WORDS[5:] * 4)][:60]
    with closing(connect(tmp_path / "data")) as client, RetrievalLog(tmp_path / "log.sqlite") as log:
        hybrid = CollectionSettings(lexical=Bm25())
        collection = CollectionManager(client).ensure("docs", encoder, settings=hybrid)
        index_passages(collection, [Passage(f"p{i}", text) for i, text in enumerate(dict.fromkeys(texts))], encoder)
        for text in texts[:12]:
            hits = search(collection, text, encoder, k=5)
            search_id = log.record(text, hits, collection="docs", space=encoder.space)
            log.feedback(search_id, hits[2].id, "click")
    return ["--location", "data", "--model", model]


OPEN = ["--max-share", 1.0]


def test_a_log_becomes_examples_and_the_same_command_goes_on(run, searched, tmp_path):
    code, out, err = run("mine", "docs", "log.sqlite", "--out", "mined.jsonl", *OPEN, "--depth", 20, *searched)
    assert code == 0, err
    assert out.startswith("wrote mined.jsonl: 12 examples with ") and "from 12 queries" in out
    rows = [json.loads(line) for line in (tmp_path / "mined.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and all(row["positives"] for row in rows)
    before = (tmp_path / "mined.jsonl").read_bytes()
    assert run("mine", "docs", "log.sqlite", "--out", "mined.jsonl", *OPEN, "--depth", 20, *searched)[0] == 0
    assert (tmp_path / "mined.jsonl").read_bytes() == before
    code, _, err = run("mine", "docs", "log.sqlite", "--out", "mined.jsonl", *OPEN, "--seed", 1, *searched)
    assert code == 2 and "was begun with other labels" in error_line(err)


@pytest.mark.parametrize("rule", ["skip-above", "last-click", "next", "propensity"])
def test_every_rule_that_clicks_feed_gives_labels(run, searched, rule):
    code, out, err = run("mine", "docs", "log.sqlite", "--out", f"{rule}.jsonl", "--rule", rule, *OPEN, *searched)
    assert code == 0 and "examples with" in out, err


def test_how_careful_to_be_can_be_calibrated(run, searched):
    code, out, _ = run("mine", "docs", "log.sqlite", "--out", "mined.jsonl", "--calibrate", *searched)
    assert code == 0 and out.startswith("calibrated (distribution, 12 queries): margin ")
    assert re.search(
        r"^  \d+ candidates per query; the last negative of an example stands at rank \d+ in the", out, re.M
    )


@pytest.mark.parametrize("source", ["dense", "lexical", "both"])
def test_mining_says_how_many_candidates_there_were_and_how_deep_it_drew(run, searched, tmp_path, source):
    asked = ["--source", source, "--depth", 15, "--sampling", "top", *OPEN, "--duplicate-similarity", 1.0]
    code, out, err = run("mine", "docs", "log.sqlite", "--out", f"{source}.jsonl", *asked, *searched)
    assert code == 0, err
    found = re.search(
        r"^  (\d+) candidates per query; the last negative .* stands at rank (\d+) in the mean", out, re.M
    )
    candidates, rank = map(int, found.groups())
    assert candidates <= 15 and (source == "lexical" or candidates == 15), "words find no more than have one in common"
    assert 4 <= rank <= candidates


def test_the_audit_is_printed_and_written_as_json_and_as_a_page(run, searched, tmp_path):
    run("mine", "docs", "log.sqlite", "--out", "mined.jsonl", *OPEN, *searched)
    rows = [json.loads(line) for line in (tmp_path / "mined.jsonl").read_text().splitlines()]
    code, out, err = run("audit", "mined.jsonl", "--write-sheet", "sheet.csv")
    assert code == 0 and "nobody said which negatives are answers" in out, err
    assert out.splitlines()[-1] == "wrote mined.audit.json, sheet.csv, mined.audit.png"
    assert err.splitlines()[-1] == "next: embed-plus audit mined.jsonl --sheet sheet.csv --overwrite"
    assert (tmp_path / "mined.audit.png").read_bytes().startswith(b"\x89PNG")
    first = rows[0]
    with (tmp_path / "queries.jsonl").open("w") as file:
        file.write(json.dumps({"_id": "q1", "text": first["query"]}))
    judged = [("q1", first["negatives"][0]["id"], 1), ("q1", first["negatives"][1]["id"], 0), ("q9", "p1", 1)]
    with (tmp_path / "qrels.tsv").open("w") as file:
        csv.writer(file, delimiter="\t").writerows([("query-id", "corpus-id", "score"), *judged])
    sheet = (tmp_path / "sheet.csv").read_text().splitlines()
    (tmp_path / "sheet.csv").write_text("\n".join([sheet[0], sheet[1] + "1", *(line + "0" for line in sheet[2:])]))
    arguments = [
        "--qrels",
        "qrels.tsv",
        "--queries",
        "queries.jsonl",
        "--sheet",
        "sheet.csv",
        "--no-plot",
        "--overwrite",
    ]
    code, out, err = run("audit", "mined.jsonl", *arguments)
    assert code == 0, err
    assert "1 of 2 negatives are answers by judgements" in out
    assert f"1 of {len(sheet) - 1} negatives are answers by sheet" in out
    found = json.loads((tmp_path / "mined.audit.json").read_text())
    assert found["examples"] == 12 and found["removed"]["known_positive"] >= 12 and found["histograms"]["negatives"]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """The folder of a real cross-encoder with random weights, and a threshold that about half of all pairs reach."""
    folder = save_cross_encoder(tmp_path_factory.mktemp("judge") / "tiny")
    scores = CrossEncoder(str(folder), device="cpu").predict([(a, b) for a in WORDS[:6] for b in WORDS])
    return folder, float(np.median(scores))


def test_a_cross_encoder_judges_what_is_mined_and_what_was_mined(run, searched, judge, tmp_path):
    folder, threshold = judge
    asked = ["--judge", folder, "--threshold", threshold]
    code, out, err = run("mine", "docs", "log.sqlite", "--out", "judged.jsonl", *OPEN, "--depth", 12, *asked, *searched)
    assert code == 0 and "judged_relevant" in out, err
    code, out, err = run("audit", "judged.jsonl", "--no-plot", *asked)
    assert code == 0 and " negatives are answers by judge (0.0%" in out, err
    run("mine", "docs", "log.sqlite", "--out", "all.jsonl", *OPEN, "--depth", 12, *searched)
    code, out, _ = run("audit", "all.jsonl", "--no-plot", *asked)
    assert code == 0 and " negatives are answers by judge (0.0%" not in out
    code, _, err = run("mine", "docs", "log.sqlite", "--out", "all.jsonl", *OPEN, "--depth", 12, *asked, *searched)
    assert code == 2 and "was begun with other labels, settings, judge" in err.splitlines()[-1]
    code, _, err = run(
        "mine", "docs", "log.sqlite", "--out", "more.jsonl", *OPEN, "--depth", 12, *asked, "--promote", *searched
    )
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "more.jsonl").read_text().splitlines()]
    assert max(len(row["positives"]) for row in rows) > 1, "what the judge finds becomes a positive"
    code, _, err = run("mine", "docs", "log.sqlite", "--out", "x.jsonl", "--promote", *searched)
    assert code == 2 and "give --judge too" in error_line(err)


def test_every_rule_of_mining_can_be_set(run, searched, tmp_path):
    rules = ["--margin", 0.01, "--several", "each", "--skip", 1, "--minimum", 2, "--negatives", 2]
    rules += ["--duplicate-similarity", 0.999, "--document-key", "source", "--sampling", "random", "--seed", 3]
    code, out, err = run("mine", "docs", "log.sqlite", "--out", "mined.jsonl", *OPEN, *rules, *searched)
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "mined.jsonl").read_text().splitlines()]
    assert rows and all(len(row["negatives"]) == 2 for row in rows)
    assert "skipped" in out and "close_to_positive" in out


def test_a_messy_log_is_mined_and_what_it_lacks_is_counted(run, searched, tmp_path):
    """Unknown ids, deleted points, feedback twice, a clock that jumps, a huge query, redaction, another space."""
    with closing(connect(tmp_path / "data")) as client:
        client.delete("docs", [point_id("p5")])
    encoder_space = "elsewhere@000000000000"
    now = datetime.now(UTC)
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        for number, (query, clicked) in enumerate(
            [
                ("red stone", "p5"),
                ("blue river", "never-indexed"),
                ("dog " * 2_600_000, "p7"),
                ("redacted:", "p8"),
                ("slow cat", "p9"),
            ]
        ):
            at = now - timedelta(days=10_000 * number)
            hits = [Hit(clicked, 0.5, 1), Hit("p3", 0.4, 2)]
            search_id = log.record(query, hits, collection="docs", space=encoder_space, at=at)
            for _ in range(2):
                log.feedback(search_id, clicked, "click", at=at)
    code, out, err = run("mine", "docs", "log.sqlite", "--out", "mined.jsonl", *OPEN, *searched)
    assert code == 0, err
    assert [line.split() for line in out.splitlines() if "unknown_positive" in line] == [["unknown_positive", "2"]]
    assert [line.split() for line in out.splitlines() if "redacted" in line] == [["redacted", "1"]]
    rows = [json.loads(line) for line in (tmp_path / "mined.jsonl").read_text().splitlines()]
    assert {row["query"][:8] for row in rows} >= {"dog dog ", "slow cat"} and all(row["positives"] for row in rows)


def test_what_cannot_be_mined_or_audited_is_one_line(run, searched, log, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "queries.jsonl").write_text('{"query": "Who?", "answer": "nobody"}\n')
    for arguments, code, message in [
        (["mine", "docs", "typo.sqlite", "--out", "x.jsonl"], 1, "no retrieval log typo.sqlite"),
        (["mine", "typo", "log.sqlite", "--out", "x.jsonl"], 1, "'typo'"),
        (["mine", "docs", "log.sqlite", "--out", "x.jsonl", "--negatives", 0], 1, "negatives is 0"),
        (["mine", "docs", "log.sqlite", "--out", "x.jsonl", "--judge", "no/judge/here"], 1, "no/judge/here"),
    ]:
        found, _, err = run(*arguments, *searched)
        assert (found, message in error_line(err)) == (code, True), err
    for arguments, code, message in [
        (["audit", "typo.jsonl"], 1, "typo.jsonl"),
        (["audit", "empty.jsonl"], 1, "empty.jsonl holds no examples, expected what `embed-plus mine` wrote"),
        (["audit", "queries.jsonl"], 1, "queries.jsonl: example 1 ('Who?') has neither positives nor negatives"),
        (["log", "stats", "."], 1, "is a folder, expected the file of a retrieval log in it"),
        (["audit", "x.jsonl", "--qrels", "q.tsv"], 2, "--qrels and --queries go together"),
    ]:
        found, _, err = run(*arguments)
        assert (found, message in error_line(err)) == (code, True), err
    assert not (tmp_path / "x.jsonl").exists() and not (tmp_path / "typo.audit.json").exists()


def test_a_log_without_what_the_rule_needs_is_one_line(run, searched, tmp_path):
    code, _, err = run("mine", "docs", "log.sqlite", "--out", "x.jsonl", "--rule", "rated", *searched)
    assert code == 2 and "the rule 'rated' finds no positive" in error_line(err)
    with RetrievalLog(tmp_path / "other.sqlite") as other:
        other.record("q", [], collection="elsewhere", space="s")
    code, _, err = run("mine", "docs", "other.sqlite", "--out", "x.jsonl", *searched)
    assert code == 2 and "no searches in 'docs', but in elsewhere" in error_line(err)


def test_ratings_have_a_scale_that_is_given_and_never_cut(run, searched, tmp_path):
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        for number, found in enumerate(list(log.searches())):
            log.feedback(found.id, found.hits[0].id, "rating", 5.0 if number else 1.0)
    rated = ["mine", "docs", "log.sqlite", "--out", "rated.jsonl", *OPEN, "--rule", "rated", *searched]
    code, _, err = run(*rated)
    assert code == 1 and "has the rating 1 " not in err and "above the top of the scale, 1: give" in error_line(err)
    code, _, err = run(*rated, "--top", 5)
    assert code == 1 and "go from 1 to 5, and none is 0" in error_line(err) and "--relevant-from" in err
    code, out, err = run(*rated, "--top", 5, "--relevant-from", 4)
    assert code == 0 and "from 11 queries" in out, err
    code, _, err = run("mine", "docs", "log.sqlite", "--out", "x.jsonl", "--top", 5, *searched)
    assert code == 2 and "--rule click looks at none" in error_line(err)
