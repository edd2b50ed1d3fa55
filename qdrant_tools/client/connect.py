"""One location -> one client: a server or cloud URL, a folder (the embedded engine), or ":memory:".

Guarantees: what comes back is a `QdrantClient`; a key appears in no text, log, error, JSON or pickle of ours, and a URL
with a key in it is refused; a folder is opened by one process at a time. Does not know: encoders, passages.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from grpc import RpcError, StatusCode
from httpx import InvalidURL
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.async_qdrant_remote import AsyncQdrantRemote
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal
from qdrant_client.qdrant_remote import QdrantRemote

from qdrant_tools.client.forks import abandon, renew_in_children
from qdrant_tools.errors import LocationError, PlusError, UnreachableError, UsageError, first_line, without_keys
from qdrant_tools.validation import brief

if TYPE_CHECKING:
    from qdrant_tools.edge.client import EmbeddedClient

API_KEY_VARIABLE = "QDRANT_API_KEY"
MEMORY = ":memory:"

_NO_JSON = (json.JSONDecodeError, UnicodeDecodeError, RecursionError)
"""What an answer that is no JSON raises, or one that is nested too deep."""

logger = logging.getLogger(__name__)

EngineName = Literal["qdrant-edge", "memory", "server"]


class Secret(str):
    """A key that only `reveal` gives. To all else it is the text `***`: `str`, f-strings, JSON, `vars`, `asdict`.

    A pickle holds no key: what is read from it cannot be revealed.
    """

    __slots__ = ("_key",)
    _key: str | None

    def __new__(cls, key: str | None) -> Secret:
        # a text of its own, so that whatever reads texts, in C too, finds nothing else
        secret = super().__new__(cls, "***")
        secret._key = key._key if isinstance(key, Secret) else key
        return secret

    def reveal(self) -> str:
        """The key. Raises `UsageError` for one that was left out of a pickle."""
        if self._key is None:
            raise UsageError("the key was left out when this was pickled: give it again, as api_key or QDRANT_API_KEY")
        return self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._key == other._key

    def __ne__(self, other: object) -> bool:  # that of `str` would compare the asterisks
        return not self == other

    def __hash__(self) -> int:
        return hash((Secret, self._key))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __getstate__(self) -> None:
        """Nothing: the state of a text with slots would hold the key."""

    def __reduce__(self) -> tuple[type[Secret], tuple[None]]:
        return Secret, (None,)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[type[Secret], tuple[None]]:
        return self.__reduce__()


class _SentKey(str):
    """The key as qdrant-client gets it, which encodes it for each request. It is the real text, not shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"


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
    read_only: bool = False,
) -> QdrantClient:
    """Return a client of the collections at `location`.

    `location` is an http(s) URL, a folder, or ":memory:". `api_key` (default: the environment's QDRANT_API_KEY),
    `timeout` (seconds) and `prefer_grpc` concern a server; a key that goes
    over plain http to another machine is warned of once. With `create=False` a folder without collections is an
    error and nothing is written. `readers` processes answer searches of a folder's large collections: threads of one
    process search one after another. With `read_only` a folder is searched from private copies and stays as it is, and
    any number of processes may do so at once; a folder that cannot be written is opened so by itself, with a warning.
    Raises `LocationError`, `LocationBusyError`, `UnreachableError`, `UsageError`.
    """
    options = server_options(location, api_key, timeout, prefer_grpc)
    _check_folder_options(location, readers, read_only)
    if options is not None:
        return _answering(str(location), options)
    if str(location) == MEMORY:
        return QdrantClient(MEMORY)
    # imported here: a client of a server needs no engine in its process
    from qdrant_tools.edge.client import EmbeddedClient

    return EmbeddedClient(Path(location), create=create, readers=readers, read_only=read_only)


def aconnect(
    location: str | Path,
    *,
    api_key: str | None = None,
    timeout: int | None = None,
    prefer_grpc: bool = False,
    create: bool = True,
    readers: int = 0,
    read_only: bool = False,
) -> AsyncQdrantClient:
    """Return what `connect` returns, with methods to await. Clients of one folder share one engine.

    Two clients of ":memory:" share nothing: each has collections of its own.
    """
    options = server_options(location, api_key, timeout, prefer_grpc)
    _check_folder_options(location, readers, read_only)
    if options is not None:
        # asked once by a plain client, because nothing can be awaited in this function
        _answering(str(location), options).close()
        with _key_over_http_allowed(), _url_errors(str(location)):
            client = AsyncQdrantClient(**_arguments(str(location), options))
        own_connections(client)
        return client
    if str(location) == MEMORY:
        return AsyncQdrantClient(MEMORY)
    from qdrant_tools.edge.async_client import AsyncEmbeddedClient

    return AsyncEmbeddedClient(Path(location), create=create, readers=readers, read_only=read_only)


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


def refuse_read_only(client: QdrantClient) -> None:
    """Raise `LocationError` if the client's folder is only read."""
    embedded = embedded_client(client)
    if embedded is not None:
        embedded.engine.require_writable()


def server_options(
    location: str | Path, api_key: str | None, timeout: int | None, prefer_grpc: bool
) -> ServerOptions | None:
    """The options for a server's URL, None for another location. Raises `LocationError`, `UsageError`."""
    if not isinstance(location, (str, Path)):
        raise LocationError(f"location is {brief(location)}, expected a folder, a server URL or ':memory:'")
    text = str(location)
    if is_url(text):
        _refuse_key_in(text)
        key = api_key or os.environ.get(API_KEY_VARIABLE)
        if key and (host := _readable_to(text)) is not None:
            _warn_of_plain_http(host)
        return ServerOptions(Secret(key) if key else None, timeout, prefer_grpc)
    if not text.strip():
        raise LocationError("the location is empty: give a folder, a server URL or ':memory:'")
    if api_key is not None or timeout is not None or prefer_grpc:
        raise UsageError(f"api_key, timeout and prefer_grpc are for a server URL, but the location is '{text}'")
    return None


def _refuse_key_in(url: str) -> None:
    # qdrant-client sends neither, but keeps the URL, and its errors and ours would have to show it without them
    scheme, _, address = url.partition("://")
    host = re.split("[?#]", address.rpartition("@")[2])[0]
    if host != address:
        raise UsageError(
            f"location '{scheme}://{host}' has a user, a key or options in it, which are not sent: "
            f"write it as http://host:port, and give the key as {API_KEY_VARIABLE} or api_key"
        )


def _readable_to(url: str) -> str | None:
    """The host of a URL whose key everybody on the way can read; None for https, and for this machine."""
    address = re.fullmatch(r"http://(\[[^\]]*\]|[^/:]*).*", url, re.IGNORECASE)
    if address is None:
        return None
    host = address[1].strip("[]").lower().rstrip(".")
    try:
        is_local = ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost" or host.endswith(".localhost")
    return None if is_local else host


@cache
def _warn_of_plain_http(host: str) -> None:
    logger.warning(
        "the key is sent to %s over plain http, where everybody on the way can read it: use https://, or a tunnel to "
        "localhost",
        host,
    )


def _check_folder_options(location: str | Path, readers: int, read_only: bool) -> None:
    if str(location) != MEMORY and not is_url(str(location)):
        return
    if readers:
        raise UsageError(f"readers are for a folder, but the location is '{location}': drop readers={readers!r}")
    if read_only:
        raise UsageError(
            f"read_only is for a folder, but the location is '{location}': drop it; a server gives out keys that only "
            "read"
        )


def is_url(location: str) -> bool:
    """Whether a location is a server's URL. Raises `UsageError` for what looks like one and is not."""
    if re.match(r"https?://", location, re.IGNORECASE):
        return True
    # otherwise "localhost:6333" would be taken for a folder, and made
    address = re.fullmatch(r"(?:\S*@)?([\w.-]+:\d+)([/?#]\S*)?", location)
    if address or re.match(r"[a-z][a-z0-9+.-]*://", location, re.IGNORECASE):
        # without a scheme, what stands before the @ may be a password, and what follows the port a key
        shown = address[1] if address else without_keys(location)
        raise UsageError(f"location '{shown}' looks like a server address: write it as http://host:port")
    return False


def _arguments(url: str, options: ServerOptions) -> dict[str, Any]:
    """qdrant-client's arguments; the port is 6333 unless the URL has one."""
    return {
        "url": url,
        "port": None if re.match(r"https?://[^/]+:\d+", url, re.IGNORECASE) else 6333,
        "api_key": _SentKey(options.api_key.reveal()) if options.api_key else None,
        "timeout": options.timeout,
        "prefer_grpc": options.prefer_grpc,
        "check_compatibility": False,  # it asks the server and only warns; we ask and raise
    }


@contextmanager
def _key_over_http_allowed() -> Iterator[None]:
    # we have warned, once, and of hosts that are not this machine only
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        yield


@contextmanager
def _url_errors(url: str) -> Iterator[None]:
    """Translate what qdrant-client's libraries say of a URL that none can ask."""
    try:
        yield
    except (ValueError, InvalidURL) as error:
        if isinstance(error, (PlusError, *_NO_JSON)):
            raise
        raise UsageError(f"location {brief(url)} is no address of a server: write it as http://host:port") from error


def _answering(url: str, options: ServerOptions) -> QdrantClient:
    """Return a client of a server that has answered once. Raises `UnreachableError`."""
    with _key_over_http_allowed(), _url_errors(url):
        client = QdrantClient(**_arguments(url, options))
    try:
        # making the client asks the server nothing; this needs an address that answers and a key that is accepted
        with _url_errors(url):
            client.get_collections()
    except (ApiException, RpcError, *_NO_JSON) as error:
        client.close()
        raise UnreachableError(_refusal(url, options, error)) from error
    own_connections(client)
    return client


_with_own: weakref.WeakSet[QdrantClient | AsyncQdrantClient] = weakref.WeakSet()


def own_connections(client: QdrantClient | AsyncQdrantClient) -> None:
    """Let this client of a server have connections of its own in a forked child.

    On a connection that two processes share, one gets the other's answers.
    """
    if client not in _with_own and isinstance(client._client, (QdrantRemote, AsyncQdrantRemote)):
        _with_own.add(client)
        renew_in_children(client, _connect_anew)


def _connect_anew(client: QdrantClient | AsyncQdrantClient) -> None:
    abandon(client._client)
    options = client.init_options | {"check_compatibility": False}
    if options.get("prefer_grpc"):
        # gRPC's own threads are the parent's, and without them every call waits for ever
        options["prefer_grpc"] = False
        logger.warning("this process was forked: a client that spoke gRPC to its server speaks HTTP here")
    with _key_over_http_allowed():
        fresh = type(client)(**options)
    client._client = fresh._client
    del fresh._client  # its destructor would close it


def _refusal(url: str, options: ServerOptions, error: Exception) -> str:
    """Why a server did not answer as hoped, in one line."""
    status = error.status_code if isinstance(error, UnexpectedResponse) else None
    code = error.code() if isinstance(error, RpcError) else None
    if status in (401, 403) or code in (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED):
        way_out = f"check the key in {API_KEY_VARIABLE} or api_key" if options.api_key else f"set {API_KEY_VARIABLE}"
        return f"server '{url}' refuses access ({status if code is None else code.name}): {way_out}"
    if status is not None:
        return f"'{url}' answers {status}: is it a Qdrant server?"
    if isinstance(error, _NO_JSON):
        return f"'{url}' answers with something else than JSON: is it a Qdrant server?"
    reason = code.name if code is not None else first_line(error)
    return f"server '{url}' does not answer ({reason}): is it running, and is the port right?"
