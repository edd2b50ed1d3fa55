"""An encoder -> one that embeds each query once, for what asks for the same ones again and again.

Guarantees: the vectors are those of the encoder. All are kept, 4 bytes * dimension for each query. Does not know: when
a query may be forgotten (`serving.cache` does).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qdrant_tools.records import Encoder, Vectors


class CachedQueries:
    """An encoder that embeds a query once."""

    def __init__(self, base: Encoder) -> None:
        self.base, self.dimension, self.space = base, base.dimension, base.space
        self._vectors: dict[str, Vectors] = {}

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self.base.encode_queries(new)))
        return np.stack([self._vectors[text] for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self.base.encode_passages(texts)
