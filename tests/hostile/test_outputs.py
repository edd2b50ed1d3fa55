"""What commands write: no file of the user is replaced unasked, none through a link, and none that others can read."""

from __future__ import annotations

import csv
import json
import os
import stat
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_arguments import Encoder, workplace  # noqa: F401
from texts import STEERING

from llama_index_embed_plus.evaluate.plots.pages import audit_page, score_histograms
from llama_index_embed_plus.evaluate.plots.style import finish, page
from llama_index_embed_plus.evaluate.retrieval.files import write_run
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.files.written import written_whole
from qdrant_tools.log import RetrievalLog
from qdrant_tools.mining.false_negatives import audit, inert, read_sheet, write_sheet
from qdrant_tools.mining.file import mine_to_jsonl, read_stats
from qdrant_tools.monitor.canary import write_canaries
from qdrant_tools.records import Example, Label, Passage, ScoredText

AUDIT = ["audit", "examples.jsonl"]
EVALUATE = ["evaluate", "--queries", "queries.jsonl", "--qrels", "qrels.tsv", "--run", "run.trec"]
MONITOR = ["monitor", "docs", "log.sqlite", "--location", "data", "--model", "no/such"]
FREEZE = ["canary", "freeze", "docs", "queries.jsonl", "--location", "data", "--model", "no/such"]
# command -> the file that it is to write; the check comes before the work, so that the model need not exist
OUTPUTS = {
    "audit --write-sheet": ([*AUDIT, "--write-sheet", "mine.csv"], "mine.csv"),
    "audit, its figures": (AUDIT, "examples.audit.json"),
    "audit, its page": (AUDIT, "examples.audit.png"),
    "evaluate --write-run": ([*EVALUATE, "--write-run", "mine.trec"], "mine.trec"),
    "evaluate --write-run, the other": (
        [*EVALUATE, "--write-run", "mine.trec", "--against", "run=run.trec"], "mine.against.trec",
    ),
    "evaluate --per-query": ([*EVALUATE, "--per-query", "mine.jsonl"], "mine.jsonl"),
    "evaluate --plot": ([*EVALUATE, "--plot", "mine.png"], "mine.png"),
    "tune --plot": (["tune", "docs", "--location", "data", "--plot", "mine.png"], "mine.png"),
    "log export": (["log", "export", "log.sqlite", "--out", "mine.jsonl"], "mine.jsonl"),
    "monitor --out": ([*MONITOR, "--out", "mine"], "mine.json"),
    "monitor, its page": ([*MONITOR, "--out", "mine"], "mine.png"),
    "canary freeze": (
        [*FREEZE, "--out", "mine.jsonl"],
        "mine.jsonl",
    ),
    "demo, its figures": (["demo", "--model", "no/such"], "demo-report.json"),
    "demo, its chart": (["demo", "--model", "no/such"], "demo-report.png"),
}  # fmt: skip


@pytest.fixture
def place(workplace):  # noqa: F811
    (workplace / "run.trec").write_text("q Q0 a 1 0.5 x\n")
    return workplace


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("existing", ["file", "link", "broken link", "folder"])
def test_what_is_there_is_not_replaced_unasked(run, place, outside, output, existing):
    arguments, name = OUTPUTS[output]
    path = place / name
    if existing == "file":
        path.write_text("the user's own")
    elif existing == "folder":
        path.mkdir()
    else:
        path.symlink_to(outside.secret if existing == "link" else outside.folder / "new")
    before = sorted(each.name for each in place.iterdir())
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
    assert name in err and ("--overwrite" in err or existing == "folder")
    assert sorted(each.name for each in place.iterdir()) == before
    assert path.is_dir() or path.is_symlink() or path.read_text() == "the user's own"


@pytest.mark.parametrize("output", ["audit --write-sheet", "audit, its page", "evaluate --write-run, the other",
    "evaluate --per-query", "evaluate --plot", "log export"])  # fmt: skip
def test_on_request_it_is_replaced_and_not_what_it_links_to(run, place, outside, output):
    arguments, name = OUTPUTS[output]
    (place / name).symlink_to(outside.secret)
    code, _, err = run(*arguments, "--overwrite")
    assert code == 0, err
    assert not (place / name).is_symlink()
    assert stat.S_IMODE((place / name).stat().st_mode) == 0o600
    assert run(*arguments, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    "name", ["/dev/null", "/dev/full", "/proc/self/fd/1", "/proc/self/x", ".", "/", "", "no/such/folder", "x" * 300]
)
def test_no_device_and_no_folder_is_replaced(run, place, name):
    for arguments in (
        ["log", "export", "log.sqlite", "--out", name],
        [*EVALUATE, "--plot", name],
        [*EVALUATE, "--write-run", name],
    ):
        for more in ([], ["--overwrite"]):
            code, _, err = run(*arguments, *more)
            assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_two_options_cannot_write_one_file(run, place):
    code, _, err = run(*EVALUATE, "--plot", "mine", "--per-query", "mine")
    assert code == 2 and "twice" in err


READ = {
    "examples": [*AUDIT, "--write-sheet", "examples.jsonl"],
    "a sheet": [*AUDIT, "--sheet", "queries.jsonl", "--write-sheet", "./queries.jsonl"],
    "a run": [*EVALUATE, "--write-run", "run.trec"],
    "the other run": [*EVALUATE, "--against", "run=linked.trec", "--write-run", "linked.trec"],
    "queries": [*EVALUATE, "--per-query", "queries.jsonl"],
    "judgements": [*EVALUATE, "--plot", "qrels.tsv"],
    "a log": ["log", "export", "log.sqlite", "--out", "log.sqlite"],
    "queries of canaries": [*FREEZE, "--out", "queries.jsonl"],
    "canaries": [*MONITOR, "--canaries", "queries.jsonl", "--out", "queries.jsonl.json"],
}


@pytest.mark.parametrize("args", READ.values(), ids=READ)
def test_no_command_replaces_what_it_reads(run, place, args):
    os.link(place / "run.trec", place / "linked.trec")
    os.link(place / "queries.jsonl", place / "queries.jsonl.json")
    before = {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()}
    code, out, err = run(*args, "--overwrite")
    assert (code, out, len(err.splitlines())) == (2, "", 1) and "another name" in err, err
    assert {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()} == before


def test_an_export_is_not_written_over_its_log(place):
    with RetrievalLog(place / "log.sqlite") as log, pytest.raises(UsageError, match="the retrieval log itself"):
        log.export_jsonl(place / "log.sqlite", overwrite=True)


def test_writers_keep_what_is_there_if_told_so(tmp_path):
    path = tmp_path / "mine"
    path.write_text("the user's own")
    figure, _ = page(1, "title")
    for write in (
        lambda: write_run(path, {}, overwrite=False),
        lambda: write_sheet([], path, overwrite=False),
        lambda: write_canaries(path, [], overwrite=False),
        lambda: finish(figure, path, overwrite=False),
    ):
        with pytest.raises(UsageError, match="exists already"):
            write()
    assert path.read_text() == "the user's own" and len(list(tmp_path.iterdir())) == 1


def test_a_device_is_never_replaced_by_a_draft(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    for target in ("/dev/null", tmp_path / "link", tmp_path):
        with pytest.raises(UsageError, match="folder or a device"), written_whole(target):
            pytest.fail("a draft was given")


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "'=1", "''=1", '"=1', "＝1", "＋1", "－1", "＠x",
    '=HYPERLINK("http://evil")', "\n=1", "\u200b=1", "x;=1+1", "a\t=1", "x\n=1", "|calc", "\x00=1"]  # fmt: skip


def example(text):
    return Example(text, (ScoredText("p", text, 0.9),), (ScoredText(text, text, -0.5),))


@pytest.mark.parametrize("text", [*FORMULAS, *(text for text in STEERING.values())])
def test_a_sheet_computes_nothing_and_is_read_again(tmp_path, text):
    write_sheet([example(text)], tmp_path / "sheet.csv")
    assert stat.S_IMODE((tmp_path / "sheet.csv").stat().st_mode) == 0o600
    with (tmp_path / "sheet.csv").open(encoding="utf-8", newline="") as file:
        _, row = csv.reader(file)
    assert row[2] == "-0.5" and row[5] == ""
    for cell in (row[0], row[1], row[3], row[4]):
        assert cell.lstrip(" '\"\u200b\n\x00")[:1] not in ("=", "+", "-", "@") or cell[0] == "'"
    lines = (tmp_path / "sheet.csv").read_bytes()
    (tmp_path / "sheet.csv").write_bytes(lines.removesuffix(b"\r\n") + b"1\r\n")
    assert read_sheet(tmp_path / "sheet.csv") == [True]


@given(st.text(st.sampled_from("=+-@'\" \t\r\n\uff1dab1"), max_size=6) | st.text())
def test_a_cell_says_which_text_it_was(text):
    cell = inert(text)
    assert cell in (text, f"'{text}")
    # the way back: without the apostrophe, where what is behind it would get one
    assert (cell[1:] if cell[:1] == "'" and inert(cell[1:]) != cell[1:] else cell) == text
    assert cell[:1] not in tuple("=+-@\t\r")


LABELS = [Label("text", "a")]


@pytest.fixture
def collection(tmp_path):
    with closing(connect(tmp_path / "data")) as client:
        docs = CollectionManager(client).ensure("docs", Encoder())
        docs.index([Passage("a", "text"), Passage("b", "other")])
        yield docs


@pytest.mark.parametrize("linked", ["mined.jsonl", "mined.jsonl.state.json", "mined.jsonl.state.json.part"])
def test_examples_are_mined_through_no_link(tmp_path, outside, collection, linked):
    (tmp_path / linked).symlink_to(outside.secret)
    with pytest.raises(InputError, match="is a link"):
        mine_to_jsonl(collection, LABELS, Encoder(), path=tmp_path / "mined.jsonl")


def test_mined_examples_are_private(tmp_path, collection):
    mine_to_jsonl(collection, LABELS, Encoder(), path=tmp_path / "mined.jsonl")
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.glob("mined*")}
    assert modes == {"mined.jsonl": 0o600, "mined.jsonl.state.json": 0o600}


COUNTS = {"counts": {}, "histograms": {"positives": {}, "candidates": {}, "negatives": {}}}
STATES = {
    "no JSON": "{",
    "deep": '{"a":' * 5000,
    "list": "[]",
    "digits": '{"format": ' + "9" * 5000 + "}",
    **{
        name: json.dumps({"format": 3, "fingerprint": "x", "queries": 0, "bytes": 0, "stats": COUNTS} | change)
        for name, change in {
            "negative": {"bytes": -1},
            "huge": {"queries": 10**400},
            "text": {"bytes": "1"},
            "no counts": {"stats": {}},
            "huge counts": {"stats": COUNTS | {"counts": {"examples": 2**70}}},
            "many counts": {"stats": COUNTS | {"counts": {str(number): 1 for number in range(20_000)}}},
            "far bins": {"stats": COUNTS | {"histograms": dict.fromkeys(COUNTS["histograms"], {"9" * 30: 1})}},
            "no bins": {"stats": COUNTS | {"histograms": dict.fromkeys(COUNTS["histograms"], {"x": 1})}},
            "lists": {"stats": {"counts": [], "histograms": []}},
        }.items()
    },
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_state_that_no_run_wrote_is_one_error(tmp_path, state):
    (tmp_path / "mined.jsonl").write_text("")
    (tmp_path / "mined.jsonl.state.json").write_text(state)
    with pytest.raises(UsageError, match="state.json") as refusal:
        read_stats(tmp_path / "mined.jsonl")
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("title", ["$x_$", "$\\frac{", "\\$x$", "a$b", *STEERING.values(), "x" * 100_000])
def test_a_title_is_no_formula_and_no_picture_of_any_size(tmp_path, title):
    audit_page(tmp_path / "audit.png", audit([example("x")]), title=title)
    score_histograms(tmp_path / "scores.png", [0.5], [0.1], title=title)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
