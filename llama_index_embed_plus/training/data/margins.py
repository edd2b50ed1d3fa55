"""Examples with negatives and a judge -> rows with margins in a file, for margin_mse; can be killed and resumed.

A margin is the judge's raw score of (query, positive) minus that of (query, negative) (Hofstätter et al. 2020, arXiv
2010.02666; for synthetic queries GPL, Wang et al. 2021, arXiv 2112.07577). Scores are kept beside the output, in
`.NAME.scores`, one line per example, until the output is complete.

Guarantees: the output appears whole or not at all; a pair is scored once, also over several calls; scores of other
examples or of another judge are refused. Does not know: cross-encoders.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.data.records import Distilled
from llama_index_embed_plus.training.trainer.checkpoint import fingerprint
from qdrant_tools.errors import UsageError, brief
from qdrant_tools.files.written import errors_of_writing, json_line, open_private, refuse_link, written_whole
from qdrant_tools.records import Example, Progress

if TYPE_CHECKING:
    from llama_index_embed_plus.training.data.columns import Teacher

_AT_ONCE = 16


@dataclass(frozen=True)
class MarginReport:
    """What was written. resumed: examples that an earlier call had scored; without: those that have no negatives."""

    rows: int
    margins: int
    resumed: int
    without: int


def write_margins(
    examples: Sequence[Example],
    score: Teacher,
    path: str | Path,
    *,
    judge: str,
    negatives: int = 4,
    progress: Progress | None = None,
) -> MarginReport:
    """Score the positives and the first `negatives` negatives of every example, and write one row per positive.

    judge: its name; a later call goes on with the scores of the same one only. progress: receives examples.

    Raises:
        UsageError: the file cannot be written, or scores of something else lie beside it.
        TrainingError: no example has negatives, or a score is no number.
    """
    target = Path(path)
    chosen = [example for example in examples if example.negatives and example.positives]
    if not chosen:
        raise TrainingError(f"none of {len(examples)} examples has negatives to score: mine some")
    scores = _Scores(target.with_name(f".{target.name}.scores"), [fingerprint(map(asdict, chosen)), judge, negatives])
    scored = scores.read([(len(e.positives), len(e.negatives[:negatives])) for e in chosen])
    resumed = len(scored)
    if progress is not None and resumed:
        progress(resumed)
    rest = iter(chosen[resumed:])
    while batch := list(islice(rest, _AT_ONCE)):
        found = _scored(batch, score, negatives)
        scores.append(found)
        scored += found
        if progress is not None:
            progress(len(batch))
    rows = [row for example, its in zip(chosen, scored, strict=True) for row in _rows(example, its)]
    with errors_of_writing(target), written_whole(target) as draft:
        draft.write_bytes(b"".join(json_line(row.as_row()) for row in rows))
    scores.file.unlink(missing_ok=True)
    return MarginReport(len(rows), sum(len(row.margins) for row in rows), resumed, len(examples) - len(chosen))


Scored = tuple[list[float], list[float]]
"""Of the positives, and of the negatives of an example."""


def _scored(batch: Sequence[Example], score: Teacher, negatives: int) -> list[Scored]:
    texts = [(*example.positives, *example.negatives[:negatives]) for example in batch]
    pairs = [(example.query, text.text) for example, its in zip(batch, texts) for text in its]
    given = [float(value) for value in score(pairs)]
    if len(given) != len(pairs) or not all(map(math.isfinite, given)):
        raise TrainingError(f"the judge gave {len(given)} scores for {len(pairs)} pairs, or some that are no numbers")
    values, found = iter(given), []
    for example, its in zip(batch, texts):
        own = list(islice(values, len(its)))
        found.append((own[: len(example.positives)], own[len(example.positives) :]))
    return found


def _rows(example: Example, scored: Scored) -> Iterator[Distilled]:
    best, others = scored
    texts = tuple(negative.text for negative in example.negatives[: len(others)])
    for positive, own in zip(example.positives, best, strict=True):
        yield Distilled(example.query, positive.text, texts, tuple(own - other for other in others), example.synthetic)


class _Scores:
    """The file beside the output: a line that says what it is of, then one line per example."""

    def __init__(self, file: Path, of: list[Any]) -> None:
        self.file, self.of = file, of

    def read(self, shapes: Sequence[tuple[int, int]]) -> list[Scored]:
        """The scores of earlier calls: of so many positives and negatives each. What a kill left of a line is cut."""
        refuse_link(self.file, UsageError)
        with errors_of_writing(self.file), open_private(self.file) as opened:
            whole, _, _ = opened.read().rpartition("\n")
            lines = whole.split("\n") if whole else []
            if not lines:
                opened.truncate(0)
                opened.seek(0)
                opened.write(json.dumps({"of": self.of}) + "\n")
                return []
            opened.truncate(len(whole.encode()) + 1)
        try:
            of, *rows = (json.loads(line) for line in lines[: len(shapes) + 1])
            # of other examples: said below
            found = [_as_scored(row, shape) for row, shape in zip(rows, shapes) if of == {"of": self.of}]
        except (ValueError, TypeError, RecursionError) as error:
            raise UsageError(f"{self.file} holds no scores ({brief(str(error))}): remove it") from error
        if of != {"of": self.of}:
            raise UsageError(f"{self.file} holds scores of other examples or of another judge: remove it")
        return found

    def append(self, scored: Sequence[Scored]) -> None:
        with errors_of_writing(self.file), self.file.open("a", encoding="utf-8") as opened:
            opened.writelines(json.dumps(its) + "\n" for its in scored)


def _as_scored(row: Any, shape: tuple[int, int]) -> Scored:
    positives, negatives = ([float(value) for value in its] for its in row)
    if (len(positives), len(negatives)) != shape or not all(map(math.isfinite, (*positives, *negatives))):
        raise ValueError(f"a row of {len(positives)} and {len(negatives)} scores, expected {shape[0]} and {shape[1]}")
    return positives, negatives
