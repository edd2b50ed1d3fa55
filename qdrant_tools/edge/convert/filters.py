"""qdrant-client's filters -> the engine's filters.

Three things differ from a one-to-one mapping: the engine's binding takes a Python bool for an integer (a boolean
match would find nothing), datetimes must be text, and an infinite bound of a range becomes the largest number, which
selects the same. Guarantees: NaN and deep nesting are refused. Does not know: shards, queries.

qdrant-client's score formulas -> the engine's expressions.

Guarantees: numbers are finite, nesting has a limit. Does not know: queries, shards.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import qdrant_edge as qe
from pydantic import ValidationError
from qdrant_client.http import models

from qdrant_tools.edge.convert.checks import EngineId, engine_ids, finite, json_payload, maybe_finite, unknown, whole
from qdrant_tools.errors import InputError
from qdrant_tools.validation import DEEPEST_REQUEST, brief, parts, refuse_nesting

WRITTEN = 4  # objects and lists that one nested filter takes: condition, nested, filter, clause


def engine_filter(filter_: Any) -> qe.Filter | None:
    """Return the engine's filter for a `models.Filter` or a dict of that shape. Raises `InputError`."""
    filter_ = as_filter(filter_)
    return None if filter_ is None else _filter(filter_, DEEPEST_REQUEST, filter_)


def _filter(filter_: models.Filter, levels: int, whole_filter: Any) -> qe.Filter:
    """One filter of a tree; `levels` more may be inside one another."""
    if levels == 0:
        refuse_nesting(whole_filter, _filters_inside, DEEPEST_REQUEST, "filter")
    at_least = filter_.min_should
    must = conditions(filter_.must, levels - 1, whole_filter)
    if at_least is not None and not at_least.conditions:
        # none of no conditions holds; the engine would forget to ask
        must = [*(must or []), qe.HasIdCondition(set())]
    return qe.Filter(
        must=must,
        should=conditions(filter_.should, levels - 1, whole_filter),
        must_not=conditions(filter_.must_not, levels - 1, whole_filter),
        min_should=_min_should(at_least, levels - 1, whole_filter) if at_least is not None else None,
    )


def _min_should(given: models.MinShould, levels: int, whole_filter: Any) -> qe.MinShould:
    least = whole(given.min_count, "min_count")
    return qe.MinShould(conditions(given.conditions, levels, whole_filter) or [], least)


def _filters_inside(given: Any) -> Iterable[tuple[str, Any]] | None:
    """The filters and nested conditions directly inside a filter, by their step; None for another condition."""
    if isinstance(given, models.NestedCondition):
        return _filters_inside(given.nested.filter)
    if not isinstance(given, models.Filter):
        return None
    clauses = {name: getattr(given, name) for name in ("must", "should", "must_not")}
    if given.min_should is not None:
        clauses["min_should"] = given.min_should.conditions
    return (
        (f".{name}[{place}]", each)
        for name, clause in clauses.items()
        if clause is not None
        for place, each in enumerate(listed(clause))
    )


def as_filter(given: Any) -> models.Filter | None:
    """Return a `models.Filter` for one or for a dict of that shape, None for None. Raises `InputError`."""
    if given is None or isinstance(given, models.Filter):
        return given
    if not isinstance(given, dict):
        raise InputError(f"expected models.Filter, got {brief(given)}")
    refuse_nesting(given, parts, WRITTEN * DEEPEST_REQUEST, "filter")
    try:
        return models.Filter.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{brief(given)} is not a filter: {error.errors()[0]['msg']}") from error


def listed(clause: Any) -> list[Any]:
    """The conditions of a clause, which may be one, a list, or None."""
    if clause is None:
        return []
    return list(clause) if isinstance(clause, (list, tuple)) else [clause]


def without_ids(filter_: qe.Filter | None, point_ids: Iterable[EngineId]) -> qe.Filter | None:
    """`filter_`, and none of these points."""
    ids = set(point_ids)
    if not ids:
        return filter_
    return qe.Filter(must=[filter_] if filter_ is not None else None, must_not=[qe.HasIdCondition(ids)])


def conditions(given: Any, levels: int, whole_filter: Any) -> list[Any] | None:
    """Return the engine's conditions for one condition, a list of them, or None; no conditions are None."""
    # the engine takes an empty list inside a nested filter for one that nothing fulfils
    return [condition(item, levels, whole_filter) for item in listed(given)] or None


def condition(given: Any, levels: int = DEEPEST_REQUEST, whole_filter: Any = None) -> Any:
    """Return the engine's condition for one of qdrant-client's."""
    if isinstance(given, models.Filter):
        return _filter(given, levels, given if whole_filter is None else whole_filter)
    if isinstance(given, models.FieldCondition):
        return _field(given)
    if isinstance(given, models.IsEmptyCondition):
        return qe.IsEmptyCondition(given.is_empty.key)
    if isinstance(given, models.IsNullCondition):
        return qe.IsNullCondition(given.is_null.key)
    if isinstance(given, models.HasIdCondition):
        return qe.HasIdCondition(set(engine_ids(given.has_id)))
    if isinstance(given, models.HasVectorCondition):
        return qe.HasVectorCondition(given.has_vector)
    if isinstance(given, models.SliceCondition):
        total = whole(given.slice.total, "slice total", most=2**32 - 1)
        index = whole(given.slice.index, "slice index", least=0, most=total - 1)
        return qe.SliceCondition(total, index)  # type: ignore[attr-defined]  # its stub does not know it
    if isinstance(given, models.NestedCondition):
        nested = as_filter(given.nested.filter) or models.Filter()
        return qe.NestedCondition(
            given.nested.key, _filter(nested, levels, given if whole_filter is None else whole_filter)
        )
    raise unknown(given, "filter condition")


def _field(given: models.FieldCondition) -> qe.FieldCondition:
    radius, box, polygon, count = given.geo_radius, given.geo_bounding_box, given.geo_polygon, given.values_count
    return qe.FieldCondition(
        given.key,
        match=_match(given.match) if given.match is not None else None,
        range=_range(given.range) if given.range is not None else None,
        geo_radius=qe.GeoRadius(_geo(radius.center), finite(radius.radius, "radius")) if radius else None,
        geo_bounding_box=qe.GeoBoundingBox(_geo(box.top_left), _geo(box.bottom_right)) if box else None,
        geo_polygon=_polygon(polygon) if polygon else None,
        values_count=qe.ValuesCount(lt=count.lt, gt=count.gt, lte=count.lte, gte=count.gte) if count else None,
        is_empty=given.is_empty,
        is_null=given.is_null,
    )


def _match_value(given: models.MatchValue) -> qe.MatchValue:
    # the binding reads a Python bool as the integer 1 or 0; numpy's is read as a bool
    value: Any = np.bool_(given.value) if isinstance(given.value, bool) else given.value
    return qe.MatchValue(value)


MATCHES: dict[type, Callable[[Any], Any]] = {
    models.MatchValue: _match_value,
    models.MatchText: lambda given: qe.MatchText(given.text),
    models.MatchTextAny: lambda given: qe.MatchTextAny(given.text_any),
    models.MatchPhrase: lambda given: qe.MatchPhrase(given.phrase),
    models.MatchPrefix: lambda given: qe.MatchPrefix(given.prefix),
    models.MatchSubstring: lambda given: qe.MatchSubstring(given.substring),
    models.MatchAny: lambda given: qe.MatchAny(list(given.any)),
    models.MatchExcept: lambda given: qe.MatchExcept(list(given.except_)),
}


def _match(given: Any) -> Any:
    if type(given) not in MATCHES:
        raise unknown(given, "match")
    return MATCHES[type(given)](given)


def _range(given: models.Range | models.DatetimeRange) -> qe.RangeFloat | qe.RangeDateTime:
    if isinstance(given, models.DatetimeRange):
        return qe.RangeDateTime(
            gte=datetime_text(given.gte),
            gt=datetime_text(given.gt),
            lte=datetime_text(given.lte),
            lt=datetime_text(given.lt),
        )
    return qe.RangeFloat(**_bounds(given))


def _bounds(given: models.Range) -> dict[str, float | None]:
    """The bounds of a range, all finite: no payload value lies beyond the largest number or before the least."""
    bounds = {name: getattr(given, name) for name in ("gte", "gt", "lte", "lt")}
    for name, bound in bounds.items():
        if bound is not None and math.isnan(bound):
            raise InputError(f"range {name} value nan is invalid, expected a number: none lies above or below NaN")
    infinite = {name: bound for name, bound in bounds.items() if bound is not None and math.isinf(bound)}
    bounds.update(dict.fromkeys(infinite))
    for name, bound in infinite.items():
        side, last = name[:2], math.copysign(sys.float_info.max, bound)
        if (bound > 0) == (side == "gt"):
            bounds[side] = last  # nothing lies there
        elif bounds[f"{side}e"] is None:
            bounds[f"{side}e"] = last  # every number does
    return bounds


def datetime_text(moment: datetime | date | str | None) -> str | None:
    """RFC 3339 text of a moment; a time without a zone is UTC, as the engine reads stored ones."""
    if moment is None or isinstance(moment, str):
        return moment
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).isoformat()


def _geo(point: models.GeoPoint) -> qe.GeoPoint:
    return qe.GeoPoint(point.lon, point.lat)


def _polygon(polygon: models.GeoPolygon) -> qe.GeoPolygon:
    interiors = [[_geo(point) for point in ring.points] for ring in polygon.interiors or []]
    return qe.GeoPolygon([_geo(point) for point in polygon.exterior.points], interiors or None)


E = qe.Expression

DECAYS: dict[type, tuple[str, qe.DecayKind]] = {
    models.LinDecayExpression: ("lin_decay", qe.DecayKind.Lin),
    models.ExpDecayExpression: ("exp_decay", qe.DecayKind.Exp),
    models.GaussDecayExpression: ("gauss_decay", qe.DecayKind.Gauss),
}
CONDITIONS = (
    models.FieldCondition,
    models.IsEmptyCondition,
    models.IsNullCondition,
    models.SliceCondition,
    models.HasIdCondition,
    models.HasVectorCondition,
    models.NestedCondition,
    models.Filter,
)
PARAMETERS = (models.DivParams, models.PowParams, models.DecayParamsExpression)


def engine_formula(query: models.FormulaQuery) -> qe.Formula:
    """Return the engine's formula. Raises `InputError`; `NotSupportedError` for an expression it lacks."""
    refuse_nesting(query.formula, _parts, DEEPEST_REQUEST, "formula")
    return qe.Formula(expression(query.formula), json_payload(query.defaults))


def _parts(given: Any) -> Iterable[tuple[str, Any]] | None:
    """The expressions directly inside one, by their step; None for a number, a key or a condition."""
    if type(given) not in OPERATIONS and type(given) not in DECAYS:
        return None
    inside: list[tuple[str, Any]] = []
    for name, value in given:
        if isinstance(value, list):
            inside += [(f".{name}[{place}]", each) for place, each in enumerate(value)]
        elif isinstance(value, PARAMETERS):
            inside += [(f".{name}.{part}", each) for part, each in value]
        else:
            inside.append((f".{name}", value))
    return inside


def expression(given: Any) -> Any:
    """Return the engine's expression for a number, a payload key or `$score`, a condition, or an operation."""
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return E.Constant(finite(given, "formula constant"))
    if isinstance(given, str):
        return E.Variable(given)
    if isinstance(given, CONDITIONS):
        return E.Condition(condition(given))
    if type(given) in OPERATIONS:
        return OPERATIONS[type(given)](given)
    if type(given) in DECAYS:
        return _decay(given)
    raise unknown(given, "formula expression")


def _all(given: list[Any]) -> list[Any]:
    return [expression(item) for item in given]


def _div(given: models.DivExpression) -> Any:
    div = given.div
    by_zero = maybe_finite(div.by_zero_default, "by_zero_default")
    return E.Div(expression(div.left), expression(div.right), by_zero)


def _decay(given: Any) -> Any:
    name, kind = DECAYS[type(given)]
    params: models.DecayParamsExpression = getattr(given, name)
    target = expression(params.target) if params.target is not None else None
    midpoint, scale = maybe_finite(params.midpoint, "midpoint"), maybe_finite(params.scale, "scale")
    return E.Decay(kind, expression(params.x), target, midpoint, scale)


def _geo_distance(given: models.GeoDistance) -> Any:
    origin = given.geo_distance.origin
    return E.GeoDistance(qe.GeoPoint(origin.lon, origin.lat), given.geo_distance.to)


OPERATIONS: dict[type, Callable[[Any], Any]] = {
    models.GeoDistance: _geo_distance,
    models.DatetimeExpression: lambda given: E.Datetime(given.datetime),
    models.DatetimeKeyExpression: lambda given: E.DatetimeKey(given.datetime_key),
    models.MultExpression: lambda given: E.Mult(_all(given.mult)),
    models.SumExpression: lambda given: E.Sum(_all(given.sum)),
    models.MaxExpression: lambda given: E.Max(_all(given.max)),
    models.MinExpression: lambda given: E.Min(_all(given.min)),
    models.NegExpression: lambda given: E.Neg(expression(given.neg)),
    models.AbsExpression: lambda given: E.Abs(expression(given.abs)),
    models.DivExpression: _div,
    models.SqrtExpression: lambda given: E.Sqrt(expression(given.sqrt)),
    models.PowExpression: lambda given: E.Pow(expression(given.pow.base), expression(given.pow.exponent)),
    models.ExpExpression: lambda given: E.Exp(expression(given.exp)),
    models.Log10Expression: lambda given: E.Log10(expression(given.log10)),
    models.LnExpression: lambda given: E.Ln(expression(given.ln)),
    models.AcoshExpression: lambda given: E.Acosh(expression(given.acosh)),
}
