"""LlamaIndex embeddings over trainable pooled encoders, and the tools that train, export and prove them.

The names below are loaded when they are first used: importing the package costs nothing and pulls in no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_index_embed_plus.adapter import AdaptedEncoder, QueryAdapter
    from llama_index_embed_plus.embedding import PlusEmbedding
    from llama_index_embed_plus.encoders import TextEncoder, open_encoder
    from llama_index_embed_plus.errors import PlusError

__all__ = ["AdaptedEncoder", "PlusEmbedding", "PlusError", "QueryAdapter", "TextEncoder", "open_encoder"]

_HOMES = {
    "AdaptedEncoder": "adapter",
    "PlusEmbedding": "embedding",
    "PlusError": "errors",
    "QueryAdapter": "adapter",
    "TextEncoder": "encoders",
    "open_encoder": "encoders",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
