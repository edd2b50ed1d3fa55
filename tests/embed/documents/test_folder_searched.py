"""A folder as people have it, from the command line: looked at, indexed, and searched in five languages."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from folder import build_folder

KINDS = ("pdf/**", "office/*.pptx", "html/**", "code/**", "books/**", "texts/server.log")
CODE = "from llama_index_embed_plus.cli import main; main()"


@pytest.fixture(scope="module")
def location(tmp_path_factory):
    """A folder of collections with the files of one folder, indexed once."""
    root = tmp_path_factory.mktemp("people") / "everything"
    build_folder(root)
    location = root.parent / "collections"
    includes = [part for kind in KINDS for part in ("--include", kind)]
    arguments = ["index", "all", root, "--lexical", "--location", location, *includes]
    done = subprocess.run([sys.executable, "-c", CODE, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return location


def found(run, location, question, *options):
    code, out, err = run("search", "all", question, "--location", location, "-k", 3, "--json", *options)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


ASKED = [
    (
        "how many bees does a colony hold?",
        "dense",
        "application/pdf",
        "everything/pdf/en.pdf, page 1",
        "sixty thousand",
    ),
    ("wie alt werden Königinnen?", "lexical", "application/pdf", "everything/pdf/de.pdf, page 1", "fünf Jahre alt"),
    (
        "combien de semaines vit une ouvrière en été",
        "lexical",
        "text/html",
        "html/fr.html \u00b7 Abeilles",
        "six semaines",
    ),
    ("зимой семья греет матку", "hybrid", None, "ru", "Зимой семья собирается"),
    ("冬天 蜂王 工蜂", "lexical", "application/epub+zip", "everything/books/zh.epub", "一个蜂群有一只蜂王"),
    ("女王蜂のまわりに集まって", "lexical", None, "ja", "働き蜂は女王蜂"),
    ("function that says how much honey flowers give", "dense", None, "everything/code/hive.py", "def honey(flowers):"),
]


@pytest.mark.parametrize(("question", "mode", "kind", "place", "answer"), ASKED)
def test_the_right_file_is_found_and_its_place_is_told(run, location, question, mode, kind, place, answer):
    only = ("--filter", f"file_type={kind}") if kind else ()
    hits = found(run, location, question, "--mode", mode, *only)
    assert any(place in hit["place"] and answer in hit["excerpt"] for hit in hits), [hit["place"] for hit in hits]
    for hit in hits:
        assert hit["metadata"]["source"] == "everything" and hit["place"].startswith("everything/")
        assert len(hit["excerpt"].split()) > 3 or any(letter > "\u3000" for letter in hit["excerpt"]), "no fragment"


def test_copies_of_a_text_in_many_files_come_from_different_documents(run, location):
    hits = found(run, location, "bees make honey in the hive", "--by-document")
    assert len({hit["metadata"]["document"] for hit in hits}) == 3


def test_neighbours_of_a_hit_in_a_long_file_are_told(run, location):
    (hit, *_) = found(run, location, "hive gave honey", "--filter", "file_name=server.log", "--around", 1)
    parts = [passage["metadata"]["part"] for passage in hit["around"]]
    assert parts == list(range(parts[0], parts[-1] + 1)) and 2 <= len(parts) <= 3
    assert [passage["metadata"]["part"] for passage in hit["around"] if passage["hit"]] == [hit["metadata"]["part"]]
