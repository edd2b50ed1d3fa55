"""Every loss is what its paper says: values against references written out here, in loops."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from models import TEXTS, save_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer import losses as library
from sentence_transformers.sentence_transformer.modules import Normalize

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.losses.build import _BUILDERS, build_loss
from llama_index_embed_plus.training.losses.catalogue import LOSSES, LossOptions
from llama_index_embed_plus.training.settings import LoraSettings
from llama_index_embed_plus.training.trainer.setup import add_lora
from qdrant_tools.errors import UsageError

QUERIES = ["what is the cat ?", "red bird", "the slow river : stone", "dog runs", "two blue trees under a stone"]
POSITIVES = ["the cat sleeps", "a red bird in a tree .", "river stone", "a fast dog runs and runs", "blue tree two"]
NEGATIVES = ["the dog sleeps", "blue bird", "one tree", "the cat", "three red stones over the bird ."]
OTHERS = ["fast fast", "a document", "search for the river", "not a dog", "what ?"]
WEIGHTS = torch.tensor([2.0, 0.5, 1.0, 3.0, 1.0])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny real encoder in double precision, without dropout; its vectors are not of unit length."""
    return save_model(tmp_path_factory.mktemp("losses") / "model").double().eval()


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("losses") / "guide", seed=7).double().eval()


def features(model, *columns):
    return [model.preprocess(list(texts)) for texts in columns]


def vectors(model, texts):
    with torch.no_grad():
        return model(model.preprocess(list(texts)))["sentence_embedding"]


def value(model, name, columns, labels=None, **options):
    return build_loss(name, model, LossOptions(**options))(features(model, *columns), labels)


def gradients(model, name, columns, labels=None, **options):
    model.zero_grad()
    value(model, name, columns, labels, **options).backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def cos(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


def distance(a, b, kind):
    return 1 - cos(a, b) if kind == "cosine" else float((a - b).pow(2).sum().sqrt())


def softmax_loss(own, scores):
    return -math.log(math.exp(own) / sum(math.exp(score) for score in scores))


def rank_rows(anchors, candidates, scale):
    """Loss of each row, whose positive is the candidate of its number."""
    return [
        softmax_loss(scale * cos(a, candidates[i]), [scale * cos(a, c) for c in candidates])
        for i, a in enumerate(anchors)
    ]


def weighted_mean(rows, weights=None):
    weights = [1.0] * len(rows) if weights is None else weights.tolist()
    return sum(w * row for w, row in zip(weights, rows, strict=True)) / sum(weights)


def number(found):
    return float(found.detach()) if torch.is_tensor(found) else float(found)


def near(found, wanted):
    return number(found) == pytest.approx(number(wanted), abs=1e-5)


RANKING = ("multiple_negatives", "cached_multiple_negatives", "infonce")


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("name", RANKING)
def test_the_ranking_losses_pick_the_positive_among_every_passage_of_the_batch(model, name, weights):
    candidates = torch.cat([vectors(model, texts) for texts in (POSITIVES, NEGATIVES, OTHERS)])
    for given, scale in (({}, 20.0), ({"temperature": 0.1}, 10.0), ({"scale": 3.0}, 3.0)):
        rows = rank_rows(vectors(model, QUERIES), candidates, scale)
        found = value(model, name, (QUERIES, POSITIVES, NEGATIVES, OTHERS), weights, **given)
        assert near(found, weighted_mean(rows, weights))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("name", RANKING)
def test_symmetric_adds_the_way_back_half_and_half(model, name, weights):
    queries, positives, negatives = (vectors(model, texts) for texts in (QUERIES, POSITIVES, NEGATIVES))
    forth = rank_rows(queries, torch.cat([positives, negatives]), 20.0)
    back = rank_rows(positives, queries, 20.0)
    wanted = weighted_mean([(a + b) / 2 for a, b in zip(forth, back, strict=True)], weights)
    assert near(value(model, name, (QUERIES, POSITIVES, NEGATIVES), weights, symmetric=True), wanted)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_ntxent_ranks_each_side_of_a_pair_among_all_other_texts(model, weights):
    a, b = vectors(model, QUERIES), vectors(model, POSITIVES)
    both, count = torch.cat([a, b]), len(a)
    rows = [
        softmax_loss(
            5 * cos(both[i], both[(i + count) % (2 * count)]),
            [5 * cos(both[i], both[k]) for k in range(2 * count) if k != i],
        )
        for i in range(2 * count)
    ]
    wanted = weighted_mean(rows, None if weights is None else weights.repeat(2))
    assert near(value(model, "ntxent", (QUERIES, POSITIVES), weights, temperature=0.2), wanted)


@pytest.mark.parametrize("kind", ["absolute", "relative"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("name", ["guided", "cached_guided"])
def test_the_guide_takes_out_what_it_holds_closer_than_the_positive(model, guide, name, weights, kind):
    student = [vectors(model, texts) for texts in (QUERIES, POSITIVES, NEGATIVES)]
    judged = [vectors(guide, texts) for texts in (QUERIES, POSITIVES, NEGATIVES)]
    margin, rows, removed = 0.05, [], 0
    for i in range(len(QUERIES)):
        bar = cos(judged[0][i], judged[1][i])
        bar -= margin if kind == "absolute" else abs(bar) * margin
        own = cos(student[0][i], student[1][i]) / 0.1
        scores = [own]
        for left, right in ((0, 1), (0, 0), (1, 1), (0, 2)):
            for j in range(len(QUERIES)):
                if (left, right, j) == (0, 1, i):
                    continue
                if cos(judged[left][i], judged[right][j]) > bar:
                    removed += left != right
                else:
                    scores.append(cos(student[left][i], student[right][j]) / 0.1)
        rows.append(softmax_loss(own, scores))
    assert removed  # the guide did something
    found = value(
        model, name, (QUERIES, POSITIVES, NEGATIVES), weights, guide=guide, temperature=0.1, margin=margin,
        margin_kind=kind,
    )  # fmt: skip
    assert near(found, weighted_mean(rows, weights))


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_triplet(model, kind, weights):
    q, p, n = (vectors(model, texts) for texts in (QUERIES, POSITIVES, NEGATIVES))
    rows = [max(0.0, distance(a, b, kind) - distance(a, c, kind) + 0.2) for a, b, c in zip(q, p, n, strict=True)]
    assert any(rows) and near(
        value(model, "triplet", (QUERIES, POSITIVES, NEGATIVES), weights, margin=0.2, distance=kind),
        weighted_mean(rows, weights),
    )


TEXT_COLUMN = [*QUERIES, *POSITIVES[:3]]
CLASSES = torch.tensor([0, 1, 0, 2, 1, 0, 2, 1])


def batch_distances(model, kind):
    found = vectors(model, TEXT_COLUMN)
    table = [[distance(a, b, kind) if i != j else 0.0 for j, b in enumerate(found)] for i, a in enumerate(found)]
    labels = CLASSES.tolist()
    alike = [[j for j in range(8) if j != i and labels[j] == labels[i]] for i in range(8)]
    apart = [[j for j in range(8) if labels[j] != labels[i]] for i in range(8)]
    return table, alike, apart


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_batch_hard_triplets_take_the_farthest_friend_and_the_nearest_stranger(model, kind):
    d, alike, apart = batch_distances(model, kind)
    gaps = [max(d[i][j] for j in alike[i]) - min(d[i][j] for j in apart[i]) for i in range(8)]
    hard, soft = "batch_hard_triplet", "batch_hard_soft_margin_triplet"
    wanted = sum(max(0.0, gap + 0.1) for gap in gaps) / 8
    assert near(value(model, hard, [TEXT_COLUMN], CLASSES, margin=0.1, distance=kind), wanted)
    wanted = sum(math.log1p(math.exp(gap)) for gap in gaps) / 8
    assert near(value(model, soft, [TEXT_COLUMN], CLASSES, distance=kind), wanted)


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_batch_all_and_semi_hard_triplets(model, kind):
    d, alike, apart = batch_distances(model, kind)
    every = [d[i][p] - d[i][n] + 0.1 for i in range(8) for p in alike[i] for n in apart[i]]
    counted = [loss for loss in every if loss > 1e-16]
    assert near(
        value(model, "batch_all_triplet", [TEXT_COLUMN], CLASSES, margin=0.1, distance=kind),
        sum(counted) / len(counted),
    )
    rows = []
    for i in range(8):
        for p in alike[i]:
            outside = [d[i][n] for n in apart[i] if d[i][n] > d[i][p]]
            chosen = min(outside) if outside else max(d[i][n] for n in apart[i])
            rows.append(max(0.0, d[i][p] - chosen + 0.1))
    found = value(model, "batch_semi_hard_triplet", [TEXT_COLUMN], CLASSES, margin=0.1, distance=kind)
    assert near(found, sum(rows) / len(rows))


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_contrastive(model, kind):
    labels = torch.tensor([1.0, 0, 1, 0, 0])
    a, b = vectors(model, QUERIES), vectors(model, POSITIVES)
    rows = [
        0.5 * (y * d**2 + (1 - y) * max(0.0, 0.6 - d) ** 2)
        for y, d in zip(labels.tolist(), (distance(*pair, kind) for pair in zip(a, b, strict=True)), strict=True)
    ]
    found = value(model, "contrastive", (QUERIES, POSITIVES), labels, margin=0.6, distance=kind)
    # torch's Euclidean distance of pairs adds 1e-6 to each difference, against a gradient of infinity at 0
    assert number(found) == pytest.approx(sum(rows) / 5, abs=1e-5 if kind == "cosine" else 2e-5)


SCORES = torch.tensor([0.9, 0.1, 0.5, 0.5, -0.2])


def test_cosine_similarity_and_cosent(model):
    found = [cos(a, b) for a, b in zip(vectors(model, QUERIES), vectors(model, POSITIVES), strict=True)]
    labels = SCORES.tolist()
    squares = [(c - y) ** 2 for c, y in zip(found, labels, strict=True)]
    assert near(value(model, "cosine_similarity", (QUERIES, POSITIVES), SCORES), sum(squares) / 5)
    wrong = [
        math.exp((found[j] - found[i]) * 8) for i in range(5) for j in range(5) if labels[i] > labels[j]
    ]  # 9 of 10 pairs: two scores are equal
    assert len(wrong) == 9
    assert near(value(model, "cosent", (QUERIES, POSITIVES), SCORES, temperature=0.125), math.log(1 + sum(wrong)))


def test_margin_mse_with_one_negative_and_with_several(model):
    q, p, n, o = (vectors(model, texts) for texts in (QUERIES, POSITIVES, NEGATIVES, OTHERS))
    taught = torch.linspace(-1, 3, 10).reshape(5, 2)

    def gap(i, negatives):
        return 0.7 * float(q[i] @ p[i] - q[i] @ negatives[i])

    one = [(gap(i, n) - float(taught[i, 0])) ** 2 for i in range(5)]
    two = [(gap(i, o) - float(taught[i, 1])) ** 2 for i in range(5)]
    columns = (QUERIES, POSITIVES, NEGATIVES)
    assert near(value(model, "margin_mse", columns, taught[:, :1], scale=0.7), sum(one) / 5)
    assert near(value(model, "margin_mse", (*columns, OTHERS), taught, scale=0.7), (sum(one) + sum(two)) / 10)


_WEIGHTED = {
    "multiple_negatives": (QUERIES, POSITIVES, NEGATIVES),
    "cached_multiple_negatives": (QUERIES, POSITIVES, NEGATIVES),
    "ntxent": (QUERIES, POSITIVES),
    "triplet": (QUERIES, POSITIVES, NEGATIVES),
}


@pytest.mark.parametrize("name", _WEIGHTED)
def test_a_batch_of_which_no_row_counts_teaches_nothing_and_a_negative_weight_is_refused(model, name):
    assert near(value(model, name, _WEIGHTED[name], torch.zeros(5)), 0.0)
    assert not near(value(model, name, _WEIGHTED[name], torch.ones(5)), 0.0)
    slopes = gradients(model, name, _WEIGHTED[name], torch.zeros(5))
    assert all(float(slope.abs().max()) == 0.0 for slope in slopes)
    with pytest.raises(TrainingError, match="a row has the weight -1.0, expected 0 or more"):
        value(model, name, _WEIGHTED[name], -torch.ones(5))


def test_simcse_is_a_text_beside_itself_and_dropout_makes_two_views_of_it(model):
    found = vectors(model, TEXTS)
    assert near(value(model, "simcse", (TEXTS, TEXTS)), sum(rank_rows(found, found, 20.0)) / len(TEXTS))
    training = copy.deepcopy(model).train()
    torch.manual_seed(3)
    with_dropout = value(training, "simcse", (TEXTS, TEXTS))
    torch.manual_seed(3)
    with torch.no_grad():
        first, second = (training(training.preprocess(TEXTS))["sentence_embedding"] for _ in range(2))
    assert not torch.allclose(first, second)
    assert near(with_dropout, sum(rank_rows(first, second, 20.0)) / len(TEXTS))


def test_simcse_refuses_a_model_without_dropout(model):
    dry = copy.deepcopy(model)
    for module in dry.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with pytest.raises(UsageError, match="apart by dropout, and this model has none"):
        build_loss("simcse", dry)


def test_contrastive_tension_is_the_sum_of_binary_cross_entropies_of_two_copies(model):
    same = [1.0, 0, 0, 1, 0]
    second = [q if y else p for q, p, y in zip(QUERIES, POSITIVES, same, strict=True)]
    products = [float(a @ b) for a, b in zip(vectors(model, QUERIES), vectors(model, second), strict=True)]
    rows = [math.log1p(math.exp(-z if y else z)) for z, y in zip(products, same, strict=True)]
    assert near(value(model, "contrastive_tension", (QUERIES, second), torch.tensor(same)), sum(rows))


def test_contrastive_tension_takes_the_product_before_vectors_get_unit_length_and_trains_the_model_itself(model):
    unit = SentenceTransformer(modules=[*copy.deepcopy(model), Normalize()])
    loss = build_loss("contrastive_tension", unit)
    same = torch.tensor([1.0, 0, 0, 1, 0])
    found = loss(features(unit, QUERIES, POSITIVES), same)

    assert near(found, value(model, "contrastive_tension", (QUERIES, POSITIVES), same).item())
    assert not near(found, library.ContrastiveTensionLoss(unit)(features(unit, QUERIES, POSITIVES), same))
    assert all(any(own is p for p in unit.parameters()) for own in loss.model2.parameters())


def test_contrastive_tension_with_in_batch_negatives_ranks_both_ways(model):
    found = vectors(model, TEXTS)
    rows = rank_rows(found, found, 20.0)  # both copies are still equal, so both ways are
    assert near(value(model, "contrastive_tension_in_batch", [TEXTS]), sum(rows) / len(rows))


def test_tsdae_is_the_mean_surprise_of_the_next_token_given_the_damaged_texts_vector(tmp_path):
    tiny = save_model(tmp_path / "tsdae").eval()  # its own: encoder and decoder share their weights
    loss = build_loss("tsdae", tiny).eval()
    damaged, whole = features(tiny, ["cat tree", "a"], ["the cat sleeps under the tree .", "a dog"])
    with torch.no_grad():
        found = loss([dict(damaged), dict(whole)], None)
        vector = tiny(dict(damaged))["sentence_embedding"]
        ids = whole["input_ids"]
        logits = loss.decoder(input_ids=ids[:, :-1], encoder_hidden_states=vector[:, None]).logits
    rows = []
    for text, scores in zip(ids.tolist(), logits, strict=True):
        for token, row in zip(text[1:], scores.tolist(), strict=True):
            if token != tiny.tokenizer.pad_token_id:
                rows.append(softmax_loss(row[token], row))
    assert near(found, sum(rows) / len(rows))


CACHED = {"cached_multiple_negatives": "multiple_negatives", "cached_guided": "guided"}


@pytest.mark.parametrize("options", [{}, {"dims": (8, 32), "dim_weights": (0.5, 2.0)}], ids=["plain", "matryoshka"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(("cached", "plain"), CACHED.items())
def test_a_cached_loss_has_the_value_and_the_gradients_of_the_whole_batch(
    model, guide, cached, plain, weights, options
):
    columns = (QUERIES, POSITIVES, NEGATIVES)
    options = options | ({"guide": guide} if "guided" in plain else {})
    whole = value(model, plain, columns, weights, **options)
    wanted = gradients(model, plain, columns, weights, **options)
    assert len(wanted) > 20
    for tokens in (1, 12, 10_000):  # a text at a time, a few, all at once
        assert near(value(model, cached, columns, weights, tokens_at_once=tokens, **options), whole)
        found = gradients(model, cached, columns, weights, tokens_at_once=tokens, **options)
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-7)


def test_a_cached_loss_cuts_its_table_of_scores_where_it_likes(model):
    columns = (QUERIES, POSITIVES, NEGATIVES)
    wanted = gradients(model, "multiple_negatives", columns, WEIGHTS)
    for rows in (1, 2, 4):
        loss = build_loss("cached_multiple_negatives", model)
        loss.mini_batch_size = rows
        model.zero_grad()
        loss(features(model, *columns), WEIGHTS).backward()
        found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-7)


def test_accumulated_small_batches_are_another_loss_than_one_large_one(model):
    halves = [value(model, "multiple_negatives", (QUERIES[i : i + 2], POSITIVES[i : i + 2])) for i in (0, 2)]
    whole = value(model, "multiple_negatives", (QUERIES[:4], POSITIVES[:4]))
    assert number(sum(halves) / 2) < number(whole)  # fewer negatives: easier


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("multiple_negatives", library.MultipleNegativesRankingLoss),
        ("cached_multiple_negatives", library.CachedMultipleNegativesRankingLoss),
        ("triplet", None),
        ("guided", None),
    ],
)
def test_equal_weights_give_the_librarys_value_to_the_last_bit(model, guide, name, plain):
    columns, options = (QUERIES, POSITIVES, NEGATIVES), {"guide": guide} if name == "guided" else {}
    built = {
        "triplet": lambda: library.TripletLoss(model, library.TripletDistanceMetric.COSINE, 0.3),
        "guided": lambda: library.GISTEmbedLoss(model, guide),
    }.get(name, lambda: plain(model))()
    wanted = built(features(model, *columns), None)
    for labels in (None, torch.full((5,), 0.3), torch.ones(5)):
        assert torch.equal(value(model, name, columns, labels, **options), wanted)


def test_a_weight_of_two_is_a_row_counted_twice_among_the_same_candidates(model):
    twice = torch.tensor([2.0, 1, 1, 1, 1])
    candidates = torch.cat([vectors(model, POSITIVES), vectors(model, NEGATIVES)])
    rows = rank_rows(vectors(model, QUERIES), candidates, 20.0)
    found = value(model, "multiple_negatives", (QUERIES, POSITIVES, NEGATIVES), twice)
    assert near(found, sum([rows[0], *rows]) / 6)
    # A repeated row would be its own negative: another loss, and a wrong one.
    columns = tuple([texts[0], *texts] for texts in (QUERIES, POSITIVES, NEGATIVES))
    assert number(value(model, "multiple_negatives", columns)) > number(found) + 0.01
    # Where rows do not meet, a weight of two is the repeated row.
    assert near(value(model, "triplet", (QUERIES, POSITIVES, NEGATIVES), twice), value(model, "triplet", columns))


def test_a_row_of_weight_0_is_still_a_negative_and_a_negative_weight_is_refused(model):
    rows = rank_rows(vectors(model, QUERIES), vectors(model, POSITIVES), 20.0)
    found = value(model, "multiple_negatives", (QUERIES, POSITIVES), torch.tensor([0.0, 1, 1, 1, 1]))
    assert near(found, sum(rows[1:]) / 4)
    with pytest.raises(TrainingError, match=r"weight -1\.0, expected 0 or more"):
        value(model, "multiple_negatives", (QUERIES, POSITIVES), torch.tensor([-1.0, 1, 1, 1, 1]))


SUPERVISED = {
    "contrastive": ((QUERIES, POSITIVES), torch.tensor([1.0, 0, 1, 0, 0])),
    "cosine_similarity": ((QUERIES, POSITIVES), SCORES),
    "cosent": ((QUERIES, POSITIVES), SCORES),
    "margin_mse": ((QUERIES, POSITIVES, NEGATIVES), torch.linspace(-1, 1, 5)),
    "ntxent": ((QUERIES, POSITIVES), WEIGHTS),
    "simcse": ((TEXTS, TEXTS), None),
    **{name: ([TEXT_COLUMN], CLASSES) for name in LOSSES if name.startswith("batch_")},
}


@pytest.mark.parametrize("name", [name for name, facts in LOSSES.items() if facts.matryoshka])
def test_matryoshka_is_the_sum_over_dims_of_the_loss_of_the_first_components_at_unit_length(model, guide, name):
    columns, labels = SUPERVISED.get(name, ((QUERIES, POSITIVES, NEGATIVES), WEIGHTS))
    options = {"guide": guide} if "guided" in name else {}

    class Cut(torch.nn.Module):
        """The same encoder, its vectors cut to the first components and brought to unit length."""

        def __init__(self, whole, dimension):
            super().__init__()
            self.whole, self.dimension = whole, dimension

        def forward(self, *given):
            output = self.whole(*given)
            short = torch.nn.functional.normalize(output["sentence_embedding"][:, : self.dimension], dim=-1)
            return {**output, "sentence_embedding": short}

    wanted = 0.0
    for dimension, weight in ((8, 0.25), (20, 1.0), (32, 2.0)):
        loss = build_loss(name, model, LossOptions(**options))
        for holder in (loss, *loss.children()):  # the encoder inside, under whatever name the library keeps it
            for attribute in ("model", "sentence_embedder"):
                if getattr(holder, attribute, None) is model:
                    holder._modules[attribute] = Cut(model, dimension)
        wanted = wanted + weight * loss(features(model, *columns), labels)
    found = value(model, name, columns, labels, dims=(20, 8, 32), dim_weights=(1.0, 0.25, 2.0), **options)
    assert near(found, wanted) and number(found) > 0


def test_every_name_has_facts_and_a_builder_and_every_fact_is_said():
    assert list(LOSSES) == list(_BUILDERS) and all(name == facts.name for name, facts in LOSSES.items())
    assert all(facts.formula and facts.source and facts.shape and facts.needs for facts in LOSSES.values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnrl", {}, "loss is 'mnrl', expected one of multiple_negatives, cached_"),
        ("triplet", {"temperature": 0.1}, "'triplet' takes no option 'temperature', only: dim_weights, dims, distance"),
        ("cosent", {"tokens_at_once": 64}, "takes no option 'tokens_at_once'"),
        ("tsdae", {"dims": (8,)}, "'tsdae' takes no option 'dims', only: none"),
        ("guided", {}, "needs a guide"),
        ("multiple_negatives", {"dims": (8, 64)}, "dims has 64, and the model's vectors have 32"),
    ],
)
def test_what_a_loss_cannot_honour_is_refused(model, name, options, message):
    with pytest.raises(UsageError, match=message):
        build_loss(name, model, LossOptions(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.05, "scale": 20.0}, "both given"),
        ({"temperature": 0.0}, "temperature is 0.0, expected a number above 0"),
        ({"scale": math.inf}, "scale is inf"),
        ({"margin": -0.1}, "margin is -0.1, expected 0 or more"),
        ({"distance": "manhattan"}, "distance is 'manhattan', expected one of cosine, euclidean"),
        ({"dims": ()}, "dims is"),
        ({"dims": (8, 8)}, "expected different whole numbers"),
        ({"dims": (8, 16), "dim_weights": (1.0,)}, "dim_weights has 1 numbers for 2 dims"),
    ],
)
def test_options_are_checked_when_they_are_made(options, message):
    with pytest.raises(UsageError, match=message):
        LossOptions(**options)


def test_options_of_a_run_go_only_to_the_losses_that_take_them():
    run = {"tokens_at_once": 64, "gather_across_devices": True}
    assert LossOptions.of("triplet", {"margin": 0.1}, **run) == LossOptions(margin=0.1)
    assert LossOptions.of("cached_guided", {"dims": [8, 16]}, **run) == LossOptions(dims=(8, 16), **run)
    with pytest.raises(UsageError, match="option 'temprature' is unknown, expected one of temperature"):
        LossOptions.of("infonce", {"temprature": 0.1}, **run)
    with pytest.raises(UsageError, match="takes no option 'guide'"):
        LossOptions.of("infonce", {"guide": "folder"})


def test_a_model_that_a_loss_cannot_train_is_refused_in_one_line(tmp_path):
    tiny = save_model(tmp_path / "nomic", family="nomic_bert")  # has no decoder in transformers
    with pytest.raises(UsageError, match="'tsdae' cannot train this model"):
        build_loss("tsdae", tiny)


def test_tsdae_refuses_lora_which_would_keep_the_weights_that_it_shares(tmp_path):
    tiny = save_model(tmp_path / "model")
    add_lora(tiny, LoraSettings(rank=2), seed=0)
    with pytest.raises(UsageError, match="one set of weights, which LoRA would keep: use method 'full'"):
        build_loss("tsdae", tiny)


def test_tsdae_refuses_vectors_of_another_size_than_the_decoder_reads(tmp_path):
    tiny = save_model(tmp_path / "model", extra=[Dense(32, 8)])
    with pytest.raises(UsageError, match="rebuilds texts from vectors of 32 numbers, this model gives 8"):
        build_loss("tsdae", tiny)


def test_the_guide_is_frozen_and_read_from_a_folder(model, tmp_path):
    save_model(tmp_path / "guide", seed=7)
    loss = build_loss("guided", model, replace(LossOptions(), guide=tmp_path / "guide"))
    assert not loss.guide.training and not any(p.requires_grad for p in loss.guide.parameters())
