"""A snapshot of one node of a cluster would lack what other nodes hold: it is refused before anything is written."""

from __future__ import annotations

from contextlib import closing

import pytest
from servers import NONE, binary, running
from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.snapshots import create_snapshot, restore_snapshot
from qdrant_tools.errors import NotSupportedError
from qdrant_tools.indexing import index_passages

pytestmark = pytest.mark.skipif(binary() is None, reason=NONE)
ENCODER = WordEncoder()


def test_a_cluster_makes_no_snapshot_of_a_part_and_restores_none():
    with running(2) as (first, _), closing(connect(first.url)) as client:
        index_passages(CollectionManager(client).ensure("docs", ENCODER), numbered(40), ENCODER)
        shards = client.collection_cluster_info("docs")
        assert shards.remote_shards, "two nodes share the shards of a collection"
        with pytest.raises(NotSupportedError, match="shards, .* only on other nodes .* copy_collection"):
            create_snapshot(client, "docs")
        assert not client.list_snapshots("docs")
        with pytest.raises(NotSupportedError, match="one of 2 nodes"):
            restore_snapshot(client, f"{first.url}/collections/docs/snapshots/one", "back")
        assert CollectionManager(client).names() == ["docs"]
