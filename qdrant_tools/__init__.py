"""A Qdrant collection manager: indexing, search, retrieval logs and hard negatives, on any Qdrant.

This package knows points, vectors, payloads and hits. It never imports torch, an encoder library or LlamaIndex:
text meets vectors only through the `Encoder` protocol in `records`. Import names from the module that has the idea::

    from qdrant_tools.connect import connect
    from qdrant_tools.collection import CollectionManager
    from qdrant_tools.index import index_passages
    from qdrant_tools.search import search
"""

from __future__ import annotations
