"""Rows of the platforms that store spans of OpenTelemetry in tables of their own -> raw spans.

A `SpanTable` says which fields tell a platform's row, and where it has what: Elastic APM, OpenSearch (Data Prepper),
SigNoz, New Relic, Honeycomb, Traceloop, TruLens' event table. The last one is anybody's: a row with the ids of a trace
and a span, and attributes.

Guarantees: a row is of the first table whose signs it has; a name whose dots a platform has replaced is itself again; a
value as long as the longest that a platform keeps is not taken for whole. Does not know: what an attribute means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from qdrant_tools.foreign import is_missing
from qdrant_tools.traces.forms.fields import mapping_in
from qdrant_tools.traces.forms.otel.envelopes.otlp import attributes_of
from qdrant_tools.traces.forms.otel.envelopes.renamed import at_signs_as_dots, plain_name, underscores_as_dots
from qdrant_tools.traces.forms.raw import SPAN_DIGITS, TRACE_DIGITS, RawSpan, hex_id, moment, number_of, parent_id
from qdrant_tools.traces.forms.values import json_in, text_of
from qdrant_tools.traces.records import TraceSettings

_NAMES = tuple[str, ...]


@dataclass(frozen=True)
class SpanTable:
    """Where a platform's rows have what; a dotted name is that of a column, or goes into objects.

    `signs` are sets of fields, of which a row has one whole set; `lacks` are fields that it must not have. `maps` are
    objects of attributes, `columns` the beginnings of columns that are one each ("" for all). `lasts` is the field of
    how long it took, and how many of its units are a second. `longest` is the length at which values are cut.
    """

    name: str
    signs: tuple[_NAMES, ...]
    trace: _NAMES
    span: _NAMES
    parent: _NAMES
    step: _NAMES
    start: _NAMES
    end: _NAMES = ()
    lasts: tuple[_NAMES, float] = ((), 1.0)
    maps: _NAMES = ()
    columns: _NAMES = ()
    resource: _NAMES = ()
    service: _NAMES = ()
    environment: _NAMES = ()
    failed: _NAMES = ()
    lacks: _NAMES = ()
    longest: int = 0
    renamed: Callable[[str], str] = field(default=plain_name)

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has a whole set of signs."""
        return any(all(_at(row, (sign,)) is not None for sign in signs) for signs in self.signs) and not any(
            _at(row, (name,)) is not None for name in self.lacks
        )

    def read(self, row: Mapping[str, Any], settings: TraceSettings) -> RawSpan:
        """The span that a row is. Raises `InputError` where an id or a time is damaged."""
        start = moment(self.start[0], _at(row, self.start), settings.zone or UTC)
        resource: dict[str, Any] = {}
        for name in self.resource:
            resource |= attributes_of(json_in(_at(row, (name,))) or {})
        for key, names in (("service.name", self.service), ("deployment.environment.name", self.environment)):
            if (value := text_of(_at(row, names))) is not None:
                resource.setdefault(key, value)
        until = moment(self.end[0], _at(row, self.end), settings.zone or UTC) if self.end else self._ended(row, start)
        return RawSpan(
            trace=hex_id(self.trace[0], _at(row, self.trace), TRACE_DIGITS),
            id=hex_id(self.span[0], _at(row, self.span), SPAN_DIGITS),
            parent=parent_id(self.parent[0], _at(row, self.parent)),
            name=text_of(_at(row, self.step)) or "",
            at=start,
            until=until,
            failed=has_failed(_at(row, self.failed)),
            attributes=self.attributes(row),
            resource=resource,
            longest=self.longest,
        )

    def attributes(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes, under the names that the application gave them."""
        found: dict[str, Any] = {}
        for name in self.maps:
            found |= attributes_of(json_in(_at(row, (name,))) or {})
        for prefix in self.columns:
            cells = {name[len(prefix) :]: value for name, value in row.items() if name.startswith(prefix)}
            found |= attributes_of({name: value for name, value in cells.items() if not is_missing(value)})
        return {self.renamed(name): value for name, value in found.items()}

    def _ended(self, row: Mapping[str, Any], start: datetime | None) -> datetime | None:
        lasted = number_of(_at(row, self.lasts[0]))
        return None if start is None or lasted is None else start + timedelta(seconds=lasted / self.lasts[1])


def has_failed(said: Any) -> bool:
    """Whether a status, an outcome or a flag says that a step has failed."""
    return said is True or str(said).strip().upper() in ("2", "ERROR", "STATUS_CODE_ERROR", "FAILURE", "TRUE")


def _at(row: Mapping[str, Any], names: _NAMES) -> Any:
    """What lies under the first of these names that says something; None if none does."""
    for name in names:
        value = row.get(name)
        if value is None and "." in name:
            value = _inside(row, name.split("."))
        if not is_missing(value) and value != {}:
            return value
    return None


def _inside(row: Mapping[str, Any], path: list[str]) -> Any:
    value: Any = row
    for step in path:
        value = mapping_in(value).get(step)
        if value is None:
            return None
    return value


ELASTIC = SpanTable(
    "elastic-apm",
    signs=(("trace.id", "span.id", "processor.event"), ("trace.id", "transaction.id", "processor.event")),
    trace=("trace.id",),
    span=("span.id", "transaction.id"),
    parent=("parent.id",),
    step=("span.name", "transaction.name"),
    start=("@timestamp",),
    lasts=(("span.duration.us", "transaction.duration.us"), 1e6),
    maps=("labels", "numeric_labels"),
    columns=("labels.", "numeric_labels."),
    service=("service.name",),
    environment=("service.environment",),
    failed=("event.outcome",),
    longest=1024,
    renamed=underscores_as_dots,
)
ELASTIC_OTEL = SpanTable(
    "elastic-apm",
    signs=(("trace_id", "span_id", "@timestamp"),),
    trace=("trace_id",),
    span=("span_id",),
    parent=("parent_span_id",),
    step=("name",),
    start=("@timestamp",),
    lasts=(("duration",), 1e9),
    maps=("attributes",),
    columns=("attributes.",),
    resource=("resource.attributes",),
    service=("resource.attributes.service.name",),
    environment=("resource.attributes.deployment.environment",),
    failed=("status.code",),
)
DATA_PREPPER = SpanTable(
    "data-prepper",
    signs=(("traceId", "spanId", "traceGroup"), ("traceId", "spanId", "durationInNanos")),
    trace=("traceId",),
    span=("spanId",),
    parent=("parentSpanId",),
    step=("name",),
    start=("startTime",),
    end=("endTime",),
    maps=("attributes", "span.attributes"),
    columns=("span.attributes.", "attributes."),
    service=("serviceName",),
    failed=("status.code",),
    renamed=at_signs_as_dots,
)
SIGNOZ = SpanTable(
    "signoz",
    signs=(("trace_id", "span_id", "attributes_string"), ("traceID", "spanID", "stringTagMap")),
    trace=("trace_id", "traceID"),
    span=("span_id", "spanID"),
    parent=("parent_span_id", "parentSpanID"),
    step=("name",),
    start=("timestamp",),
    lasts=(("duration_nano", "durationNano"), 1e9),
    maps=("attributes_string", "attributes_number", "attributes_bool", "stringTagMap", "numberTagMap", "boolTagMap"),
    resource=("resources_string", "resourceTagsMap"),
    service=("serviceName",),
    failed=("has_error", "hasError", "status_code_string"),
)
NEW_RELIC = SpanTable(
    "newrelic",
    signs=(("trace.id", "guid"), ("trace.id", "id", "duration.ms")),
    trace=("trace.id",),
    span=("guid", "id"),
    parent=("parent.id", "parentId"),
    step=("name",),
    start=("timestamp",),
    lasts=(("duration.ms",), 1e3),
    maps=("attributes",),
    columns=("",),
    service=("service.name", "entity.name", "appName"),
    failed=("otel.status_code", "error"),
    lacks=("processor.event",),
    longest=4095,
)
HONEYCOMB = SpanTable(
    "honeycomb",
    signs=(("trace.trace_id", "trace.span_id"),),
    trace=("trace.trace_id",),
    span=("trace.span_id",),
    parent=("trace.parent_id",),
    step=("name",),
    start=("Timestamp", "timestamp", "time", "Time"),
    lasts=(("duration_ms",), 1e3),
    columns=("",),
    service=("service.name",),
    failed=("error", "status_code"),
    lacks=("record_attributes", "RECORD_ATTRIBUTES"),
)
TRACELOOP = SpanTable(
    "traceloop",
    signs=(("trace_id", "span_id", "span_attributes"),),
    trace=("trace_id",),
    span=("span_id",),
    parent=("parent_span_id",),
    step=("span_name", "name"),
    start=("timestamp", "start_time"),
    lasts=(("duration",), 1e9),
    maps=("span_attributes",),
    resource=("resource_attributes",),
    service=("service_name",),
    environment=("environment",),
    failed=("status_code",),
)
TRULENS = SpanTable(
    "trulens",
    signs=(("record_attributes", "trace.trace_id"), ("RECORD_ATTRIBUTES", "TRACE.trace_id")),
    trace=("trace.trace_id", "TRACE.trace_id"),
    span=("trace.span_id", "TRACE.span_id"),
    parent=("record.parent_span_id", "trace.parent_id", "RECORD.parent_span_id"),
    step=("record.name", "RECORD.name"),
    start=("start_timestamp", "START_TIMESTAMP"),
    end=("timestamp", "TIMESTAMP"),
    maps=("record_attributes", "RECORD_ATTRIBUTES"),
    resource=("resource_attributes", "RESOURCE_ATTRIBUTES"),
    service=("resource_attributes.ai.observability.app_name",),
    failed=("record.status.code", "record.status", "RECORD.status.code"),
)
ANY = SpanTable(
    "otel-table",
    signs=(("trace_id", "span_id", "attributes"), ("traceId", "spanId", "attributes")),
    trace=("trace_id", "traceId"),
    span=("span_id", "spanId"),
    parent=("parent_span_id", "parentSpanId", "parent_id", "parentId"),
    step=("name", "span_name", "spanName", "display_name"),
    start=("start_time", "startTime", "timestamp", "start"),
    end=("end_time", "endTime", "end"),
    maps=("attributes",),
    resource=("resource.attributes", "resource_attributes", "resourceAttributes"),
    service=("service_name", "serviceName"),
    failed=("status.code", "status_code", "statusCode", "status"),
    lacks=(
        "start_timestamp", "startTimeUnixNano", "start_time_unix_nano", "context", "@timestamp", "traceGroup",
        "durationInNanos", "span_attributes", "attributes_string",
    ),
)  # fmt: skip
TABLES: tuple[SpanTable, ...] = (
    ELASTIC, ELASTIC_OTEL, DATA_PREPPER, SIGNOZ, NEW_RELIC, HONEYCOMB, TRACELOOP, TRULENS, ANY,
)  # fmt: skip
PLATFORMS = tuple(dict.fromkeys(table.name for table in TABLES))


def table_of(row: Mapping[str, Any]) -> SpanTable | None:
    """The platform's table that a row is of."""
    return next((table for opened in _opened(row)[:1] for table in TABLES if table.recognises(opened)), None)


def read_platform(row: Mapping[str, Any], settings: TraceSettings) -> Iterator[RawSpan]:
    """The span of a row, or those of an answer that holds several. Raises `InputError` where one is damaged."""
    table = table_of(row)
    for opened in _opened(row) if table is not None else ():
        yield (table_of(opened) or table).read(opened, settings)  # type: ignore[union-attr]


def _opened(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The row; the documents in an answer of Elasticsearch or OpenSearch; what an event has under `data`."""
    hits = mapping_in(row.get("hits")).get("hits")
    if isinstance(hits, list):
        return [mapping_in(mapping_in(hit).get("_source")) for hit in hits]
    for name in ("_source", "data"):
        if isinstance(inner := row.get(name), Mapping):
            beside = {key: value for key, value in row.items() if key in ("time", "timestamp")}
            return [{**beside, **inner}]
    return [row]
