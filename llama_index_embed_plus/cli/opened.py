"""Where a command looks and with what: the location, the model and the backend, as its options say."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index_embed_plus.encoders.open import BackendName


@dataclass(frozen=True)
class Where:
    """Which collections, and which encoder."""

    location: str
    model: str
    backend: BackendName
