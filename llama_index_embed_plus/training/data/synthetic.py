"""Real and synthetic examples -> what is held out, and what is trained on in which proportion.

Synthetic queries are those that nobody asked: they were made from the passage that answers them. Real queries are
worth more, so as soon as there are any, they alone are held out, and synthetic ones count by a weight of their own.

Guarantees: among real queries a synthetic one never decides; where nothing is real, synthetic ones are held out and
`HeldOut.synthetic` says so. The same rows, weight and seed give the same mixture in whatever order the rows come.
Does not know: how queries are made, losses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from llama_index_embed_plus.training.data.records import Distilled, TrainingData, TrainingRow
from llama_index_embed_plus.training.data.splits import SplitSettings, split_queries
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder, Example, HeldOut
from qdrant_tools.same import query_key


def is_synthetic(row: TrainingRow) -> bool:
    """Whether nobody asked the query of a row."""
    return isinstance(row, (Example, Distilled)) and row.synthetic


def hold_out(
    examples: Sequence[Example], settings: SplitSettings, *, encoder: Encoder | None = None
) -> tuple[tuple[Example, ...], HeldOut]:
    """Return what is left to train on, and the share `settings.test` of the real queries; of all, if none is real.

    All synthetic examples are left beside real ones that are held out: `train` leaves out those that know one of them.

    Raises as `split_queries`.
    """
    real = [example for example in examples if not example.synthetic]
    split = split_queries(real or list(examples), settings, encoder=encoder)
    synthetic = [example for example in examples if example.synthetic] if real else []
    return (*split.train, *split.dev, *synthetic), HeldOut.of_examples(split.test)


def mixed(data: TrainingData, weight: float, *, weighted: bool, seed: int = 0) -> TrainingData:
    """Let each synthetic row count `weight` times as much as it would by itself, if there are real rows too.

    weighted: the loss takes weights, which are multiplied; else that share of the synthetic rows is drawn. Rows that go
    are counted in `left_out`.

    Raises:
        UsageError: rows cannot be drawn more than once, as a weight above 1 asks for.
    """
    if not {True, False} <= {is_synthetic(row) for row in data.rows} or weight == 1:
        return data
    if weighted and weight > 0:
        rows = (
            replace(row, weight=row.weight * weight) if isinstance(row, Example) and row.synthetic else row
            for row in data.rows
        )
        return replace(data, rows=tuple(rows))
    if weight > 1:
        raise UsageError(
            f"synthetic_weight is {weight:g}, and this loss takes no weights, so that a share of the rows is drawn: "
            "expected at most 1, or another loss"
        )
    kept = tuple(row for row in data.rows if not is_synthetic(row) or _draw(row, seed) < weight)
    return replace(data, rows=kept, left_out=data.left_out + len(data.rows) - len(kept))


def _draw(row: TrainingRow, seed: int) -> float:
    """A number from 0 up to, not including, 1 that depends on the query alone, so that its rows stay together."""
    query = row.query if isinstance(row, (Example, Distilled)) else ""
    digest = hashlib.sha256(f"{seed}\0{query_key(query)}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
