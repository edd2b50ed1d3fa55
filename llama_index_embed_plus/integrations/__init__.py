"""LlamaIndex's retrievers, vector stores and data sets, and mteb, on this project's parts."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
