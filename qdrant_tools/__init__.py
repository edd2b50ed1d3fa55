"""A Qdrant collection manager: indexing, search, retrieval logs and hard negatives, on any Qdrant.

This package knows points, vectors, payloads and hits. It never imports torch, an encoder library or LlamaIndex:
text meets vectors only through the `Encoder` protocol.
"""

from __future__ import annotations
