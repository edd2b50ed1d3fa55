"""The plain values that cross module borders: passages, queries, hits, labels, examples, held-out queries.

Guarantees: frozen, comparable, JSON-ready through `as_row()` / `from_row()` where they have a file format.
Does not know: engines, encoders, files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qdrant_tools.errors import InputError, brief
from qdrant_tools.same import query_key

__all__ = [
    "Encoder",
    "Example",
    "HeldOut",
    "Hit",
    "Label",
    "LimitedEncoder",
    "Passage",
    "Progress",
    "Qrels",
    "Query",
    "Run",
    "ScoredText",
    "Vectors",
]

Vectors = NDArray[np.float32]
"""(n, dimension), float32, one vector per row."""

ScoredIds = tuple[Sequence[str | int], NDArray[np.float32]]
"""Ids and their scores (n,), best first. An engine may make an id only when it is read."""

Progress = Callable[[int], None]
"""Called with the number of items finished since the last call."""

Qrels = Mapping[str, Mapping[str, int]]
"""query id -> passage id -> relevance grade; grade 0 is judged and not relevant."""

Run = Mapping[str, Mapping[str, float]]
"""query id -> passage id -> score, the larger the better."""


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into unit vectors of one space. The only bridge between text and vectors in this package."""

    @property
    def dimension(self) -> int: ...

    @property
    def space(self) -> str:
        """Identity of the vector space, `name@12hex`. Vectors of different spaces must never be compared."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors: ...

    def encode_passages(self, texts: Sequence[str]) -> Vectors: ...


@runtime_checkable
class ComparingEncoder(Protocol):
    """What an encoder may offer beside: it knows how its model embeds texts that are compared with their like."""

    def encode_compared(self, texts: Sequence[str], task: str = "similarity") -> Vectors:
        """Embed texts of one kind; `task` says what they are compared for. No adapter of queries touches them."""
        ...


def encode_compared(encoder: Encoder, texts: Sequence[str], task: str = "similarity") -> Vectors:
    """Embed texts that are compared with their like as the model of `encoder` does, else as passages."""
    if isinstance(encoder, ComparingEncoder):
        return encoder.encode_compared(texts, task)
    return encoder.encode_passages(texts)


@runtime_checkable
class LimitedEncoder(Protocol):
    """What an encoder may offer beside: it knows how much of a passage it reads."""

    def cut(self, passage: Passage) -> Iterable[Passage]:
        """The passage itself if all of it is read, else parts of which that is true."""
        ...

    def count_overlong(self, texts: Sequence[str]) -> int:
        """How many of these passages are longer than what is read of them."""
        ...


@dataclass(frozen=True)
class Passage:
    """One text to be found. Row: `{"id", "text", "metadata"}`."""

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        return {"id": self.id, "text": self.text, "metadata": dict(self.metadata)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Passage:
        metadata = row.get("metadata") or {}
        if not isinstance(metadata, Mapping):
            raise InputError(f"row field 'metadata' is {brief(metadata)}, expected an object")
        return cls(_text(row, "id"), _text(row, "text"), metadata)


@dataclass(frozen=True)
class Query:
    """One question. Row: `{"id", "text"}`."""

    id: str
    text: str

    def as_row(self) -> dict[str, Any]:
        return {"id": self.id, "text": self.text}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Query:
        return cls(_text(row, "id"), _text(row, "text"))


@dataclass(frozen=True)
class Hit:
    """One search result. `rank` starts at 1; `id` is the passage id, `point_id` what the engine calls the point."""

    id: str
    score: float
    rank: int
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    point_id: str | int = ""


SYNTHETIC = "synthetic"
"""The evidence of labels whose query was made from the passage: nobody asked it."""


@dataclass(frozen=True)
class Label:
    """A judgement about one (query, passage) pair, with what it rests on.

    `weight` > 0 says relevant, and how surely; `weight` <= 0 says not relevant. `evidence` names the rule.
    Examples that are mined of labels with no other evidence than `SYNTHETIC` are synthetic.
    `debiased`: for a click, its weight by the inverse of how likely its rank was looked at; None: not known.
    """

    query: str
    passage_id: str
    weight: float = 1.0
    evidence: str = ""
    debiased: float | None = None


CLICKS, RATINGS, ANSWERS, SAMPLE = "clicks", "ratings", "answers", "sample"
"""Where judgements come from: clicks and ratings on what a search had shown, what was said of answers that were made of
it, and a judged sample of passages."""
FEEDBACK = (CLICKS, ANSWERS, RATINGS)
"""Those about what a search had shown, the least certain first."""


@dataclass(frozen=True)
class ScoredText:
    """A passage inside a training example. `score` is its similarity to the query when it was mined; `debiased` is that
    of its `Label`."""

    id: str
    text: str
    score: float | None = None
    debiased: float | None = None


@dataclass(frozen=True)
class Example:
    """One training example: a query, what answers it, and what looks as if it did but does not.

    Row: `{"query","positives":[{"id","text"}],"negatives":[{"id","text","score"}],"weight"}`, and `"synthetic": true`
    if nobody asked the query: it was made from the passage. `evidence` ("clicks", "ratings", "answers") says which
    feedback calls the positives answers, and a positive may have `"debiased"`.
    """

    query: str
    positives: tuple[ScoredText, ...]
    negatives: tuple[ScoredText, ...] = ()
    weight: float = 1.0
    synthetic: bool = False
    evidence: str = ""

    def as_row(self) -> dict[str, Any]:
        row = {
            "query": self.query,
            "positives": [
                {"id": p.id, "text": p.text} | ({} if p.debiased is None else {"debiased": p.debiased})
                for p in self.positives
            ],
            "negatives": [{"id": n.id, "text": n.text, "score": n.score} for n in self.negatives],
            "weight": self.weight,
        }
        row |= {"synthetic": True} if self.synthetic else {}
        return row | {"evidence": self.evidence} if self.evidence else row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Example:
        def texts(key: str) -> tuple[ScoredText, ...]:
            rows = row.get(key, ())
            if not isinstance(rows, (list, tuple)) or not all(isinstance(entry, Mapping) for entry in rows):
                raise InputError(f"row field {key!r} is {brief(rows)}, expected a list of objects with 'id' and 'text'")
            return tuple(
                ScoredText(_text(r, "id"), _text(r, "text"), _score(r.get("score")), _score(r.get("debiased")))
                for r in rows
            )

        weight, synthetic = _finite(row.get("weight", 1.0), "weight"), row.get("synthetic", False)
        if not isinstance(synthetic, bool):
            raise InputError(f"row field 'synthetic' is {brief(synthetic)}, expected true or false")
        evidence = row.get("evidence", "")
        if evidence not in ("", *FEEDBACK):
            raise InputError(f"row field 'evidence' is {brief(evidence)}, expected one of {FEEDBACK}, or none")
        return cls(_text(row, "query"), texts("positives"), texts("negatives"), weight, synthetic, evidence)


@dataclass(frozen=True)
class HeldOut:
    """Queries that no training may see, their judgements, and the passages to search.

    Without `passages`, those of a collection are searched: give the collection where this is used. Ids are unique, and
    at least one query has a relevant passage, so that there is something to measure.

    synthetic: nobody asked the queries, they were made from passages. What is proved on them is labelled so.
    evidence: where the judgements come from. `CLICKS`, `RATINGS` and `ANSWERS` are about what a search had shown, and
        favour what ranked it; `SAMPLE` is a sample of passages that a person judged; "" says nothing.
    weights: query id -> passage id -> how much its answer counts: a click by the inverse of how likely its rank was
        looked at, a passage of a sample by the inverse of how likely it was drawn. Empty: not known.

    Raises:
        InputError: an id stands twice, or no query has a relevant passage.
    """

    queries: tuple[Query, ...]
    qrels: Qrels
    passages: tuple[Passage, ...] = ()
    synthetic: bool = False
    evidence: str = ""
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind, items in (("queries", Query, self.queries), ("passages", Passage, self.passages)):
            odd = [item for item in items if not isinstance(item, kind)]
            if odd:
                raise InputError(f"held-out {name} hold {brief(odd[0])}, expected a {kind.__name__}")
        for name, ids in (("queries", [q.id for q in self.queries]), ("passages", [p.id for p in self.passages])):
            repeated = [item for item, count in Counter(ids).items() if count > 1]
            if repeated:
                raise InputError(f"held-out {name} contain the id {brief(repeated[0])} twice: every id names one thing")
        if not self.answerable:
            raise InputError(
                f"none of the {len(self.queries)} held-out queries has a relevant passage in the {len(self.qrels)} "
                "judgements: check that query ids and judgements belong together"
            )

    @property
    def answerable(self) -> tuple[Query, ...]:
        """The queries that have a passage of grade 1 or more: only they can show a difference."""
        return tuple(query for query in self.queries if any(g > 0 for g in self.qrels.get(query.id, {}).values()))

    @property
    def measured(self) -> tuple[Query, ...]:
        """The queries whose values enter a mean: those that are `answerable`; of a sample, all that it was drawn of."""
        return self.queries if self.evidence == SAMPLE else self.answerable

    @property
    def relevant(self) -> frozenset[str]:
        """The ids of all passages that answer a held-out query."""
        return frozenset(
            passage for query in self.queries for passage, grade in self.qrels.get(query.id, {}).items() if grade > 0
        )

    @classmethod
    def of_examples(cls, examples: Sequence[Example], *, passages: Iterable[Passage] = ()) -> HeldOut:
        """Hold examples out: their positives are the answers. Spellings of one query (`same.query_key`) become one with
        the answers of all. Synthetic examples are held out only if there are no real ones.

        `passages` are searched beside the positives of the examples. With none at all, give a collection instead.
        """
        queries: dict[str, Query] = {}
        qrels: dict[str, dict[str, int]] = {}
        weights: dict[str, dict[str, float]] = {}
        real = [example for example in examples if not example.synthetic]
        synthetic, examples = bool(examples) and not real, real or examples
        for example in examples:
            query = queries.setdefault(query_key(example.query), Query(f"heldout-{len(queries)}", example.query))
            qrels.setdefault(query.id, {}).update({positive.id: 1 for positive in example.positives})
            debiased = {p.id: p.debiased for p in example.positives if p.debiased is not None}
            weights.setdefault(query.id, {}).update(debiased)
        corpus = {passage.id: passage for passage in passages}
        if corpus:
            for example in examples:
                # a passage that was given keeps its own text and metadata
                corpus.update({p.id: Passage(p.id, p.text) for p in example.positives if p.id not in corpus})
        kinds = {example.evidence for example in examples}
        # one answer without feedback behind it, and the whole is no log any more
        evidence = "" if "" in kinds else next((kind for kind in FEEDBACK if kind in kinds), "")
        known = weights if all(qrels[name].keys() == weights[name].keys() for name in qrels) else {}
        return cls(tuple(queries.values()), qrels, tuple(corpus.values()), synthetic, evidence, known)


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise InputError(f"row field {key!r} is {brief(value)}, expected a string; fields here: {brief(sorted(row))}")
    return value


def _score(value: Any) -> float | None:
    return None if value is None else _finite(value, "score")


def _finite(value: Any, key: str) -> float:
    try:
        number = float(value) if not isinstance(value, bool) and isinstance(value, Real) else math.nan
    except OverflowError:  # an integer beyond what a float holds
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"row field {key!r} is {brief(value)}, expected a finite number")
    return number
