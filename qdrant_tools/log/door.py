"""A path -> a connection to the retrieval log there; or one error, and what is there was not touched.

A log may come from a stranger, and so may what lies beside it. SQLite rolls a `-journal` back into the database without
being asked and then deletes the file that the journal names; it recovers a `-wal`, and it takes a `file:` name for an
address with options. So the first page is looked at without SQLite, links and journals are refused, and the tables are
compared with ours before and after SQLite has read the write-ahead log.

Guarantees: another program's database is never written to, and nothing is made beside it. A new log is readable by its
owner only; an existing one keeps its permissions, and what SQLite makes beside it gets them too. A log that is only
read is not written to, not even brought up to date, and may lie in a folder that cannot be written. Does not know:
rows.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from qdrant_tools.errors import LogError
from qdrant_tools.files.json_files import open_regular
from qdrant_tools.files.written import create_private, refuse_link
from qdrant_tools.log.schema import Schema, empty_log, migrate

LARGEST_ROW = 1 << 24
"""Bytes of the largest row, and so of the largest query."""
_LONGEST_SQL = 100_000
_MAGIC = b"SQLite format 3\0"
_EMPTY = Schema(0, 0, frozenset())


def open_to_write(path: Path, *, wait: float) -> sqlite3.Connection:
    """Open a log, which is made if it is not there and brought up to date if it is older.

    Raises:
        LogError: it is a link or no log of ours, or what lies beside it is not of our making.
        sqlite3.Error, OSError: it cannot be opened.
    """
    _require_plain(path)
    if not os.path.lexists(path):
        create_private(path, empty_log())
    elif path.is_file() and not path.stat().st_size:
        # made by `touch` or by `tempfile`
        path.write_bytes(empty_log())
    _require_log(path)
    db = _connected(path, "mode=rw", wait)
    try:
        # FULL: a commit is on the disk. WAL: readers and writers do not wait for each other.
        for pragma in ("foreign_keys = ON", "secure_delete = ON", "synchronous = FULL", "journal_mode = WAL"):
            db.execute(f"PRAGMA {pragma}")
        migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def open_to_read(path: Path, *, wait: float) -> sqlite3.Connection:
    """Open a log of any version, which stays as it is. Raises as `open_to_write`, and if there is none."""
    _require_plain(path)
    if _require_log(path) == _EMPTY:
        raise LogError("there is nothing in it")
    pending = has_content(Path(f"{path}-wal"))
    try:
        # mode=ro leaves the files of the write-ahead log behind if it made them; mode=rw would empty a log that a
        # writer has left when it is closed
        db = _connected(path, "mode=ro" if pending else "mode=rw", wait)
    except sqlite3.OperationalError as error:
        if pending and getattr(error, "sqlite_errorcode", 0) & 0xFF in (
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
        ):
            raise LogError(
                f"its newest rows are in {path.name}-wal, and SQLite reads them only where it can write: copy both "
                "files to such a folder"
            ) from error
        if pending:
            raise
        # a folder or disk that cannot be written, and so nobody writes
        db = _connected(path, "mode=ro&immutable=1", wait)
    db.execute("PRAGMA query_only = ON")
    return db


def has_content(path: Path) -> bool:
    """Whether there is a file with anything in it."""
    try:
        return path.lstat().st_size > 0
    except FileNotFoundError:
        return False


def _connected(path: Path, options: str, wait: float) -> sqlite3.Connection:
    # an address of our own making, so that a name such as "file:x?vfs=y" or ":memory:" is only a name
    address = f"{path.absolute().as_uri()}?{options}"
    db = sqlite3.connect(address, uri=True, timeout=wait, isolation_level=None, check_same_thread=False)
    try:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_ROW)
        db.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _LONGEST_SQL)
        db.text_factory = _text
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "cache_size = -8000"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        # again: the write-ahead log may define other tables than the file did
        Schema.of(db).require_log()
    except BaseException:
        db.close()
        raise
    return db


def _text(content: bytes) -> str | bytes:
    """Bytes for what is not UTF-8: the check of the row finds them, where sqlite3 would print the text."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _require_plain(path: Path) -> None:
    """Refuse links in the place of a log, and whatever SQLite would follow, roll back or write to beside it."""
    if "\0" in str(path):
        raise LogError("there is a NUL in its name")
    refuse_link(path, LogError)
    for ending in ("-journal", "-wal", "-shm"):
        beside = f"{path}{ending}"
        try:
            status = os.lstat(beside)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise LogError(f"{beside} is a link, a folder or a device, expected a file of its own: remove it")
        if ending == "-journal" and status.st_size:
            raise LogError(f"{beside} lies beside it, which no retrieval log has: remove it")


def _require_log(path: Path) -> Schema:
    """The schema of a log or of an empty database, from its first page, without SQLite's touching the file."""
    page = _first_page(path)
    if not page:
        return _EMPTY
    schema = Schema.of_page(page)
    if schema == _EMPTY:
        # the tables of a log that is being written for the first time may still be in the write-ahead log
        logged = _first_page_in_wal(Path(f"{path}-wal"))
        schema = schema if logged is None else Schema.of_page(logged)
    schema.require_log()
    return schema


def _first_page(path: Path) -> bytes:
    with open_regular(path, LogError) as file:
        head = file.read(100)
        if head and (len(head) < 100 or not head.startswith(_MAGIC)):
            raise LogError("it is no SQLite database")
        # 1 stands for 65,536
        size = int.from_bytes(head[16:18]) if head[16:18] != b"\x00\x01" else 1 << 16
        return head + file.read(max(0, size - 100)) if head else b""


def _first_page_in_wal(path: Path) -> bytes | None:
    """Page 1 as the last transaction in a write-ahead log left it. The format: https://sqlite.org/fileformat.html"""
    if not has_content(path):
        return None
    page, committed = None, None
    with path.open("rb") as file:
        head = file.read(32)
        size, salt = int.from_bytes(head[8:12]), head[16:24]
        if not 512 <= size <= 1 << 16:
            return None
        # a frame of page 0 is a hole in the file
        while len(frame := file.read(24)) == 24 and frame[8:16] == salt and frame[:4] != b"\0\0\0\0":
            if frame[:4] == b"\0\0\0\x01":
                page = file.read(size)
            else:
                file.seek(size, os.SEEK_CUR)
            # the last frame of a transaction holds the size of the database
            if frame[4:8] != b"\0\0\0\0":
                committed = page
    return committed
