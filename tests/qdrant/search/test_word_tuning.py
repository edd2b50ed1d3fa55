"""What chooses words and fusion ranks as the engine does, tells its gain out of fold, and stays where unsure."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from tiny import DirectionEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import InputError, NotSupportedError
from qdrant_tools.indexing import index_passages
from qdrant_tools.metrics import ndcg
from qdrant_tools.records import HeldOut, Passage, Query
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.fusion import Fusion
from qdrant_tools.search.hybrid import search_hybrid, search_lexical
from qdrant_tools.search.word_tuning import WordCounts, WordGrid, WordTuning, tune_words

WORDS = Bm25(average_length=8.0)
PASSAGES = numbered(60)
QUERIES = [Query(f"q{i}", f"thing{i} about topic{i % 7} number") for i in range(40)]
HELD_OUT = HeldOut(tuple(QUERIES), {f"q{i}": {f"p{i}": 1} for i in range(40)})
FUSIONS = (Fusion(), Fusion(lexical_weight=2.0), Fusion(method="dbsf"))


@pytest.fixture
def memory():
    with closing(connect(":memory:")) as client:
        yield client


class Deaf(DirectionEncoder):
    """Its queries have nothing to do with its passages."""

    def encode_queries(self, texts):
        return super().encode_queries([text[::-1] for text in texts])

    def encode_passages(self, texts):
        return super().encode_queries(texts)


def filled(client, encoder, passages=PASSAGES, lexical=WORDS):
    docs = CollectionManager(client).ensure("docs", encoder, settings=CollectionSettings(lexical=lexical))
    index_passages(docs, passages, encoder)
    build_index(docs)
    return docs.keep_fusion(Fusion())


def test_scores_are_those_of_the_engine_for_any_k1_and_b(client):
    for number, (k1, b) in enumerate(((1.2, 0.75), (0.6, 0.0), (2.0, 0.4))):
        words, encoder = Bm25(k1=k1, b=b, average_length=8.0), DirectionEncoder(f"words{number}")
        docs = CollectionManager(client).ensure(f"docs{number}", encoder, settings=CollectionSettings(lexical=words))
        index_passages(docs, PASSAGES, encoder)
        texts = [query.text for query in QUERIES[:5]]
        counted = WordCounts(WORDS, [passage.text for passage in PASSAGES], texts)
        for scores, hits in zip(counted.scores(k1, b), search_lexical(docs, texts, k=60), strict=True):
            ours = {passage.id: score for passage, score in zip(PASSAGES, scores.tolist()) if score > 0}
            assert {hit.id: hit.score for hit in hits} == pytest.approx(ours, rel=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS, ids=["rrf", "weighted", "dbsf"])
def test_a_trial_has_the_ndcg_of_the_search_that_it_stands_for(client, fusion):
    docs, encoder = filled(client, DirectionEncoder()), DirectionEncoder()
    found = tune_words(docs, HELD_OUT, encoder, grid=WordGrid(k1=(1.2,), b=(0.75,), fusion=(fusion,)))
    hits = search_hybrid(docs, [query.text for query in QUERIES], encoder, k=10, fusion=fusion)
    run = {query.id: {hit.id: -float(hit.rank) for hit in each} for query, each in zip(QUERIES, hits, strict=True)}
    expected = np.mean(list(ndcg(HELD_OUT.qrels, run, k=10).values()))
    (trial,) = [trial for trial in found.trials if trial.fusion == fusion]
    # hits of equal scores may stand in another order
    assert trial.ndcg == pytest.approx(expected, abs=0.02)


def test_where_vectors_say_nothing_words_are_given_their_weight_and_that_is_proved(memory):
    found = tune_words(filled(memory, Deaf()), HELD_OUT, Deaf())
    assert found.dense < 0.3 < found.words and found.now.setting == "Bm25(k1=1.2, b=0.75), Fusion('rrf')"
    assert found.chosen.fusion in (Fusion(lexical_weight=2.0), Fusion(method="dbsf"))
    assert found.chosen.ndcg > found.now.ndcg and found.proved
    assert found.reason.startswith(f"{found.chosen.setting} is better than {found.now.setting}: +")
    assert json.loads(json.dumps(found.as_row()))["proved"] is True


def test_what_is_no_better_out_of_fold_leaves_everything_as_it_is(memory):
    alone = WordGrid((1.2,), (0.75,), (Fusion(),))
    found = tune_words(filled(memory, DirectionEncoder()), HELD_OUT, DirectionEncoder(), grid=alone)
    assert found.gain == type(found.gain)(0.0, 0.0, 0.0) and not found.proved and found.chosen == found.now
    assert found.reason.startswith("stay with Bm25(k1=1.2, b=0.75), Fusion('rrf'): the best, ")


def test_what_is_proved_is_kept_and_what_is_not_is_refused(client):
    docs = filled(client, Deaf())
    found = tune_words(docs, HELD_OUT, Deaf())
    kept = docs.apply_word_tuning(found)
    assert (kept.lexical.k1, kept.lexical.b, kept.fusion) == (found.chosen.k1, found.chosen.b, found.chosen.fusion)
    after = tune_words(kept, HELD_OUT, Deaf())
    assert after.now.setting == found.chosen.setting and not after.proved
    with pytest.raises(InputError, match="nothing is to be applied: stay with"):
        kept.apply_word_tuning(after)
    with pytest.raises(InputError, match="the report is about collection 'docs', this is 'other'"):
        replace(kept, name="other").apply_word_tuning(found)


def test_the_same_queries_give_the_same_report(memory):
    docs = filled(memory, Deaf())
    assert isinstance(tune_words(docs, HELD_OUT, Deaf()), WordTuning)
    assert tune_words(docs, HELD_OUT, Deaf()) == tune_words(docs, HELD_OUT, Deaf())


def test_judgements_of_documents_count_the_best_part(memory):
    parts = [
        Passage(f"p{i}#{part:012x}", f"thing{i} number part{part}", {"document": f"p{i}"})
        for i in range(40)
        for part in (0, 1)
    ]
    found = tune_words(filled(memory, Deaf(), parts), HELD_OUT, Deaf())
    assert found.passages == 80 and found.words > 0.9


def test_too_few_queries_no_words_and_other_passages_are_refused(memory):
    docs = filled(memory, Deaf())
    few = HeldOut(tuple(QUERIES[:19]), HELD_OUT.qrels)
    with pytest.raises(InputError, match="19 judged queries choose nothing: expected at least 20"):
        tune_words(docs, few, Deaf())
    elsewhere = HeldOut(tuple(QUERIES), {query.id: {"nobody": 1} for query in QUERIES})
    with pytest.raises(InputError, match="none of the 1 judged passages is in collection 'docs'"):
        tune_words(docs, elsewhere, Deaf())
    plain = CollectionManager(memory).ensure("plain", Deaf())
    index_passages(plain, PASSAGES, Deaf())
    with pytest.raises(NotSupportedError, match="'plain' has no lexical vectors"):
        tune_words(plain, HELD_OUT, Deaf())
    with pytest.raises(InputError, match="every axis needs at least one value"):
        WordGrid(k1=())
