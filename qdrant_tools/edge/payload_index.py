"""qdrant-client's payload index parameters -> the engine's. Does not know: shards."""

from __future__ import annotations

from typing import Any

import qdrant_edge as qe
from pydantic import BaseModel
from qdrant_client.http import models

from qdrant_tools.edge.config import member
from qdrant_tools.errors import InputError

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
    if isinstance(given, models.PayloadSchemaType | str):
        return member(qe.PayloadSchemaType, given)
    kind = getattr(getattr(given, "type", None), "value", None)
    if not isinstance(given, BaseModel) or kind not in PARAMS:
        raise InputError(f"field_schema {given!r} is no payload index; expected one of {', '.join(sorted(PARAMS))}")
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
