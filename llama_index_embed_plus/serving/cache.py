"""Key -> vector, kept in a SQLite file (`VectorCache`) or in a key-value store (`StoreCache`).

Both use the keys of `KeySpace`, made of space, build, role and text.

Guarantees: a query never gets a passage's vector, and no model or precision gets another's; vectors come back bit for
bit; several processes may share a file; texts are not stored, only their hashes. A new file is readable by its owner
only. A file that is no cache of ours, or defines more than one, is never written to, and nothing in it is run. A cache
never forgets: delete the file to empty it. Does not know: encoders, LlamaIndex.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.errors import CacheError
from qdrant_tools.client.database import SharedDatabase
from qdrant_tools.files.json_files import open_regular
from qdrant_tools.files.written import create_private, private_folder, refuse_link

Role = Literal["query", "passage"]

FORMAT = 1
APPLICATION_ID = 0x656D622B  # "emb+", so that another program's database is recognised as such
BUSY_SECONDS = 30.0
KEYS_PER_QUERY = 500  # SQLite's oldest limit on bound values is 999
LARGEST_ROW = 1 << 20  # bytes; the longest vector that Qdrant stores has 256 KiB
_TABLE = "CREATE TABLE vectors (key TEXT PRIMARY KEY, vector BLOB) WITHOUT ROWID"  # without rowids it is its own index
_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True)
class KeySpace:
    """All that decides the vector of a text, besides the text itself."""

    space: str
    build: str
    role: Role

    def key(self, text: str) -> str:
        """Return the key of the vector of `text`: readable parts and the text's SHA-256."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self.space}/{self.build}/{self.role}/{digest}"


class VectorCache(SharedDatabase):
    """A persistent cache of vectors in the SQLite file `path`, made if it does not exist.

    Raises `CacheError` for a file that is something else, was written in another format, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        super().__init__(self.path)

    def _open(self) -> sqlite3.Connection:
        with self._errors_translated("opened"):
            self._require_ours()
            if not self.path.exists():
                self._create()
            # an address of our own making, so that a name such as "file:x" is only a name; no isolation level:
            # transactions are begun by hand, and a lock keeps threads apart
            database = sqlite3.connect(
                f"{self.path.as_uri()}?mode=rw",
                uri=True,
                timeout=BUSY_SECONDS,
                check_same_thread=False,
                isolation_level=None,
            )
            try:
                self._prepare(database)
            except BaseException:
                database.close()
                raise
            return database

    def _cut_off(self) -> CacheError:
        return CacheError(
            f"this process was forked while its parent used the vector cache {self.path}, whose locks SQLite takes "
            "for its own: fork when no thread embeds, or open the cache after the fork"
        )

    def get(self, keys: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors among `keys`, each of shape (dimension,)."""
        stored: dict[str, NDArray[np.float32]] = {}
        with self._used(), self._errors_translated("read"):
            for start in range(0, len(keys), KEYS_PER_QUERY):
                part = keys[start : start + KEYS_PER_QUERY]
                places = ",".join("?" * len(part))
                rows = self._db.execute(f"SELECT key, vector FROM vectors WHERE key IN ({places})", part)
                stored.update((key, np.frombuffer(blob, np.float32)) for key, blob in rows)
        return stored

    def put(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Store vectors under their keys, in one transaction; a key that is already there keeps its vector."""
        rows = [(key, np.ascontiguousarray(vector, np.float32).tobytes()) for key, vector in vectors.items()]
        with self._errors_translated("written"), self._whole():
            # another process may have stored the same text meanwhile
            self._db.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    def __len__(self) -> int:
        with self._used(), self._errors_translated("read"):
            return int(self._db.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def _require_ours(self) -> None:
        """Look at the file without SQLite, which would roll a journal back, or follow a link, before it is asked."""
        for path in (
            self.path,
            *(self.path.with_name(f"{self.path.name}{end}") for end in ("-journal", "-wal", "-shm")),
        ):
            refuse_link(path, CacheError)
        journal = self.path.with_name(f"{self.path.name}-journal")
        if journal.exists() and journal.stat().st_size:
            raise CacheError(
                f"vector cache {self.path} has a journal, which no cache leaves: remove {self.path}-journal"
            )
        try:
            with open_regular(self.path, CacheError) as file:
                head = file.read(100)
        except FileNotFoundError:
            return
        if not head:  # made by `touch` or by `tempfile`
            self.path.write_bytes(_empty_cache())
        elif not head.startswith(_MAGIC):
            raise CacheError(f"vector cache {self.path} is no database: delete it, or name another file")
        elif int.from_bytes(head[68:72]) != APPLICATION_ID:
            raise self._another("another program's database")

    def _create(self) -> None:
        """Put an empty cache there, whole, unless another process was quicker."""
        if not self.path.parent.exists():
            private_folder(self.path.parent)
        create_private(self.path, _empty_cache())

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Recognise the file, which may be somebody else's."""
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_ROW)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            database.execute(f"PRAGMA {pragma}").fetchall()
        ((version,),) = database.execute("PRAGMA user_version")
        if version != FORMAT:
            raise self._another(f"format {version}")
        if database.execute("SELECT sql FROM sqlite_master LIMIT 2").fetchall() != [(_TABLE,)]:
            raise self._another("a database with other tables")
        database.execute("PRAGMA journal_mode = WAL")
        # power loss may lose the last vectors, which are computed again
        database.execute("PRAGMA synchronous = NORMAL")

    def _another(self, what: str) -> CacheError:
        return CacheError(
            f"vector cache {self.path} is {what}, expected format {FORMAT}: delete it, or name another file"
        )

    @contextmanager
    def _errors_translated(self, action: str) -> Iterator[None]:
        try:
            yield
        # what SQLite gives of a damaged file may be no vector
        except (sqlite3.Error, OSError, TypeError, ValueError) as error:
            raise CacheError(
                f"vector cache {self.path} cannot be {action} ({error}): delete it, or name another file"
            ) from error


def _empty_cache() -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {FORMAT}")
        database.execute(_TABLE)
        content = bytearray(database.serialize())
    content[18:20] = b"\x02\x02"  # write-ahead log from the first writer on: no journal is ever beside a cache
    return bytes(content)


class KeyValueStore(Protocol):
    """The four methods used of a key-value store, as LlamaIndex's `BaseKVStore` names them."""

    def get(self, key: str, collection: str = ...) -> dict[str, Any] | None: ...

    def put(self, key: str, val: dict[str, Any], collection: str = ...) -> None: ...

    async def aget(self, key: str, collection: str = ...) -> dict[str, Any] | None: ...

    async def aput(self, key: str, val: dict[str, Any], collection: str = ...) -> None: ...


STORE_COLLECTION = "embeddings"  # LlamaIndex keeps vectors there too, but under bare texts, which no key of ours is


@dataclass(frozen=True)
class StoreCache:
    """The same cache in a key-value store, which keeps vectors as lists of floats.

    Reading raises `CacheError` for a row under one of our keys that holds no vector.
    """

    store: KeyValueStore

    def get(self, keys: Iterable[str]) -> dict[str, list[float]]:
        """Return the stored vectors among `keys`."""
        rows = {key: self.store.get(key, collection=STORE_COLLECTION) for key in keys}
        return {key: _vector(key, row) for key, row in rows.items() if row is not None}

    def put(self, vectors: Mapping[str, list[float]]) -> None:
        """Store vectors under their keys."""
        for key, vector in vectors.items():
            self.store.put(key, {"vector": vector}, collection=STORE_COLLECTION)

    async def aget(self, keys: Iterable[str]) -> dict[str, list[float]]:
        """Return the stored vectors among `keys`."""
        rows = {key: await self.store.aget(key, collection=STORE_COLLECTION) for key in keys}
        return {key: _vector(key, row) for key, row in rows.items() if row is not None}

    async def aput(self, vectors: Mapping[str, list[float]]) -> None:
        """Store vectors under their keys."""
        for key, vector in vectors.items():
            await self.store.aput(key, {"vector": vector}, collection=STORE_COLLECTION)


def _vector(key: str, row: dict[str, Any]) -> list[float]:
    vector = row.get("vector")
    if not isinstance(vector, list):
        raise CacheError(f"key {key!r} of the embeddings cache holds no vector but {str(row)[:40]!r}: delete it")
    return vector
