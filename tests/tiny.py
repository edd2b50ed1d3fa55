"""Small real things for the tests of collections: an encoder, and a client for each engine."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient

from qdrant_tools.client.connect import connect
from qdrant_tools.records import Passage, Vectors

SERVER = os.environ.get("QDRANT_URL")
ENGINES = ("memory", "edge", "server") if SERVER else ("memory", "edge")
"""Where the tests of collections run; `make test-server` adds a running server."""


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


class DirectionEncoder(WordEncoder):
    """A bag of words in which every word is a random direction: no two texts are equally near by chance."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        vectors = np.array([sum(map(self._direction, text.lower().split())) for text in texts], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _direction(self, word: str) -> NDArray[np.float64]:
        return np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.dimension)


def client_of(engine: str, folder: Path) -> Iterator[QdrantClient]:
    """A client that lives as long as the test, with no collections; a server is left as empty as it was found."""
    client = connect({"memory": ":memory:", "edge": folder / "qdrant", "server": SERVER or ""}[engine])
    found = [collection.name for collection in client.get_collections().collections]
    assert not found, f"the server at QDRANT_URL holds collections ({found[0]}, ...): these tests need an empty one"
    try:
        yield client
        if engine == "server":
            for collection in client.get_collections().collections:
                client.delete_collection(collection.name)
    finally:
        client.close()


def numbered(count: int, *, start: int = 0) -> list[Passage]:
    """Passages `p0`, `p1`, ... with some words in common and some of their own."""
    return [
        Passage(f"p{i}", f"passage number {i} about topic{i % 7} and thing{i}", {"topic": i % 7, "even": i % 2 == 0})
        for i in range(start, start + count)
    ]


class NoisyEncoder:
    """A text is the direction of its first word plus noise of its own; `asked` is the noise of texts that ask."""

    dimension = 24

    def __init__(self, noise: float, *, asked: float | None = None, seed: int = 0) -> None:
        self.noise, self.asked, self.seed = noise, noise if asked is None else asked, seed
        self.space = f"noisy-{noise}-{asked}-{seed}@000000000000"
        self.encoded: list[str] = []

    def encode_passages(self, texts):
        self.encoded.extend(texts)
        return np.stack([self._vector(text, "passage") for text in texts])

    def encode_queries(self, texts):
        return np.stack([self._vector(text, "query") for text in texts])

    def _vector(self, text: str, role: str):
        noise = self.asked if "asked" in text else self.noise
        row = _normal(text.split()[0]) + noise * _normal(f"{text} {role} {self.seed}")
        return (row / np.linalg.norm(row)).astype(np.float32)


def _normal(text: str):
    return np.random.default_rng(zlib.crc32(text.encode())).normal(size=24)
