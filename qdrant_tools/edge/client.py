"""`EmbeddedClient`: a `QdrantClient` over the embedded engine, accepted wherever that class is.

The embedded engine as qdrant-client's `QdrantBase`: what stands behind a client instead of a server.

Guarantees: every method of `QdrantBase` either does what it does on a server or raises `NotSupportedError`.

The client's reading methods and rankings, answered by a reader process if one can and by this process otherwise.

Guarantees: what this process would answer, its errors too: whatever a reader refuses is asked here again.
Does not know: how readers are kept in step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.client_base import QdrantBase
from qdrant_client.conversions import common_types as types
from qdrant_client.embed.type_inspector import Inspector
from qdrant_client.http import models
from qdrant_client.qdrant_fastembed import QdrantFastembedMixin

from qdrant_tools.edge.catalog import CatalogMethods
from qdrant_tools.edge.errors import callers, refuse_odd_arguments
from qdrant_tools.edge.rankings import Found, VectorQueries, engine_found, joined
from qdrant_tools.edge.readers.pool import NotAnsweredError, checked_readers, start_readers
from qdrant_tools.edge.reads import ReadMethods
from qdrant_tools.edge.storage.engine import Engine, acquire, release
from qdrant_tools.edge.writes import WriteMethods
from qdrant_tools.errors import NotSupportedError, PlusError

PART = 32  # queries that are worth a process of their own
ROUTED = (
    "query_points",
    "query_batch_points",
    "query_points_groups",
    "search_matrix_pairs",
    "search_matrix_offsets",
    "facet",
    "count",
    "scroll",
)
"""Reading points by their ids takes less than to ask another process."""
PARTS = "found"
"""The method that answers a part of many queries."""


def routed(
    engine: Engine, name: str, method: str, arguments: tuple[Any, ...], options: dict[str, Any], here: Callable[[], Any]
) -> Any:
    """The answer of a reader, or of `here`."""
    pool = engine.readers
    if pool is None:
        return here()
    collection = engine.collection(name)
    if method != PARTS and not pool.helps(collection):
        return here()
    try:
        return pool.ask(collection, method, arguments, options)
    except NotAnsweredError as refusal:
        answer = here()
        if refusal.reason:
            pool.disagreed(collection, refusal.reason)
        return answer


class RoutedReads(QdrantBase):
    """Searches, by a reader if one can and by this process otherwise: before `ReadMethods` among the bases."""

    engine: Engine


def _route(name: str) -> Callable[..., Any]:
    @wraps(getattr(ReadMethods, name))
    def method(self: RoutedReads, collection_name: str, *arguments: Any, **options: Any) -> Any:
        here = getattr(super(RoutedReads, self), name)
        return routed(
            self.engine, collection_name, name, arguments, options, lambda: here(collection_name, *arguments, **options)
        )

    return method


for _name in ROUTED:
    setattr(RoutedReads, _name, _route(_name))


def found(engine: Engine, name: str, queries: VectorQueries) -> Found:
    """What query vectors find, in parts by several readers at once."""
    pool = engine.readers
    parts = 1 if pool is None else max(1, min(pool.size, len(queries.vectors) // PART))
    ends = [len(queries.vectors) * number // parts for number in range(parts + 1)]
    pieces = [queries.part(start, end) for start, end in itertools.pairwise(ends)]

    def answer(piece: VectorQueries) -> Found:
        result: Found = routed(engine, name, PARTS, (piece,), {}, lambda: engine_found(engine, name, piece))
        return result

    if pool is None or parts == 1:
        return answer(pieces[0])
    return joined(list(pool.parts.map(answer, pieces)))


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


class EmbeddedClient(QdrantClient):
    """All methods of `QdrantClient`, on collections in a folder; and `build_index` and `flush`.

    Several clients of one process share one engine per folder. A second process is refused with
    `LocationBusyError`. Raises `LocationError` for a folder that is not ours, or absent with `create=False`.
    """

    def __init__(self, folder: str | Path, *, create: bool = True, readers: int = 0) -> None:
        # not QdrantClient.__init__: it would set up a server connection or another engine
        backend = EdgeBackend(Path(folder), create=create, readers=readers)
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
        return self._client.engine.root

    @property
    def init_options(self) -> dict[str, Any]:
        # another client made from such options would open the folder with another engine
        raise NotSupportedError("an embedded client has no init_options: use connect() or aconnect() on its folder")

    # Every call of QdrantClient looks for texts and images to embed first, number by number, and copies requests
    # deeply. For the calls that decide throughput, plain numbers are recognised at a glance and go straight to the
    # engine.

    def upsert(self, collection_name: str, points: types.Points, *args: Any, **kwargs: Any) -> types.UpdateResult:
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
        super().upload_points(collection_name, callers(points), *args, **kwargs)

    def upload_collection(
        self, collection_name: str, vectors: Any, payload: Any = None, ids: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        super().upload_collection(collection_name, callers(vectors), callers(payload), callers(ids), *args, **kwargs)

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
    return type(vector) is np.ndarray or (type(vector) is list and len(vector) > 0 and type(vector[0]) is float)


def _is_plain_request(request: Any) -> bool:
    return type(request) is models.QueryRequest and _is_plain_vector(request.query) and request.prefetch is None


def _is_plain_point(point: Any) -> bool:
    return type(point) is models.PointStruct and _is_plain_vector(point.vector)


refuse_odd_arguments(EmbeddedClient, [name for name in dir(EmbeddedClient) if not name.startswith("_")])
