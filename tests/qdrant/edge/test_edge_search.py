"""Search with the embedded engine: HNSW and quantisation against exact search, and queries by the numbers."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import connect
from qdrant_tools.errors import CollectionNotFoundError, InputError, NotSupportedError

POINT = models.PointStruct
ROWS, SIZE = 3000, 64
EAGER = {
    "hnsw_config": models.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10),
    "optimizers_config": models.OptimizersConfigDiff(indexing_threshold=10),
}


def clustered(rows, seed):
    """Points around 50 centres: like texts, unlike noise, near neighbours are much nearer than the rest."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(50, SIZE))
    return (centres[rng.integers(50, size=rows)] + 0.4 * rng.normal(size=(rows, SIZE))).astype(np.float32)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    client = connect(tmp_path_factory.mktemp("indexed"))
    cosine = models.VectorParams(size=SIZE, distance=models.Distance.COSINE)
    int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
    client.create_collection("plain", cosine, **EAGER)
    client.create_collection("int8", cosine, **EAGER, quantization_config=models.ScalarQuantization(scalar=int8))
    for name in ("plain", "int8"):
        client.create_payload_index(name, "part", "integer")
        client.upload_collection(
            name, clustered(ROWS, 1), payload=[{"part": i % 100} for i in range(ROWS)], ids=range(ROWS)
        )
        assert client.get_collection(name).indexed_vectors_count == ROWS
    yield client
    client.close()


def recall(client, name, params, condition=None):
    """Mean recall@10 against exact search, over 100 queries."""
    hits_in_common = 0
    for query in clustered(100, 2):
        arguments = {"limit": 10, "with_payload": False, "query_filter": condition}
        exact = client.query_points("plain", query, search_params=models.SearchParams(exact=True), **arguments).points
        hits = client.query_points(name, query, search_params=params, **arguments).points
        hits_in_common += len({hit.id for hit in hits} & {hit.id for hit in exact})
    return hits_in_common / 1000


def test_hnsw_finds_nearly_what_exact_search_finds(indexed):
    narrow, wide = (recall(indexed, "plain", models.SearchParams(hnsw_ef=ef)) for ef in (8, 128))
    assert wide >= 0.98
    assert narrow < wide


def test_quantised_search_with_rescoring_does_too(indexed):
    rescored = models.QuantizationSearchParams(rescore=True, oversampling=2.0)
    assert recall(indexed, "int8", models.SearchParams(hnsw_ef=128, quantization=rescored)) >= 0.98


def test_filtered_search_uses_the_index_and_stays_right(indexed):
    one_percent = models.Filter(must=[models.FieldCondition(key="part", match=models.MatchValue(value=7))])
    assert recall(indexed, "plain", models.SearchParams(hnsw_ef=128), one_percent) == 1.0


def test_search_parameters_may_be_a_dict(indexed):
    query = clustered(1, 3)[0]
    hits = indexed.query_points("plain", query, search_params={"exact": True}).points
    assert hits == indexed.query_points("plain", query, search_params=models.SearchParams(exact=True)).points


def test_a_batch_of_queries_answers_as_the_single_ones_do(indexed):
    queries = clustered(20, 4)
    exact = models.SearchParams(exact=True)
    batch = indexed.query_batch_points(
        "plain", [models.QueryRequest(query=q.tolist(), limit=3, params=exact, with_payload=True) for q in queries]
    )
    for answer, query in zip(batch, queries, strict=True):
        assert answer.points == indexed.query_points("plain", query, limit=3, search_params=exact).points


@pytest.fixture
def four(client):
    """Four points on two axes, named by id."""
    both = models.VectorParams(size=2, distance=models.Distance.DOT)
    client.create_collection("four", {"a": both, "b": both})
    rows = {1: ([4, 0], [1, 0]), 2: ([3, 0], [4, 0]), 3: ([2, 0], [3, 0]), 4: ([1, 0], [2, 0])}
    client.upsert("four", [POINT(id=i, vector={"a": a, "b": b}, payload={"n": i}) for i, (a, b) in rows.items()])
    return client


def scores(response):
    return {point.id: round(point.score, 4) for point in response.points}


def prefetch(using, limit=2):
    return models.Prefetch(query=[1.0, 0.0], using=using, limit=limit)


def test_reciprocal_ranks_start_at_zero_and_the_constant_is_two(four):
    # by a: 1, 2; by b: 2, 3
    fused = four.query_points(
        "four", models.FusionQuery(fusion=models.Fusion.RRF), prefetch=[prefetch("a"), prefetch("b")]
    )
    assert scores(fused) == {1: 1 / 2, 2: round(1 / 3 + 1 / 2, 4), 3: round(1 / 3, 4)}


def test_reciprocal_ranks_with_a_given_constant(four):
    rrf = models.RrfQuery(rrf=models.Rrf(k=60))
    fused = four.query_points("four", rrf, prefetch=[prefetch("a"), prefetch("b")])
    assert scores(fused)[2] == round(1 / 61 + 1 / 60, 4)


def test_distribution_based_fusion_adds_normalised_scores(four):
    # within each source: (score - (mean - 3 sigma)) / (6 sigma), sigma of the sample
    sigma = np.std([4, 3], ddof=1)
    top, second = ((x - (3.5 - 3 * sigma)) / (6 * sigma) for x in (4, 3))
    fused = four.query_points(
        "four", models.FusionQuery(fusion=models.Fusion.DBSF), prefetch=[prefetch("a"), prefetch("b")]
    )
    assert scores(fused) == pytest.approx({1: top, 2: second + top, 3: second}, abs=1e-3)


def test_a_formula_computes_scores(four):
    formula = models.SumExpression(sum=["$score", models.MultExpression(mult=[0.5, "n"])])
    response = four.query_points("four", models.FormulaQuery(formula=formula), prefetch=prefetch("a", 4))
    assert scores(response) == {1: 4.5, 2: 4.0, 3: 3.5, 4: 3.0}


def test_a_formula_over_text_is_an_error_that_says_so(four):
    four.set_payload("four", {"n": "text"}, points=[1])
    with pytest.raises(InputError, match="no number"):
        four.query_points("four", models.FormulaQuery(formula="n"), prefetch=prefetch("a", 4))


@pytest.mark.parametrize(
    "formula",
    [
        models.Log10Expression(log10=models.NegExpression(neg="n")),
        models.SqrtExpression(sqrt=-1.0),
        models.LnExpression(ln=0.0),
        models.DivExpression(div=models.DivParams(left=1.0, right=0.0)),
        models.ExpExpression(exp=1000.0),
    ],
    ids=lambda formula: type(formula).__name__,
)
def test_a_formula_that_leaves_the_numbers_is_an_error_that_says_so(four, formula):
    with pytest.raises(InputError, match="a logarithm or a root of a negative number"):
        four.query_points("four", models.FormulaQuery(formula=formula), prefetch=prefetch("a", 4))


NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", NOT_FINITE)
def test_numbers_that_are_not_finite_are_refused_wherever_a_query_has_one(four, bad):
    feedback = models.RelevanceFeedbackInput(
        target=[1.0, 0.0],
        feedback=[models.FeedbackItem(example=1, score=bad)],
        strategy=models.NaiveFeedbackStrategy(naive=models.NaiveFeedbackStrategyParams(a=1.0, b=1.0, c=1.0)),
    )
    decay = models.DecayParamsExpression(x="n", scale=bad)
    by_zero = models.DivExpression(div=models.DivParams(left="n", right=0.0, by_zero_default=bad))
    merged = [
        models.FormulaQuery(formula=bad),
        models.FormulaQuery(formula=models.SumExpression(sum=["n", bad])),
        models.FormulaQuery(formula=models.LinDecayExpression(lin_decay=decay)),
        models.FormulaQuery(formula=by_zero),
        models.FormulaQuery(formula="n", defaults={"n": bad}),
        models.RrfQuery(rrf=models.Rrf(k=2, weights=[bad])),
    ]
    oversampled = models.SearchParams(quantization=models.QuantizationSearchParams(oversampling=bad))
    circle = models.GeoRadius(center=models.GeoPoint(lon=1.0, lat=1.0), radius=bad)
    calls = [
        lambda: four.query_points("four", [1.0, 0.0], using="a", score_threshold=bad),
        lambda: four.query_points("four", [1.0, 0.0], using="a", search_params=oversampled),
        lambda: four.query_points(
            "four",
            [1.0, 0.0],
            using="a",
            search_params=models.SearchParams(acorn={"enable": True, "max_selectivity": bad}),
        ),
        lambda: four.query_points(
            "four",
            models.NearestQuery.model_construct(
                nearest=[1.0, 0.0], mmr=models.Mmr.model_construct(diversity=bad, candidates_limit=None)
            ),
            using="a",
        ),
        lambda: four.query_points("four", models.RelevanceFeedbackQuery(relevance_feedback=feedback), using="a"),
        lambda: four.scroll("four", order_by=models.OrderBy(key="n", start_from=bad)),
        lambda: four.scroll("four", models.Filter(must=[models.FieldCondition(key="g", geo_radius=circle)])),
        *(lambda query=query: four.query_points("four", query, prefetch=prefetch("a", 4)) for query in merged),
    ]
    for call in calls:
        with pytest.raises(InputError, match="invalid|NaN|infinity|finite|greater|less"):
            call()


@pytest.mark.parametrize("bad", [True, 1.5, "3", 0, -1, 2**70, math.nan])
def test_counts_are_whole_numbers(four, bad):
    calls = [
        lambda: four.query_points("four", [1.0, 0.0], using="a", limit=bad),
        lambda: four.query_points("four", [1.0, 0.0], using="a", offset=bad or -1),
        lambda: four.scroll("four", limit=bad),
        lambda: four.facet("four", "n", limit=bad),
        lambda: four.query_points_groups("four", "n", [1.0, 0.0], using="a", limit=bad),
        lambda: four.query_points_groups("four", "n", [1.0, 0.0], using="a", group_size=bad),
        lambda: four.search_matrix_pairs("four", using="a", limit=bad),
        lambda: four.search_matrix_pairs("four", using="a", sample=bad),
        lambda: four.upload_points("four", [], batch_size=bad),
        lambda: four.upload_collection("four", {"a": [[1.0, 0.0]]}, batch_size=bad),
    ]
    for call in calls:
        with pytest.raises(InputError, match="is invalid, expected a whole number"):
            call()


def test_whole_numbers_of_numpy_and_the_largest_integer_are_counts(four):
    assert len(four.query_points("four", [1.0, 0.0], using="a", limit=np.int64(2)).points) == 2
    assert len(four.query_points("four", [1.0, 0.0], using="a", limit=sys.maxsize, offset=1).points) == 3
    assert len(four.query_points_groups("four", "n", [1.0, 0.0], using="a", limit=sys.maxsize).groups) == 4


def test_facets_with_a_limit_are_the_beginning_of_all_facets(client):
    client.create_collection("c", models.VectorParams(size=1, distance=models.Distance.DOT))
    words = [f"w{i % 700:03}" for i in range(1500)]  # 100 words occur three times, the others twice
    client.upsert("c", [models.PointStruct(id=i, vector=[1.0], payload={"w": w, "n": i}) for i, w in enumerate(words)])
    client.create_payload_index("c", "w", "keyword")
    client.create_payload_index("c", "n", "integer")
    everything = [*(f"w{i:03}" for i in range(100)), *(f"w{i:03}" for i in range(100, 700))]
    for limit in (1, 7, 100, 101, 150, 699, 700, 5000):
        assert [hit.value for hit in client.facet("c", "w", limit=limit).hits] == everything[:limit]
    assert [hit.value for hit in client.facet("c", "n", limit=5, exact=True).hits] == [0, 1, 2, 3, 4]


def test_a_field_name_with_spaces_or_dots_is_quoted(client):
    client.create_collection("c", models.VectorParams(size=1, distance=models.Distance.DOT))
    payloads = [{"two words": {"a.b": i}} for i in range(3)]
    client.upsert("c", [models.PointStruct(id=i, vector=[1.0], payload=p) for i, p in enumerate(payloads)])
    path = '"two words"."a.b"'
    client.create_payload_index("c", path, "integer")
    two = models.Filter(must=[models.FieldCondition(key=path, match=models.MatchValue(value=2))])
    assert [record.id for record in client.scroll("c", two)[0]] == [2]
    assert [record.id for record in client.scroll("c", order_by=path)[0]] == [0, 1, 2]
    assert client.facet("c", path).hits[0].value == 0
    assert client.query_points_groups("c", path, [1.0], limit=3).groups
    assert client.retrieve("c", [1], with_payload=['"two words"'])[0].payload == payloads[1]
    client.set_payload("c", {"new": 1}, [1], key='"two words"')
    client.delete_payload("c", [path], [1])
    assert client.retrieve("c", [1])[0].payload == {"two words": {"new": 1}}
    calls = [
        lambda key: client.scroll("c", models.Filter(must=[models.FieldCondition(key=key, is_null=True)])),
        lambda key: client.scroll("c", order_by=key),
        lambda key: client.facet("c", key),
        lambda key: client.query_points_groups("c", key, [1.0]),
        lambda key: client.retrieve("c", [1], with_payload=[key]),
        lambda key: client.set_payload("c", {}, [1], key=key),
        lambda key: client.delete_payload("c", [key], [1]),
        lambda key: client.create_payload_index("c", key, "integer"),
        lambda key: client.delete_payload_index("c", key),
    ]
    for key in ("two words", "", "a..b", "a[x]", 'a"'):
        for call in calls:
            with pytest.raises(InputError, match="is no payload path: expected names joined by dots"):
                call(key)


def test_a_collection_of_sparse_vectors_alone_reports_no_dense_ones(client):
    local = QdrantClient(":memory:")
    for engine in (client, local):
        engine.create_collection("c", sparse_vectors_config={"s": models.SparseVectorParams()})
    assert client.get_collection("c").config.params.vectors == local.get_collection("c").config.params.vectors == {}


def test_a_point_as_a_query_is_not_its_own_answer(four):
    assert [p.id for p in four.query_points("four", 1, using="a").points] == [2, 3, 4]
    recommend = models.RecommendInput(positive=[1, 2], negative=[[0.5, 0.0]])
    assert [p.id for p in four.query_points("four", models.RecommendQuery(recommend=recommend), using="a").points] == [
        3,
        4,
    ]


def test_a_vector_can_be_looked_up_in_another_collection(four):
    four.create_collection("other", models.VectorParams(size=2, distance=models.Distance.DOT))
    four.upsert("other", [POINT(id=1, vector=[-1.0, 0.0])])
    where = models.LookupLocation(collection="other", vector="")
    hits = four.query_points("four", 1, using="a", lookup_from=where).points
    assert [p.id for p in hits] == [4, 3, 2, 1]
    with pytest.raises(InputError, match="'other' has no point 2"):
        four.query_points("four", 2, using="a", lookup_from=where)
    with pytest.raises(CollectionNotFoundError):
        four.query_points("four", 1, using="a", lookup_from=models.LookupLocation(collection="absent"))


def test_score_threshold_and_offset(four):
    assert [p.id for p in four.query_points("four", [1.0, 0.0], using="a", score_threshold=1.9, offset=1).points] == [
        2,
        3,
    ]


def test_a_random_sample_has_the_size_asked_for(four):
    sample = models.SampleQuery(sample=models.Sample.RANDOM)
    for offset in (None, 2):
        assert len({p.id for p in four.query_points("four", sample, limit=3, offset=offset).points}) == 3


def test_groups_look_up_their_record_elsewhere(four):
    four.create_collection("documents", models.VectorParams(size=2, distance=models.Distance.DOT))
    four.upsert("documents", [POINT(id=7, vector=[1.0, 0.0], payload={"title": "seven"})])
    for point, document in ((1, 7), (2, "draft"), (3, 7), (4, [7, "draft"])):
        four.set_payload("four", {"document": document}, points=[point])
    groups = four.query_points_groups(
        "four", "document", query=[1.0, 0.0], using="a", group_size=2, with_lookup="documents", with_payload=False
    ).groups
    assert [(g.id, [hit.id for hit in g.hits]) for g in groups] == [(7, [1, 3]), ("draft", [2, 4])]
    assert [g.lookup and g.lookup.payload for g in groups] == [{"title": "seven"}, None]
    assert all(hit.payload is None for g in groups for hit in g.hits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": [1.0, 0.0], "using": "a", "limit": 0}, "limit value 0"),
        ({"query": [1.0, 0.0], "using": "a", "offset": -1}, "offset value -1"),
        ({"query": models.FusionQuery(fusion=models.Fusion.RRF)}, "merges prefetches"),
        ({"prefetch": prefetch("a")}, "need a query"),
        ({"query": models.RrfQuery(rrf=models.Rrf(k=0)), "prefetch": prefetch("a")}, "rrf k value 0"),
        ({"query": models.OrderByQuery(order_by="n"), "score_threshold": 0.1}, "no scores"),
        ({"query": models.RecommendQuery(recommend=models.RecommendInput(negative=[1])), "using": "a"}, "positive"),
        ({"query": 77, "using": "a"}, "has no point 77"),
    ],
)
def test_queries_that_make_no_sense_are_refused(four, arguments, message):
    with pytest.raises(InputError, match=message):
        four.query_points("four", **arguments)


def test_mmr_may_be_a_prefetch_but_not_under_a_formula(four):
    mmr = models.NearestQuery(nearest=[1.0, 0.0], mmr=models.Mmr(diversity=0.9))
    hits = four.query_points("four", mmr, using="a").points
    assert len(hits) == 4 and hits[0].vector is None, "vectors that nobody asked for stay where they are"
    prefetch = models.Prefetch(query=mmr, using="a")
    fused = four.query_points("four", models.FusionQuery(fusion=models.Fusion.RRF), prefetch=prefetch).points
    assert [hit.id for hit in fused] == [hit.id for hit in hits]
    batch = [models.QueryRequest(query=[1.0, 0.0], using="a"), models.QueryRequest(query=mmr, using="a", limit=2)]
    assert [len(response.points) for response in four.query_batch_points("four", batch)] == [4, 2]
    with pytest.raises(NotSupportedError, match="a formula over a prefetch with mmr"):
        four.query_points("four", models.FormulaQuery(formula="$score"), prefetch=prefetch)


def test_equal_scores_of_a_fusion_come_in_the_same_order_every_time(four):
    rrf = models.FusionQuery(fusion=models.Fusion.RRF)
    both = [models.Prefetch(query=vector, using="a", limit=4) for vector in ([1.0, 0.0], [0.0, 1.0])]
    orders = [[hit.id for hit in four.query_points("four", rrf, prefetch=both).points] for _ in range(10)]
    assert len(set(map(tuple, orders))) == 1
    with pytest.raises(InputError, match="rrf has 1 weights for 2 prefetches"):
        four.query_points("four", models.RrfQuery(rrf=models.Rrf(weights=[1.0])), prefetch=both)


def test_a_record_that_is_asked_for_twice_is_there_twice(four):
    (first, *_) = four.scroll("four", limit=1)[0]
    assert [record.id for record in four.retrieve("four", [first.id, first.id])] == [first.id] * 2


def test_ordering_and_facets_say_which_index_they_need(four):
    for call in (
        lambda: four.scroll("four", order_by="n"),
        lambda: four.facet("four", "n"),
    ):
        with pytest.raises(InputError, match="create_payload_index"):
            call()
    four.create_payload_index("four", "n", "integer")
    assert [hit.value for hit in four.facet("four", "n").hits] == [1, 2, 3, 4]


def test_bm25_weights_come_from_the_engine(client):
    client.create_collection(
        "words",
        sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    # word 1 is in every document, word 2 in one of four
    for i, indices in enumerate([[1], [1], [1], [1, 2]]):
        vector = models.SparseVector(indices=indices, values=[1.0] * len(indices))
        client.upsert("words", [POINT(id=i, vector={"words": vector})])
    query = models.SparseVector(indices=[1, 2], values=[1.0, 1.0])
    best = client.query_points("words", query, using="words").points[0]
    idf = {df: np.log(1 + (4 - df + 0.5) / (df + 0.5)) for df in (1, 4)}
    assert (best.id, best.score) == (3, pytest.approx(idf[1] + idf[4], rel=1e-5))
