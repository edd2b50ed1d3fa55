"""How deep values may lie inside one another: the deepest that is taken lives, one more is refused."""

from __future__ import annotations

from contextlib import closing

import pytest
from qdrant_client import models
from zoo import cyclic, nested

from qdrant_tools.client.connect import connect
from qdrant_tools.edge.storage.files import copy_folder
from qdrant_tools.errors import InputError
from qdrant_tools.validation import DEEPEST_PAYLOAD, DEEPEST_REQUEST, path_depth

DEEP = ".".join("a" * DEEPEST_PAYLOAD)


def objects(levels):
    return nested(levels - 1, core={"end": 1})


def lists(levels):
    return {"a": nested(levels - 2, lambda inner: [inner], [1])}


def filters(levels, wrap=lambda inner: models.Filter(must=[inner])):
    return nested(levels, wrap, models.IsEmptyCondition(is_empty=models.PayloadField(key="absent")))


def formulas(levels):
    return models.FormulaQuery(formula=nested(levels, lambda inner: models.NegExpression(neg=inner), "$score"))


def prefetches(levels):
    leaf = models.Prefetch(query=[1.0, 0.0])
    return nested(levels - 1, lambda inner: models.Prefetch(prefetch=[inner], query=[1.0, 0.0]), leaf)


@pytest.fixture
def client(client):
    client.create_collection("c", models.VectorParams(size=2, distance=models.Distance.DOT))
    client.upsert("c", [point(i) for i in range(3)])
    return client


def point(key, payload=None):
    return models.PointStruct(id=key, vector=[1.0, float(key)], payload=payload)


def payloads(client):
    return {record.id: record.payload for record in client.scroll("c", limit=100)[0]}


def test_the_deepest_payload_lives_through_a_crash_and_an_orderly_close(client, tmp_path):
    client.upsert("c", [point(1, objects(DEEPEST_PAYLOAD)), point(2, lists(DEEPEST_PAYLOAD))])
    client.set_payload("c", {"end": 1}, [0], key=DEEP[:-2])
    client.overwrite_payload("c", objects(DEEPEST_PAYLOAD), [2])
    deep = models.FieldCondition(key=f"{DEEP[:-2]}.end", match=models.MatchValue(value=1))
    before = payloads(client)
    assert before[1] == before[2] == before[0] == objects(DEEPEST_PAYLOAD)
    copy_folder(tmp_path / "live", tmp_path / "killed")
    client.close()
    for folder in ("killed", "live"):
        with closing(connect(tmp_path / folder)) as again:
            assert payloads(again) == before
            again.create_payload_index("c", deep.key, "integer")
            assert again.count("c", models.Filter(must=[deep])).count == 3
            again.delete_payload("c", [DEEP[:-2]], [2])
            again.delete("c", [1])
            assert again.count("c", models.Filter(must=[deep])).count == 1
            again.delete("c", [0, 2])


@pytest.mark.parametrize("deep", [objects, lists])
def test_one_level_more_is_refused_with_the_path_to_it(client, deep):
    for write in (
        lambda: client.upsert("c", [point(1, deep(DEEPEST_PAYLOAD + 1))]),
        lambda: client.overwrite_payload("c", deep(DEEPEST_PAYLOAD + 1), [1]),
        lambda: client.set_payload("c", deep(DEEPEST_PAYLOAD + 1), [1]),
        lambda: client.set_payload("c", deep(DEEPEST_PAYLOAD), [1], key="a"),
        lambda: client.upload_points("c", [point(1, deep(DEEPEST_PAYLOAD + 1))]),
    ):
        with pytest.raises(InputError, match=r"nested more than 6[34] levels deep at a[.\[].*: make it flatter"):
            write()
    assert payloads(client) == {0: {}, 1: {}, 2: {}}


def test_a_payload_that_contains_itself_or_has_thousands_of_levels_is_refused(client):
    for payload in (cyclic(), objects(500), objects(5000), lists(5000)):
        with pytest.raises(InputError, match="levels deep at a"):
            client.set_payload("c", payload, [1])
    with pytest.raises(InputError, match="nested"):
        client.upsert("c", [point(1, objects(5000))])


def test_writes_at_deeper_and_deeper_keys_cannot_go_beyond_the_limit(client, tmp_path):
    keys = [".".join("a" * steps) for steps in range(1, 3 * DEEPEST_PAYLOAD)]
    taken = 0
    for key in [*keys, *(f"{key}[0]" for key in keys), *(f"{key}[].b" for key in keys)]:
        try:
            client.set_payload("c", {"b": [{}]}, [1], key=key)
            taken += 1
        except InputError:
            assert path_depth(key) > DEEPEST_PAYLOAD - 3
    assert taken == sum(path_depth(key) <= DEEPEST_PAYLOAD - 3 for key in keys) * 3 - 1 - 2
    before = payloads(client)
    copy_folder(tmp_path / "live", tmp_path / "killed")
    client.close()
    for folder in ("killed", "live"):
        with closing(connect(tmp_path / folder)) as again:
            assert payloads(again) == before
            again.delete("c", [1])


def test_the_deepest_filter_selects_in_reads_and_in_writes(client, tmp_path):
    deepest = filters(DEEPEST_REQUEST)
    assert client.count("c", deepest).count == 3
    assert len(client.query_points("c", [1.0, 0.0], query_filter=deepest).points) == 3
    assert client.query_points("c", [1.0, 0.0], query_filter=filters(DEEPEST_REQUEST - 1).model_dump()).points
    client.set_payload("c", {"g": 1}, deepest)
    assert client.query_points_groups("c", "g", [1.0, 0.0], query_filter=deepest, limit=1).groups[0].id == 1
    assert client.search_matrix_pairs("c", deepest, sample=3).pairs
    client.delete("c", models.FilterSelector(filter=deepest))
    copy_folder(tmp_path / "live", tmp_path / "killed")
    client.close()
    for folder in ("killed", "live"):
        with closing(connect(tmp_path / folder)) as again:
            assert again.count("c").count == 0


NESTED = {
    "must": lambda inner: models.Filter(must=[inner]),
    "must_not": lambda inner: models.Filter(must_not=inner),
    "should": lambda inner: models.Filter(should=[inner]),
    "min_should": lambda inner: models.Filter(min_should=models.MinShould(conditions=[inner], min_count=1)),
    "nested": lambda inner: models.NestedCondition(nested=models.Nested(key="a", filter=models.Filter(must=[inner]))),
}


@pytest.mark.parametrize("clause", NESTED)
@pytest.mark.parametrize("levels", [DEEPEST_REQUEST + 1, 400])
def test_a_deeper_filter_is_refused_with_the_path_to_it(client, clause, levels):
    deep = models.Filter.model_construct(must=[filters(levels - 1, NESTED[clause])])
    for use in (
        lambda: client.count("c", deep),
        lambda: client.scroll("c", deep),
        lambda: client.delete("c", models.FilterSelector.model_construct(filter=deep, shard_key=None)),
        lambda: client.set_payload("c", {"x": 1}, deep),
        lambda: client.upsert("c", [point(1)], update_filter=deep),
    ):
        with pytest.raises(InputError, match="nested|contains itself"):
            use()
    if levels < 400:
        with pytest.raises(InputError, match=r"levels deep at must\[0\]\."):
            client.count("c", deep)
    assert client.count("c").count == 3


def test_a_filter_given_as_an_object_is_held_to_the_same_limit(client):
    for levels in (DEEPEST_REQUEST + 1, 400):
        deep = nested(levels, lambda inner: {"must": [inner]}, {"is_null": {"key": "a"}})
        with pytest.raises(InputError, match="nested more than"):
            client.count("c", deep)


def test_formulas_and_prefetches_have_a_limit_too(client):
    leaf = models.Prefetch(query=[1.0, 0.0])
    assert client.query_points("c", formulas(DEEPEST_REQUEST), prefetch=leaf).points
    assert client.query_points("c", [1.0, 0.0], prefetch=prefetches(DEEPEST_REQUEST)).points
    with pytest.raises(InputError, match=r"formula is nested more than 30 levels deep at neg\.neg"):
        client.query_points("c", formulas(DEEPEST_REQUEST + 1), prefetch=leaf)
    with pytest.raises(InputError, match=r"prefetch is nested more than 30 levels deep at prefetch[.]prefetch\[0\]\."):
        client.query_points("c", [1.0, 0.0], prefetch=prefetches(DEEPEST_REQUEST + 1))


@pytest.mark.parametrize(
    ("path", "levels"),
    [("a", 1), ("a.b.c", 3), ("a[0].b", 3), ("a[]", 2), ('"a.b".c', 2), ('"a[0]"', 1), ("a[0][1].b", 4)],
)
def test_the_depth_of_a_path(path, levels):
    assert path_depth(path) == levels
