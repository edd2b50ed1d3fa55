"""What the tests of collections share: a client of each engine in turn, a manager, and an encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient
from tiny import ENGINES, WordEncoder, client_of

from qdrant_tools.collections.manager import CollectionManager


@pytest.fixture(params=ENGINES)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QdrantClient]:
    yield from client_of(request.param, tmp_path)


@pytest.fixture
def manager(client: QdrantClient) -> CollectionManager:
    return CollectionManager(client)


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()
