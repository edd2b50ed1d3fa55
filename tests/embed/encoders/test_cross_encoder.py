"""A cross-encoder is a ready judge: for mining, for promotion, for audits."""

from __future__ import annotations

import pytest
from models import save_cross_encoder
from sentence_transformers import CrossEncoder
from tiny import WordEncoder

from llama_index_embed_plus.encoders.cross_encoder import cross_encoder_judge
from llama_index_embed_plus.errors import DamagedModelError, ModelNotFoundError
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import MiningSettings, mine
from qdrant_tools.mining.false_negatives import audit
from qdrant_tools.records import Label, Passage

ANIMALS = ["cat sleeps", "dog runs", "bird runs fast", "cat runs", "dog sleeps", "stone river", "red stone"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_cross_encoder(tmp_path_factory.mktemp("judge") / "tiny")


@pytest.fixture(scope="module")
def collection():
    encoder = WordEncoder(dimension=64)
    collection = CollectionManager(connect(":memory:")).ensure("docs", encoder)
    index_passages(collection, [Passage(text, text) for text in ANIMALS], encoder)
    return collection, encoder


def test_a_judge_scores_pairs_as_the_cross_encoder_does_in_their_order(model):
    judge = cross_encoder_judge(model, threshold=0.5, batch_size=2, device="cpu")
    pairs = [("cat", text) for text in [*ANIMALS, "a " * 200]]
    expected = CrossEncoder(str(model), device="cpu").predict(pairs)
    assert judge.score(pairs) == pytest.approx(expected.tolist(), abs=1e-5)
    assert len({round(score, 4) for score in expected.tolist()}) > 3, "a judge that says one thing proves nothing"
    assert judge.name == str(model), "a resumed run can tell one judge from another"


def test_mining_drops_or_promotes_what_the_judge_finds_relevant_and_the_audit_agrees(model, collection):
    judge = cross_encoder_judge(model, threshold=0.0)
    scores = dict(zip(ANIMALS, judge.score([("cat", passage) for passage in ANIMALS])))
    others = sorted(scores[passage] for passage in ANIMALS if passage != "cat sleeps")
    threshold = (others[2] + others[3]) / 2  # half of the other passages are relevant, it says
    relevant = {passage for passage in ANIMALS if scores[passage] >= threshold} - {"cat sleeps"}
    settings = MiningSettings(negatives=6, max_share=None, duplicate_similarity=None)
    for promote in (False, True):
        judge = cross_encoder_judge(CrossEncoder(str(model), device="cpu"), threshold=threshold, promote=promote)
        result = mine(collection[0], [Label("cat", "cat sleeps")], collection[1], settings=settings, judge=judge)
        (example,) = result.examples
        assert {negative.id for negative in example.negatives} == set(ANIMALS) - relevant - {"cat sleeps"}
        assert {positive.id for positive in example.positives} == {"cat sleeps"} | (relevant if promote else set())
        assert result.discarded["judged_relevant"] == 3
        (finding,) = audit(result.examples, judge=judge).false_negatives
        assert (finding.looked_at, finding.relevant) == (3, 0)


def test_models_that_are_no_judges_are_refused(model, tmp_path):
    several = save_cross_encoder(tmp_path / "several", labels=3)
    with pytest.raises(InputError, match="3 numbers per pair"):
        cross_encoder_judge(several, threshold=0.5)
    with pytest.raises(ModelNotFoundError, match="no folder"):
        cross_encoder_judge(tmp_path / "nothing", threshold=0.5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DamagedModelError, match=r"config\.json is missing"):
        cross_encoder_judge(tmp_path / "empty", threshold=0.5)
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DamagedModelError, match="holds no safetensors"):
        cross_encoder_judge(tmp_path / "empty", threshold=0.5)
    with pytest.raises(InputError, match="batch_size is 0"):
        cross_encoder_judge(model, threshold=0.5, batch_size=0)
