"""`PlusEmbedding`, LlamaIndex's embedding model, and what stands behind it: a service with a queue and a cache."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
