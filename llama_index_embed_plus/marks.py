"""What a LlamaIndex node's embedding was made of, written on the node itself.

The mark is `embedding_space=<space>:<hash of the embedded text>`, kept among the node's
`excluded_embed_metadata_keys`. That list is saved with the node everywhere (docstores, caches, vector stores, pickles)
and enters neither the node's texts nor its hash, so document stores still recognise a marked node.
Guarantees: an embedding of another model, or of a text that has changed since, is not taken for a present one.
Does not know: how embeddings are computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

PREFIX = "embedding_space="


class Node(Protocol):
    """The two fields of LlamaIndex's `BaseNode` that are used here."""

    embedding: list[float] | None
    excluded_embed_metadata_keys: list[str]


class Stale(NamedTuple):
    """A node to be embedded, the text to embed, and the mark of the embedding to come."""

    node: Node
    text: str
    mark: str


def stale_nodes(nodes: Iterable[Node], texts: Iterable[str], space: str) -> list[Stale]:
    """Return the nodes that carry no embedding of `space` for their text."""
    every = (Stale(node, text, _mark(space, text)) for node, text in zip(nodes, texts))
    return [
        each for each in every if each.node.embedding is None or each.mark not in each.node.excluded_embed_metadata_keys
    ]


def attach(stale: Sequence[Stale], embeddings: Sequence[list[float]]) -> None:
    """Give every node its embedding, and its mark in place of an older one."""
    for each, embedding in zip(stale, embeddings, strict=True):
        others = [key for key in each.node.excluded_embed_metadata_keys if not key.startswith(PREFIX)]
        each.node.embedding = embedding
        each.node.excluded_embed_metadata_keys = [*others, each.mark]


def _mark(space: str, text: str) -> str:
    return f"{PREFIX}{space}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
