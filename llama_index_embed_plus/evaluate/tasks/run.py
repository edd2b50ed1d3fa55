"""A task of a benchmark folder and an encoder -> one figure, with all that was measured beside it.

`layouts` says which files are a task. Here the rows of each kind are read; the modules of this folder measure them.

Guarantees: everything is read, and refused with file and line where it cannot be used, before anything is embedded.
Does not know: how results are printed.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from llama_index_embed_plus.evaluate.retrieval.report import IdenticalIds
from llama_index_embed_plus.evaluate.tasks.inputs import Label, Role
from llama_index_embed_plus.evaluate.tasks.labels import classification, clustering
from llama_index_embed_plus.evaluate.tasks.layouts import (
    INFERENCE,
    LABELS,
    QUERIES,
    SCORES,
    Task,
    pair_columns,
    query_column,
    says_what_a_row_means,
)
from llama_index_embed_plus.evaluate.tasks.nested import candidates_of, nested_in
from llama_index_embed_plus.evaluate.tasks.pairs import bitext_mining, duplicates, pair_classification
from llama_index_embed_plus.evaluate.tasks.retrieval import exact_retrieval, first_of, read_retrieval
from llama_index_embed_plus.evaluate.tasks.scores import (
    RerankingQuery,
    Summaries,
    reranking,
    semantic_similarity,
    summarisation,
)
from qdrant_tools.errors import InputError, UsageError, brief, listed
from qdrant_tools.files.rows import Row, read_rows
from qdrant_tools.foreign import as_amount, as_flag
from qdrant_tools.records import Encoder
from qdrant_tools.unread import Unread

logger = logging.getLogger(__name__)

Measure = Callable[[Encoder], Any]
"""What gives the frozen report of one kind of task."""

Used = Callable[[frozenset[str]], Iterable[str]]
"""The columns of a row -> those that are read."""

Kind = TypeVar("Kind")

FIGURES = {
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

INFERENCES = {"entailment": 1, "contradiction": 0, "not_entailment": 0, "neutral": None, "-": None}
"""What a label of an inference means; the neutral ones are left out, as in mteb's XNLI, and those without a majority of
annotators, which SNLI marks with a dash."""
_ANNOTATORS = ("label1", "label2", "label3", "label4", "label5")


@dataclass(frozen=True)
class TaskOptions:
    """How tasks are read and run."""

    limit: int | None = None
    """At most so many random rows, queries and passages: for a quick look, not for figures to compare."""
    role: Role = "model"
    """The prompt for texts that are compared with their like; see `inputs.Role`."""
    titles: bool = True
    """Whether a passage is embedded with its title."""
    identical_ids: IdenticalIds = "auto"
    """What becomes of a passage that has the id of the query."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 2:
            raise UsageError(f"limit is {self.limit}, expected at least 2")
        if self.identical_ids not in get_args(IdenticalIds):
            raise UsageError(
                f"identical_ids is {self.identical_ids!r}, expected one of {', '.join(get_args(IdenticalIds))}"
            )


@dataclass(frozen=True)
class LoadedTask:
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


def read_task(task: Task, options: TaskOptions | None = None) -> LoadedTask:
    """Read the data of a task.

    Raises:
        InputError: a row that cannot be used, with file and line, or no rows.
    """
    loaded = _READERS[task.kind](task, options or TaskOptions())
    return loaded if isinstance(loaded, LoadedTask) else LoadedTask(loaded)


def run_task(task: Task, loaded: LoadedTask, encoder: Encoder) -> TaskResult:
    """Measure. Errors are those of the function for the task's kind, and name the file."""
    started = time.perf_counter()
    try:
        report = loaded.measure(encoder)
    except InputError as error:
        # the kind of error stays: it tells a bad text from a bad vector
        raise type(error)(f"{task.file}: {error}") from error
    seconds = round(time.perf_counter() - started, 3)
    field_name, metric = FIGURES[task.kind]
    return TaskResult(
        task.name, task.kind, metric, getattr(report, field_name), seconds, {**asdict(report), **loaded.notes}
    )


def _read_retrieval(task: Task, options: TaskOptions) -> Measure:
    data = read_retrieval(task.file, titles=options.titles)
    chosen = data if options.limit is None else first_of(data, options.limit)
    return partial(exact_retrieval, data=chosen, identical_ids=options.identical_ids)


def _read_similarity(task: Task, options: TaskOptions) -> Measure:
    rows = list(_pairs(task, _score))
    _refuse_unscored(rows)
    left, right, scores = _columns(_sampled([(*pair, score) for *pair, (score, _) in rows], options, task))
    return lambda encoder: semantic_similarity(encoder, left, right, scores, role=options.role)


def _read_pair_classification(task: Task, options: TaskOptions) -> LoadedTask:
    rows = list(_pairs(task, _pair_label))
    judged = [row for row in rows if row[2] is not None]
    left, right, labels = _columns(_sampled(judged, options, task))
    return LoadedTask(
        lambda encoder: pair_classification(encoder, left, right, labels, role=options.role),
        {"left_out": len(rows) - len(judged)},
    )


def _score(row: Row, column: str) -> tuple[float, str]:
    value = row.values[column]
    # tables hold numbers as text, some with a decimal comma
    of_table = row.path.suffix.lower() != ".jsonl" and isinstance(value, str)
    return as_amount(f"{row.where}: {column}", value) if of_table else row.number(column), row.where


def _refuse_unscored(rows: Sequence[tuple[str, str, tuple[float, str]]]) -> None:
    """Refuse -1 where it stands for "no score": all others are positive, and not just -1, 0 and 1 are given."""
    marks = [where for *_, (score, where) in rows if score == -1]
    others = [score for *_, (score, _) in rows if score != -1]
    if marks and others and min(others) >= 0 and not set(others) <= {0.0, 1.0}:
        raise InputError(
            f"{marks[0]}: a score of -1, while all others lie between {min(others):g} and {max(others):g}: it marks "
            "pairs without a score in many files, remove these rows"
        )


def _pair_label(row: Row, column: str) -> int | None:
    value = row.values[column]
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in INFERENCES:
        return INFERENCES[word]
    if set(INFERENCE) <= row.values.keys():
        raise InputError(
            f"{row.where}: {column} is {brief(value)}, expected one of {', '.join(INFERENCES)}: as a number, 0 is "
            "entailment in some files and its contrary in others"
        )
    try:
        flag = as_flag(column, value)
    except InputError:
        flag = None
    if flag is None:
        raise InputError(
            f"{row.where}: {column} is {brief(value)}, expected 1 or 0, or one of {', '.join(INFERENCES)}; a score "
            "is a column 'score'"
        )
    return int(flag)


def _read_bitext_mining(task: Task, options: TaskOptions) -> Measure:
    left, right, _ = _columns(_sampled(_pairs(task, lambda row, column: None), options, task))
    return lambda encoder: bitext_mining(encoder, left, right, role=options.role)


def _read_classification(task: Task, options: TaskOptions) -> Measure:
    assert task.train is not None  # `find_tasks` makes no classification without it
    train = [
        (row.text("text"), row.label("label"))
        for row in _rows(task.train, "train", task.kind, _fields("text", "label"))
    ]
    if options.limit is not None:
        # as many texts of each label, so that none goes without
        train = _of_each_label(train, max(1, options.limit // max(1, len({label for _, label in train}))))
    training = _columns(train or _no_rows(task.train))
    test = _columns(
        _sampled(
            (
                (row.text("text"), row.label("label"))
                for row in _rows(task.file, task.split, task.kind, _fields("text", "label"))
            ),
            options,
            task,
        )
    )
    return lambda encoder: classification(encoder, training, test, role=options.role)


def _read_clustering(task: Task, options: TaskOptions) -> Measure:
    texts, labels = _columns(
        _sampled(
            (
                (row.text("text"), row.label("label"))
                for row in _rows(task.file, task.split, task.kind, _fields("text", "label"))
            ),
            options,
            task,
        )
    )
    return lambda encoder: clustering(encoder, texts, labels, role=options.role)


def _read_reranking(task: Task, options: TaskOptions) -> Measure:
    nested = next((nested_in(row.values) for row in read_rows(task.file)), None)

    def with_candidates(row: Row) -> RerankingQuery:
        if nested is not None:
            return candidates_of(row, nested)
        query = query_column(frozenset(row.values)) or "query"
        return RerankingQuery(row.text(query), row.texts("positive"), row.texts("negative"))

    # the verdict on a claim as a whole says nothing of its evidences
    aside = ("claim_label",) if nested is not None else ()
    fields = _fields(*QUERIES, "positive", "negative") if nested is None else _fields(nested.query, nested.candidates)
    found = _rows(task.file, task.split, task.kind, fields, aside=aside)
    rows = _sampled(map(with_candidates, found), options, task)
    if nested is not None and nested.others:
        logger.warning("%s: fields of %s that are not read: %s", task.file, nested.candidates, listed(nested.others))
    return lambda encoder: reranking(encoder, rows)


def _read_summarisation(task: Task, options: TaskOptions) -> Measure:
    def summaries(row: Row) -> Summaries:
        human, machine = row.texts("human_summaries"), row.texts("machine_summaries")
        scores = row.numbers("relevance")
        if not human or len(scores) != len(machine):
            counts = f"{len(human)} human and {len(machine)} machine summaries, {len(scores)} scores"
            raise InputError(f"{row.where}: {counts}; expected human ones, and a score for every machine summary")
        return Summaries(human, machine, scores)

    fields = _fields("human_summaries", "machine_summaries", "relevance")
    rows = _sampled((summaries(row) for row in _rows(task.file, task.split, task.kind, fields)), options, task)
    return lambda encoder: summarisation(encoder, rows, role=options.role)


def _read_duplicates(task: Task, options: TaskOptions) -> Measure:
    found = _rows(task.file, task.split, task.kind, _fields("text", "group"))
    rows = [(row.text("text"), row.label("group")) for row in found] or _no_rows(task.file)
    if options.limit is not None:  # a random half of a pair is no pair: whole groups instead
        rows = sorted(rows, key=lambda row: str(row[1]))[: options.limit]
    texts, groups = _columns(rows)
    return lambda encoder: duplicates(encoder, texts, groups, role=options.role)


_READERS: Mapping[str, Callable[[Task, TaskOptions], LoadedTask | Measure]] = {
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


_SAME_SPLIT = {"dev": "validation", "val": "validation", "valid": "validation"}


_IGNORABLE: Mapping[str, tuple[str, ...]] = {
    # SICK asks two questions about its pairs, and this is the other one
    "similarity": ("entailment_label", "entailment_judgment"),
    "pair_classification": (*_ANNOTATORS, "label_text"),
    "classification": ("label_text",),
    "clustering": ("label_text",),
}
"""Fields that repeat what is read, or answer another question."""


def _rows(path: Path, split: str, kind: str, used: Used, *, aside: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a file, none of which may say that it belongs to another split, or what nobody here reads.

    used: what is read; aside: what is left unread on purpose.
    """
    unread = Unread()
    for row in read_rows(path):
        said = row.values.get("split")
        if isinstance(said, str) and said.strip() and _split(said) != _split(split):
            raise InputError(
                f"{row.where}: split is {brief(said)}, expected {split!r} alone: make a file of each split"
            )
        known = {"split", *used(frozenset(row.values))}
        harmless = (*_IGNORABLE.get(kind, ()), *aside)
        unread.names.update(
            (name, None)
            for name in row.values
            if name not in known and (name in harmless or not says_what_a_row_means(name))
        )
        try:
            unread.check(
                row.values, {*known, *aside}, way_out=f"leave it out, if these rows are to be a task of {kind}"
            )
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from error
        yield row
    if unread.names:
        logger.warning("%s: fields that are not read: %s", path, unread.listed())


def _fields(*names: str) -> Used:
    return lambda columns: names


def _split(name: str) -> str:
    plain = name.strip().lower()
    return _SAME_SPLIT.get(plain, plain)


_JUDGED = {"similarity": SCORES, "pair_classification": LABELS}


def _pairs(task: Task, third: Callable[[Row, str], Kind]) -> Iterator[tuple[str, str, Kind]]:
    judged = _JUDGED.get(task.kind, ())

    def fields(columns: frozenset[str]) -> list[str]:
        """The two texts, and what is said about them; nothing if that is not there."""
        said = [name for name in ((task.column,) if task.column else judged) if name in columns][:1]
        return [*(pair_columns(columns) or ()), *said] if said or not judged else []

    for row in _rows(task.file, task.split, task.kind, fields, aside=task.left_aside):
        names = fields(frozenset(row.values))
        if len(names) < 2:
            raise InputError(f"{row.where}: has not the fields of the first row, but {listed(row.values)}")
        yield row.text(names[0]), row.text(names[1]), third(row, names[-1])


def _sampled(rows: Iterable[Kind], options: TaskOptions, task: Task) -> list[Kind]:
    """The rows, or a random few of them in their order."""
    all_rows = list(rows) or _no_rows(task.file)
    if options.limit is None or options.limit >= len(all_rows):
        return all_rows
    return [all_rows[place] for place in sorted(random.Random(0).sample(range(len(all_rows)), options.limit))]


# returns nothing, but raises: so that it can stand behind `or`
def _no_rows(path: object) -> Any:
    raise InputError(f"{path}: holds no row that can be used")


def _of_each_label(rows: Sequence[tuple[str, Label]], count: int) -> list[tuple[str, Label]]:
    kept: dict[Label, list[tuple[str, Label]]] = {}
    for row in rows:
        kept.setdefault(row[1], []).append(row)
    return [row for group in kept.values() for row in group[:count]]


def _columns(rows: Sequence[tuple[Any, ...]]) -> Any:
    return tuple(map(list, zip(*rows, strict=True)))
