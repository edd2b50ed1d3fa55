"""The JSON file of `EmbeddingQAFinetuneDataset` (llama-index-finetuning) -> logged searches, and examples -> that file.

The file has `queries` (id -> text), `corpus` (id -> text), `relevant_docs` (query id -> list of ids) and `mode`.

Guarantees: what is written can be read back. Negatives have no place in this format and are left out. Does not know:
LlamaIndex itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from qdrant_tools.errors import LogError
from qdrant_tools.log.readers import modified
from qdrant_tools.log.records import Feedback, LoggedSearch
from qdrant_tools.records import Example, Passage


def read_qa_dataset(path: str | Path) -> Iterator[LoggedSearch]:
    """One search per query, its relevant documents rated 1: for `RetrievalLog.extend` and `debias.rated`.

    Raises:
        LogError: not such a file.
    """
    file = Path(path)
    queries, _, relevant = _read(file)
    at = modified(file)
    for query_id, text in queries.items():
        events = tuple(Feedback(str(passage), "rating", 1.0, at) for passage in relevant.get(query_id, ()))
        yield LoggedSearch(str(query_id), at, str(text), feedback=events)


def read_qa_passages(path: str | Path) -> Iterator[Passage]:
    """The corpus of the file, to be indexed."""
    _, corpus, _ = _read(Path(path))
    yield from (Passage(str(passage_id), str(text)) for passage_id, text in corpus.items())


def write_qa_dataset(examples: Iterable[Example], path: str | Path) -> int:
    """Write queries and positives; returns the number of queries. Examples of one query become one."""
    queries: dict[str, str] = {}
    corpus: dict[str, str] = {}
    relevant: dict[str, list[str]] = {}
    for example in examples:
        query_id = hashlib.sha256(example.query.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        queries[query_id] = example.query
        corpus.update((positive.id, positive.text) for positive in example.positives)
        known = relevant.setdefault(query_id, [])
        known.extend(positive.id for positive in example.positives if positive.id not in known)
    row = {"queries": queries, "corpus": corpus, "relevant_docs": relevant, "mode": "text"}
    Path(path).write_text(json.dumps(row, indent=4), encoding="utf-8")
    return len(queries)


def _read(path: Path) -> tuple[dict[str, str], dict[str, str], dict[str, list[str]]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return dict(data["queries"]), dict(data["corpus"]), dict(data["relevant_docs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LogError(
            f"{path} is not an EmbeddingQAFinetuneDataset (queries, corpus, relevant_docs): {error}"
        ) from error
