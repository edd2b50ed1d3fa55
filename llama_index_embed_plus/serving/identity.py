"""Which model an embedding is of: said by its Fields, and written on the nodes that it embeds.

`resolve_fields` fills in the Fields of `PlusEmbedding` from the model's own files. On a node, the fingerprint
`embedding_space=<space>:<hash of the embedded text>` is kept among `excluded_embed_metadata_keys`. LlamaIndex saves
that list with the node everywhere (docstores, caches, vector stores, pickles), but it enters neither the node's texts
nor its hash, so document stores still recognise the node.

Guarantees: no model is opened; fields that were given are kept, and resolving twice changes nothing; an embedding of
another model, or of a text that has changed since, is never taken for a current one. Does not know: how embeddings are
computed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from llama_index_embed_plus.encoders.open import ModelArguments, identify
from llama_index_embed_plus.encoders.text_encoder import Runtime
from llama_index_embed_plus.models.spec import Overrides
from qdrant_tools.errors import UsageError

DEFAULT_MODEL = "all-MiniLM-L6-v2"

_OVERRIDES = tuple(field.name for field in dataclasses.fields(Overrides))
_RUNTIME = tuple(field.name for field in dataclasses.fields(Runtime))
_IDENTITY = ("space", "build", "dimension")
_FINGERPRINT = "embedding_space="


def resolve_fields(model: str | Path | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the model's name, spec, space, build and dimension.

    If `space`, `build` and `dimension` are given, as by `from_dict`, no file is read. They are compared when the model
    is opened.

    Raises:
        UsageError: Two different names, a setting that cannot be honoured, or an identity that the model does not have.
        PlusError: As `identify` raises it.
    """
    name = _one_name(model, fields.get("model_name"))
    resolved = {key: str(value) if isinstance(value, Path) else value for key, value in fields.items()}
    resolved |= {"model": name, "model_name": name}
    arguments = model_arguments(resolved)
    if all(fields.get(key) for key in _IDENTITY):  # a worker process or a copy: nothing to find out
        return resolved
    model_identity = identify(name, **arguments)
    spec = model_identity.spec
    identity = {"space": model_identity.space, "build": base_build(model_identity.build), "dimension": spec.dimension}
    for key, value in identity.items():
        if fields.get(key, value) != value:
            raise UsageError(f"{key} is {fields[key]!r}, but model {name!r} has {value!r}: leave {key} out")
    pooling = spec.pooling[0] if len(spec.pooling) == 1 else spec.pooling
    return resolved | {key: getattr(spec, key) for key in _OVERRIDES} | {"pooling": pooling} | identity


def model_arguments(fields: Mapping[str, Any]) -> ModelArguments:
    """Return what `identify` and `open_encoder` are called with. Raises `UsageError` for an impossible setting."""
    overrides = {key: fields[key] for key in _OVERRIDES if fields.get(key) is not None}
    arguments: ModelArguments = {
        "backend": fields.get("backend") or "auto",
        "revision": fields.get("revision"),
        "cache_folder": fields.get("cache_folder"),
        "overrides": Overrides(**overrides) if overrides else None,
        "runtime": Runtime(**{key: fields[key] for key in _RUNTIME if key in fields}),
    }
    return arguments


def base_build(build: str) -> str:
    """Return the build of passages. An adapter maps queries only, and a new one must not make passages look stale."""
    return build.partition("+")[0]


def _one_name(model: str | Path | None, model_name: str | None) -> str:
    """Accept LlamaIndex's name for the argument too. If both are given, they must agree."""
    names = {str(name) for name in (model, model_name) if name is not None}
    if len(names) > 1:
        raise UsageError(f"model is {str(model)!r} and model_name {model_name!r}: give one of them")
    name = names.pop() if names else DEFAULT_MODEL
    if not name.strip():
        raise UsageError(f"model is {name!r}, expected a name or a folder")
    return name


class Node(Protocol):
    """The two fields of LlamaIndex's `BaseNode` that are used here."""

    embedding: list[float] | None
    excluded_embed_metadata_keys: list[str]


class StaleNode(NamedTuple):
    """A node to be embedded, the text to embed, and the fingerprint of the embedding to come."""

    node: Node
    text: str
    fingerprint: str


def stale_nodes(nodes: Iterable[Node], texts: Iterable[str], space: str) -> list[StaleNode]:
    """Return the nodes that carry no embedding of `space` for their text."""
    candidates = (StaleNode(node, text, _fingerprint(space, text)) for node, text in zip(nodes, texts))
    return [
        stale
        for stale in candidates
        if stale.node.embedding is None or stale.fingerprint not in stale.node.excluded_embed_metadata_keys
    ]


def set_embeddings(stale: Sequence[StaleNode], embeddings: Sequence[list[float]]) -> None:
    """Give every node its embedding and fingerprint. An older fingerprint is replaced."""
    for (node, _, fingerprint), embedding in zip(stale, embeddings, strict=True):
        others = [key for key in node.excluded_embed_metadata_keys if not key.startswith(_FINGERPRINT)]
        node.embedding = embedding
        node.excluded_embed_metadata_keys = [*others, fingerprint]


def _fingerprint(space: str, text: str) -> str:
    # Half a surrogate pair is refused by the encoder, with a better message than that of encode().
    return f"{_FINGERPRINT}{space}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
