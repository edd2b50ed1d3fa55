"""Payload indexes: qdrant-client's parameters -> the engine's, and back.

Guarantees: every parameter reaches the engine, and is reported as it was given. Does not know: shards.
"""

from __future__ import annotations

from typing import Any

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import member
from qdrant_tools.errors import InputError
from qdrant_tools.validation import brief

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


def engine_index(schema: Any) -> Any:
    """Return the engine's index for a type name or for index parameters. Raises `InputError`."""
    is_name = isinstance(schema, models.PayloadSchemaType | str)
    kind = str(getattr(schema, "value", schema)) if is_name else getattr(getattr(schema, "type", None), "value", None)
    if kind not in PARAMS:
        raise InputError(
            f"field_schema {brief(schema)} is no payload index; expected one of {', '.join(sorted(PARAMS))}"
        )
    if is_name:
        return member(qe.PayloadSchemaType, schema)
    settings = {name: getattr(schema, name) for name in type(schema).model_fields if name != "type"}
    converted = {name: _engine_setting(name, value) for name, value in settings.items() if value is not None}
    return PARAMS[kind](**converted)


def _engine_setting(name: str, value: Any) -> Any:
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
    settings = {name: _client_setting(getattr(params, name, None)) for name in model.model_fields if name != "type"}
    return model(type=kind, **{name: value for name, value in settings.items() if value is not None})


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
    # its members have no attribute `name`, only a text such as `Distance.Cosine`
    return str(value).rsplit(".", 1)[-1].lower()
