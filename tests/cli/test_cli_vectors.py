"""`embed-plus similar`, `duplicates`, `cluster` and `classify`: no model is opened, and each names what comes next."""

from __future__ import annotations

import json
import shlex
from contextlib import closing

import pytest
from command_line import error_line
from test_vectors_classify import FEW
from test_vectors_cluster import passages
from tiny import DirectionEncoder

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.records import Passage


@pytest.fixture
def docs(tmp_path):
    with closing(connect(tmp_path / "embed-plus-data")) as client:
        docs = CollectionManager(client).ensure("docs", DirectionEncoder())
        docs.index([*passages(10), *(Passage(f"twin-{i}", "the very same text twice over") for i in range(3))])


def next_of(stderr):
    (line,) = (line for line in stderr.splitlines() if line.startswith("next: "))
    words = shlex.split(line.removeprefix("next: "))
    assert words[0] == "embed-plus" and stderr.splitlines()[-1] == line
    return words[1:]


def test_similar_passages_come_with_their_ids_and_can_be_looked_at(run, docs):
    code, out, err = run("similar", "docs", "bees-0", "bees-1", "--not", "trains-0", "-k", "3")
    assert code == 0
    heads = [line.split() for line in out.splitlines() if line[:3].strip().isdecimal()]
    assert len(heads) == 3 and all(head[2].startswith("bees-") for head in heads)
    assert next_of(err) == ["passages", "get", "docs", heads[0][2]]
    assert run(*next_of(err))[0] == 0
    code, out, err = run("similar", "docs", "bees-0", "--json", "--filter", "n>=5", "-k", "2")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2] and all(row["metadata"]["n"] >= 5 for row in rows) and not err
    code, out, err = run("similar", "docs", "absent")
    assert code == 1 and "which has ids such as" in error_line(err)
    assert run("similar", "docs")[0] == 1 and run("similar", "docs", "--not", "bees-0")[0] == 2


def test_duplicates_are_shown_and_deleted_after_asking(run, docs):
    code, out, err = run("duplicates", "docs")
    assert code == 0 and "1 groups of near-duplicates among 33 passages" in out and "twin-0" in out
    deleting = next_of(err)
    assert deleting == ["duplicates", "docs", "--above=0.95", "--delete"]
    code, _, err = run(*deleting)
    assert code == 2 and "--yes does it unasked" in err, "nobody is there to answer"
    row = json.loads(run("duplicates", "docs", "--json")[1])
    assert (row["redundant"], row["groups"][0]["size"], row["deleted"]) == (2, 3, 0)
    code, out, _ = run(*deleting, "--yes")
    assert code == 0 and "docs: 2 passages deleted" in out
    code, out, err = run("duplicates", "docs")
    assert code == 0 and "0 groups" in out and "next:" not in err
    assert run("duplicates", "docs", "--yes")[0] == 2
    assert "above is 2" in error_line(run("duplicates", "docs", "--above", "2")[2])


def test_clusters_are_named_and_written_and_searched(run, docs, tmp_path):
    code, out, err = run("cluster", "docs", "--clusters", "4", "--out", "clusters.jsonl")
    assert code == 0 and "33 passages in 4 clusters" in out and "silhouette" in out
    rows = [json.loads(line) for line in (tmp_path / "clusters.jsonl").read_text().splitlines()]
    assert len(rows) == 33 and {row["cluster"] for row in rows} == {1, 2, 3, 4}
    code, out, err = run(*next_of(err))
    assert code == 0 and "33 passages have their cluster's name in the metadata field 'topic'" in out
    search = next_of(err)
    assert search[:2] == ["search", "docs"] and search[3] == "--filter"
    name = search[4].removeprefix("topic=")
    assert name in {row["name"] for row in rows}
    listed = [json.loads(line) for line in run("passages", "list", "docs", "--json", "-k", "99")[1].splitlines()]
    assert sum(row["metadata"]["topic"] == name for row in listed) == sum(row["name"] == name for row in rows)
    assert "already" in error_line(run("cluster", "docs", "--out", "clusters.jsonl")[2])
    assert "of their own" in error_line(run("cluster", "docs", "--write", "n")[2])


def test_labels_are_learned_and_their_accuracy_is_said(run, docs, tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps({"id": name, "label": label}) + "\n" for name, label in FEW.items()))
    code, out, err = run("classify", "docs", "--labels", few, "--out", "labels.jsonl")
    assert code == 0 and "accuracy 1.000, 95 % interval" in out and "always saying 'bees' is right in 0.333" in out
    rows = {row["id"]: row for row in map(json.loads, (tmp_path / "labels.jsonl").read_text().splitlines())}
    assert len(rows) == 33 and rows["bees-9"]["label"] == "bees" and not rows["bees-9"]["given"]
    assert 0.4 < rows["bees-9"]["probability"] <= 1 and rows["bees-0"]["given"]
    code, out, err = run("classify", "docs", "--labels", few, "--write", "kind")
    assert code == 0 and next_of(err) == ["search", "docs", "bees", "--filter", "kind=bees"]
    row = json.loads(run("classify", "docs", "--labels", few, "--json")[1])
    assert row["accuracy"] == 1.0 and row["better_than_majority"] and row["majority_share"] == pytest.approx(1 / 3)
    few.write_text('{"id": "bees-0", "label": "bees"}\n')
    code, _, err = run("classify", "docs", "--labels", few)
    assert code == 1 and "expected at least 2 different ones" in err


def test_a_location_that_was_given_is_given_again(run, tmp_path):
    with closing(connect(tmp_path / "elsewhere")) as client:
        CollectionManager(client).ensure("docs", DirectionEncoder()).index(passages(4))
    _, _, err = run("similar", "docs", "bees-0", "--location", "elsewhere")
    assert next_of(err)[-2:] == ["--location", "elsewhere"] and run(*next_of(err))[0] == 0
