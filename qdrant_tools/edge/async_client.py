"""`AsyncEmbeddedClient`: an `AsyncQdrantClient` over the embedded engine.

Each call runs in a thread, so that the event loop goes on wherever the engine or a disk lets other threads run.
Index builds run in a child process. It shares the folder's engine with every other client of the process.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qdrant_client import AsyncQdrantClient
from qdrant_client.async_client_base import AsyncQdrantBase
from qdrant_client.async_qdrant_fastembed import AsyncQdrantFastembedMixin
from qdrant_client.embed.type_inspector import Inspector

from qdrant_tools.edge.backend import EdgeBackend
from qdrant_tools.edge.errors import passing_errors, translate_argument_errors
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.errors import NotSupportedError


class AsyncEdgeBackend(AsyncQdrantBase):
    """The methods of `EdgeBackend`, awaited. The bulk loads are plain calls, as in qdrant-client."""

    def __init__(self, backend: EdgeBackend) -> None:
        super().__init__()
        self.backend = backend

    def upload_points(self, *args: Any, **kwargs: Any) -> None:
        self.backend.upload_points(*args, **kwargs)

    def upload_collection(self, *args: Any, **kwargs: Any) -> None:
        self.backend.upload_collection(*args, **kwargs)

    def migrate(self, *_args: Any, **_kwargs: Any) -> None:
        raise NotSupportedError("migrate: use it on a client of connect(), not of aconnect()")


def _awaited(name: str) -> Callable[..., Any]:
    async def method(self: AsyncEdgeBackend, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getattr(self.backend, name), *args, **kwargs)

    method.__name__ = name
    return method


def _await_the_rest() -> None:
    """Give every coroutine of `AsyncQdrantBase` the backend's method of the same name."""
    for name, member in inspect.getmembers(AsyncQdrantBase, inspect.iscoroutinefunction):
        if getattr(AsyncEdgeBackend, name) is member:  # not defined by the class above
            setattr(AsyncEdgeBackend, name, _awaited(name))


_await_the_rest()


class AsyncEmbeddedClient(AsyncQdrantClient):
    """All methods of `AsyncQdrantClient`, on collections in a folder; and `build_index` and `flush`.

    Raises `LocationError` and `LocationBusyError` as `EmbeddedClient` does.
    """

    def __init__(self, folder: str | Path, *, create: bool = True, readers: int = 0, read_only: bool = False) -> None:
        # not AsyncQdrantClient.__init__: it would set up a server connection or another engine
        backend = AsyncEdgeBackend(EdgeBackend(Path(folder), create=create, readers=readers, read_only=read_only))
        self._client: AsyncEdgeBackend = backend
        self.cloud_inference = False
        self.local_inference_batch_size: int | None = None
        self._inference_inspector = Inspector()
        AsyncQdrantFastembedMixin.__init__(self, parser=self._inference_inspector.parser, is_local_mode=True)

    def __repr__(self) -> str:
        return f"AsyncEmbeddedClient({str(self.folder)!r})"

    # closing needs an event loop; a client that is only dropped must not keep the folder locked
    def __del__(self) -> None:
        if hasattr(self, "_client"):
            self._client.backend.close()

    @property
    def folder(self) -> Path:
        """Where the collections live."""
        return self.engine.root

    @property
    def engine(self) -> Engine:
        """The open folder: its collections, and what this project does with their files."""
        return self._client.backend.engine

    @property
    def init_options(self) -> dict[str, Any]:
        # another client made from such options would open the folder with another engine
        raise NotSupportedError("an embedded client has no init_options: use connect() or aconnect() on its folder")

    def upload_points(self, collection_name: str, points: Any, *args: Any, **kwargs: Any) -> None:
        super().upload_points(collection_name, passing_errors(points), *args, **kwargs)

    def upload_collection(
        self, collection_name: str, vectors: Any, payload: Any = None, ids: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        columns = map(passing_errors, (vectors, payload, ids))
        super().upload_collection(collection_name, *columns, *args, **kwargs)

    async def build_index(self, collection_name: str) -> bool:
        """Build what is due now: HNSW, quantisation, removal of deleted points. False if nothing was due."""
        return await asyncio.to_thread(self._client.backend.build_index, collection_name)

    async def flush(self, collection_name: str) -> None:
        """Make every acknowledged write survive a power failure; it survives the end of the process anyway."""
        await asyncio.to_thread(self._client.backend.flush, collection_name)

    async def readers_ready(self, collection_name: str) -> bool:
        """Whether all readers would answer a search of this collection now; asking makes them get ready."""
        return await asyncio.to_thread(self._client.backend.readers_ready, collection_name)


translate_argument_errors(AsyncEmbeddedClient, [name for name in dir(AsyncEmbeddedClient) if not name.startswith("_")])
