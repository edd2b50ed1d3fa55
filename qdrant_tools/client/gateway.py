"""The calls to one collection of a Qdrant client, with this project's errors and with one rule for trying again.

Every call to a client goes through a `Gateway`, or, where only one place makes it, through `engine_errors`. What comes
out is a `PlusError` of one line, with the original as its `__cause__`.

A call that may be made twice is tried again while the server is silent or busy (`DEFAULT_RETRY`): reads, writes of
points, changes of settings. Others fail at once: searches, because somebody waits for the answer; the lists of
collections and aliases, which a program asks for first; what creates or drops, because the second answer would be
another one. A refused key or request is never tried again. Only the call itself is repeated, so that what was computed
for it is not computed twice. The engines in this process raise nothing that is tried again.

Does not know: passages, encoders.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from qdrant_tools.client.connect import embedded_client, own_connections
from qdrant_tools.errors import (
    CollectionNotFoundError,
    EngineError,
    InputError,
    PlusError,
    UnreachableError,
    without_keys,
)
from qdrant_tools.records import ScoredIds, Vectors

SEARCHES_AT_ONCE = 64
"""Queries per round trip: enough to keep a server busy, few enough to bound the answer."""

PointId = str | int

Result = TypeVar("Result")


@dataclass(frozen=True)
class Gateway:
    """The calls to the collection `name` (or to the one behind that alias)."""

    client: QdrantClient
    name: str

    def __post_init__(self) -> None:
        own_connections(self.client)  # whoever made it

    def exists(self) -> bool:
        return self._retried("look for", lambda: self.client.collection_exists(self.name))

    def info(self) -> models.CollectionInfo:
        """Its configuration, metadata, payload indexes and numbers of points."""
        return self._retried("open", lambda: self.client.get_collection(self.name))

    def count(self, count_filter: models.Filter | None = None) -> int:
        """The exact number of points, or of those that match."""
        # exact, because a promotion and a restored snapshot compare counts
        return self._retried(
            "count the points of", lambda: self.client.count(self.name, count_filter, exact=True).count
        )

    def retrieve(
        self,
        ids: Sequence[models.ExtendedPointId],
        *,
        with_payload: bool | list[str] = True,
        with_vectors: bool | list[str] = False,
    ) -> list[models.Record]:
        """Points by their ids; those that are not there are left out."""
        if not ids:
            return []
        return self._retried(
            "read from",
            lambda: self.client.retrieve(self.name, list(ids), with_payload=with_payload, with_vectors=with_vectors),
        )

    def pages(
        self,
        *,
        batch_size: int,
        with_payload: bool | list[str] = True,
        with_vectors: bool | list[str] = False,
        scroll_filter: models.Filter | None = None,
    ) -> Iterator[list[models.Record]]:
        """All points, or those that match, in the order of their ids, `batch_size` at a time."""
        offset: Any = None
        while True:
            # the offset is an id, so that a page can be read again, and points that are deleted meanwhile skip none
            records, offset = self._retried(
                "read from",
                lambda start=offset: self.client.scroll(  # type: ignore[misc]
                    self.name,
                    scroll_filter,
                    limit=batch_size,
                    offset=start,
                    with_payload=with_payload,
                    with_vectors=with_vectors,
                ),
            )
            if records:
                yield records
            if offset is None:
                return

    def upsert(self, points: list[models.PointStruct]) -> None:
        """Write whole points; returns when they are stored."""
        self._retried("write to", lambda: self.client.upsert(self.name, points, wait=True))

    def overwrite_payloads(self, payloads: Sequence[tuple[models.Filter, Mapping[str, Any]]]) -> None:
        """Give the points that match each filter another payload; they keep their vectors."""
        operations = [
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload=dict(payload), filter=matching)
            )
            for matching, payload in payloads
        ]
        self._retried("write payloads to", lambda: self.client.batch_update_points(self.name, operations, wait=True))

    def set_payloads(self, changes: Sequence[models.SetPayload]) -> None:
        """Write fields of payloads and leave the others; returns when they are stored."""
        operations = [models.SetPayloadOperation(set_payload=change) for change in changes]
        self._retried("write payloads to", lambda: self.client.batch_update_points(self.name, operations, wait=True))

    def update_vectors(self, vectors: list[models.PointVectors], *, update_filter: models.Filter) -> None:
        """Write vectors of the points that match; returns when they are stored."""
        self._retried(
            "write vectors to",
            lambda: self.client.update_vectors(self.name, vectors, wait=True, update_filter=update_filter),
        )

    def delete_vectors(self, names: Sequence[str], delete_filter: models.Filter) -> None:
        """Delete the vectors of these names from the points that match; the points stay."""
        selector = models.FilterSelector(filter=delete_filter)
        self._retried(
            "delete vectors of", lambda: self.client.delete_vectors(self.name, list(names), selector, wait=True)
        )

    def delete(self, ids: Sequence[models.ExtendedPointId]) -> None:
        """Delete points; returns when they are gone."""
        points = models.PointIdsList(points=list(ids))
        self._retried("delete from", lambda: self.client.delete(self.name, points, wait=True))

    def delete_matching(self, delete_filter: models.Filter) -> None:
        """Delete the points that match; returns when they are gone."""
        points = models.FilterSelector(filter=delete_filter)
        self._retried("delete from", lambda: self.client.delete(self.name, points, wait=True))

    def update(self, **changes: Any) -> None:
        """Change settings or metadata: the arguments of `QdrantClient.update_collection`. Metadata is merged by key."""
        self._retried("change", lambda: self.client.update_collection(self.name, **changes))

    def index_payload(self, field: str, schema: models.PayloadSchemaType | Any) -> None:
        """Make a payload index."""
        self._retried("index the payload of", lambda: self.client.create_payload_index(self.name, field, schema))

    def drop_payload_index(self, field: str) -> None:
        self._retried("remove a payload index of", lambda: self.client.delete_payload_index(self.name, field))

    def query(self, query: Any, **options: Any) -> list[models.ScoredPoint]:
        """One search: the arguments of `QdrantClient.query_points`."""
        # searches are not tried again: somebody waits for the answer
        with engine_errors(f"search collection {self.name!r}"):
            return self.client.query_points(self.name, query=query, **options).points

    def query_batch(self, requests: Sequence[models.QueryRequest]) -> list[list[models.ScoredPoint]]:
        """The points that each request finds; `SEARCHES_AT_ONCE` are sent at a time."""
        found: list[list[models.ScoredPoint]] = []
        for start in range(0, len(requests), SEARCHES_AT_ONCE):
            block = requests[start : start + SEARCHES_AT_ONCE]
            with engine_errors(f"search collection {self.name!r}"):
                responses = self.client.query_batch_points(self.name, block)
            found.extend(response.points for response in responses)
        return found

    def query_groups(self, group_by: str, **options: Any) -> list[models.PointGroup]:
        """One search by groups: the arguments of `QdrantClient.query_points_groups`."""
        with engine_errors(f"search collection {self.name!r}"):
            return self.client.query_points_groups(self.name, group_by, **options).groups

    def rankings(
        self,
        vectors: Vectors,
        limits: Sequence[int],
        *,
        using: str | None = None,
        params: models.SearchParams | None = None,
        query_filter: models.Filter | None = None,
    ) -> list[ScoredIds]:
        """The ids and scores of the points nearest to each query vector (n, dimension), in the order of the engine.

        A client of the embedded engine makes no `ScoredPoint` for that, which costs more than the search, and asks all
        its readers at once.
        """
        if not len(vectors):
            return []
        embedded = embedded_client(self.client)
        if embedded is not None:
            with engine_errors(f"search collection {self.name!r}"):
                return embedded.rankings(
                    self.name, vectors, limits, using=using, params=params, query_filter=query_filter
                )
        template = models.QueryRequest(using=using, params=params, filter=query_filter, with_payload=False)
        requests = [
            template.model_copy(update={"query": row, "limit": limit})
            for row, limit in zip(vectors.tolist(), limits, strict=True)
        ]
        # float32, as the embedded engine gives them: the same scores tie on every engine
        return [
            ([plain_id(point.id) for point in points], np.array([point.score for point in points], dtype=np.float32))
            for points in self.query_batch(requests)
        ]

    def sample(self, size: int, *, with_vectors: bool | list[str] = False) -> list[models.Record]:
        """Random points with their payload, each at most once."""
        query = models.SampleQuery(sample=models.Sample.RANDOM)
        points = self.query(query, limit=size, with_payload=True, with_vectors=with_vectors)
        return [models.Record(id=point.id, payload=point.payload, vector=point.vector) for point in points]

    def create(self, **options: Any) -> None:
        """Create the collection: the arguments of `QdrantClient.create_collection`."""
        # not tried again: where only the answer was lost, the second try fails with "already there"
        with engine_errors(f"create collection {self.name!r}"):
            self.client.create_collection(self.name, **options)

    def drop(self) -> None:
        """Delete the collection and its points."""
        with engine_errors(f"drop collection {self.name!r}"):
            self.client.delete_collection(self.name)

    def _retried(self, doing: str, call: Callable[[], Result]) -> Result:
        def attempt() -> Result:
            with engine_errors(f"{doing} collection {self.name!r}"):
                return call()

        return DEFAULT_RETRY(attempt)


def metadata_in(info: models.CollectionInfo) -> Mapping[str, Any]:
    """All metadata of a collection, ours and that of other programs."""
    return info.config.metadata or {}


def aliases_of(client: QdrantClient) -> dict[str, str]:
    """Alias -> collection."""
    with engine_errors("list aliases"):
        return {entry.alias_name: entry.collection_name for entry in client.get_aliases().aliases}


def plain_id(value: Any) -> PointId:
    """The id of a point as a number or a string: some clients hand out `UUID` objects."""
    return value if isinstance(value, int) else str(value)


@dataclass(frozen=True)
class Retry:
    """Exponential back-off with full jitter: `attempts` in all; `first` and `longest` are waits in seconds.

    The wait after failure n (from 0) is drawn from 0 to min(longest, first * 2^n) seconds, so that many clients of a
    server that comes back do not come back at once (Brooker, "Exponential backoff and jitter", AWS Architecture Blog,
    2015). A server that says how long to wait (Retry-After) is waited for, up to `longest`.
    """

    attempts: int = 6
    first: float = 0.5
    longest: float = 15.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first < 0 or self.longest < self.first:
            raise InputError(f"{self}: expected at least 1 attempt, and waits of 0 <= first <= longest seconds")

    def __call__(self, call: Callable[[], Result]) -> Result:
        """The result of `call()`, tried again where that may help; the last error leaves as it is."""
        for attempt in range(self.attempts - 1):
            try:
                return call()
            except UnreachableError as error:
                if not is_retryable(error):
                    raise
                requested = getattr(error.__cause__, "retry_after_s", 0)  # by a busy server
            wait = random.uniform(0, min(self.longest, self.first * 2**attempt))
            time.sleep(max(wait, min(self.longest, requested)))
        return call()


DEFAULT_RETRY = Retry()
"""Waits of 15.5 seconds at most, of half that on average, in addition to the time of the calls themselves."""


def is_retryable(error: UnreachableError) -> bool:
    """Whether the same call may succeed a little later: the server was silent or busy, and did not refuse the key."""
    cause = error.__cause__
    if isinstance(cause, UnexpectedResponse):
        return cause.status_code not in (401, 403)
    return not (isinstance(cause, grpc.Call) and cause.code() in _NO_ACCESS)


_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_NO_ACCESS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Translate what a Qdrant client raises inside the block. `doing` reads "search collection 'docs'"."""
    try:
        yield
    # first, because the embedded client raises our own errors, and some of them are ValueErrors as well
    except PlusError:
        raise
    # qdrant-client's wrapper around every failure of the network, and around an answer that it cannot parse
    except ResponseHandlingException as error:
        raise UnreachableError(f"cannot {doing}: the server does not answer ({_line(error.source)})") from error
    except ResourceExhaustedResponse as error:  # 429 with a Retry-After header
        raise UnreachableError(f"cannot {doing}: the server is not ready (429: {_line(error)})") from error
    except UnexpectedResponse as error:
        raise _from_status(doing, error) from error
    except grpc.RpcError as error:
        raise _from_grpc(doing, error) from error
    except (QdrantException, ValueError, TypeError, RuntimeError, KeyError) as error:
        # the clients without a server raise built-in errors for what a server would refuse
        raise EngineError(f"cannot {doing}: {_line(error)}") from error


def _from_status(doing: str, error: UnexpectedResponse) -> PlusError:
    message = _line(error.content[:10_000].decode("utf-8", "replace") if error.content else error.reason_phrase)
    if error.status_code in (401, 403):
        return UnreachableError(f"cannot {doing}: the server refuses the API key ({error.status_code}: {message})")
    # also what an older server answers to a request that it does not know
    if error.status_code == 404:
        return CollectionNotFoundError(f"cannot {doing}: {message}")
    if error.status_code in (429, 502, 503, 504):
        return UnreachableError(f"cannot {doing}: the server is not ready ({error.status_code}: {message})")
    return EngineError(f"cannot {doing}: the server answers {error.status_code}: {message}")


def _from_grpc(doing: str, error: grpc.RpcError) -> PlusError:
    code = error.code() if isinstance(error, grpc.Call) else None
    message = _line(error.details() if isinstance(error, grpc.Call) else error)
    if code in _NO_ANSWER:
        return UnreachableError(f"cannot {doing}: the server does not answer ({message})")
    if code in _NO_ACCESS:
        return UnreachableError(f"cannot {doing}: the server refuses the API key ({message})")
    if code == grpc.StatusCode.NOT_FOUND:
        return CollectionNotFoundError(f"cannot {doing}: {message}")
    return EngineError(f"cannot {doing}: {message}")


def _line(value: object) -> str:
    """A foreign message in one line, cut where it is long."""
    # cut first as well: a server may answer with megabytes
    text = " ".join(without_keys(str(value)[:10_000]).split()) or type(value).__name__
    return text if len(text) <= 300 else text[:297] + "..."
