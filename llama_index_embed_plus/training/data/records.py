"""The rows that training reads, as frozen values, and `TrainingData`: a set of them of one kind.

Does not know: files, losses, models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from qdrant_tools.errors import UsageError
from qdrant_tools.mining.miner import MiningResult
from qdrant_tools.records import Example, ScoredText
from qdrant_tools.same import query_key

Kind = Literal[
    "examples",
    "pairs",
    "triplets",
    "nli",
    "judged pairs",
    "scored pairs",
    "distillation",
    "labelled texts",
    "texts",
]
"""What a file holds. The first five become examples: a query, its positives, its negatives."""

RANKING: tuple[Kind, ...] = ("examples", "pairs", "triplets", "nli", "judged pairs")


@dataclass(frozen=True)
class ScoredPair:
    """Two texts and how alike they are: a similarity, or a label 0 or 1."""

    first: str
    second: str
    score: float


@dataclass(frozen=True)
class JudgedPair:
    """A query, a passage, and a grade or a score of which nobody said from where on it is a yes."""

    query: str
    passage: ScoredText
    score: float


@dataclass(frozen=True)
class Distilled:
    """A query, its positive, and negatives with the teacher's margins: the positive's score minus the negative's.

    synthetic: nobody asked the query, it was made from the positive.
    """

    query: str
    positive: str
    negatives: tuple[str, ...]
    margins: tuple[float, ...]
    synthetic: bool = False

    def as_row(self) -> dict[str, Any]:
        """The row of a file that `read_training_data` reads."""
        row: dict[str, Any] = {"query": self.query, "positive": self.positive}
        row |= {f"negative_{i}": text for i, text in enumerate(self.negatives, start=1)}
        row |= {"margins": list(self.margins)}
        return row | {"synthetic": True} if self.synthetic else row


@dataclass(frozen=True)
class LabelledText:
    """A text and the class it belongs to."""

    text: str
    label: int


TrainingRow = Example | ScoredPair | JudgedPair | Distilled | LabelledText | str


@dataclass(frozen=True)
class TrainingData:
    """Rows of one kind.

    Judged pairs are examples where it is known which judgements say yes, and `JudgedPair` where it is not.

    left_out: rows of the file without a gold label, or that say nothing by themselves.
    ignored: fields of the file that were not read. judged_by: the field that judges, of judged pairs.
    """

    kind: Kind
    rows: tuple[TrainingRow, ...]
    left_out: int = 0
    ignored: tuple[str, ...] = ()
    judged_by: str = ""

    @classmethod
    def of(cls, rows: MiningResult | Iterable[TrainingRow]) -> TrainingData:
        """What `mine` returned, or rows of one kind: examples, pairs with scores, texts, ...

        Raises:
            UsageError: rows of several kinds.
        """
        rows = tuple(rows.examples if isinstance(rows, MiningResult) else rows)
        kinds = {_KINDS[type(row)] for row in rows} or {"examples"}  # no rows are no examples
        if len(kinds) > 1:
            raise UsageError(f"rows are of several kinds: {', '.join(sorted(kinds))}; give them one after the other")
        return cls(kinds.pop(), rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def examples(self) -> tuple[Example, ...]:
        """The rows as examples. Raises UsageError if they are something else."""
        examples = tuple(row for row in self.rows if isinstance(row, Example))
        scores = sorted({row.score for row in self.rows if isinstance(row, JudgedPair)})
        if scores:
            raise UsageError(
                f"{self.judged_by or 'the judgement'} goes from {scores[0]:g} to {scores[-1]:g}, and from where on it "
                "says yes is not known: state it with relevant_from (--relevant-from), or train on the scores with "
                "cosent, cosine_similarity or margin_mse"
            )
        if len(examples) < len(self.rows):
            raise UsageError(f"the data is {self.kind}, expected queries with positives: {', '.join(RANKING)}")
        return examples

    def unweighted(self) -> TrainingData:
        """The same examples, each of weight 1."""
        return replace(self, rows=tuple(replace(example, weight=1.0) for example in self.examples))

    def with_negatives(self) -> TrainingData:
        """Only the examples that have negatives; the others are counted in `left_out`."""
        kept = tuple(example for example in self.examples if example.negatives)
        return replace(self, rows=kept, left_out=self.left_out + len(self.rows) - len(kept))

    def positives_by_query(self) -> dict[str, list[str]]:
        """Query -> the texts of all its positives, for `batches.batch_sampler`; {} if the rows have no queries.

        Spellings of one query (`same.query_key`) are under the first of them.
        """
        positives: dict[str, list[str]] = {}
        spelling: dict[str, str] = {}
        for row in self.rows:
            if isinstance(row, Example):
                query = spelling.setdefault(query_key(row.query), row.query)
                positives.setdefault(query, []).extend(positive.text for positive in row.positives)
        return positives

    def passage_ids(self) -> dict[str, str]:
        """Text -> passage id, for `batches.batch_sampler`."""
        examples = [row for row in self.rows if isinstance(row, Example)]
        # positives last: a text that is both keeps the id of the positive
        return {text.text: text.id for example in examples for text in (*example.negatives, *example.positives)}


def passage_of(text: str) -> ScoredText:
    """A passage that came without an id: its id is a hash of its text."""
    return ScoredText(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32], text)


_KINDS: dict[type, Kind] = {
    Example: "examples",
    ScoredPair: "scored pairs",
    JudgedPair: "judged pairs",
    Distilled: "distillation",
    LabelledText: "labelled texts",
    str: "texts",
}
