"""How a collection is built, as one frozen value, and how it differs from what an engine reports.

Guarantees: validated when made; `settings_of(info)` of a collection created with settings S gives S back, on an
engine that has an HNSW index. Does not know: clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args
from uuid import UUID

from qdrant_client import models

from qdrant_tools.collections.metadata import CollectionMetadata, Layout, metadata_of
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.errors import InputError, brief
from qdrant_tools.fields import Field, moment_in, payload_path, steps_of
from qdrant_tools.search.bm25 import VECTOR, Bm25

QDRANT_INDEXING_THRESHOLD = 20_000  # kB; what a server that reports none works with

DISTANCES: dict[str, models.Distance] = {"cosine": models.Distance.COSINE, "dot": models.Distance.DOT}
"""Similarities: the larger the nearer. On unit vectors the two are the same."""

PayloadKind = Literal["keyword", "integer", "float", "bool", "datetime", "uuid", "geo", "text"]
Datatype = Literal["float32", "float16", "uint8"]

FIXED = ("distance", "lexical", "datatype", "shards")
"""What cannot be changed once a collection is made."""
CHOSEN = ("hnsw_ef", "m", "ef_construct")
"""What is chosen by measuring, where nobody says otherwise; see `choosing`."""
EVERYWHERE = ("distance", "hnsw_ef", "lexical", "m", "ef_construct", "full_scan_threshold", "indexing_threshold")
"""What can be set on `:memory:` too. It has no graph and compares with every vector, so the settings of a graph change
nothing there."""


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
    """A segment with at least so many kB of vectors gets a graph; 0 is never."""
    hnsw_ef: int = 128
    """Beam width while searching, unless the search says otherwise. Kept in the collection's metadata."""
    lexical: Bm25 | None = None
    """Keep sparse vectors for BM25 beside the dense ones; see `search.hybrid`."""
    quantization: Quantization | None = None
    """Compress the vectors for the search, which then rescores."""
    payload_indexes: Mapping[Field, PayloadKind] = field(default_factory=dict)
    """Metadata field (a name, or a tuple for what lies inside one) -> kind of index: what makes filters on it fast."""
    payload_m: int | None = None
    """Edges per node of the graphs that each indexed payload value gets of its own; None is as many as `m`."""
    on_disk: bool = False
    """Keep the vectors and the graph on the disk, and in memory only what is being read."""
    datatype: Datatype = "float32"
    """"uint8" is only read: of collections that other programs made."""
    shards: int = 1
    """1 leaves it to the server: one for each node of a cluster."""
    replicas: int = 1
    """Copies of each shard, on as many nodes."""
    strict_mode: models.StrictModeConfig | None = None
    """Limits that a server enforces on requests."""

    def __post_init__(self) -> None:
        for name, allowed in (("distance", DISTANCES), ("datatype", get_args(Datatype))):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {brief(getattr(self, name))}, expected one of {sorted(allowed)}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if name == "payload_m" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} is {brief(value)}, expected a whole number of at least {least}")
        if self.payload_m == self.m:
            object.__setattr__(self, "payload_m", None)  # one spelling of the same
        if not isinstance(self.payload_indexes, Mapping):
            raise InputError(f"payload_indexes is {brief(self.payload_indexes)}, expected a dict: field -> kind")
        for key, kind in self.payload_indexes.items():
            payload_path(steps_of(key, "payload index"))
            if kind not in get_args(PayloadKind):
                kinds = ", ".join(get_args(PayloadKind))
                raise InputError(f"payload index on {brief(key)} is {brief(kind)}, expected one of {kinds}")

    def difference(self, other: CollectionSettings) -> dict[str, tuple[Any, Any]]:
        """Field -> (here, there), for the fields that differ."""
        pairs = {item.name: (getattr(self, item.name), getattr(other, item.name)) for item in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    @property
    def beyond_memory(self) -> list[str]:
        """The settings that are not the default and mean nothing on `:memory:`."""
        return [name for name in CollectionSettings().difference(self) if name not in EVERYWHERE]

    @property
    def hnsw(self) -> models.HnswConfigDiff:
        return models.HnswConfigDiff(
            m=self.m,
            ef_construct=self.ef_construct,
            full_scan_threshold=self.full_scan_threshold,
            payload_m=self.payload_m,
            on_disk=self.on_disk,
        )

    @property
    def sparse_vectors(self) -> dict[str, models.SparseVectorParams] | None:
        if self.lexical is None:
            return None
        return {VECTOR: models.SparseVectorParams(modifier=models.Modifier.IDF)}

    @property
    def optimizers(self) -> models.OptimizersConfigDiff:
        return models.OptimizersConfigDiff(indexing_threshold=self.indexing_threshold)

    def vector(self, dimension: int) -> models.VectorParams:
        if self.datatype == "uint8":
            raise InputError(
                "datatype 'uint8' keeps whole numbers from 0 to 255, so that every unit vector becomes zero: take "
                "datatype='float16', or quantization=Quantization('int8'), which scales"
            )
        return models.VectorParams(
            size=dimension,
            distance=DISTANCES[self.distance],
            on_disk=self.on_disk,
            datatype=models.Datatype(self.datatype) if self.datatype != "float32" else None,
        )

    def create_options(self, dimension: int) -> dict[str, Any]:
        """The arguments of `QdrantClient.create_collection`, but for the name and the metadata."""
        options: dict[str, Any] = {
            "vectors_config": self.vector(dimension),
            "sparse_vectors_config": self.sparse_vectors,
            "hnsw_config": self.hnsw,
            "optimizers_config": self.optimizers,
        }
        if self.quantization is not None:
            options["quantization_config"] = self.quantization.config
        if self.shards != 1:
            options["shard_number"] = self.shards
        if self.replicas != 1:
            options["replication_factor"] = self.replicas
        if self.strict_mode is not None:
            options["strict_mode_config"] = self.strict_mode
        return options

    def metadata(self, space: str, dimension: int) -> CollectionMetadata:
        """The metadata of a collection made with these settings."""
        return CollectionMetadata(space, dimension, self.hnsw_ef, lexical=self.lexical, quantization=self.quantization)


def update_options(
    settings: CollectionSettings, changes: Mapping[str, tuple[Any, Any]], *, vector: str
) -> dict[str, Any]:
    """The arguments of `QdrantClient.update_collection` that bring about these changes; see `difference`."""
    options: dict[str, Any] = {}
    if changes.keys() & {"m", "ef_construct", "full_scan_threshold", "payload_m", "on_disk"}:
        # no request can say "unset" once payload_m is set; `m` means the same
        payload_m = settings.m if settings.payload_m is None else settings.payload_m
        options["hnsw_config"] = settings.hnsw.model_copy(update={"payload_m": payload_m})
    if "indexing_threshold" in changes:
        options["optimizers_config"] = settings.optimizers
    if "on_disk" in changes:
        options["vectors_config"] = {vector: models.VectorParamsDiff(on_disk=settings.on_disk)}
    if "quantization" in changes and not _only_searched_differently(*changes["quantization"]):
        quantization = settings.quantization
        options["quantization_config"] = models.Disabled.DISABLED if quantization is None else quantization.config
    if "replicas" in changes:
        options["collection_params"] = models.CollectionParamsDiff(replication_factor=settings.replicas)
    if "strict_mode" in changes:
        options["strict_mode_config"] = settings.strict_mode or models.StrictModeConfig(enabled=False)
    return options


def _only_searched_differently(before: Quantization | None, after: Quantization | None) -> bool:
    return before is not None and after is not None and before.stored == after.stored


_LEAST = {
    "m": 0,
    "ef_construct": 4,
    "full_scan_threshold": 10,
    "indexing_threshold": 0,
    "hnsw_ef": 1,
    "payload_m": 0,
    "shards": 1,
    "replicas": 1,
}


def dense_params(info: models.CollectionInfo, vector: str | None = None) -> models.VectorParams | None:
    """The dense vector of that name ("" is the unnamed one), or the first one."""
    vectors = info.config.params.vectors
    if isinstance(vectors, Mapping):
        return next(iter(vectors.values()), None) if vector is None else vectors.get(vector)
    return vectors


def settings_of(info: models.CollectionInfo) -> CollectionSettings | None:
    """The settings that an engine reports; None for a distance that is not a similarity."""
    metadata = metadata_of(info)
    params = dense_params(info, None if metadata is None else metadata.layout.vector)
    names = {distance: name for name, distance in DISTANCES.items()}
    if params is None or params.distance not in names:
        return None
    hnsw, threshold = info.config.hnsw_config, info.config.optimizer_config.indexing_threshold
    return CollectionSettings(
        distance=names[params.distance],  # type: ignore[arg-type]
        m=hnsw.m,
        ef_construct=hnsw.ef_construct,
        full_scan_threshold=hnsw.full_scan_threshold,
        indexing_threshold=QDRANT_INDEXING_THRESHOLD if threshold is None else threshold,
        hnsw_ef=(metadata and metadata.hnsw_ef) or CollectionSettings.hnsw_ef,
        lexical=metadata.lexical if metadata else None,
        quantization=_quantization(info, params, metadata),
        payload_indexes=payload_indexes(info, metadata.layout if metadata else None),
        payload_m=hnsw.payload_m,
        on_disk=bool(params.on_disk),
        datatype=params.datatype.value if params.datatype in _DATATYPES else "float32",  # type: ignore[arg-type]
        shards=info.config.params.shard_number or 1,
        replicas=info.config.params.replication_factor or 1,
        strict_mode=_strict_mode(info),
    )


_DATATYPES = {models.Datatype(name) for name in get_args(Datatype)}


def _quantization(
    info: models.CollectionInfo, params: models.VectorParams, metadata: CollectionMetadata | None
) -> Quantization | None:
    # a vector's own setting goes before that of its collection
    reported = Quantization.from_config(params.quantization_config or info.config.quantization_config)
    ours = metadata.quantization if metadata else None
    # an engine does not know how a search is to rescore; the metadata does, unless somebody has changed the index since
    if reported is not None and ours is not None and ours.stored == reported.stored:
        return ours
    return reported


def _strict_mode(info: models.CollectionInfo) -> models.StrictModeConfig | None:
    strict = info.config.strict_mode_config
    # switched off counts as none: that is how `update_options` takes it away
    if strict is None or not strict.enabled:
        return None
    return models.StrictModeConfig(**strict.model_dump(exclude_none=True))


def seen_otherwise(kind: PayloadKind, value: Any) -> str | None:
    """Why a filter finds a value of metadata without an index of this kind and not with it, or the other way round;
    with the way out. None: the index changes nothing."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "integer" and isinstance(value, float) and not value.is_integer():
        return "an index of integers hides a fraction: make it 'float'"
    if kind == "integer" and is_number and not -(2**63) <= value < 2**63:
        return "an index of integers hides one beyond 64 bits: store it as a string"
    if kind in ("integer", "float") and isinstance(value, str) and moment_in(value):
        return f"an index of kind {kind!r} hides dates: make it 'datetime'"
    if kind == "datetime" and is_number:
        return "an index of dates hides numbers: make it 'integer' or 'float'"
    if kind == "uuid" and isinstance(value, str) and _other_spelling(value):
        return f"an index of UUIDs takes it for {_other_spelling(value)!r}: store that, or make it 'keyword'"
    return None


def _other_spelling(text: str) -> str | None:
    """The usual spelling of a UUID in another one; None for any other text."""
    try:
        usual = str(UUID(text))
    except ValueError:
        return None
    return None if usual == text else usual


def payload_indexes(info: models.CollectionInfo, layout: Layout | None) -> dict[Field, PayloadKind]:
    """The indexes on metadata that an engine reports."""
    layout = layout or Layout(metadata="")
    indexes: dict[Field, PayloadKind] = {}
    for path, index in (info.payload_schema or {}).items():
        field = layout.field_at(path)
        # an index on another field is none of ours, and stays
        if field is not None:
            indexes[field] = index.data_type.value
    return indexes
