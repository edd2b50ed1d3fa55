"""Each measure equals scikit-learn's or scipy's on the same vectors, and refuses what it cannot measure."""

from __future__ import annotations

import random

import numpy as np
import pytest
from mteb_tasks import MixedEncoder, UnitEncoder, sentences
from scipy.stats import pearsonr, spearmanr
from sentence_transformers.util import paraphrase_mining_embeddings
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, ndcg_score
from sklearn.metrics.pairwise import cosine_similarity

from llama_index_embed_plus.errors import MissingExtraError, TextError
from llama_index_embed_plus.evaluate.tasks.labels import (
    ClassificationSettings,
    ClusteringSettings,
    classification,
    clustering,
)
from llama_index_embed_plus.evaluate.tasks.pairs import bitext_mining, duplicates, judge_pairs, pair_classification
from llama_index_embed_plus.evaluate.tasks.scores import (
    RerankingQuery,
    Summaries,
    reranking,
    semantic_similarity,
    summarisation,
)
from qdrant_tools.errors import InputError, UsageError, VectorError


@pytest.fixture
def encoder():
    return MixedEncoder()


class TableEncoder:
    """Every text is its own vector, from a table; the plainest encoder there is."""

    space, dimension = "table@000000000000", 2

    def __init__(self, **table: tuple[float, float]) -> None:
        self.table = table

    def encode_passages(self, texts):
        return np.array([self.table[text] for text in texts], np.float32)

    encode_queries = encode_passages


def test_similarity_is_scipys_with_ties_in_the_scores(encoder):
    left, _ = sentences(50, seed=1)
    right, _ = sentences(50, seed=2)
    gold = [float(n % 4) for n in range(50)]
    cosines = cosine_similarity(encoder.encode_passages(left), encoder.encode_passages(right)).diagonal()
    found = semantic_similarity(encoder, left, right, gold)
    assert found.spearman == pytest.approx(spearmanr(cosines, gold).statistic, abs=1e-6)
    assert found.pearson == pytest.approx(pearsonr(cosines, gold).statistic, abs=1e-6)
    assert found.pairs == 50


def test_the_role_says_which_prompt_is_used(encoder):
    left, _ = sentences(30, seed=1)
    right, _ = sentences(30, seed=2)
    gold = list(map(float, range(30)))
    cosines = cosine_similarity(encoder.encode_queries(left), encoder.encode_queries(right)).diagonal()
    found = semantic_similarity(encoder, left, right, gold, role="query")
    assert found.spearman == pytest.approx(spearmanr(cosines, gold).statistic, abs=1e-6)
    with pytest.raises(UsageError, match="role is 'document'"):
        semantic_similarity(encoder, left, right, gold, role="document")


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_judged_as_by_trying_every_threshold(seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, 60)
    scores = np.round(generator.normal(labels * 0.7, 1), 1)  # many ties
    found = judge_pairs(scores, labels)
    values = np.unique(scores)
    tried = {(low + high) / 2: scores > (low + high) / 2 for low, high in zip(values, values[1:])}
    assert found.ap == pytest.approx(average_precision_score(labels, scores))
    assert found.f1 == pytest.approx(max(f1_score(labels, said) for said in tried.values()))
    assert found.accuracy == pytest.approx(max((said == labels).mean() for said in tried.values()))
    assert f1_score(labels, scores > found.f1_threshold) == pytest.approx(found.f1)
    assert ((scores > found.accuracy_threshold) == labels).mean() == pytest.approx(found.accuracy)
    assert (found.pairs, found.positives) == (60, labels.sum())


def test_cosines_that_are_all_the_same_have_no_threshold():
    found = judge_pairs(np.ones(4), np.array([0, 1, 1, 0]))
    assert (found.f1, found.f1_threshold, found.accuracy, found.accuracy_threshold) == (0, None, 0, None)
    assert found.ap == 0.5


def test_classification_with_every_training_text_is_scikit_learns(encoder):
    train, topics = sentences(80, seed=3)
    test, wanted = sentences(40, seed=4)
    settings = ClassificationSettings(samples_per_label=1000, experiments=1)
    found = classification(encoder, (train, topics), (test, wanted), settings=settings)
    model = LogisticRegression(max_iter=100).fit(encoder.encode_passages(train), topics)
    assert found.accuracy == pytest.approx(model.score(encoder.encode_passages(test), wanted))
    assert (found.labels, found.train_texts, found.test_texts, found.unseen) == (5, 80, 40, 0)


def test_classification_counts_labels_that_were_never_learned_and_fits_that_did_not_finish(encoder):
    train, topics = sentences(60, seed=3)
    settings = ClassificationSettings(experiments=2, max_iter=1)
    found = classification(encoder, (train, topics), ([*train, "other"], [*topics, "new"]), settings=settings)
    assert (found.unseen, found.unconverged) == (1, 2)


def test_clustering_of_texts_that_lie_far_apart_finds_their_labels():
    encoder = TableEncoder(a=(1, 0), b=(0, 1), c=(1, 0.01), d=(0.01, 1))
    found = clustering(encoder, list("abcd"), ["x", "y", "x", "y"], settings=ClusteringSettings(sample=40))
    assert found.v_measure == pytest.approx(1) and (found.labels, found.texts) == (2, 4)


def test_reranking_is_average_precision_per_query_and_skips_what_cannot_be_ordered(encoder):
    texts, _ = sentences(40, seed=9)
    rows = [RerankingQuery(texts[n], tuple(texts[n + 1 : n + 4]), tuple(texts[n + 4 : n + 9])) for n in range(0, 27, 9)]
    labels = [1] * 3 + [0] * 5
    wanted, gains = [], []
    for row in rows:
        cosines = cosine_similarity(
            encoder.encode_queries([row.query]), encoder.encode_passages([*row.positives, *row.negatives])
        )
        wanted.append(average_precision_score(labels, cosines[0]))
        gains.append(ndcg_score([labels], cosines, k=10))
    found = reranking(encoder, [*rows, RerankingQuery("q", ("only",), ()), RerankingQuery("q", (), ("none",))])
    assert found.map == pytest.approx(np.mean(wanted)) and found.ndcg == pytest.approx(np.mean(gains))
    assert (found.queries, found.candidates, found.skipped) == (3, 24, 2)


def test_of_equal_cosines_the_irrelevant_one_is_first():
    encoder = TableEncoder(q=(1, 0), good=(0.6, 0.8), bad=(0.6, 0.8))
    assert reranking(encoder, [RerankingQuery("q", ("good",), ("bad",))]).map == 0.5


def test_bitext_mining_with_gold_rows_and_more_targets_than_sources():
    encoder = TableEncoder(one=(1, 0), two=(0, 1), eins=(1, 0.1), zwei=(0.1, 1), drei=(-1, 0))
    found = bitext_mining(encoder, ["one", "two"], ["drei", "zwei", "eins"], gold=[2, 1])
    assert (found.f1, found.precision, found.recall, found.accuracy, found.pairs) == (1, 1, 1, 1, 2)
    with pytest.raises(InputError, match="row 7, but there are 3 targets"):
        bitext_mining(encoder, ["one"], ["drei", "zwei", "eins"], gold=[7])


def families(count, seed=11):
    """Texts, some of them in two or three variants, and the family of each."""
    texts, _ = sentences(count, seed=seed)
    draw = random.Random(seed)
    found = [(text, n) for n, text in enumerate(texts)]
    for n, text in enumerate(texts[: count // 2]):
        found += [(" ".join([*draw.sample(text.split(), 6), f"v{variant}"]), n) for variant in range(1 + n % 2)]
    draw.shuffle(found)
    return [text for text, _ in found], [family for _, family in found]


def test_duplicates_are_judged_over_all_pairs(encoder):
    texts, groups = families(30)
    cosines = cosine_similarity(encoder.encode_passages(texts).astype(np.float64))
    first, second = np.triu_indices(len(texts), 1)
    same = np.asarray(groups)[first] == np.asarray(groups)[second]
    found = duplicates(encoder, texts, groups)
    assert found.ap == pytest.approx(average_precision_score(same, cosines[first, second]))
    assert found.f1 == pytest.approx(f1_score(same, cosines[first, second] >= found.threshold - 1e-9))
    tried = [f1_score(same, cosines[first, second] >= value) for value in cosines[first, second][same]]
    assert found.f1 == pytest.approx(max(tried))
    assert (found.pairs, found.texts, found.beyond) == (same.sum(), len(texts), 0)


def test_duplicate_retrieval_is_average_precision_over_the_other_texts(encoder):
    texts, groups = families(30)
    cosines = cosine_similarity(encoder.encode_passages(texts).astype(np.float64))
    wanted, ranks = [], []
    for row, group in enumerate(groups):
        others = [column for column in range(len(texts)) if column != row]
        same = [groups[column] == group for column in others]
        if any(same):
            wanted.append(average_precision_score(same, cosines[row, others]))
            ranks.append(1 / (1 + np.argmax(np.asarray(same)[np.argsort(-cosines[row, others])])))
    found = duplicates(encoder, texts, groups)
    assert found.map == pytest.approx(np.mean(wanted)) and found.mrr == pytest.approx(np.mean(ranks))


def test_duplicates_among_few_neighbours_are_those_of_sentence_transformers(encoder):
    texts, groups = families(40)
    mined = paraphrase_mining_embeddings(encoder.encode_passages(texts), top_k=3, max_pairs=10_000)
    hits, total, pairs = 0, 0.0, sum(groups.count(g) * (groups.count(g) - 1) for g in set(groups)) // 2
    for rank, (_, first, second) in enumerate(mined, start=1):
        if groups[first] == groups[second]:
            hits += 1
            total += hits / rank
    found = duplicates(encoder, texts, groups, top_k=3)
    assert found.ap == pytest.approx(total / pairs)
    assert found.beyond == pairs - hits


def test_texts_that_are_equal_count_as_pairs_of_equal_cosine():
    encoder = TableEncoder(a=(1, 0), b=(1, 0), c=(1, 0), far=(-1, 0.2))
    found = duplicates(encoder, ["a", "b", "c", "far"], ["g", "g", "h", "i"])
    assert found.ap == pytest.approx(1 / 3)  # three pairs tie, one of them is right
    assert found.map == 0.5


def test_summarisation_takes_the_nearest_human_summary():
    encoder = TableEncoder(h1=(1, 0), h2=(0, 1), near=(0.1, 1), half=(0.5, 1), far=(-1, -1))
    rows = [Summaries(("h1", "h2"), ("near", "half", "far"), (5, 3, 1))]
    found = summarisation(encoder, rows)
    assert found.spearman == pytest.approx(1) and (found.texts, found.skipped) == (1, 0)


LEFT, RIGHT = ["a b", "c d"], ["a c", "b d"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda e: semantic_similarity(e, LEFT, RIGHT, [1.0, "2.0"]), "value 1 is '2.0', expected a finite number"),
        (lambda e: semantic_similarity(e, LEFT, RIGHT, [1.0, float("nan")]), "value 1 is nan"),
        (lambda e: semantic_similarity(e, LEFT, RIGHT, [1.0, True]), "value 1 is True"),
        (lambda e: semantic_similarity(e, LEFT, RIGHT, [1.0]), "1 values for 2 rows"),
        (lambda e: semantic_similarity(e, LEFT, RIGHT[:1], [1.0, 2.0]), "1 values for 2 rows"),
        (lambda e: semantic_similarity(e, LEFT, RIGHT, [2.0, 2.0]), "all 2 scores are 2: there is no correlation"),
        (lambda e: semantic_similarity(e, LEFT[:1], RIGHT[:1], [2.0]), "1 pairs, expected at least two"),
        (lambda e: pair_classification(e, LEFT, RIGHT, [1, 2]), "label 1 is 2, expected 0 or 1"),
        (lambda e: pair_classification(e, LEFT, RIGHT, [1, None]), "label 1 is None"),
        (lambda e: pair_classification(e, LEFT, RIGHT, [1, 1]), "all 2 are 1, expected some of each kind"),
        (lambda e: classification(e, (LEFT, ["x", ""]), (RIGHT, ["x", "y"])), "training labels: label 1 is ''"),
        (lambda e: classification(e, (LEFT, ["x", "x"]), (RIGHT, ["x", "y"])), r"only \['x'\], expected at least two"),
        (lambda e: classification(e, (LEFT, ["x", "y"]), (RIGHT, [1, 2])), "such as 'x', test labels such as 1"),
        (lambda e: classification(e, (LEFT, ["x", 3]), (RIGHT, [1, 2])), "label 1 is 3, label 0 is 'x'"),
        (lambda e: clustering(e, LEFT, ["x", "x"]), "expected at least two different ones"),
        (lambda e: clustering(e, LEFT, ["x", "y"], settings=ClusteringSettings(sample=1)), "sample is 1"),
        (lambda e: ClusteringSettings(experiments=0), "experiments is 0"),
        (lambda e: ClassificationSettings(max_iter=0), "max_iter is 0"),
        (lambda e: reranking(e, [RerankingQuery("q", ("a",), ())]), "none of 1 queries has a positive and a negative"),
        (lambda e: bitext_mining(e, LEFT, RIGHT[:1]), "1 values for 2 rows"),
        (lambda e: duplicates(e, LEFT, [1, 2]), "no two of the 2 texts are in one group"),
        (lambda e: duplicates(e, LEFT, [1, 1], top_k=0), "top_k is 0"),
        (lambda e: summarisation(e, [Summaries(("a",), ("b", "c"), (1.0,))]), "scores of text 0: 1 values for 2 rows"),
        (lambda e: summarisation(e, [Summaries((), ("b",), (1.0,))]), "text 0 has no human summaries"),
        (lambda e: summarisation(e, [Summaries(("a",), ("b", "c"), (1.0, 1.0))]), "nothing to correlate"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_place(encoder, wrong, message):
    with pytest.raises(InputError, match=message):
        wrong(encoder)


@pytest.mark.parametrize("bad", ["", " ", None, 3])
def test_an_empty_text_is_refused_with_its_place(encoder, bad):
    with pytest.raises(TextError, match="right texts: text 1 is"):
        semantic_similarity(encoder, LEFT, ["a c", bad], [1.0, 2.0])
    with pytest.raises(TextError, match="expected a list of at least one text"):
        semantic_similarity(encoder, [], [], [])


@pytest.mark.parametrize(("value", "message"), [(np.nan, "row 1 holds NaN"), (0.0, "row 1 is all zeros")])
def test_a_vector_that_cannot_be_compared_is_refused_with_its_row(value, message):
    encoder = UnitEncoder()
    encode = encoder.encode_passages

    def broken(texts):
        vectors = encode(texts).copy()
        vectors[1] = value
        return vectors

    encoder.encode_passages = broken
    for measure in (
        lambda: semantic_similarity(encoder, LEFT, RIGHT, [1.0, 2.0]),
        lambda: clustering(encoder, LEFT, ["x", "y"]),
        lambda: duplicates(encoder, LEFT, [1, 1]),
        lambda: bitext_mining(encoder, LEFT, RIGHT),
    ):
        with pytest.raises(VectorError, match=message):
            measure()


def test_without_scikit_learn_the_extra_is_named(encoder, monkeypatch):
    monkeypatch.setattr("llama_index_embed_plus.evaluate.tasks.inputs.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"llama-index-embed-plus\[eval\]"):
        semantic_similarity(encoder, LEFT, RIGHT, [1.0, 2.0])
