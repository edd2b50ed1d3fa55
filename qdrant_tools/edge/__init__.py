"""The embedded engine: Qdrant's own engine in this process, behind `QdrantClient`'s methods.

A folder holds collections; each is one shard of Qdrant Edge. This package adds what the engine's binding lacks:
collections with names and metadata, aliases, one lock per folder, protection against damage, and the conversion of
every request and result. `convert/` has the requests and results, `storage/` the files and the open shards,
`integrity/` the checks of what is opened, `readers/` the processes that answer searches; the modules here are the
client's methods.
`qdrant_edge` is imported nowhere else.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
