"""qdrant-client's queries -> the engine's: point ids become their vectors, defaults become a server's.

As on a server, the results do not contain a point that the request names as an example, in a prefetch or in the query
itself. The default rank constant of RRF is 2 and ranks start at 0. MMR takes as many candidates as results are
requested.

Guarantees: every number is finite, nesting has a limit. Does not know: how results are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import qdrant_edge as qe
from pydantic import ValidationError
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import (
    DEFAULT_VECTOR,
    EngineId,
    EngineVector,
    engine_id,
    finite,
    maybe_finite,
    member,
    text,
    whole,
)
from qdrant_tools.edge.convert.filters import datetime_text, engine_filter, engine_formula
from qdrant_tools.edge.convert.records import client_vector, payload_selector, vector_selector
from qdrant_tools.edge.named_points import filter_without_named, is_point_id, listed_prefetches
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.errors import InputError, first_line
from qdrant_tools.validation import DEEPEST_REQUEST, brief, is_unicode, refuse_nesting

DEFAULT_LIMIT = 10
# a server's defaults
RRF_K = 2
MMR_DIVERSITY = 0.5


def engine_request(engine: Engine, collection: OpenCollection, request: models.QueryRequest) -> qe.QueryRequest:
    """Return the engine's request for one query. Raises `InputError`, `VectorError`, `NotSupportedError`."""
    limit, offset = checked_limit(request.limit, "limit"), checked_offset(request.offset)
    check_prefetches(request.prefetch)
    check_combination(request, has_prefetch=bool(request.prefetch))
    converter = QueryConverter(engine, collection, request.using, request.lookup_from, limit)
    prefetches = _engine_prefetches(engine, collection, request.prefetch)
    query = converter.query(request.query)
    return qe.QueryRequest(
        limit=limit,
        # the engine would return fewer points; a random sample needs no offset to be random
        offset=0 if isinstance(request.query, models.SampleQuery) else offset,
        query=query,
        prefetches=prefetches,
        with_payload=payload_selector(request.with_payload),
        with_vector=vector_selector(request.with_vector),
        # the engine hands it down to the prefetches
        filter=engine_filter(filter_without_named(engine, collection, request)),
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


def _engine_prefetches(engine: Engine, collection: OpenCollection, prefetch: Any) -> list[qe.Prefetch]:
    return [_engine_prefetch(engine, collection, part) for part in listed_prefetches(prefetch)]


def _engine_prefetch(engine: Engine, collection: OpenCollection, prefetch: models.Prefetch) -> qe.Prefetch:
    limit = checked_limit(prefetch.limit, "prefetch limit")
    check_combination(prefetch, has_prefetch=bool(prefetch.prefetch))
    converter = QueryConverter(engine, collection, prefetch.using, prefetch.lookup_from, limit)
    nested = _engine_prefetches(engine, collection, prefetch.prefetch)
    query = converter.query(prefetch.query)
    return qe.Prefetch(
        limit=limit,
        query=query,
        prefetches=nested,
        params=search_params(prefetch.params),
        filter=engine_filter(prefetch.filter),
        score_threshold=maybe_finite(prefetch.score_threshold, "score_threshold"),
    )


def check_prefetches(prefetch: Any) -> None:
    """Raise `InputError` for prefetches nested too deep, and for what is no prefetch."""
    refuse_nesting(prefetch, _prefetches_inside, DEEPEST_REQUEST, "prefetch")


def _prefetches_inside(prefetch: Any) -> Iterable[tuple[str, Any]] | None:
    if prefetch is None:
        return None
    if isinstance(prefetch, list):  # a list is no level of its own
        return ((f".prefetch[{index}]", _checked(part).prefetch) for index, part in enumerate(prefetch))
    return [(".prefetch", _checked(prefetch).prefetch)]


def _checked(prefetch: Any) -> models.Prefetch:
    if not isinstance(prefetch, models.Prefetch):
        raise InputError(f"prefetch expects models.Prefetch or a list of them, got {brief(prefetch)}")
    return prefetch


def checked_limit(value: Any, name: str) -> int:
    """`value`, or 10 for None. Raises `InputError` below 1 and for what is no whole number."""
    return DEFAULT_LIMIT if value is None else whole(value, name)


def checked_offset(offset: Any) -> int:
    """`offset`, or 0 for None. Raises `InputError` below 0 and for what is no whole number."""
    return 0 if offset is None else whole(offset, "offset", least=0)


@dataclass
class QueryConverter:
    """Converts one query."""

    engine: Engine
    collection: OpenCollection
    using: str | None
    lookup: models.LookupLocation | None
    limit: int

    def query(self, query: Any) -> Any:
        """Return the engine's query, None for None."""
        if query is None:
            return None
        if isinstance(query, models.NearestQuery):
            return self._nearest(query)
        if isinstance(query, models.RecommendQuery):
            return self._recommend(query.recommend)
        if isinstance(query, models.DiscoverQuery):
            target, pairs = self.vector(query.discover.target), self._pairs(query.discover.context)
            return qe.Query.Discover(qe.DiscoverQuery(target, pairs), using=self.using)
        if isinstance(query, models.ContextQuery):
            return qe.Query.Context(qe.ContextQuery(self._pairs(query.context)), using=self.using)
        if isinstance(query, models.RelevanceFeedbackQuery):
            return self._feedback(query.relevance_feedback)
        if isinstance(query, models.TextQuery):
            return self._text(query)
        if isinstance(query, WITHOUT_VECTOR):
            return query_without_vector(query)
        return qe.Query.Nearest(self.vector(query), using=self.using)

    def vector(self, example: Any) -> EngineVector:
        """Return the vector itself, or the stored one of the point that `example` names."""
        vector = self._stored_vector(engine_id(example)) if is_point_id(example) else example
        return self.collection.schema.check(self.using or DEFAULT_VECTOR, vector)

    def _stored_vector(self, point_id: EngineId) -> Any:
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
        return client_vector(vector)

    def _nearest(self, query: models.NearestQuery) -> Any:
        vector = self.vector(query.nearest)
        if query.mmr is None:
            return qe.Query.Nearest(vector, using=self.using)
        diversity, candidates = mmr_settings(query.mmr, self.limit)
        # the engine takes the weight of the relevance, a server that of the diversity
        return qe.Mmr(vector, 1.0 - diversity, candidates, using=self.using)

    def _pairs(self, context: Any) -> list[qe.ContextPair]:
        pairs = [] if context is None else context if isinstance(context, list) else [context]
        return [qe.ContextPair(self.vector(pair.positive), self.vector(pair.negative)) for pair in pairs]

    def _recommend(self, examples: models.RecommendInput) -> Any:
        positives = [self.vector(example) for example in examples.positive or []]
        negatives = [self.vector(example) for example in examples.negative or []]
        strategy = examples.strategy or models.RecommendStrategy.AVERAGE_VECTOR
        if strategy == models.RecommendStrategy.AVERAGE_VECTOR:
            if not positives:
                raise InputError("recommend by average_vector needs at least one positive example")
            return qe.Query.Nearest(average_vector(positives, negatives), using=self.using)
        if not positives and not negatives:
            raise InputError(f"recommend by {strategy.value} needs at least one positive or negative example")
        query = qe.RecommendQuery(positives, negatives)
        if strategy == models.RecommendStrategy.BEST_SCORE:
            return qe.Query.RecommendBestScore(query, using=self.using)
        return qe.Query.RecommendSumScores(query, using=self.using)

    def _feedback(self, settings: models.RelevanceFeedbackInput) -> Any:
        naive = settings.strategy.naive
        a, b, c = (finite(getattr(naive, name), f"relevance feedback {name}") for name in "abc")
        if b < 0:
            raise InputError(f"relevance feedback b value {b} is invalid, expected 0 or more")
        items = [
            qe.FeedbackItem(self.vector(item.example), finite(item.score, "feedback score"))
            for item in settings.feedback
        ]
        strategy = qe.NaiveFeedbackStrategy(a, b, c)
        return qe.Query.FeedbackNaive(
            qe.FeedbackNaiveQuery(self.vector(settings.target), items, strategy), using=self.using
        )

    def _text(self, query: models.TextQuery) -> qe.TextQuery:
        if not self.using:
            raise InputError("a text query needs `using`, the payload field with a scoring text index")
        if isinstance(query.text, str):
            return qe.TextQuery(self.using, query.text)
        bm25 = query.text.scoring.bm25 if query.text.scoring is not None else models.Bm25Params()
        k, b = maybe_finite(bm25.k, "bm25 k"), maybe_finite(bm25.b, "bm25 b")
        return qe.TextQuery(self.using, query.text.query, qe.Bm25Params(k, b))


def mmr_settings(mmr: models.Mmr, limit: int) -> tuple[float, int]:
    """Diversity and number of candidates, with a server's defaults. Raises `InputError`."""
    diversity = MMR_DIVERSITY if mmr.diversity is None else mmr.diversity
    if not 0 <= diversity <= 1:
        raise InputError(f"mmr diversity {diversity} is invalid, expected 0 to 1")
    candidates = limit if mmr.candidates_limit is None else mmr.candidates_limit
    return diversity, whole(candidates, "mmr candidates_limit", least=0, most=16_384)


WITHOUT_VECTOR = (models.FusionQuery, models.RrfQuery, models.FormulaQuery, models.OrderByQuery, models.SampleQuery)


def query_without_vector(query: Any) -> Any:
    """Return the engine's fusion, formula, order or sample."""
    if isinstance(query, models.FusionQuery):
        return qe.Fusion.Rrf(k=RRF_K) if query.fusion == models.Fusion.RRF else qe.Fusion.Dbsf()
    if isinstance(query, models.RrfQuery):
        k, weights = rrf_settings(query.rrf)
        return qe.Fusion.Rrf(k=k, weights=weights)
    if isinstance(query, models.FormulaQuery):
        return engine_formula(query)
    if isinstance(query, models.OrderByQuery):
        return order_by(query.order_by)
    return qe.Sample.Random


def rrf_settings(rrf: models.Rrf) -> tuple[int, list[float] | None]:
    """Rank constant and weights, with a server's default. Raises `InputError`."""
    k = RRF_K if rrf.k is None else whole(rrf.k, "rrf k", most=2**32 - 1)
    return k, None if rrf.weights is None else [finite(weight, "rrf weight") for weight in rrf.weights]


def order_by(order: Any) -> qe.OrderBy:
    """Return the engine's order for a payload key or a `models.OrderBy`."""
    if isinstance(order, str):
        return qe.OrderBy(order)
    if not isinstance(order, models.OrderBy):
        raise InputError(f"order_by expects a payload key or models.OrderBy, got {brief(order)}")
    start: Any = order.start_from
    if isinstance(start, float):
        start = finite(start, "order_by start_from")
    elif start is not None and not isinstance(start, int):
        start = datetime_text(start)
    return qe.OrderBy(order.key, direction=member(qe.Direction, order.direction), start_from=start)


def search_params(params: Any) -> qe.SearchParams | None:
    """Return the engine's search parameters for `models.SearchParams` or a dict of that shape. Raises `InputError`."""
    if params is None:
        return None
    if isinstance(params, dict):
        try:
            params = models.SearchParams(**params)
        except (ValidationError, TypeError) as error:
            raise InputError(f"{brief(params)} are no search_params: {first_line(error)}") from error
    if not isinstance(params, models.SearchParams):
        raise InputError(f"search_params expects models.SearchParams, got {brief(params)}")
    acorn, idf = params.acorn, params.idf
    selectivity = maybe_finite(acorn.max_selectivity, "acorn max_selectivity") if acorn is not None else None
    return qe.SearchParams(
        hnsw_ef=params.hnsw_ef if params.hnsw_ef is None else whole(params.hnsw_ef, "hnsw_ef", least=0),
        exact=bool(params.exact),
        indexed_only=bool(params.indexed_only),
        quantization=_quantization(params.quantization),
        acorn=qe.AcornSearchParams(bool(acorn.enable), selectivity) if acorn is not None else None,
        idf=qe.IdfParams(engine_filter(idf.corpus)) if isinstance(idf, models.IdfCorpusParams) else None,
    )


def _quantization(params: models.QuantizationSearchParams | None) -> qe.QuantizationSearchParams | None:
    if params is None:
        return None
    oversampling = maybe_finite(params.oversampling, "quantization oversampling")
    return qe.QuantizationSearchParams(bool(params.ignore), params.rescore, oversampling)


# -- recommendation by average


def average_vector(positives: Sequence[Any], negatives: Sequence[Any]) -> Any:
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


def stop_words(language: str) -> Callable[[str], bool]:
    """Whether a word is one of the engine's stop words of a language.

    Raises:
        InputError: the engine has none for it; the message names those it has.
    """
    known = sorted(name.lower() for name in dir(qe.Language) if not name.startswith("_"))
    if language not in known:
        raise InputError(f"stop_words is {brief(language)}, expected one of {', '.join(known)}")
    # of a text that is one word, and a stop word, the engine leaves nothing
    engine = qe.Bm25(
        qe.Bm25Config(language=language, stemmer=qe.DisabledStemmer(), tokenizer=qe.TokenizerType.Whitespace)
    )
    return lambda word: is_unicode(word) and not word.isspace() and not engine.embed_query(word).indices
