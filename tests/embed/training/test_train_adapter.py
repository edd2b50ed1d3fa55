"""A query adapter by `train`: what the proof will ask for is kept from the fit, and one seed draws everything."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from models import SENTENCE, save_model

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.training.adapter.run import fit_adapter
from llama_index_embed_plus.training.proof.forgetting import SimilaritySet
from llama_index_embed_plus.training.proof.proof import ProofSettings, known_item_ids
from llama_index_embed_plus.training.run import Evidence, train
from llama_index_embed_plus.training.settings import AdapterSettings, TrainSettings
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Example, HeldOut, Passage, ScoredText

COUNT, KNOWN = 90, 25
QUICK = AdapterSettings(steps=(2,), pseudo_steps=2)


def passages() -> list[Passage]:
    words, random = SENTENCE.split(), np.random.default_rng(4)
    return [Passage(f"p{i}", " ".join(random.choice(words, 16))) for i in range(COUNT)]


def example(number: int) -> Example:
    passage = passages()[number]
    return Example(" ".join(passage.text.split()[4:9]), (ScoredText(passage.id, passage.text),))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(folder)
    return folder


@pytest.fixture(scope="module")
def collection(base):
    encoder = open_encoder(base)
    with closing(connect(":memory:")) as client:
        docs = CollectionManager(client).ensure("docs", encoder)
        index_passages(docs, passages(), encoder)
        yield docs


def test_no_pseudo_query_is_made_of_what_the_forgetting_check_asks_for(collection):
    held_out = HeldOut.of_examples([example(i) for i in range(20)])
    settings = ProofSettings(known_items=KNOWN, seed=3)
    known = known_item_ids(held_out, settings, collection=collection)
    assert len(known) == KNOWN
    every = replace(QUICK, spared=0)
    _, told = fit_adapter(collection, None, None, every, known_items=known)
    assert set(told.pseudo) == {passage.id for passage in passages()} - known
    _, untold = fit_adapter(collection, None, None, every)
    assert len(untold.pseudo) == COUNT, "so it is not by chance"


@pytest.mark.parametrize("by", ["held-out queries", "cross-fitting"])
def test_train_keeps_what_its_proof_asks_for_from_the_fit(base, collection, tmp_path, by):
    held_out = HeldOut.of_examples([example(i) for i in range(20)]) if by == "held-out queries" else None
    settings = TrainSettings(
        method="adapter",
        leak_similarity=None,
        cross_fit=0 if held_out else 3,
        adapter=replace(QUICK, spared=0),
        proof=ProofSettings(known_items=KNOWN, seed=3),
    )
    given = [example(i) for i in range(20, 45)]
    report = train(base, given, tmp_path / "tuned", settings, held_out=held_out, collection=collection)
    assert (report.proof.forgetting.kind, report.proof.forgetting.items) == ("known items", KNOWN)
    assert report.proof.forgetting.trained == 0


def test_where_a_general_set_is_given_nothing_is_spared(base, collection, tmp_path):
    general = SimilaritySet(tuple((p.text, "the cat", float(i)) for i, p in enumerate(passages()[:30])))
    evidence = Evidence(HeldOut.of_examples([example(i) for i in range(20)]), general)
    settings = TrainSettings(method="adapter", adapter=QUICK)
    report = train(base, None, tmp_path / "tuned", settings, held_out=evidence, collection=collection)
    assert report.notes == (f"made without labels: pseudo, of {COUNT} pseudo-queries",)


def test_of_a_small_collection_a_third_at_most_is_spared(collection):
    known = frozenset(passage.id for passage in passages())
    _, report = fit_adapter(collection, None, None, QUICK, known_items=known)
    assert len(report.pseudo) == COUNT - COUNT // 3
    _, unasked = fit_adapter(collection, None, None, QUICK)
    assert len(unasked.pseudo) == COUNT - COUNT // 3


def test_the_seed_of_a_run_seeds_its_fit_and_one_of_the_adapter_comes_first(base, collection, tmp_path):
    given = [example(i) for i in range(30)]
    few = replace(QUICK, pseudo_queries=20)

    def weights(name, **settings):
        report = train(base, given, tmp_path / name, TrainSettings(method="adapter", **settings), collection=collection)
        assert report.settings["adapter"]["seed"] == int(name.split()[0])
        return open_encoder(tmp_path / name).adapter.map.weight

    of_run = weights("5", seed=5, adapter=few)
    by_hand, _ = fit_adapter(collection, given, None, replace(few, seed=5))
    np.testing.assert_array_equal(of_run, by_hand.map.weight)
    assert not np.array_equal(of_run, weights("0", adapter=few))
    np.testing.assert_array_equal(of_run, weights("5 of its own", seed=9, adapter=replace(few, seed=5)))
