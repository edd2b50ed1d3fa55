"""The benchmarks of roads beyond the adapter: no query that tests has a part in a fit, and the student learns."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from paths import ROOT

from llama_index_embed_plus.training.adapter.arrays import AdapterData, PseudoQueries
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.validation import unit_rows

SETTINGS = AdapterSettings(steps=(1, 2), folds=3, negatives=60)
MODULES = ("finetune", "judged_data", "judged_vectors", "judged_texts", "second_round", "distilled")


@pytest.fixture(scope="module")
def load():
    path = str(ROOT / "benchmarks")
    sys.path.insert(0, path)
    yield import_module
    sys.path.remove(path)
    for name in MODULES:
        sys.modules.pop(name, None)


def drawn(random: np.random.Generator, rows: int) -> np.ndarray:
    return np.asarray(unit_rows(random.normal(size=(rows, 8))), np.float32)


@pytest.fixture
def data() -> AdapterData:
    """24 queries, each near two of 80 passages."""
    random = np.random.default_rng(0)
    stored = drawn(random, 80)
    answers = tuple((2 * query, 2 * query + 1) for query in range(24))
    queries = np.stack([stored[list(own)].sum(0) for own in answers]) + 0.3 * random.normal(size=(24, 8))
    pseudo = PseudoQueries(drawn(random, 30), np.arange(30))
    return AdapterData(stored, np.asarray(unit_rows(queries), np.float32), answers, np.ones(24), pseudo=pseudo)


def test_queries_that_test_have_no_part_in_either_round(load, data):
    module, part = load("second_round"), np.arange(5)
    other = np.concatenate([drawn(np.random.default_rng(1), 5), data.queries[5:]])
    found = [
        module.systems(module.Fits(each, part, SETTINGS, module.plain_maps(each, SETTINGS)), anew=True)
        for each in (data, replace(data, queries=other))
    ]
    assert set(found[0]) == {"one round", "two rounds", "anew"}
    for name, chosen in found[0].items():
        assert chosen.name == found[1][name].name
        np.testing.assert_array_equal(chosen.matrix, found[1][name].matrix)


def test_a_second_round_goes_on_from_the_map_of_the_same_fold(load, data):
    module = load("second_round")
    fits = module.Fits(data, np.arange(5), SETTINGS, module.plain_maps(data, SETTINGS))
    same = [fits.start] * 3
    other = [fits.start, np.eye(8, dtype=np.float32), fits.start]
    families = [fits.round("further", starts, same, (1, 2)) for starts in (same, other)]
    assert families[0].names == ("further list 1", "further list 2", "further each 1", "further each 2")
    equal = [np.array_equal(*pair) for pair in zip(*(each.maps for each in families), strict=True)]
    assert equal == [True, False, True]


def test_the_student_goes_down_the_gradient_of_its_distance_to_the_teacher(load, data):
    module = load("distilled")
    teacher = list(module.rankings(data.queries, data.stored[::-1].copy()))
    lesson = module.taught(data.queries, teacher)
    assert lesson.rows.shape == (24, module.TAUGHT)
    np.testing.assert_allclose(lesson.shares.sum(axis=1), 1, rtol=1e-5)
    settings = replace(SETTINGS, negatives=80)

    def distance(weight: np.ndarray) -> float:
        mapped = data.queries + data.queries.astype(np.float64) @ weight
        mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
        scores = mapped @ data.stored.T.astype(np.float64) / settings.temperature
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return -float((np.take_along_axis(logs, lesson.rows, axis=1) * lesson.shares).sum(axis=1).mean())

    first, weight = next(module.distil(lesson, data.stored, settings))
    assert first == 1
    slopes = -weight / settings.learning_rate
    for place in [(0, 0), (3, 5), (7, 2)]:
        little = np.zeros((8, 8))
        little[place] = 1e-5
        numeric = (distance(little) - distance(-little)) / 2e-5
        assert slopes[place] == pytest.approx(numeric, rel=1e-3, abs=1e-4)


def test_a_folder_without_train_queries_is_parted_and_every_query_tests_once(load, tmp_path):
    module, random = load("judged_texts"), np.random.default_rng(0)
    folder = tmp_path / "few"
    (folder / "qrels").mkdir(parents=True)
    passages = [{"_id": f"p{row}", "title": "", "text": f"word{row} " * 9 + f"end{row}"} for row in range(40)]
    queries = [{"_id": f"q{row}", "text": f"word{row} asked"} for row in range(20)]
    for name, rows in (("corpus", passages), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"q{row}\tp{row}\t1" for row in range(20)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    np.savez(tmp_path / "few.npz", stored=drawn(random, 40), queries=drawn(random, 20), pseudo=drawn(random, 40))
    arguments = module.parser(None).parse_args(["--data", str(folder), "--vectors", str(tmp_path)])
    (judged,) = module.read(arguments)
    assert sorted(np.concatenate(judged.parts).tolist()) == list(range(20))
    assert judged.data.answers == tuple((row,) for row in range(20))
    found = load("distilled").measured(judged, SETTINGS)
    # vectors that mean nothing, and words that name the answer
    assert found["queries"] == 20 and found["teacher"][0] > 0.5
    assert {"label-free", "pseudo 32", "asked 1"} <= found.keys()
    one_part = replace(judged, parts=judged.parts[:1])
    assert load("distilled").measured(one_part, SETTINGS)["queries"] == len(judged.parts[0])
