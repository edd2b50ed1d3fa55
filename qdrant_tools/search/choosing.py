"""A collection -> how it is searched from now on, so that a search finds what exact search finds.

A collection whose vectors are few is searched exactly: that is as fast as a person can notice, and finds everything.
A larger one gets the smallest beam width (`hnsw_ef`) that finds 99 of 100 neighbours; if none does, its graph is built
again with more edges. Queries are stored vectors and points between two of them, which are as far from the passages as
questions are. Half of them choose, and the other half says what was found.

Guarantees: the choice stands in the collection's metadata, and every search of this package makes it; what a person
has said is never chosen again; a collection that has hardly grown is not measured again; at most some 200 queries are
asked, fewer of a large collection. Does not know: texts, encoders.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from qdrant_tools.client.connect import engine_of
from qdrant_tools.client.gateway import plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import UNKNOWN_SPACE, CollectionMetadata, SearchChoice, metadata_of
from qdrant_tools.collections.points import random_passages
from qdrant_tools.collections.settings import CollectionSettings, settings_of
from qdrant_tools.errors import EngineError, InputError
from qdrant_tools.search.neighbours import QueryVectors, Truth
from qdrant_tools.tuning import TuningGrid, tune
from qdrant_tools.validation import checked_count

__all__ = ["SearchReport", "choose_search", "keep_search"]

EXACT_BYTES = 32 << 20
"""Of vectors: some 22,000 of 384 dimensions, which are compared with in about a millisecond."""
TARGET = 0.99
K = 10
GRID = TuningGrid(hnsw_ef=(64, 128, 256, 512, 1024))
DENSER = {"m": 32, "ef_construct": 256}
"""Settings of the graph, where the usual ones do not reach the target."""
GROWN = 0.2
"""Part of a collection that may be new before it is measured again."""
MOST_QUERIES, FEWEST_QUERIES = 200, 40
_COMPARED = 20_000_000
"""Vectors that all queries together may be compared with."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchReport:
    """How a collection is searched, and what that finds."""

    collection: str
    points: int
    exact: bool
    hnsw_ef: int
    """Beam width in the graph, if the search is not exact."""
    recall: float | None
    """Share of the ten nearest that it finds, on queries that chose nothing; None if it was never measured."""
    told: bool
    """Whether a person has said so."""
    measured: bool
    """Whether that was measured now; otherwise the recall is that of the last time."""
    queries: int = 0
    graph_recall: float | None = None
    """Where the search is exact: what the graph would find with this `hnsw_ef`."""
    rebuilt: bool = False
    """Whether the graph was built again, with more edges."""

    @property
    def sentence(self) -> str:
        """What was chosen and found, in a line."""
        how = f"exact, among all {self.points:,} vectors" if self.exact else f"by HNSW with hnsw_ef={self.hnsw_ef}"
        found = "" if self.recall is None else f": recall@{K} {self.recall:.3f} against exact search"
        if self.exact and self.graph_recall is not None:
            found += f", {self.graph_recall:.3f} with HNSW"
        why = " (as it was told)" if self.told else " (the graph was built again, with more edges)" * self.rebuilt
        short = "" if self.recall is None or self.recall >= TARGET or self.told else "; --exact finds all"
        return f"search is {how}{found}{why}{short}"

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def choose_search(
    collection: Collection,
    *,
    exact: bool | None = None,
    hnsw_ef: int | None = None,
    before: SearchChoice | None = None,
) -> SearchReport | None:
    """Measure what a search finds, and keep with the collection how it is searched.

    `exact` or `hnsw_ef` say how, instead of a choice. `before`: what was chosen or said for another collection whose
    place this one takes. Returns None where there is nothing to choose: on `:memory:`, which compares with every vector
    anyway, in an empty collection, and in one that knows no encoder.

    Raises:
        InputError: `hnsw_ef` below 1, or beside `exact`.
    """
    if hnsw_ef is not None:
        checked_count("hnsw_ef", hnsw_ef)
    if exact and hnsw_ef is not None:
        raise InputError(f"exact search uses no hnsw_ef, and {hnsw_ef} was given: say one of the two")
    if engine_of(collection.client) == "memory":
        return None
    info = collection.gateway.info()
    metadata, settings, points = metadata_of(info), settings_of(info), collection.gateway.count()
    if metadata is None or metadata.space == UNKNOWN_SPACE or settings is None or not points:
        return None
    current = replace(collection, metadata=metadata)
    known = before or metadata.search or _said_earlier(metadata)
    try:
        if exact is not None or hnsw_ef is not None:
            told = SearchChoice(exact=bool(exact), told=True)
            report = _measured(_searching(current, told, hnsw_ef or settings.hnsw_ef), points)
        elif known is not None and (known.told or _is_settled(known, points)):
            if before is None and metadata.search is not None and (metadata.search.points or known.told):
                collection.take_search(metadata)
                return _report(current, points)
            report = _measured(_searching(current, known, settings.hnsw_ef), points)
        elif settings.quantization is None and not settings.on_disk:
            report = _chosen(current, settings, points)
        else:
            # whoever compresses vectors, or leaves them on the disk, does not want all of them read
            report = _measured(_searching(current, SearchChoice(), settings.hnsw_ef), points)
    except EngineError as error:  # a server's strict mode may refuse exact search
        logger.warning("collection %r: what a search finds cannot be measured: %s", collection.name, error)
        return None
    search = SearchChoice(report.exact, report.told, points, report.recall)
    # read again: while this was measured, somebody may have promoted an adapter
    latest = metadata_of(collection.gateway.info()) or metadata
    kept = replace(latest, hnsw_ef=report.hnsw_ef, search=search)
    if kept != latest:
        collection.gateway.update(metadata=kept.for_qdrant())
    collection.take_search(kept)
    return report


def keep_search(collection: Collection) -> bool:
    """Choose again where that takes no time: for few vectors, after they were added one by one or by another program.

    Returns False if there are too many for that, and what is known of the search is not of them: `choose_search` may
    take minutes then, and is for the caller to decide.
    """
    if engine_of(collection.client) == "memory":
        return True
    points, known = collection.gateway.count(), collection.metadata.search
    if not points or (known is not None and (known.told or (known.points and _is_settled(known, points)))):
        return True
    if points * collection.dimension * 4 > EXACT_BYTES:
        return False
    choose_search(collection)
    return True


def _said_earlier(metadata: CollectionMetadata) -> SearchChoice | None:
    """Who made the collection with another `hnsw_ef` than the usual one has said how to search."""
    usual = (None, CollectionSettings.hnsw_ef)
    return None if metadata.hnsw_ef in usual else SearchChoice(told=True)


def _is_settled(known: SearchChoice, points: int) -> bool:
    return abs(points - known.points) <= GROWN * known.points


def _searching(collection: Collection, search: SearchChoice, hnsw_ef: int) -> Collection:
    return replace(collection, metadata=replace(collection.metadata, search=search, hnsw_ef=hnsw_ef))


def _report(collection: Collection, points: int) -> SearchReport:
    """What the metadata say, without measuring."""
    search = collection.metadata.search or SearchChoice()
    hnsw_ef = collection.hnsw_ef or CollectionSettings.hnsw_ef
    return SearchReport(collection.name, points, search.exact, hnsw_ef, search.recall, search.told, False)


def _chosen(collection: Collection, settings: CollectionSettings, points: int) -> SearchReport:
    has_graph = bool(collection.gateway.info().indexed_vectors_count)
    if points * collection.dimension * 4 <= EXACT_BYTES or not has_graph:
        return _measured(_searching(collection, SearchChoice(exact=True), settings.hnsw_ef), points)
    choosing, saying = _queries(collection, points)
    exact, hnsw_ef, reached = _tuned(collection, choosing)
    rebuilt = not reached and (settings.m, settings.ef_construct) < tuple(DENSER.values())
    if rebuilt:
        denser = {name: max(least, getattr(settings, name)) for name, least in DENSER.items()}
        CollectionManager(collection.client).change(collection.name, replace(settings, **denser))
        collection.build_index(choose=False)
        exact, hnsw_ef, _ = _tuned(collection, choosing)
    chosen = _searching(collection, SearchChoice(exact=exact), hnsw_ef)
    return replace(_measured(chosen, points, queries=saying), rebuilt=rebuilt)


def _tuned(collection: Collection, queries: np.ndarray) -> tuple[bool, int, bool]:
    """The cheapest search that reaches the target: exact or not, its `hnsw_ef`, and whether the graph reaches it."""
    report = tune(collection, queries, k=K, target_recall=TARGET, grid=GRID)
    graphs = [trial for trial in report.trials if not trial.exact]
    enough = [trial for trial in graphs if trial.recall >= TARGET]
    if report.chosen.exact and enough:
        return True, enough[0].hnsw_ef, True
    best = enough[0] if enough else max(graphs, key=lambda trial: trial.recall)
    return False, best.hnsw_ef, bool(enough)


def _measured(collection: Collection, points: int, *, queries: np.ndarray | None = None) -> SearchReport:
    """The recall of the search that the collection's metadata say."""
    vectors = QueryVectors(_queries(collection, points)[1] if queries is None else queries)
    truth = Truth.of(collection, vectors, K)

    def recall(**how: Any) -> float:
        requests = vectors.requests(collection, collection.search_params(**how), K)
        found = collection.gateway.query_batch(requests)
        return truth.recall([[plain_id(point.id) for point in hits] for hits in found])

    exact = collection.searches_exactly
    hnsw_ef = collection.hnsw_ef or CollectionSettings.hnsw_ef
    return SearchReport(
        collection.name,
        points,
        exact,
        hnsw_ef,
        recall(),
        told=bool(collection.metadata.search and collection.metadata.search.told),
        measured=True,
        queries=len(vectors.vectors),
        graph_recall=recall(hnsw_ef=hnsw_ef) if exact else None,
    )


def _queries(collection: Collection, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of query vectors (n, dimension), half of each stored vectors and half points between two of them."""
    count = min(MOST_QUERIES, max(FEWEST_QUERIES, _COMPARED // points))
    stored = [passage.vector for passage in random_passages(collection, count) if passage.vector is not None]
    vectors = np.array(stored, dtype=np.float32)
    other = np.roll(vectors, 1, axis=0)
    between = vectors + other
    # opposite vectors have nothing between them
    usable = np.linalg.norm(between, axis=1) > 1e-3
    between[usable] /= np.linalg.norm(between[usable], axis=1, keepdims=True)
    mixed = np.where((np.arange(len(vectors)) % 4 < 2)[:, None] & usable[:, None], between, vectors)
    return (mixed[0::2], mixed[1::2]) if len(mixed) > 1 else (mixed, mixed)
