"""The embedded engine as qdrant-client's `QdrantBase`: what stands behind a client instead of a server.

Guarantees: every method of `QdrantBase` either does what it does on a server or raises `NotSupportedError`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qdrant_client.client_base import QdrantBase
from qdrant_client.http import models

from qdrant_tools.edge.catalog import CatalogMethods
from qdrant_tools.edge.engine import acquire, release
from qdrant_tools.edge.readers import checked_readers, start_readers
from qdrant_tools.edge.reads import ReadMethods
from qdrant_tools.edge.routing import RoutedReads
from qdrant_tools.edge.seam import refuse_odd_arguments
from qdrant_tools.edge.writes import WriteMethods
from qdrant_tools.errors import NotSupportedError, PlusError

ENGINE = "qdrant-edge"


class EdgeBackend(RoutedReads, CatalogMethods, WriteMethods, ReadMethods):
    """One user of a folder's engine; the engine closes with its last user."""

    def __init__(self, root: Path, *, create: bool = True, readers: int = 0) -> None:
        super().__init__()
        checked_readers(readers)
        self.engine = acquire(root, create=create)
        self._closed = False
        try:
            start_readers(self.engine, readers)
        except PlusError:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"EdgeBackend({str(self.engine.root)!r})"

    def close(self, **_options: Any) -> None:
        if not self._closed:
            self._closed = True
            release(self.engine)

    def readers_ready(self, collection_name: str) -> bool:
        """Whether all readers would answer a search of this collection now; asking makes them get ready."""
        pool = self.engine.readers
        return pool is not None and pool.ready(self.engine.collection(collection_name))

    def info(self) -> models.VersionInfo:
        return models.VersionInfo(title=ENGINE, version=version("qdrant-edge-py"))


def _unsupported(name: str) -> Callable[..., Any]:
    def method(self: EdgeBackend, *_args: Any, **_kwargs: Any) -> Any:
        raise NotSupportedError(f"{name}: the embedded engine has no such operation; use a Qdrant server for it")

    method.__name__ = name
    return method


def _refuse_the_rest() -> None:
    """Give every public method that is still `QdrantBase`'s own a clear error instead of an empty one."""
    for name in dir(QdrantBase):
        inherited = getattr(EdgeBackend, name) is getattr(QdrantBase, name)
        if inherited and not name.startswith("_") and callable(getattr(QdrantBase, name)):
            setattr(EdgeBackend, name, _unsupported(name))


_refuse_the_rest()
refuse_odd_arguments(EdgeBackend, [name for name in dir(QdrantBase) if not name.startswith("_")])
