"""The vectors of a few texts, recorded where a build was made -> whether the build gives them on this machine.

An int8 build saturates on some processors, and another version of onnxruntime may compute differently. Neither is an
error: the vectors are silently different. Comparing eight vectors when a model is opened costs milliseconds.

Guarantees: the bound is on the cosine of each text's vector to the recorded one. Does not know: how vectors are
computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llama_index_embed_plus.encoders.tokens import TokenBatch, Tokenizer
from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models.files import read_json
from llama_index_embed_plus.models.framing import Ids
from qdrant_tools.records import Vectors
from qdrant_tools.validation import unit_rows

FILE = "onnx/self_check.json"

TEXTS = (
    "How do I sort a list of numbers?",
    "Return the median of a sequence; raise an error if it is empty.",
    "The train to Munich leaves ten minutes late from platform 7.",
    "x",
    "Les résultats sont classés par pertinence décroissante.",
    "SELECT name, count(*) FROM visits GROUP BY name HAVING count(*) > 3",
    "----+----+----+----+----+----+----+----",
    "東京の天気は明日から雨になるでしょう。",
)

BOUNDS = {"onnx-int8": 0.9995, "onnx-fp32": 0.99999}
"""Lowest cosine that passes. An int8 build that rounds a few values differently passes, one that saturates fails."""


_MOST = 1000
"""Texts, and tokens of each: what is recorded is eight short texts."""


class Runnable(Protocol):
    """The part of a backend that is needed here."""

    build: str

    def __call__(self, batch: TokenBatch, *, alone: bool) -> Vectors: ...


def record(backend: Runnable, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what to keep of a build: the token ids of TEXTS and their vectors, as JSON."""
    # Ids and not texts are compared later: another version of the tokenizer must not look like another processor.
    sequences = tokenizer.cut(TEXTS).ids
    vectors = _run(backend, sequences)
    return {
        "ids": [ids.tolist() for ids in sequences],
        # Six digits are far below the bounds and keep the file small.
        "vectors": [[round(value, 6) for value in row] for row in vectors.tolist()],
    }


def find_mismatch(backend: Runnable, folder: Path) -> str | None:
    """Say what is wrong with the build on this machine. None: it gives the recorded vectors, or none were recorded."""
    saved = (read_json(folder, FILE) or {}).get(backend.build)
    if saved is None:
        return None
    try:
        expected = np.asarray(saved["vectors"], np.float32)
        sequences = [np.asarray(ids, np.int32) for ids in saved["ids"]]
        if len(sequences) > _MOST or any(ids.ndim != 1 or ids.size > _MOST for ids in sequences):
            raise ValueError(f"more than {_MOST} texts or tokens")
        vectors = _run(backend, sequences)
        # normalised here, because a spec may leave vectors as they are
        lowest = float(np.sum(unit_rows(vectors) * unit_rows(expected), axis=1).min())
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DamagedModelError(f"{folder / FILE} does not fit the {backend.build} build ({error})") from error
    if lowest >= BOUNDS[backend.build]:
        return None
    return f"the {backend.build} build gives other vectors here than where it was made (cosine {lowest:.4f} at worst)"


def _run(backend: Runnable, sequences: Sequence[Ids]) -> Vectors:
    """Run one text at a time: without padding, only the arithmetic is compared."""
    batches = [TokenBatch(ids[None].astype(np.int64), np.ones((1, len(ids)), np.int64)) for ids in sequences]
    return np.concatenate([backend(batch, alone=True) for batch in batches])
