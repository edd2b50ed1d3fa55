"""A folder of data and an encoder -> one figure per task, with what lies behind it.

Which folders are tasks is told in `layouts`; each kind is one function of this package over texts and labels.

Guarantees: everything is read, and refused with file and line where it cannot be used, before anything is embedded; the
order is that of the folders. Does not know: how results are printed.

A folder of data -> the tasks that can be run on it, recognised by the files and columns that are there.

========================  ==========================================================================================
retrieval                 `corpus.jsonl` (`_id`, `text`, perhaps `title`), `queries.jsonl` (`_id`, `text`) and
                          `qrels/SPLIT.tsv` (`query-id`, `corpus-id`, `score`), as BEIR has them
similarity                two texts and `score`
pair_classification       two texts and `label`: 1 and 0, or `entailment` and `contradiction`, others are left out
bitext_mining             two texts and nothing else that is known
reranking                 `query` (or `anchor`), `positive`, `negative`: a text or a list of texts
classification            `text` and `label`, in the file of the split and in one of the same name with `train`
clustering                `text` and `label`, in the file of the split
summarisation             `human_summaries`, `machine_summaries`, `relevance`: lists
duplicates                `text` and `group`: texts of one group say the same
========================  ==========================================================================================

But for retrieval a task is one file `SPLIT.jsonl`, `.tsv` or `.csv`, or `something_SPLIT.jsonl`. Two texts are
`sentence1` and `sentence2`, `sent1` and `sent2`, `text1` and `text2`, `premise` and `hypothesis`, `question1` and
`question2`, or `source` and `target`.

Guarantees: a folder with data that is none of this is named with the reason. Does not know: the rows of the files.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from llama_index_embed_plus.evaluate.retrieval.exact import exact_retrieval, first_of, read_retrieval
from llama_index_embed_plus.evaluate.tasks.inputs import Label, Role
from llama_index_embed_plus.evaluate.tasks.labels import classification, clustering
from llama_index_embed_plus.evaluate.tasks.pairs import bitext_mining, duplicates, pair_classification
from llama_index_embed_plus.evaluate.tasks.scores import (
    Candidates,
    Summaries,
    reranking,
    semantic_similarity,
    summarisation,
)
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.files import Row, read_rows
from qdrant_tools.records import Encoder

__all__ = ["Skipped", "Task", "TaskOptions", "TaskResult", "find_tasks", "read_task", "run_task"]

Measure = Callable[[Encoder], Any]
"""What gives the frozen report of one kind of task."""

Kind = TypeVar("Kind")

MAIN = {
    "retrieval": ("ndcg", "ndcg@10"),
    "similarity": ("spearman", "spearman"),
    "pair_classification": ("ap", "ap"),
    "classification": ("accuracy", "accuracy"),
    "clustering": ("v_measure", "v_measure"),
    "reranking": ("map", "map"),
    "bitext_mining": ("f1", "f1"),
    "summarisation": ("spearman", "spearman"),
    "duplicates": ("ap", "ap"),
}
"""Kind -> the field of its report that is the figure, as in mteb, and what the figure is called."""

SAME = {"1": 1, "0": 0, "entailment": 1, "contradiction": 0, "neutral": None, "-": None}
"""What a label of a pair means; of inferences the neutral ones are left out, as in mteb's XNLI, and those without a
majority of annotators, which SNLI marks with a dash."""


@dataclass(frozen=True)
class TaskOptions:
    """How tasks are read and run."""

    limit: int | None = None
    """At most so many random rows, queries and passages: for a quick look, not for figures to compare."""
    role: Role = "passage"
    """The prompt for texts that are compared with their like; see `inputs.Role`."""
    titles: bool = True
    """Whether a passage is embedded with its title."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 2:
            raise UsageError(f"limit is {self.limit}, expected at least 2")


@dataclass(frozen=True)
class Job:
    """A task whose data is in memory: give it an encoder, get its report."""

    measure: Measure
    notes: Mapping[str, int] = field(default_factory=dict)
    """What was seen while reading, such as rows that were left out."""


@dataclass(frozen=True)
class TaskResult:
    """One figure. `value` is the `metric`, 0 to 1 (correlations -1 to 1); `details` is everything that was measured."""

    task: str
    kind: str
    metric: str
    value: float
    seconds: float
    details: Mapping[str, Any] = field(repr=False)

    def as_row(self) -> dict[str, Any]:
        """The row of the JSON report."""
        return asdict(self)


def read_task(task: Task, options: TaskOptions | None = None) -> Job:
    """Read the data of a task.

    Raises:
        InputError: a row that cannot be used, with file and line, or no rows.
    """
    found = _READERS[task.kind](task, options or TaskOptions())
    return found if isinstance(found, Job) else Job(found)


def run_task(task: Task, job: Job, encoder: Encoder) -> TaskResult:
    """Measure. Errors are those of the function for the task's kind, and name the file."""
    started = time.perf_counter()
    try:
        report = job.measure(encoder)
    except InputError as error:
        raise type(error)(f"{task.file}: {error}") from error
    seconds = round(time.perf_counter() - started, 3)
    main, metric = MAIN[task.kind]
    return TaskResult(task.name, task.kind, metric, getattr(report, main), seconds, {**asdict(report), **job.notes})


def _read_retrieval(task: Task, options: TaskOptions) -> Measure:
    data = read_retrieval(task.file, titles=options.titles)
    return partial(exact_retrieval, data=data if options.limit is None else first_of(data, options.limit))


def _read_similarity(task: Task, options: TaskOptions) -> Measure:
    left, right, scores = _columns(_some(_pairs(task, lambda row: row.number("score")), options, task))
    return lambda encoder: semantic_similarity(encoder, left, right, scores, role=options.role)


def _read_pair_classification(task: Task, options: TaskOptions) -> Job:
    rows = list(_pairs(task, _same))
    judged = [row for row in rows if row[2] is not None]
    left, right, labels = _columns(_some(judged, options, task))
    return Job(
        lambda encoder: pair_classification(encoder, left, right, labels, role=options.role),
        {"left_out": len(rows) - len(judged)},
    )


def _same(row: Row) -> int | None:
    label = str(row.label("label"))
    if label not in SAME:
        raise InputError(f"{row.where}: label is {label!r}, expected one of {', '.join(SAME)}")
    return SAME[label]


def _read_bitext_mining(task: Task, options: TaskOptions) -> Measure:
    left, right, _ = _columns(_some(_pairs(task, lambda row: None), options, task))
    return lambda encoder: bitext_mining(encoder, left, right, role=options.role)


def _read_classification(task: Task, options: TaskOptions) -> Measure:
    assert task.train is not None
    train = [(row.text("text"), row.label("label")) for row in read_rows(task.train)]
    if options.limit is not None:
        train = _of_each_label(train, max(1, options.limit // max(1, len({label for _, label in train}))))
    learned = _columns(train or _no_rows(task.train))
    test = _columns(_some(((row.text("text"), row.label("label")) for row in read_rows(task.file)), options, task))
    return lambda encoder: classification(encoder, learned, test, role=options.role)


def _read_clustering(task: Task, options: TaskOptions) -> Measure:
    texts, labels = _columns(
        _some(((row.text("text"), row.label("label")) for row in read_rows(task.file)), options, task)
    )
    return lambda encoder: clustering(encoder, texts, labels, role=options.role)


def _read_reranking(task: Task, options: TaskOptions) -> Measure:
    def candidates(row: Row) -> Candidates:
        query = query_column(frozenset(row.values)) or "query"
        return Candidates(row.text(query), row.texts("positive"), row.texts("negative"))

    rows = _some((candidates(row) for row in read_rows(task.file)), options, task)
    return lambda encoder: reranking(encoder, rows)


def _read_summarisation(task: Task, options: TaskOptions) -> Measure:
    def summaries(row: Row) -> Summaries:
        human, machine = row.texts("human_summaries"), row.texts("machine_summaries")
        scores = row.numbers("relevance")
        if not human or len(scores) != len(machine):
            found = f"{len(human)} human and {len(machine)} machine summaries, {len(scores)} scores"
            raise InputError(f"{row.where}: {found}; expected human ones, and a score for every machine summary")
        return Summaries(human, machine, scores)

    rows = _some((summaries(row) for row in read_rows(task.file)), options, task)
    return lambda encoder: summarisation(encoder, rows, role=options.role)


def _read_duplicates(task: Task, options: TaskOptions) -> Measure:
    rows = [(row.text("text"), row.label("group")) for row in read_rows(task.file)] or _no_rows(task.file)
    if options.limit is not None:  # a random half of a pair is no pair: whole groups instead
        rows = sorted(rows, key=lambda row: str(row[1]))[: options.limit]
    texts, groups = _columns(rows)
    return lambda encoder: duplicates(encoder, texts, groups, role=options.role)


_READERS: Mapping[str, Callable[[Task, TaskOptions], Job | Measure]] = {
    "retrieval": _read_retrieval,
    "similarity": _read_similarity,
    "pair_classification": _read_pair_classification,
    "classification": _read_classification,
    "clustering": _read_clustering,
    "reranking": _read_reranking,
    "bitext_mining": _read_bitext_mining,
    "summarisation": _read_summarisation,
    "duplicates": _read_duplicates,
}


def _pairs(task: Task, third: Callable[[Row], Kind]) -> Iterator[tuple[str, str, Kind]]:
    for row in read_rows(task.file):
        names = pair_columns(frozenset(row.values))
        if names is None:
            raise InputError(f"{row.where}: has not the two texts of the first row, but {', '.join(row.values)}")
        yield row.text(names[0]), row.text(names[1]), third(row)


def _some(rows: Iterable[Kind], options: TaskOptions, task: Task) -> list[Kind]:
    """The rows, or a random few of them in their order."""
    every = list(rows) or _no_rows(task.file)
    if options.limit is None or options.limit >= len(every):
        return every
    return [every[place] for place in sorted(random.Random(0).sample(range(len(every)), options.limit))]


def _no_rows(path: object) -> Any:
    raise InputError(f"{path}: holds no row that can be used")


def _of_each_label(rows: Sequence[tuple[str, Label]], count: int) -> list[tuple[str, Label]]:
    kept: dict[Label, list[tuple[str, Label]]] = {}
    for row in rows:
        kept.setdefault(row[1], []).append(row)
    return [row for group in kept.values() for row in group[:count]]


def _columns(rows: Sequence[tuple[Any, ...]]) -> Any:
    return tuple(map(list, zip(*rows, strict=True)))


PAIRS = (
    *(("sentence1", "sentence2"), ("sent1", "sent2"), ("text1", "text2")),
    *(("premise", "hypothesis"), ("question1", "question2"), ("source", "target")),
)
QUERIES = ("query", "anchor")
BEIR = ("corpus.jsonl", "queries.jsonl")
SUFFIXES = (".jsonl", ".tsv", ".csv")


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


@dataclass(frozen=True)
class Skipped:
    """A folder with data that no task could be made of."""

    name: str
    reason: str


def find_tasks(folder: Path, *, split: str = "test") -> tuple[list[Task], list[Skipped]]:
    """Look into a folder and the folders below it, in the order of their names.

    Raises:
        InputError: it is no folder, or holds no data at all.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: expected one that holds data, or folders of data")
    found = list(_walk(folder, folder, split))
    if not found:
        raise InputError(f"{folder} holds no data: expected files ending in {', '.join(SUFFIXES)}")
    return [each for each in found if isinstance(each, Task)], [each for each in found if isinstance(each, Skipped)]


def _walk(folder: Path, root: Path, split: str) -> Iterator[Task | Skipped]:
    name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
    yield from _tasks(folder, name, split)
    if _is_beir(folder):
        return  # the folder of judgements below belongs to it
    for below in sorted(folder.iterdir()):
        looping = below.is_symlink() and below.resolve() in (folder.resolve(), *folder.resolve().parents)
        if below.is_dir() and not below.name.startswith(".") and not looping:
            yield from _walk(below, root, split)


def _is_beir(folder: Path) -> bool:
    return all((folder / each).is_file() for each in BEIR)


def _tasks(folder: Path, name: str, split: str) -> Iterator[Task | Skipped]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES)
    if not files:
        return
    if _is_beir(folder):
        qrels = folder / "qrels" / f"{split}.tsv"
        if qrels.is_file():
            yield Task(f"{name}/retrieval", "retrieval", split, qrels)
        else:
            yield Skipped(name, f"has {' and '.join(BEIR)} but no qrels/{split}.tsv")
        return
    of_split = [path for path in files if split in re.split(r"[_\-.]", path.stem)]
    if not of_split:
        yield Skipped(name, f"no file of the split {split!r}: {', '.join(path.name for path in files[:5])}")
    for path in of_split:
        yield from _of_file(path, name, split)


def _of_file(path: Path, name: str, split: str) -> Iterator[Task | Skipped]:
    columns = columns_of(path)
    label = name if path.stem == split else f"{name}/{path.stem}"
    kinds = list(_kinds(columns))
    if not kinds:
        yield Skipped(label, f"{path.name} has the columns {', '.join(sorted(columns)) or 'of no row'}: no known task")
    for kind in kinds:
        if kind != "classification":
            yield Task(f"{label}/{kind}", kind, split, path)
            continue
        train = path.with_name(re.sub(rf"(?<![^_\-.]){re.escape(split)}(?![^_\-.])", "train", path.name))
        if train == path or not train.is_file() or not {"text", "label"} <= columns_of(train):
            yield Skipped(f"{label}/{kind}", f"{path.name} has labels, but no {train.name} to learn them from")
        else:
            yield Task(f"{label}/{kind}", kind, split, path, train)


def _kinds(columns: frozenset[str]) -> Iterator[str]:
    if pair_columns(columns) is not None:
        yield "similarity" if "score" in columns else "pair_classification" if "label" in columns else "bitext_mining"
    elif {"text", "label"} <= columns:
        yield from ("classification", "clustering")
    elif {"text", "group"} <= columns:
        yield "duplicates"
    elif {"human_summaries", "machine_summaries", "relevance"} <= columns:
        yield "summarisation"
    elif query_column(columns) is not None and {"positive", "negative"} <= columns:
        yield "reranking"


def columns_of(path: Path) -> frozenset[str]:
    """The columns of the first row; none if the file is empty."""
    return frozenset(next((row.values for row in read_rows(path)), {}))


def pair_columns(columns: frozenset[str]) -> tuple[str, str] | None:
    """The names of the two texts, if there are two."""
    return next((pair for pair in PAIRS if set(pair) <= columns), None)


def query_column(columns: frozenset[str]) -> str | None:
    """The name of the query, if there is one."""
    return next((name for name in QUERIES if name in columns), None)
