"""Searches and what users did with their results: the retrieval log.

`RetrievalLog` keeps them, `read_log` brings in what other systems wrote, `dropped` and `hashed` take the personal text
out. What the behaviour means is decided in `qdrant_tools.debias`.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
