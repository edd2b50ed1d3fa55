"""What is in a database file -> is it a retrieval log of ours, and of which version; and the bytes of a new, empty log.

Guarantees: only the exact tables that some version of ours has made pass. A trigger, a view, one more table or index,
another definition of a column, or the mark of another program is one error that names it. Nothing of a refused
database is run. Does not know: files, rows.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from functools import cache

from qdrant_tools.errors import LogError
from qdrant_tools.validation import brief

_WITH_HASH = "redacted:" + "[0-9a-f]" * 32
# `length` of the bytes, because GLOB ends at a NUL
LOOKS_REDACTED = f"(query = 'redacted:' OR (query GLOB '{_WITH_HASH}' AND length(CAST(query AS BLOB)) = 41))"
"""SQL: the query is what a rule leaves. Logs before version 3 say it in no other way."""

# Entry n brings a file from version n to version n + 1. Add entries; never change one that was released.
MIGRATIONS = (
    """
    CREATE TABLE searches (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        at TEXT NOT NULL,
        query TEXT NOT NULL,
        collection TEXT NOT NULL,
        space TEXT NOT NULL
    );
    CREATE TABLE hits (
        seq INTEGER NOT NULL REFERENCES searches (seq) ON DELETE CASCADE,
        rank INTEGER NOT NULL,
        hit_id TEXT NOT NULL,
        score REAL,
        PRIMARY KEY (seq, rank)
    ) WITHOUT ROWID;
    CREATE TABLE feedback (
        seq INTEGER NOT NULL REFERENCES searches (seq) ON DELETE CASCADE,
        hit_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        value REAL NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (seq, hit_id, kind, at, value)
    ) WITHOUT ROWID;
    """,
    # Feedback of one time, which is what logs of other systems have, keeps the order in which it was written.
    """
    CREATE TABLE feedback_in_order (
        number INTEGER PRIMARY KEY,
        seq INTEGER NOT NULL REFERENCES searches (seq) ON DELETE CASCADE,
        hit_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        value REAL NOT NULL,
        at TEXT NOT NULL,
        UNIQUE (seq, hit_id, kind, at, value)
    );
    INSERT INTO feedback_in_order (seq, hit_id, kind, value, at)
        SELECT seq, hit_id, kind, value, at FROM feedback ORDER BY seq, at;
    DROP TABLE feedback;
    ALTER TABLE feedback_in_order RENAME TO feedback;
    """,
    # Until then a redacted query was known by its text alone, and a user can type any text.
    f"""
    ALTER TABLE searches ADD COLUMN redacted INTEGER NOT NULL DEFAULT 0;
    UPDATE searches SET redacted = 1 WHERE {LOOKS_REDACTED};
    PRAGMA application_id = {0x6C6F6751};
    """,
    # Searches of one session are not independent; until then nothing said which ones are.
    """
    ALTER TABLE searches ADD COLUMN session TEXT NOT NULL DEFAULT '';
    """,
    # What an application made of the hits, and what was said of it. One answer may be made of several searches.
    """
    ALTER TABLE searches ADD COLUMN user TEXT NOT NULL DEFAULT '';
    ALTER TABLE searches ADD COLUMN generated INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE searches ADD COLUMN scored_by TEXT NOT NULL DEFAULT '';
    ALTER TABLE searches ADD COLUMN answer INTEGER;
    CREATE TABLE answers (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        text TEXT NOT NULL,
        searches INTEGER NOT NULL,
        context TEXT NOT NULL,
        cited TEXT NOT NULL
    );
    CREATE TABLE verdicts (
        seq INTEGER NOT NULL REFERENCES answers (seq) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        said_by TEXT NOT NULL,
        name TEXT NOT NULL,
        who TEXT NOT NULL,
        value REAL NOT NULL,
        at TEXT NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (seq, kind, said_by, name, who)
    ) WITHOUT ROWID;
    """,
)
VERSION = len(MIGRATIONS)
APPLICATION_ID = 0x6C6F6751
"""The mark of our logs from version 3 on. Those before have none."""
_MARKED_FROM = 3
_OTHER_NAME = "give the log another name"
_MOST_ENTRIES = 50
_LEAF = 0x0D
_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
"""Bytes of NULL and of numbers, by their serial type."""

Entry = tuple[str, str, str, str]


@dataclass(frozen=True)
class Schema:
    """What a database says of itself, and all that is defined in it: type, name, table, SQL."""

    application_id: int
    version: int
    entries: frozenset[Entry]

    @classmethod
    def of(cls, db: sqlite3.Connection) -> Schema:
        """Read it. Raises `sqlite3.Error` if the database is damaged."""
        ((application_id,),) = db.execute("PRAGMA application_id")
        ((version,),) = db.execute("PRAGMA user_version")
        rows = db.execute(f"SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT {_MOST_ENTRIES}").fetchall()
        return cls(application_id, version, frozenset((*map(str, row[:3]), _normal(row[3])) for row in rows))  # type: ignore[misc]

    @classmethod
    def of_page(cls, page: bytes) -> Schema:
        """Read it from the first page of a file, without SQLite. The format: https://sqlite.org/fileformat.html

        Raises:
            LogError: the page is damaged, or holds more than the tables of a log.
        """
        try:
            # at 100 the page's own header: a leaf of a table, with its number of cells at 103 and where they are at 108
            if page[100] != _LEAF:
                raise IndexError
            count = int.from_bytes(page[103:105])
            places = range(108, 108 + 2 * min(count, _MOST_ENTRIES), 2)
            entries = frozenset(_entry(page, int.from_bytes(page[at : at + 2])) for at in places)
        except (IndexError, ValueError) as error:
            raise LogError(f"it is a database of another program, or it is damaged: {_OTHER_NAME}") from error
        return cls(int.from_bytes(page[68:72]), int.from_bytes(page[60:64]), entries)

    def require_log(self) -> None:
        """Raise `LogError`, which says what is wrong, unless this is a log of some version, or an empty database."""
        if self.application_id not in (0, APPLICATION_ID):
            raise LogError(
                f"it is a database of another program (application id {self.application_id:#x}): {_OTHER_NAME}"
            )
        if self.application_id == APPLICATION_ID and self.version > VERSION:
            raise LogError(f"it was written by a newer version (format {self.version}): upgrade this package")
        marked = self.application_id == APPLICATION_ID
        if not 0 <= self.version <= VERSION or marked != (self.version >= _MARKED_FROM):
            raise LogError(f"it is a database of another program (format {self.version}): {_OTHER_NAME}")
        expected = _entries(self.version)
        if self.entries != expected:
            odd = min(self.entries - expected, default=None)
            if odd is None:
                raise LogError("it lacks tables of a retrieval log")
            if not marked:
                # nothing says that it is ours: to drop a table of somebody's data is no way out
                raise LogError(
                    f"it is no retrieval log, but has the {brief(odd[0])[1:-1]} {brief(odd[1])}: {_OTHER_NAME}"
                )
            raise LogError(
                f"it has the {brief(odd[0])[1:-1]} {brief(odd[1])}, which a retrieval log has not or has otherwise: "
                "drop it, or get the log as JSONL"
            )


def migrate(db: sqlite3.Connection) -> None:
    """Bring a log, or an empty database, to the newest version. One process does, others wait for it."""
    if _version(db) == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for script in MIGRATIONS[_version(db) :]:
            # not executescript, which commits the open transaction first
            for statement in script.split(";"):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@cache
def empty_log() -> bytes:
    """The bytes of a new log in WAL mode. SQLite itself would make one by way of a rollback journal."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db)
    content = bytearray(db.serialize())
    db.close()
    content[18:20] = b"\x02\x02"  # read and written in WAL mode
    return bytes(content)


@cache
def _entries(version: int) -> frozenset[Entry]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    for script in MIGRATIONS[:version]:
        for statement in script.split(";"):
            db.execute(statement)
    entries = Schema.of(db).entries
    db.close()
    return entries


def _entry(page: bytes, at: int) -> Entry:
    """The entry of the table `sqlite_master` in one cell."""
    _, at = _varint(page, at)  # the size of what follows the next number
    _, at = _varint(page, at)
    end, position = _varint(page, at)
    data = at + end
    values = []
    for _ in range(5):
        kind, position = _varint(page, position)
        # from 12 on: bytes (even) or text (odd) of a length; before that numbers
        size = (kind - 12) // 2 if kind >= 12 else _SIZES[kind]
        if data + size > len(page):
            raise IndexError
        values.append(page[data : data + size].decode() if kind >= 12 else None)
        data += size
    return str(values[0]), str(values[1]), str(values[2]), _normal(values[4])


def _varint(page: bytes, at: int) -> tuple[int, int]:
    """A number of up to nine bytes, seven bits each, and where it ends."""
    value = 0
    for end in range(at, at + 9):
        value = value << 7 | page[end] & 0x7F
        if page[end] < 0x80:
            return value, end + 1
    raise IndexError


def _version(db: sqlite3.Connection) -> int:
    ((version,),) = db.execute("PRAGMA user_version")
    return int(version)


def _normal(sql: object) -> str:
    """White space and quotes around plain names depend on the version of SQLite that wrote them."""
    return re.sub(r'"(\w+)"', r"\1", " ".join(str(sql).split()))
