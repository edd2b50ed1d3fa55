"""Vector caches of strangers: another database stays as it is, nothing in a file is run, new files are the owner's."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing

import numpy as np
import pytest

from llama_index_embed_plus.errors import CacheError
from llama_index_embed_plus.serving.cache import APPLICATION_ID, FORMAT, VectorCache

ROWS = {"a": np.arange(4, dtype=np.float32), "b": np.ones(4, np.float32)}
TABLE = "CREATE TABLE vectors (key TEXT PRIMARY KEY, vector BLOB) WITHOUT ROWID"


def database(path, *statements, application=APPLICATION_ID, version=FORMAT):
    with closing(sqlite3.connect(path)) as made:
        made.execute(f"PRAGMA application_id = {application}")
        made.execute(f"PRAGMA user_version = {version}")
        for statement in statements:
            made.execute(statement)
        made.commit()


OTHERS = {
    "another program": (["CREATE TABLE places (url TEXT)"], {"application": 0}),
    "another program with our table": ([TABLE], {"application": 0}),
    "another format": ([TABLE], {"version": FORMAT + 1}),
    "a trigger": ([TABLE, "CREATE TRIGGER t AFTER INSERT ON vectors BEGIN DELETE FROM vectors; END"], {}),
    "a view in place of the table": (["CREATE VIEW vectors AS SELECT 'a' AS key, zeroblob(9) AS vector"], {}),
    "a further table": ([TABLE, "CREATE TABLE more (x)"], {}),
    "a table of other columns": (["CREATE TABLE vectors (key TEXT, vector BLOB)"], {}),
    "a computed column": (["CREATE TABLE vectors (key TEXT PRIMARY KEY, vector BLOB AS (zeroblob(9)))"], {}),
    "no table": ([], {}),
}


@pytest.mark.parametrize(("statements", "options"), OTHERS.values(), ids=OTHERS)
def test_a_database_that_is_no_cache_is_refused_and_stays_as_it_is(tmp_path, statements, options):
    path = tmp_path / "their.db"
    database(path, *statements, **options)
    before = path.read_bytes()
    with pytest.raises(CacheError, match="expected format 1"):
        VectorCache(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["their.db"]


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-journal"])
def test_links_are_not_followed(tmp_path, outside, end):
    path = tmp_path / "cache.db"
    if end:
        VectorCache(path).close()
        (tmp_path / f"cache.db{end}").unlink(missing_ok=True)
    (tmp_path / f"cache.db{end}").symlink_to(outside.secret)
    with pytest.raises(CacheError, match="is a link"):
        VectorCache(path)


def test_a_journal_is_not_rolled_back(tmp_path):
    VectorCache(tmp_path / "cache.db").close()
    (tmp_path / "cache.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
    with pytest.raises(CacheError, match="journal"):
        VectorCache(tmp_path / "cache.db")
    assert (tmp_path / "cache.db-journal").exists()


@pytest.mark.parametrize("value", [b"odd", "a text", 7, bytes(1 << 21)], ids=["bytes", "text", "number", "large"])
def test_a_row_that_is_no_vector_is_one_error(tmp_path, value):
    path = tmp_path / "cache.db"
    VectorCache(path).close()
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("INSERT INTO vectors VALUES ('a', ?)", [value])
        theirs.commit()
    with pytest.raises(CacheError, match="cannot be read"):
        VectorCache(path).get(["a"])


@pytest.mark.parametrize("spoil", range(0, 8192, 331))
def test_a_damaged_file_is_one_error_or_gives_vectors(tmp_path, spoil):
    path = tmp_path / "cache.db"
    cache = VectorCache(path)
    cache.put(ROWS)
    cache.close()
    content = bytearray(path.read_bytes())
    content[spoil % len(content)] ^= 0xFF
    path.write_bytes(content)
    try:
        VectorCache(path).get(list(ROWS))
    except CacheError as error:
        assert "\n" not in str(error)


def test_a_new_cache_is_its_owners_alone_and_so_is_its_folder(tmp_path):
    umask = os.umask(0)
    try:
        cache = VectorCache(tmp_path / "new" / "cache.db")
        cache.put(ROWS)
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "new", *(tmp_path / "new").iterdir()]
        }
    finally:
        os.umask(umask)
    assert modes == {"new": 0o700, "cache.db": 0o600, "cache.db-wal": 0o600, "cache.db-shm": 0o600}


def test_an_older_cache_and_an_empty_file_are_opened(tmp_path):
    database(tmp_path / "older.db", TABLE, "INSERT INTO vectors VALUES ('a', zeroblob(16))")
    assert VectorCache(tmp_path / "older.db").get(["a"])["a"].tolist() == [0.0] * 4
    (tmp_path / "empty.db").touch()
    cache = VectorCache(tmp_path / "empty.db")
    cache.put(ROWS)
    assert len(cache) == 2


@pytest.mark.parametrize("name", ["file:x?mode=memory", ":memory:", "a%20b?c#d"])
def test_a_name_is_only_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    VectorCache(name).put(ROWS)
    assert (tmp_path / name).is_file()
