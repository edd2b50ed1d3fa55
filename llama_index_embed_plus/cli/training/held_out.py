"""The options that name held-out queries -> the queries; without them, those that lie beside the model.

Guarantees: where queries are taken that nobody named, a line on stderr says which. Does not know: what they decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import note
from llama_index_embed_plus.cli.logs.log import open_log
from llama_index_embed_plus.evaluate.retrieval.held_out import QRELS, QUERIES, held_out_of, read_held_out_files
from llama_index_embed_plus.models import artifact
from qdrant_tools.errors import UsageError
from qdrant_tools.records import SAMPLE, HeldOut, Query
from qdrant_tools.same import query_key

Queries = Annotated[
    Path | None,
    typer.Option(help="Held-out queries, .jsonl rows with id (or _id) and text; by default those beside the model."),
]
QrelsFile = Annotated[Path | None, typer.Option("--qrels", help="Their judgements, BEIR's TSV or TREC's qrels.")]


def held_out_named(queries: Path | None, qrels: Path | None, model: str | Path | None) -> HeldOut | None:
    """The queries of two files; without files those that lie beside the model, None if there are none either.

    Raises:
        UsageError: one of the files without the other.
        InputError: a row without the columns.
    """
    if queries is not None and qrels is not None:
        return read_held_out_files(queries, qrels)
    if queries is not None or qrels is not None:
        raise UsageError("--queries and --qrels go together: the first has the texts, the second the answers")
    found = None if model is None else held_out_of(model)
    if found is not None:
        place = Path(str(model)) / artifact.HELD_OUT
        kind = "judged sample" if found.evidence == SAMPLE else found.evidence or "judgements"
        note(f"held-out queries: the {len(found.measured)} of {place} ({kind})")
    return found


def files_beside(model: str | Path) -> tuple[Path, Path] | None:
    """The two files that lie beside a model, if they do; said on stderr.

    Raises:
        UsageError: they are a judged sample of passages, which tells two models apart and measures none.
    """
    found = held_out_of(model)
    if found is None:
        return None
    place = Path(str(model)) / artifact.HELD_OUT
    if found.evidence == SAMPLE:
        raise UsageError(
            f"{place} holds a judged sample for a proof, which measures no metric: give --queries, --qrels"
        )
    note(f"judged queries: the {len(found.measured)} of {place}")
    return place / QUERIES, place / QRELS


def queries_of_log(path: Path, collections: Sequence[str]) -> list[Query]:
    """Every question that was searched for in these collections, once; those of logs that name no collection too."""
    asked: dict[str, Query] = {}
    with open_log(path) as log:
        for search in log.searches():
            key = query_key(search.query)
            if search.collection in (*collections, "") and not search.redacted and key not in asked and key:
                asked[key] = Query(f"log-{len(asked)}", search.query)
    if not asked:
        raise UsageError(f"{path} has no readable queries of searches in {collections[0]!r}")
    return list(asked.values())
