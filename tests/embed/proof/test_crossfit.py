"""Cross-fitting: every query is embedded by what did not see it, and a fit that only remembers proves nothing."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from tiny import NoisyEncoder

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.data.splits import SplitSettings, shared_answers
from llama_index_embed_plus.training.proof.crossfit import cross_fit
from llama_index_embed_plus.training.proof.proof import ProofSettings, prove
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Example, HeldOut, Passage, ScoredText

COUNT = 75
PASSAGES = [Passage(f"p{i}", f"w{i} opens this passage. w{i} then goes on with some more words") for i in range(150)]
EXAMPLES = [Example(f"w{i} asked", (ScoredText(f"p{i}", PASSAGES[i].text),)) for i in range(COUNT)]
BASE = NoisyEncoder(1.0, asked=1.0)
SETTINGS = ProofSettings(known_items=0)


class Remembers:
    """Finds the answers of the queries that it was fitted on, and of no others."""

    dimension, space = BASE.dimension, BASE.space

    def __init__(self, examples, hidden=frozenset()):
        self.answers = {example.query: example.positives[0].text for example in examples}

    def encode_passages(self, texts):
        return BASE.encode_passages(texts)

    def encode_queries(self, texts):
        vectors = BASE.encode_queries(texts)
        for row, text in enumerate(texts):
            if text in self.answers:
                vectors[row] = BASE.encode_passages([self.answers[text]])[0]
        return vectors


class Learns(Remembers):
    """Asks less noisily, whatever it was fitted on."""

    def encode_queries(self, texts):
        return NoisyEncoder(1.0, asked=0.6).encode_queries(texts)


@pytest.fixture(scope="module")
def collection():
    with closing(connect(":memory:")) as client:
        docs = CollectionManager(client).ensure("docs", BASE)
        index_passages(docs, PASSAGES, BASE)
        yield docs


def proved(fit, collection):
    return prove(BASE, fit, HeldOut.of_examples(EXAMPLES), SETTINGS, collection=collection)


def test_what_only_remembers_is_better_on_what_it_saw_and_proves_nothing_by_cross_fitting(collection):
    assert proved(Remembers(EXAMPLES), collection).harmless
    proof = proved(cross_fit(EXAMPLES, Remembers), collection)
    assert proof.refusals == ("nothing changed on 75 queries, each held out of one of 5 fits",)


def test_what_learns_is_proved_on_all_queries_and_the_proof_says_how(collection):
    proof = proved(cross_fit(EXAMPLES, Learns), collection)
    assert proof.harmless and (proof.queries, proof.folds) == (COUNT, 5)
    assert proof.verdict.startswith("75 queries, each held out of one of 5 fits: ndcg@10 +")
    assert proof.procedure.startswith("cross-fitted: each query was ranked by one of 5 adapters that did not see it")
    assert not proved(Learns(EXAMPLES), collection).procedure


def test_each_query_meets_a_fit_without_it_and_every_other_text_the_one_on_all():
    seen = []

    def fit(examples, hidden):
        assert not hidden, "every answer is that of one query"
        seen.append({example.query for example in examples})
        return Remembers(examples)

    fitted = cross_fit(EXAMPLES, fit, folds=4)
    assert [len(queries) for queries in seen] == [75, 56, 56, 56, 57]
    asked = [example.query for example in EXAMPLES]
    assert np.array_equal(fitted.encode_queries(asked), BASE.encode_queries(asked)), "none of them is remembered"
    other = Example("w80 asked", (ScoredText("p80", PASSAGES[80].text),))
    assert np.array_equal(fitted.encode_queries([other.query]), BASE.encode_queries([other.query]))
    assert np.array_equal(fitted.encode_passages(["w3"]), BASE.encode_passages(["w3"]))


def test_synthetic_examples_are_fitted_on_but_for_those_that_give_a_query_of_the_fold_away():
    made = [Example(f"w{i} made", EXAMPLES[i].positives, synthetic=True) for i in range(10)]
    made += [Example(f"w{i} made", (ScoredText(f"p{i}", PASSAGES[i].text),), synthetic=True) for i in range(90, 100)]
    seen = []

    def fit(examples, hidden):
        seen.append(examples)
        return Remembers(examples)

    cross_fit([*EXAMPLES, *made], fit)
    assert len(seen[0]) == 95
    for examples in seen[1:]:
        left_out = {example.query for example in EXAMPLES} - {example.query for example in examples}
        answers = {example.positives[0].id for example in EXAMPLES if example.query in left_out}
        assert not answers & {example.positives[0].id for example in examples}
        assert sum(example.synthetic for example in examples) >= 10


def test_where_all_queries_hang_together_by_their_answers_those_of_the_fold_are_kept_from_the_others():
    """Query i is answered by passages i and i + 1, so that a chain joins them all."""
    answers = [ScoredText(passage.id, passage.text) for passage in PASSAGES]
    chain = [Example(f"w{i} asked", (answers[i], answers[i + 1], answers[140])) for i in range(COUNT)]
    seen = []

    def fit(examples, hidden):
        seen.append((examples, hidden))
        return Remembers(examples)

    cross_fit(chain, fit)
    assert seen[0] == (chain, frozenset())
    asked = []
    for examples, hidden in seen[1:]:
        rest = {example.query for example in examples}
        left_out = [example for example in chain if example.query not in rest]
        asked += [example.query for example in left_out]
        of_fold = {positive.id for example in left_out for positive in example.positives}
        told = {positive.id for example in examples for positive in example.positives}
        assert hidden <= of_fold and "p140" in hidden, "what only the fold has may be a negative, as of any new query"
        assert not told & of_fold and 55 <= len(examples) <= 60
    # a query is not fitted either if the fold has both of its answers
    assert set(asked) == {example.query for example in chain}


def test_of_one_text_under_two_ids_both_are_kept_from_the_others():
    one, other = (ScoredText(name, "the same words") for name in ("a", "b"))
    left, hidden = shared_answers(
        [Example("x", (one, ScoredText("c", "others"))), Example("y", (one,))], [Example("z", (other,))]
    )
    assert [(example.query, [p.id for p in example.positives]) for example in left] == [("x", ["c"])]
    assert hidden == {"a", "b"}


def test_queries_that_all_have_one_answer_make_no_folds_unless_that_is_allowed():
    shared = [Example(example.query, EXAMPLES[0].positives) for example in EXAMPLES]
    with pytest.raises(TrainingError, match="without fold 1 of 5 no example is left: .* by_passage=False") as refused:
        cross_fit(shared, Remembers)
    assert "--shared-passages" in refused.value.on_command_line
    assert cross_fit(shared, Remembers, settings=SplitSettings(by_passage=False)).folds == 5


def test_queries_that_are_one_question_make_no_folds():
    with pytest.raises(InputError, match="75 queries make no 5 folds: they are 1 groups"):
        cross_fit([Example("w1 asked", example.positives) for example in EXAMPLES], Remembers)


def test_a_fold_without_enough_to_learn_from_is_named():
    def fit(examples, hidden):
        if len(examples) < COUNT:
            raise TrainingError("too little")
        return Remembers(examples)

    with pytest.raises(TrainingError, match="without fold 1 of 5, 60 examples are left: too little"):
        cross_fit(EXAMPLES, fit)
