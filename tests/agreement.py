"""Random requests for two clients, and what it means that their answers agree. Used by the agreement tests."""

from __future__ import annotations

import datetime as dt
import uuid

import numpy as np
from hypothesis import strategies as st
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from qdrant_tools.errors import PlusError

POINTS = 48
IDS = [i if i % 3 else str(uuid.UUID(int=i)) for i in range(POINTS)]
SPACES = ("dense", "euclid", "dot", "city", "tokens", "words", "idf")
SIZES = {"dense": 4, "euclid": 3, "dot": 3, "city": 3}
MULTI = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
VALUES = [1, 2, -1, 1.5, "a", "b", "x y", True, False, None, [], [1, 2], ["a", "b"], [True], [1, "a"], 10**15]
VALUES += [{"k": 1}, [{"k": 1}, {"k": 2, "z": "a"}], "2026-01-01T00:00:00Z", "2026-01-02", {"lon": 1.0, "lat": 2.0}]
FIELDS = ("p", "q", "r", "n", "p.k", "p[].k", "q[]", "p[0]", "absent")
BERLIN = models.GeoPoint(lon=1, lat=2)


def create(client):
    client.create_collection(
        "all",
        {
            "dense": models.VectorParams(size=4, distance=models.Distance.COSINE),
            "euclid": models.VectorParams(size=3, distance=models.Distance.EUCLID),
            "dot": models.VectorParams(size=3, distance=models.Distance.DOT),
            "city": models.VectorParams(size=3, distance=models.Distance.MANHATTAN),
            "tokens": models.VectorParams(size=2, distance=models.Distance.COSINE, multivector_config=MULTI),
        },
        sparse_vectors_config={
            "words": models.SparseVectorParams(),
            "idf": models.SparseVectorParams(modifier=models.Modifier.IDF),
        },
    )


def points(seed=0):
    rng = np.random.default_rng(seed)

    def payload(index):
        fields = {key: VALUES[rng.integers(len(VALUES))] for key in ("p", "q", "r", "n") if rng.random() < 0.7}
        return {**fields, "order": index * 7 % 61, "group": ["x", "y", 3, ["x", "z"]][index % 4]}

    return [
        models.PointStruct(
            id=IDS[index],
            vector={name: random_vector(name, rng) for name in SPACES if rng.random() < 0.9},
            payload=payload(index),
        )
        for index in range(POINTS)
    ]


# -- filters

fields = st.sampled_from(FIELDS)
maybe = st.none()


def field(**condition):
    return st.builds(models.FieldCondition, key=fields, **condition)


moments = st.sampled_from([None, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 1, 2, tzinfo=dt.UTC)])
leaves = st.one_of(
    field(match=st.builds(models.MatchValue, value=st.sampled_from([1, 2, "a", "b", True, False]))),
    field(match=st.builds(models.MatchAny, any=st.sampled_from([[1, 2], ["a", "b"], []]))),
    field(match=st.sampled_from([[1, 2], ["a", "b"], []]).map(lambda values: models.MatchExcept(**{"except": values}))),
    field(match=st.builds(models.MatchText, text=st.sampled_from(["x", "a", "y"]))),
    field(
        range=st.builds(
            models.Range, gte=st.sampled_from([None, 0.0, 1.0, 1.5]), lt=st.sampled_from([None, 2.0, 2.5, 1e16])
        )
    ),
    # without a bound it reads as a range of numbers in JSON
    field(
        range=st.builds(models.DatetimeRange, gte=moments, lt=moments).filter(lambda range_: range_.gte or range_.lt)
    ),
    field(
        values_count=st.builds(
            models.ValuesCount, gte=st.sampled_from([None, 0, 1, 2]), lt=st.sampled_from([None, 1, 3])
        )
    ),
    field(is_empty=st.booleans()),
    field(is_null=st.booleans()),
    field(geo_radius=st.just(models.GeoRadius(center=BERLIN, radius=1000))),
    st.builds(models.IsEmptyCondition, is_empty=st.builds(models.PayloadField, key=fields)),
    st.builds(models.IsNullCondition, is_null=st.builds(models.PayloadField, key=fields)),
    st.builds(models.HasIdCondition, has_id=st.lists(st.sampled_from(IDS), max_size=6)),
    st.builds(models.SliceCondition, slice=st.builds(models.Slice, total=st.just(3), index=st.integers(0, 2))),
    st.builds(models.HasVectorCondition, has_vector=st.sampled_from(SPACES)),
)


def _filters(condition, least=1):
    some = st.one_of(st.none(), st.lists(condition, min_size=least, max_size=3))
    at_least = st.builds(
        models.MinShould, conditions=st.lists(condition, min_size=1, max_size=3), min_count=st.integers(1, 2)
    )
    return st.builds(
        models.Filter, must=some, should=some, must_not=some, min_should=st.one_of(st.none(), st.none(), at_least)
    )


def _nested(filter_):
    return st.builds(
        models.NestedCondition,
        nested=st.builds(models.Nested, key=st.sampled_from(["p", "q", "p[]"]), filter=filter_),
    )


conditions = st.recursive(leaves, lambda inner: st.one_of(_filters(inner), _nested(_filters(inner))), max_leaves=5)
# inside a nested filter a server takes an empty clause for one that nothing fulfils: there are none but at the top
filters = _filters(conditions, least=0)
# a query's filter is handed down to its prefetches by appending the lists of both, on a server too: two `should`
# become one, and whether it is applied again after the prefetch differs
handed_down = st.builds(models.Filter, must=st.lists(conditions, max_size=2), must_not=st.lists(leaves, max_size=2))

# -- queries

seeds = st.integers(0, 10**6)


def random_vector(space, rng):
    """Full-precision numbers, so that no two scores are equal by chance."""
    if space in SIZES:
        return rng.normal(size=SIZES[space]).tolist()
    if space == "tokens":
        return rng.normal(size=(rng.integers(1, 4), 2)).tolist()
    indices = sorted(rng.choice(20, size=rng.integers(1, 6), replace=False).tolist())
    return models.SparseVector(indices=indices, values=rng.uniform(-1, 2, len(indices)).tolist())


def vectors(space):
    return seeds.map(lambda seed: random_vector(space, np.random.default_rng(seed)))


def inputs(space):
    return st.one_of(st.sampled_from(IDS), vectors(space))


def recommend(space):
    examples = st.lists(inputs(space), max_size=3)
    strategy = st.sampled_from([None, *models.RecommendStrategy])
    return st.builds(
        models.RecommendQuery,
        recommend=st.builds(models.RecommendInput, positive=examples, negative=examples, strategy=strategy),
    )


def pairs(space):
    return st.builds(models.ContextPair, positive=inputs(space), negative=inputs(space))


def discover(space):
    context = st.lists(pairs(space), max_size=3)
    return st.builds(
        models.DiscoverQuery, discover=st.builds(models.DiscoverInput, target=inputs(space), context=context)
    )


def context(space):
    return st.builds(models.ContextQuery, context=st.lists(pairs(space), min_size=1, max_size=3))


def mmr(space, nearest=None):
    settings = st.builds(
        models.Mmr, diversity=st.sampled_from([None, 0.0, 0.3, 1.0]), candidates_limit=st.sampled_from([None, 20])
    )
    return st.builds(models.NearestQuery, nearest=inputs(space) if nearest is None else nearest, mmr=settings)


def in_space(*kinds):
    return st.sampled_from(SPACES).flatmap(
        lambda space: st.tuples(st.one_of(*(kind(space) for kind in kinds)), st.just(space))
    )


order = st.builds(
    models.OrderByQuery,
    order_by=st.builds(
        models.OrderBy,
        key=st.just("order"),
        direction=st.sampled_from([None, *models.Direction]),
        start_from=st.sampled_from([None, 10]),
    ),
).map(lambda query: (query, None))

plain = st.one_of(in_space(inputs, recommend, discover, context, mmr), order, st.just((None, None)))

numbers = st.sampled_from([0.5, 1.0, 2.0])
terms = st.one_of(st.sampled_from(["$score", "n", "p", "absent"]), numbers, leaves)


def _operations(term):
    positive = st.builds(models.AbsExpression, abs=term)
    above = st.builds(lambda value: models.SumExpression(sum=[value, 1.0]), positive)
    decay = st.builds(models.DecayParamsExpression, x=term, target=numbers, scale=numbers, midpoint=st.just(0.4))
    return st.one_of(
        st.builds(models.SumExpression, sum=st.lists(term, min_size=1, max_size=3)),
        st.builds(models.MultExpression, mult=st.lists(term, min_size=1, max_size=3)),
        st.builds(models.MaxExpression, max=st.lists(term, min_size=1, max_size=3)),
        st.builds(models.MinExpression, min=st.lists(term, min_size=1, max_size=3)),
        st.builds(models.NegExpression, neg=term),
        st.builds(models.SqrtExpression, sqrt=positive),
        st.builds(models.PowExpression, pow=st.builds(models.PowParams, base=positive, exponent=st.just(2.0))),
        st.builds(models.DivExpression, div=st.builds(models.DivParams, left=term, right=above)),
        st.builds(models.LnExpression, ln=above),
        st.builds(models.Log10Expression, log10=above),
        st.builds(models.LinDecayExpression, lin_decay=decay),
        st.builds(models.ExpDecayExpression, exp_decay=decay),
        st.builds(models.GaussDecayExpression, gauss_decay=decay),
    )


formulas = st.builds(
    models.FormulaQuery,
    formula=st.recursive(terms, _operations, max_leaves=6),
    defaults=st.just({"n": 1.0, "p": 2.0, "absent": 0.5}),
)
fusions = st.one_of(
    st.builds(models.FusionQuery, fusion=st.sampled_from(list(models.Fusion))),
    st.builds(models.RrfQuery, rrf=st.builds(models.Rrf, k=st.sampled_from([None, 1, 10, 60]))),
)
merging = st.one_of(fusions, formulas).map(lambda query: (query, None))

# only queries whose scores are distinct: among equal ones the cut of a prefetch is arbitrary
leaf_prefetches = st.builds(
    lambda query, limit, filter_: models.Prefetch(query=query[0], using=query[1], limit=limit, filter=filter_),
    st.sampled_from([*SIZES, "tokens"]).flatmap(lambda space: st.tuples(vectors(space), st.just(space))),
    st.sampled_from([None, 5, 20, 100]),
    st.one_of(st.none(), handed_down),
)
# without city blocks: there, many gains of MMR are equal by geometry
mmr_prefetches = st.builds(
    lambda query, limit: models.Prefetch(query=query[0], using=query[1], limit=limit),
    st.sampled_from(["dense", "euclid", "dot", "words"]).flatmap(
        lambda space: st.tuples(mmr(space, vectors(space)), st.just(space))
    ),
    st.sampled_from([None, 5, 20]),
)
nested_prefetches = st.builds(
    lambda inner, query, limit: models.Prefetch(prefetch=inner, query=query[0], using=query[1], limit=limit),
    st.lists(leaf_prefetches, min_size=1, max_size=2),
    in_space(vectors),
    st.just(100),
)
prefetches = st.lists(st.one_of(leaf_prefetches, nested_prefetches), min_size=1, max_size=3)

# -- agreement


def outcome(call):
    """What a call returns, or that it was refused."""
    try:
        return call()
    except (ValueError, PlusError, UnexpectedResponse) as error:
        return error


def assert_same_hits(hits, expected, *, whole=False):
    """The same scores in the same order, and the same points but for ties; `whole` if nothing was cut off."""
    if isinstance(hits, Exception) or isinstance(expected, Exception):
        assert isinstance(hits, Exception) and isinstance(expected, Exception), (hits, expected)
        return
    scores = np.array([hit.score for hit in expected])
    np.testing.assert_allclose([hit.score for hit in hits], scores, rtol=1e-3, atol=2e-4)
    start = 0
    for end in range(1, len(scores) + 1):
        tied = end < len(scores) and abs(scores[end] - scores[end - 1]) <= 1e-3 + 2e-3 * abs(scores[end])
        cut = not whole and (start == 0 or end == len(scores))
        if tied:
            continue
        if not (cut and end - start > 1) and not (end == len(scores) and not whole):
            assert {str(hit.id) for hit in hits[start:end]} == {str(hit.id) for hit in expected[start:end]}
        start = end
