"""A folder of data -> the tasks that can be run on it, recognised by the files and columns that are there.

========================  ==========================================================================================
retrieval                 `corpus.jsonl` (`_id`, `text`, perhaps `title`), `queries.jsonl` (`_id`, `text`) and
                          `qrels/SPLIT.tsv` (`query-id`, `corpus-id`, `score`), as BEIR has them
similarity                two texts and `score` (or another of `SCORES`)
pair_classification       two texts and `label` (or another of `LABELS`): 1 and 0, or `entailment` and `contradiction`,
                          others are left out
bitext_mining             two texts, and no field that says what a pair of them means, nor a number or flag
reranking                 `query` (or `anchor`), `positive`, `negative`: a text or a list of texts; or a query with
                          a list of candidates inside, see `nested`
classification            `text` and `label`, in the file of the split and in one of the same name with `train`
clustering                `text` and `label`, in the file of the split
summarisation             `human_summaries`, `machine_summaries`, `relevance`: lists
duplicates                `text` and `group`: texts of one group say the same
========================  ==========================================================================================

Every task but retrieval is one file: `SPLIT.jsonl`, `.tsv` or `.csv`, or `something_SPLIT.jsonl`. Two texts are
`sentence1` and `sentence2`, `sent1` and `sent2`, `text1` and `text2`, `premise` and `hypothesis`, `question1` and
`question2`, or `source` and `target`. One file alone whose name is no split is all there is: it is measured whole.

Several columns, or one of an unknown name, may say what a pair means. Then no task is guessed: they are named, and the
kind that is asked for decides which of them is read.

Guarantees: a folder whose data fits none of these is listed with the reason, and so is a link that leads out of the
benchmark's folder, unless links are to be followed. Does not know: the rows of the files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_index_embed_plus.evaluate.tasks.nested import nested_in
from qdrant_tools.errors import InputError, listed
from qdrant_tools.files.rows import read_rows
from qdrant_tools.files.trees import DEEPEST_FOLDER, allowed_roots
from qdrant_tools.unread import carries_meaning
from qdrant_tools.validation import number_in

PAIRS = (
    *(("sentence1", "sentence2"), ("sent1", "sent2"), ("text1", "text2")),
    *(("premise", "hypothesis"), ("question1", "question2"), ("source", "target"), ("sentence_A", "sentence_B")),
)
SCORES = ("score", "similarity_score", "relatedness_score", "similarity", "relatedness")
LABELS = ("label", "labels", "gold_label", "is_duplicate", "is_paraphrase")
INFERENCE = ("premise", "hypothesis")
_NO_BITEXT = (INFERENCE, ("question1", "question2"))
"""Two texts of one language, to be judged: without a label they are no task."""
_ABOUT = re.compile(r"(?i)(?:prompt|target|context|answer)[_-]?(?:id|idx|lang|language)")
"""Columns that hold a word of meaning and say nothing about their row, such as SNLI's `promptID`."""
_COUNTS = re.compile(r"(?i)(?:.*[_ -])?(?:q?id\d*|idx|index|line|row|number|lang|language|unnamed: \d+|)|[a-z]+I[Dd]")
QUERIES = ("query", "anchor")
BEIR = ("corpus.jsonl", "queries.jsonl")
SUFFIXES = (".jsonl", ".tsv", ".csv")
SPLITS = frozenset(("train", "test", "dev", "val", "valid", "validation", "eval", "trial"))
MOST_FOLDERS = 10_000
MOST_AGAIN = 100


@dataclass(frozen=True)
class Task:
    """One task that a folder holds. `name` is its path below the benchmark folder and its kind."""

    name: str
    kind: str
    split: str
    file: Path
    """The file of the split; of retrieval the judgements."""
    train: Path | None = None
    """The texts that classification learns from."""
    column: str = ""
    """What says what a pair means, where that had to be chosen; "": the one that is known."""
    left_aside: tuple[str, ...] = ()
    """What else could have said it."""


@dataclass(frozen=True)
class Skipped:
    """A folder with data that no task could be made of."""

    name: str
    reason: str


def find_tasks(
    folder: Path, *, split: str = "test", follow_links: bool = False, asked: Collection[str] = ()
) -> tuple[list[Task], list[Skipped]]:
    """Look into a folder and the folders below it, in the order of their names.

    asked: kinds, or names of tasks with their kinds, that decide where a file could be read in several ways.
    follow_links: also read what links point to outside of the folder; without it they are listed as skipped.
    Raises:
        InputError: it is no folder, holds no data at all, or thousands of folders.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: expected one that holds data, or folders of data")
    allowed = None if follow_links else allowed_roots(folder)
    entries = list(_Walk(folder, split, allowed, frozenset(asked)).below(folder, ()))
    if not entries:
        raise InputError(f"{folder} holds no data: expected files ending in {', '.join(SUFFIXES)}")
    tasks = [entry for entry in entries if isinstance(entry, Task)]
    return tasks, [entry for entry in entries if isinstance(entry, Skipped)]


@dataclass
class _Walk:
    """One look through a benchmark folder: only what lies in `allowed`, or anything if that is None."""

    root: Path
    split: str
    allowed: tuple[Path, ...] | None
    asked: frozenset[str]
    seen: set[Path] = field(default_factory=set)
    again: int = 0

    def below(self, folder: Path, above: tuple[Path, ...]) -> Iterator[Task | Skipped]:
        """The entries of a folder that lies in the folders `above`, and of those below it."""
        real = folder.resolve()
        if real in above:
            return  # a link to a folder above would be walked for ever
        # by links within the folder, a few folders can hold each other in millions of ways
        self.again += real in self.seen
        self.seen.add(real)
        if len(self.seen) > MOST_FOLDERS or self.again > MOST_AGAIN or len(above) > DEEPEST_FOLDER:
            raise InputError(
                f"{folder} is one of more than {MOST_FOLDERS:,} folders, or of {MOST_AGAIN} that were there before, or "
                f"deeper than {DEEPEST_FOLDER}: this is no folder of benchmarks"
            )
        name = folder.relative_to(self.root).as_posix() if folder != self.root else real.name
        inside = []
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if self._leaves(path):
                yield Skipped(name, f"{path.name} is a link out of {self.root}: follow links to read it")
            else:
                inside.append(path)
        is_beir = set(BEIR) <= {path.name for path in inside if path.is_file()}
        yield from self._tasks(folder, name, [path for path in inside if path.is_file()], is_beir)
        if is_beir:
            return  # the folder of judgements below belongs to it
        for path in inside:
            if path.is_dir():
                yield from self.below(path, (*above, real))

    def _leaves(self, path: Path) -> bool:
        if self.allowed is None or not path.is_symlink():
            return False
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):  # it leads nowhere, or round in a circle
            return True
        return not any(real.is_relative_to(root) for root in self.allowed)

    def _tasks(self, folder: Path, name: str, inside: list[Path], is_beir: bool) -> Iterator[Task | Skipped]:
        files = [path for path in inside if path.suffix.lower() in SUFFIXES]
        if not files:
            return
        if is_beir:
            qrels = folder / "qrels" / f"{self.split}.tsv"
            if not qrels.is_file():
                yield Skipped(name, f"has {' and '.join(BEIR)} but no qrels/{self.split}.tsv")
            elif self._leaves(qrels.parent) or self._leaves(qrels):
                yield Skipped(name, f"qrels/{qrels.name} is a link out of {self.root}: follow links to read it")
            else:
                yield Task(f"{name}/retrieval", "retrieval", self.split, qrels)
            return
        # a whole part of the name: `latest.csv` is no file of the split `test`
        of_split = [path for path in files if self.split in re.split(r"[_\-.]", path.stem)]
        is_whole = not of_split and len(files) == 1 and SPLITS.isdisjoint(re.split(r"[_\-.]", files[0].stem.lower()))
        if is_whole:
            of_split = files
        if not of_split:
            yield Skipped(name, f"no file of the split {self.split!r}: {listed(path.name for path in files[:5])}")
        for path in of_split:
            label = name if is_whole or path.stem == self.split else f"{name}/{path.stem}"
            yield from self._of_file(path, label, [] if is_whole else files)

    def _of_file(self, path: Path, label: str, files: Sequence[Path]) -> Iterator[Task | Skipped]:
        """The tasks of one file. files: those beside it that may hold what it is trained on."""
        first = _first_row(path)
        columns = frozenset(first)
        kinds = list(_kinds(first))
        if kinds:
            yield from _of_kinds(path, label, self.split, files, kinds)
            return
        said = _says(first) if pair_columns(columns) is not None else []
        chosen = [kind for kind in _READINGS if {kind, f"{label}/{kind}"} & self.asked]
        if len(chosen) == 1 and (column := _column_for(chosen[0], said)) is not None:
            others = tuple(name for name in said if name != column)
            yield Task(f"{label}/{chosen[0]}", chosen[0], self.split, path, column=column, left_aside=others)
            return
        yield Skipped(
            label, f"{path.name} has the columns {listed(sorted(columns)) or 'of no row'}: {_why(columns, said)}"
        )


_READINGS = ("similarity", "pair_classification")


def _says(first: Mapping[str, Any]) -> list[str]:
    """The columns that may say what a pair means, the known names first."""
    known = [name for name in (*SCORES, *LABELS) if name in first]
    texts = pair_columns(frozenset(first)) or ()
    others = [name for name in first if name not in {*known, *texts, "split"}]
    return known + [name for name in others if says_what_a_row_means(name) or _judges(name, first[name])]


def _column_for(kind: str, said: Sequence[str]) -> str | None:
    """Which of the columns a kind reads; None if that is still open."""
    known, other = (SCORES, LABELS) if kind == "similarity" else (LABELS, SCORES)
    of_kind = [name for name in said if name in known] or [name for name in said if name not in other]
    return of_kind[0] if len(of_kind) == 1 else None


def _why(columns: frozenset[str], said: Sequence[str]) -> str:
    if pair_columns(columns) is None:
        return "no known task"
    if not said:
        return "two texts of one language, and nothing that says what a pair means: a 'score' or a 'label'"
    readings = [f"--task {kind} reads {column!r}" for kind in _READINGS if (column := _column_for(kind, said))]
    way = ", ".join(readings) or "leave out all but one"
    return f"two texts, and {listed(map(repr, said))} may say what a pair means: {way}; or call it 'score' or 'label'"


def _of_kinds(
    path: Path, label: str, split: str, files: Sequence[Path], kinds: Sequence[str]
) -> Iterator[Task | Skipped]:
    for kind in kinds:
        if kind != "classification":
            yield Task(f"{label}/{kind}", kind, split, path)
            continue
        train = path.with_name(re.sub(rf"(?<![^_\-.]){re.escape(split)}(?![^_\-.])", "train", path.name))
        # the same file if the split is `train` itself: nothing is left to test on
        if not files:
            yield Skipped(f"{label}/{kind}", f"{path.name} is one file: part it into train and test for {kind}")
        elif train == path or train not in files or not {"text", "label"} <= _first_row(train).keys():
            yield Skipped(f"{label}/{kind}", f"{path.name} has labels, but no {train.name} to learn them from")
        else:
            yield Task(f"{label}/{kind}", kind, split, path, train)


def _kinds(first: Mapping[str, Any]) -> Iterator[str]:
    """The tasks that a file can be, by its first row."""
    columns = frozenset(first)
    if (pair := pair_columns(columns)) is not None:
        judged = [name for name in (*SCORES, *LABELS) if name in columns]
        if len(judged) == 1:
            yield "similarity" if judged[0] in SCORES else "pair_classification"
        elif not judged and pair not in _NO_BITEXT:
            others = [(name, value) for name, value in first.items() if name not in {*pair, "split"}]
            if not any(says_what_a_row_means(name) or _judges(name, value) for name, value in others):
                yield "bitext_mining"
    elif {"text", "label"} <= columns:
        yield from ("classification", "clustering")
    elif {"text", "group"} <= columns:
        yield "duplicates"
    elif {"human_summaries", "machine_summaries", "relevance"} <= columns:
        yield "summarisation"
    elif (query_column(columns) is not None and {"positive", "negative"} <= columns) or nested_in(first) is not None:
        yield "reranking"


def _judges(name: str, value: object) -> bool:
    """Whether a field of an unknown name says something of its row: it is a number or a flag, and counts no rows."""
    said = value.strip().lower() if isinstance(value, str) else ""
    number = isinstance(value, (int, float)) or not math.isnan(number_in(said.rstrip("%").replace(",", ".")))
    return _COUNTS.fullmatch(name) is None and (number or said in ("true", "false", "t", "f", "yes", "no"))


def _first_row(path: Path) -> Mapping[str, Any]:
    """The fields of the first row; none if the file is empty."""
    return next((row.values for row in read_rows(path)), {})


def pair_columns(columns: frozenset[str]) -> tuple[str, str] | None:
    """The names of the two texts, if there are two."""
    return next((pair for pair in PAIRS if set(pair) <= columns), None)


def says_what_a_row_means(column: str) -> bool:
    """Whether a column beside those that are read must not be left unread; its languages and ids may be."""
    return carries_meaning(column) and _ABOUT.fullmatch(column) is None


def query_column(columns: frozenset[str]) -> str | None:
    """The name of the query, if there is one."""
    return next((name for name in QUERIES if name in columns), None)
