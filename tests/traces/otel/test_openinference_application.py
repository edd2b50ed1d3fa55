"""A LlamaIndex application under the real instrumentation of OpenInference: what it searched for is what is read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import QueryBundle, TextNode
from spans_written import TEXTS, embedded, instrumented, otlp, otlp_span, read

from qdrant_tools.traces import read_traces
from qdrant_tools.traces.records import Span


class Words(BaseEmbedding):
    def _get_query_embedding(self, query: str) -> list[float]:
        return embedded(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return embedded(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return embedded(text)


class Stub(CustomLLM):
    fails: bool = False

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="stub", context_window=8000)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        if self.fails:
            raise RuntimeError("overloaded")
        if "search queries" in prompt:
            return CompletionResponse(text="what yeast does\nhow dough gains volume")
        if "standalone question" in prompt.lower():
            return CompletionResponse(text="When does green tea turn bitter?")
        return CompletionResponse(text="Yeast makes gas [1]." if "Source 1:" in prompt else "Yeast makes gas.")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        yield CompletionResponse(text="Yeast.", delta="Yeast.")


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    nodes = [
        TextNode(id_=f"id-{name}", text=text, metadata={"file_name": f"{name}.md"}) for name, text in TEXTS.items()
    ]
    return VectorStoreIndex(nodes, embed_model=Words())


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, tuple[str, ...]]]:
    """What retrievers were asked and gave back; of nested ones the outermost."""
    found: list[tuple[str, tuple[str, ...]]] = []
    original, depth = BaseRetriever.retrieve, [0]

    def retrieve(self: BaseRetriever, query: Any) -> Any:
        depth[0] += 1
        try:
            nodes = original(self, query)
        finally:
            depth[0] -= 1
        if not depth[0]:
            text = query.query_str if isinstance(query, QueryBundle) else query
            found.append((text, tuple(node.node.node_id for node in nodes)))
        return nodes

    monkeypatch.setattr(BaseRetriever, "retrieve", retrieve)
    return found


def outermost(spans: list[Any]) -> list[Span]:
    """Retrievals with a list that lie in no other one of those."""
    by_id = {span.id: span for span in spans if isinstance(span, Span)}

    def is_inner(span: Span) -> bool:
        parent = by_id.get(span.parent or "")
        return parent is not None and (
            (parent.kind == "retrieval" and parent.documents is not None) or is_inner(parent)
        )

    with_list = [span for span in by_id.values() if span.kind == "retrieval" and span.documents is not None]
    return [span for span in with_list if not is_inner(span)]


def ids_of(span: Span) -> tuple[str | None, ...]:
    return tuple(document.id for document in span.documents or ())


def as_otlp(row: dict[str, Any]) -> dict[str, Any]:
    """A span of the SDK as the protocol has it."""
    moments = {"startTimeUnixNano": str(1_795_735_775_000_000_000), "status": {"code": 1}}
    ids = {"traceId": row["context"]["trace_id"][2:], "spanId": row["context"]["span_id"][2:]}
    parent = {"parentSpanId": row["parent_id"][2:]} if row["parent_id"] else {}
    span = otlp_span(row["attributes"], name=row["name"], **ids, **moments)
    del span["parentSpanId"]
    return {**span, **parent}


def run_application(index: VectorStoreIndex) -> None:
    """An engine of each kind that searches in its own way."""
    llm = Stub()
    index.as_retriever(similarity_top_k=3).retrieve("What melts in a furnace?")
    index.as_query_engine(similarity_top_k=4, llm=llm).query("Why does bread rise?")
    cutoff = SimilarityPostprocessor(similarity_cutoff=0.2)
    index.as_query_engine(similarity_top_k=5, llm=llm, node_postprocessors=[cutoff]).query('What is "rust"?')
    fused = QueryFusionRetriever(
        [index.as_retriever(similarity_top_k=2)], llm=llm, num_queries=3, use_async=False, mode="reciprocal_rerank"
    )
    RetrieverQueryEngine.from_args(fused, llm=llm).query("why does dough grow")
    # its default memory opens a database that it never closes
    memory = ChatMemoryBuffer.from_defaults(token_limit=1000)
    chat = index.as_chat_engine(chat_mode="condense_plus_context", llm=llm, similarity_top_k=2, memory=memory)
    chat.chat("Tell me of tea.")
    chat.chat("When is it bitter?")
    CitationQueryEngine.from_args(index, llm=llm, similarity_top_k=2).query("What does wild yeast make?")


def test_every_search_of_an_application_is_read_once_from_spans_of_the_sdk_and_of_the_protocol(index, asked):
    with instrumented() as written:
        run_application(index)
    rows = written()
    assert len(asked) == 7
    for form, given in (("openinference", rows), ("otlp", [otlp(*map(as_otlp, rows[::-1]))])):
        found = outermost(read(*given))
        assert sorted((span.query, ids_of(span)) for span in found) == sorted(asked), form


def test_the_inner_span_of_a_retriever_has_no_list_of_its_own(index):
    with instrumented() as written:
        index.as_retriever(similarity_top_k=2).retrieve("Why does bread rise?")
    spans = [span for span in read(*written()) if isinstance(span, Span) and span.kind == "retrieval"]
    assert [(span.name.rpartition(".")[2], span.documents is None) for span in spans] == [
        ("_retrieve", True), ("retrieve", False),
    ]  # fmt: skip
    # the inner one still knows what was asked, in another shape
    assert {span.query for span in spans} == {"Why does bread rise?"}


def test_what_a_postprocessor_left_is_known_by_its_reprs(index):
    engine = index.as_query_engine(
        similarity_top_k=5, llm=Stub(), node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=0.2)]
    )
    with instrumented() as written:
        answer = engine.query("Why does sourdough bread rise?")
    (rerank,) = [span for span in read(*written()) if isinstance(span, Span) and span.kind == "rerank"]
    left = [(node.node_id, node.score) for node in answer.source_nodes]
    assert 0 < len(left) < 5
    assert [(document.id, document.score) for document in rerank.context or ()] == left


def test_a_root_knows_its_question_and_its_answer_and_a_prompt_the_sources_it_numbers(index):
    with instrumented() as written:
        CitationQueryEngine.from_args(index, llm=Stub(), similarity_top_k=2).query("What does wild yeast make?")
    spans = [span for span in read(*written()) if isinstance(span, Span)]
    root = next(span for span in spans if span.parent is None)
    assert (root.kind, root.query, root.answer) == ("chain", "What does wild yeast make?", "Yeast makes gas [1].")
    (search,) = outermost(spans)
    texts = [document.text for document in search.documents or ()]
    numbered = next(span.context for span in spans if span.kind == "llm" and span.context)
    assert [source.position for source in numbered] == [0, 1]
    assert all(text and text in (source.text or "") for text, source in zip(texts, numbered, strict=True))


def test_an_answer_that_failed_leaves_a_failed_root_and_a_search_that_did_not(index):
    with instrumented() as written, pytest.raises(RuntimeError):
        index.as_query_engine(llm=Stub(fails=True)).query("Why does bread rise?")
    spans = [span for span in read(*written()) if isinstance(span, Span)]
    assert next(span for span in spans if span.parent is None).failed
    assert [span.failed for span in outermost(spans)] == [False]


def test_a_list_whose_head_the_sdk_dropped_gets_it_back_from_the_output(index, tmp_path):
    with instrumented(max_attributes=12) as written:
        index.as_query_engine(similarity_top_k=5, llm=Stub()).query("Why does bread rise?")
    rows = written()
    lists = [row for row in rows if any(name.startswith("retrieval.documents") for name in row["attributes"])]
    assert lists and not any("retrieval.documents.0.document.id" in row["attributes"] for row in lists)
    (search,) = outermost(read(*rows))
    assert len(set(ids_of(search))) == 5 and None not in ids_of(search)
    assert [document.position for document in search.documents or ()] == [0, 1, 2, 3, 4]
    # the query went first; the span inside still has it
    assert search.query is None
    file = tmp_path / "spans.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows if row["name"].endswith("etrieve")))
    with read_traces(file) as traces:
        (logged,) = traces
    assert (logged.query, len(logged.hits)) == ("Why does bread rise?", 5)
    # without the output, the places of the rest stay what they were
    for row in rows:
        row["attributes"].pop("output.value", None)
    (search,) = outermost(read(*rows))
    assert (search.documents or ())[0].position > 0 and search.dropped and "ATTRIBUTE_COUNT_LIMIT" in search.hint


def test_hidden_texts_are_counted_and_never_taken_for_texts(index, monkeypatch):
    monkeypatch.setenv("OPENINFERENCE_HIDE_INPUTS", "true")
    monkeypatch.setenv("OPENINFERENCE_HIDE_OUTPUTS", "true")
    with instrumented() as written:
        index.as_query_engine(similarity_top_k=3, llm=Stub()).query("Why does bread rise?")
    rows = written()
    assert "__REDACTED__" in json.dumps(rows)
    (search,) = outermost(read(*rows))
    assert (search.query, [document.text for document in search.documents or ()]) == (None, [None] * 3)
    assert search.hidden and "OPENINFERENCE_HIDE" in search.hint
    assert len(ids_of(search)) == 3 and None not in ids_of(search)
    assert "REDACTED" not in repr(read(*rows)).replace(search.hint, "")


def test_cut_values_are_no_ids_no_texts_and_no_queries():
    nodes = [TextNode(text=text, metadata={"file_name": f"a_long_name_of_{name}.md"}) for name, text in TEXTS.items()]
    index = VectorStoreIndex(nodes, embed_model=Words())
    with instrumented(max_attribute_length=24) as written:
        index.as_retriever(similarity_top_k=2).retrieve("Why does sourdough bread rise at all?")
    (search,) = outermost(read(*written()))
    assert search.query is None and search.cut and "LENGTH_LIMIT" in search.hint
    assert [(document.id, document.text) for document in search.documents or ()] == [(None, None)] * 2
    # one that is longer than every id, and shorter than the texts
    with instrumented(max_attribute_length=44) as written:
        index.as_retriever(similarity_top_k=2).retrieve("Why does bread rise?")
    (search,) = outermost(read(*written()))
    assert search.query == "Why does bread rise?"
    assert all(re.fullmatch(r"[0-9a-f-]{36}", document.id or "") for document in search.documents or ())
    assert [document.text for document in search.documents or ()] == [None, None]
