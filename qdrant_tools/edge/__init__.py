"""The embedded engine: Qdrant's own engine in this process, behind `QdrantClient`'s methods.

A folder holds collections; each is one shard of Qdrant Edge. This package adds what the engine binding lacks:
collections with names and metadata, aliases, one lock per folder, a guard against damage, and the conversion of
every request and result between qdrant-client's models and the engine's.

::

    lock.py      one process per folder
    manifest.py  which collections and aliases a folder holds, and what a collection's folder says of itself
    location.py  these files, opened and changed so that a crash costs nothing; recover.py  a lost manifest made again
    engine.py    a folder, open in this process and shared by its clients
    shard.py     one collection, open: the only holder of an engine object, and the lock around it
    integrity.py is a shard what was acknowledged: guard.py  how many points at least; seal.py, contents.py  checksums
                 of files; oplog.py  the engine's log; progress.py  how far it has got
    space.py     room on the disk, asked for before a write; estimate.py  what a change of points takes
    build.py     index builds beside the serving shard; child.py, worker.py  the child process; files.py  copies
    readers.py   processes that answer searches; reader.py  one of them; routing.py  who answers; journal.py  writes
                 that they follow; wire.py  questions and answers
    seam.py      foreign errors -> this project's errors
    checks.py    ids, vectors and payloads, before the engine sees them; options.py  call options
    config.py    collection settings -> engine settings; settings.py  changed ones; info.py  as a server reports them
    filters.py   filters; payload_index.py  payload indexes
    records.py   points in, records and scored points out
    queries.py   queries, prefetches, search parameters; formula.py  score formulas; averages.py  recommendations
    groups.py, matrix.py                 grouped results and distance matrices, which the binding lacks
    catalog.py, writes.py, reads.py      the client's methods, by kind
    backend.py   the whole of it as a `QdrantBase`; client.py, async_client.py  as qdrant-client's clients

`qdrant_edge` is imported nowhere else.
"""
