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
from qdrant_tools.edge.storage.read_only import SharedLock
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
    code, out, _ = run("collection", "snapshot", "docs", "--out", "docs.snapshot", *at)
    assert code == 0 and out.startswith("wrote docs.snapshot: 200 points, ")
    code, out, _ = run("collection", "restore", "again", "docs.snapshot", "--location", "other")
    assert (code, out) == (0, "again: 200 points restored\n")
    assert run("collection", "copy", "again", "third", "--to", "elsewhere", "--location", "other")[0] == 0
    with closing(connect(tmp_path / "elsewhere")) as client:
        assert client.count("third").count == 200
        assert client.get_collection("third").indexed_vectors_count >= 200


def test_a_copy_elsewhere_keeps_its_name_and_one_beside_it_needs_another(run, at):
    assert run("collection", "copy", "docs", "--to", "elsewhere", *at)[:2] == (0, "docs: 200 points copied\n")
    code, _, err = run("collection", "copy", "docs", *at)
    assert code == 2 and "the copy of 'docs' needs a name of its own, or another place: NEW_NAME, or --to" in err


def test_words_are_added_to_a_collection_that_has_none(run, at, encoder, tmp_path):
    (tmp_path / "more.txt").write_text("another text")
    code, _, err = run("index", "docs-1", "more.txt", "--lexical", *at, "--model", encoder.folder)
    assert code == 2 and "embed-plus collection add-lexical docs-1 --location data adds them" in error_line(err)
    code, _, err = run("search", "docs", "x", "--mode", "hybrid", *at, "--model", encoder.folder)
    assert code == 1 and "embed-plus collection add-lexical docs" in error_line(err)
    code, out, err = run("collection", "add-lexical", "docs", *at)
    assert (code, out) == (0, "docs-1: 200 passages are searched by words too, with k1 1.2 and b 0.75\n")
    assert "next: embed-plus search docs 'your question' --mode hybrid --location data" in err
    code, out, _ = run("search", "docs", TEXTS[3], "--mode", "lexical", "-k", 1, *at, "--model", encoder.folder)
    assert code == 0 and "p3" in out
    code, _, err = run("collection", "add-lexical", "docs", *at)
    assert code == 1 and "docs-1' has words already, with k1 1.2 and b 0.75: embed-plus search" in error_line(err)


def test_other_k1_and_b_are_counted_anew_where_that_is_said_and_refused_elsewhere(run, at, encoder, tmp_path):
    (tmp_path / "more.txt").write_text("another text")
    index = ["index", "new", "more.txt", *at, "--model", encoder.folder]
    assert run(*index, "--lexical", "--k1", 0.9, "--fusion", "dbsf")[0] == 0
    assert "Bm25(k1=0.9, b=0.75" in (shown := run("collection", "describe", "new", *at)[1]) and "dbsf" in shown
    assert run(*index, "--lexical")[0] == run(*index, "--lexical", "--k1", 0.9)[0] == 0, "what is not said stays"
    code, _, err = run(*index, "--lexical", "--b", 0.4)
    again = "embed-plus collection add-lexical new --b 0.4 --again --location data"
    assert code == 2 and "k1 0.9 and b 0.75: leave out what differs" in error_line(err) and again in error_line(err)
    code, _, err = run("collection", "add-lexical", "new", "--b", 0.4, *at)
    assert code == 1 and "`collection add-lexical` with --again counts them anew" in error_line(err)
    code, out, _ = run("collection", "add-lexical", "new", "--b", 0.4, "--again", *at)
    assert (code, out) == (0, "new: 1 passages are searched by words too, with k1 0.9 and b 0.4\n")
    for wrong, expected in (
        ((*index, "--k1", 0.9), "--k1 says how passages are found by words: give --lexical too"),
        ((*index, "--fusion", "dbsf"), "--fusion says how passages are found by words: give --lexical too"),
        ((*index, "--lexical", "--b", 2), "expected k1 >= 0, b from 0 to 1"),
        (("collection", "add-lexical", "docs", "--k1", -1, *at), "expected k1 >= 0, b from 0 to 1"),
    ):
        code, _, err = run(*wrong)
        assert code in (1, 2) and expected in error_line(err)


def test_a_folder_that_is_only_read_answers_and_refuses_changes_with_a_command(run, at, encoder, tmp_path, caplog):
    model = ["--model", encoder.folder]
    (tmp_path / "more.txt").write_text("another text")
    lock = SharedLock(tmp_path / "data")  # as another process that reads has it
    code, out, _ = run("search", "docs", TEXTS[3], *at, *model)
    assert code == 0 and TEXTS[3] in out and caplog.text.count("collections are read from private copies") == 1
    assert run("similar", "docs", "p3", *at)[0] == run("collection", "describe", "docs", *at)[0] == 0
    for command in (["index", "docs", "more.txt", *model], ["index", "new", "more.txt", *model]):
        code, out, err = run(*command, *at)
        assert (code, out) == (1, "") and "embed-plus collection copy NAME --to FOLDER takes" in error_line(err)
    code, _, err = run("cluster", "docs", "--clusters", "2", *at)
    assert code == 0 and err.endswith("next: embed-plus collection copy docs --to FOLDER --location data\n")
    code, _, err = run("tune", "docs", *at)
    assert code == 0 and "--apply" not in err, "what is fastest decides whether there is anything to apply"
    code, _, err = run("collection", "snapshot", "docs", "--out", "s", *at)
    assert code == 0 and err.endswith("next: embed-plus collection restore docs-restored s --location FOLDER\n")
    assert run("collection", "copy", "docs", "--to", "writable", *at)[0] == 0
    lock.release()
    code, out, _ = run("index", "docs-1", "more.txt", "--location", "data", *model)
    assert code == 0 and "1 added" in out


def test_dropping_asks_or_is_forced(run, at):
    run("collection", "copy", "docs", "spare", *at)
    code, _, err = run("collection", "drop", "spare", *at)
    assert code == 2 and "'spare' holds 200 points: --yes drops it unasked" in error_line(err)
    assert run("collection", "drop", "spare", "--yes", *at)[:2] == (0, "dropped spare: 200 points\n")
    code, _, err = run("collection", "drop", "docs-1", "--yes", *at)
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
    code, _, err = run("search", "theirs", TEXTS[7], *at)
    assert code == 1 and "embed-plus collection adopt theirs --model MODEL" in error_line(err)
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
        (
            ["wait", "typo"],
            1,
            "(embed-plus collection list --location data shows them)",
        ),
        (["snapshot", "docs"], 2, "embed-plus collection snapshot docs-1 --out docs-1.snapshot"),
        (["drop", "docs-1", "--yes"], 1, "embed-plus collection alias docs OTHER"),
        (["restore", "new", "typo.snapshot"], 1, "no snapshot file 'typo.snapshot'"),
        (["copy", "docs", "docs-1"], 1, "'docs-1' is there already"),
        (["alias", "docs-1", "docs"], 1, "is the name of a collection"),
        (["adopt", "docs"], 1, "already says which encoder filled it"),
    ],
)
def test_mistakes_are_one_line(run, at, arguments, code, message):
    found, _, err = run("collection", *arguments, *at)
    assert (found, message in error_line(err)) == (code, True), err


@pytest.mark.parametrize(
    ("arguments", "code", "way_out"),
    [
        (["similar", "docs", "a b.txt"], 1, "embed-plus passages list docs-1 --document 'a b.txt'"),
        (["passages", "delete", "docs", "typo", "--yes"], 1, "embed-plus passages list docs-1 shows ids"),
        (["search", "docs", ""], 1, "(see embed-plus search --help)"),
        (["collection", "drop", "docs-1", "--yes", "--force"], 2, "write: embed-plus collection drop docs-1 --yes "),
    ],
)
def test_every_refusal_names_a_command(run, at, encoder, arguments, code, way_out):
    model = ["--model", encoder.folder] if arguments[0] == "search" else []
    found, _, err = run(*arguments, *at, *model)
    assert (found, way_out in error_line(err)) == (code, True) and "--yes --yes" not in err, err


def test_what_is_to_be_deleted_unasked_is_answered_with_the_whole_command(run, at):
    code, _, err = run("passages", "delete", "docs", "p1", *at)
    assert code == 2 and error_line(err).endswith("write: embed-plus passages delete docs p1 --location data --yes")


def test_passages_that_are_not_there_lead_to_those_that_are(run, at):
    for command in (["list", "docs"], ["delete", "docs", "--yes"]):
        code, _, err = run("passages", *command, "--file", "manual/a.txt", *at)
        assert code == 0
        assert err.endswith("next: embed-plus passages list docs --document manual/a.txt --location data\n")


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


def test_a_snapshot_is_written_into_folders_that_are_there(run, at, tmp_path):
    code, _, err = run("collection", "snapshot", "docs", "--out", tmp_path / "absent" / "x.snapshot", *at)
    assert code == 1 and "there is no folder" in error_line(err)
    assert not (tmp_path / "absent").exists()
    code, _, err = run("collection", "snapshot", "docs", tmp_path / "x.snapshot", *at)
    assert code == 2 and error_line(err).endswith(
        f"write: embed-plus collection snapshot docs --location data --out {tmp_path / 'x.snapshot'}"
    )


def test_what_a_collection_does_not_tell_is_said_in_words(run, at):
    parts = [line.split(maxsplit=1) for line in run("collection", "describe", "docs", *at)[1].splitlines()]
    lines = {part[0]: part[-1] for part in parts}
    assert (lines["quantization"], lines["adapter"], lines["payload_m"]) == ("none", "none", "as many as m")
    assert (lines["vector"], lines["vectors"], lines["hidden"]) == ("the unnamed one", "the unnamed one", "none")
    assert lines["disk_bytes"].isdigit() and not {"None", "{}", "''"} & {*lines.values()}


def test_wrong_settings_and_pictures_are_refused_before_anything_is_measured(run, at, tmp_path):
    code, _, err = run("tune", "docs", *at, "--hnsw-ef", "a,b")
    assert code == 2 and error_line(err).startswith("error: --hnsw-ef is 'a,b', expected numbers with commas")
    code, _, err = run("tune", "docs", *at, "--plot", "tune.gif")
    assert code == 2 and error_line(err) == (
        "error: --plot is 'tune.gif', expected the name of a PNG, such as tune.png (see embed-plus tune --help)"
    )
    code, _, err = run("tune", "docs", *at, "--plot", "absent/tune.png")
    assert code == 2 and error_line(err) and not (tmp_path / "absent").exists()


def test_a_demo_of_less_than_one_passage_is_refused(run, tmp_path):
    code, _, err = run("demo", "--limit", -1)
    assert code == 2 and "--limit" in error_line(err) and list(tmp_path.iterdir()) == []
