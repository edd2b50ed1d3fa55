"""`EdgeBackend`: qdrant-client's `QdrantBase` over the engine of a folder, where other clients have a server.

Searches go to a reader process if one is ready and worth the detour, and to the engine of this process otherwise.

Guarantees: every method of `QdrantBase` does what it does on a server, or raises `NotSupportedError`. Results and
errors do not depend on who answers: this process repeats whatever a reader refuses.
Does not know: how readers follow the writes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qdrant_client.client_base import QdrantBase
from qdrant_client.http import models

from qdrant_tools.edge.catalog import CatalogMethods
from qdrant_tools.edge.errors import translate_argument_errors
from qdrant_tools.edge.rankings import Rankings, VectorQueries, engine_rankings, joined
from qdrant_tools.edge.readers.pool import NotAnsweredError, checked_readers, start_readers
from qdrant_tools.edge.reads import ReadMethods
from qdrant_tools.edge.storage.engine import Engine, acquire, release
from qdrant_tools.edge.writes import WriteMethods
from qdrant_tools.errors import NotSupportedError, PlusError

ENGINE = "qdrant-edge"
QUERIES_PER_PART = 32
"""A part has at least so many queries: for fewer another process is not worth it."""
RANKINGS = "rankings"
"""The readers' method that answers a part of many queries."""
# not `retrieve`: reading points by their ids takes less time than asking another process
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


def routed(
    engine: Engine,
    name: str,
    method: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    answer_here: Callable[[], Any],
) -> Any:
    """The answer of a reader, or of `answer_here`."""
    pool = engine.readers
    if pool is None:
        return answer_here()
    collection = engine.collection(name)
    if method != RANKINGS and not pool.is_worthwhile(collection):
        return answer_here()
    try:
        return pool.request(collection, method, arguments, options)
    except NotAnsweredError as refusal:
        answer = answer_here()  # raises if the request itself is at fault: the reader was right then
        if refusal.reason:  # the reader failed where this process does not
            pool.report_failure(collection, refusal.reason)
        return answer


class RoutedReads(QdrantBase):
    """The methods of `ROUTED`. This class stands before `ReadMethods` among the bases, whose methods answer here."""

    engine: Engine

    def rankings(self, name: str, queries: VectorQueries) -> Rankings:
        """The rankings of many query vectors, in parts by several readers at once."""
        pool = self.engine.readers
        count = len(queries.vectors)
        parts = 1 if pool is None else max(1, min(pool.size, count // QUERIES_PER_PART))
        bounds = [count * number // parts for number in range(parts + 1)]

        def answer(part: VectorQueries) -> Rankings:
            rankings: Rankings = routed(
                self.engine, name, RANKINGS, (part,), {}, lambda: engine_rankings(self.engine, name, part)
            )
            return rankings

        if pool is None or parts == 1:
            return answer(queries)
        return joined(list(pool.executor.map(answer, itertools.starmap(queries.part, itertools.pairwise(bounds)))))


def _routed_method(name: str) -> Callable[..., Any]:
    @wraps(getattr(ReadMethods, name))
    def method(self: RoutedReads, collection_name: str, *arguments: Any, **options: Any) -> Any:
        own = getattr(super(RoutedReads, self), name)
        return routed(
            self.engine, collection_name, name, arguments, options, lambda: own(collection_name, *arguments, **options)
        )

    return method


# real methods of the class, so that `super()` finds those of `ReadMethods` behind them
for _name in ROUTED:
    setattr(RoutedReads, _name, _routed_method(_name))


class EdgeBackend(RoutedReads, CatalogMethods, WriteMethods, ReadMethods):
    """One user of a folder's engine; the engine closes with its last user."""

    def __init__(self, root: Path, *, create: bool = True, readers: int = 0, read_only: bool = False) -> None:
        super().__init__()
        checked_readers(readers)
        self.engine = acquire(root, create=create, read_only=read_only)
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
translate_argument_errors(EdgeBackend, [name for name in dir(QdrantBase) if not name.startswith("_")])
