"""What a model is, read from its files: pooling, prompts, weights, and the identity of its vector space."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
