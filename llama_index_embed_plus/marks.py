"""What a LlamaIndex node's embedding was made of, written on the node itself.

The mark is `embedding_space=<space>:<hash of the embedded text>`, kept among the node's
`excluded_embed_metadata_keys`. That list is saved with the node everywhere (docstores, caches, vector stores, pickles)
and enters neither the node's texts nor its hash, so document stores still recognise a marked node.
Guarantees: an embedding of another model, or of a text that has changed since, is not taken for a present one.
Does not know: how embeddings are computed.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

PREFIX = "embedding_space="


class Node(Protocol):
    """The two fields of LlamaIndex's `BaseNode` that are used here."""

    embedding: list[float] | None
    excluded_embed_metadata_keys: list[str]


def mark_of(space: str, text: str) -> str:
    """Name an embedding of `text` in `space`."""
    return f"{PREFIX}{space}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def is_embedded(node: Node, mark: str) -> bool:
    """Say whether the node carries the embedding that `mark` names."""
    return node.embedding is not None and mark in node.excluded_embed_metadata_keys


def attach(node: Node, embedding: list[float], mark: str) -> None:
    """Give the node an embedding and its mark, in place of an older mark."""
    others = [key for key in node.excluded_embed_metadata_keys if not key.startswith(PREFIX)]
    node.embedding = embedding
    node.excluded_embed_metadata_keys = [*others, mark]
