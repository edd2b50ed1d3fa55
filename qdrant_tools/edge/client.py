"""`EmbeddedClient`: a `QdrantClient` over the embedded engine, accepted wherever that class is.

Guarantees: every method of `QdrantClient` does what it does on a server, or raises `NotSupportedError`; every error is
a `PlusError`. Does not know: how the engine keeps a folder, who answers a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.conversions import common_types as types
from qdrant_client.embed.type_inspector import Inspector
from qdrant_client.http import models
from qdrant_client.qdrant_fastembed import QdrantFastembedMixin

from qdrant_tools.edge.backend import EdgeBackend
from qdrant_tools.edge.errors import passing_errors, translate_argument_errors
from qdrant_tools.edge.rankings import VectorQueries
from qdrant_tools.edge.storage.engine import Engine
from qdrant_tools.errors import NotSupportedError
from qdrant_tools.records import ScoredIds, Vectors


class EmbeddedClient(QdrantClient):
    """All methods of `QdrantClient`, on collections in a folder; also `build_index`, `flush` and `rankings`.

    Several clients of one process share one engine per folder. A second process is refused with `LocationBusyError`,
    unless all are `read_only`. Raises `LocationError` for a folder that is not ours, or absent with `create=False`.
    """

    def __init__(self, folder: str | Path, *, create: bool = True, readers: int = 0, read_only: bool = False) -> None:
        # not QdrantClient.__init__: it would set up a server connection or another engine
        backend = EdgeBackend(Path(folder), create=create, readers=readers, read_only=read_only)
        self._client: EdgeBackend = backend
        self.cloud_inference = False
        self.local_inference_batch_size: int | None = None
        self._inference_inspector = Inspector()
        QdrantFastembedMixin.__init__(self, parser=self._inference_inspector.parser, is_local_mode=True)

    def __repr__(self) -> str:
        return f"EmbeddedClient({str(self.folder)!r})"

    @property
    def folder(self) -> Path:
        """Where the collections live."""
        return self.engine.root

    @property
    def engine(self) -> Engine:
        """The open folder: its collections, and what this project does with their files."""
        return self._client.engine

    @property
    def init_options(self) -> dict[str, Any]:
        # another client made from such options would open the folder with another engine
        raise NotSupportedError("an embedded client has no init_options: use connect() or aconnect() on its folder")

    # QdrantClient looks for texts and images to embed in every call, number by number, and copies requests deeply.
    # In the calls that decide throughput, requests of plain numbers go straight to the engine.

    def upsert(self, collection_name: str, points: types.Points, *args: Any, **kwargs: Any) -> types.UpdateResult:
        # arguments by position are left to QdrantClient, which knows their order
        if args or not isinstance(points, list) or not all(map(_is_plain_point, points)):
            return super().upsert(collection_name, points, *args, **kwargs)
        return self._client.upsert(collection_name, points, **kwargs)

    def query_points(self, collection_name: str, query: Any = None, *args: Any, **kwargs: Any) -> types.QueryResponse:
        if args or not _is_plain_vector(query) or kwargs.get("prefetch") is not None:
            return super().query_points(collection_name, query, *args, **kwargs)
        return self._client.query_points(collection_name, query, **kwargs)

    def query_batch_points(
        self, collection_name: str, requests: Sequence[types.QueryRequest], *args: Any, **kwargs: Any
    ) -> list[types.QueryResponse]:
        if args or not all(map(_is_plain_request, requests)):
            return super().query_batch_points(collection_name, requests, *args, **kwargs)
        return self._client.query_batch_points(collection_name, requests, **kwargs)

    def upload_points(self, collection_name: str, points: Any, *args: Any, **kwargs: Any) -> None:
        super().upload_points(collection_name, passing_errors(points), *args, **kwargs)

    def upload_collection(
        self, collection_name: str, vectors: Any, payload: Any = None, ids: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        columns = map(passing_errors, (vectors, payload, ids))
        super().upload_collection(collection_name, *columns, *args, **kwargs)

    def rankings(
        self,
        collection_name: str,
        vectors: Vectors,
        limits: Sequence[int],
        *,
        using: str | None = None,
        params: models.SearchParams | None = None,
        query_filter: models.Filter | None = None,
    ) -> list[ScoredIds]:
        """Ids and scores of the points nearest to each query vector (n, dimension), `limits` (n) of them.

        They are those of `query_batch_points`, without an object for each hit, and by all readers at once.
        """
        queries = VectorQueries(vectors, limits, using, params, query_filter)
        return self._client.rankings(collection_name, queries).of_each_query()

    def build_index(self, collection_name: str) -> bool:
        """Build what is due now: HNSW, quantisation, removal of deleted points. False if nothing was due."""
        return self._client.build_index(collection_name)

    def flush(self, collection_name: str) -> None:
        """Make every acknowledged write survive a power failure; it survives the end of the process anyway."""
        self._client.flush(collection_name)

    def readers_ready(self, collection_name: str) -> bool:
        """Whether all readers would answer a search of this collection now; asking makes them get ready.

        Without readers, and for a collection too small for them, never.
        """
        return self._client.readers_ready(collection_name)


def _is_plain_vector(vector: Any) -> bool:
    # the first number decides: looking at all would cost what is saved here, and the engine's check does it anyway
    return type(vector) is np.ndarray or (type(vector) is list and len(vector) > 0 and type(vector[0]) is float)


def _is_plain_request(request: Any) -> bool:
    return type(request) is models.QueryRequest and _is_plain_vector(request.query) and request.prefetch is None


def _is_plain_point(point: Any) -> bool:
    return type(point) is models.PointStruct and _is_plain_vector(point.vector)


translate_argument_errors(EmbeddedClient, [name for name in dir(EmbeddedClient) if not name.startswith("_")])
