"""The embedded engine against qdrant-client's local mode and against a server, call by call, on random requests.

Local mode is exact and written independently in Python, a server is what the engine stands for. Where they differ by
design, docs/embedded-engine.md says so.
"""

from __future__ import annotations

import os
import uuid

import agreement as make
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse
from tiny import SERVER
from zoo import state

from qdrant_tools.client.connect import connect

# a quick look in every test run; set AGREEMENT_EXAMPLES=1000 for a thorough one
relaxed = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    max_examples=int(os.environ.get("AGREEMENT_EXAMPLES", "40")),
)


@pytest.fixture(scope="module", params=["local", *(["server"] if SERVER else [])])
def both(request, tmp_path_factory):
    """The same points in the embedded engine, and in local mode or on a server."""
    yield from filled(tmp_path_factory.mktemp("agreement"), SERVER if request.param == "server" else None)


@pytest.fixture(scope="module")
def both_here(tmp_path_factory):
    """The same without a server, which answers equal scores in another order each time."""
    yield from filled(tmp_path_factory.mktemp("agreement"), None)


def filled(folder, url):
    clients = connect(folder), QdrantClient(url or ":memory:")
    for client in clients:
        make.create(client)
        client.upsert("all", make.points())
    for client in clients if url else clients[:1]:
        client.create_payload_index("all", "order", "integer")
        client.create_payload_index("all", "group", "keyword")
    try:
        yield clients
    finally:
        for name in ("all", "writes"):
            clients[1].delete_collection(name)
        clients[0].close()


@relaxed
@given(filter_=make.filters)
def test_every_filter_selects_the_same_points(both, filter_):
    edge, local = (client.scroll("all", filter_, limit=100, with_vectors=True)[0] for client in both)
    assert [r.id for r in edge] == [r.id for r in local]
    assert [r.payload for r in edge] == [r.payload for r in local]
    assert both[0].count("all", filter_).count == both[1].count("all", filter_).count == len(edge)


@relaxed
@given(
    query=make.plain,
    filter_=st.one_of(st.none(), make.filters),
    limit=st.sampled_from([1, 3, 10, 100]),
    offset=st.sampled_from([None, 2]),
    threshold=st.sampled_from([None, None, 0.2]),
)
def test_every_query_finds_the_same_points_with_the_same_scores(both, query, filter_, limit, offset, threshold):
    arguments = {"query": query[0], "using": query[1], "query_filter": filter_, "limit": limit, "offset": offset}
    edge, local = (
        make.outcome(lambda c=c: c.query_points("all", **arguments, score_threshold=threshold).points) for c in both
    )
    make.assert_same_hits(edge, local, whole=limit == 100 and offset is None)


@relaxed
@given(prefetch=make.prefetches, query=make.merging, filter_=st.one_of(st.none(), make.filters))
def test_prefetches_are_merged_alike(both, prefetch, query, filter_):
    edge, local = (
        make.outcome(
            lambda c=c: c.query_points("all", query[0], prefetch=prefetch, query_filter=filter_, limit=100).points
        )
        for c in both
    )
    if isinstance(edge, Exception) and local == []:
        return  # local mode looks at the arguments only if there is something to merge
    if "Format error in JSON body" in str(local):
        return  # an operation that is newer than the server
    make.assert_same_hits(edge, local, whole=True)


@relaxed
@given(
    prefetch=st.lists(st.one_of(make.mmr_prefetches, make.leaf_prefetches), min_size=1, max_size=3),
    query=make.fusions,
    filter_=st.one_of(st.none(), make.handed_down),
    weights=st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=3, max_size=3),
)
def test_rankings_are_fused_in_the_same_order_ties_included(both_here, prefetch, query, filter_, weights):
    if isinstance(query, models.RrfQuery):
        query = models.RrfQuery(rrf=models.Rrf(k=query.rrf.k, weights=weights[: len(prefetch)]))
    edge, local = (
        c.query_points("all", query, prefetch=prefetch, query_filter=filter_, limit=7, offset=1).points
        for c in both_here
    )
    assert [str(hit.id) for hit in edge] == [str(hit.id) for hit in local]
    make.assert_same_hits(edge, local)


@relaxed
@given(
    vector=make.vectors("dense"),
    filter_=st.one_of(st.none(), make.filters),
    limit=st.integers(1, 5),
    size=st.integers(1, 4),
)
def test_groups_are_the_same(both_here, vector, filter_, limit, size):
    arguments = {"query": vector, "using": "dense", "query_filter": filter_, "limit": limit, "group_size": size}
    edge, local = (c.query_points_groups("all", "group", **arguments).groups for c in both_here)
    assert [group.id for group in edge] == [group.id for group in local]
    for ours, theirs in zip(edge, local, strict=True):
        make.assert_same_hits(ours.hits, theirs.hits, whole=True)
        assert [hit.payload for hit in ours.hits] == [hit.payload for hit in theirs.hits]


@relaxed
@given(
    prefetch=make.prefetches,
    query=st.one_of(make.fusions, make.vectors("dense")),
    limit=st.integers(1, 5),
    size=st.integers(1, 4),
)
def test_groups_over_prefetches_are_the_same(both_here, prefetch, query, limit, size):
    using = None if isinstance(query, models.FusionQuery | models.RrfQuery) else "dense"
    arguments = {"query": query, "using": using, "prefetch": prefetch, "limit": limit, "group_size": size}
    edge, local = (c.query_points_groups("all", "group", **arguments).groups for c in both_here)
    assert {group.id for group in edge} == {group.id for group in local}
    for ours, theirs in zip(edge, local, strict=True):
        make.assert_same_hits(ours.hits, theirs.hits)


@pytest.mark.parametrize("using", ["dense", "euclid", "words"])
def test_distance_matrices_over_all_points_are_the_same(both, using):
    arguments = {"sample": make.POINTS, "limit": 3, "using": using}
    edge, local = (c.search_matrix_offsets("all", **arguments) for c in both)
    assert edge.ids == local.ids
    assert edge.offsets_row == local.offsets_row
    assert edge.scores == pytest.approx(local.scores, rel=1e-3, abs=2e-4)
    pairs = both[0].search_matrix_pairs("all", **arguments).pairs
    assert [(pair.a, pair.score) for pair in pairs] == [
        (edge.ids[row], score) for row, score in zip(edge.offsets_row, edge.scores, strict=True)
    ]


@relaxed
@given(filter_=make.filters, limit=st.integers(1, 5))
def test_facets_count_alike(both, filter_, limit):
    edge, local = (c.facet("all", "group", filter_, limit=100).hits for c in both)
    texts = [(hit.value, hit.count) for hit in local if isinstance(hit.value, str)]  # a keyword index holds text only
    assert [(hit.value, hit.count) for hit in edge] == texts
    assert both[0].facet("all", "group", filter_, limit=limit).hits == edge[:limit]


@relaxed
@given(
    filter_=st.one_of(st.none(), make.filters),
    direction=st.sampled_from(list(models.Direction)),
    start=st.sampled_from([None, 20]),
)
def test_scrolling_in_the_order_of_a_payload_value(both, filter_, direction, start):
    order = models.OrderBy(key="order", direction=direction, start_from=start)
    edge, local = (c.scroll("all", filter_, limit=10, order_by=order)[0] for c in both)
    assert [(r.id, r.order_value) for r in edge] == [(r.id, r.order_value) for r in local]


# -- writes

KEYS = [i if i % 2 else str(uuid.UUID(int=i)) for i in range(8)]
some = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True)
values = st.sampled_from([1, "x", True, [1, 2], {"b": 1}, {"b": {"c": 2}}, [{"b": 1}, {"b": 2}], []])
payloads = st.dictionaries(st.sampled_from("abc"), values, max_size=3)
paths = st.sampled_from(["a", "b", "a.b", "a[].b", "a.b.c", "c.z", "a[0]", "b[].b", "a[0].b"])
matching = st.builds(
    lambda key, value: models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value))]),
    st.sampled_from(["a", "b", "a.b"]),
    st.sampled_from([1, "x", True]),
)
selectors = st.one_of(some, matching, st.builds(models.PointIdsList, points=some))
small = st.lists(st.integers(-9, 9).map(float), min_size=2, max_size=2)
sparse = st.integers(1, 5).map(lambda value: models.SparseVector(indices=[1, 7], values=[1.0, float(value)]))
named = st.fixed_dictionaries({}, optional={"d": small, "o": small, "s": sparse})
some_named = named.filter(bool)  # without a vector a server refuses an update, and local mode does not


def call(name, *arguments, **named_arguments):
    return st.builds(
        lambda values, named_values: (name, values, named_values),
        st.tuples(*arguments),
        st.fixed_dictionaries({}, optional=named_arguments),
    )


structs = some.flatmap(
    lambda keys: st.tuples(
        *(st.builds(models.PointStruct, id=st.just(k), vector=named, payload=payloads) for k in keys)
    ).map(list)
)
point_vectors = some.flatmap(
    lambda keys: st.tuples(*(st.builds(models.PointVectors, id=st.just(k), vector=some_named) for k in keys)).map(list)
)
set_payload = st.builds(models.SetPayload, payload=payloads, points=some)
operations = st.one_of(
    st.builds(models.UpsertOperation, upsert=st.builds(models.PointsList, points=structs)),
    st.builds(models.SetPayloadOperation, set_payload=set_payload),
    st.builds(models.OverwritePayloadOperation, overwrite_payload=set_payload),
    st.builds(models.DeleteOperation, delete=st.builds(models.PointIdsList, points=some)),
    st.builds(
        models.DeleteVectorsOperation,
        delete_vectors=st.builds(models.DeleteVectors, points=some, vector=st.just(["d"])),
    ),
)
writes = st.one_of(
    call("upsert", structs, update_mode=st.sampled_from(list(models.UpdateMode))),
    call("upsert", structs, update_filter=matching),
    call("set_payload", payloads, selectors, key=paths),
    call("overwrite_payload", payloads, selectors),
    call("delete_payload", st.lists(paths, min_size=1, max_size=2), selectors),
    call("clear_payload", selectors),
    call("delete", selectors),
    call("delete_vectors", st.lists(st.sampled_from("dos"), min_size=1, unique=True), selectors),
    call("update_vectors", point_vectors, update_filter=matching),
    call("batch_update_points", st.lists(operations, min_size=1, max_size=3)),
)


@settings(relaxed, max_examples=max(1, relaxed.max_examples // 4))
@given(sequence=st.lists(writes, min_size=5, max_size=25))
def test_every_sequence_of_writes_leaves_the_same_points(both, sequence):
    name = "writes"
    config = models.VectorParams(size=2, distance=models.Distance.DOT)
    for client in both:
        client.delete_collection(name)
        client.create_collection(
            name, {"d": config, "o": config}, sparse_vectors_config={"s": models.SparseVectorParams()}
        )
        client.upsert(name, [models.PointStruct(id=key, vector={"d": [1.0, 2.0]}, payload={"a": 1}) for key in KEYS])
    for method, arguments, options in sequence:
        refused = []
        for client in both:
            try:
                getattr(client, method)(name, *arguments, **options)
                refused.append(False)
            except (ValueError, KeyError, UnexpectedResponse):  # local mode's own for a point that is not there
                refused.append(True)
        assert refused[0] == refused[1], (method, arguments, options)
        assert state(both[0], name) == state(both[1], name), (method, arguments, options)
