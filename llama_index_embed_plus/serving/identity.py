"""The arguments of an embedding -> the same with everything filled in that the model's own files say.

Guarantees: nothing heavy is imported and no model is opened; what was passed is kept; passing the result again gives
the same result. Does not know: LlamaIndex.

What a LlamaIndex node's embedding was made of, written on the node itself.

The mark is `embedding_space=<space>:<hash of the embedded text>`, kept among the node's
`excluded_embed_metadata_keys`. That list is saved with the node everywhere (docstores, caches, vector stores, pickles)
and enters neither the node's texts nor its hash, so document stores still recognise a marked node.
Guarantees: an embedding of another model, or of a text that has changed since, is not taken for a present one.
Does not know: how embeddings are computed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from llama_index_embed_plus.encoders.open import identify
from llama_index_embed_plus.encoders.text_encoder import Runtime
from llama_index_embed_plus.models.spec import Overrides
from qdrant_tools.errors import UsageError

DEFAULT_MODEL = "all-MiniLM-L6-v2"
OVERRIDES = tuple(field.name for field in dataclasses.fields(Overrides))
RUNTIME = tuple(field.name for field in dataclasses.fields(Runtime))
_FOUND_OUT = ("space", "build", "dimension")


def settle(model: str | Path | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """Fill in name, spec, space, build and dimension.

    When `space`, `build` and `dimension` are given, as by `from_dict`, the files are not read: whoever opens the model
    compares. Raises what `identify` raises, and `UsageError` for two different names.
    """
    name = _one_name(model, arguments.get("model_name"))
    settled: dict[str, Any] = {
        key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()
    }
    settled |= {"model": name, "model_name": name}
    runtime_of(settled)
    if all(arguments.get(key) for key in _FOUND_OUT):
        return settled
    asked: dict[str, Any] = {
        key: settled[key] for key in ("backend", "revision", "cache_folder", "trust_remote_code") if settled.get(key)
    }
    found = identify(name, **asked, overrides=overrides_of(settled))
    spec = {key: getattr(found.spec, key) for key in OVERRIDES}
    pooling = found.spec.pooling[0] if len(found.spec.pooling) == 1 else found.spec.pooling
    identity = {"space": found.space, "build": base_build(found.build), "dimension": found.spec.dimension}
    for key, value in identity.items():
        if arguments.get(key, value) != value:
            raise UsageError(f"{key} is {arguments[key]!r}, but model {name!r} has {value!r}: leave {key} out")
    return settled | spec | {"pooling": pooling} | identity


def overrides_of(arguments: dict[str, Any]) -> Overrides | None:
    """Return what is asked for otherwise than the model's files say, or None."""
    wanted = {key: arguments[key] for key in OVERRIDES if arguments.get(key) is not None}
    return Overrides(**wanted) if wanted else None


def runtime_of(arguments: dict[str, Any]) -> Runtime:
    """Return how the encoder is to be run. Raises `UsageError` for a setting that cannot be honoured."""
    return Runtime(**{key: arguments[key] for key in RUNTIME if key in arguments})


def base_build(build: str) -> str:
    """Return the build of passages: an adapter maps queries only, and a new one must not make passages look stale."""
    return build.partition("+")[0]


def _one_name(model: str | Path | None, model_name: str | None) -> str:
    """Accept LlamaIndex's name for the argument too; both at once must agree."""
    names = {str(name) for name in (model, model_name) if name is not None}
    if len(names) > 1:
        raise UsageError(f"model is {str(model)!r} and model_name {model_name!r}: give one of them")
    return names.pop() if names else DEFAULT_MODEL


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
