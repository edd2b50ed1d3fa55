"""A vector comes back bit for bit, and only to who asks for the same space, build, role and text."""

from __future__ import annotations

import multiprocessing
import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.storage.kvstore import SimpleKVStore

from llama_index_embed_plus.errors import CacheError
from llama_index_embed_plus.serving.cache import KEYS_PER_QUERY, KeySpace, StoreCache, VectorCache

HERE = KeySpace("model@0123456789ab", "torch-fp32", "passage")


def vectors(count: int) -> dict[str, np.ndarray]:
    rows = np.random.default_rng(0).standard_normal((count, 8)).astype(np.float32)
    return {HERE.key(f"text {i}"): row for i, row in enumerate(rows)}


def test_vectors_come_back_bit_for_bit_after_reopening(tmp_path):
    stored = vectors(2 * KEYS_PER_QUERY + 1)
    VectorCache(tmp_path / "made" / "cache.sqlite").put(stored)
    found = VectorCache(tmp_path / "made" / "cache.sqlite").get([*stored, HERE.key("never seen")])
    assert found.keys() == stored.keys()
    assert all(np.array_equal(found[key], stored[key]) for key in stored)


@pytest.mark.parametrize(
    "other",
    [
        KeySpace("model@ba9876543210", "torch-fp32", "passage"),
        KeySpace("model@0123456789ab", "onnx-int8", "passage"),
        KeySpace("model@0123456789ab", "torch-fp32", "query"),
    ],
    ids=["space", "build", "role"],
)
def test_the_same_text_has_another_key(other):
    assert other.key("text") != HERE.key("text")


@given(st.text(), st.text())
def test_two_texts_share_a_key_only_if_they_are_equal(one, two):
    assert (HERE.key(one) == HERE.key(two)) == (one == two)


def test_a_text_that_is_no_valid_unicode_has_a_key_too():
    assert HERE.key("\ud800") != HERE.key("?")


def test_texts_are_not_stored(tmp_path):
    cache = VectorCache(tmp_path / "cache.sqlite")
    cache.put({HERE.key("a secret question"): np.ones(4, np.float32)})
    cache.close()
    assert b"secret" not in (tmp_path / "cache.sqlite").read_bytes()


def write_some(path, start):
    VectorCache(path).put({HERE.key(f"text {i}"): np.full(4, i, np.float32) for i in range(start, start + 50)})


def test_several_processes_may_write_at_once(tmp_path):
    path = tmp_path / "cache.sqlite"
    processes = [multiprocessing.Process(target=write_some, args=(path, 50 * i)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(VectorCache(path)) == 150


def test_a_file_of_another_format_is_refused_with_its_name(tmp_path):
    path = tmp_path / "cache.sqlite"
    VectorCache(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(CacheError, match=r"cache\.sqlite is format 99, expected format 1: delete it"):
        VectorCache(path)


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE precious (row)")
    before = path.read_bytes()
    with pytest.raises(CacheError, match="another program's database"):
        VectorCache(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be taken for one " * 20)
    with pytest.raises(CacheError, match=r"notes\.txt is no database"):
        VectorCache(tmp_path / "notes.txt")


def test_a_folder_in_place_of_the_file_is_one_clear_error(tmp_path):
    with pytest.raises(CacheError, match="is no regular file"):
        VectorCache(tmp_path)


async def test_a_key_value_store_keeps_lists_under_the_same_keys():
    store = SimpleKVStore()
    cache, passage, query = StoreCache(store), HERE.key("text"), KeySpace(HERE.space, HERE.build, "query").key("text")
    cache.put({passage: [1.0, 2.0]})
    await cache.aput({query: [3.0, 4.0]})
    assert cache.get([passage, HERE.key("other")]) == {passage: [1.0, 2.0]}
    assert await cache.aget([query]) == {query: [3.0, 4.0]}


def test_a_row_of_the_store_that_is_no_vector_is_an_error_with_its_key():
    store = SimpleKVStore()
    store.put(HERE.key("text"), {"something": "else"}, collection="embeddings")
    with pytest.raises(CacheError, match="holds no vector"):
        StoreCache(store).get([HERE.key("text")])
