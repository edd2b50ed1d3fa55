"""Values that nobody should pass, every method that takes one, and what came of a call."""

from __future__ import annotations

import datetime as dt
import math
from collections import deque
from decimal import Decimal

import numpy as np
from qdrant_client import models

from qdrant_tools.errors import PlusError
from qdrant_tools.validation import is_unicode

SURROGATE = "bad \ud800 text"


def nested(levels, wrap=lambda inner: {"a": inner}, core=None):
    value = {} if core is None else core
    for _ in range(levels):
        value = wrap(value)
    return value


def cyclic():
    value = {"a": []}
    value["a"].append(value)
    return value


def deep_filter(levels):
    is_null = models.IsNullCondition(is_null=models.PayloadField(key="a"))
    return nested(levels, lambda inner: models.Filter(must=[inner]), is_null)


def deep_formula(levels):
    return nested(levels, lambda inner: models.NegExpression.model_construct(neg=inner), 1.0)


def deep_prefetch(levels):
    leaf = models.Prefetch(query=[1.0, 2.0], using="d")
    return nested(levels, lambda inner: models.Prefetch.model_construct(**{**leaf.__dict__, "prefetch": [inner]}), leaf)


def filter_on(**condition):
    return models.Filter(must=[models.FieldCondition(key="a", **condition)])


class Strange:
    """Refuses to be looked at."""

    def __repr__(self):
        raise RuntimeError("no repr")


ZOO = {
    "nothing": None,
    "true": True,
    "zero": 0,
    "minus one": -1,
    "half": 1.5,
    "nan": math.nan,
    "infinity": math.inf,
    "huge": 2**70,
    "beyond floats": 10**400,
    "numpy nan": np.float32("nan"),
    "numpy integer": np.int64(3),
    "complex": 1 + 2j,
    "decimal": Decimal("NaN"),
    "empty text": "",
    "text": "x",
    "surrogate": SURROGATE,
    "nul": "a\0b",
    "path": 'a["',
    "long path": ".".join("a" * 200),
    "bytes": b"\xff",
    "moment": dt.datetime(2026, 1, 1),
    "empty list": [],
    "texts": ["a"] * 4,
    "nothings": [None, None],
    "nans": [math.nan, 1.0],
    "complexes": [1j, 2j],
    "huge integers": [10**400, 1],
    "surrogates": [SURROGATE],
    "lists of lists": [[[[]]]],
    "set": {1, 2},
    "generator": (value for value in ()),
    "queue": deque([1.0, 2.0]),
    "array of objects": np.array([None, "x"], dtype=object),
    "array without dimensions": np.array(1.0),
    "cube": np.zeros((2, 2, 2)),
    "empty object": {},
    "object": {"d": [1.0, 2.0]},
    "object of junk": {"d": ["x"], SURROGATE: {1: 2}, 3: object()},
    "deep object": nested(3000),
    "deep list": nested(3000, lambda inner: [inner]),
    "cycle": cyclic(),
    "class": dict,
    "function": print,
    "stranger": Strange(),
    "model": models.PointStruct(id=1, vector=[1.0]),
    "half a model": models.PointStruct.model_construct(id=None),
    "half a query": models.NearestQuery.model_construct(),
    "half a filter": models.Filter.model_construct(must=[None, 3]),
    "half a condition": filter_on(match=models.MatchValue.model_construct(value=1.5)),
    "half a batch": models.Batch.model_construct(ids=[1]),
    "filter on nan": filter_on(range=models.Range(gte=math.nan)),
    "filter on infinity": filter_on(range=models.Range(gte=math.inf)),
    "filter on a surrogate": filter_on(match=models.MatchValue(value=SURROGATE)),
    "filter on a huge integer": filter_on(match=models.MatchValue(value=2**70)),
    "filter on a wild path": models.Filter(must=[models.FieldCondition(key='a["', is_null=True)]),
    "deep filter": deep_filter(400),
    "deep filter as an object": nested(400, lambda inner: {"must": [inner]}),
    "deep formula": models.FormulaQuery.model_construct(formula=deep_formula(400), defaults={}),
    "deep prefetch": deep_prefetch(400),
    "deep points": [models.PointStruct(id=1, vector={}, payload=nested(500))],
    "points with surrogates": [models.PointStruct(id=1, vector={}, payload={SURROGATE: SURROGATE})],
    "points with ids of surrogates": [models.PointStruct(id=SURROGATE, vector={})],
    "points with nan": [models.PointStruct(id=1, vector={"d": [math.nan, 1.0]})],
    "document": models.Document(text="x", model="y"),
    "documents": [models.PointStruct(id=1, vector={"d": models.Document(text="x", model="y")})],
    "sparse junk": models.SparseVector.model_construct(indices=["x"], values=[None]),
}

SELECTED = [1]
OPERATION = models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["q"], points=[2]))
METHODS = {
    "build_index": {},
    "delete_collection": {"timeout": 1},
    "flush": {},
    "rankings": {"vectors": np.ones((2, 2), np.float32), "limits": [1, 2], "using": "d", "query_filter": None},
    "readers_ready": {},
    "get_embedding_size": {"model_name": "x"},
    "migrate": {"dest_client": None, "collection_names": ["c"], "batch_size": 10},
    "recreate_collection": {"vectors_config": None},
    "batch_update_points": {"update_operations": [OPERATION], "wait": True, "ordering": None},
    "clear_payload": {"points_selector": SELECTED, "wait": True},
    "collection_exists": {},
    "count": {"count_filter": None, "exact": True, "timeout": 1},
    "create_collection": {"vectors_config": None, "sparse_vectors_config": None, "metadata": None, "hnsw_config": None},
    "create_payload_index": {"field_name": "a", "field_schema": "integer"},
    "create_vector_name": {"vector_name": "d", "vector_name_config": None},
    "delete": {"points_selector": [9]},
    "delete_payload": {"keys": ["zz"], "points": SELECTED},
    "delete_payload_index": {"field_name": "zz"},
    "delete_vector_name": {"vector_name": "zz"},
    "delete_vectors": {"vectors": ["s"], "points": SELECTED},
    "facet": {"key": "k", "facet_filter": None, "limit": 3, "exact": True},
    "get_aliases": {},
    "get_collection": {},
    "get_collection_aliases": {},
    "overwrite_payload": {"payload": {"a": 1}, "points": SELECTED},
    "query_batch_points": {"requests": [models.QueryRequest(query=[1.0, 2.0], using="d")]},
    "query_points": {
        "query": [1.0, 2.0],
        "using": "d",
        "prefetch": None,
        "query_filter": None,
        "search_params": None,
        "limit": 3,
        "offset": 0,
        "with_payload": True,
        "with_vectors": False,
        "score_threshold": None,
        "lookup_from": None,
    },
    "query_points_groups": {
        "group_by": "k",
        "query": [1.0, 2.0],
        "using": "d",
        "prefetch": None,
        "query_filter": None,
        "limit": 3,
        "group_size": 2,
        "with_lookup": None,
    },
    "retrieve": {"ids": [1], "with_payload": True, "with_vectors": False},
    "scroll": {
        "scroll_filter": None,
        "limit": 3,
        "order_by": None,
        "offset": None,
        "with_payload": True,
        "with_vectors": False,
    },
    "search_matrix_offsets": {"query_filter": None, "limit": 2, "sample": 3, "using": "d"},
    "search_matrix_pairs": {"query_filter": None, "limit": 2, "sample": 3, "using": "d"},
    "set_payload": {"payload": {"b": 1}, "points": SELECTED, "key": None},
    "update_collection": {"hnsw_config": None, "optimizers_config": None, "vectors_config": None, "metadata": None},
    "update_collection_aliases": {"change_aliases_operations": []},
    "update_vectors": {"points": [models.PointVectors(id=1, vector={"d": [1.0, 2.0]})], "update_filter": None},
    "upload_collection": {"vectors": {"d": [[1.0, 2.0]]}, "payload": [{}], "ids": [3], "batch_size": 2},
    "upload_points": {"points": [models.PointStruct(id=3, vector={})], "batch_size": 2, "update_filter": None},
    "upsert": {"points": [models.PointStruct(id=3, vector={})], "update_filter": None, "update_mode": None},
}
TARGET = {"delete_collection": "other", "recreate_collection": "other"}  # "c" is to be there in the end
WITHOUT_ARGUMENTS = {"close", "get_collections", "info"}
NAMED = set(METHODS) - {"update_collection_aliases", "get_embedding_size", "migrate"}


def fill(client):
    client.create_collection(
        "c",
        {"d": models.VectorParams(size=2, distance=models.Distance.DOT)},
        sparse_vectors_config={"s": models.SparseVectorParams()},
    )
    payloads = [{"a": i, "k": "xyz"[i % 3]} for i in range(5)]
    client.upsert("c", [models.PointStruct(id=i, vector={"d": [1.0, i]}, payload=p) for i, p in enumerate(payloads)])
    client.create_payload_index("c", "k", "keyword")


def state(client, name="c"):
    """All points of a collection, and their count."""
    records, _ = client.scroll(name, limit=1000, with_vectors=True)
    return [(record.id, record.payload, record.vector) for record in records], client.count(name).count


def hostile_calls():
    """Method, name of the argument and of its value, and all arguments."""
    for method, arguments in METHODS.items():
        for argument in [*arguments, *(["collection_name"] if method in NAMED else [])]:
            for label, value in ZOO.items():
                collection = {"collection_name": TARGET.get(method, "c")} if method in NAMED else {}
                yield method, argument, label, {**collection, **arguments, argument: value}


def leak(call):
    """What a call raised that is no error of this project's, None for nothing."""
    try:
        call()
    except PlusError as error:
        readable = str(error) and "\n" not in str(error) and is_unicode(str(error))
        return None if readable else f"{error!r}: not one readable line"
    except BaseException as error:  # a panic of the engine is not even an Exception
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None
