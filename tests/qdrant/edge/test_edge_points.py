"""Points of the embedded engine: what goes in comes out, and what cannot go in is refused with its value."""

from __future__ import annotations

import datetime as dt
import math
import uuid

import numpy as np
import pytest
from qdrant_client import models

from qdrant_tools.errors import InputError, NotSupportedError, VectorError

POINT = models.PointStruct
MATCH = models.MatchValue


@pytest.fixture
def client(client):
    client.create_collection("docs", models.VectorParams(size=4, distance=models.Distance.DOT))
    return client


@pytest.fixture
def named(client):
    client.create_collection(
        "named",
        {
            "text": models.VectorParams(size=2, distance=models.Distance.DOT),
            "tokens": models.VectorParams(
                size=2,
                distance=models.Distance.DOT,
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            ),
        },
        sparse_vectors_config={"words": models.SparseVectorParams()},
    )
    return client


def where(key, **condition):
    return models.Filter(must=[models.FieldCondition(key=key, **condition)])


def ids(client, condition, collection="docs"):
    return [record.id for record in client.scroll(collection, condition, limit=100)[0]]


def load(client, *payloads):
    client.upsert("docs", [POINT(id=i, vector=[1, 0, 0, i], payload=p) for i, p in enumerate(payloads)])


def test_a_point_comes_back_as_it_went_in(client):
    key = str(uuid.uuid4())
    payload = {"text": "ä", "n": 2**63, "x": 0.1, "flag": True, "none": None, "list": [1, {"a": []}]}
    client.upsert("docs", [POINT(id=key, vector=[1.0, 2.0, 3.0, 4.0], payload=payload)])
    (record,) = client.retrieve("docs", [key], with_vectors=True)
    assert (record.id, record.payload, record.vector) == (key, payload, [1.0, 2.0, 3.0, 4.0])


def test_named_sparse_and_multi_vectors_come_back(named):
    vector = {
        "text": [1.0, 2.0],
        "tokens": [[1.0, 0.0], [0.0, 1.0]],
        "words": models.SparseVector(indices=[7], values=[0.5]),
    }
    named.upsert("named", [POINT(id=1, vector=vector), POINT(id=2, vector={})])
    first, second = named.retrieve("named", [1, 2], with_vectors=True)
    assert first.vector == vector
    assert second.vector == {}
    assert named.query_points("named", [[0.0, 1.0]], using="tokens").points[0].score == pytest.approx(1.0)
    sparse = models.SparseVector(indices=[7, 9], values=[2.0, 1.0])
    assert named.query_points("named", sparse, using="words").points[0].score == pytest.approx(1.0)
    assert named.retrieve("named", [1], with_vectors=["text"])[0].vector == {"text": [1.0, 2.0]}


def test_a_batch_and_a_matrix_are_points_too(client):
    matrix = np.eye(4, dtype=np.float32)
    client.upsert("docs", models.Batch(ids=[0, 1], vectors=matrix[:2].tolist(), payloads=[{"a": 0}, {"a": 1}]))
    client.upload_collection("docs", matrix[2:], payload=[{"a": 2}, {"a": 3}], ids=[2, 3])
    client.upload_points("docs", (POINT(id=i, vector=[0, 0, 0, 0]) for i in (8, 9)), batch_size=1, wait=True)
    assert client.count("docs").count == 6
    assert client.retrieve("docs", [3])[0].payload == {"a": 3}
    assert client.query_points("docs", matrix[2]).points[0].id == 2


def test_the_last_of_two_points_with_one_id_stays(client):
    client.upsert("docs", [POINT(id=1, vector=[1, 0, 0, 0], payload={"n": n}) for n in (1, 2)])
    assert client.retrieve("docs", [1])[0].payload == {"n": 2}
    assert client.count("docs").count == 1


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0, 2.0], "expects vectors of 4 numbers, got 2"),
        ([], "expects vectors of 4 numbers, got 0"),
        ([1.0, math.nan, 0.0, 0.0], "number 1 is nan"),
        ([1.0, 0.0, 0.0, -math.inf], "number 3 is -inf"),
        ([1e39, 0.0, 0.0, 0.0], "number 0 is 1e\\+39"),
        ([[1.0, 0.0, 0.0, 0.0]], "expects one vector"),
        (models.SparseVector(indices=[1], values=[1.0]), "dense, got a sparse"),
    ],
)
def test_a_vector_that_does_not_fit_is_refused_with_its_fault(client, vector, message):
    with pytest.raises(VectorError, match=message):
        client.upsert("docs", [POINT.model_construct(id=1, vector=vector, payload=None)])
    with pytest.raises(VectorError, match=message):
        client.query_points("docs", models.NearestQuery.model_construct(nearest=vector, mmr=None))
    assert client.count("docs").count == 0


def test_one_bad_vector_keeps_its_whole_batch_out(client):
    points = [POINT(id=1, vector=[1, 0, 0, 0]), POINT.model_construct(id=2, vector=[math.nan] * 4, payload=None)]
    with pytest.raises(VectorError):
        client.upsert("docs", points)
    assert client.count("docs").count == 0


@pytest.mark.parametrize("bad", ["doc-1", -1, 2**64, True, 1.5, None, ""])
def test_ids_are_unsigned_integers_or_uuids(client, bad):
    with pytest.raises(InputError, match="unsigned 64-bit integer nor a UUID"):
        client.upsert("docs", [POINT.model_construct(id=bad, vector=[1, 0, 0, 0], payload=None)])


def test_the_largest_id_and_every_spelling_of_a_uuid_work(client):
    key = uuid.uuid4()
    for point_id in (2**64 - 1, key, key.hex):
        client.upsert("docs", [POINT(id=point_id, vector=[1, 0, 0, 0])])
    assert {r.id for r in client.scroll("docs")[0]} == {2**64 - 1, str(key)}


def test_an_unknown_vector_name_is_refused(named):
    with pytest.raises(InputError, match="no vector named 'title'.*'text', 'tokens', 'words'"):
        named.upsert("named", [POINT(id=1, vector={"title": [1.0, 2.0]})])
    with pytest.raises(InputError, match="no unnamed vector"):
        named.query_points("named", [1.0, 2.0])
    with pytest.raises(VectorError, match="index occurs twice"):
        named.upsert("named", [POINT(id=1, vector={"words": models.SparseVector(indices=[1, 1], values=[1, 1])})])


def test_payload_values_become_json_as_on_a_server(client):
    moment, key = dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC), uuid.uuid4()
    load(client, {"at": moment, "key": key, "array": np.array([1, 2]), "f": np.float32(0.5), "pair": (1, 2)})
    payload = client.retrieve("docs", [0])[0].payload
    assert payload == {"at": "2026-01-02T03:04:00Z", "key": str(key), "array": [1, 2], "f": 0.5, "pair": [1, 2]}


@pytest.mark.parametrize("value", [math.nan, math.inf, [math.nan], object()])
def test_payload_values_that_json_cannot_hold_are_refused(client, value):
    with pytest.raises(InputError, match="payload"):
        load(client, {"x": value})


def test_booleans_are_found_as_booleans(client):
    load(client, {"b": True}, {"b": False}, {"b": 1}, {"b": 0}, {"b": [True, "x"]})
    for index in (None, "bool"):
        if index:
            client.create_payload_index("docs", "b", index)
        assert ids(client, where("b", match=MATCH(value=True))) == [0, 4]
        assert ids(client, where("b", match=MATCH(value=False))) == [1]
    client.delete_payload_index("docs", "b")
    assert ids(client, where("b", match=MATCH(value=1))) == [2]


def test_under_an_index_only_values_of_its_type_are_seen_as_on_a_server(client):
    load(client, {"a": 1}, {"a": 2}, {"a": "x"}, {"a": 1.5}, {"a": [2, "x"]})
    but_one = models.MatchExcept(**{"except": [1]})
    not_one = models.Filter(must_not=where("a", match=MATCH(value=1)).must)
    assert ids(client, where("a", match=MATCH(value=2))) == [1, 4]
    assert set(ids(client, where("a", match=but_one))) >= {1, 2, 4}
    client.create_payload_index("docs", "a", "integer")
    assert ids(client, where("a", match=MATCH(value=2))) == [1, 4]
    assert ids(client, where("a", match=but_one)) == [1, 4], "the text is not in the index"
    assert ids(client, not_one) == [1, 2, 3, 4], "must_not says it so that no index changes the answer"


def test_datetimes_are_compared_as_moments(client):
    load(client, {"at": "2026-01-01T00:00:00Z"}, {"at": "2026-01-01T02:00:00+03:00"}, {"at": dt.datetime(2026, 1, 2)})
    midnight = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for index in (None, "datetime"):
        if index:
            client.create_payload_index("docs", "at", index)
        assert ids(client, where("at", range=models.DatetimeRange(gte=midnight))) == [0, 2]
        assert ids(client, where("at", range=models.DatetimeRange(lt=midnight))) == [1]
        assert ids(client, where("at", range=models.DatetimeRange(gte=dt.date(2026, 1, 2)))) == [2]


def test_every_kind_of_filter_finds_what_it_says(client):
    load(
        client,
        {"color": "red", "n": 1, "tags": ["a", "b"], "text": "the quick fox", "geo": {"lon": 13.4, "lat": 52.5}},
        {"color": "blue", "n": 2.5, "tags": [], "text": "lazy dog", "geo": {"lon": 2.3, "lat": 48.9}},
        {"color": None, "items": [{"x": 1, "y": 2}, {"x": 2, "y": 1}]},
    )
    berlin = models.GeoPoint(lon=13.4, lat=52.5)
    corner = models.GeoPoint(lon=10, lat=54), models.GeoPoint(lon=15, lat=50)
    ring = [models.GeoPoint(lon=x, lat=y) for x, y in ((10, 50), (15, 50), (15, 54), (10, 54), (10, 50))]
    red = models.FieldCondition(key="color", match=MATCH(value="red"))
    nested = models.Filter(must=[models.FieldCondition(key=k, match=MATCH(value=1)) for k in ("x", "y")])
    expected = {
        0: [
            where("color", match=MATCH(value="red")),
            where("color", match=models.MatchAny(any=["red", "green"])),
            where("n", range=models.Range(lt=2)),
            where("tags", values_count=models.ValuesCount(gte=2)),
            where("text", match=models.MatchText(text="quick")),
            where("geo", geo_radius=models.GeoRadius(center=berlin, radius=1000)),
            where("geo", geo_bounding_box=models.GeoBoundingBox(top_left=corner[0], bottom_right=corner[1])),
            where("geo", geo_polygon=models.GeoPolygon(exterior=models.GeoLineString(points=ring))),
            models.Filter(must=[models.HasIdCondition(has_id=[0, 77])]),
            models.Filter(should=[red]),
            models.Filter(min_should=models.MinShould(conditions=[red], min_count=1)),
            {"must": [{"key": "color", "match": {"value": "red"}}]},
        ],
        2: [
            models.Filter(must=[models.IsNullCondition(is_null=models.PayloadField(key="color"))]),
            models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="n"))]),
            models.Filter(must_not=[models.HasIdCondition(has_id=[0, 1])]),
            where("items[].y", match=MATCH(value=2)),
        ],
    }
    for point_id, filters in expected.items():
        for condition in filters:
            assert ids(client, condition) == [point_id], condition
    assert (
        ids(client, models.Filter(must=[models.NestedCondition(nested=models.Nested(key="items", filter=nested))]))
        == []
    )


def test_what_is_no_filter_is_refused(client):
    with pytest.raises(InputError, match="is not a filter"):
        client.count("docs", count_filter={"musst": []})


def test_payload_operations_do_what_they_say(client):
    load(client, {"a": 1, "b": {"c": 1}}, {"a": 2})
    client.set_payload("docs", {"d": 4}, points=[0], key="b")
    client.set_payload("docs", {"a": 9}, points=where("a", match=MATCH(value=2)))
    assert [r.payload for r in client.retrieve("docs", [0, 1])] == [{"a": 1, "b": {"c": 1, "d": 4}}, {"a": 9}]
    client.overwrite_payload("docs", {"z": 1}, points=models.PointIdsList(points=[1]))
    client.delete_payload("docs", ["a"], points=[0])
    assert [r.payload for r in client.retrieve("docs", [0, 1])] == [{"b": {"c": 1, "d": 4}}, {"z": 1}]
    client.clear_payload("docs", models.FilterSelector(filter=models.Filter(must=[models.HasIdCondition(has_id=[0])])))
    assert client.retrieve("docs", [0])[0].payload == {}
    with pytest.raises(InputError, match="no point with id 77"):
        client.set_payload("docs", {"a": 1}, points=[77])


def test_deleting_by_ids_and_by_filter(client):
    load(client, {"n": 0}, {"n": 1}, {"n": 2}, {"n": 3})
    client.delete("docs", [0, 77])
    client.delete("docs", where("n", range=models.Range(gte=3)))
    assert ids(client, None) == [1, 2]


def test_a_batch_of_operations_is_applied_in_order(named):
    named.batch_update_points(
        "named",
        [
            models.UpsertOperation(
                upsert=models.PointsList(points=[POINT(id=i, vector={"text": [i, 1]}) for i in (1, 2, 3)])
            ),
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={"a": 1, "b": 1}, points=[1, 2, 3])),
            models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["b"], points=[2])),
            models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload={"c": 1}, points=[3])),
            models.UpdateVectorsOperation(
                update_vectors=models.UpdateVectors(points=[models.PointVectors(id=1, vector={"tokens": [[5.0, 5.0]]})])
            ),
            models.DeleteVectorsOperation(delete_vectors=models.DeleteVectors(points=[2], vector=["text"])),
            models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[1])),
            models.DeleteOperation(delete=models.PointIdsList(points=[3])),
        ],
    )
    first, second = named.scroll("named", with_vectors=True)[0]
    assert (first.payload, first.vector) == ({}, {"text": [1.0, 1.0], "tokens": [[5.0, 5.0]]})
    assert (second.payload, second.vector) == ({"a": 1}, {})


def test_scrolling_visits_every_point_once(client):
    load(client, *({"n": n} for n in range(25)))
    seen, offset = [], None
    while True:
        records, offset = client.scroll("docs", limit=10, offset=offset, with_payload=["n"])
        seen += [record.payload["n"] for record in records]
        if offset is None:
            break
    assert seen == list(range(25))


def test_shard_keys_and_unknown_arguments_are_refused(client):
    with pytest.raises(NotSupportedError, match="one shard"):
        client.count("docs", shard_key_selector="eu")
    with pytest.raises(NotSupportedError, match="one shard"):
        client.upsert("docs", [POINT(id=1, vector=[1, 0, 0, 0])], shard_key_selector="eu")
