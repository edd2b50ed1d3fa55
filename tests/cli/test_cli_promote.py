"""Another model takes over on the command line: step by step or at once, interrupted or not."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from command_line import error_line
from models import save_model
from test_cli_collection import TEXTS

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.encoders.adapter import QueryAdapter, attach_adapter
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.promotion.plan import DiskNeed
from qdrant_tools.records import Passage
from qdrant_tools.search.adapters import OrthogonalMap
from qdrant_tools.search.dense import search


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Two models of different spaces."""
    folder = tmp_path_factory.mktemp("tiny")
    for seed, name in enumerate(("old", "new")):
        save_model(folder / name, seed=seed)
    return [open_encoder(folder / name, device="cpu") for name in ("old", "new")]


@pytest.fixture
def at(encoders, tmp_path):
    """A folder in which the old model serves 150 passages as `docs`; the options that name the new one."""
    old, new = encoders
    with closing(connect(tmp_path / "data")) as client:
        manager = CollectionManager(client)
        index_passages(manager.ensure("docs-1", old), [Passage(f"p{i}", t) for i, t in enumerate(TEXTS[:150])], old)
        manager.switch_alias("docs", "docs-1")
    return ["--location", "data", "--model", new.folder]


def serving(tmp_path, encoder):
    with closing(connect(tmp_path / "data")) as client:
        collection = CollectionManager(client).open("docs", encoder)
        assert search(collection, TEXTS[17], encoder, k=1)[0].id == "p17"
        return collection


OPEN = ["--samples", 20, "--recall", 0.5]


def test_the_steps_one_by_one_and_back(run, at, encoders, tmp_path):
    old, new = encoders
    target = f"docs-{new.space.partition('@')[2]}"
    code, out, _ = run("promote", "plan", "docs", *at)
    assert code == 0 and out.splitlines()[0] == f"docs: {old.space} -> {new.space}"
    assert f"into the new collection {target}" in out and "disk: " in out
    assert json.loads(run("promote", "plan", "docs", *at, "--json")[1])["phase"] is None
    code, _, err = run("promote", "switch", "docs", *at)
    assert code == 1 and "is not built yet" in error_line(err)
    assert run("promote", "build", "docs", *at)[:2] == (0, f"{target}: 150 embedded, 0 removed\n")
    code, out, _ = run("promote", "verify", "docs", *at, *OPEN)
    assert code == 0 and all(line.startswith("ok ") for line in out.splitlines())
    code, out, _ = run("promote", "switch", "docs", *at)
    assert (code, out) == (0, f"docs serves {new.space} from {target}\n")
    serving(tmp_path, new)
    code, out, _ = run("promote", "rollback", "docs", "--location", "data", "--model", old.folder, "--json")
    assert code == 0 and json.loads(out)["collection"] == "docs-1"
    serving(tmp_path, old)
    assert run("promote", "cleanup", "docs", "--location", "data")[:2] == (0, f"dropped {target}\n")
    assert run("promote", "cleanup", "docs", "--location", "data")[:2] == (0, "nothing to drop\n")


def test_all_at_once_in_place(run, at, encoders, tmp_path):
    old, new = encoders
    code, out, _ = run("promote", "run", "docs", *at, *OPEN, "--in-place", "--json")
    assert code == 0 and json.loads(out)["collection"] == "docs-1"
    assert serving(tmp_path, new).layout.vector.startswith("v-")
    code, out, _ = run("promote", "cleanup", "docs", "--location", "data", "--json")
    assert json.loads(out)["dropped"] == ["docs-1 (vector '')"]
    assert run("promote", "run", "docs", *at)[0] == 0, "once more is no error"


def judged(tmp_path, rows):
    queries = [json.dumps({"_id": f"q{i}", "text": text}) for i, (text, _) in enumerate(rows)]
    (tmp_path / "queries.jsonl").write_text("\n".join(queries))
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\t{name}\t1" for i, (_, name) in enumerate(rows))]
    (tmp_path / "qrels.tsv").write_text("\n".join(lines) + "\n")
    return ["--queries", "queries.jsonl", "--qrels", "qrels.tsv"]


def test_a_check_that_fails_keeps_the_old_model_unless_forced(run, at, encoders, tmp_path):
    old, new = encoders
    given = judged(tmp_path, [(TEXTS[i], f"p{i}") for i in range(10)])
    code, _, err = run("promote", "run", "docs", *at, *OPEN, *given, "--before", old.folder, "--max-drop", -0.5)
    assert code == 1 and "'docs' keeps its encoder: nDCG@10 on 10 held-out queries is 1" in error_line(err)
    serving(tmp_path, old)
    code, out, _ = run("promote", "verify", "docs", *at, *OPEN, *given, "--json")
    assert code == 0 and json.loads(out)["passed"] is True, "without the model that serves there is nothing to compare"
    code, _, err = run("promote", "verify", "docs", *at, "--queries", "queries.jsonl")
    assert code == 2 and "go together" in error_line(err)
    assert run("promote", "run", "docs", *at, "--force")[0] == 0
    serving(tmp_path, new)


def test_a_model_whose_training_says_no_is_refused_before_anything_is_embedded(run, at, encoders, tmp_path):
    shutil.copytree(encoders[1].folder, tmp_path / "worse")
    report = {"promotable": False, "verdict": "nDCG@10 may have fallen by 0.12"}
    (tmp_path / "worse" / "train_report.json").write_text(json.dumps(report))
    there = [*at[:-1], "worse"]
    assert "its training says no: nDCG@10 may have fallen by 0.12" in run("promote", "plan", "docs", *there)[1]
    for step in ("build", "run"):
        code, _, err = run("promote", step, "docs", *there)
        assert code == 1 and "'docs' keeps its encoder: nDCG@10 may have fallen by 0.12" in error_line(err)
    assert len(json.loads(run("collection", "list", "--location", "data", "--json")[1])["collections"]) == 1
    assert run("promote", "run", "docs", *there, *OPEN, "--force")[0] == 0


def test_a_model_that_is_proved_on_synthetic_queries_only_is_taken_if_that_is_accepted(run, at, encoders, tmp_path):
    shutil.copytree(encoders[1].folder, tmp_path / "made")
    report = {"promotable": False, "only_synthetic": True, "verdict": "measured on synthetic queries only"}
    (tmp_path / "made" / "train_report.json").write_text(json.dumps(report))
    there = [*at[:-1], "made"]
    assert "or say --accept-synthetic" in run("promote", "plan", "docs", *there)[1]
    for step in ("build", "run"):
        code, _, err = run("promote", step, "docs", *there)
        assert code == 1 and "prove it on real queries, or accept that" in error_line(err)
    code, out, _ = run("promote", "run", "docs", *there, *OPEN, "--accept-synthetic")
    assert code == 0 and out.splitlines()[-1].startswith(f"docs serves {encoders[1].space}")


def test_an_adapter_of_synthetic_queries_alone_is_promoted_without_queries_if_that_is_accepted(
    run, at, encoders, tmp_path
):
    old = encoders[0]
    shutil.copytree(old.folder, tmp_path / "base")
    report = {"promotable": False, "only_synthetic": True, "verdict": "measured on synthetic queries only"}
    (tmp_path / "base" / "train_report.json").write_text(json.dumps(report))
    adapter = QueryAdapter.identity(old.dimension, old.space)
    attach_adapter(tmp_path / "base", adapter, tmp_path / "adapted")
    there = [*at[:-1], "adapted"]
    code, _, err = run("promote", "run", "docs", *there)
    assert code != 0 and "synthetic" in error_line(err)
    code, out, _ = run("promote", "run", "docs", *there, "--accept-synthetic")
    assert (code, out.splitlines()[-1]) == (0, f"docs serves {old.space} with {adapter.build} from docs-1")


def test_a_query_adapter_is_promoted_by_the_same_command(run, at, encoders, tmp_path):
    old = encoders[0]
    adapter = QueryAdapter.identity(old.dimension, old.space)
    attach_adapter(old.folder, adapter, tmp_path / "adapted")
    there = [*at[:-1], "adapted"]
    assert "nothing is embedded" in run("promote", "plan", "docs", *there)[1]
    given = judged(tmp_path, [(TEXTS[i], f"p{i}") for i in range(5)])
    code, out, err = run("promote", "run", "docs", *there, *given, "--before", old.folder)
    assert (code, out.splitlines()[-1]) == (0, f"docs serves {old.space} with {adapter.build} from docs-1"), err
    assert run("promote", "rollback", "docs", "--location", "data")[1] == f"docs serves {old.space} from docs-1\n"


def test_every_command_that_opens_the_alias_serves_with_the_adapter_that_was_promoted(
    run, at, encoders, tmp_path, caplog
):
    old = encoders[0]
    one, other = old.encode_queries([TEXTS[17], TEXTS[3]])
    step = (one - other) / np.linalg.norm(one - other)
    reflection = (np.eye(old.dimension) - 2 * np.outer(step, step)).astype(np.float32)
    adapter = QueryAdapter(OrthogonalMap(reflection), old.space)
    attach_adapter(old.folder, adapter, tmp_path / "adapted")
    base, adapted = [*at[:-1], old.folder], [*at[:-1], "adapted"]
    given = judged(tmp_path, [(TEXTS[17], "p17")])
    (tmp_path / "questions.txt").write_text(f"{TEXTS[17]}\n")

    def first(*model):
        return json.loads(run("search", "docs", TEXTS[17], "-k", 1, "--json", *model)[1])["id"]

    assert first(*base) == "p17"
    assert run("search", "docs", TEXTS[17], *adapted)[0] == 0
    assert f"serves {old.space} with no adapter, and is searched with {adapter.build}" in caplog.text
    assert run("canary", "freeze", "docs", "questions.txt", "--out", "before.jsonl", *base)[0] == 0
    assert run("canary", "freeze", "docs", "questions.txt", "--out", "candidate.jsonl", *adapted)[0] == 0
    assert run("promote", "run", "docs", *adapted, "--force")[0] == 0
    assert first(*base) == first(*adapted) != "p17"
    code, _, err = run("canary", "run", "docs", "before.jsonl", *base)
    assert code == 1 and f"was frozen with no adapter, and is asked with {adapter.build}" in error_line(err)
    assert run("canary", "run", "docs", "candidate.jsonl", *base)[0] == 0, "the candidate serves now"
    code, out, err = run("evaluate", "docs", *given, "--against", f"model={old.folder}", "-k", 1, "--json", *base)
    served, exactly = json.loads(out)["systems"]
    assert (served["means"]["recall@1"], exactly["means"]["recall@1"]) == (0.0, 1.0), err
    assert f"docs serves with {adapter.build}" in err
    assert run("promote", "rollback", "docs", "--location", "data")[0] == 0
    assert first(*base) == "p17"


def test_a_bridge_is_measured_before_it_is_built(run, at, encoders, tmp_path):
    (tmp_path / "queries.txt").write_text("\n".join(TEXTS[160:180]))
    given = ["--queries", "queries.txt", "--sample", 100, "-k", 5, "--before", encoders[0].folder]
    code, out, err = run("promote", "bridge", "docs", *at, *given)
    assert code == 0 and out.splitlines()[0] == "recall@5 against re-embedding 50 texts, 20 queries", err
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["procrustes", "low-rank", "the"]
    found = json.loads(run("promote", "bridge", "docs", *at, *given, "--json")[1])["bridges"]
    assert all(0 <= each["bridged"] <= 1 and each["fitted_on"] == 50 for each in found)


def test_when_the_disk_is_scarce_the_way_in_place_is_offered(run, at, encoders, tmp_path, monkeypatch):
    scarce = DiskNeed(beside=2_000_000_000, in_place=500_000_000, free=1_000_000_000)
    monkeypatch.setattr("qdrant_tools.promotion.plan.disk_need", lambda *_: scarce)
    assert "a second collection does not fit: say --in-place" in run("promote", "plan", "docs", *at)[1]
    code, _, err = run("promote", "run", "docs", *at)
    assert code == 1
    assert "takes 2 GB and the disk has 1 GB" in error_line(err) and "say --in-place, or --force" in error_line(err)
    monkeypatch.setattr("sys.stdin", Yes())
    code, out, _ = run("promote", "run", "docs", *at, *OPEN)
    assert code == 0 and out.endswith("from docs-1\n")


def test_what_a_server_does_not_tell_of_its_disk_is_said(run, at, encoders, monkeypatch):
    untold = DiskNeed(beside=2_000_000_000, in_place=500_000_000, free=None)
    monkeypatch.setattr("qdrant_tools.promotion.plan.disk_need", lambda *_: untold)
    out = run("promote", "plan", "docs", *at)[1]
    assert "disk: at least 2 GB beside (vectors alone), 500 MB in place; how much is free a server does not" in out


class Yes:
    """A person at the keyboard who says yes."""

    def isatty(self):
        return True

    def readline(self, *_):
        return "y\n"


def test_mistakes_are_one_line(run, at):
    for arguments, code, message in [
        (["plan", "typo", *at], 1, "no collection 'typo'"),
        (["plan", "docs-1", *at], 1, "only an alias can be switched"),
        (["verify", "docs", *at], 1, "is not built yet"),
        (["rollback", "docs", "--location", "data"], 1, "no way back"),
        (["run", "docs", "--location", "data", "--model", "no/such/model"], 1, "no/such/model"),
        (["verify", "docs", *at, "--recall", 2], 1, "recall"),
    ]:
        found, _, err = run("promote", *arguments)
        assert (found, message in error_line(err)) == (code, True), err


@pytest.mark.parametrize("how", [[], ["--in-place"]])
def test_killed_or_interrupted_the_same_command_goes_on(run, at, encoders, tmp_path, how):
    script = (
        "import time, llama_index_embed_plus.encoders.open as e\n"
        "opened, calls = e.open_encoder, []\n"
        "def slowly(*a, **k):\n"
        "    encoder = opened(*a, **k); encode = encoder.encode_passages\n"
        "    def waiting(texts):\n"
        "        calls.append(texts); print('embedding', flush=True)\n"
        "        time.sleep(600 * (len(calls) == 3)); return encode(texts)\n"
        "    encoder.encode_passages = waiting; return encoder\n"
        "e.open_encoder = slowly\n"
        "from llama_index_embed_plus.cli import main; main()"
    )
    command = ["promote", "run", "docs", *map(str, at), *map(str, OPEN), "--batch-size", "20", *how]
    for signum, expected in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        running = subprocess.Popen(
            [sys.executable, "-c", script, *command],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3):
            assert running.stdout.readline() == "embedding\n"
        running.send_signal(signum)
        _, err = running.communicate(timeout=300)
        assert running.returncode == expected, err
        serving(tmp_path, encoders[0])
    assert "the old model serves; run the same command again to go on" in err
    code, out, err = run("promote", "build", "docs", *at, "--json")
    assert code == 0 and json.loads(out)["written"] <= 150 - 2 * 40, err
    assert run(*command)[0] == 0
    serving(tmp_path, encoders[1])
