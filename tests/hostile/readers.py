"""Every function that reads rows, tables or JSON that somebody else wrote; and a good file for each, to begin with.

The property of all of them: for any bytes, a result or one `PlusError` of one short line, in memory that the size of
the file bounds. `test_readers.py` holds it with drawn rows; `damage.foreign` does so for minutes with changed bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index_embed_plus.documents.reading import Source, read_passages
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries, read_query_texts, read_run
from llama_index_embed_plus.evaluate.retrieval.report import score_run
from llama_index_embed_plus.evaluate.tasks.layouts import find_tasks
from llama_index_embed_plus.evaluate.tasks.run import read_task
from llama_index_embed_plus.integrations.qa_dataset import read_qa_dataset
from qdrant_tools.collections.metadata import LLAMA_INDEX, OURS, CollectionMetadata
from qdrant_tools.debias import aggregate, clicked_as_positive, rated
from qdrant_tools.errors import PlusError
from qdrant_tools.files.json_files import read_json
from qdrant_tools.files.rows import read_rows
from qdrant_tools.indexing import content_hash
from qdrant_tools.log.columns import LogColumns
from qdrant_tools.log.readers import read_log
from qdrant_tools.metrics import measure
from qdrant_tools.mining.false_negatives import read_sheet
from qdrant_tools.mining.file import read_examples, read_stats
from qdrant_tools.monitor.canary import read_canaries
from qdrant_tools.records import Example, Passage
from qdrant_tools.sources.given import passage_of

LONGEST_MESSAGE = 500


def _blocks(path: Path) -> list[Any]:
    source = Source(path)
    blocks = [block.text for document in source for block in document.blocks]
    source.require_complete()
    return blocks


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name in a folder of its own, what reads it, and a good one."""

    name: str
    read: Callable[[Path], Any]
    good: str


def rows(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def _all(path: Path) -> None:
    for row in read_rows(path, pad=True):
        for name in list(row.values)[:5]:
            for check in (row.text, row.texts, row.number, row.numbers, row.label):
                try:
                    check(name)
                except PlusError as error:
                    require_short(error, path)


def _indexed(path: Path) -> None:
    for row in read_rows(path):
        content_hash(passage_of(row.values))


def _tasks(path: Path) -> None:
    for task in find_tasks(path.parent)[0]:
        read_task(task)


def _logged(path: Path) -> None:
    flat = path.suffix != ".jsonl"
    columns = LogColumns(query="query", search="search", hit="id") if flat else LogColumns(query="query", hits="hits")
    searches = list(read_log(path, columns))
    aggregate([*clicked_as_positive(searches), *rated(searches)])


def _judged(path: Path) -> None:
    qrels = read_qrels(path)
    run = {query: dict.fromkeys(grades, 1.0) for query, grades in qrels.items()}
    measure(qrels, run, cutoffs=(1, 10))


def _ranked(path: Path) -> None:
    score_run(read_run(path), {"q1": {"p1": 1}})


def _payloads(path: Path) -> None:
    for row in read_rows(path):
        for layout in (OURS, LLAMA_INDEX):
            layout.passage(row.values, point_id=1)
        passage = Passage.from_row(row.values)
        assert isinstance(passage.metadata, (dict,))


def _examples(path: Path) -> None:
    for example in read_examples(path):
        assert Example.from_row(example.as_row()) == example


_PASSAGE = {"id": "p1", "text": "kettle and tea", "metadata": {"source": "a", "part": 1}}
_EXAMPLE = {
    "query": "tea",
    "positives": [{"id": "p1", "text": "kettle"}],
    "negatives": [{"id": "p2", "text": "rain", "score": 0.5}],
    "weight": 2,
}
_SEARCH = {
    "id": "1",
    "query": "tea",
    "at": "2026-01-01T00:00:00Z",
    "hits": [{"id": "p1", "rank": 1, "score": 0.5, "clicked": True, "dwell": 3.5, "rating": 1}],
}
_NODE = {"_node_content": json.dumps({"text": "tea", "metadata": {"a": 1}, "metadata_template": "{key}: {value}"})}
_QA = {"queries": {"q1": "tea"}, "corpus": {"p1": "kettle"}, "relevant_docs": {"q1": ["p1"]}, "mode": "text"}
_METADATA = {
    "format": 1,
    "space": "words@000000000000",
    "dimension": 8,
    "hnsw_ef": 64,
    "lexical": {"k1": 1.2, "b": 0.75, "average_length": 100.0},
    "quantization": {"kind": "int8", "bits": 8.0, "oversampling": 2.0},
    "layout": {"name": "plain", "vector": "", "id": "", "text": "text", "metadata": "", "hidden": ["a"]},
}
_STATE = {
    "format": 3,
    "fingerprint": "a",
    "queries": 1,
    "bytes": 10,
    "stats": {"counts": {"a": 1}, "histograms": {"positives": {"1": 1}, "candidates": {}, "negatives": {}}},
}

KINDS = {
    "rows": Kind("x.jsonl", _all, rows(_PASSAGE, _EXAMPLE)),
    "table": Kind("x.csv", _all, 'id,text,score\np1,"kettle, and ""tea""",1.5\np2,"two\nlines",0\n'),
    "tabbed table": Kind("x.tsv", _all, "id\ttext\tscore\np1\tkettle\t1.5\n"),
    "passages": Kind("x.jsonl", lambda path: list(read_passages(path)), rows(_PASSAGE, {"_id": "p2", "text": "b"})),
    "passages to index": Kind("x.jsonl", _indexed, rows(_PASSAGE | {"metadata": {"x": [1, {"y": None}]}})),
    "a text": Kind("x.txt", _blocks, "one\n\ntwo\n\nthree\n"),
    "queries": Kind("x.jsonl", read_queries, rows({"id": "q1", "text": "tea"}, {"_id": "q2", "text": "rain"})),
    "query texts": Kind("x.txt", read_query_texts, "tea\nrain\n"),
    "judgements": Kind("x.tsv", _judged, "query-id\tcorpus-id\tscore\nq1\tp1\t1\nq1\tp2\t0\n"),
    "TREC's judgements": Kind("x.qrels", _judged, "q1 0 p1 1\nq1 0 p2 0\n"),
    "a run": Kind("x.trec", _ranked, "q1 Q0 p1 1 0.5 name\nq1 Q0 p2 2 0.25 name\n"),
    "examples": Kind("x.jsonl", _examples, rows(_EXAMPLE, _EXAMPLE)),
    "a sheet": Kind("x.csv", read_sheet, "query,passage_id,score,positive,passage,relevant\ntea,p1,0.5,a,b,1\n"),
    "the state of mining": Kind(
        "x.jsonl.state.json", lambda path: read_stats(path.with_name("x.jsonl")), json.dumps(_STATE)
    ),
    "canaries": Kind("x.jsonl", read_canaries, rows({"query": "tea", "expected": ["p1"], "space": ""})),
    "a log": Kind("x.jsonl", _logged, rows(_SEARCH)),
    "a flat log": Kind("x.csv", _logged, "search,query,id,rank,clicked\n1,tea,p1,1,true\n1,tea,p2,2,false\n"),
    "a data set": Kind("x.json", read_qa_dataset, json.dumps(_QA)),
    "payloads": Kind("x.jsonl", _payloads, rows(_PASSAGE, _NODE | _PASSAGE)),
    "metadata": Kind("x.json", lambda path: CollectionMetadata.from_row(read_json(path)), json.dumps(_METADATA)),
    "similarity": Kind("test.jsonl", _tasks, rows({"sentence1": "a", "sentence2": "b", "score": 1.5})),
    "pairs": Kind("test.tsv", _tasks, "premise\thypothesis\tlabel\na\tb\tentailment\n"),
    "clusters": Kind("test.csv", _tasks, "text,label\na,1\nb,2\n"),
    "candidates": Kind("test.jsonl", _tasks, rows({"query": "a", "positive": ["b"], "negative": "c"})),
    "summaries": Kind(
        "test.jsonl", _tasks, rows({"human_summaries": ["a"], "machine_summaries": ["b"], "relevance": [1.5]})
    ),
    "duplicates": Kind("test.jsonl", _tasks, rows({"text": "a", "group": 1}, {"text": "b", "group": 1})),
}


def refusal_of(kind: Kind, path: Path) -> PlusError | None:
    """Read a file; the error of ours that came, or None. Any other error goes on."""
    try:
        kind.read(path)
    except PlusError as error:
        require_short(error, path)
        return error
    return None


def require_short(error: PlusError, path: Path) -> None:
    message = str(error)
    assert len(message.replace(str(path), "")) < LONGEST_MESSAGE and "\n" not in message, message[:2000]
