"""The embedded engine: Qdrant's own engine in this process, behind `QdrantClient`'s methods.

A folder holds collections; each is one shard of Qdrant Edge. The engine's binding has no collections with names and
metadata, no aliases, no lock on a folder and no protection against damage. This package adds them:

- `client.py`, `async_client.py`, `backend.py`: the clients, and the `QdrantBase` behind them
- `catalog.py`, `reads.py`, `writes.py`: its methods, on collections and on points
- `queries.py`, `merging.py`, `aggregations.py`, `rankings.py`: searches, and what is computed from several
- `convert/`: requests -> the engine's, and results -> qdrant-client's
- `storage/`: the folder, its files and the open shards
- `integrity/`: is a collection on the disk what was acknowledged?
- `readers/`: processes that answer searches

`qdrant_edge` is imported nowhere else.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
