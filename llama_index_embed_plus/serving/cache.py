"""(space, build, role, text) -> vector, kept in a SQLite file or in a key-value store.

Guarantees: a query never gets a passage's vector, nor one model or precision another's, because all four parts are
in the key; vectors come back bit for bit; several processes may share a file; texts are not stored, only their
hashes. Does not know: encoders, LlamaIndex. It never forgets: delete the file to empty it.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.errors import CacheError

Role = Literal["query", "passage"]

FORMAT = 1
APPLICATION_ID = 0x656D622B  # "emb+", so that another program's database is recognised as such
BUSY_SECONDS = 30.0
KEYS_PER_QUERY = 500  # SQLite's oldest limit on bound values is 999


@dataclass(frozen=True)
class KeySpace:
    """Everything besides the text that decides which vector a text gets."""

    space: str
    build: str
    role: Role

    def key(self, text: str) -> str:
        """Name the vector of `text`: readable parts and the text's SHA-256, a few dozen bytes for any text."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self.space}/{self.build}/{self.role}/{digest}"


class VectorCache:
    """A persistent cache of vectors in the SQLite file `path`, made if it does not exist.

    Raises `CacheError` for a file that is something else, was written in another format, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with self._translated("opened"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None
            )
            self._prepare()

    def get(self, keys: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the known vectors among `keys`, each of shape (dimension,)."""
        found: dict[str, NDArray[np.float32]] = {}
        with self._lock, self._translated("read"):
            for start in range(0, len(keys), KEYS_PER_QUERY):
                part = keys[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                rows = self._database.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part)
                found.update((key, np.frombuffer(blob, np.float32)) for key, blob in rows)
        return found

    def put(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Store vectors under their keys, in one transaction; a key that is already there keeps its vector."""
        rows = [(key, np.ascontiguousarray(vector, np.float32).tobytes()) for key, vector in vectors.items()]
        with self._lock, self._translated("written"), self._transaction():
            self._database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    def __len__(self) -> int:
        with self._lock, self._translated("read"):
            return int(self._database.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def close(self) -> None:
        """Close the file. The cache cannot be used afterwards."""
        with self._lock:
            self._database.close()

    def _prepare(self) -> None:
        """Recognise the file, or make an empty one into a cache."""
        with self._transaction():
            application, version = (
                self._database.execute(f"PRAGMA {pragma}").fetchone()[0]
                for pragma in ("application_id", "user_version")
            )
            if self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                self._database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._database.execute(f"PRAGMA user_version = {FORMAT}")
                self._database.execute("CREATE TABLE vectors (key TEXT PRIMARY KEY, vector BLOB) WITHOUT ROWID")
            elif (application, version) != (APPLICATION_ID, FORMAT):
                what = f"format {version}" if application == APPLICATION_ID else "another program's database"
                raise CacheError(
                    f"vector cache {self.path} is {what}, expected format {FORMAT}: delete it, or name another file"
                )
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")  # a lost tail is recomputed, never wrong

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise CacheError(
                f"vector cache {self.path} cannot be {done} ({error}): delete it, or name another file"
            ) from error


class KeyValueStore(Protocol):
    """The four methods used of a key-value store, as LlamaIndex's `BaseKVStore` names them."""

    def get(self, key: str, collection: str = ...) -> dict[str, Any] | None: ...

    def put(self, key: str, val: dict[str, Any], collection: str = ...) -> None: ...

    async def aget(self, key: str, collection: str = ...) -> dict[str, Any] | None: ...

    async def aput(self, key: str, val: dict[str, Any], collection: str = ...) -> None: ...


STORE_COLLECTION = "embeddings"  # where LlamaIndex keeps them too; its keys are bare texts, ours never look like one

Known = dict[str, list[float]]
"""text -> vector"""


@dataclass(frozen=True)
class StoreCache:
    """Vectors of one key space in a key-value store, as lists of floats."""

    store: KeyValueStore
    keyspace: KeySpace

    def get(self, texts: Iterable[str]) -> Known:
        """Return the known vectors among `texts`. Raises `CacheError` for a row that is not one of ours."""
        keys = {text: self.keyspace.key(text) for text in texts}
        rows = {text: self.store.get(key, collection=STORE_COLLECTION) for text, key in keys.items()}
        return {text: _vector(row, keys[text]) for text, row in rows.items() if row is not None}

    def put(self, vectors: Known) -> None:
        for text, vector in vectors.items():
            self.store.put(self.keyspace.key(text), {"vector": vector}, collection=STORE_COLLECTION)

    async def aget(self, texts: Iterable[str]) -> Known:
        """Like `get`."""
        keys = {text: self.keyspace.key(text) for text in texts}
        rows = {text: await self.store.aget(key, collection=STORE_COLLECTION) for text, key in keys.items()}
        return {text: _vector(row, keys[text]) for text, row in rows.items() if row is not None}

    async def aput(self, vectors: Known) -> None:
        for text, vector in vectors.items():
            await self.store.aput(self.keyspace.key(text), {"vector": vector}, collection=STORE_COLLECTION)


def _vector(row: dict[str, Any], key: str) -> list[float]:
    vector = row.get("vector")
    if not isinstance(vector, list):
        raise CacheError(f"key {key!r} of the embeddings cache holds no vector but {str(row)[:40]!r}: delete it")
    return vector
