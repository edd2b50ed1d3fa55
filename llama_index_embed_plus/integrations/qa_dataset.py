"""LlamaIndex's question-answer data sets and retrievers -> our queries, judgements, passages and reports.

`EmbeddingQAFinetuneDataset` of llama-index-finetuning has `queries` and `corpus` (id -> text), `relevant_docs` (query
id -> list of ids) and `mode`. `QADataset` is the same as one value: read from an object or a JSON file, written to a
file, and turned into training examples or logged searches. The format has no grades and no metadata: a
passage with a grade above 0 is an entry of the list, and passages are written without their metadata.

Guarantees: what is written can be read back; the `hit_rate` and `mrr` that `RetrieverEvaluator` reports for a query are
our `hit_rate@k` and `mrr@k` for a retriever of k nodes. Does not import LlamaIndex: a retriever is whatever has its
`retrieve`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from llama_index_embed_plus.evaluate.retrieval.report import (
    IdenticalIds,
    RetrievalReport,
    own_passages,
    score_run,
    texts_by_id,
)
from qdrant_tools.errors import InputError, brief, first_line
from qdrant_tools.files.json_files import read_json
from qdrant_tools.files.written import write_text
from qdrant_tools.log.records import Feedback, LoggedSearch
from qdrant_tools.records import Example, Passage, Qrels, Query, ScoredText

MOST_BYTES = 1 << 25
"""Of a file: all of it is in memory at once, several times over."""


class QADatasetLike(Protocol):
    """The fields of `EmbeddingQAFinetuneDataset` that are used."""

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant_docs: dict[str, list[str]]


class RetrieverLike(Protocol):
    """The method of LlamaIndex's retrievers that is used."""

    def retrieve(self, str_or_query_bundle: Any) -> Sequence[Any]: ...


@dataclass(frozen=True)
class QADataset:
    """Queries, their judgements, and all passages."""

    queries: tuple[Query, ...]
    qrels: Qrels
    passages: tuple[Passage, ...]
    unknown_passages: int = 0
    """Number of relevant ids that the corpus does not have."""

    def as_row(self) -> dict[str, Any]:
        """Return the fields for `EmbeddingQAFinetuneDataset(**dataset.as_row())`."""
        return {
            "queries": {query.id: query.text for query in self.queries},
            "corpus": {passage.id: passage.text for passage in self.passages},
            "relevant_docs": {query.id: self._relevant(query) for query in self.queries},
            "mode": "text",
        }

    def examples(self) -> Iterator[Example]:
        """Yield an example without negatives for each query that has a relevant passage.

        Raises:
            InputError: a relevant passage is not in the corpus.
        """
        texts = {passage.id: passage.text for passage in self.passages}
        for query in self.queries:
            relevant = self._relevant(query)
            missing = next((passage for passage in relevant if passage not in texts), None)
            if missing is not None:
                raise InputError(f"query {brief(query.id)} is answered by {brief(missing)}, which is not in the corpus")
            if relevant:
                yield Example(query.text, tuple(ScoredText(passage, texts[passage]) for passage in relevant))

    def searches(self, at: datetime) -> Iterator[LoggedSearch]:
        """Yield a search for each query, its relevant passages rated 1, for `RetrievalLog.extend`."""
        for query in self.queries:
            ratings = tuple(Feedback(passage, "rating", 1.0, at) for passage in self._relevant(query))
            yield LoggedSearch(query.id, at, query.text, feedback=ratings)

    def _relevant(self, query: Query) -> list[str]:
        return [passage for passage, grade in self.qrels.get(query.id, {}).items() if grade > 0]


def from_qa_dataset(dataset: QADatasetLike | Mapping[str, Any]) -> QADataset:
    """Read a data set object, or the object in its JSON file. Every relevant passage has grade 1.

    Raises:
        InputError: a field is missing or is not what the format says, or relevant ids are of an unknown query.
    """
    get = dataset.get if isinstance(dataset, Mapping) else lambda name: getattr(dataset, name, None)
    queries, corpus, relevant = (_mapping(get(name), name) for name in ("queries", "corpus", "relevant_docs"))
    for name, texts in (("queries", queries), ("corpus", corpus)):
        bad = next((key for key, text in texts.items() if not isinstance(text, str) or not text.strip()), None)
        if bad is not None:
            raise InputError(f"{name}[{brief(bad)}] is {brief(texts[bad])}, expected a non-empty text")
    for query, ids in relevant.items():
        if query not in queries:
            raise InputError(
                f"relevant_docs has the query {brief(query)}, which is not among the {len(queries)} queries"
            )
        if not isinstance(ids, list) or not all(isinstance(passage, str) for passage in ids):
            raise InputError(f"relevant_docs[{brief(query)}] is {brief(ids)}, expected a list of ids")
    return QADataset(
        tuple(Query(key, text) for key, text in queries.items()),
        {query: dict.fromkeys(ids, 1) for query, ids in relevant.items()},
        tuple(Passage(key, text) for key, text in corpus.items()),
        unknown_passages=sum(passage not in corpus for ids in relevant.values() for passage in ids),
    )


def read_qa_dataset(path: str | Path) -> QADataset:
    """Read the JSON file that `EmbeddingQAFinetuneDataset.save_json` writes, of 32 MB at most.

    A larger one of your own goes to `from_qa_dataset(EmbeddingQAFinetuneDataset.from_json(path))`.

    Raises:
        InputError: no such file, or not such a file, or a larger one.
    """
    try:
        return from_qa_dataset(read_json(Path(path), most=MOST_BYTES, unique=True))
    except (OSError, InputError) as error:
        raise InputError(
            f"{path} is not an EmbeddingQAFinetuneDataset (queries, corpus, relevant_docs): {first_line(error)}"
        ) from error


def write_qa_dataset(
    path: str | Path, queries: Sequence[Query], qrels: Qrels, passages: Iterable[Passage]
) -> QADataset:
    """Write the JSON file that `EmbeddingQAFinetuneDataset.from_json` reads.

    Raises:
        InputError: a query id occurs twice.
        UsageError: the file cannot be written.
    """
    # for its check that no id occurs twice
    texts_by_id(queries)
    dataset = QADataset(tuple(queries), qrels, tuple(passages))
    write_text(path, json.dumps(dataset.as_row(), indent=4, ensure_ascii=False))
    return dataset


def evaluate_retriever(
    retriever: RetrieverLike,
    queries: Sequence[Query],
    qrels: Qrels,
    *,
    k: int | Sequence[int] = 10,
    name: str = "",
    identical_ids: IdenticalIds = "auto",
) -> RetrievalReport:
    """Ask a LlamaIndex retriever every judged query and score its nodes by their ids, in the order it gives them.

    The retriever decides how many nodes it returns (`similarity_top_k`). A cutoff beyond that sees no more of them.
    Of several nodes with one id the first counts.

    identical_ids: what becomes of a node that has the id of the query; see `IdenticalIds`.
    Raises:
        InputError: as in `score_run`.
    """
    run: dict[str, dict[str, float]] = {}
    own: set[str] = set()
    for query in queries:
        if qrels.get(query.id):
            hits = retriever.retrieve(query.text)
            itself = {hit.node.node_id: _text_of(hit.node) for hit in hits if hit.node.node_id == query.id}
            ignored = own_passages({query.id: query.text}, itself, qrels, identical_ids)
            own |= ignored
            ids = dict.fromkeys(hit.node.node_id for hit in hits if hit.node.node_id not in ignored)
            # by rank: a retriever's own scores may be distances, or missing
            run[query.id] = {node: 1.0 / rank for rank, node in enumerate(ids, start=1)}
    return score_run(run, qrels, queries=queries, k=k, name=name, identical_ids="keep", ignored=own)


def _text_of(node: Any) -> str | None:
    text = getattr(node, "text", None)
    return text if isinstance(text, str) else None


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {brief(value)}, expected an object: id -> text, or query id -> list of ids")
    return value
