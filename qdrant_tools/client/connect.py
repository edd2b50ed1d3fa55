"""One location -> one client: a server or cloud URL, a folder (the embedded engine), or ":memory:".

Guarantees: what comes back is a `QdrantClient`; an API key appears in no repr, log or error of ours; a folder is
opened by one process at a time. Does not know: encoders, passages.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from grpc import RpcError, StatusCode
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal

from qdrant_tools.errors import LocationError, UnreachableError, UsageError, first_line
from qdrant_tools.validation import brief

if TYPE_CHECKING:
    from qdrant_tools.edge.client import EmbeddedClient

API_KEY_VARIABLE = "QDRANT_API_KEY"
MEMORY = ":memory:"

EngineName = Literal["qdrant-edge", "memory", "server"]


class Secret(str):
    """A text that shows itself only to those who use it, not in a repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class ServerOptions:
    """What only a server needs. The key appears in no repr."""

    api_key: Secret | None
    timeout: int | None
    prefer_grpc: bool


def connect(
    location: str | Path,
    *,
    api_key: str | None = None,
    timeout: int | None = None,
    prefer_grpc: bool = False,
    create: bool = True,
    readers: int = 0,
) -> QdrantClient:
    """Return a client of the collections at `location`.

    `location` is an http(s) URL, a folder, or ":memory:". `api_key` (default: the environment's QDRANT_API_KEY),
    `timeout` (seconds) and `prefer_grpc` concern a server. With `create=False` a folder without collections is an
    error and nothing is written. `readers` processes answer searches of a folder's large collections: threads of one
    process search one after another. Raises `LocationError`, `LocationBusyError`, `UnreachableError`, `UsageError`.
    """
    _check_readers(location, readers)
    options = server_options(location, api_key, timeout, prefer_grpc)
    if options is not None:
        return _answering(str(location), options)
    if str(location) == MEMORY:
        return QdrantClient(MEMORY)
    # imported here: a client of a server needs no engine in its process
    from qdrant_tools.edge.client import EmbeddedClient

    return EmbeddedClient(Path(location), create=create, readers=readers)


def aconnect(
    location: str | Path,
    *,
    api_key: str | None = None,
    timeout: int | None = None,
    prefer_grpc: bool = False,
    create: bool = True,
    readers: int = 0,
) -> AsyncQdrantClient:
    """Return what `connect` returns, with methods to await. Clients of one folder share one engine.

    Two clients of ":memory:" share nothing: each has collections of its own.
    """
    _check_readers(location, readers)
    options = server_options(location, api_key, timeout, prefer_grpc)
    if options is not None:
        # asked once by a plain client, because nothing can be awaited in this function
        _answering(str(location), options).close()
        with _key_over_http_allowed():
            return AsyncQdrantClient(**_arguments(str(location), options))
    if str(location) == MEMORY:
        return AsyncQdrantClient(MEMORY)
    from qdrant_tools.edge.async_client import AsyncEmbeddedClient

    return AsyncEmbeddedClient(Path(location), create=create, readers=readers)


def engine_of(client: QdrantClient | AsyncQdrantClient) -> EngineName:
    """Which engine answers this client."""
    from qdrant_tools.edge.async_client import AsyncEmbeddedClient
    from qdrant_tools.edge.client import EmbeddedClient

    if isinstance(client, (EmbeddedClient, AsyncEmbeddedClient)):
        return "qdrant-edge"
    return "memory" if isinstance(client._client, (QdrantLocal, AsyncQdrantLocal)) else "server"


def embedded_client(client: QdrantClient) -> EmbeddedClient | None:
    """The client itself if it is the embedded engine's, None otherwise."""
    from qdrant_tools.edge.client import EmbeddedClient

    return client if isinstance(client, EmbeddedClient) else None


def server_options(
    location: str | Path, api_key: str | None, timeout: int | None, prefer_grpc: bool
) -> ServerOptions | None:
    """The options for a server's URL, None for another location. Raises `LocationError`, `UsageError`."""
    if not isinstance(location, (str, Path)):
        raise LocationError(f"location is {brief(location)}, expected a folder, a server URL or ':memory:'")
    text = str(location)
    if is_url(text):
        key = api_key or os.environ.get(API_KEY_VARIABLE)
        return ServerOptions(Secret(key) if key else None, timeout, prefer_grpc)
    if not text.strip():
        raise LocationError("the location is empty: give a folder, a server URL or ':memory:'")
    if api_key is not None or timeout is not None or prefer_grpc:
        raise UsageError(f"api_key, timeout and prefer_grpc are for a server URL, but the location is '{text}'")
    return None


def _check_readers(location: str | Path, readers: int) -> None:
    if readers and (str(location) == MEMORY or is_url(str(location))):
        raise UsageError(f"readers are for a folder, but the location is '{location}': drop readers={readers!r}")


def is_url(location: str) -> bool:
    """Whether a location is a server's URL. Raises `UsageError` for what looks like one and is not."""
    if re.match(r"https?://", location, re.IGNORECASE):
        return True
    # otherwise "localhost:6333" would be taken for a folder, and made
    if re.match(r"[a-z]+://", location, re.IGNORECASE) or re.fullmatch(r"[\w.-]+:\d+", location):
        raise UsageError(f"location '{location}' looks like a server address: write it as http://host:port")
    return False


def _arguments(url: str, options: ServerOptions) -> dict[str, Any]:
    """qdrant-client's arguments; the port is 6333 unless the URL has one."""
    return {
        "url": url,
        "port": None if re.match(r"https?://[^/]+:\d+", url, re.IGNORECASE) else 6333,
        "api_key": options.api_key,
        "timeout": options.timeout,
        "prefer_grpc": options.prefer_grpc,
        "check_compatibility": False,  # it asks the server and only warns; we ask and raise
    }


@contextmanager
def _key_over_http_allowed() -> Iterator[None]:
    # a key over plain http is the caller's decision, for example inside a private network
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        yield


def _answering(url: str, options: ServerOptions) -> QdrantClient:
    """Return a client of a server that has answered once. Raises `UnreachableError`."""
    with _key_over_http_allowed():
        client = QdrantClient(**_arguments(url, options))
    try:
        # making the client asks the server nothing; this needs an address that answers and a key that is accepted
        client.get_collections()
    except (ApiException, RpcError) as error:
        client.close()
        raise UnreachableError(_refusal(url, options, error)) from error
    return client


def _refusal(url: str, options: ServerOptions, error: Exception) -> str:
    """Why a server did not answer as hoped, in one line."""
    status = error.status_code if isinstance(error, UnexpectedResponse) else None
    code = error.code() if isinstance(error, RpcError) else None
    if status in (401, 403) or code in (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED):
        way_out = f"check the key in {API_KEY_VARIABLE} or api_key" if options.api_key else f"set {API_KEY_VARIABLE}"
        return f"server '{url}' refuses access ({status if code is None else code.name}): {way_out}"
    if status is not None:
        return f"'{url}' answers {status}: is it a Qdrant server?"
    reason = code.name if code is not None else first_line(error)
    return f"server '{url}' does not answer ({reason}): is it running, and is the port right?"
