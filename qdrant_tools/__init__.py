"""A Qdrant collection manager: indexing, search, model change, retrieval logs and hard negatives, on any Qdrant.

What most programs need is here; the rest is in the namespaces, each with its own `__all__`::

    collections  settings, description, copies, snapshots      search      options, hybrid search, BM25
    promotion    a new model without downtime                  tuning      recall against exact search
    log          searches, hits, clicks; foreign logs          debias      clicks -> labels
    mining       labels -> hard negatives, audited             monitor     is retrieval still good?
    edge         the engine in this process                    metrics     nDCG, recall, intervals
    records      passages, queries, hits, labels               errors      the tree of errors
    statistics   exact tests of shares                         client      locations, retries

Names are loaded when they are first used. This package knows points, vectors, payloads and hits; it never imports an
encoder library: text meets vectors only through `Encoder`.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
