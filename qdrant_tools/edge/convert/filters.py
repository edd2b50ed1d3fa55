"""qdrant-client's filters and score formulas -> the engine's: the two parts of a request that are trees.

A formula may contain the conditions of a filter. Most nodes map one to one. Three things do not. The engine's binding
takes a Python bool for an integer, so that a boolean match would find nothing. Datetimes must be text. An infinite
bound of a range becomes the largest number, which selects the same.

Guarantees: NaN is refused, in formulas infinity too; nesting has a limit. Does not know: shards, queries.
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

from qdrant_tools.edge.convert.checks import (
    engine_ids,
    finite,
    json_payload,
    maybe_finite,
    unsupported,
    whole,
)
from qdrant_tools.errors import InputError
from qdrant_tools.validation import DEEPEST_REQUEST, brief, parts, refuse_nesting

LEVELS_PER_FILTER = 4  # objects and lists that one nested filter takes as JSON: condition, nested, filter, clause


def engine_filter(filter_: Any) -> qe.Filter | None:
    """Return the engine's filter for a `models.Filter` or a dict of that shape. Raises `InputError`."""
    filter_ = as_filter(filter_)
    return None if filter_ is None else _filter(filter_, DEEPEST_REQUEST, filter_)


def as_filter(value: Any) -> models.Filter | None:
    """Return a `models.Filter` for one or for a dict of that shape, None for None. Raises `InputError`."""
    if value is None or isinstance(value, models.Filter):
        return value
    if not isinstance(value, dict):
        raise InputError(f"expected models.Filter, got {brief(value)}")
    refuse_nesting(value, parts, LEVELS_PER_FILTER * DEEPEST_REQUEST, "filter")
    try:
        return models.Filter.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{brief(value)} is not a filter: {error.errors()[0]['msg']}") from error


def _filter(filter_: models.Filter, levels: int, root: Any) -> qe.Filter:
    """One filter of the tree `root`; `levels` more may be inside one another."""
    if levels == 0:
        # only now, to name the path: walking every filter for it would cost more
        refuse_nesting(root, _filters_inside, DEEPEST_REQUEST, "filter")
    min_should = filter_.min_should
    must = engine_conditions(filter_.must, levels - 1, root)
    if min_should is not None and not min_should.conditions:
        # an empty min_should never holds, but the engine ignores it; that an id is in the empty set never holds either
        must = [*(must or []), qe.HasIdCondition(set())]
    return qe.Filter(
        must=must,
        should=engine_conditions(filter_.should, levels - 1, root),
        must_not=engine_conditions(filter_.must_not, levels - 1, root),
        min_should=_min_should(min_should, levels - 1, root) if min_should is not None else None,
    )


def _min_should(min_should: models.MinShould, levels: int, root: Any) -> qe.MinShould:
    count = whole(min_should.min_count, "min_count")
    return qe.MinShould(engine_conditions(min_should.conditions, levels, root) or [], count)


def _filters_inside(node: Any) -> Iterable[tuple[str, Any]] | None:
    """The filters and nested conditions directly inside a filter, by their step; None for another condition."""
    if isinstance(node, models.NestedCondition):
        return _filters_inside(node.nested.filter)
    if not isinstance(node, models.Filter):
        return None
    clauses = {name: getattr(node, name) for name in ("must", "should", "must_not")}
    if node.min_should is not None:
        clauses["min_should"] = node.min_should.conditions
    return (
        (f".{name}[{index}]", condition)
        for name, clause in clauses.items()
        if clause is not None
        for index, condition in enumerate(listed(clause))
    )


def listed(clause: Any) -> list[Any]:
    """The conditions of a clause, which may be one, a list, or None."""
    if clause is None:
        return []
    return list(clause) if isinstance(clause, (list, tuple)) else [clause]


def engine_conditions(clause: Any, levels: int, root: Any) -> list[Any] | None:
    """Return the engine's conditions for one condition, a list of them, or None; no conditions are None."""
    # inside a nested filter the engine takes an empty list for a clause that nothing fulfils
    return [engine_condition(condition, levels, root) for condition in listed(clause)] or None


def engine_condition(condition: Any, levels: int = DEEPEST_REQUEST, root: Any = None) -> Any:
    """Return the engine's condition for one of qdrant-client's."""
    if isinstance(condition, models.Filter):
        return _filter(condition, levels, condition if root is None else root)
    if isinstance(condition, models.FieldCondition):
        return _field(condition)
    if isinstance(condition, models.IsEmptyCondition):
        return qe.IsEmptyCondition(condition.is_empty.key)
    if isinstance(condition, models.IsNullCondition):
        return qe.IsNullCondition(condition.is_null.key)
    if isinstance(condition, models.HasIdCondition):
        return qe.HasIdCondition(set(engine_ids(condition.has_id)))
    if isinstance(condition, models.HasVectorCondition):
        return qe.HasVectorCondition(condition.has_vector)
    if isinstance(condition, models.SliceCondition):
        total = whole(condition.slice.total, "slice total", most=2**32 - 1)
        index = whole(condition.slice.index, "slice index", least=0, most=total - 1)
        return qe.SliceCondition(total, index)  # type: ignore[attr-defined]  # its stub does not know it
    if isinstance(condition, models.NestedCondition):
        nested = as_filter(condition.nested.filter) or models.Filter()
        return qe.NestedCondition(condition.nested.key, _filter(nested, levels, condition if root is None else root))
    raise unsupported(condition, "filter condition")


def _field(condition: models.FieldCondition) -> qe.FieldCondition:
    radius, box, polygon = condition.geo_radius, condition.geo_bounding_box, condition.geo_polygon
    count = condition.values_count
    return qe.FieldCondition(
        condition.key,
        match=_match(condition.match) if condition.match is not None else None,
        range=_range(condition.range) if condition.range is not None else None,
        geo_radius=qe.GeoRadius(_geo(radius.center), finite(radius.radius, "radius")) if radius else None,
        geo_bounding_box=qe.GeoBoundingBox(_geo(box.top_left), _geo(box.bottom_right)) if box else None,
        geo_polygon=_polygon(polygon) if polygon else None,
        values_count=qe.ValuesCount(lt=count.lt, gt=count.gt, lte=count.lte, gte=count.gte) if count else None,
        is_empty=condition.is_empty,
        is_null=condition.is_null,
    )


def _match_value(match: models.MatchValue) -> qe.MatchValue:
    # the binding reads a Python bool as the integer 1 or 0; numpy's is read as a bool
    value: Any = np.bool_(match.value) if isinstance(match.value, bool) else match.value
    return qe.MatchValue(value)


MATCHES: dict[type, Callable[[Any], Any]] = {
    models.MatchValue: _match_value,
    models.MatchText: lambda match: qe.MatchText(match.text),
    models.MatchTextAny: lambda match: qe.MatchTextAny(match.text_any),
    models.MatchPhrase: lambda match: qe.MatchPhrase(match.phrase),
    models.MatchPrefix: lambda match: qe.MatchPrefix(match.prefix),
    models.MatchSubstring: lambda match: qe.MatchSubstring(match.substring),
    models.MatchAny: lambda match: qe.MatchAny(list(match.any)),
    models.MatchExcept: lambda match: qe.MatchExcept(list(match.except_)),
}


def _match(match: Any) -> Any:
    if type(match) not in MATCHES:
        raise unsupported(match, "match")
    return MATCHES[type(match)](match)


def _range(range_: models.Range | models.DatetimeRange) -> qe.RangeFloat | qe.RangeDateTime:
    if isinstance(range_, models.DatetimeRange):
        return qe.RangeDateTime(
            gte=datetime_text(range_.gte),
            gt=datetime_text(range_.gt),
            lte=datetime_text(range_.lte),
            lt=datetime_text(range_.lt),
        )
    return qe.RangeFloat(**_bounds(range_))


def _bounds(range_: models.Range) -> dict[str, float | None]:
    """The bounds of a range, all finite: no payload value lies beyond the largest number or before the least."""
    bounds = {name: getattr(range_, name) for name in ("gte", "gt", "lte", "lt")}
    for name, bound in bounds.items():
        if bound is not None and math.isnan(bound):
            raise InputError(f"range {name} value nan is invalid, expected a number: none lies above or below NaN")
    infinite = {name: bound for name, bound in bounds.items() if bound is not None and math.isinf(bound)}
    bounds.update(dict.fromkeys(infinite))
    for name, bound in infinite.items():
        side, last = name[:2], math.copysign(sys.float_info.max, bound)
        if (bound > 0) == (side == "gt"):
            bounds[side] = last  # no number lies beyond
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


# -- formulas

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
    refuse_nesting(query.formula, _expressions_inside, DEEPEST_REQUEST, "formula")
    return qe.Formula(engine_expression(query.formula), json_payload(query.defaults))


def _expressions_inside(node: Any) -> Iterable[tuple[str, Any]] | None:
    """The expressions directly inside one, by their step; None for a number, a key or a condition."""
    if type(node) not in OPERATIONS and type(node) not in DECAYS:
        return None
    inside: list[tuple[str, Any]] = []
    for name, value in node:
        if isinstance(value, list):
            inside += [(f".{name}[{index}]", part) for index, part in enumerate(value)]
        elif isinstance(value, PARAMETERS):
            inside += [(f".{name}.{field}", part) for field, part in value]
        else:
            inside.append((f".{name}", value))
    return inside


def engine_expression(expression: Any) -> Any:
    """Return the engine's expression for a number, a payload key or `$score`, a condition, or an operation."""
    if isinstance(expression, (int, float)) and not isinstance(expression, bool):
        return E.Constant(finite(expression, "formula constant"))
    if isinstance(expression, str):
        return E.Variable(expression)
    if isinstance(expression, CONDITIONS):
        return E.Condition(engine_condition(expression))
    if type(expression) in OPERATIONS:
        return OPERATIONS[type(expression)](expression)
    if type(expression) in DECAYS:
        return _decay(expression)
    raise unsupported(expression, "formula expression")


def _all(expressions: list[Any]) -> list[Any]:
    return [engine_expression(expression) for expression in expressions]


def _div(expression: models.DivExpression) -> Any:
    div = expression.div
    by_zero = maybe_finite(div.by_zero_default, "by_zero_default")
    return E.Div(engine_expression(div.left), engine_expression(div.right), by_zero)


def _decay(expression: Any) -> Any:
    name, kind = DECAYS[type(expression)]
    params: models.DecayParamsExpression = getattr(expression, name)
    target = engine_expression(params.target) if params.target is not None else None
    midpoint, scale = maybe_finite(params.midpoint, "midpoint"), maybe_finite(params.scale, "scale")
    return E.Decay(kind, engine_expression(params.x), target, midpoint, scale)


def _geo_distance(expression: models.GeoDistance) -> Any:
    origin = expression.geo_distance.origin
    return E.GeoDistance(qe.GeoPoint(origin.lon, origin.lat), expression.geo_distance.to)


OPERATIONS: dict[type, Callable[[Any], Any]] = {
    models.GeoDistance: _geo_distance,
    models.DatetimeExpression: lambda e: E.Datetime(e.datetime),
    models.DatetimeKeyExpression: lambda e: E.DatetimeKey(e.datetime_key),
    models.MultExpression: lambda e: E.Mult(_all(e.mult)),
    models.SumExpression: lambda e: E.Sum(_all(e.sum)),
    models.MaxExpression: lambda e: E.Max(_all(e.max)),
    models.MinExpression: lambda e: E.Min(_all(e.min)),
    models.NegExpression: lambda e: E.Neg(engine_expression(e.neg)),
    models.AbsExpression: lambda e: E.Abs(engine_expression(e.abs)),
    models.DivExpression: _div,
    models.SqrtExpression: lambda e: E.Sqrt(engine_expression(e.sqrt)),
    models.PowExpression: lambda e: E.Pow(engine_expression(e.pow.base), engine_expression(e.pow.exponent)),
    models.ExpExpression: lambda e: E.Exp(engine_expression(e.exp)),
    models.Log10Expression: lambda e: E.Log10(engine_expression(e.log10)),
    models.LnExpression: lambda e: E.Ln(engine_expression(e.ln)),
    models.AcoshExpression: lambda e: E.Acosh(engine_expression(e.acosh)),
}
