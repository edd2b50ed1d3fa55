"""Small real things for the tests of collections: an encoder, and a client for each engine."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from qdrant_client import QdrantClient

from qdrant_tools.connect import connect
from qdrant_tools.records import Passage, Vectors

ENGINES = ("memory", "edge")


class WordEncoder:
    """A bag of hashed words as a unit vector: texts that share words are near, and nothing is random."""

    def __init__(self, name: str = "words", dimension: int = 64) -> None:
        self.space = f"{name}@{zlib.crc32(name.encode()):012x}"
        self.dimension = dimension
        self.encoded: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        vectors = np.full((len(texts), self.dimension), 1e-3, dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.lower().split():
                row[zlib.crc32(word.encode()) % self.dimension] += 1.0
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        self.encoded.extend(texts)
        return self.encode_queries(texts)


def client_of(engine: str, folder: Path) -> Iterator[QdrantClient]:
    """A client that lives as long as the test."""
    client = connect(":memory:" if engine == "memory" else folder / "qdrant")
    yield client
    client.close()


def numbered(count: int, *, start: int = 0) -> list[Passage]:
    """Passages `p0`, `p1`, ... with some words in common and some of their own."""
    return [
        Passage(f"p{i}", f"passage number {i} about topic{i % 7} and thing{i}", {"topic": i % 7, "even": i % 2 == 0})
        for i in range(start, start + count)
    ]
