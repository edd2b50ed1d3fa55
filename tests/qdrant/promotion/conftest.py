"""An alias `docs` of the collection `docs-1`, which 120 passages fill by the old encoder."""

from __future__ import annotations

import pytest
from promoted import OLD
from tiny import numbered

from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.indexing import index_passages
from qdrant_tools.search.bm25 import Bm25


@pytest.fixture
def manager(client):
    manager = CollectionManager(client)
    settings = CollectionSettings(lexical=Bm25(), hnsw_ef=99)
    index_passages(manager.ensure("docs-1", OLD, settings=settings), numbered(120), OLD)
    manager.switch_alias("docs", "docs-1")
    return manager
