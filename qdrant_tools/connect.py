"""One location -> one client: a server or cloud URL, a folder (the embedded engine), or ":memory:".

Guarantees: what comes back is a `QdrantClient`; an API key appears in no repr, log or error of ours; a folder is
opened by one process at a time. Does not know: encoders, passages.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Literal

from grpc import RpcError  # type: ignore[import-untyped]
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse
from qdrant_client.local.qdrant_local import QdrantLocal

from qdrant_tools.errors import LocationError, UnreachableError, UsageError

API_KEY_VARIABLE = "QDRANT_API_KEY"
MEMORY = ":memory:"

EngineName = Literal["qdrant-edge", "memory", "server"]


def connect(
    location: str | Path,
    *,
    api_key: str | None = None,
    timeout: int | None = None,
    prefer_grpc: bool = False,
    create: bool = True,
) -> QdrantClient:
    """Return a client of the collections at `location`.

    `location` is an http(s) URL, a folder, or ":memory:". `api_key` (default: the environment's QDRANT_API_KEY),
    `timeout` (seconds) and `prefer_grpc` concern a server. With `create=False` a folder without collections is an
    error and nothing is written. Raises `LocationError`, `LocationBusyError`, `UnreachableError`, `UsageError`.
    """
    text = str(location)
    if is_url(text):
        return _server(text, api_key or os.environ.get(API_KEY_VARIABLE) or None, timeout, prefer_grpc)
    if api_key is not None or timeout is not None or prefer_grpc:
        raise UsageError(f"api_key, timeout and prefer_grpc are for a server URL, but the location is '{text}'")
    if text == MEMORY:
        return QdrantClient(MEMORY)
    if not text.strip():
        raise LocationError("the location is empty: give a folder, a server URL or ':memory:'")
    return _embedded(Path(location), create=create)


def engine_of(client: QdrantClient) -> EngineName:
    """Which engine answers this client."""
    from qdrant_tools.edge.client import EmbeddedClient

    if isinstance(client, EmbeddedClient):
        return "qdrant-edge"
    return "memory" if isinstance(client._client, QdrantLocal) else "server"


def is_url(location: str) -> bool:
    """Whether a location is a server's URL. Raises `UsageError` for what looks like one and is not."""
    if re.match(r"https?://", location, re.IGNORECASE):
        return True
    if re.match(r"[a-z]+://", location, re.IGNORECASE) or re.fullmatch(r"[\w.-]+:\d+", location):
        raise UsageError(f"location '{location}' looks like a server address: write it as http://host:port")
    return False


class Secret(str):
    """A text that shows itself only to those who use it, not in a repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def _embedded(folder: Path, *, create: bool) -> QdrantClient:
    # imported here: a client of a server needs no engine in its process
    from qdrant_tools.edge.client import EmbeddedClient

    return EmbeddedClient(folder, create=create)


def _server(url: str, api_key: str | None, timeout: int | None, prefer_grpc: bool) -> QdrantClient:
    """Return a client of a server that has answered once."""
    secret = Secret(api_key) if api_key is not None else None
    default_port = None if re.match(r"https?://[^/]+:\d+", url) else 6333
    with warnings.catch_warnings():
        # a key over plain http is the caller's decision, for example inside a private network
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        client = QdrantClient(
            url=url,
            port=default_port,
            api_key=secret,
            timeout=timeout,
            prefer_grpc=prefer_grpc,
            check_compatibility=False,
        )
    try:
        client.get_collections()
    except UnexpectedResponse as error:
        client.close()
        if error.status_code in (401, 403):
            key = f"the key in {API_KEY_VARIABLE} or api_key" if api_key else f"no key given; set {API_KEY_VARIABLE}"
            raise UnreachableError(f"server '{url}' refuses access ({error.status_code}): check {key}") from error
        raise UnreachableError(f"'{url}' answers {error.status_code}: is it a Qdrant server?") from error
    except (ApiException, RpcError) as error:
        client.close()
        raise UnreachableError(
            f"server '{url}' does not answer ({error}): is it running, and is the port right?"
        ) from error
    return client
