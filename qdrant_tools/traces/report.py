"""What became of the spans and annotations of some files: counts by reason, examples, and what to set.

Guarantees: whatever was left out is in here, under one reason. Does not know: how anything was decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qdrant_tools.validation import brief

HINTS = {
    "no id": "documents have no id: say which field of their metadata has one (--id), or find them in the collection "
    "by their texts (--match text --collection NAME)",
}
"""What can be done where a form does not say."""
DROPPED = {
    "inner": "retrievals inside of another one, whose list they went into",
    "no documents": "retrievals whose list the tool did not write",
    "redacted": "retrievals whose query or documents the tool has hidden",
    "no query": "retrievals without a query, in themselves and above them",
    "no id": "retrievals none of whose documents has an id that is known",
    "no text": "retrievals none of whose documents has a text that is in the collection",
    "no time": "retrievals without a time",
    "error": "retrievals that failed",
    "duplicate": "retrievals that are in the files twice",
    "differs": "retrievals that have the id of another one and other contents, of which the first is kept",
    "retried": "retrievals that the application made again",
    "evaluation": "retrievals of evaluation runs",
    "left out": "retrievals of what was to be left out",
    "too large": "retrievals in traces of too many spans",
}
"""Why a retrieval gives no search."""

UNJOINED = {
    "matches nothing": "are about spans that are in none of these files, or in traces without a retrieval: name the "
    "files of their spans too",
    "another question": "answer a question that is neither a thumb nor relevance: --thumb or --judge says which is",
    "not certain": "have a label or value that is not clearly yes or no: --up and --down say what it means",
    "whole list": "judge a whole list of documents, which says nothing of a single one",
    "failed answer": "are about an answer that failed, and was made again",
    "several answers": "are about several answers at once",
    "left out": "are about traces that are left out",
    "whole session": "are about a session of several traces",
    "no such document": "name a document that its list has not",
    "by a program": "were made by a program, no person and no language model",
    "replaced": "were replaced by a later one of the same person",
    "empty": "have neither a label nor a value nor a comment",
}
"""Why an annotation says nothing here."""

MOST_EXAMPLES = 3
MOST_HINTS = 8


@dataclass
class TraceReport:
    """Counts of one import. `notes` says what is odd, `hints` what to set, each with how often it came up."""

    forms: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    spans: int = 0
    traces: int = 0
    without_retrieval: int = 0
    """Traces, as far as they were told apart."""
    retrievals: int = 0
    searches: int = 0
    generated: int = 0
    headless: int = 0
    """Searches whose list has lost its head: ranks are true, the first ones are missing."""
    untimed: int = 0
    """Searches without a time, which got that of their file."""
    halved: int = 0
    """Searches without an answer, of which the step that they lie in is in no file."""
    answers: int = 0
    ambiguous: int = 0
    """Verdicts on answers that were made of several searches."""
    dropped: Counter[str] = field(default_factory=Counter)
    documents_without_id: int = 0
    documents_hidden: int = 0
    """Those without an id whose text the tool has hidden."""
    documents_repeated: int = 0
    """In the place of another, or with the id of one before, which keeps its place."""
    scores_without_number: int = 0
    """NaN or infinite, of documents that keep their rank."""
    ids: int = 0
    """Different ones, of those that were looked up."""
    ids_found: int | None = None
    """None where no collection was given."""
    not_found: list[str] = field(default_factory=list)
    feedback: Counter[str] = field(default_factory=Counter)
    """By kind, on documents."""
    verdicts: Counter[str] = field(default_factory=Counter)
    """By kind, on answers."""
    annotations: int = 0
    unjoined: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Of annotations that say nothing here, by reason."""
    hints: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] += count

    def unjoin(self, reason: str, example: str = "") -> None:
        self.unjoined[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if example and example not in shown and len(shown) < MOST_EXAMPLES:
            shown.append(example)

    def hint(self, text: str) -> None:
        if text and (text in self.hints or len(self.hints) < 100):
            self.hints[text] += 1

    @property
    def found(self) -> float | None:
        """The share of ids that the collection has."""
        return None if self.ids_found is None or not self.ids else self.ids_found / self.ids

    def as_row(self) -> Mapping[str, Any]:
        return {
            **{name: value for name, value in vars(self).items() if not isinstance(value, Counter)},
            **{name: dict(value) for name, value in vars(self).items() if isinstance(value, Counter)},
        }

    def lines(self) -> list[str]:
        """The report for a person, a line for each fact."""
        lines = [
            f"{self.rows:,} rows, {self.spans:,} spans, {self.retrievals:,} retrievals in "
            f"{self.traces - self.without_retrieval:,} of {self.traces:,} traces: {self.searches:,} searches"
        ]
        if self.generated:
            lines.append(f"{self.generated:,} of them with a query that a language model wrote")
        if self.headless:
            lines.append(f"{self.headless:,} of them with a list that lost its first documents")
        if self.untimed:
            lines.append(
                f"{self.untimed:,} of them with the time of their file, as they have none: what is told by time, such "
                "as the newest searches, says nothing of them"
            )
        if self.halved:
            lines.append(
                f"{self.halved:,} of them without an answer, and the step that they lie in is in none of these files: "
                "name all files that have spans of a trace in one command, or its answers are lost"
            )
        lines += [f"left out: {count:,} {DROPPED.get(reason, reason)}" for reason, count in self.dropped.most_common()]
        if self.documents_without_id:
            lines.append(f"left out: {self.documents_without_id:,} documents without an id in lists that have others")
        if self.documents_hidden:
            lines.append(
                f"left out: {self.documents_hidden:,} documents whose text is hidden in lists that have others"
            )
        if self.documents_repeated:
            lines.append(f"left out: {self.documents_repeated:,} documents that are in their list once more")
        if self.scores_without_number:
            lines.append(
                f"left out: {self.scores_without_number:,} scores that are no finite number (NaN or infinity); their "
                "documents keep their ranks"
            )
        lines += self.of_ids()
        if self.found is not None and self.found < 0.5:
            lines.append(
                "if everything was indexed anew since, the ids are others and the texts are not: --match text "
                '(in Python, TraceSettings(match="text")) finds passages by their texts'
            )
        lines += self._of_feedback()
        lines += [f"{text} ({count:,} times)" for text, count in self.hints.most_common(MOST_HINTS)]
        return [*lines, *self.notes]

    def of_ids(self) -> list[str]:
        """What was found in the collection."""
        if self.ids_found is None or not self.ids:
            return []
        share = f"{self.ids_found:,} of {self.ids:,} ids ({self.ids_found / self.ids:.0%}) are in the collection"
        if not self.not_found:
            return [share]
        return [f"{share}; not there: {', '.join(map(brief, self.not_found))}"]

    def _of_feedback(self) -> list[str]:
        lines = []
        if self.annotations:
            on_hits = ", ".join(f"{count:,} {kind}" for kind, count in self.feedback.items()) or "none on documents"
            on_answers = (
                ", ".join(f"{count:,} {kind}" for kind, count in self.verdicts.items() if count) or "none on answers"
            )
            lines.append(f"{self.annotations:,} annotations: {on_hits}; {on_answers}")
        elif self.feedback:
            lines.append("feedback: " + ", ".join(f"{count:,} {kind}" for kind, count in self.feedback.items()))
        if self.ambiguous:
            lines.append(
                f"{self.ambiguous:,} verdicts are on answers made of several searches: of none of them by itself"
            )
        for reason, count in self.unjoined.most_common():
            shown = f", such as {', '.join(self.examples[reason])}" if self.examples.get(reason) else ""
            lines.append(f"left out: {count:,} annotations {UNJOINED.get(reason, reason)}{shown}")
        return lines
