"""LlamaIndex embeddings over trainable pooled encoders, and the tools that train, export and prove them."""

from __future__ import annotations
