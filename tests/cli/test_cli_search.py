"""Hits for people: their place, an excerpt that answers, neighbours, documents once; or why there is none."""

from __future__ import annotations

import json
import re
from contextlib import closing

import pytest
from command_line import error_line
from hypothesis import given
from hypothesis import strategies as st
from tiny import WordEncoder

from llama_index_embed_plus.cli.documents.hits import Shown, by_document, excerpt, fitting, flowing, place_of, row_of
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.records import Hit, Passage
from qdrant_tools.search.bm25 import Bm25

LEXICAL = ("--mode", "lexical")
CELL = [
    "The cell is the unit of life. Robert Hooke saw cells of cork in 1665.",
    "Mitochondria turn sugar into ATP. This is how they produce energy for the cell. The electron transport chain "
    "moves protons over the inner membrane, and ATP synthase lets them flow back. Its rotor turns like that of a mill.",
    "Chloroplasts do the same in plants, but with light. They came from bacteria that were swallowed once.",
]


def parts(document, texts, **metadata):
    source, _, path = document.partition("/")
    place = {"source": source, "file_path": path, "file_name": path.rpartition("/")[2], "document": document}
    return [
        Passage(f"{document}#{i:012x}", text, {**place, "part": i, "page_label": str(i + 1), **metadata})
        for i, text in enumerate(texts)
    ]


@pytest.fixture
def docs(tmp_path):
    """A folder of collections: files with their places, rows without, and an empty collection."""
    encoder = WordEncoder()
    with closing(connect(tmp_path / "embed-plus-data")) as client:
        manager = CollectionManager(client)
        settings = CollectionSettings(lexical=Bm25())
        docs = manager.ensure("docs", encoder, settings=settings)
        docs.index(parts("papers/bio/cell.pdf", CELL, header_path="Results > Energy", year=2020))
        docs.index(
            parts("papers/war.txt", ["Energy decides wars. Energy is oil.", "The energy of peoples ends."], year=1990)
        )
        docs.index([Passage("row-7", "A row about energy bills", {"author": "Ann", "title": "Bills"})])
        manager.ensure("none", encoder, settings=settings)


def test_hits_say_their_file_their_page_and_their_headings_and_answer(run, docs):
    code, out, _ = run("search", "docs", "how do mitochondria produce energy?", *LEXICAL)
    lines = out.splitlines()
    assert code == 0 and lines[0] == "how do mitochondria produce energy?"
    assert lines[1].split()[0] == "1"
    assert lines[1].endswith("papers/bio/cell.pdf, page 2 \u00b7 Results > Energy")
    assert lines[2].strip().startswith("Mitochondria turn sugar into ATP. This is how they produce energy")
    assert all(len(line) <= 80 for line in lines[1:]), "as wide as the terminal"
    assert any(line.endswith("row-7 \u00b7 Bills") for line in lines), "a row goes by its id and title"
    assert "#0000" not in out, "the hash in an id tells a person nothing"
    assert lines[-1] == "a document stands here more than once: --by-document shows each once"


def test_each_document_once_by_its_best_passage(run, docs):
    code, out, _ = run("search", "docs", "energy", *LEXICAL, "--by-document")
    assert code == 0
    heads = [line for line in out.splitlines() if line[:3].strip().isdecimal()]
    assert len(heads) == 3 and sum("war.txt" in line for line in heads) == 1
    assert next(line for line in heads if "war.txt" in line).endswith("(+1 more)")
    assert "--by-document" not in out
    _, out, _ = run("search", "docs", "energy", *LEXICAL, "--by-document", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert [len(row.get("others", [])) for row in rows if "war" in row["id"]] == [1]


def test_each_value_of_a_field_once_by_its_best_passage(run, docs):
    code, out, _ = run("search", "docs", "energy", *LEXICAL, "--group-by", "year", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["rank"] for row in rows] == [1, 2], "the row without a year is in no group"
    assert sorted(row["metadata"]["year"] for row in rows) == [1990, 2020]
    assert [len(row.get("others", [])) for row in rows if "war" in row["id"]] == [1]
    code, _, err = run("search", "docs", "energy", *LEXICAL, "--group-by", "yaer")
    assert code == 1 and "no hit has the metadata field 'yaer' to group by; they have: " in err and "year" in err
    assert run("search", "docs", "energy", *LEXICAL, "--group-by", "year", "--by-document")[0] == 2
    assert run("search", "docs", "zebra", *LEXICAL, "--group-by", "year")[0] == 0


def test_a_collection_without_words_names_the_command_that_adds_them(run, docs, tmp_path):
    with closing(connect(tmp_path / "embed-plus-data")) as client:
        CollectionManager(client).ensure("plain", WordEncoder()).index(["A row about energy"])
    code, _, err = run("search", "plain", "energy", *LEXICAL)
    assert code == 1 and "embed-plus collection add-lexical plain" in err and "CollectionSettings" not in err


def test_the_passages_around_a_hit_are_printed_in_order_with_the_hit_marked(run, docs):
    code, out, _ = run("search", "docs", "mitochondria", *LEXICAL, "--around", 1)
    assert code == 0
    lines = out.splitlines()[2:]
    marked = [line.lstrip().startswith("|") for line in lines]
    text = " ".join(line.strip(" |") for line in lines)
    assert text == " ".join(CELL)
    assert marked[0] is False and True in marked and marked[-1] is False
    _, out, _ = run("search", "docs", "mitochondria", *LEXICAL, "--around", 1, "--json")
    (row,) = map(json.loads, out.splitlines())
    assert [part["text"] for part in row["around"]] == CELL
    assert [part["hit"] for part in row["around"]] == [False, True, False]
    assert row["place"] == "papers/bio/cell.pdf, page 2 \u00b7 Results > Energy"


def test_hits_beside_each_other_are_one_stretch(run, docs):
    _, out, _ = run("search", "docs", "energy wars peoples oil", *LEXICAL, "--around", 1, "-k", 2)
    heads = [line for line in out.splitlines() if "war.txt" in line]
    assert len(heads) == 1 and heads[0].split()[:2] == ["1,", "2"]
    _, out, _ = run("search", "docs", "energy", *LEXICAL, "--around", 1)
    assert "A row about energy bills" in out, "what is no part of a document stands alone"


def test_the_whole_text_is_printed_on_request(run, docs):
    short = run("search", "docs", "mitochondria", *LEXICAL)[1]
    code, out, _ = run("search", "docs", "mitochondria", *LEXICAL, "--full")
    assert code == 0 and " ".join(out.split()).endswith(CELL[1]) and "..." in short


def test_filters_are_conditions(run, docs):
    def found(*conditions):
        filters = [part for condition in conditions for part in ("--filter", condition)]
        code, out, _ = run("search", "docs", "energy", *LEXICAL, "--json", *filters)
        assert code == 0
        return {json.loads(line)["id"].partition("#")[0] for line in out.splitlines()}

    assert found("year>2000") == {"papers/bio/cell.pdf"}
    assert found("year=1990") == {"papers/war.txt"}
    assert found("author=Ann", "title=Bills") == {"row-7"}
    code, _, err = run("search", "docs", "energy", *LEXICAL, "--filter", "year")
    assert code == 1 and "expected a condition such as author=Ann" in error_line(err)


NOTHING = [
    (("none", "energy"), "no hits: collection 'none' is empty; `embed-plus index` fills it"),
    (("docs", "zebra"), "no hits: no passage has a word of the question"),
    (("docs", "zebra", "--filter", "year=1990"), "no hits: no passage with year=1990 has a word of the question"),
    (("docs", "energy", "--filter", "year=3000"), "no hits: no passage has year=3000"),
    (
        ("docs", "energy", "--filter", "auther=Ann"),
        "no hits: no passage has a metadata field 'auther'; there are author, document, file_name",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), NOTHING)
def test_without_hits_it_says_why(run, docs, arguments, message):
    code, out, err = run("search", *arguments, *LEXICAL)
    assert code == 0 and out.startswith(message) and len(out.splitlines()) == 1
    code, out, err = run("search", *arguments, *LEXICAL, "--json")
    assert (code, out) == (0, "") and err.startswith(message), "JSON lines are hits and nothing else"


PLACES = [
    ("s/a.md#1", {"source": "s", "file_path": "a.md", "header_path": "A > B"}, "s/a.md \u00b7 A > B"),
    ("s/a.pptx#1", {"source": "s", "file_path": "a.pptx", "page_label": "3"}, "s/a.pptx, slide 3"),
    ("s/a.xlsx#1", {"source": "s", "file_path": "a.xlsx", "page_label": "Costs"}, "s/a.xlsx, sheet Costs"),
    # a reader of LlamaIndex, its parser of Markdown, a loader of LangChain, a row, a program
    ("7" * 32, {"file_path": "/home/x/a.pdf", "file_name": "a.pdf", "page_label": "iv"}, "/home/x/a.pdf, page iv"),
    ("n1", {"file_name": "a.md", "header_path": "/A/B/"}, "a.md \u00b7 A > B"),
    ("0fb0fb3e-6d4c-4a52-9a3c-0a5d0d4f8a01", {"source": "/data/a.pdf", "page": 0}, "/data/a.pdf"),
    ("12", {"url": "https://x.org/a"}, "https://x.org/a"),
    ("asyncio.run", {"module": "asyncio"}, "asyncio.run"),
    ("row-7", {"source": "wikipedia", "title": "Bees"}, "row-7 \u00b7 Bees"),
    ("12", {}, "12"),
    ("x", {"file_path": 3.5, "page_label": ["a"], "header_path": {}, "title": None}, "x"),
]


@pytest.mark.parametrize(("hit_id", "metadata", "shown"), PLACES)
def test_hits_of_any_collection_have_a_place(hit_id, metadata, shown):
    assert str(place_of(Hit(hit_id, 1.0, 1, metadata=metadata))) == shown


def test_a_hit_of_a_row_names_its_file(run, tmp_path, minilm):
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "faq.jsonl").write_text('{"id": 7, "text": "The hives stand behind the old mill."}\n')
    (tmp_path / "kb" / "tips.csv").write_text("text\nFeed the bees in September.\n")
    assert run("index", "rows", "kb", "--model", minilm, "--lexical")[0] == 0
    _, out, _ = run("search", "rows", "hives", *LEXICAL, "--json")
    assert json.loads(out)["place"] == "kb/faq.jsonl, row 7"
    _, out, _ = run("search", "rows", "September", *LEXICAL)
    assert "kb/tips.csv" in out and "row" not in out


def test_a_place_that_is_too_long_loses_its_outer_headings():
    place = place_of(
        Hit("a", 1.0, 1, metadata={"file_path": "a.md", "header_path": "A long book > A chapter > A section"})
    )
    assert fitting(place, 80) == str(place)
    assert fitting(place, 30) == "a.md \u00b7 ... > A section"
    assert fitting(place, 1) == "a.md \u00b7 ... > A section"


FILLER = "Nothing of this is about the matter at hand. "
CODE = (
    "import math\n\n\ndef norm(values):\n    total = 0\n    for value in values:\n        total += value * value\n"
    "    # the norm is the root\n    return total**0.5\n"
)
EXCERPTS = [
    ("what is honey", "Bees fly. Honey is made of nectar.", 200, "Bees fly. Honey is made of nectar."),
    ("honey nectar", FILLER * 9 + "Honey is made of nectar. Then more.", 60, "... Honey is made of nectar. Then more."),
    ("zebra", FILLER * 9, 50, "Nothing of this is about the matter at hand. ..."),
    ("蜂蜜", "これは別の話です。" * 20 + "蜂蜜は花から作られます。冬。", 20, "... 蜂蜜は花から作られます。冬。"),
    ("needle", "hay " * 200 + "a needle in it " + "hay " * 200, 60, None),
    ("x", "", 60, ""),
    (
        "bees",
        "Bees\n\nBees make honey.\n- nectar\n- pollen\nin a hive",
        60,
        "Bees / Bees make honey. - nectar / - pollen in a hive",
    ),
    ("hive", "| hive | honey |\n| --- | --- |\n| 1 | 20 kg |", 60, "hive | honey / 1 | 20 kg"),
    ("x", "A Heading\n=========\n\nA text.", 60, "A Heading / A text."),
    ("root", CODE, 75, "def norm(values):\n    ...\n    # the norm is the root\n    return total**0.5"),
    ("zebra", CODE, 40, "import math\ndef norm(values):"),
    ("x" * 500, "x" * 100_000, 60, None),
]


@pytest.mark.parametrize(("question", "text", "room", "expected"), EXCERPTS)
def test_an_excerpt_has_what_was_asked_for(question, text, room, expected):
    found = excerpt(text, question, room)
    assert len(found) <= room
    if expected is not None:
        assert found == expected
    if "needle" in text:
        assert "a needle in it" in found and found.startswith("... ") and found.endswith(" ...")


@given(st.text(max_size=300), st.text(min_size=1, max_size=40), st.integers(30, 120))
def test_an_excerpt_is_a_stretch_of_the_text(text, question, room):
    found = excerpt(text, question, room)
    assert len(found) <= room
    core = found.removeprefix("... ").removesuffix(" ...")
    # but for white space, strokes between lines, and the edges of tables
    signs = re.compile(r"[^\w]")
    assert signs.sub("", core) in signs.sub("", text)


def test_lines_of_prose_go_on_and_those_of_code_and_lists_stay():
    prose = "A sentence that was broken by the editor of a\nfile at some column goes on here."
    assert flowing(prose) == prose.replace("\n", " ")
    for kept in (
        "- an item of a list that is rather long, and\n- another one",
        "result = function_of_something(argument, other)\nprint(result)",
        "| a column | another one that is long enough |\n| 1 | 2 |",
        "A short line\nand another.",
    ):
        assert flowing(kept) == kept
    assert flowing(f"{prose}\n\n{prose}").count("\n") == 2


def hit(document, rank):
    metadata = {"document": document, "part": rank} if document else {}
    return Hit(f"{document}#{rank}", 1 / rank, rank, "text", metadata)


@given(st.lists(st.sampled_from(["a", "b", "c", "d", ""]), max_size=60), st.integers(1, 5))
def test_documents_are_the_best_ones_however_deep_they_lie(documents, k):
    hits = [hit(document, rank) for rank, document in enumerate(documents, 1)]
    shown = by_document(lambda depth: hits[:depth], k)
    firsts = {}
    for item in hits:
        firsts.setdefault(item.metadata.get("document", item.id), item)
    assert [item.hit for item in shown] == list(firsts.values())[:k]
    assert all(other.metadata["document"] == item.hit.metadata["document"] for item in shown for other in item.others)


def test_headings_that_the_place_says_are_not_said_again():
    text = "Bees > Honey\n\nBees\n\nHoney\n\nIt is made of nectar."
    hit = Hit("s/a.md#1", 1.0, 1, text, {"file_path": "a.md", "source": "s", "header_path": "Bees > Honey"})
    assert row_of(1, Shown(hit), "nectar", None, 0)["excerpt"] == "It is made of nectar."


def test_a_hit_of_any_collection_is_a_row():
    row = row_of(1, Shown(Hit("12", 0.5, 1, "A text.", {"n": 1})), "text", None, 0)
    own = {"rank": 1, "score": 0.5, "id": "12", "text": "A text.", "metadata": {"n": 1}}
    assert row == {**own, "place": "12", "excerpt": "A text."}
