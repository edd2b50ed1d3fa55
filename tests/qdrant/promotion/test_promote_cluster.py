"""On a cluster with a node that lags, no acknowledged write is missing in what serves after a switch or a rollback."""

from __future__ import annotations

import os
import threading
from contextlib import closing, suppress

import pytest
from promoted import NEW, OLD
from servers import NONE, binary, running
from tiny import numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import fetch
from qdrant_tools.errors import PlusError, UnreachableError
from qdrant_tools.indexing import index_passages
from qdrant_tools.promotion.promotion import Promotion
from qdrant_tools.promotion.switch import rollback
from qdrant_tools.promotion.verify import Gates
from qdrant_tools.records import Passage

pytestmark = [
    pytest.mark.skipif(binary() is None, reason=NONE),
    pytest.mark.skipif("QDRANT_CLUSTER" not in os.environ, reason="minutes on a busy machine: set QDRANT_CLUSTER=1"),
]
LAG = 1.0


class Writer:
    """Writes one passage after the other through one node until it is stopped; `acknowledged` are those it was told
    are stored."""

    def __init__(self, url: str, name: str) -> None:
        self.acknowledged: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write, args=(url, name))
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _write(self, url: str, name: str) -> None:
        with closing(connect(url, timeout=60)) as client:
            manager, collection, count = CollectionManager(client), None, 0
            while not self._stopped.is_set():
                passage, count = Passage(f"{name}-{count}", f"passage {count} of the writer {name}"), count + 1
                try:
                    if collection is None:
                        space = manager.open("docs").space
                        collection = manager.open("docs", OLD if space == OLD.space else NEW)
                    index_passages(collection, [passage], collection.encoder)
                    self.acknowledged.append(passage.id)
                except PlusError:
                    collection = None


def test_with_a_follower_that_lags_no_acknowledged_write_is_missing_after_a_switch_and_a_rollback():
    with running(3, proxied=2) as nodes, closing(connect(nodes[0].url, timeout=60)) as client:
        manager = CollectionManager(client)
        index_passages(manager.ensure("docs-1", OLD), numbered(60), OLD)
        manager.switch_alias("docs", "docs-1")
        promotion = Promotion(manager, "docs", NEW)
        promotion.build()
        promotion.verify(Gates(samples=10))
        nodes[2].proxy.seconds = LAG
        writers = [Writer(node.url, f"w{number}") for number, node in enumerate((nodes[0], *[nodes[2]] * 4))]
        try:
            until_done(manager, NEW, lambda: promotion.switch(force=True))
            missing = after(manager, writers, NEW)
            until_done(manager, OLD, lambda: rollback(manager, "docs", encoder=OLD))
            missing += after(manager, writers, OLD)
        finally:
            for writer in writers:
                writer.stop()
        missing += after(manager, writers, OLD)
        assert missing == [] and any(writer.acknowledged for writer in writers)


def until_done(manager, encoder, step):
    """A step that a busy server did not finish in time is called again, unless it was done and only not answered."""
    for _ in range(5):
        with suppress(UnreachableError):
            step()
        if manager.open("docs").space == encoder.space:
            return


def after(manager, writers, encoder):
    """Those that were acknowledged and are not in what serves with this encoder's vector."""
    names = [name for writer in writers for name in writer.acknowledged]
    serving = manager.open("docs", encoder)
    stored = fetch(serving, names, with_vectors=True)
    return [name for name in names if name not in stored or not len(stored[name].vector)]
