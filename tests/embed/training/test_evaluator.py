"""Who watches a training sees a held-out metric on the way, and training goes on as if nobody had looked."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from models import save_model

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.models.spec import read_spec
from llama_index_embed_plus.training import TrainSettings, train
from llama_index_embed_plus.training.proof.proof import ProofSettings, prove
from llama_index_embed_plus.training.trainer.evaluator import METRIC, SampledEvaluator, evaluation_callbacks
from llama_index_embed_plus.training.trainer.progress import Meter
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Example, HeldOut, Passage, Query, ScoredText

WORDS = ["cat", "dog", "bird", "tree", "river", "stone", "red", "blue"]
PASSAGES = tuple(Passage(f"{a}-{b}", f"the {a} and the {b} in the document .") for a in WORDS for b in WORDS if a != b)
HELDOUT = HeldOut(
    tuple(Query(f"q{i}", f"what is the {a} ? for {b}") for i, (a, b) in enumerate(zip(WORDS, WORDS[1:]))),
    {f"q{i}": {f"{a}-{b}": 1} for i, (a, b) in enumerate(zip(WORDS, WORDS[1:]))},
    PASSAGES,
)
EXAMPLES = [
    Example(f"{b} over {a} :", (ScoredText(f"{a}-{b}", f"the {a} and the {b} in the document ."),))
    for a, b in zip(WORDS, WORDS[2:])
]
SETTINGS = TrainSettings(
    method="full", epochs=2, batch_size=2, leak_similarity=None, proof=ProofSettings(known_items=0)
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    save_model(folder, prompts={"query": "query : ", "document": "document "})
    return folder


class Watcher(Meter):
    """Keeps every metric that it is told."""

    def __init__(self) -> None:
        super().__init__(0)
        self.seen: list[float] = []

    def measured(self, name: str, value: float) -> None:
        super().measured(name, value)
        assert name == METRIC
        self.seen.append(value)


def test_a_watched_training_tells_the_metric_and_ends_as_an_unwatched_one(base, tmp_path):
    watcher = Watcher()
    watched = train(base, EXAMPLES, tmp_path / "watched", SETTINGS, held_out=HELDOUT, progress=watcher)
    alone = train(base, EXAMPLES, tmp_path / "alone", SETTINGS, held_out=HELDOUT)
    assert watched.losses == alone.losses and watched.lineage.space == alone.lineage.space
    assert watcher.steps == len(watched.losses) and watcher.mean_loss is not None
    assert len(watcher.seen) >= 4 and METRIC in watcher.line()
    # All passages fit into the sample here: the first look is the base of the proof, the last its result.
    assert watched.proof is not None
    assert watcher.seen[0] == pytest.approx(watched.proof.changes[0].before, abs=1e-6)
    assert watcher.seen[-1] == pytest.approx(watched.proof.changes[0].after, abs=1e-6)


def test_a_probe_leaves_the_model_and_the_random_states_as_they_were(base):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(base), device="cpu")
    probe = SampledEvaluator(HELDOUT, read_spec(base))
    for training in (True, False):
        model.train(training)
        before = torch.get_rng_state()
        assert probe(model) == probe(model)
        assert model.training is training and torch.equal(before, torch.get_rng_state())


def test_the_sample_holds_every_answer_and_not_much_else(base):
    from sentence_transformers import SentenceTransformer

    many = tuple(Passage(f"x{i}", "the stone and the tree") for i in range(1000))
    held_out = HeldOut(HELDOUT.queries, HELDOUT.qrels, (*PASSAGES, *many))
    probe = SampledEvaluator(held_out, read_spec(base))
    assert len(probe._passages) == len(held_out.relevant) + 400
    assert 0 <= probe(SentenceTransformer(str(base), device="cpu")) <= 1


def test_passages_of_a_collection_are_embedded_anew(base):
    from sentence_transformers import SentenceTransformer

    encoder = open_encoder(base, backend="torch")
    held_out = HeldOut(HELDOUT.queries, HELDOUT.qrels)
    with closing(connect(":memory:")) as client:
        collection = CollectionManager(client).ensure("c", encoder)
        index_passages(collection, PASSAGES, encoder)
        probe = SampledEvaluator(held_out, read_spec(base), collection=collection)
        expected = prove(encoder, encoder, held_out, ProofSettings(known_items=0), collection=collection)
    found = probe(SentenceTransformer(str(base), device="cpu"))
    np.testing.assert_allclose(found, expected.changes[0].before, atol=1e-6)


def test_nobody_watching_costs_nothing(base):
    assert evaluation_callbacks(None, HELDOUT, read_spec(base), None) == []
    assert evaluation_callbacks(None, HELDOUT, read_spec(base), [].append) == []
    assert evaluation_callbacks(None, None, read_spec(base), Meter(1)) == []
