"""qdrant-client's score formulas -> the engine's expressions.

Guarantees: numbers are finite, nesting has a limit. Does not know: queries, shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import qdrant_edge as qe
from qdrant_client.http import models

from qdrant_tools.edge.checks import finite, json_payload, maybe_finite, unknown
from qdrant_tools.edge.filters import condition
from qdrant_tools.nesting import DEEPEST_REQUEST, refuse_nesting

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
