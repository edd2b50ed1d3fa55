"""What a server does that local mode does otherwise, on the embedded engine and on a real server."""

from __future__ import annotations

import pytest
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse
from tiny import SERVER, client_of

from qdrant_tools.errors import InputError

VECTOR = models.VectorParams(size=2, distance=models.Distance.DOT)
MAX_SIM = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
REFUSED = (InputError, UnexpectedResponse)
COUNT = 8
ONE = [1.0, 1.0]


@pytest.fixture(params=["edge", *(["server"] if SERVER else [])])
def client(request, tmp_path):
    yield from client_of(request.param, tmp_path)


@pytest.fixture
def filled(client):
    """Points 1 to 8: the larger the number, the nearer to (1, 1), under "a" and under "b"."""
    vectors = {"a": VECTOR, "b": VECTOR, "many": VECTOR.model_copy(update={"multivector_config": MAX_SIM})}
    client.create_collection("c", vectors)
    client.upsert(
        "c",
        [
            models.PointStruct(
                id=i, vector={"a": [i / 10, 1], "b": [1, i / 10], "many": [[1, i / 10]]}, payload={"n": i, "t": [1] * i}
            )
            for i in range(1, COUNT + 1)
        ],
    )
    return client


def by_b(**options):
    return models.Prefetch(query=ONE, using="b", **options)


def example(point_id, **options):
    return models.Prefetch(query=point_id, using="a", **options)


PLUS_ONE = models.FormulaQuery(formula=models.SumExpression(sum=["$score", 1.0]))
RRF = models.FusionQuery(fusion=models.Fusion.RRF)
CONTEXT = models.ContextQuery(context=models.ContextPair(positive=8, negative=7))
REQUESTS = {
    "a fusion": {"query": RRF, "prefetch": [example(8), by_b()]},
    "a formula": {"query": PLUS_ONE, "prefetch": [example(8), by_b()]},
    "a sample": {"query": models.SampleQuery(sample=models.Sample.RANDOM), "prefetch": [example(8), by_b()]},
    "nested prefetches": {"query": ONE, "using": "b", "prefetch": [by_b(prefetch=[example(8), by_b()])]},
    "mmr in a prefetch": {
        "query": RRF,
        "prefetch": [example(models.NearestQuery(nearest=8, mmr=models.Mmr())), by_b()],
    },
    "recommendations": {
        "query": RRF,
        "prefetch": [
            example(models.RecommendQuery(recommend=models.RecommendInput(positive=[1], negative=[8]))),
            by_b(),
        ],
    },
    "a context": {"query": RRF, "prefetch": [example(CONTEXT), by_b()]},
    "its own collection looked up": {
        "query": RRF,
        "prefetch": [example(8, lookup_from=models.LookupLocation(collection="c", vector="b")), by_b()],
    },
    "an example of the query itself": {"query": 8, "using": "b", "prefetch": by_b()},
}
LEFT_OUT = {"recommendations": {1, 8}, "a context": {7, 8}}


@pytest.mark.parametrize("form", REQUESTS)
def test_a_point_that_is_named_anywhere_is_found_nowhere(filled, form):
    hits = filled.query_points("c", **REQUESTS[form], limit=100).points
    assert {hit.id for hit in hits} == set(range(1, COUNT + 1)) - LEFT_OUT.get(form, {8})


def test_a_point_that_is_named_in_a_prefetch_is_in_no_group(filled):
    groups = filled.query_points_groups("c", "n", RRF, prefetch=[example(8), by_b()], limit=100).groups
    assert {group.id for group in groups} == set(range(1, COUNT))


def test_a_point_of_another_collection_with_the_same_id_is_found(filled):
    filled.create_collection("other", {"a": VECTOR})
    filled.upsert("other", [models.PointStruct(id=8, vector={"a": ONE})])
    prefetch = [example(8, lookup_from=models.LookupLocation(collection="other")), by_b()]
    hits = filled.query_points("c", RRF, prefetch=prefetch, limit=100).points
    assert {hit.id for hit in hits} == set(range(1, COUNT + 1))


def test_one_vector_is_a_multivector_of_one(filled):
    assert [hit.id for hit in filled.query_points("c", ONE, using="many", limit=3).points] == [8, 7, 6]
    filled.upsert("c", [models.PointStruct(id=9, vector={"many": [2.0, 2.0]})])
    filled.update_vectors("c", [models.PointVectors(id=8, vector={"many": [3.0, 3.0]})])
    vectors = [record.vector["many"] for record in filled.retrieve("c", [8, 9], with_vectors=["many"])]
    assert vectors == [[[3.0, 3.0]], [[2.0, 2.0]]]


@pytest.mark.parametrize("several", [[ONE], [ONE, ONE]], ids=["one", "two"])
def test_several_vectors_are_no_single_one(filled, several):
    with pytest.raises(REFUSED):
        filled.query_points("c", several, using="a")
    with pytest.raises(REFUSED):
        filled.upsert("c", [models.PointStruct(id=9, vector={"a": several})])


@pytest.mark.parametrize("vector", [{}, [], {"a": [1.0]}, {"absent": ONE}], ids=["none", "empty", "short", "unknown"])
def test_an_update_of_vectors_needs_a_vector_that_fits(filled, vector):
    with pytest.raises(REFUSED):
        filled.update_vectors("c", [models.PointVectors.model_construct(id=1, vector=vector)])
    with pytest.raises(REFUSED):
        filled.update_vectors("c", [])


IS_NULL = models.IsNullCondition(is_null=models.PayloadField(key="n"))


@pytest.mark.parametrize("conditions", [[], [IS_NULL]], ids=["no condition", "one"])
def test_min_should_counts_from_one(filled, conditions):
    with pytest.raises(REFUSED):
        filled.count("c", models.Filter(min_should=models.MinShould(conditions=conditions, min_count=0)))


@pytest.mark.parametrize(("bound", "count"), [({"lt": 1}, 1), ({"gte": 0}, COUNT + 1), ({"gt": 0}, COUNT)])
def test_a_key_that_is_missing_has_no_values(filled, bound, count):
    filled.upsert("c", [models.PointStruct(id=9, vector={}, payload={"n": 9})])
    condition = models.FieldCondition(key="t", values_count=models.ValuesCount(**bound))
    assert filled.count("c", models.Filter(must=[condition])).count == count


FORMULAS = {
    "a missing key": "absent",
    "a logarithm": models.LnExpression(ln=-1.0),
    "a root": models.SqrtExpression(sqrt=-1.0),
    "a division by zero": models.DivExpression(div=models.DivParams(left=1.0, right=0.0)),
    "too large": models.ExpExpression(exp=1e6),
    "no date": models.DatetimeExpression(datetime="x"),
    "no scale": models.LinDecayExpression(lin_decay=models.DecayParamsExpression(x="$score", scale=0.0)),
    "an unknown variable": "$what",
    "no path": 'a["',
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_without_a_value_is_the_mistake_of_who_asks(filled, formula):
    with pytest.raises(REFUSED):
        filled.query_points("c", models.FormulaQuery(formula=FORMULAS[formula]), prefetch=by_b())


def test_a_collection_without_vectors_gets_some_and_loses_them(client):
    client.create_collection("c")
    client.upsert("c", [models.PointStruct(id=1, vector={}, payload={"n": 1})])
    with pytest.raises(REFUSED):
        client.upsert("c", [models.PointStruct(id=2, vector=[])])
    dense = models.DenseVectorConfig(size=2, distance=models.Distance.DOT)
    client.create_vector_name("c", "d", models.DenseVectorNameConfig(dense=dense))
    client.update_vectors("c", [models.PointVectors(id=1, vector={"d": ONE})])
    assert [(hit.id, hit.score) for hit in client.query_points("c", ONE, using="d").points] == [(1, 2.0)]
    client.delete_vector_name("c", "d")
    assert not client.get_collection("c").config.params.vectors
    (record,) = client.retrieve("c", [1], with_vectors=True)
    assert (record.vector, record.payload) == ({}, {"n": 1})


def test_a_sparse_vector_may_be_the_only_one(client):
    client.create_collection("c", sparse_vectors_config={"s": models.SparseVectorParams()})
    one = models.SparseVector(indices=[1], values=[1.0])
    client.upsert("c", [models.PointStruct(id=1, vector={"s": one}), models.PointStruct(id=2, vector={})])
    assert [hit.id for hit in client.query_points("c", one, using="s").points] == [1]
    for query in (ONE, 1):
        with pytest.raises(REFUSED):
            client.query_points("c", query)
    client.delete_vector_name("c", "s")
    assert {record.id for record in client.scroll("c")[0]} == {1, 2}


def test_the_index_of_a_sparse_vector_is_changed_in_place(client):
    client.create_collection("c", sparse_vectors_config={"s": models.SparseVectorParams(modifier=models.Modifier.IDF)})
    on_disk = models.SparseVectorParams(index=models.SparseIndexParams(on_disk=True))
    client.update_collection("c", sparse_vectors_config={"s": on_disk})
    params = client.get_collection("c").config.params.sparse_vectors["s"]
    assert (params.modifier, params.index.on_disk) == (models.Modifier.IDF, True)
