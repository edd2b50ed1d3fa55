"""A file of training rows -> `TrainingData`. JSONL, JSON, CSV and TSV with a header, or one text per line (.txt).

The fields of the first row say what a file holds::

    examples         query, positives, negatives, weight                    as mining writes them
    pairs            query, positive                                        also weight
    triplets         query, positive, negative (or negative_1, ...)         also weight
    judged pairs     query, passage, label (or score, grade, ...)           or lists of passages and labels
    distillation     the same with positive_score, negative_score (or negative_score_1, ...), or margin (margin_1, ...),
                     or scores, a list that begins with the positive's
    nli              premise, hypothesis, label                             entailment, neutral, contradiction; 0, 1, 2
    scored pairs     sentence1, sentence2, score (or label)
    labelled texts   text, label
    texts            text

A `synthetic` beside the first four that have queries says that nobody asked this one: it was made from its passage.
`fields` knows the other names of these, `formats` the rows of other tools. NLI: an entailment is a positive of its
premise, a contradiction a hard negative; rows without a gold label ("-", -1), neutral ones, and premises without an
entailment are left out and counted. Judged pairs that say yes or no (0/1, -1/1, true/false) become positives and hard
negatives of their query; grades and scores do so from `relevant_from` on, which has no default: without it they stay
scores. A query without a positive is left out and counted. A JSON file is a list of such rows, or LlamaIndex's
`EmbeddingQAFinetuneDataset`. A TSV file knows no quotes.

Guarantees: every row is read or the file is refused, with its name and the line, before anything is trained; a refusal
takes little memory, whatever the file holds. A field that is not read is named (`TrainingData.ignored`, and a warning
of `logging`), and refused if its name carries meaning. What the values of a column mean is decided when all are known.
Does not know: losses, models.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from llama_index_embed_plus.training.data.fields import (
    GIVES_WAY,
    Fields,
    Parts,
    as_judgement,
    as_number,
    as_numbers,
    as_optional_text,
    as_text,
    by_order,
    is_word,
    listed,
    names_ids,
    parts_of,
    spelled,
)
from llama_index_embed_plus.training.data.formats import QUERY, SCORES, Asked, Format, format_of, like_an_id
from llama_index_embed_plus.training.data.judged import NLI, Judged, Judgements
from llama_index_embed_plus.training.data.records import (
    Distilled,
    Kind,
    LabelledText,
    TrainingData,
    passage_of,
)
from llama_index_embed_plus.training.data.sources import judgements_in, passages_of, rows_of
from llama_index_embed_plus.training.data.verdicts import HELD_OUT, WAY_OUT, Verdicts
from llama_index_embed_plus.training.limits import is_number
from qdrant_tools.errors import InputError, UsageError, brief
from qdrant_tools.errors import listed as shortlist
from qdrant_tools.files.rows import Row
from qdrant_tools.foreign import as_flag, is_missing
from qdrant_tools.records import FEEDBACK, Example, ScoredText
from qdrant_tools.same import SameTexts, id_key, query_key
from qdrant_tools.unread import Unread
from qdrant_tools.validation import checked_text

logger = logging.getLogger(__name__)

_READS: dict[Kind, tuple[str, ...]] = {
    "examples": ("query", "positives", "negatives", "weight", "synthetic"),
    "pairs": ("query", "positive", "positive_id", "weight", "synthetic"),
    "triplets": ("query", "positive", "positive_id", "negative", "weight", "synthetic"),
    "judged pairs": ("query", "positive", "positive_id", "label", "score"),
    "distillation": (
        "query",
        "positive",
        "negative",
        "positive_score",
        "negative_score",
        "margin",
        "label",
        "score",
        "synthetic",
    ),  # fmt: skip
    "nli": ("first", "second", "label"),
    "scored pairs": ("first", "second", "label", "score"),
    "labelled texts": ("text", "label", "class"),
    "texts": ("text",),
}
_NEEDS: dict[Kind, Mapping[str, str]] = {
    "pairs": {"query": "query", "positive": "positive"},
    "triplets": {"query": "query", "positive": "positive", "negative": "negative"},
    "judged pairs": {"query": "query", "positive": "passage", "label": "label"},
    "scored pairs": {"first": "sentence1", "second": "sentence2", "score": "score"},
    "nli": {"first": "premise", "second": "hypothesis", "label": "label"},
    "labelled texts": {"text": "text", "label": "label"},
    "texts": {"text": "text"},
}
_ORDERED: dict[Kind, tuple[int, bool]] = {
    "pairs": (2, False),
    "triplets": (3, False),
    "judged pairs": (2, True),
    "distillation": (3, True),
    "nli": (2, True),
    "scored pairs": (2, True),
}
"""Kinds that may be told of columns of any names: the number of texts, and whether a label belongs to them."""

_OF_NLI = frozenset(["annotator_labels", "genre", *(f"label{i}" for i in range(1, 6))])
"""What single annotators said, of which the gold label is the sum."""


def read_training_data(
    path: str | Path,
    *,
    kind: Kind | None = None,
    score_range: tuple[float, float] | None = None,
    relevant_from: float | None = None,
    split: str | None = None,
    ignore: Iterable[str] = (),
    passages: str | Path | Mapping[str, str] | None = None,
) -> TrainingData:
    """Read the file `path`, or a folder of judgements as BEIR has it.

    Args:
        kind: What it holds, where its fields do not tell. If their names say nothing, they are taken in their order, as
            sentence-transformers does: query, positive, negatives, and the label last.
        score_range: The lowest and highest score of scored or judged pairs, which are then brought to 0 .. 1 (`(0, 5)`
            for STS).
        relevant_from: From which grade or score on the passage of a judged pair answers its query; the others are its
            hard negatives. Needed for every scale but yes and no.
        split: Of a file with a column of splits, or of a folder of judgements, the one to read.
        ignore: Fields to leave unread, whatever they mean.
        passages: Id -> text, or the file that says so (JSONL, a table, MS MARCO's collection), for rows that name
            passages by their ids.

    Raises:
        InputError: the file cannot be read, or a row is not what the first one promised.
        UsageError: an ending or a kind that is unknown, or an option that means nothing for this file.
    """
    file = Path(path)
    if kind is not None and kind not in get_args(Kind):
        raise UsageError(f"kind is {kind!r}, expected one of {', '.join(get_args(Kind))}")
    if score_range is not None and not (all(map(is_number, score_range)) and score_range[0] < score_range[1]):
        raise UsageError(f"score_range is {score_range}, expected the lowest and the highest score")
    if relevant_from is not None and not is_number(relevant_from):
        raise UsageError(f"relevant_from is {brief(relevant_from)}, expected a number")
    if isinstance(ignore, str):
        raise UsageError(f"ignore is {brief(ignore)}, expected a list of names")
    if isinstance(passages, (str, Path)):
        passages = passages_of(Path(passages))
    elif passages is not None:
        passages = {id_key(name): text for name, text in passages.items()}
    if file.is_dir():
        file, split = judgements_in(file, split or "train"), None
    reader = _Reader(file, _Told(kind, score_range, relevant_from, split, tuple(ignore), passages))
    return reader.read(rows_of(file))


@dataclass(frozen=True)
class _Told:
    """What the caller said about the file."""

    kind: Kind | None = None
    score_range: tuple[float, float] | None = None
    relevant_from: float | None = None
    split: str | None = None
    ignore: tuple[str, ...] = ()
    passages: Mapping[str, str] | None = None


class _Reader:
    """Turns rows of fields into rows of one kind; every error names the line."""

    def __init__(self, file: Path, told: _Told) -> None:
        self.file, self.told, self.kind = file, told, told.kind
        self.ignore = {spelled(name): 0 for name in told.ignore}
        self.unread = Unread()
        # a file of triplets may hold scores that its reader does not want
        self.asked = Asked(told.passages, scores=told.kind in (None, "distillation"), told=told.kind is not None)
        self.classes: dict[str, int] = {}
        self.format: Format | None = None
        self.order: Mapping[str, tuple[str, int]] | None = None
        self.line, self.is_first, self.passed_over = 0, True, 0
        self.splits: dict[str, str] = {}
        self.verdicts = Verdicts(file)
        self.judged = Judgements(file, told.kind, told.score_range, told.relevant_from)

    def read(self, rows: Iterator[Row]) -> TrainingData:
        found: list[Any] = []
        for row in rows:
            self.line = row.line
            found += row.parse(self._rows)
        self._check_options(len(found))
        # the second half is for the type checker: the first row sets the kind
        if not found or self.kind is None:
            what = f"{self.passed_over} rows, and all are left out: nothing answers" if self.passed_over else "no rows"
            raise InputError(f"{self.file} holds {what}")
        data = replace(_without_contradictions(self.file, self._finished(found)), ignored=tuple(self.unread.names))
        data = replace(data, left_out=data.left_out + self.passed_over)
        if data.ignored:
            logger.warning("%s: ignored: %s", self.file, shortlist(f"`{name}`" for name in data.ignored))
        return data

    def _finished(self, found: list[Any]) -> TrainingData:
        assert self.kind is not None
        if self.told.kind is None:
            self._refuse_ids(found)
            self._refuse_distances(found)
        if self.kind in ("nli", "scored pairs"):
            return self.judged.sentences(found)
        if self.kind == "judged pairs":
            return self.judged.pairs(found)
        if self.kind in _TAUGHT_BY_ROWS:
            self.verdicts.check()
        return TrainingData(self.kind, tuple(found))

    def _refuse_ids(self, found: list[Any]) -> None:
        """Raise `InputError` if what should be passages or queries are their names throughout."""
        found_queries = (_query_of(row) for row in found)
        queries = {query for query in found_queries if query is not None and self.kind in _OF_QUERIES}
        names = queries and all(like_an_id(text, marked=True) for text in queries)
        if names and (len(queries) > 1 or all(map(_NAME_OF_QUERY.fullmatch, queries))):
            raise InputError(
                f"{self.file}: every query is a word such as {brief(min(queries))}, an id by its looks: write their "
                "texts, or say the kind if these are the texts (--examples-kind)"
            )
        if self.format is not None:
            if self.told.passages is None:
                Row({}, self.file, self.line).parse(lambda _: self.asked.seen.check())
            return
        positives: set[str] = set()
        for row in found:
            if isinstance(row, Example):
                positives.update(passage.text for passage in row.positives)
            elif isinstance(row, (Distilled, Judged)):
                positives.add(row.positive if isinstance(row, Distilled) else row.second.text)
        if self.kind in _OF_PASSAGES and positives and all(like_an_id(text, marked=True) for text in positives):
            raise InputError(
                f"{self.file}: every passage is a word such as {brief(min(positives))}, an id by its looks: call the "
                "field positive_id (negative_id) and give the passages (passages=..., --passages FILE), or say the "
                "kind if these are the texts"
            )

    def _refuse_distances(self, found: list[Any]) -> None:
        """Raise `InputError` if no positive of many scores more than its negatives."""
        margins = [max(row.margins) for row in found if isinstance(row, Distilled)]
        if len(margins) > 3 and max(margins) < 0:
            raise InputError(
                f"{self.file}: in all of {len(margins)} rows the positive has the lowest score: they may be distances, "
                "or begin with a negative's; write scores of which more is better, the positive's first, or say the "
                "kind if these are right (--examples-kind distillation)"
            )

    def _check_options(self, rows: int) -> None:
        told = self.told
        missed = next((name for name in told.ignore if not self.ignore[spelled(name)]), None)
        if missed is not None:
            raise UsageError(f"ignore names {brief(missed)}, and no row of {self.file} has that field")
        if told.split is not None and not rows:
            has = f"the splits {shortlist(self.splits)}" if self.splits else "no column of splits"
            raise UsageError(f"split is {brief(told.split)}, and {self.file} has {has}")
        if told.relevant_from is not None and self.kind not in ("judged pairs", None):
            raise UsageError(f"relevant_from is for judged pairs (query, passage, label): {self.file} has {self.kind}")
        if told.score_range is not None and self.kind not in ("judged pairs", "scored pairs", None):
            raise UsageError(f"score_range is for scored pairs: {self.file} has {self.kind}")
        if told.split is None and self.splits:
            names = shortlist(dict.fromkeys(self.splits.values()))
            if len(self.splits) > 1 or spelled(next(iter(self.splits))) in HELD_OUT:
                raise InputError(
                    f"{self.file}: {names} says that rows belong to {shortlist(self.splits)}: say which to train on, "
                    "split='train' (--split train), or that it means nothing here, ignore (--ignore)"
                )

    def _rows(self, fields: Fields) -> list[Any]:
        """One row of the file: one of ours, or what its format makes of it."""
        if not isinstance(fields, Mapping):
            raise InputError(f"is {brief(fields)}, expected an object with fields")
        fields = self._without_ignored(fields)
        if not self._is_of_split(fields):
            self.passed_over += 1
            return []
        # a row that is of the first row's format is of no other
        form = self.format if self.format is not None and self.format.matches(fields) else format_of(fields)
        if form is None and (respelled := _respelled(fields)) != fields:
            form = format_of(respelled)
            fields = respelled if form is not None else fields
        if self.is_first:
            self.format, self.is_first = form, False
        elif form is None and self.format is not None and self.format.fits(fields):
            form = self.format  # a row whose list is one text, or empty
        if form is not self.format:
            names = [found.name if found else "rows of our own names" for found in (form, self.format)]
            raise InputError(
                f"is of the format {names[0]}, the first row is of {names[1]}: give each a file of its own"
            )
        if form is None:
            return self._row(fields)
        others = {name: value for name, value in fields.items() if name not in form.reads}
        known = {name for name in others if name in form.ignores} | self.splits_of(fields)
        self.unread.check(others, known, way_out=WAY_OUT)
        unread = {name: value for name, value in others.items() if name not in known}
        self.verdicts.note(unread, next((str(fields[name]) for name in QUERY if name in fields), ""))
        short = [name for name in fields if spelled(name) in GIVES_WAY and name not in form.passages]
        short += [name for name in fields if name in SCORES and not self.asked.scores]
        aside = [name for name in fields if name in form.ignores or name in short]
        self.unread.names.update(dict.fromkeys(name for name in aside if not is_missing(fields[name])))
        self.verdicts.note_answers({name: fields[name] for name in aside if spelled(name) in GIVES_WAY})
        found = [row for ours in form.rows(fields, self.asked) for row in self._row(ours)]
        self.passed_over += not found
        return found

    def _without_ignored(self, fields: Fields) -> Fields:
        if not self.ignore:
            return fields
        for name in fields:
            if spelled(name) in self.ignore:
                self.ignore[spelled(name)] += 1
        return {name: value for name, value in fields.items() if spelled(name) not in self.ignore}

    def splits_of(self, fields: Fields) -> frozenset[str]:
        return frozenset(parts_of(fields).named.get(("split", -1), ()))

    def _is_of_split(self, fields: Fields) -> bool:
        parts = parts_of(fields)
        value = parts.get("split")
        if is_missing(value):
            return self.told.split is None
        if not isinstance(value, (str, int, float)):
            raise InputError(f"the split is {brief(value)}, expected a word")
        if len(self.splits) < 100:
            self.splits.setdefault(str(value).strip(), str(parts.name("split")))
        return self.told.split is None or spelled(str(value)) == spelled(self.told.split)

    def _row(self, fields: Fields) -> list[Any]:
        parts = parts_of(fields, self.order)
        if (
            self.kind is not None
            and self.kind in _ORDERED
            and self.order is None
            and self.told.kind
            and not self.format
        ):
            parts = self._in_order(self.kind, parts)
        if self.format is not None and self.kind in ("pairs", "triplets"):
            # a foreign row has lists of both, whatever it was told to be
            self.kind = kind_of(parts)
        self.kind = self.kind or kind_of(parts)  # the first row decides for all
        self._check(self.kind, parts)
        match self.kind:
            case "examples":
                return [self._example(parts)]
            case "pairs" | "triplets":
                return [self._ranked(parts)]
            case "judged pairs":
                return list(self._judged(parts))
            case "nli" | "scored pairs":
                return [self._sentence_pair(parts)]
            case "distillation":
                return [_distilled(parts)]
            case "labelled texts":
                # labels are words or numbers: their texts are numbered in the order in which they come
                label = self.classes.setdefault(str(_label(parts, "label", "class")), len(self.classes))
                return [LabelledText(parts.text("text"), label)]
            case _:
                return [parts.text("text")]

    def _in_order(self, kind: Kind, parts: Parts) -> Parts:
        """The parts of a row whose names do not say which is which, by their order."""
        self.order = {}
        if all(parts.has(*part.split("|")) for part in _needed(kind)):
            return parts
        least, labelled = _ORDERED[kind]
        names = [name for name in parts.fields if not any(name in parts.named.get((p, -1), ()) for p in _BESIDE)]
        order = by_order(names, least=least, labelled=labelled)
        if order is None:
            texts = f"{least} texts" if least == 2 else f"at least {least} texts"
            raise InputError(
                f"has the fields {listed(parts.fields)}, expected {texts}{' and a label' if labelled else ''} for "
                f"{kind}: name the others in ignore (--ignore)"
            )
        if kind in ("nli", "scored pairs"):
            order = {name: _SIDES.get(part, part) for name, part in order.items()}
        for name, (part, _) in order.items():
            if names_ids(name):
                raise InputError(f"has the fields {listed(parts.fields)}: {_ids_are_no_texts(name)}")
            known = parts_of({name: ""}).named
            if known and not any(_agree(part, other) for other, _ in known):
                raise InputError(
                    f"has the fields {listed(parts.fields)}: by its place {brief(name)} is the {part}, by its name "
                    "something else; rename it, or change the order"
                )
        shown = shortlist(f"`{name}` is the {part}" for name, (part, _) in order.items())
        logger.warning("%s: the columns are taken in their order: %s", self.file, shown)
        self.order = order
        return parts_of(parts.fields, order)

    def _check(self, kind: Kind, parts: Parts) -> None:
        """Raise `InputError` for a field that means something and is not read; note the others."""
        reads = {*_READS[kind], "split"}
        if kind == "pairs" and self.told.kind is None:
            reads.add("negative")
        unread: dict[str, Any] = {}
        known: set[str] = {name for name in parts.others if _is_known(kind, name)}
        for (part, _), names in parts.named.items():
            for name in names:
                if part in reads:
                    known.add(name)
                elif kind == "triplets" and self.told.kind == "triplets" and part in _TAUGHT:
                    unread[name] = None  # the caller wants no distillation
                elif parts.says(part) and not is_missing(parts.fields[name]) and part != "positive_id":
                    raise InputError(
                        f"the field {brief(name)} says what the row means, and {kind} do not have it: {WAY_OUT}"
                    )
                else:
                    unread[name] = None
        told = {_EVIDENCE} if kind == "examples" and _evidence(parts) else set()
        others = {name: parts.fields[name] for name in parts.others if name not in told}
        aside = {name for name in others if parts.about(name) or name in known}
        self.unread.check(others, aside, way_out=WAY_OUT)
        unknown = {name: value for name, value in others.items() if name not in aside}
        self.verdicts.note(unknown, str(parts.get("query")))
        self.verdicts.note_answers({name: parts.fields[name] for name in parts.given_way()})
        if kind == "pairs" and self.told.kind is None:
            _check_short_answer(parts, unknown)
        self.unread.names.update(dict.fromkeys([*unread, *sorted(aside), *parts.given_way()]))

    def _example(self, parts: Parts) -> Example:
        example = Example.from_row({name: parts.get(name) for name in ("query", "positives") if parts.has(name)} | {
            name: parts.get(name) for name in ("negatives", "weight") if parts.get(name) is not None
        } | {_EVIDENCE: _evidence(parts)})  # fmt: skip
        for part in ("positives", "negatives"):
            for entry in parts.get(part) or ():
                inside = {f"{part}.{name}": value for name, value in entry.items()}
                known = {f"{part}.{name}" for name in ("id", "text", "score", "debiased")}
                self.unread.check(inside, known, way_out=WAY_OUT)
        as_text(example.query, "query")
        for passage in (*example.positives, *example.negatives):
            as_text(passage.text, "text")
            checked_text("the field 'id'", passage.id)
        return replace(example, weight=_weight(parts), synthetic=_synthetic(parts))

    def _ranked(self, parts: Parts) -> Example:
        negatives = tuple(passage_of(text) for _, text in parts.numbered("negative", as_optional_text) if text)
        if negatives and self.told.kind is None:
            self.kind = "triplets"  # a row with negatives among pairs
        if self.told.kind == "triplets" and not negatives:
            raise InputError(f"has no field 'negative', only {listed(parts.fields)}")
        passage = self._answer(parts)
        if any(negative.text == passage.text for negative in negatives):
            raise InputError(f"has {brief(passage.text)} as a positive and as a negative: leave one out")
        return Example(parts.text("query"), (passage,), negatives, _weight(parts), _synthetic(parts))

    def _answer(self, parts: Parts) -> ScoredText:
        """The positive; where it is an answer in a few words and the passage is named, that passage."""
        passage, name = _passage(parts), str(parts.name("positive"))
        whole = (self.told.passages or {}).get(id_key(passage.id))
        if whole is None or spelled(name) not in GIVES_WAY:
            return passage
        self.unread.names[name] = None
        return replace(passage, text=whole)

    def _judged(self, parts: Parts) -> Iterator[Judged]:
        """One judgement, or those of a list of passages and a list of labels."""
        query = parts.text("query")
        if self.judged.judged_by and not parts.has("label", "score"):
            yield Judged(query, _passage(parts), None, self.line)  # programs leave out a field that is empty
            return
        name = _judging(parts)
        value = parts.fields[name]
        self.judged.judged_by[name] = None
        if any(parts.given_way()):
            raise InputError(
                f"has {shortlist(f'`{each}`' for each in parts.given_way())} beside the passage, and {brief(name)} may "
                "judge either: name the one that it does not judge in ignore (--ignore)"
            )
        passages, values = parts.get("positive"), value
        if isinstance(values, list) and len(values) == 1 and not isinstance(passages, list):
            value = values = values[0]
        if isinstance(passages, list) or isinstance(values, list):
            if not isinstance(passages, list) or not isinstance(values, list) or len(passages) != len(values):
                counts = [len(each) if isinstance(each, list) else 1 for each in (passages, values)]
                raise InputError(f"has {counts[0]} passages and {counts[1]} values of {brief(name)}, expected as many")
            for text, each in zip(passages, values):
                self.judged.in_words |= is_word(each)
                yield Judged(query, passage_of(as_text(text, "passage")), as_judgement(each, name), self.line)
            return
        self.judged.in_words |= is_word(value)
        yield Judged(query, _passage(parts), as_judgement(value, name), self.line)

    def _sentence_pair(self, parts: Parts) -> Judged:
        name = _judging(parts)
        self.judged.judged_by[name] = None
        is_label = ("label", -1) in parts.named and name in parts.named["label", -1]
        self.judged.is_premise |= is_label and any(
            spelled(each) == "premise" for each in parts.named.get(("first", -1), ())
        )
        value = parts.fields[name]
        if isinstance(value, str) and value.strip().lower() in NLI:
            value = value.strip().lower()
        elif is_label and (self.kind == "nli" or self.judged.is_premise):
            value = value if value is None else str(_scalar(value)).strip().lower()
        elif value is not None:
            # a score that is NaN was not left out, it failed
            value = as_number(value, name) if is_missing(value) else as_judgement(value, name)
        return Judged(parts.text("first"), passage_of(parts.text("second")), value, self.line)


_NAME_OF_QUERY = re.compile(r"(q|qid|query|question)[-_ #:]*\d+", re.IGNORECASE)
_TAUGHT_BY_ROWS: frozenset[Kind] = frozenset(["examples", "pairs", "triplets", "distillation"])
_OF_PASSAGES: frozenset[Kind] = frozenset(["pairs", "triplets", "judged pairs", "distillation"])
_OF_QUERIES = _OF_PASSAGES | {"examples"}
_EVIDENCE = "evidence"
"""What `mine` writes into its examples beside; other files have other things under this name."""
_BESIDE = ("split", "weight", "positive_id", "synthetic")
_TAUGHT = ("positive_score", "negative_score", "margin", "score", "label")
_SIDES = {("query", -1): ("first", -1), ("positive", -1): ("second", -1)}


def _needed(kind: Kind) -> Iterator[str]:
    """The parts of a kind; several names for one if any of them does."""
    for part in _NEEDS.get(kind, _NEEDS["triplets"]):
        yield "label|score" if part in ("label", "score") else part


def _agree(part: str, other: str) -> bool:
    texts = {"query": "query first text", "positive": "positive second text", "first": "first query text"}
    return part == other or other in texts.get(part, "second positive").split() or {part, other} <= {"label", "score"}


def _respelled(fields: Fields) -> Fields:
    named = {spelled(name): value for name, value in fields.items()}
    return named if len(named) == len(fields) else fields


def _is_known(kind: Kind, name: str) -> bool:
    of_label = spelled(name) in ("label_text", "label_name", "label_names", "class_name")
    return (kind == "nli" and spelled(name) in _OF_NLI) or (kind == "scored pairs" and spelled(name) in _OF_NLI) or (
        kind == "labelled texts" and of_label
    )  # fmt: skip


def kind_of(parts: Parts) -> Kind:
    """Return what a row with these fields is. Raises InputError if nothing is made of them."""
    if parts.says("positives"):
        return "examples"
    if parts.says("query") and parts.says("positive"):
        if parts.has("negative"):
            return "distillation" if parts.says(*_TAUGHT) else "triplets"
        return "judged pairs" if parts.has("label", "score") else "pairs"
    if parts.says("first") and parts.says("second") and not parts.says("query"):
        # inference or scores: the labels of the whole file tell
        return "scored pairs"
    if parts.says("text") and not parts.says("query", "first", "second"):
        return "labelled texts" if parts.has("label", "class") else "texts"
    ids = next((name for name in parts.fields if names_ids(name)), None)
    way_out = _nearest(parts) if ids is None or not parts.says("query") else _ids_are_no_texts(ids)
    raise InputError(f"has the fields {listed(parts.fields)}: no kind of training row has these; {way_out}")


def _ids_are_no_texts(name: str) -> str:
    return (
        f"by its name {brief(name)} holds ids, which are no texts: call it 'positive_id' if it says what answers the "
        "query, and give the passages (passages=..., --passages FILE), or leave it out with ignore (--ignore)"
    )


def _nearest(parts: Parts) -> str:
    """What the kinds have that are nearest to the row."""

    def there(part: str) -> bool:
        return parts.says(*(("label", "score") if part in ("label", "score") else (part,)))

    def order(kind: Kind) -> tuple[int, int]:
        missing = [part for part in _NEEDS[kind] if not there(part)]
        return len(missing), -len(_NEEDS[kind])

    near = [kind for kind in sorted(_NEEDS, key=order) if any(map(there, _NEEDS[kind]))][:3]
    if not near:
        return "expected query and passage, also label or negative_1, ..., or sentence1, sentence2, score, or text"
    names = [", ".join(_NEEDS[kind].values()) for kind in near]
    shown = "; ".join(f"{kind} have {needs}" for kind, needs in zip(near, names))
    return f"{shown}; rename the fields, or say the kind, and they are taken in their order"


def _judging(parts: Parts) -> str:
    """The field that holds the judgement. Raises `InputError` if there is none, or more than one."""
    names = [name for part in ("label", "score") if (name := parts.name(part)) is not None]
    if len(names) > 1:
        raise InputError(
            f"has {shortlist(f'`{name}`' for name in names)}, and either may be what judges: name the other in ignore "
            "(--ignore)"
        )
    # an empty one is a row that nobody judged
    names += [name for part in ("label", "score") for name in parts.named.get((part, -1), ())]
    if not names:
        hint = "; pairs that mean the same are kind='pairs' (--examples-kind pairs)" if parts.has("first") else ""
        raise InputError(f"has no field 'score' or 'label', only {listed(parts.fields)}{hint}")
    return names[0]


def _passage(parts: Parts) -> ScoredText:
    """The positive, under its id if it came with one."""
    passage, given = passage_of(parts.text("positive")), parts.get("positive_id")
    if given is None:
        return passage
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if not isinstance(given, (str, int)) or isinstance(given, bool) or not str(given).strip():
        raise InputError(f"the field {brief(parts.name('positive_id'))} is {brief(given)}, expected an id")
    return replace(passage, id=checked_text("the id", str(given)))


_REASONS = frozenset(
    [
        "explanation",
        "rationale",
        "reason",
        "reasoning",
        "thought",
        "thoughts",
        "comment",
        "comments",
        "note",
        "notes",
        "cot",
    ]
)


def _check_short_answer(parts: Parts, unknown: Fields) -> None:
    """Raise `InputError` for an answer beside a longer text that nothing reads: which one is to be found?"""
    name = parts.name("positive")
    if name is None or spelled(name) not in GIVES_WAY:
        return
    for other, value in unknown.items():
        if not isinstance(value, str) or len(value.split()) < 5 or len(value) <= len(str(parts.fields[name])):
            continue
        if _REASONS.isdisjoint(spelled(other).split("_")):
            raise InputError(
                f"{brief(name)} may be a few words out of {brief(other)}, which nothing here reads: call the one that "
                "is to be found `positive`, or name the other in ignore (--ignore)"
            )


def _query_of(row: Any) -> str | None:
    return row.query if isinstance(row, (Example, Distilled)) else row.first if isinstance(row, Judged) else None


def _weight(parts: Parts) -> float:
    given = parts.get("weight")
    weight = 1.0 if given is None else as_number(given, "weight")
    if weight <= 0:
        raise InputError(f"the weight is {weight}, expected a number above 0")
    return weight


def _evidence(parts: Parts) -> str:
    """Which feedback calls the positives answers, where `mine` wrote that; "" for anything else of this name."""
    value = parts.fields.get(_EVIDENCE)
    return value if value in FEEDBACK else ""


def _synthetic(parts: Parts) -> bool:
    """Whether nobody asked the query: it was made from the passage."""
    given = parts.get("synthetic")
    if isinstance(given, bool) or is_missing(given):
        return given is True
    try:
        return as_flag("synthetic", given) is True
    except InputError as error:
        raise InputError(
            f"the field 'synthetic' is {brief(given)}, expected true or false: whether the query was made from its "
            "passage; if it says something else, name it in ignore (--ignore)"
        ) from error


def _distilled(parts: Parts) -> Distilled:
    texts = {number: text for number, text in parts.numbered("negative", as_optional_text) if text}
    negatives = tuple(texts.values())
    margins = _margins(parts, list(texts))
    if not negatives or len(margins) != len(negatives):
        raise InputError(f"has {len(negatives)} negatives and {len(margins)} scores of them")
    return Distilled(parts.text("query"), parts.text("positive"), negatives, margins, _synthetic(parts))


def _margins(parts: Parts, numbers: Sequence[int]) -> tuple[float, ...]:
    """The margins of the negatives of these numbers, from whichever field holds them."""
    if parts.says("label", "score"):
        name = _judging(parts)
        values = as_numbers(parts.fields[name], name)
        if values is None or parts.says("margin", "negative_score", "positive_score"):
            raise InputError(
                f"the field {brief(name)} is {brief(parts.fields[name])} beside a negative, expected a list of scores "
                "that begins with the positive's; a single margin is called `margin`"
            )
        if len(values) == len(numbers) and spelled(name) in ("label", "labels"):
            return tuple(values)  # sentence-transformers calls margins a label
        order = [part for field in parts.fields for part, _ in parts_of({field: ""}).named]
        if "positive" in order and "negative" in order and order.index("negative") < order.index("positive"):
            raise InputError(
                f"{brief(name)} is a list beside a negative that stands before the positive: whose score is the first "
                "cannot be told; write positive_score and negative_score, or the positive first"
            )
        if len(values) != len(numbers) + 1:
            raise InputError(f"has {len(numbers)} negatives and {len(values)} scores, expected one more")
        return tuple(as_number(values[0] - score, "margin") for score in values[1:])
    if parts.says("margin"):
        listed_margins = as_numbers(parts.get("margin"), "margin")
        if listed_margins is not None:
            return tuple(listed_margins)
        found = dict(parts.numbered("margin", as_number))
    else:
        if not parts.says("positive_score"):
            raise InputError(f"has no field 'positive_score' or 'margin', only {listed(parts.fields)}")
        best = as_number(parts.get("positive_score"), "positive_score")
        scores = parts.numbered("negative_score", as_number)
        # a difference of two finite numbers may be none
        found = {number: as_number(best - score, "margin") for number, score in scores}
    if set(found) != set(numbers):
        raise InputError(f"has {len(numbers)} negatives and {len(found)} scores of them, expected one for each")
    return tuple(found[number] for number in numbers)


def _scalar(value: Any) -> str | int | float:
    if not isinstance(value, (str, int, float)):
        raise InputError(f"the label is {brief(value)}, expected a word or a number")
    return value


def _label(parts: Parts, *allowed: str) -> str | int | float:
    names = [name for part in allowed if (name := parts.name(part)) is not None]
    if len(names) > 1:
        raise InputError(f"has {shortlist(f'`{name}`' for name in names)}: name the others in ignore (--ignore)")
    if not names:
        raise InputError(f"has no label, only {listed(parts.fields)}")
    return _scalar(parts.fields[names[0]])


def _without_contradictions(file: Path, data: TrainingData) -> TrainingData:
    """The data without negatives that are positives of the same query in another row: which of them is true?"""
    if not any(isinstance(row, Example) and row.negatives for row in data.rows):
        return data
    keys = [query_key(row.query) if isinstance(row, Example) else "" for row in data.rows]
    known: SameTexts[bool] = SameTexts()
    for key, row in zip(keys, data.rows):
        if isinstance(row, Example):
            for positive in row.positives:
                known.setdefault(key, positive.text, True)
    rows, dropped = [], 0
    for key, row in zip(keys, data.rows):
        if isinstance(row, Example) and row.negatives:
            kept = tuple(negative for negative in row.negatives if not known.get(key, negative.text))
            dropped += len(row.negatives) - len(kept)
            row = row if len(kept) == len(row.negatives) else replace(row, negatives=kept)
        rows.append(row)
    if not dropped:
        return data
    logger.warning("%s: %d negatives say what a positive of the same query says, and were left out", file, dropped)
    return replace(data, rows=tuple(rows))
