"""Searches are written as spans of OpenTelemetry, and what people say of the spans is feedback on the searches."""

from __future__ import annotations

import asyncio
import csv
import json
import logging
import subprocess
import sys
import time

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llama_index_embed_plus import RetrievalRecorder, SearchSpans
from llama_index_embed_plus.errors import MissingExtraError
from qdrant_tools.errors import UsageError
from qdrant_tools.log import RetrievalLog, dropped, hashed
from qdrant_tools.traces import read_traces
from qdrant_tools.traces.forms.all import FORMS
from qdrant_tools.traces.records import Span, TraceSettings


class Fixed(BaseRetriever):
    """Finds the same passages for every query."""

    def __init__(self, count: int = 3, score: float | None = 0.5) -> None:
        super().__init__()
        self.count, self.score = count, score

    def _retrieve(self, query_bundle):
        nodes = [TextNode(id_=f"p{place}", text=f"passage {place}") for place in range(self.count)]
        return [NodeWithScore(node=node, score=self.score and self.score / (n + 1)) for n, node in enumerate(nodes)]


class Collector:
    """A tracer provider with the real SDK, and the spans that it was given."""

    def __init__(self, **limits: object) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**limits)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("application")

    @property
    def written(self):
        return list(self.exporter.get_finished_spans())

    def file(self, path):
        path.write_text("".join(span.to_json(indent=None) + "\n" for span in self.written))
        return path


@pytest.fixture
def collector():
    return Collector()


def recorded(path, collector, ask, retriever=None, *, log=None, **options):
    """What the log has and what was written, once the application has asked."""
    spans = SearchSpans(collector.provider, **options)
    with RetrievalRecorder(
        path / "log.sqlite" if log is None else log,
        collection="docs",
        space="tiny@1",
        session=lambda: "visit-1",
        spans=spans,
    ) as recorder:
        ask(retriever or Fixed())
        recorder.flush()
        found = list(recorder.log.searches())
    assert spans.failed == recorder.failed == 0
    return found, collector.written


def understood(path) -> list[Span]:
    """The spans of a file, as `log import` reads each row."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    forms = [next(form for form in FORMS if form.recognises(row)) for row in rows]
    each = [list(form.read(row, TraceSettings())) for form, row in zip(forms, rows)]
    return [span for found in each for span in found if isinstance(span, Span)]


def test_a_recorded_search_is_a_span_in_both_conventions_without_what_was_typed(tmp_path, collector):
    (search,), (span,) = recorded(tmp_path, collector, lambda retriever: retriever.retrieve("my secret question"))
    said = dict(span.attributes)
    assert span.name == "retrieval docs" and span.kind.name == "CLIENT"
    assert said["openinference.span.kind"] == "RETRIEVER" and said["gen_ai.operation.name"] == "retrieval"
    assert said["embed_plus.search_id"] == search.id and said["embed_plus.space"] == "tiny@1"
    assert said["session.id"] == said["gen_ai.conversation.id"] == "visit-1"
    assert said["db.collection.name"] == said["gen_ai.data_source.id"] == "docs"
    assert [said[f"retrieval.documents.{n}.document.id"] for n in range(3)] == ["p0", "p1", "p2"]
    assert json.loads(said["gen_ai.retrieval.documents"]) == [{"id": h.id, "score": h.score} for h in search.hits]
    assert "secret" not in span.to_json() and "passage" not in span.to_json()


def test_query_and_texts_are_written_once_somebody_asks_for_them(tmp_path, collector):
    _, (span,) = recorded(tmp_path, collector, lambda retriever: retriever.retrieve("who?"), capture_content=True)
    assert span.attributes["input.value"] == span.attributes["gen_ai.retrieval.query.text"] == "who?"
    assert span.attributes["retrieval.documents.2.document.content"] == "passage 2"


@pytest.mark.parametrize("rule", [dropped, hashed("a secret of many letters"), lambda text: text.replace("Ann", "X")])
def test_what_the_log_redacts_is_in_no_span(tmp_path, collector, rule):
    with RetrievalLog(tmp_path / "log.sqlite", redact=rule) as log:
        (search,), (span,) = recorded(
            tmp_path, collector, lambda retriever: retriever.retrieve("where is Ann"), log=log, capture_content=True
        )
    assert "Ann" not in span.to_json() and span.attributes["embed_plus.search_id"] == search.id
    assert span.attributes.get("input.value") == (None if search.redacted else search.query)
    assert span.attributes.get("session.id", "") == search.session


@pytest.mark.parametrize("conventions", [["openinference"], ["genai"], ["openinference", "genai"]])
def test_each_convention_is_read_back_with_the_id_of_the_search(tmp_path, collector, conventions):
    (search,), _ = recorded(
        tmp_path, collector, lambda retriever: retriever.retrieve("who?"), capture_content=True, conventions=conventions
    )
    (span,) = understood(collector.file(tmp_path / "spans.jsonl"))
    assert (span.kind, span.search, span.query, span.collection) == ("retrieval", search.id, "who?", "docs")
    assert [(each.id, each.score) for each in span.documents] == [(hit.id, hit.score) for hit in search.hits]
    with pytest.raises(UsageError, match="expected openinference, genai or both"):
        SearchSpans(conventions=["openllmetry"])


@pytest.mark.parametrize("limit", [None, "40", "many"])
def test_a_list_of_more_hits_than_a_span_has_attributes_is_whole_all_the_same(tmp_path, collector, limit, monkeypatch):
    if limit is not None:
        monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", limit)
        collector = Collector() if limit.isdigit() else collector
    (search,), (span,) = recorded(
        tmp_path, collector, lambda retriever: retriever.retrieve("who?"), Fixed(200), capture_content=True
    )
    assert span.dropped_attributes == 0 and len(span.attributes) <= (40 if limit == "40" else 128)
    (read,) = understood(collector.file(tmp_path / "spans.jsonl"))
    assert [(each.id, each.score) for each in read.documents] == [(hit.id, hit.score) for hit in search.hits]
    assert [each.text for each in read.documents][:2] == ["passage 0", "passage 1"] and read.query == "who?"


def test_hits_without_scores_have_none(tmp_path, collector):
    _, (span,) = recorded(tmp_path, collector, lambda retriever: retriever.retrieve("q"), Fixed(score=None))
    assert json.loads(span.attributes["gen_ai.retrieval.documents"])[0] == {"id": "p0", "score": None}
    assert "retrieval.documents.0.document.score" not in span.attributes


def test_a_span_lies_in_the_span_of_its_request_and_has_its_times(tmp_path, collector):
    def ask(retriever):
        with collector.tracer.start_as_current_span("request"):
            retriever.retrieve("q")
            asyncio.run(retriever.aretrieve("r"))

    before = time.time_ns()
    found, written = recorded(tmp_path, collector, ask)
    request = next(span for span in written if span.name == "request")
    inner = [span for span in written if span is not request]
    assert [span.parent.span_id for span in inner] == [request.context.span_id] * 2
    assert all(before <= span.start_time <= span.end_time <= request.end_time for span in inner)
    assert [span.attributes["embed_plus.search_id"] for span in inner] == [search.id for search in found]


def test_an_engine_writes_one_span_for_what_the_user_asked(tmp_path, collector):
    engine = RetrieverQueryEngine.from_args(Fixed(), llm=MockLLM())
    found, written = recorded(tmp_path, collector, lambda _: engine.query("who?"))
    assert len(found) == len(written) == 1


def test_a_collector_that_fails_breaks_no_request_and_loses_no_search(tmp_path, collector, caplog):
    class Broken:
        def get_tracer(self, *_: object, **__: object):
            return self

        def start_span(self, *_: object, **__: object):
            raise RuntimeError("my secret question")

    spans = SearchSpans(Broken())
    with caplog.at_level(logging.WARNING), RetrievalRecorder(tmp_path / "log.sqlite", spans=spans) as recorder:
        for _ in range(3):
            assert Fixed().retrieve("q")
        recorder.flush()
        assert len(recorder.log) == 3 and spans.failed == 3 and recorder.failed == 0
    (line,) = [each.getMessage() for each in caplog.records]
    assert "RuntimeError" in line and "secret" not in line


def test_without_a_tracer_provider_nothing_is_written_and_nothing_fails(tmp_path):
    spans = SearchSpans()
    with RetrievalRecorder(tmp_path / "log.sqlite", spans=spans) as recorder:
        Fixed().retrieve("q")
        recorder.flush()
        assert len(recorder.log) == 1 and spans.failed == 0


def test_without_the_extra_it_is_said_what_to_install_and_recording_needs_none():
    code = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "from llama_index_embed_plus import RetrievalRecorder, SearchSpans\n"
        "try:\n    SearchSpans()\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(MissingExtraError.__name__) and "llama-index-embed-plus[otel]" in done.stdout


# the way back --------------------------------------------------------------------------------------------------------


def imported(path, *files, settings=None):
    """What `log import` makes of files, in a log of its own or in one that is there."""
    with RetrievalLog(path) as log, read_traces(files, settings) as traces:
        log.extend(traces.searches())
        return list(log.searches()), traces.report


def thumbs(path, span, *, label="thumbs-up", score=1.0):
    """As Phoenix exports what a person said of a span."""
    row = {"span_id": f"{span.context.span_id:016x}", "annotation_name": "user_feedback", "annotator_kind": "HUMAN"}
    row |= {"result.label": label, "result.score": score, "result.explanation": "", "user_id": "ann", "metadata": "{}"}
    row |= {"id": "U3Bhbjox", "created_at": "2026-11-01T10:00:00+00:00", "updated_at": "2026-11-01T10:00:00+00:00"}
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([row, row.values()])
    return path


def same(searches):
    return [(search.id, search.query, search.collection, search.hits) for search in searches]


def test_what_was_recorded_comes_back_as_the_same_searches(tmp_path, collector):
    def ask(retriever):
        for query in ("who?", "why?", "who?"):
            retriever.retrieve(query)

    found, _ = recorded(tmp_path, collector, ask, Fixed(70), capture_content=True)
    file = collector.file(tmp_path / "spans.jsonl")
    again, report = imported(tmp_path / "other.sqlite", file)
    assert same(again) == same(found) and report.searches == 3
    assert len({search.session for search in again}) == 1 and again[0].session != ""
    into, _ = imported(tmp_path / "log.sqlite", file)
    assert same(into) == same(found)


def test_a_thumb_on_a_span_that_never_saw_the_question_is_a_verdict_on_the_logged_search(tmp_path, collector):
    engine = RetrieverQueryEngine.from_args(Fixed(), llm=MockLLM())

    def ask(_):
        for query in ("who?", "why?"):
            with collector.tracer.start_as_current_span("request", attributes={"openinference.span.kind": "CHAIN"}):
                engine.query(query)

    (first, second), written = recorded(tmp_path, collector, ask)
    (root,) = [span for span in written if span.name == "request"][1:]
    file = collector.file(tmp_path / "spans.jsonl")
    after, report = imported(tmp_path / "log.sqlite", file, thumbs(tmp_path / "annotations.csv", root))
    assert same(after) == same([first, second]), report
    assert after[0].answer is None or not after[0].answer.verdicts
    assert [(said.kind, said.value, said.by) for said in after[1].answer.verdicts] == [("thumb", 1.0, "person")]
    again, _ = imported(tmp_path / "log.sqlite", file, tmp_path / "annotations.csv")
    assert again == after


def test_inside_of_a_pipeline_that_is_traced_already_no_search_is_there_twice(tmp_path, collector):
    for turn, first in enumerate(("instrumentor", "recorder")):
        collector = Collector()
        instrumentor = LlamaIndexInstrumentor()
        spans = SearchSpans(collector.provider)
        recorder = RetrievalRecorder(tmp_path / f"log{turn}.sqlite", spans=spans)
        if first == "recorder":
            recorder.start()
        instrumentor.instrument(tracer_provider=collector.provider)
        try:
            with recorder:
                engine = RetrieverQueryEngine.from_args(Fixed(), llm=MockLLM())
                engine.query("who?")
                asyncio.run(engine.aquery("why?"))
                recorder.flush()
                found = list(recorder.log.searches())
        finally:
            instrumentor.uninstrument()
        assert spans.failed == 0 and len(found) == 2, first
        file = collector.file(tmp_path / f"spans{turn}.jsonl")
        again, _ = imported(tmp_path / f"other{turn}.sqlite", file)
        assert [(search.id, search.query, [hit.id for hit in search.hits]) for search in again] == [
            (search.id, search.query, [hit.id for hit in search.hits]) for search in found
        ], first
        root = next(span for span in collector.written if span.parent is None)
        after, _ = imported(tmp_path / f"log{turn}.sqlite", file, thumbs(tmp_path / "annotations.csv", root))
        assert [len(search.answer.verdicts) for search in after] == [1, 0], first
