"""Stored vectors -> what is like what: recommendations, near-duplicates, clusters, classes. Nothing is embedded."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
