"""Labels to mine with, and mining them into a file in a process of its own, which says "batch" after every batch."""

from __future__ import annotations

import sys
from pathlib import Path

from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.mining import MiningSettings, mine_to_jsonl
from qdrant_tools.records import Label

LABELS = [Label(f"passage about topic{i % 7} thing{i}", f"p{i}") for i in range(40)] + [Label("nowhere", "gone")]
SETTINGS = MiningSettings(batch_size=4)


def mining_command(location: Path, path: Path) -> list[str]:
    return [sys.executable, __file__, str(location), str(path)]


def main(location: str, path: str) -> None:
    encoder = WordEncoder(dimension=512)
    collection = CollectionManager(connect(location)).ensure("docs", encoder)
    index_passages(collection, numbered(60), encoder)

    def progress(_: int) -> None:
        sys.stdout.write("batch\n")
        sys.stdout.flush()

    mine_to_jsonl(collection, LABELS, encoder, path=path, settings=SETTINGS, progress=progress)


if __name__ == "__main__":
    main(*sys.argv[1:])
