"""Tables in which clouds keep spans of OpenTelemetry -> raw spans: Application Insights, and Logfire's records.

Application Insights has one table for what was asked of an application and one for what it asked; both are read, from
the classic tables (`customDimensions`) and those of Log Analytics (`Properties`), as JSON or as the portal's CSV.

Guarantees: attributes are those that the application wrote. Application Insights cuts each at 8,192 characters, which
leaves long lists of documents unreadable: they are none, and the hint says so. Does not know: what an attribute means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from qdrant_tools.foreign import as_time, is_missing
from qdrant_tools.traces.forms.fields import first_of, mapping_in
from qdrant_tools.traces.forms.raw import SPAN_DIGITS, TRACE_DIGITS, RawSpan, flat, hex_id, moment, parent_id
from qdrant_tools.traces.forms.values import text_of
from qdrant_tools.traces.records import TraceSettings

_TIMES = ("timestamp", "TimeGenerated", "timestamp [UTC]", "TimeGenerated [UTC]")
_FAILED = frozenset({"false", "0"})


def is_app_insights(row: Mapping[str, Any]) -> bool:
    """Whether a row is a request or a dependency of Application Insights, or an answer with tables of such."""
    if any(is_app_insights(inner) for inner in _rows_of_tables(row)[:1]):
        return True
    classic = {"operation_Id", "operation_ParentId", "customDimensions", "id"} <= row.keys()
    return classic or {"OperationId", "ParentId", "Properties", "Id"} <= row.keys()


def read_app_insights(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """The span of a row, or those of a table. Raises `InputError` where an id or the time is damaged."""
    if "tables" in row:
        for inner in _rows_of_tables(row):
            yield from read_app_insights(inner, settings)
        return
    trace = hex_id("operation_Id", first_of(row, "operation_Id", "OperationId"), TRACE_DIGITS)
    above = parent_id("operation_ParentId", first_of(row, "operation_ParentId", "ParentId"))
    service = text_of(first_of(row, "cloud_RoleName", "AppRoleName"))
    yield RawSpan(
        trace=trace,
        id=hex_id("id", first_of(row, "id", "Id"), SPAN_DIGITS),
        # of a root, the portal names the trace as its parent
        parent=None if above == trace else above,
        name=text_of(first_of(row, "name", "Name")) or "",
        at=_time(row, settings),
        failed=str(first_of(row, "success", "Success")).strip().lower() in _FAILED,
        attributes=flat(mapping_in(first_of(row, "customDimensions", "Properties"))),
        resource={"service.name": service} if service else {},
    )


def _rows_of_tables(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of an answer of its API: tables with the names of columns, and rows of values."""
    tables = row.get("tables")
    found: list[dict[str, Any]] = []
    for table in tables if isinstance(tables, list) else []:
        columns, values = (mapping_in(table).get(name) for name in ("columns", "rows"))
        if isinstance(columns, list) and isinstance(values, list):
            names = [str(mapping_in(column).get("name")) for column in columns]
            found.extend(dict(zip(names, each, strict=False)) for each in values if isinstance(each, list))
    return found


def _time(row: Mapping[str, Any], settings: TraceSettings) -> datetime | None:
    name = next((name for name in _TIMES if not is_missing(row.get(name))), None)
    if name is None:
        return None
    value = row[name]
    if name.endswith("[UTC]") and isinstance(value, str) and "/" in value:
        return as_time(name, value, form="month-first", zone=UTC)  # the portal's CSV: 11/28/2026, 9:30:05.123 AM
    return moment(name, value, settings.zone or UTC)


def is_logfire(row: Mapping[str, Any]) -> bool:
    """Whether a row is a record of Logfire."""
    return {"trace_id", "span_id", "span_name", "start_timestamp", "attributes"} <= row.keys()


def read_logfire(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """The span of a row. Raises `InputError` where an id or a time is damaged."""
    service, environment = text_of(row.get("service_name")), text_of(row.get("deployment_environment"))
    resource = dict(flat(mapping_in(row.get("otel_resource_attributes"))))
    for name, value in (("service.name", service), ("deployment.environment.name", environment)):
        if value:
            resource.setdefault(name, value)
    yield RawSpan(
        trace=hex_id("trace_id", row.get("trace_id"), TRACE_DIGITS),
        id=hex_id("span_id", row.get("span_id"), SPAN_DIGITS),
        parent=parent_id("parent_span_id", row.get("parent_span_id")),
        name=text_of(row.get("span_name")) or "",
        at=moment("start_timestamp", row.get("start_timestamp"), settings.zone or UTC),
        until=moment("end_timestamp", row.get("end_timestamp"), settings.zone or UTC),
        failed=row.get("is_exception") is True or str(row.get("otel_status_code")).upper() == "ERROR",
        attributes=flat(mapping_in(row.get("attributes"))),
        resource=resource,
    )
