"""How a collection is built, as one frozen value, and how it differs from what an engine reports.

Guarantees: validated when made; `from_info(info)` of a collection created with settings S gives S back, on an
engine that has an HNSW index. Does not know: clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from qdrant_client import models

from qdrant_tools.errors import CollectionError, InputError
from qdrant_tools.layout import OURS, Layout
from qdrant_tools.lexical import VECTOR, Bm25

METADATA_KEY = "embed_plus"
METADATA_FORMAT = 1
QDRANT_INDEXING_THRESHOLD = 20_000  # kB; what a server that reports none works with

DISTANCES: dict[str, models.Distance] = {"cosine": models.Distance.COSINE, "dot": models.Distance.DOT}
"""Similarities: the larger the nearer. On unit vectors the two are the same."""


@dataclass(frozen=True)
class CollectionSettings:
    """The defaults build and use a real HNSW graph from some 650 vectors on.

    Qdrant's own thresholds (20,000 and 10,000 kB) leave collections under some 10,000 vectors to brute force,
    so that nothing measured on them says anything about the index.
    """

    distance: Literal["cosine", "dot"] = "cosine"
    m: int = 16
    """Edges per node of the graph; 0 is no graph."""
    ef_construct: int = 100
    """Beam width while building the graph."""
    full_scan_threshold: int = 1000
    """kB of vectors (1000: some 650 of 384 dimensions) below which a search scans instead of walking the graph. This
    also holds for the points that a filter leaves, which a graph walk would miss some of; at least 10."""
    indexing_threshold: int = 10
    """kB of vectors in a segment from which on it gets a graph; 0 is never."""
    hnsw_ef: int = 128
    """Beam width while searching, unless the search says otherwise. Kept in the collection's metadata."""
    lexical: Bm25 | None = None
    """Keep sparse vectors for BM25 beside the dense ones; see `hybrid`."""

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise InputError(f"distance is {self.distance!r}, expected one of {sorted(DISTANCES)}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} is {value!r}, expected a whole number of at least {least}")

    def difference(self, other: CollectionSettings) -> dict[str, tuple[Any, Any]]:
        """Field -> (here, there), for the fields that differ."""
        mine, theirs = asdict(self), asdict(other)
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}

    @property
    def hnsw(self) -> models.HnswConfigDiff:
        return models.HnswConfigDiff(
            m=self.m, ef_construct=self.ef_construct, full_scan_threshold=self.full_scan_threshold
        )

    @property
    def sparse_vectors(self) -> dict[str, models.SparseVectorParams] | None:
        if self.lexical is None:
            return None
        return {VECTOR: models.SparseVectorParams(modifier=models.Modifier.IDF)}

    @property
    def optimizers(self) -> models.OptimizersConfigDiff:
        return models.OptimizersConfigDiff(indexing_threshold=self.indexing_threshold)


_LEAST = {"m": 0, "ef_construct": 4, "full_scan_threshold": 10, "indexing_threshold": 0, "hnsw_ef": 1}


@dataclass(frozen=True)
class CollectionDescription:
    """What is known about one collection; `space`, `dimension`, `settings` and `layout` only where something tells."""

    name: str
    engine: str
    points: int
    indexed_vectors: int
    segments: int
    space: str | None
    dimension: int | None
    settings: CollectionSettings | None
    aliases: tuple[str, ...]
    layout: Layout | None = None
    vectors: tuple[str, ...] = ()
    """Names of the dense vectors; "" is the unnamed one."""
    status: str = "green"


def stamp_for(
    space: str, dimension: int, *, hnsw_ef: int | None, layout: Layout = OURS, lexical: Bm25 | None = None
) -> dict[str, Any]:
    """What a collection's metadata says about its vectors."""
    stamp: dict[str, Any] = {"format": METADATA_FORMAT, "space": space, "dimension": dimension, "hnsw_ef": hnsw_ef}
    if layout != OURS:
        stamp["layout"] = layout.as_row()
    if lexical is not None:
        stamp["lexical"] = lexical.as_row()
    return {METADATA_KEY: stamp}


def stamp_of(info: models.CollectionInfo) -> dict[str, Any] | None:
    stamp = (info.config.metadata or {}).get(METADATA_KEY)
    if stamp is None:
        return None
    if stamp.get("format") != METADATA_FORMAT:
        raise CollectionError(
            f"collection metadata has format {stamp.get('format')!r}, this version reads {METADATA_FORMAT}: upgrade"
        )
    return dict(stamp)


def layout_of(stamp: Mapping[str, Any]) -> Layout:
    """The layout that a stamp keeps; ours, if it keeps none."""
    return Layout.from_row(stamp["layout"]) if "layout" in stamp else OURS


def lexical_of_stamp(stamp: Mapping[str, Any]) -> Bm25 | None:
    return Bm25(**stamp["lexical"]) if "lexical" in stamp else None


def dense_params(info: models.CollectionInfo) -> models.VectorParams | None:
    vectors = info.config.params.vectors
    if isinstance(vectors, Mapping):
        return next(iter(vectors.values()), None)
    return vectors


def settings_of(info: models.CollectionInfo) -> CollectionSettings | None:
    params = dense_params(info)
    names = {distance: name for name, distance in DISTANCES.items()}
    if params is None or params.distance not in names:
        return None
    stamp = stamp_of(info) or {}
    hnsw, threshold = info.config.hnsw_config, info.config.optimizer_config.indexing_threshold
    return CollectionSettings(
        distance=names[params.distance],  # type: ignore[arg-type]
        m=hnsw.m,
        ef_construct=hnsw.ef_construct,
        full_scan_threshold=hnsw.full_scan_threshold,
        indexing_threshold=QDRANT_INDEXING_THRESHOLD if threshold is None else threshold,
        hnsw_ef=stamp.get("hnsw_ef") or CollectionSettings.hnsw_ef,
        lexical=lexical_of_stamp(stamp),
    )
