"""How long and in how much memory files of spans become a log: `python benchmarks/trace_import.py --megabytes 1000`.

Writes a file of spans as OpenTelemetry's SDK does, of a RAG application (nine spans a question, passages of 600
characters, the prompt in the spans of the language model), or with `--without-retrieval` of another application; then
imports it in a process of its own. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

WORDS = [f"word{number}" for number in range(5000)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--without-retrieval", type=int, default=0, metavar="SPANS")
    parser.add_argument("--folder", type=Path, default=None, help="where the files go; a temporary folder if not given")
    parser.add_argument("--import", dest="imported", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.imported is not None:
        import_spans(arguments.imported)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        file = Path(folder) / "spans.jsonl"
        spans = write(file, arguments.megabytes, arguments.without_retrieval)
        megabytes = file.stat().st_size / 1e6
        print(f"{file}: {spans:,} spans, {megabytes:,.0f} MB")
        command = [sys.executable, __file__, "--import", str(file)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(done.stdout, end="")
        row = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps({"megabytes": round(megabytes), "spans": spans, **row}))


def write(file: Path, megabytes: int, without_retrieval: int) -> int:
    """Write spans until the file is large enough; returns their number."""
    draw = random.Random(0)
    count, size = 0, 0
    with file.open("w") as out:
        while size < megabytes * 1_000_000 if not without_retrieval else count < without_retrieval:
            trace = of_another_application(draw) if without_retrieval else of_a_question(draw)
            for row in trace:
                line = json.dumps(row) + "\n"
                out.write(line)
                size += len(line)
                count += 1
    return count


def text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words))


def span(draw: random.Random, trace: str, name: str, parent: str | None, **attributes: object) -> dict[str, object]:
    return {
        "name": name,
        "context": {"trace_id": f"0x{trace}", "span_id": f"0x{draw.getrandbits(64):016x}", "trace_state": "[]"},
        "kind": "SpanKind.INTERNAL",
        "parent_id": parent,
        "start_time": f"2026-11-{draw.randrange(1, 27):02}T10:00:00.{draw.randrange(10**6):06}Z",
        "end_time": "2026-11-27T11:00:00.000000Z",
        "status": {"status_code": "OK"},
        "attributes": attributes,
        "events": [],
        "links": [],
        "resource": {"attributes": {"service.name": "shop"}, "schema_url": ""},
    }


def of_a_question(draw: random.Random) -> Iterator[dict[str, object]]:
    """The spans of a question, children first."""
    trace, query = f"{draw.getrandbits(128):032x}", text(draw, 8)
    passages = [(f"p{draw.randrange(100_000)}", text(draw, 85)) for _ in range(5)]
    root = span(draw, trace, "RetrieverQueryEngine.query", None, **{
        "openinference.span.kind": "CHAIN", "input.value": query, "output.value": text(draw, 40),
        "session.id": f"s{draw.randrange(10_000)}", "user.id": f"u{draw.randrange(1000)}",
    })  # fmt: skip
    at = root["context"]["span_id"]  # type: ignore[index]
    documents: dict[str, object] = {}
    for place, (name, passage) in enumerate(passages):
        prefix = f"retrieval.documents.{place}.document"
        documents |= {f"{prefix}.id": name, f"{prefix}.content": passage, f"{prefix}.score": 0.9 - place / 10}
    found = span(draw, trace, "VectorIndexRetriever.retrieve", at, **{
        "openinference.span.kind": "RETRIEVER", "input.value": query, **documents,
    })  # fmt: skip
    prompt = "\n".join(passage for _, passage in passages)
    for name in ("Llm.complete", "Llm.predict", "CompactAndRefine.get_response", "CompactAndRefine.synthesize"):
        yield span(draw, trace, name, at, **{"openinference.span.kind": "LLM", "llm.prompts.0": prompt})
    vector = [draw.random() for _ in range(64)]
    for name in ("Encoder.get_query_embedding", "Encoder._get_query_embedding"):
        yield span(draw, trace, name, at, **{
            "openinference.span.kind": "EMBEDDING", "embedding.embeddings.0.embedding.vector": vector,
        })  # fmt: skip
    yield found
    yield root


def of_another_application(draw: random.Random) -> Iterator[dict[str, object]]:
    trace = f"{draw.getrandbits(128):032x}"
    root = span(draw, trace, "GET /products", None, **{"http.method": "GET", "http.route": "/products"})
    for _ in range(9):
        at = root["context"]["span_id"]  # type: ignore[index]
        yield span(draw, trace, "SELECT shop", at, **{"db.system": "postgresql", "db.statement": "SELECT 1"})
    yield root


def import_spans(file: Path) -> None:
    """Import a file into a new log beside it; prints seconds and memory as JSON."""
    from qdrant_tools import RetrievalLog
    from qdrant_tools.traces import read_traces

    before, started, done = memory(), time.perf_counter(), [0, 0.0]

    def progress(read: int) -> None:
        done[0] += read
        if time.perf_counter() - done[1] > 10:
            done[1] = time.perf_counter()
            print(f"  {done[0] / 1e6:,.0f} MB after {done[1] - started:.0f} s, {memory():.0f} MB of memory")

    with read_traces(file, progress=progress) as traces, RetrievalLog(file.with_name("log.sqlite")) as log:
        read = time.perf_counter()
        searches = log.extend(traces.searches())
    seconds = time.perf_counter() - started
    row = {"searches": searches, "seconds": round(seconds, 1), "reading": round(read - started, 1)}
    row["cpu_seconds"] = round(time.process_time(), 1)
    row |= {"memory_before": round(before), "memory_peak": round(memory("VmHWM"))}
    print(json.dumps(row))


def memory(line: str = "VmRSS") -> float:
    """Megabytes of this process."""
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    return next(int(row.split()[1]) for row in status.splitlines() if row.startswith(f"{line}:")) / 1000


if __name__ == "__main__":
    main()
