"""A collection and query vectors -> recall and cost of each search setting, and the cheapest one that finds enough.

Every setting is measured against exact search on the same queries: recall@k, the latency of single queries, and queries
per second in batches. A hit is right if it is as near as the k-th neighbour; see `search.neighbours`. Settings of the
search (`hnsw_ef`, oversampling) are measured on the collection itself. Settings of the index (`m`, quantisation) are
measured on a copy of its vectors, which is dropped afterwards. For the embedded engine the copy lies in a temporary
folder. On a server it is a collection whose name begins with "embed-plus-scratch-", which a kill leaves behind.

Guarantees: the collection is only read. Stored vectors that serve as queries are left out of their own results. Queries
that warm caches are not counted. Latencies are those of this machine, at this moment, with this client. Does not know:
texts.
"""

from __future__ import annotations

import logging
import shlex
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import connect, engine_of
from qdrant_tools.client.gateway import DEFAULT_RETRY, Gateway, plain_id
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.metadata import SearchChoice
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import CollectionError, InputError, NotSupportedError, PlusError
from qdrant_tools.records import Progress, Vectors
from qdrant_tools.search.neighbours import QueryVectors, Truth
from qdrant_tools.validation import checked_count, checked_number, checked_vectors

logger = logging.getLogger(__name__)

__all__ = ["TuningGrid", "TuningReport", "TuningTrial", "apply", "tune"]


@dataclass(frozen=True)
class TuningGrid:
    """The settings to try. `m` and `quantization` None stand for what the collection has; `oversampling` concerns
    quantised settings only."""

    hnsw_ef: tuple[int, ...] = (16, 32, 64, 128, 256)
    m: tuple[int | None, ...] = (None,)
    quantization: tuple[Quantization | None, ...] = (None,)
    oversampling: tuple[float, ...] = (1.0, 2.0, 4.0)

    def __post_init__(self) -> None:
        if not (self.hnsw_ef and self.m and self.quantization and self.oversampling):
            raise InputError(f"{self}: every axis needs at least one value")
        if min(self.hnsw_ef) < 1 or min(self.oversampling) < 1:
            raise InputError(f"{self}: expected hnsw_ef and oversampling of at least 1")


@dataclass(frozen=True)
class TuningTrial:
    """One setting and its measurement. `exact` compares with every vector and uses no other setting."""

    hnsw_ef: int
    m: int
    quantization: str
    oversampling: float
    exact: bool
    recall: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    queries_per_second: float


@dataclass(frozen=True)
class TuningReport:
    """All trials, exact search first. `chosen` has the lowest median latency of those that reach the target.

    It is exact search if no other trial reaches the target, or if exact search is cheaper than all that do.
    """

    collection: str
    points: int
    queries: int
    k: int
    target_recall: float
    trials: tuple[TuningTrial, ...]
    chosen: TuningTrial
    settings: CollectionSettings
    """The collection's settings with the chosen ones in place; see `apply`."""

    @property
    def reason(self) -> str:
        """Why this one, in a sentence."""
        reaching = [trial for trial in self.trials if trial.recall >= self.target_recall and not trial.exact]
        if not self.chosen.exact:
            return (
                f"hnsw_ef={self.chosen.hnsw_ef} is the fastest of {len(reaching)} settings that reach "
                f"recall@{self.k} {self.target_recall}: {self.chosen.recall:.3f} at {self.chosen.p50_ms:.3f} ms"
            )
        if reaching:
            return f"exact search is cheaper than every setting that reaches recall@{self.k} {self.target_recall}"
        best = max((trial.recall for trial in self.trials if not trial.exact), default=0.0)
        return f"no setting reaches recall@{self.k} {self.target_recall}; the best is {best:.3f}: search exactly"

    def as_row(self) -> dict[str, Any]:
        return {
            "collection": self.collection,
            "points": self.points,
            "queries": self.queries,
            "k": self.k,
            "target_recall": self.target_recall,
            "chosen": asdict(self.chosen),
            "reason": self.reason,
            "trials": [asdict(trial) for trial in self.trials],
        }


def tune(
    collection: Collection,
    queries: ArrayLike | None = None,
    *,
    k: int = 10,
    target_recall: float = 0.95,
    grid: TuningGrid | None = None,
    held_out: int = 200,
    progress: Progress | None = None,
) -> TuningReport:
    """Measure the grid on query vectors (n, dimension), or on `held_out` stored vectors if there are none.

    Stored vectors are like passages, not like queries: real queries say more. `progress` receives the number of
    settings measured.

    Raises:
        CollectionError: the collection is empty, or has no index: build it first.
        InputError: k below 1, a target that is no share.
        NotSupportedError: `:memory:` has no index to tune.
    """
    checked_count("k", k)
    checked_count("held_out", held_out)
    checked_number("target_recall", target_recall, above=0, most=1)
    current = _current(collection)
    vectors = _query_vectors(collection, queries, held_out)
    grid = grid or TuningGrid()
    truth = Truth.of(collection, vectors, k)
    exact = measure(collection, truth, params=collection.search_params(exact=True))
    trials = [_trial(current, exact, exact_search=True)]
    if progress is not None:
        progress(1)
    candidates: dict[TuningTrial, CollectionSettings] = {trials[0]: current}
    # closed here: an error that leaves the loop would keep the generator alive, and with it the copy
    with closing(_measured(collection, current, grid, truth)) as measurements:
        for settings, measured in measurements:
            trial = _trial(settings, measured)
            trials.append(trial)
            candidates[trial] = settings
            if progress is not None:
                progress(1)
    enough = [trial for trial in trials if trial.recall >= target_recall]
    # at equal latency exact search, which finds everything
    chosen = min(enough, key=lambda trial: (trial.p50_ms, not trial.exact), default=trials[0])
    points = collection.gateway.count()
    return TuningReport(
        collection.name, points, len(vectors.vectors), k, target_recall, tuple(trials), chosen, candidates[chosen]
    )


def apply(collection: Collection, report: TuningReport) -> Collection:
    """Store the chosen settings with the collection: `hnsw_ef` or exact search, and those of the index, which is
    rebuilt for them.

    Raises:
        InputError: the report is about another collection.
    """
    if report.collection != collection.name:
        raise InputError(f"the report is about collection {report.collection!r}, this is {collection.name!r}")
    changed = CollectionManager(collection.client).change(collection.name, report.settings)
    chosen = report.chosen
    search = SearchChoice(exact=chosen.exact, told=True, points=report.points, recall=min(chosen.recall, 1.0))
    metadata = replace(changed.metadata, search=search)
    changed.gateway.update(metadata=metadata.for_qdrant())
    # `change` opens the collection again, without an encoder
    return replace(changed, metadata=metadata, encoder=collection.encoder)


def _current(collection: Collection) -> CollectionSettings:
    if engine_of(collection.client) == "memory":
        raise NotSupportedError("':memory:' compares with every vector: there is no index to tune")
    described = CollectionManager(collection.client).describe(collection.name)
    if described.settings is None:
        raise CollectionError(f"collection {collection.name!r} has no similarity that can be tuned")
    if not described.indexed_vectors:
        raise CollectionError(
            f"collection {collection.name!r} has no index yet, so every search compares with all vectors"
        ).with_way_out(python="call build_index() first", command=f"collection wait {shlex.quote(collection.name)}")
    return described.settings


def _query_vectors(collection: Collection, queries: ArrayLike | None, held_out: int) -> QueryVectors:
    if queries is not None:
        return QueryVectors(checked_vectors(queries, dimension=collection.dimension, what="query vectors"))
    if held_out < 1:
        raise InputError(f"held_out is {held_out}, expected at least 1")
    return QueryVectors.of_stored(collection, held_out)


def _measured(
    collection: Collection,
    current: CollectionSettings,
    grid: TuningGrid,
    truth: Truth,
) -> Generator[tuple[CollectionSettings, Measured]]:
    for m in grid.m:
        for quantization in grid.quantization:
            built = replace(current, m=current.m if m is None else m, quantization=quantization or current.quantization)
            if _same_index(built, current):
                yield from _searches(collection, built, grid, truth)
            else:
                with scratch_copy(collection, built) as copy:
                    yield from _searches(copy, built, grid, truth)


def _same_index(one: CollectionSettings, other: CollectionSettings) -> bool:
    stored = [settings.quantization and settings.quantization.stored for settings in (one, other)]
    return one.m == other.m and stored[0] == stored[1]


def _searches(
    collection: Collection,
    built: CollectionSettings,
    grid: TuningGrid,
    truth: Truth,
) -> Iterator[tuple[CollectionSettings, Measured]]:
    for oversampling in grid.oversampling if built.quantization is not None else (1.0,):
        quantization = built.quantization and replace(built.quantization, oversampling=oversampling)
        # oversampling concerns a search, not the index: the same collection, searched otherwise
        searching = replace(collection, metadata=replace(collection.metadata, quantization=quantization))
        for hnsw_ef in grid.hnsw_ef:
            settings = replace(built, hnsw_ef=hnsw_ef, quantization=quantization)
            params = searching.search_params(hnsw_ef=hnsw_ef)
            yield settings, measure(searching, truth, params=params)


def _trial(settings: CollectionSettings, measured: Measured, *, exact_search: bool = False) -> TuningTrial:
    quantization = settings.quantization
    p50, p95, p99 = np.percentile(measured.latencies_ms, [50, 95, 99])
    return TuningTrial(
        hnsw_ef=settings.hnsw_ef,
        m=settings.m,
        quantization="none" if quantization is None else quantization.label,
        oversampling=1.0 if quantization is None else quantization.oversampling,
        exact=exact_search,
        recall=measured.recall,
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        queries_per_second=measured.queries_per_second,
    )


WARM_UP = 5
"""Queries that are sent before the clock runs."""


@dataclass(frozen=True)
class Measured:
    """What one setting finds and costs."""

    recall: float
    latencies_ms: tuple[float, ...]
    queries_per_second: float


def measure(collection: Collection, truth: Truth, *, params: models.SearchParams | None) -> Measured:
    """Search each query alone for the latency, and all of them in batches for the throughput.

    `collection` is that of `truth`, or a copy of it with another index.
    """
    queries, k = truth.queries, truth.k
    limit = k + queries.extra
    for row in queries.vectors[:WARM_UP]:
        _single(collection, row, params, limit)
    latencies, found = [], []
    for number, row in enumerate(queries.vectors):
        start = time.perf_counter()  # around the search alone: reading its answer is no part of it
        points = _single(collection, row, params, limit)
        latencies.append((time.perf_counter() - start) * 1000)
        ids, scores = [plain_id(point.id) for point in points], [point.score for point in points]
        found.append([point for point, _ in queries.without_own(number, ids, scores)])
    requests = queries.requests(collection, params, k)
    start = time.perf_counter()
    collection.gateway.query_batch(requests)
    seconds = time.perf_counter() - start
    return Measured(truth.recall(found), tuple(latencies), len(queries.vectors) / seconds)


def _single(
    collection: Collection, row: Vectors, params: models.SearchParams | None, limit: int
) -> list[models.ScoredPoint]:
    using = collection.layout.vector or None
    return collection.gateway.query(row.tolist(), using=using, search_params=params, limit=limit, with_payload=False)


PREFIX = "embed-plus-scratch-"


@contextmanager
def scratch_copy(collection: Collection, settings: CollectionSettings) -> Iterator[Collection]:
    """Copy ids and dense vectors into a new collection with these settings, and build its index."""
    name = PREFIX + uuid.uuid4().hex[:12]
    with _client_for_copy(collection.client) as client:
        try:
            # without these: the copy gets dense vectors only, no sparse ones and no payloads
            copy = _filled(client, name, collection, replace(settings, lexical=None, payload_indexes={}))
            yield copy
        except BaseException as error:
            _drop_after(error, client, name)
            raise
        DEFAULT_RETRY(Gateway(client, name).drop)


def _drop_after(error: BaseException, client: QdrantClient, name: str) -> None:
    """Drop the copy. The error that ended the tuning is the one that leaves; if the copy stays, it says so."""
    try:
        DEFAULT_RETRY(Gateway(client, name).drop)
    except PlusError as second:
        note = f"the copy {name!r} could not be dropped ({second}): drop it when the server answers again"
        error.add_note(note)
        logger.warning(note)


@contextmanager
def _client_for_copy(client: QdrantClient) -> Iterator[QdrantClient]:
    if engine_of(client) == "server":
        yield client
        return
    # not in the folder of the collection: a kill would leave the copy among its collections
    with TemporaryDirectory(prefix="qdrant-tools-") as folder:
        beside = connect(folder)
        try:
            yield beside
        finally:
            beside.close()


def _filled(client: QdrantClient, name: str, source: Collection, settings: CollectionSettings) -> Collection:
    copy = Collection(client, name, settings.metadata(source.space, source.dimension))
    copy.gateway.create(**settings.create_options(source.dimension))
    for records in source.gateway.pages(batch_size=512, with_payload=False, with_vectors=source.vector_selector):
        copy.gateway.upsert(
            [models.PointStruct(id=record.id, vector=source.layout.dense(record.vector)) for record in records]
        )
    build_index(copy)
    return copy
