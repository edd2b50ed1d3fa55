"""Collections on the command line: results on stdout, one line for an error, exit codes 0, 1, 2, 130."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing

import pytest
from command_line import error_line
from models import SENTENCE, save_model
from qdrant_client import models

from llama_index_embed_plus import open_encoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.status import build_index
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Passage

WORDS = SENTENCE.split()
TEXTS = list(dict.fromkeys(f"{a} {b} {c}" for a, b, c in zip(WORDS * 40, WORDS[1:] * 41, WORDS[5:] * 43)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_model(folder)
    return open_encoder(folder, device="cpu")


@pytest.fixture
def at(encoder, tmp_path):
    """A folder with a collection of 200 passages under an alias; the options that name it."""
    with closing(connect(tmp_path / "data")) as client:
        manager = CollectionManager(client)
        docs = manager.ensure("docs-1", encoder)
        index_passages(docs, [Passage(f"p{i}", text) for i, text in enumerate(TEXTS[:200])], encoder)
        build_index(docs)
        manager.switch_alias("docs", "docs-1")
    return ["--location", "data"]


def test_collections_are_listed_and_described(run, at, encoder):
    code, out, _ = run("collection", "list", *at)
    assert code == 0 and out.split() == ["docs-1", "200", "green", encoder.space, "<-", "docs"]
    (row,) = json.loads(run("collection", "list", *at, "--json")[1])["collections"]
    assert (row["name"], row["points"], row["aliases"]) == ("docs-1", 200, ["docs"])
    code, out, _ = run("collection", "describe", "docs", *at)
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and ["points", "200"] in lines and ["hnsw_ef", "128"] in lines and ["aliases", "'docs'"] in lines
    row = json.loads(run("collection", "describe", "docs", *at, "--json")[1])
    assert row["settings"]["m"] == 16 and row["layout"]["text"] == "text" and row["disk_bytes"] > 0


def test_an_alias_is_made_and_moved(run, at):
    assert run("collection", "copy", "docs", "docs-2", *at)[:2] == (0, "docs-2: 200 points copied\n")
    assert run("collection", "alias", "docs", "docs-2", *at)[:2] == (0, "docs -> docs-2\n")


def test_waiting_builds_the_index_and_says_how_much_is_in_it(run, at):
    code, out, _ = run("collection", "wait", "docs", *at)
    assert (code, out) == (0, "docs-1: 200 vectors indexed, 200 points, status green\n")


def test_a_snapshot_restores_and_a_copy_goes_elsewhere(run, at, tmp_path):
    code, out, _ = run("collection", "snapshot", "docs", "docs.snapshot", *at)
    assert code == 0 and out.startswith("wrote docs.snapshot: 200 points, ")
    code, out, _ = run("collection", "restore", "docs.snapshot", "again", "--location", "other")
    assert (code, out) == (0, "again: 200 points restored\n")
    assert run("collection", "copy", "again", "third", "--to", "elsewhere", "--location", "other")[0] == 0
    with closing(connect(tmp_path / "elsewhere")) as client:
        assert client.count("third").count == 200
        assert client.get_collection("third").indexed_vectors_count >= 200


def test_dropping_asks_or_is_forced(run, at):
    run("collection", "copy", "docs", "spare", *at)
    code, _, err = run("collection", "drop", "spare", *at)
    assert code == 2 and "'spare' holds 200 points: say --force" in error_line(err)
    assert run("collection", "drop", "spare", "--force", *at)[:2] == (0, "dropped spare: 200 points\n")
    code, _, err = run("collection", "drop", "docs-1", "--force", *at)
    assert code == 1 and "serves alias 'docs'" in error_line(err)


def test_a_collection_of_another_program_is_adopted(run, encoder, tmp_path):
    rows = encoder.encode_passages(TEXTS[:40]).tolist()
    with closing(connect(tmp_path / "data")) as client:
        client.create_collection("theirs", models.VectorParams(size=encoder.dimension, distance=models.Distance.COSINE))
        points = [
            models.PointStruct(id=i, vector=row, payload={"inhalt": TEXTS[i], "ref": f"r{i}"})
            for i, row in enumerate(rows)
        ]
        client.upsert("theirs", points, wait=True)
    at = ["--location", "data", "--model", encoder.folder]
    code, _, err = run("collection", "adopt", "theirs", *at, "--id", "ref")
    assert code == 2 and "need --text" in error_line(err)
    code, out, _ = run("collection", "adopt", "theirs", *at, "--text", "inhalt", "--id", "ref")
    assert (code, out) == (0, f"theirs: {encoder.space}, layout plain, text in 'inhalt'\n")
    code, out, _ = run("search", "theirs", TEXTS[7], *at, "--json", "-k", 1)
    assert json.loads(out)["id"] == "r7"


def test_tuning_prints_a_table_draws_and_keeps_what_it_chose(run, at, encoder, tmp_path):
    options = ["--hnsw-ef", "4,64", "--held-out", 20, "--target-recall", 0.2]
    code, out, err = run("tune", "docs", *at, *options, "--plot", "tune.png", "--apply")
    lines = out.splitlines()
    assert code == 0, err
    assert lines[0] == "docs-1: 200 points, 20 queries"
    assert [line.split()[0] for line in lines[2:5]] == ["exact", "hnsw_ef=4", "hnsw_ef=64"]
    assert sum(line.endswith(" *") for line in lines) == 1
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "queries.txt").write_text("\n".join(TEXTS[:5]))
    real = ["--queries", "queries.txt", "--model", encoder.folder, "--json"]
    code, out, err = run("tune", "docs", *at, *real, "--quantization", "int8", "--oversampling", 2, "--m", 8)
    row = json.loads(out)
    assert code == 0 and row["queries"] == 5 and row["applied"] is False, err
    assert {trial["quantization"] for trial in row["trials"]} == {"none", "int8"}
    code, _, err = run("tune", "docs", *at, "--hnsw-ef", "many")
    assert code == 2 and "--hnsw-ef is 'many'" in error_line(err)


def test_a_lost_manifest_is_made_again(run, at, tmp_path):
    (tmp_path / "data" / "manifest.json").unlink()
    code, _, err = run("collection", "list", *at)
    assert code == 1 and "embed-plus collection recover --location" in error_line(err)
    code, out, _ = run("collection", "recover", *at, "--dry-run")
    assert code == 0 and "manifest.json' is missing" in out and out.endswith("nothing was written: a dry run\n")
    assert not (tmp_path / "data" / "manifest.json").exists()
    row = json.loads(run("collection", "recover", *at, "--json")[1])
    assert [each["name"] for each in row["collections"]] == ["docs-1"]
    assert (row["aliases"], row["left"], row["changed"]) == ({"docs": "docs-1"}, {}, True)
    assert run("collection", "recover", *at)[1].endswith("nothing to recover\n")
    assert run("collection", "list", *at)[1].split()[1] == "200"
    code, _, err = run("collection", "recover", "--location", ":memory:")
    assert code == 2 and "give a folder" in error_line(err)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["describe", "typo"], 1, "no collection 'typo'; collections here: docs, docs-1"),
        (["wait", "typo"], 1, "no collection 'typo'"),
        (["snapshot", "docs"], 2, "give one"),
        (["restore", "typo.snapshot", "new"], 1, "no snapshot file 'typo.snapshot'"),
        (["copy", "docs", "docs-1"], 1, "'docs-1' is there already"),
        (["alias", "docs-1", "docs"], 1, "is the name of a collection"),
        (["adopt", "docs"], 1, "already says which encoder filled it"),
    ],
)
def test_mistakes_are_one_line(run, at, arguments, code, message):
    found, _, err = run("collection", *arguments, *at)
    assert (found, message in error_line(err)) == (code, True), err


def test_a_location_that_is_not_there_is_not_made(run, tmp_path):
    code, _, err = run("collection", "list", "--location", "typo")
    assert code == 1 and "typo" in error_line(err) and not (tmp_path / "typo").exists()


def test_ctrl_c_in_a_copy_leaves_nothing_that_looks_whole(run, at, tmp_path):
    script = (
        "import time; from qdrant_tools.client.gateway import Gateway\n"
        "def slow(*a, **k):\n    print('page', flush=True); time.sleep(600)\n"
        "Gateway.pages = slow\nfrom llama_index_embed_plus.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "collection", "copy", "docs", "docs-2", *at]
    copying = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert copying.stdout.readline() == "page\n"
    copying.send_signal(signal.SIGINT)
    _, err = copying.communicate(timeout=300)
    assert copying.returncode == 130 and "run the same command again" in err
    assert run("collection", "copy", "docs", "docs-2", *at)[:2] == (0, "docs-2: 200 points copied\n")
