"""Labels from a few labelled passages: right on what was not labelled, measured on what was held out."""

from __future__ import annotations

import json
from contextlib import closing

import numpy as np
import pytest
from test_vectors_cluster import TOPICS, passages
from tiny import DirectionEncoder

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import InputError
from qdrant_tools.validation import unit_rows
from qdrant_tools.vectors import classify, read_labels
from qdrant_tools.vectors.logistic import fit, folds_of, log_loss

FEW = {f"{topic}-{i}": topic for topic in TOPICS for i in range(5)}


@pytest.fixture
def docs(manager):
    docs = manager.ensure("classes", DirectionEncoder())
    docs.index(passages())
    return docs


def test_five_labels_of_a_kind_label_the_rest(docs):
    found = docs.classify(FEW)
    said = {name: label for page in found.predicted() for name, label in zip(page.ids, page.labels, strict=True)}
    assert said == {passage.id: passage.id.partition("-")[0] for passage in passages()}
    assert (found.right, found.of, found.accuracy, found.folds) == (15, 15, 1.0, 5)
    assert found.majority_share == pytest.approx(1 / 3) and found.is_better
    assert [score.label for score in found.labels] == sorted(TOPICS)
    likely = [p for page in found.predicted() for p, name in zip(page.probabilities, page.ids) if name in FEW]
    assert set(likely) == {1.0}, "what was labelled is sure"


def test_labels_that_mean_nothing_are_not_better_than_the_most_frequent_one(docs):
    draws = np.random.default_rng(0)
    names = [passage.id for passage in passages()]
    labels = {name: "odd" if draws.random() < 0.3 else "usual" for name in names}
    found = docs.classify(labels)
    assert found.majority == "usual" and not found.is_better
    assert found.interval[0] < found.accuracy < found.interval[1]


def test_the_accuracy_is_that_of_cross_validation_with_scikit_learn(docs):
    """The same parts, the same strength: the same passages are right."""
    from sklearn.linear_model import LogisticRegression

    draws = np.random.default_rng(3)
    labels = {passage.id: passage.id.partition("-")[0] if draws.random() < 0.7 else "bees" for passage in passages()}
    found = docs.classify(labels)
    ids = sorted(labels)
    stored = docs.fetch(ids, with_vectors=True)
    rows = np.array([stored[name].vector for name in ids])
    truth = np.array([labels[name] for name in ids])
    theirs = LogisticRegression(C=found.strength, max_iter=5000, tol=1e-8).fit(rows, truth)
    ours = found.model.probabilities(rows)
    assert np.abs(ours - theirs.predict_proba(rows)).max() < 0.02


@pytest.mark.parametrize("rows_of", [12, 200])
def test_logistic_regression_is_scikit_learns(rows_of):
    from sklearn.linear_model import LogisticRegression

    draws = np.random.default_rng(5)
    rows = unit_rows(draws.normal(size=(rows_of, 32)))
    classes = draws.integers(3, size=rows_of)
    for strength in (1.0, 50.0):
        ours = fit(rows, classes, 3, strength=strength).probabilities(rows)
        theirs = LogisticRegression(C=strength, max_iter=10_000, tol=1e-10).fit(rows, classes).predict_proba(rows)
        assert np.abs(ours - theirs).max() < 5e-3
        assert log_loss(ours, classes) <= log_loss(theirs, classes) + 1e-3


def test_every_fold_has_its_share_of_every_class():
    classes = np.repeat([0, 1, 2], [50, 20, 5])
    fold_of = folds_of(classes, 5, seed=1)
    for fold in range(5):
        assert np.bincount(classes[fold_of == fold]).tolist() == [10, 4, 1]


def test_labels_are_written_where_a_filter_finds_them(docs):
    assert docs.classify(FEW).write("kind") == 90
    assert {hit.id.partition("-")[0] for hit in docs.search("honey", k=90, filter={"kind": "whales"})} == {"whales"}
    assert docs.index(passages()).unchanged == 90


def test_labels_that_a_payload_index_would_hide_are_refused(tmp_path):
    with closing(connect(tmp_path / "folder")) as client:
        settings = CollectionSettings(payload_indexes={"day": "integer"})
        docs = CollectionManager(client).ensure("days", DirectionEncoder(), settings=settings)
        docs.index(passages())
        found = docs.classify({name: "2020-01-01" if label == "bees" else "2021-01-01" for name, label in FEW.items()})
        with pytest.raises(InputError, match="an index of kind 'integer' hides dates"):
            found.write("day")


def test_what_nothing_can_be_learned_of_is_refused(docs):
    with pytest.raises(InputError, match="the only label is 'bees', expected at least 2"):
        docs.classify({f"bees-{i}": "bees" for i in range(5)})
    with pytest.raises(InputError, match="no labels"):
        docs.classify({})
    with pytest.raises(InputError, match=r"label 'rare' has 1 passage, expected at least 3 of each \(1 labels"):
        docs.classify({**FEW, "bees-9": "rare"})
    with pytest.raises(InputError, match=r"'absent' is not in 'classes', which has ids such as .*\(2 of 17 labelled"):
        docs.classify({**FEW, "absent": "bees", "absent2": "bees"})
    with pytest.raises(InputError, match="a dict"):
        classify(docs, [("bees-0", "bees")])


def test_labels_come_from_a_file(tmp_path):
    file = tmp_path / "few.jsonl"
    file.write_text("".join(json.dumps({"id": name, "label": label}) + "\n" for name, label in FEW.items()))
    assert read_labels(file) == FEW
    table = tmp_path / "few.csv"
    table.write_text("id,label\na,1\nb,2\n")
    assert read_labels(table) == {"a": "1", "b": "2"}
    file.write_text('{"id": "a", "label": "x"}\n{"id": "a", "label": "y"}\n')
    with pytest.raises(InputError, match="few.jsonl:2: passage 'a' has the labels 'x' and 'y'"):
        read_labels(file)
    for bad in ('{"id": "a"}\n', '{"id": "a", "label": true}\n', '{"id": "a", "label": ""}\n', "[1]\n", ""):
        file.write_text(bad)
        with pytest.raises(InputError, match=r"few\.jsonl"):
            read_labels(file)
