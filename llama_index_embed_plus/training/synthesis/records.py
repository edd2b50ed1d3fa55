"""The plain values of synthesis: its settings, the queries it makes, and what it reports.

Does not know: collections, texts, language models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from qdrant_tools.errors import UsageError
from qdrant_tools.mining.rules import MiningSettings
from qdrant_tools.records import Example
from qdrant_tools.validation import checked_count, checked_number

Rule = Literal["faq", "titles", "headings", "docstrings", "links", "first-sentences"]
RULES: tuple[Rule, ...] = get_args(Rule)
"""All rules, those whose queries look most like a person's first."""
GENERATED = "generated"
"""The rule of a query that a language model wrote."""


@dataclass(frozen=True)
class SynthesisSettings:
    """Which queries are made, how many, and which of them are kept."""

    rules: tuple[Rule, ...] = RULES
    """None of them: only what a language model generates."""
    limit: int | None = 10_000
    """Examples in all, spread over the documents. None: as many as there are."""
    per_document: int | None = None
    """Examples per document, at most."""
    min_words: int = 2
    max_words: int = 32
    """Of a query. Two characters of a script without spaces count as a word."""
    within: int | None = 20
    """A query is kept if the collection's search has its passage among so many hits. None: it is not searched."""
    similarity: float = 0.95
    """Two queries whose vectors have at least this cosine are one: the first is kept."""
    keep_quoted: float = 0.1
    """Share of the examples whose positive keeps what the query took from it word for word. In the others these words
    are taken out, or the model would learn that an answer repeats its question (Lee et al. 2019, whose share this is).
    """
    seed: int = 0
    mining: MiningSettings | None = field(default_factory=MiningSettings)
    """How negatives are mined; without a `document_key` the collection's own is taken. None: no negatives."""

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule not in RULES:
                raise UsageError(f"rule is {rule!r}, expected some of {', '.join(RULES)}")
        for name in ("limit", "per_document", "within"):
            if getattr(self, name) is not None:
                checked_count(name, getattr(self, name))
        for name in ("min_words", "max_words"):
            checked_count(name, getattr(self, name))
        if self.min_words > self.max_words:
            raise UsageError(f"min_words is {self.min_words} and max_words {self.max_words}: no query is left")
        checked_number("similarity", self.similarity, above=0, most=1)
        checked_number("keep_quoted", self.keep_quoted, least=0, most=1)


@dataclass(frozen=True)
class Made:
    """A query that was made from a passage."""

    query: str
    passage_id: str
    document: str
    rule: str
    quotes: tuple[str, ...] = ()
    """What stands in the passage word for word."""
    positive: str = ""
    """The passage without its quotes; "" where all of it was kept."""
    rank: int | None = None
    """Where the collection's search finds the passage, from 1."""
    overlap: float = 0.0
    """Share of the query's words that stand in the text it is trained on."""

    def as_row(self) -> dict[str, Any]:
        return {
            "query": self.query,
            "passage_id": self.passage_id,
            "document": self.document,
            "rule": self.rule,
            "rank": self.rank,
            "overlap": round(self.overlap, 3),
            "taken_out": bool(self.positive),
        }


@dataclass(frozen=True)
class SynthesisReport:
    """What a run has counted.

    `made` and `kept` are queries per rule; `dropped` says why the others are not there, and `mining` what mining left
    out. `overlap` is the mean share of a query's words in the text it is trained on, per rule.
    """

    passages: int
    documents: int
    made: Mapping[str, int]
    kept: Mapping[str, int]
    dropped: Mapping[str, int]
    overlap: Mapping[str, float]
    negatives: int
    mining: Mapping[str, int] = field(default_factory=Counter)
    cost: Mapping[str, int] = field(default_factory=dict)
    """Of a language model, over all runs that wrote the journal."""

    def as_row(self) -> dict[str, Any]:
        counts = {name: dict(getattr(self, name)) for name in ("made", "kept", "dropped", "mining", "cost")}
        overlap = {rule: round(share, 3) for rule, share in self.overlap.items()}
        return {
            "passages": self.passages,
            "documents": self.documents,
            "negatives": self.negatives,
            "overlap": overlap,
            **counts,
        }


@dataclass(frozen=True)
class SynthesisResult:
    """The examples, all of them marked as synthetic, where each comes from (in the same order), and the counts."""

    examples: tuple[Example, ...]
    made: tuple[Made, ...]
    report: SynthesisReport
