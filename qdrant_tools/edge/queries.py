"""qdrant-client's queries -> the engine's: point ids become their vectors, defaults become a server's.

As on a server, a point that a query names as an example is not among its results, the rank constant of RRF is 2
when not given and ranks start at 0, and MMR takes as many candidates as results are asked for.
Guarantees: every number is finite, nesting has a limit. Does not know: how results are read.

The query vector of a recommendation by average: what the examples have in common.

Does not know: the engine's queries, points.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import qdrant_edge as qe
from pydantic import ValidationError
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import (
    DEFAULT_VECTOR,
    EngineId,
    EngineVector,
    client_id,
    engine_id,
    finite,
    maybe_finite,
    member,
    text,
    whole,
)
from qdrant_tools.edge.convert.filters import datetime_text, engine_filter, engine_formula, without_ids
from qdrant_tools.edge.convert.records import client_vector, payload_selector, vector_selector
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.errors import InputError, first_line
from qdrant_tools.validation import DEEPEST_REQUEST, brief, refuse_nesting

DEFAULT_LIMIT = 10
RRF_K = 2
MMR_DIVERSITY = 0.5


def engine_request(engine: Engine, collection: OpenCollection, request: models.QueryRequest) -> qe.QueryRequest:
    """Return the engine's request for one query. Raises `InputError`, `VectorError`, `NotSupportedError`."""
    limit, offset = positive(request.limit, "limit"), skipped(request.offset)
    check_prefetches(request.prefetch)
    check_combination(request, has_prefetch=bool(request.prefetch))
    translation = Translation(engine, collection, request.using, request.lookup_from, limit)
    prefetches = _prefetches(engine, collection, request.prefetch)
    query = translation.query(request.query)
    return qe.QueryRequest(
        limit=limit,
        # a random sample after the first ones is a random sample; the engine would return fewer
        offset=0 if isinstance(request.query, models.SampleQuery) else offset,
        query=query,
        prefetches=prefetches,
        with_payload=payload_selector(request.with_payload),
        with_vector=vector_selector(request.with_vector),
        filter=without_ids(engine_filter(request.filter), translation.mentioned),
        score_threshold=maybe_finite(request.score_threshold, "score_threshold"),
        params=search_params(request.params),
    )


def check_combination(request: models.QueryRequest | models.Prefetch, *, has_prefetch: bool) -> None:
    """Refuse what a server refuses: prefetches without a query to merge them, fusion with nothing to fuse."""
    query = request.query
    if request.using is not None:
        text(request.using, "using")
    if has_prefetch and query is None:
        raise InputError("prefetches need a query that merges them: give query")
    if request.score_threshold is not None and query is None:
        raise InputError("score_threshold needs a query: give query")
    if request.score_threshold is not None and isinstance(query, models.OrderByQuery):
        raise InputError("an order_by query has no scores: drop score_threshold")
    fusion = isinstance(query, (models.FusionQuery, models.RrfQuery))
    if (fusion or isinstance(query, models.FormulaQuery)) and not has_prefetch:
        raise InputError(f"{type(query).__name__} merges prefetches: give at least one")
    if fusion and request.using:
        raise InputError(f"a fusion query uses no vector of its own: drop using={request.using!r}")


def _prefetches(engine: Engine, collection: OpenCollection, given: Any) -> list[qe.Prefetch]:
    if given is None:
        return []
    return [_prefetch(engine, collection, item) for item in (given if isinstance(given, list) else [given])]


def _prefetch(engine: Engine, collection: OpenCollection, given: models.Prefetch) -> qe.Prefetch:
    limit = positive(given.limit, "prefetch limit")
    check_combination(given, has_prefetch=bool(given.prefetch))
    translation = Translation(engine, collection, given.using, given.lookup_from, limit)
    nested = _prefetches(engine, collection, given.prefetch)
    query = translation.query(given.query)
    return qe.Prefetch(
        limit=limit,
        query=query,
        prefetches=nested,
        params=search_params(given.params),
        filter=without_ids(engine_filter(given.filter), translation.mentioned),
        score_threshold=maybe_finite(given.score_threshold, "score_threshold"),
    )


def check_prefetches(given: Any) -> None:
    """Raise `InputError` for prefetches nested too deep, and for what is no prefetch."""
    refuse_nesting(given, _prefetches_inside, DEEPEST_REQUEST, "prefetch")


def _prefetches_inside(given: Any) -> Iterable[tuple[str, Any]] | None:
    if given is None:
        return None
    if isinstance(given, list):  # not a level of its own: what is in it stands where it stands
        return ((f".prefetch[{place}]", _known(each).prefetch) for place, each in enumerate(given))
    return [(".prefetch", _known(given).prefetch)]


def _known(given: Any) -> models.Prefetch:
    if not isinstance(given, models.Prefetch):
        raise InputError(f"prefetch expects models.Prefetch or a list of them, got {brief(given)}")
    return given


def positive(value: Any, name: str) -> int:
    """`value`, or 10 for None. Raises `InputError` below 1 and for what is no whole number."""
    return DEFAULT_LIMIT if value is None else whole(value, name)


def skipped(offset: Any) -> int:
    """`offset`, or 0 for None. Raises `InputError` below 0 and for what is no whole number."""
    return 0 if offset is None else whole(offset, "offset", least=0)


@dataclass
class Translation:
    """One query being translated; collects the ids it mentions, which its results must not contain."""

    engine: Engine
    collection: OpenCollection
    using: str | None
    lookup: models.LookupLocation | None
    limit: int
    mentioned: set[EngineId] = field(default_factory=set)

    def query(self, given: Any) -> Any:
        """Return the engine's query, None for None."""
        if given is None:
            return None
        if isinstance(given, models.NearestQuery):
            return self._nearest(given)
        if isinstance(given, models.RecommendQuery):
            return self._recommend(given.recommend)
        if isinstance(given, models.DiscoverQuery):
            discover = given.discover
            query = qe.DiscoverQuery(self.vector(discover.target), self._pairs(discover.context))
            return qe.Query.Discover(query, using=self.using)
        if isinstance(given, models.ContextQuery):
            return qe.Query.Context(qe.ContextQuery(self._pairs(given.context)), using=self.using)
        if isinstance(given, models.RelevanceFeedbackQuery):
            return self._feedback(given.relevance_feedback)
        if isinstance(given, models.TextQuery):
            return self._text(given)
        if isinstance(given, MERGING):
            return merging_query(given)
        return qe.Query.Nearest(self.vector(given), using=self.using)

    def vector(self, given: Any) -> EngineVector:
        """Return the vector itself, or the stored one of the point that `given` names."""
        if is_point_id(given):
            given = self._stored(engine_id(given))
        return self.collection.schema.check(self.using or DEFAULT_VECTOR, given)

    def _stored(self, point_id: EngineId) -> Any:
        lookup = self.lookup
        source = self.collection if lookup is None else self.engine.collection(lookup.collection)
        name = self.using or DEFAULT_VECTOR
        if lookup is not None and lookup.vector is not None:
            name = lookup.vector
        source.schema.require(name)
        with source.hold() as shard:
            records = shard.retrieve([point_id], False, [name])
        if not records:
            raise InputError(f"collection '{source.name}' has no point {point_id} to take a vector from (not found)")
        vector: Any = records[0].vector
        if isinstance(vector, dict):
            if name not in vector:
                raise InputError(f"point {point_id} of collection '{source.name}' has no vector {name!r} (not found)")
            vector = vector[name]
        if source is self.collection:
            self.mentioned.add(client_id(records[0].id))
        return client_vector(vector)

    def _nearest(self, given: models.NearestQuery) -> Any:
        vector = self.vector(given.nearest)
        if given.mmr is None:
            return qe.Query.Nearest(vector, using=self.using)
        diversity, candidates = mmr_settings(given.mmr, self.limit)
        return qe.Mmr(vector, 1.0 - diversity, candidates, using=self.using)

    def _pairs(self, given: Any) -> list[qe.ContextPair]:
        pairs = [] if given is None else given if isinstance(given, list) else [given]
        return [qe.ContextPair(self.vector(pair.positive), self.vector(pair.negative)) for pair in pairs]

    def _recommend(self, given: models.RecommendInput) -> Any:
        positives = [self.vector(example) for example in given.positive or []]
        negatives = [self.vector(example) for example in given.negative or []]
        strategy = given.strategy or models.RecommendStrategy.AVERAGE_VECTOR
        if strategy == models.RecommendStrategy.AVERAGE_VECTOR:
            if not positives:
                raise InputError("recommend by average_vector needs at least one positive example")
            return qe.Query.Nearest(average(positives, negatives), using=self.using)
        if not positives and not negatives:
            raise InputError(f"recommend by {strategy.value} needs at least one positive or negative example")
        query = qe.RecommendQuery(positives, negatives)
        if strategy == models.RecommendStrategy.BEST_SCORE:
            return qe.Query.RecommendBestScore(query, using=self.using)
        return qe.Query.RecommendSumScores(query, using=self.using)

    def _feedback(self, given: models.RelevanceFeedbackInput) -> Any:
        naive = given.strategy.naive
        a, b, c = (finite(getattr(naive, name), f"relevance feedback {name}") for name in "abc")
        if b < 0:
            raise InputError(f"relevance feedback b value {b} is invalid, expected 0 or more")
        items = [
            qe.FeedbackItem(self.vector(item.example), finite(item.score, "feedback score")) for item in given.feedback
        ]
        strategy = qe.NaiveFeedbackStrategy(a, b, c)
        return qe.Query.FeedbackNaive(
            qe.FeedbackNaiveQuery(self.vector(given.target), items, strategy), using=self.using
        )

    def _text(self, given: models.TextQuery) -> qe.TextQuery:
        if not self.using:
            raise InputError("a text query needs `using`, the payload field with a scoring text index")
        if isinstance(given.text, str):
            return qe.TextQuery(self.using, given.text)
        bm25 = given.text.scoring.bm25 if given.text.scoring is not None else models.Bm25Params()
        k, b = maybe_finite(bm25.k, "bm25 k"), maybe_finite(bm25.b, "bm25 b")
        return qe.TextQuery(self.using, given.text.query, qe.Bm25Params(k, b))


def mmr_settings(given: models.Mmr, limit: int) -> tuple[float, int]:
    """Diversity and number of candidates, with a server's defaults. Raises `InputError`."""
    diversity = MMR_DIVERSITY if given.diversity is None else given.diversity
    if not 0 <= diversity <= 1:
        raise InputError(f"mmr diversity {diversity} is invalid, expected 0 to 1")
    candidates = limit if given.candidates_limit is None else given.candidates_limit
    return diversity, whole(candidates, "mmr candidates_limit", least=0, most=16_384)


def is_point_id(value: Any) -> bool:
    return isinstance(value, (int, str, uuid.UUID, np.integer)) and not isinstance(value, bool)


MERGING = (models.FusionQuery, models.RrfQuery, models.FormulaQuery, models.OrderByQuery, models.SampleQuery)


def merging_query(given: Any) -> Any:
    """Return the engine's query for those that use no vector: fusion, formula, order by, sample."""
    if isinstance(given, models.FusionQuery):
        return qe.Fusion.Rrf(k=RRF_K) if given.fusion == models.Fusion.RRF else qe.Fusion.Dbsf()
    if isinstance(given, models.RrfQuery):
        k, weights = rrf_settings(given.rrf)
        return qe.Fusion.Rrf(k=k, weights=weights)
    if isinstance(given, models.FormulaQuery):
        return engine_formula(given)
    if isinstance(given, models.OrderByQuery):
        return order_by(given.order_by)
    return qe.Sample.Random


def rrf_settings(given: models.Rrf) -> tuple[int, list[float] | None]:
    """Rank constant and weights, with a server's default. Raises `InputError`."""
    k = RRF_K if given.k is None else whole(given.k, "rrf k", most=2**32 - 1)
    return k, None if given.weights is None else [finite(weight, "rrf weight") for weight in given.weights]


def order_by(given: Any) -> qe.OrderBy:
    """Return the engine's order for a payload key or a `models.OrderBy`."""
    if isinstance(given, str):
        return qe.OrderBy(given)
    if not isinstance(given, models.OrderBy):
        raise InputError(f"order_by expects a payload key or models.OrderBy, got {brief(given)}")
    start: Any = given.start_from
    if isinstance(start, float):
        start = finite(start, "order_by start_from")
    elif start is not None and not isinstance(start, int):
        start = datetime_text(start)
    return qe.OrderBy(given.key, direction=member(qe.Direction, given.direction), start_from=start)


def search_params(given: Any) -> qe.SearchParams | None:
    """Return the engine's search parameters for `models.SearchParams` or a dict of that shape. Raises `InputError`."""
    if given is None:
        return None
    if isinstance(given, dict):
        try:
            given = models.SearchParams(**given)
        except (ValidationError, TypeError) as error:
            raise InputError(f"{brief(given)} are no search_params: {first_line(error)}") from error
    if not isinstance(given, models.SearchParams):
        raise InputError(f"search_params expects models.SearchParams, got {brief(given)}")
    acorn, idf = given.acorn, given.idf
    selectivity = maybe_finite(acorn.max_selectivity, "acorn max_selectivity") if acorn is not None else None
    return qe.SearchParams(
        hnsw_ef=given.hnsw_ef if given.hnsw_ef is None else whole(given.hnsw_ef, "hnsw_ef", least=0),
        exact=bool(given.exact),
        indexed_only=bool(given.indexed_only),
        quantization=_quantization(given.quantization),
        acorn=qe.AcornSearchParams(bool(acorn.enable), selectivity) if acorn is not None else None,
        idf=qe.IdfParams(engine_filter(idf.corpus)) if isinstance(idf, models.IdfCorpusParams) else None,
    )


def _quantization(given: models.QuantizationSearchParams | None) -> qe.QuantizationSearchParams | None:
    if given is None:
        return None
    oversampling = maybe_finite(given.oversampling, "quantization oversampling")
    return qe.QuantizationSearchParams(bool(given.ignore), given.rescore, oversampling)


def average(positives: Sequence[Any], negatives: Sequence[Any]) -> Any:
    """The query vector of `average_vector`: mean of positives, plus its difference from the mean of negatives.

    Multi-vectors have no mean: the query is all positive vectors and the negated negative ones.
    """
    first = positives[0]
    if isinstance(first, qe.SparseVector):
        return _sparse_average(positives, negatives)
    if isinstance(first[0], list):
        return [*itertools.chain(*positives), *([-number for number in row] for row in itertools.chain(*negatives))]
    mean = np.mean(np.asarray(positives, dtype=np.float32), axis=0)
    if negatives:
        mean = mean + mean - np.mean(np.asarray(negatives, dtype=np.float32), axis=0)
    return mean.tolist()


def _sparse_average(positives: Sequence[Any], negatives: Sequence[Any]) -> qe.SparseVector:
    total: dict[int, float] = {}
    positive_share = (2.0 if negatives else 1.0) / len(positives)
    shares = [(vector, positive_share) for vector in positives]
    shares += [(vector, -1.0 / len(negatives)) for vector in negatives]
    for vector, share in shares:
        for index, value in zip(vector.indices, vector.values, strict=True):
            total[index] = total.get(index, 0.0) + share * value
    indices = sorted(total)
    return qe.SparseVector(indices, [total[index] for index in indices])
