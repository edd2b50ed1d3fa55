"""Fixtures of the embedded engine's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from moments import Gate

from qdrant_tools.client.connect import connect
from qdrant_tools.edge.client import EmbeddedClient
from qdrant_tools.edge.storage import child


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EmbeddedClient]:
    """A client of a new folder, `tmp_path / "live"`."""
    with closing(connect(tmp_path / "live")) as client:
        assert isinstance(client, EmbeddedClient)
        yield client


@pytest.fixture
def gate(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Holds every index build until it is opened."""
    gate = Gate(tmp_path_factory.mktemp("gate") / "build")
    monkeypatch.setattr(child, "WORKER", gate.worker)
    return gate
