"""What the engine's log says is what was written: any sequence of writes, replayed, leaves the same collection.

A log is replayed when a collection is opened: all of it after a crash, and its end even after an orderly close. The
state before closing must be the state after both. `REPLAY_EXAMPLES=500` looks longer.
"""

from __future__ import annotations

import math
import os
import uuid

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import models

from qdrant_tools import connect
from qdrant_tools.edge.storage.files import copy_folder
from qdrant_tools.errors import InputError, PlusError

relaxed = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    max_examples=int(os.environ.get("REPLAY_EXAMPLES", "6")),
)

MULTI = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
DENSE = {
    "d": models.VectorParams(size=2, distance=models.Distance.DOT),
    "cosine": models.VectorParams(size=3, distance=models.Distance.COSINE),
    "half": models.VectorParams(size=2, distance=models.Distance.EUCLID, datatype=models.Datatype.FLOAT16),
    "bytes": models.VectorParams(size=2, distance=models.Distance.MANHATTAN, datatype=models.Datatype.UINT8),
    "many": models.VectorParams(size=2, distance=models.Distance.DOT, multivector_config=MULTI),
}
SPARSE = {"s": models.SparseVectorParams(modifier=models.Modifier.IDF)}
INDEXED = {"n": "integer", "f": "float", "k": "keyword", "b": "bool", "t": "datetime", "u": "uuid", "a.b": "keyword"}
SINCE = [None, "2026-01-01T00:00:00+05:30", "2026-01-01 10:00", "2025-12-31T23:59:59.123456789Z"]


def create(client):
    client.create_collection("c", DENSE, sparse_vectors_config=SPARSE)
    client.upsert("c", [models.PointStruct(id=key, vector=vectors_of(0), payload={"n": 1, "k": "x"}) for key in KEYS])


def vectors_of(seed):
    return {"d": [1.0, seed + 1.0], "s": models.SparseVector(indices=[0, 2**32 - 1], values=[1.0, 0.5])}


# -- random values, the odd ones among them

KEYS = [0, 1, 2**64 - 1, str(uuid.UUID(int=3)), uuid.UUID(int=4).hex, str(uuid.UUID(int=2**128 - 1)), 2**63, 7]
numbers = st.sampled_from(
    [0, -1, 1.5, -0.0, 5e-324, 1.7976931348623157e308, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 2**70]
)
strings = st.sampled_from(
    ["", "x", "y", "é\0\U0001f600", "1", "2026-01-01T00:00:00Z", str(uuid.UUID(int=9)), '"', "a.b"]
)
scalars = st.one_of(numbers, strings, st.booleans(), st.none())
names = st.sampled_from(["n", "f", "k", "b", "t", "u", "a", "two words", "", "a.b", "[]", "é"])
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)
payloads = st.dictionaries(names, values, max_size=4)
paths = st.sampled_from(["n", "k", "a", "a.b", "a.b.c", "a[]", "a[].b", "a[0]", "a[7].b", '"two words"', '"".x', "é"])
floats = st.floats(-1e6, 1e6, width=32)


def vector(size, of=floats):
    return st.lists(of, min_size=size, max_size=size)


vectors = st.fixed_dictionaries(
    {},
    optional={
        "d": vector(2),
        "cosine": vector(3),
        "half": vector(2, st.floats(-1000, 1000, width=16)),
        "bytes": vector(2, st.integers(0, 255).map(float)),
        "many": st.lists(vector(2), min_size=1, max_size=3),
        "s": st.dictionaries(st.sampled_from([0, 1, 2**32 - 1]), floats, max_size=3).map(
            lambda weights: models.SparseVector(indices=list(weights), values=list(weights.values()))
        ),
    },
)

bounds = st.sampled_from([None, None, -math.inf, -1.5, 0, 1, 2**53, 2**64, math.inf])
fields = st.sampled_from([*INDEXED, "a", "a[]", '"two words"'])
leaves = st.one_of(
    st.builds(
        models.FieldCondition,
        key=fields,
        match=st.one_of(
            st.builds(models.MatchValue, value=st.sampled_from([0, 1, -(2**63), 2**63 - 1, "x", "", True, False])),
            st.builds(models.MatchAny, any=st.sampled_from([[], ["x", "y"], [0, 1], [str(uuid.UUID(int=9))]])),
            st.sampled_from([[], ["x"], [1]]).map(lambda values: models.MatchExcept(**{"except": values})),
            st.builds(models.MatchText, text=strings),
        ),
    ),
    st.builds(
        models.FieldCondition,
        key=fields,
        range=st.builds(models.Range, gte=bounds, gt=bounds, lte=bounds, lt=bounds),
    ),
    st.builds(
        models.FieldCondition,
        key=fields,
        range=st.builds(models.DatetimeRange, gte=st.sampled_from(SINCE), lt=st.sampled_from(SINCE)),
    ),
    st.builds(
        models.FieldCondition,
        key=fields,
        values_count=st.builds(models.ValuesCount, gte=st.sampled_from([None, 0, 1]), lt=st.sampled_from([None, 2])),
    ),
    st.builds(models.FieldCondition, key=fields, is_empty=st.booleans()),
    st.builds(models.FieldCondition, key=fields, is_null=st.booleans()),
    st.builds(models.HasIdCondition, has_id=st.lists(st.sampled_from(KEYS), max_size=4)),
    st.builds(models.HasVectorCondition, has_vector=st.sampled_from(["d", "s", "many", "later"])),
)


def combined(condition):
    some = st.one_of(st.none(), st.lists(condition, max_size=2))
    least = st.builds(models.MinShould, conditions=st.lists(condition, max_size=3), min_count=st.integers(1, 2))
    return st.builds(models.Filter, must=some, should=some, must_not=some, min_should=st.one_of(st.none(), least))


conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        combined(inner),
        st.builds(
            models.NestedCondition,
            nested=st.builds(models.Nested, key=st.sampled_from(["a", "a[]"]), filter=combined(inner)),
        ),
    ),
    max_leaves=4,
)
filters = combined(conditions)

# -- every kind of write

some = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True)
selectors = st.one_of(some, filters, filters, st.builds(models.PointIdsList, points=some))


def call(name, *arguments, **options):
    return st.tuples(st.just(name), st.tuples(*arguments), st.fixed_dictionaries({}, optional=options))


def of_some(build):
    return some.flatmap(lambda keys: st.tuples(*(build(st.just(key)) for key in keys)).map(list))


structs = of_some(lambda key: st.builds(models.PointStruct, id=key, vector=vectors, payload=payloads))
moved = of_some(lambda key: st.builds(models.PointVectors, id=key, vector=vectors))
set_payload = st.builds(models.SetPayload, payload=payloads, filter=filters, key=st.one_of(st.none(), paths))
operations = st.one_of(
    st.builds(models.UpsertOperation, upsert=st.builds(models.PointsList, points=structs, update_filter=filters)),
    st.builds(models.SetPayloadOperation, set_payload=set_payload),
    st.builds(models.OverwritePayloadOperation, overwrite_payload=set_payload),
    st.builds(models.ClearPayloadOperation, clear_payload=st.builds(models.FilterSelector, filter=filters)),
    st.builds(models.DeleteOperation, delete=st.builds(models.FilterSelector, filter=filters)),
)
schemas = st.sampled_from(sorted(INDEXED.items()))
later = st.sampled_from(
    [
        models.DenseVectorNameConfig(dense=models.DenseVectorConfig(size=2, distance=models.Distance.COSINE)),
        models.SparseVectorNameConfig(sparse=models.SparseVectorConfig(modifier=models.Modifier.IDF)),
    ]
)
writes = st.one_of(
    call("upsert", structs, update_mode=st.sampled_from(list(models.UpdateMode)), update_filter=filters),
    call("set_payload", payloads, selectors, key=paths),
    call("overwrite_payload", payloads, selectors),
    call("delete_payload", st.lists(paths, min_size=1, max_size=2), selectors),
    call("clear_payload", selectors),
    call("delete", selectors),
    call("delete_vectors", st.lists(st.sampled_from(["d", "s", "many"]), min_size=1, unique=True), selectors),
    call("update_vectors", moved, update_filter=filters),
    call("batch_update_points", st.lists(operations, min_size=1, max_size=3)),
    schemas.map(lambda schema: ("create_payload_index", schema, {})),
    schemas.map(lambda schema: ("delete_payload_index", schema[:1], {})),
    call("create_vector_name", st.just("later"), later),
    call("delete_vector_name", st.sampled_from(["later", "d", "s"])),
    call("update_collection", hnsw_config=st.builds(models.HnswConfigDiff, m=st.sampled_from([8, 16]))),
    call("flush"),
)

# -- the property


def plain(value):
    """A value without the order of names, which the engine does not keep; 1 is not True, 0.0 is not -0.0."""
    if isinstance(value, models.SparseVector):
        return plain(dict(zip(value.indices, value.values, strict=True)))
    if isinstance(value, dict):
        return sorted((name, plain(inner)) for name, inner in value.items())
    return [plain(item) for item in value] if isinstance(value, list) else repr(value)


def state(client):
    """Everything that a user can see of the collection."""
    records, _ = client.scroll("c", limit=1000, with_vectors=True)
    info = client.get_collection("c")
    countable = [field for field in sorted(info.payload_schema) if INDEXED.get(field) in ("keyword", "integer", "bool")]
    return {
        "points": {record.id: (plain(record.payload), plain(record.vector)) for record in records},
        "count": client.count("c").count,
        "settings": info.config,
        "indexes": info.payload_schema,
        "facets": [client.facet("c", field, limit=100).hits for field in countable],
    }


def opened_again(folder):
    client = connect(folder)
    try:
        return state(client)
    finally:
        client.close()


def perform(client, sequence):
    """Apply what the client takes, and count it."""
    taken = 0
    for method, arguments, options in sequence:
        try:
            getattr(client, method)("c", *arguments, **options)
            taken += 1
        except PlusError:
            pass
    return taken


def assert_log_says_what_was_written(folder, write):
    """The state after `write` is the state after a crash right then, and after an orderly close."""
    client = connect(folder / "live")
    try:
        create(client)
        write(client)
        before = state(client)
        # what a killed process leaves: pages that were written stay written
        copy_folder(folder / "live", folder / "killed")
    finally:
        client.close()
    assert opened_again(folder / "killed") == before
    assert opened_again(folder / "live") == before


@relaxed
@given(sequence=st.lists(writes, min_size=5, max_size=30))
def test_every_sequence_of_writes_is_the_same_after_a_crash_and_after_closing(tmp_path_factory, sequence):
    folder = tmp_path_factory.mktemp("replay")
    assert_log_says_what_was_written(folder, lambda client: perform(client, sequence))


# -- what the engine takes live and logs with another meaning, one by one

NAN_BOUNDS = [models.Range(**{bound: math.nan}) for bound in ("gt", "gte", "lt", "lte")]


def where(condition):
    return models.Filter(must=[models.FieldCondition(key="n", range=condition)])


BY_FILTER = {
    "set_payload": lambda client, chosen: client.set_payload("c", {"z": 1}, chosen),
    "overwrite_payload": lambda client, chosen: client.overwrite_payload("c", {"z": 1}, chosen),
    "delete_payload": lambda client, chosen: client.delete_payload("c", ["n"], chosen),
    "clear_payload": lambda client, chosen: client.clear_payload("c", chosen),
    "delete_vectors": lambda client, chosen: client.delete_vectors("c", ["s"], chosen),
    "delete": lambda client, chosen: client.delete("c", models.FilterSelector(filter=chosen)),
    "upsert": lambda client, chosen: client.upsert(
        "c", [models.PointStruct(id=1, vector=vectors_of(5))], update_filter=chosen
    ),
    "update_vectors": lambda client, chosen: client.update_vectors(
        "c", [models.PointVectors(id=1, vector=vectors_of(5))], update_filter=chosen
    ),
}


def test_a_write_by_filter_above_infinity_touches_nothing_now_and_nothing_later(tmp_path):
    def write(client):
        before = state(client)
        for bounds in ({"gte": math.inf}, {"gt": math.inf}, {"lte": -math.inf}, {"lt": -math.inf}):
            for by_filter in BY_FILTER.values():
                by_filter(client, where(models.Range(**bounds)))
        client.flush("c")
        assert state(client) == before

    assert_log_says_what_was_written(tmp_path, write)


def test_nan_is_no_bound(tmp_path):
    def write(client):
        for bound in NAN_BOUNDS:
            for by_filter in BY_FILTER.values():
                with pytest.raises(InputError, match="nan"):
                    by_filter(client, where(bound))

    assert_log_says_what_was_written(tmp_path, write)


def test_an_infinite_bound_means_what_it_says(tmp_path):
    client = connect(tmp_path)
    create(client)
    values = [1, 2**64 - 1, -1.7976931348623157e308, 1.7976931348623157e308, "text", None]
    client.upsert("c", [models.PointStruct(id=100 + i, vector={}, payload={"v": v}) for i, v in enumerate(values)])

    def selected(**bounds):
        chosen = models.Filter(must=[models.FieldCondition(key="v", range=models.Range(**bounds))])
        return [record.id - 100 for record in client.scroll("c", chosen)[0]]

    inf = math.inf
    everything = [{"lt": inf}, {"lte": inf}, {"gt": -inf}, {"gte": -inf}, {"gt": -inf, "lt": inf}]
    nothing = [{"gt": inf}, {"gte": inf}, {"lt": -inf}, {"lte": -inf}, {"gte": 0, "gt": inf}, {"gt": -inf, "gte": inf}]
    for index in (False, True):
        assert [selected(**bounds) for bounds in nothing] == [[]] * len(nothing)
        assert selected(gt=-inf, gte=1, lt=inf) == [0, 1, 3]
        assert [selected(**bounds) for bounds in everything] == [[0, 1, 2, 3]] * len(everything)
        if not index:
            client.create_payload_index("c", "v", "float")
    client.close()


def test_a_deletion_by_a_vector_that_is_removed_later_is_not_done_again_without_it(tmp_path):
    def write(client):
        without = models.Filter(must_not=[models.HasVectorCondition(has_vector="d")])
        client.delete("c", models.FilterSelector(filter=without))
        client.delete_vector_name("c", "d")
        assert client.count("c").count == len(KEYS)

    assert_log_says_what_was_written(tmp_path, write)


def test_more_points_than_one_logged_operation_holds_are_written_by_filter(tmp_path, monkeypatch):
    monkeypatch.setattr("qdrant_tools.edge.writes.POINTS_PER_OPERATION", 3)

    def write(client):
        chosen = models.Filter(must=[models.FieldCondition(key="n", match=models.MatchValue(value=1))])
        client.set_payload("c", {"n": 2, "z": 1}, chosen)
        client.delete_payload("c", ["k"], models.Filter(must_not=[models.HasIdCondition(has_id=[0])]))
        assert client.count("c", where(models.Range(gte=2))).count == len(KEYS)
        client.delete("c", models.Filter(must_not=[models.HasIdCondition(has_id=[0, 1, 7, 2**63])]))
        assert client.count("c").count == 4

    assert_log_says_what_was_written(tmp_path, write)


def test_vectors_of_every_type_are_the_same_after_a_crash(tmp_path):
    def write(client):
        numbers = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
        client.upsert(
            "c",
            [
                models.PointStruct(
                    id=i, vector={"cosine": row.tolist(), "half": row[:2].tolist(), "many": [row[:2].tolist()] * 3}
                )
                for i, row in enumerate(numbers)
            ],
        )

    assert_log_says_what_was_written(tmp_path, write)


INDEX_PARAMS = {
    "keyword": models.KeywordIndexParams(type="keyword", is_tenant=True, on_disk=True),
    "integer": models.IntegerIndexParams(type="integer", lookup=False, range=True, is_principal=True),
    "lookup": models.IntegerIndexParams(type="integer", lookup=True, range=False),
    "float": models.FloatIndexParams(type="float", is_principal=True),
    "geo": models.GeoIndexParams(type="geo", on_disk=True),
    "bool": models.BoolIndexParams(type="bool", on_disk=True),
    "datetime": models.DatetimeIndexParams(type="datetime", is_principal=True),
    "uuid": models.UuidIndexParams(type="uuid", is_tenant=True),
    "text": models.TextIndexParams(
        type="text",
        tokenizer=models.TokenizerType.MULTILINGUAL,
        min_token_len=2,
        max_token_len=9,
        lowercase=False,
        ascii_folding=True,
        phrase_matching=True,
        stopwords=models.StopwordsSet(languages=[models.Language.GERMAN], custom=["x"]),
        stemmer=models.SnowballParams(type="snowball", language=models.SnowballLanguage.GERMAN),
    ),
    "scored": models.TextIndexParams(type="text", tokenizer=models.TokenizerType.PREFIX, scoring=True),
}


def test_payload_indexes_of_every_kind_are_the_same_after_a_crash(tmp_path):
    def write(client):
        for field, params in INDEX_PARAMS.items():
            client.create_payload_index("c", field, params)
        for field, kind in INDEXED.items():
            client.create_payload_index("c", field, kind)
            client.delete_payload_index("c", field)
            client.create_payload_index("c", field, kind)
        assert len(client.get_collection("c").payload_schema) == len(INDEX_PARAMS) + len(INDEXED)

    assert_log_says_what_was_written(tmp_path, write)
