"""From traces of a RAG application to a better encoder: nothing but the files that its tracing writes already.

    python examples/traced_pipeline.py [FOLDER] [DOCUMENTS]

A LlamaIndex query engine answers questions about the documentation of Python's standard library. OpenInference's
instrumentation writes what it does as spans into `FOLDER/spans.jsonl`, and users give thumbs to some answers, which lie
in `FOLDER/annotations.csv` as Phoenix exports them. What follows is `embed-plus improve`, in Python.

Three things stand for others here: a language model that repeats sentences, of the right passage in 4 of 5 cases where
that is in the prompt; users who like an answer if it was made from the right passage, and 1 in 10 of them errs; and a
file instead of Phoenix. Needs openinference-instrumentation-llama-index and opentelemetry-sdk.
"""

from __future__ import annotations

import csv
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from openinference.instrumentation import TraceConfig, using_attributes
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from llama_index_embed_plus import PlusEmbedding, PlusVectorStore, export_onnx, open_encoder
from llama_index_embed_plus.demo import load_docstrings
from llama_index_embed_plus.evaluate import HeldOut, write_qrels, write_queries
from llama_index_embed_plus.training import improve
from qdrant_tools import CollectionManager, Query, RetrievalLog, connect
from qdrant_tools.traces import TraceSettings, read_traces

PASSAGES_IN_PROMPT = 10
MISREAD = 0.2
"""The share of answers that are not made from the right passage although it is there."""
NOISE = 0.1
"""The share of thumbs that say the opposite of what was meant."""


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{3,}", text.lower()))


class Reader(CustomLLM):
    """Answers with two sentences of a passage of the prompt, those that share most words with the question."""

    right: dict[str, list[str]]
    """What a real model finds out by reading: the texts that answer a question."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=100_000, num_output=256, model_name="reader")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        context, _, asked = prompt.partition("Query: ")
        question = asked.partition("\n")[0]
        found = [text for text in self.right.get(question, ()) if text.strip() in context]
        if found and random.Random(question).random() >= MISREAD:
            context = found[0]
        sentences = [part.strip() for part in re.split(r"(?<=[.!?])\s|\n", context) if len(part.split()) > 4]
        shared = [len(words(question) & words(sentence)) for sentence in sentences]
        best = shared.index(max(shared)) if shared else 0
        return CompletionResponse(text=" ".join(sentences[best : best + 2]) or "I do not know.")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
        yield self.complete(prompt, formatted, **kwargs)


class Traced(SimpleSpanProcessor):
    """Writes spans as lines of JSON, and remembers the last root: what Phoenix shows, and people put thumbs on."""

    root = ""

    def on_end(self, span: ReadableSpan) -> None:
        super().on_end(span)
        if span.parent is None and span.context is not None:
            self.root = f"{span.context.span_id:016x}"


def run_application(
    questions: Sequence[Query],
    right: Mapping[str, Mapping[str, int]],
    reader: Reader,
    store: PlusVectorStore,
    folder: Path,
) -> None:
    """Ask every question once. Nothing of this knows that an encoder will be trained."""
    engine = VectorStoreIndex.from_vector_store(store).as_query_engine(llm=reader, similarity_top_k=PASSAGES_IN_PROMPT)
    draw = random.Random(0)
    with (
        (folder / "spans.jsonl").open("w", encoding="utf-8") as spans,
        (folder / "annotations.csv").open("w", encoding="utf-8", newline="") as annotations,
    ):
        exporter = ConsoleSpanExporter(out=spans, formatter=lambda span: span.to_json(indent=None) + "\n")
        processor, provider = Traced(exporter), TracerProvider()
        provider.add_span_processor(processor)
        LlamaIndexInstrumentor().instrument(
            tracer_provider=provider,
            config=TraceConfig(hide_embeddings_vectors=True),  # they are most of the bytes, and nobody reads them
        )
        rows = csv.writer(annotations)
        rows.writerow(["span_id", "annotation_name", "annotator_kind", "identifier", "result.label", "result.score"])
        try:
            for number, query in enumerate(questions):
                user = f"user-{draw.randrange(50)}"
                with using_attributes(session_id=f"{user}-{number // 200}", user_id=user):
                    answer = engine.query(query.text)
                made_from = [
                    node.node.node_id for node in answer.source_nodes if str(answer).split(". ")[0] in node.text
                ]
                liked = any(passage in right[query.id] for passage in made_from)
                if draw.random() < NOISE:
                    liked = not liked
                rows.writerow(
                    [
                        processor.root,
                        "user_feedback",
                        "HUMAN",
                        user,
                        "thumbs-up" if liked else "thumbs-down",
                        int(liked),
                    ]
                )
        finally:
            LlamaIndexInstrumentor().uninstrument()


def main(folder: Path, documents: int | None) -> None:
    corpus, model = load_docstrings(limit=documents), folder / "model"
    if not model.exists():
        export_onnx("all-MiniLM-L6-v2", model, precision="int8")  # serves without torch
    Settings.embed_model = PlusEmbedding(str(model))
    with closing(PlusVectorStore.from_location(folder / "qdrant", "docs", Settings.embed_model)) as store:
        store.collection.index(corpus.passages)
        texts, right = {passage.id: passage.text for passage in corpus.passages}, corpus.train.qrels
        reader = Reader(right={query.text: [texts[one] for one in right[query.id]] for query in corpus.train.queries})
        run_application(corpus.train.queries, right, reader, store, folder)

    judged = HeldOut(corpus.held_out.queries, corpus.held_out.qrels)  # questions that nobody asked the application
    write_queries(folder / "queries.jsonl", judged.queries)
    write_qrels(folder / "qrels.tsv", judged.qrels)

    # From here on: embed-plus improve docs --traces spans.jsonl --annotations annotations.csv --thumb user_feedback \
    #     --queries queries.jsonl --qrels qrels.tsv --out better. Without judged queries the last sessions decide.
    docs = CollectionManager(connect(folder / "qdrant")).open("docs", open_encoder(model))
    files, named = [folder / "spans.jsonl", folder / "annotations.csv"], TraceSettings(thumb="user_feedback")
    with read_traces(files, named, collection=docs) as traces, RetrievalLog(folder / "log.sqlite") as log:
        log.extend(traces.searches())
        report = improve(docs, log, folder / "better", base=model, held_out=judged)
    print("\n".join(traces.report.lines()))
    print(f"labels of {report.train_queries} queries, by rule: {dict(report.rules)}; without: {dict(report.refused)}")
    print(f"decided by {report.decide_queries} queries that nobody asked")
    print("may be promoted:" if report.promotable else "not to be promoted:", report.verdict)


if __name__ == "__main__":
    count = int(sys.argv[2]) if len(sys.argv) > 2 else None
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), count)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder), count)
