"""Rows -> the batches of an epoch, so that no row's answer is another row's negative.

Losses with in-batch negatives take every text of a batch as a negative of a row, except the row's own positive. Here
two rows are kept apart if one holds (as query, positive or negative) a text that is the query or a positive of the
other. Any positive that is known for that query counts, not only the one in the row. Two texts are one if
`same.query_key` says so, or if they have one passage id. Rows that only share a negative may meet.

Guarantees: every row comes once per epoch (with `drop_last`, at most once, and in full batches only). The number of
batches is the same in every epoch and is what `len` says. Batches of an epoch are of equal size, up to one row, where
conflicts allow. The order is a function of (seed, epoch) alone, so that a run that skips what it had done goes on
exactly, in another process too. The rows of a batch are sorted by length, for tight mini-batches; the loss does not see
that. Does not know: models, the arithmetic of losses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler, GroupByLabelBatchSampler

from llama_index_embed_plus.training.data.groups import Groups
from llama_index_embed_plus.training.losses.catalogue import loss_spec
from qdrant_tools.errors import UsageError
from qdrant_tools.same import id_key, query_key

SamplerFactory = Callable[..., DefaultBatchSampler]
"""What `SentenceTransformerTrainingArguments(batch_sampler=...)` takes."""

_ATTEMPTS = 8
_NOT_TEXT = {"dataset_name", "label", "labels", "score", "scores"}


def batch_sampler(
    loss: str, *, known: Mapping[str, Collection[str]] | None = None, ids: Mapping[str, str] | None = None
) -> SamplerFactory:
    """Return the batch sampler that the loss wants, for `SentenceTransformerTrainingArguments(batch_sampler=...)`.

    Losses with in-batch negatives get rows that do not contradict each other, batch-hard triplets get several texts of
    several classes (rows of a class without partners are left out of an epoch), the others a shuffled order.

    known: query -> its positives, where they are more than the rows of one data set show. ids: text -> passage id.
    Raises UsageError if there is no such loss, later if the data has too few classes for batch-hard triplets.
    """
    loss_spec(loss)
    return _Sampling(loss, known or {}, ids or {})


@dataclass(frozen=True)
class _Sampling:
    """The arguments of `batch_sampler`. A class and no closure, because the trainer's arguments are pickled."""

    loss: str
    known: Mapping[str, Collection[str]]
    ids: Mapping[str, str]

    def __call__(self, dataset: Dataset, **options: Any) -> DefaultBatchSampler:
        spec = loss_spec(self.loss)
        if spec.shape == "labelled texts":
            return _grouped(dataset, options)
        rows = rows_of(dataset, known=self.known, ids=self.ids) if spec.in_batch else None
        return SeededBatchSampler(dataset, rows=rows, **options)


@dataclass(frozen=True)
class BatchRow:
    """The texts of a row as numbers. `answers`: its query and every known positive; `texts`: all that it holds."""

    answers: frozenset[int]
    texts: frozenset[int]


def rows_of(dataset: Dataset, *, known: Mapping[str, Collection[str]], ids: Mapping[str, str]) -> list[BatchRow]:
    """Return what the batches must know of each row: first column the query, second a positive, others negatives."""
    columns_of_texts = [dataset[name][:] for name in text_columns(dataset)]
    number = _numbers(chain(*columns_of_texts, known, *known.values()), ids)
    columns = [[number[text] for text in texts] for texts in columns_of_texts]
    positives: dict[int, set[int]] = {}
    for query, answers in known.items():
        positives.setdefault(number[query], set()).update(number[text] for text in answers)
    for texts in zip(*columns[:2], strict=True):
        positives.setdefault(texts[0], set(texts)).update(texts)
    return [BatchRow(frozenset(positives[texts[0]]), frozenset(texts)) for texts in zip(*columns, strict=True)]


def text_columns(dataset: Dataset) -> list[str]:
    """Return the columns that hold texts, in their order."""
    return [name for name in dataset.column_names if name not in _NOT_TEXT]


def are_all_alike(rows: Sequence[BatchRow]) -> bool:
    """Whether all rows share a query or a positive, so that each is alone in its batch."""
    held = Counter(key for row in rows for key in row.answers & row.texts)
    return max(held.values(), default=0) == len(rows)


class SeededBatchSampler(DefaultBatchSampler):  # type: ignore[misc]
    """Batches as the module says; without `rows`, in shuffled order. Made by `batch_sampler`."""

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        drop_last: bool,
        *,
        rows: Sequence[BatchRow] | None = None,
        seed: int = 0,
        **unused: Any,
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, seed=seed)
        # rows that hold nothing contradict no other
        self.rows = [BatchRow(frozenset(), frozenset())] * len(dataset) if rows is None else rows
        self.lengths = _lengths(dataset)
        self.first = self._first()

    def __len__(self) -> int:
        return len(self.first)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches(self.epoch)

    def batches(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, as row numbers."""
        batches = self.first
        for attempt in range(_ATTEMPTS if epoch else 0):
            packed = self._packed(self._order(epoch, attempt), len(self.first))
            if packed is not None:
                batches = packed
                break
        # An order that does not fit into as many batches is rare; then those of the first epoch come in another order.
        order = np.random.default_rng([self.seed, epoch, _ATTEMPTS]).permutation(len(batches))
        return [sorted(batches[i], key=lambda row: (self.lengths[row], row)) for i in order]

    def _first(self) -> list[list[int]]:
        """The batches of epoch 0: as few as its orders allow."""
        count = len(self.rows) // self.batch_size if self.drop_last else -(-len(self.rows) // self.batch_size)
        if not self.drop_last:
            held = Counter(key for row in self.rows for key in row.answers & row.texts)
            # rows that share a query or a positive need a batch each: no fewer can do
            count = max(count, max(held.values(), default=0))
        while count and (self.drop_last or count < len(self.rows)):
            for attempt in range(_ATTEMPTS):
                packed = self._packed(self._order(0, attempt), count)
                if packed is not None:
                    return packed
            # fewer full batches leave more rows to choose from, more batches leave more room
            count += -1 if self.drop_last else max(1, count // 20)
        return [] if self.drop_last else [[row] for row in range(len(self.rows))]

    def _order(self, epoch: int, attempt: int) -> list[int]:
        """A shuffled order in which the rows that contradict most come first, while there is room to evade."""
        shuffled = np.random.default_rng([self.seed, epoch, attempt]).permutation(len(self.rows))
        degrees = self._degrees()
        return sorted((int(row) for row in shuffled), key=lambda row: -degrees[row])

    def _degrees(self) -> list[int]:
        # counted once: they are the same for every order
        if not hasattr(self, "_known_degrees"):
            texts = Counter(key for row in self.rows for key in row.texts)
            answers = Counter(key for row in self.rows for key in row.answers)
            self._known_degrees = [
                sum(texts[key] - (key in row.texts) for key in row.answers)
                + sum(answers[key] - (key in row.answers) for key in row.texts)
                for row in self.rows
            ]
        return self._known_degrees

    def _packed(self, order: Iterable[int], count: int) -> list[list[int]] | None:
        """Deal the rows out to `count` batches in turn, each to the next that takes it. None if that does not work."""
        batches = [_Batch() for _ in range(count)]
        turn = 0
        for row in order:
            for step in range(count):
                batch = batches[(turn + step) % count]
                if len(batch.rows) < self.batch_size and batch.takes(self.rows[row]):
                    batch.add(row, self.rows[row])
                    turn = (turn + step + 1) % count
                    break
            else:
                if not self.drop_last:
                    return None
        if self.drop_last and any(len(batch.rows) < self.batch_size for batch in batches):
            return None
        return [batch.rows for batch in batches]


@dataclass
class _Batch:
    rows: list[int] = field(default_factory=list)
    answers: set[int] = field(default_factory=set)
    texts: set[int] = field(default_factory=set)

    def takes(self, row: BatchRow) -> bool:
        return self.texts.isdisjoint(row.answers) and self.answers.isdisjoint(row.texts)

    def add(self, number: int, row: BatchRow) -> None:
        self.rows.append(number)
        self.answers |= row.answers
        self.texts |= row.texts


def _numbers(texts: Iterable[str], ids: Mapping[str, str]) -> dict[str, int]:
    """Text -> a number that all texts have which are the same, by their words or by a passage id."""
    nodes: dict[str, int] = {}
    keys: dict[str, int] = {}
    named: list[tuple[int, int]] = []
    for text in texts:
        if text in keys:
            continue
        keys[text] = nodes.setdefault(query_key(text), len(nodes))
        if (passage_id := ids.get(text)) is not None:
            # the NUL keeps ids apart from spellings
            named.append((keys[text], nodes.setdefault(f"\0id {id_key(passage_id)}", len(nodes))))
    groups = Groups(len(nodes))
    for key, name in named:
        groups.join(key, name)
    return {text: groups.root(key) for text, key in keys.items()}


def _lengths(dataset: Dataset) -> list[int]:
    lengths = [0] * len(dataset)
    for name in text_columns(dataset):
        for i, text in enumerate(dataset[name][:]):
            lengths[i] += len(text)
    return lengths


def _grouped(dataset: Dataset, options: Mapping[str, Any]) -> DefaultBatchSampler:
    try:
        return GroupByLabelBatchSampler(dataset, **options)
    except ValueError as error:
        raise UsageError(
            f"batch-hard triplets need classes with several texts each, in every batch: {error}"
        ) from error
