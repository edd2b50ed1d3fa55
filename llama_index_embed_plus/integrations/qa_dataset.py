"""LlamaIndex's retrievers and question-answer data sets <-> our queries, judgements, passages and reports.

The data set is `EmbeddingQAFinetuneDataset` of llama-index-finetuning, as an object or as its JSON file: `queries`
and `corpus` (id -> text), `relevant_docs` (query id -> list of ids), `mode`. It knows relevant and nothing else: our
grades above 0 become members of the list, the others are not in it, and passages have no metadata.

Guarantees: what `RetrieverEvaluator` reports as `hit_rate` and `mrr` of a query is our `hit_rate@k` and `mrr@k` for a
retriever of k nodes. Does not import LlamaIndex: a retriever is whatever has its `retrieve`.

The JSON file of `EmbeddingQAFinetuneDataset` (llama-index-finetuning) -> logged searches, and examples -> that file.

The file has `queries` (id -> text), `corpus` (id -> text), `relevant_docs` (query id -> list of ids) and `mode`.

Guarantees: what is written can be read back. Negatives have no place in this format and are left out. Does not know:
LlamaIndex itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llama_index_embed_plus.evaluate.retrieval.report import RetrievalReport, report_of, texts_by_id
from qdrant_tools.errors import InputError, LogError
from qdrant_tools.files import written_whole
from qdrant_tools.log.readers import modified
from qdrant_tools.log.records import Feedback, LoggedSearch
from qdrant_tools.records import Example, Passage, Qrels, Query


class QADatasetLike(Protocol):
    """What `EmbeddingQAFinetuneDataset` has."""

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant_docs: dict[str, list[str]]


class RetrieverLike(Protocol):
    """What LlamaIndex's retrievers have."""

    def retrieve(self, str_or_query_bundle: Any) -> Sequence[Any]: ...


@dataclass(frozen=True)
class QADataset:
    """Queries, what answers them, and all passages."""

    queries: tuple[Query, ...]
    qrels: Qrels
    passages: tuple[Passage, ...]
    unknown_passages: int = 0
    """Relevant ids that the corpus does not have."""

    def as_row(self) -> dict[str, Any]:
        """The fields of `EmbeddingQAFinetuneDataset`: `EmbeddingQAFinetuneDataset(**data.as_row())` makes one."""
        return {
            "queries": {query.id: query.text for query in self.queries},
            "corpus": {passage.id: passage.text for passage in self.passages},
            "relevant_docs": {
                query.id: [passage for passage, grade in self.qrels.get(query.id, {}).items() if grade > 0]
                for query in self.queries
            },
            "mode": "text",
        }


def from_qa_dataset(dataset: QADatasetLike | Mapping[str, Any]) -> QADataset:
    """Read a data set object, or the object in its JSON file. Every relevant passage has grade 1.

    Raises:
        InputError: a field is missing or is not what the format says, or relevant ids are of an unknown query.
    """
    get = dataset.get if isinstance(dataset, Mapping) else lambda name: getattr(dataset, name, None)
    queries, corpus, relevant = (_mapping(get(name), name) for name in ("queries", "corpus", "relevant_docs"))
    for name, texts in (("queries", queries), ("corpus", corpus)):
        odd = next((each for each, text in texts.items() if not isinstance(text, str) or not text.strip()), None)
        if odd is not None:
            raise InputError(f"{name}[{odd!r}] is {texts[odd]!r}, expected a non-empty text")
    for query, ids in relevant.items():
        if query not in queries:
            raise InputError(f"relevant_docs has the query {query!r}, which is not among the {len(queries)} queries")
        if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
            raise InputError(f"relevant_docs[{query!r}] is {ids!r}, expected a list of ids")
    return QADataset(
        tuple(Query(name, text) for name, text in queries.items()),
        {query: dict.fromkeys(ids, 1) for query, ids in relevant.items()},
        tuple(Passage(name, text) for name, text in corpus.items()),
        unknown_passages=sum(each not in corpus for ids in relevant.values() for each in ids),
    )


def read_qa_dataset(path: Path) -> QADataset:
    """Read the JSON file that `EmbeddingQAFinetuneDataset.save_json` writes.

    Raises:
        InputError: no such file, or not such a file.
    """
    try:
        return from_qa_dataset(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not an EmbeddingQAFinetuneDataset: {error}") from error


def write_qa_dataset(path: Path, queries: Sequence[Query], qrels: Qrels, passages: Iterable[Passage]) -> QADataset:
    """Write the JSON file that `EmbeddingQAFinetuneDataset.from_json` reads.

    Raises:
        InputError: a query id occurs twice.
    """
    texts_by_id(queries)
    data = QADataset(tuple(queries), qrels, tuple(passages))
    with written_whole(path) as draft:
        draft.write_text(json.dumps(data.as_row(), indent=4, ensure_ascii=False), encoding="utf-8")
    return data


def evaluate_retriever(
    retriever: RetrieverLike,
    queries: Sequence[Query],
    qrels: Qrels,
    *,
    k: int | Sequence[int] = 10,
    name: str = "",
) -> RetrievalReport:
    """Ask a LlamaIndex retriever every judged query and score its nodes by their ids, in the order it gives them.

    The retriever decides how many nodes it returns (`similarity_top_k`): a cutoff beyond that sees no more of them.
    Of several nodes with one id the first counts.

    Raises:
        InputError: as in `report_of`.
    """
    run: dict[str, dict[str, float]] = {}
    for query in queries:
        if qrels.get(query.id):
            found = dict.fromkeys(hit.node.node_id for hit in retriever.retrieve(query.text))
            run[query.id] = {node: 1.0 / rank for rank, node in enumerate(found, start=1)}
    return report_of(run, qrels, queries=queries, k=k, name=name)


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {value!r}, expected an object: id -> text, or query id -> list of ids")
    return value


def read_qa_searches(path: str | Path) -> Iterator[LoggedSearch]:
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


def write_qa_examples(examples: Iterable[Example], path: str | Path) -> int:
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
