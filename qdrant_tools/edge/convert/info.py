"""What a collection is, as a server would report it: `CollectionInfo` from settings and the engine's figures.

qdrant-client's payload index parameters -> the engine's, and back. Does not know: shards.
"""

from __future__ import annotations

from typing import Any

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.convert.config import OPTIMIZER_DEFAULTS, member, merged_hnsw, vector_params
from qdrant_tools.edge.storage.shard import OpenCollection
from qdrant_tools.errors import InputError
from qdrant_tools.validation import brief


def collection_info(collection: OpenCollection, *, building: bool = False) -> models.CollectionInfo:
    """Return what a server's `get_collection` returns. Yellow: an index is being built; grey: a build is due."""
    found = collection.info()
    settings = collection.settings
    status = models.CollectionStatus.GREY if index_due(collection, found) else models.CollectionStatus.GREEN
    return models.CollectionInfo(
        status=models.CollectionStatus.YELLOW if building else status,
        optimizer_status=models.OptimizersStatusOneOf.OK,
        indexed_vectors_count=found.indexed_vectors_count,
        points_count=found.points_count,
        segments_count=found.segments_count,
        config=models.CollectionConfig(
            params=collection_params(settings),
            hnsw_config=merged_hnsw(settings.hnsw_config),
            optimizer_config=optimizer_settings(settings),
            wal_config=models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0),
            quantization_config=settings.quantization_config,
            metadata=settings.metadata,
        ),
        payload_schema={name: client_index(index) for name, index in found.payload_schema.items()},
    )


def collection_params(settings: models.CreateCollection) -> models.CollectionParams:
    return models.CollectionParams(
        vectors=settings.vectors if settings.vectors is not None else {},
        on_disk_payload=settings.on_disk_payload if settings.on_disk_payload is not None else True,
        payload=settings.payload,
        id_tracker=settings.id_tracker,
        sparse_vectors=settings.sparse_vectors,
    )


def optimizer_settings(settings: models.CreateCollection) -> models.OptimizersConfig:
    diff = settings.optimizers_config
    return OPTIMIZER_DEFAULTS.model_copy(update=diff.model_dump(exclude_none=True) if diff is not None else {})


def index_due(collection: OpenCollection, found: qe.ShardInfo) -> bool:
    """Whether a server would build an index now: vectors outside one exceed `indexing_threshold` kilobytes."""
    threshold = optimizer_settings(collection.settings).indexing_threshold
    dense = vector_params(collection.settings).values()
    if not threshold or not dense:
        return False
    unindexed = max(0, found.points_count * len(dense) - found.indexed_vectors_count) / len(dense)
    return unindexed * max(params.size for params in dense) * 4 > threshold * 1024


PARAMS: dict[str, Any] = {
    "keyword": qe.KeywordIndexParams,
    "integer": qe.IntegerIndexParams,
    "float": qe.FloatIndexParams,
    "geo": qe.GeoIndexParams,
    "text": qe.TextIndexParams,
    "bool": qe.BoolIndexParams,
    "datetime": qe.DatetimeIndexParams,
    "uuid": qe.UuidIndexParams,
}


def engine_schema(given: Any) -> Any:
    """Return the engine's index for a type name or for index parameters. Raises `InputError`."""
    named = isinstance(given, models.PayloadSchemaType | str)
    kind = str(getattr(given, "value", given)) if named else getattr(getattr(given, "type", None), "value", None)
    if kind not in PARAMS:
        raise InputError(
            f"field_schema {brief(given)} is no payload index; expected one of {', '.join(sorted(PARAMS))}"
        )
    if named:
        return member(qe.PayloadSchemaType, given)
    settings = {name: getattr(given, name) for name in type(given).model_fields if name != "type"}
    converted = {name: _setting(name, value) for name, value in settings.items() if value is not None}
    return PARAMS[kind](**converted)


def _setting(name: str, value: Any) -> Any:
    if name == "tokenizer":
        return member(qe.TokenizerType, value)
    if name == "memory":
        return member(qe.Memory, value)
    if name == "stopwords":
        return _stopwords(value)
    if name == "stemmer":
        snowball = isinstance(value, models.SnowballParams)
        return qe.SnowballParams(member(qe.SnowballLanguage, value.language)) if snowball else qe.DisabledStemmer()
    if name == "scoring" and not isinstance(value, bool):
        return qe.TextScoringParams()
    return value


def _stopwords(value: Any) -> Any:
    if not isinstance(value, models.StopwordsSet):
        return member(qe.Language, value)
    languages = {member(qe.Language, language) for language in value.languages or []}
    return qe.StopwordsSet(languages=languages or None, custom=set(value.custom) if value.custom else None)


def client_index(index: qe.PayloadIndexInfo) -> models.PayloadIndexInfo:
    """Return qdrant-client's report of an index: its type, its number of points, parameters that are not defaults."""
    kind = models.PayloadSchemaType(_name(index.data_type))
    return models.PayloadIndexInfo(data_type=kind, points=index.points, params=_client_params(kind.value, index.params))


def _client_params(kind: str, params: Any) -> Any:
    if params is None:
        return None
    model = getattr(models, f"{kind.capitalize()}IndexParams")
    found = {name: _client_setting(getattr(params, name, None)) for name in model.model_fields if name != "type"}
    return model(type=kind, **{name: value for name, value in found.items() if value is not None})


def _client_setting(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, qe.StopwordsSet):
        languages = sorted(_name(language) for language in value.languages or ())
        return models.StopwordsSet(languages=languages or None, custom=sorted(value.custom or ()) or None)  # type: ignore[arg-type]
    if isinstance(value, qe.SnowballParams):
        return models.SnowballParams(
            type=models.Snowball.SNOWBALL, language=models.SnowballLanguage(_name(value.language))
        )
    if isinstance(value, qe.DisabledStemmer):
        return models.DisabledStemmerParams(type=models.NoStemmer.NONE)
    if isinstance(value, qe.TextScoringParams):
        return True
    return _name(value)


def _name(value: Any) -> str:
    """qdrant-client's name of a member of the engine's enums."""
    return str(value).rsplit(".", 1)[-1].lower()
