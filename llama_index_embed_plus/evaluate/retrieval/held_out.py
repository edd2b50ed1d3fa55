"""Held-out queries, and what was trained on <-> the folder `heldout/` of the model that they judge.

::

    heldout/queries.jsonl   {"id", "text"}, and where it is known: "synthetic", "evidence", "weights"
    heldout/qrels.tsv       BEIR's judgements
    heldout/trained.jsonl   the queries of the training examples, with the ids of the passages that answer them

What decided whether a model may serve lies beside it, so that whoever promotes, proves or evaluates it need not bring
the queries again. Any tool for BEIR's files reads the first two; the third tells whether other queries are unseen. They
hold what people typed: a copy of the model leaves them out (`models.artifact`).

Guarantees: what was written is read back equal; a file that changed since the model was sealed is DamagedModelError.
Does not know: passages, which a collection holds; metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries, row_errors, write_qrels
from llama_index_embed_plus.models import artifact
from qdrant_tools.errors import InputError, brief
from qdrant_tools.files.rows import Row, read_rows
from qdrant_tools.files.written import write_rows
from qdrant_tools.records import FEEDBACK, SAMPLE, Example, HeldOut, ScoredText
from qdrant_tools.validation import checked_number

QUERIES, QRELS, TRAINED = "queries.jsonl", "qrels.tsv", "trained.jsonl"


def write_held_out(folder: Path, held_out: HeldOut) -> None:
    """Write the queries that are measured into the model folder; its manifest has to be written after this.

    Raises:
        InputError: an id that a column cannot hold.
    """
    place = folder / artifact.HELD_OUT
    place.mkdir(exist_ok=True)
    write_rows(place / QUERIES, _rows(held_out))
    measured = {query.id for query in held_out.measured}
    write_qrels(place / QRELS, {name: grades for name, grades in held_out.qrels.items() if name in measured})


def held_out_of(folder: str | Path) -> HeldOut | None:
    """The held-out queries that lie in a model folder, None if there are none.

    Raises:
        DamagedModelError: the manifest does not list the files as they are.
        InputError: a row that is no query.
    """
    place = Path(folder) / artifact.HELD_OUT
    if not (place / QUERIES).is_file() or not artifact.is_artifact(Path(folder)):
        return None
    artifact.verify(Path(folder), [f"{artifact.HELD_OUT}/{name}" for name in (QUERIES, QRELS)])
    return read_held_out_files(place / QUERIES, place / QRELS)


def write_trained(folder: Path, examples: Iterable[Example]) -> None:
    """Write what the examples ask into the model folder; its manifest has to be written after this."""
    place = folder / artifact.HELD_OUT
    place.mkdir(exist_ok=True)
    write_rows(place / TRAINED, (_asked(example).as_row() for example in examples))


def trained_on(folder: str | Path) -> list[Example]:
    """What the model in a folder was trained on, as far as a query can be known from it; empty if nothing says so.

    Raises:
        DamagedModelError: the manifest does not list the file as it is.
        InputError: a row that is no example.
    """
    place = Path(folder) / artifact.HELD_OUT / TRAINED
    if not place.is_file() or not artifact.is_artifact(Path(folder)):
        return []
    artifact.verify(Path(folder), [f"{artifact.HELD_OUT}/{TRAINED}"])
    return [row.parse(Example.from_row, "a training example") for row in read_rows(place)]


def _asked(example: Example) -> Example:
    """The example without negatives, and without the texts of passages that have ids."""
    answers = tuple(ScoredText(answer.id, "" if answer.id else answer.text) for answer in example.positives)
    return Example(example.query, answers, synthetic=example.synthetic)


def read_held_out_files(queries: Path, qrels: Path) -> HeldOut:
    """Read the two files, with what the rows of queries say beside their texts.

    Raises:
        InputError: as `read_queries` and `read_qrels`, or a row says what no held-out query has.
    """
    listed, grades = read_queries(queries), read_qrels(qrels)
    weights: dict[str, Mapping[str, float]] = {}
    kinds, synthetic = set(), []
    for row in read_rows(queries):
        with row_errors(row):
            if "weights" in row.values:
                weights[row.text("id" if "id" in row.values else "_id")] = _weights(row)
            kinds.add(_evidence(row))
            synthetic.append(row.values.get("synthetic") is True)
    evidence = kinds.pop() if len(kinds) == 1 else ""
    return HeldOut(tuple(listed), grades, (), all(synthetic), evidence, weights)


def _rows(held_out: HeldOut) -> Iterator[dict[str, Any]]:
    for query in held_out.measured:
        row: dict[str, Any] = query.as_row()
        row |= {"synthetic": True} if held_out.synthetic else {}
        row |= {"evidence": held_out.evidence} if held_out.evidence else {}
        if weights := held_out.weights.get(query.id):
            row["weights"] = dict(weights)
        yield row


def _evidence(row: Row) -> str:
    value = row.values.get("evidence", "")
    if value not in ("", *FEEDBACK, SAMPLE):
        raise InputError(f"evidence is {brief(value)}, expected one of {(*FEEDBACK, SAMPLE)}, or none")
    return str(value)


def _weights(row: Row) -> Mapping[str, float]:
    value = row.values["weights"]
    if not isinstance(value, dict):
        raise InputError(f"weights is {brief(value)}, expected an object, passage -> number")
    for weight in value.values():
        checked_number("a weight", weight, above=0)
    return value
