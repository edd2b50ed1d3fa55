"""The embedded engine: Qdrant's own engine in this process, behind `QdrantClient`'s methods.

A folder holds collections; each is one shard of Qdrant Edge. This package adds what the engine binding lacks:
collections with names and metadata, aliases, one lock per folder, a guard against damage, and the conversion of
every request and result between qdrant-client's models and the engine's.

::

    lock.py      one process per folder
    manifest.py  which collections and aliases a folder holds; replaced atomically
    guard.py     how many points a collection must at least hold
    engine.py    a folder, open in this process and shared by its clients
    seam.py      the engine's errors -> this project's errors
    checks.py    ids and vectors, before the engine sees them
    config.py    collection settings -> engine settings     info.py     and back, as a server reports them
    filters.py   filters                                    records.py  points in, records and scored points out
    queries.py   queries, prefetches, search parameters     formula.py  score formulas
    collections.py, writes.py, reads.py                     the client's methods, by kind
    backend.py   the whole of it as a `QdrantBase`          client.py   as a `QdrantClient`

`qdrant_edge` is imported nowhere else.
"""
