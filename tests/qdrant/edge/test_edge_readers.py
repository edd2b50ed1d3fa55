"""Reader processes: the same answers as without, what was written before a search is in it, and nothing lasts."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from moments import LONGEST_WAIT, until
from qdrant_client import models

from qdrant_tools.client.connect import aconnect, connect
from qdrant_tools.edge.readers import messages, pool
from qdrant_tools.edge.reads import ReadMethods
from qdrant_tools.edge.storage.files import READERS_FOLDER
from qdrant_tools.errors import CollectionNotFoundError, InputError, PlusError, UsageError, VectorError

NAME, SIZE, POINTS = "docs", 8, 400


@pytest.fixture(autouse=True, scope="module")
def small_collections_count():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "SMALLEST", 0)
        patch.setattr(pool, "QUIET", 0.01)
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A client for all tests: processes take seconds to start."""
    with closing(connect(tmp_path_factory.mktemp("shared"), readers=2)) as client:
        yield client


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """A client whose collection no test changes."""
    with closing(connect(tmp_path_factory.mktemp("unchanged"), readers=2)) as client:
        fill(client)
        until_ready(client)
        yield client


@pytest.fixture
def client(shared):
    fill(shared)
    until_ready(shared)
    yield shared
    for collection in shared.get_collections().collections:
        shared.delete_collection(collection.name)


@pytest.fixture
def own(tmp_path):
    """A client whose readers may come to harm."""
    with closing(connect(tmp_path / "own", readers=2)) as client:
        fill(client)
        until_ready(client)
        yield client


def vectors(count: int, seed: int = 0) -> list[list[float]]:
    return np.random.default_rng(seed).normal(size=(count, SIZE)).tolist()


def points(count: int, first: int = 0, seed: int = 0) -> list[models.PointStruct]:
    return [
        models.PointStruct(
            id=first + i,
            vector={
                "": row,
                "other": row[::-1],
                "words": models.SparseVector(indices=[i % 7, 9], values=[1.0, row[0]]),
            },
            payload={"n": i, "part": f"p{i % 5}", "nested": {"flag": i % 2 == 0}},
        )
        for i, row in enumerate(vectors(count, seed))
    ]


def fill(client, name: str = NAME) -> None:
    plain = models.VectorParams(size=SIZE, distance=models.Distance.COSINE)
    client.create_collection(
        name,
        vectors_config={"": plain, "other": models.VectorParams(size=SIZE, distance=models.Distance.EUCLID)},
        sparse_vectors_config={"words": models.SparseVectorParams()},
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
        hnsw_config=models.HnswConfigDiff(full_scan_threshold=10),
    )
    client.upsert(name, points(POINTS))
    client.create_payload_index(name, "part", models.PayloadSchemaType.KEYWORD)
    client.create_payload_index(name, "n", models.PayloadSchemaType.INTEGER)
    client.build_index(name)


def until_ready(client, name: str = NAME) -> None:
    until(lambda: client.readers_ready(name))


def pool_of(client) -> pool.ReaderPool:
    readers = client.engine.readers
    assert readers is not None
    return readers


def processes(client) -> list[int]:
    return pool_of(client).process_ids


class ByReader:
    """The client's reading methods, answered by a reader or not at all."""

    def __init__(self, client) -> None:
        self.client = client

    def __getattr__(self, method: str):
        def request(name, *arguments, **options):
            return pool_of(self.client).request(self.client.engine.collection(name), method, arguments, options)

        return request


class InProcess(ReadMethods):
    """The client's reading methods, answered by the engine of this process."""

    def __init__(self, client) -> None:
        super().__init__()
        self.engine = client.engine


def part(value: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="part", match=models.MatchValue(value=value))])


def copies_of(client) -> set[str]:
    """The folders with copies of collections: new copies get a new one."""
    return {path.name for path in (client.folder / READERS_FOLDER).iterdir() if path.is_dir()}


CALLS = [
    ("query_points", (), {"query": vectors(1, 5)[0], "limit": 7}),
    ("query_points", (), {"query": vectors(1, 6)[0], "limit": 50, "with_vectors": True, "offset": 3}),
    ("query_points", (), {"query": vectors(1, 6)[0], "using": "other", "with_payload": False, "score_threshold": 4.0}),
    ("query_points", (), {"query": 17, "limit": 5, "with_payload": ["part"]}),
    ("query_points", (), {"query": models.SparseVector(indices=[3, 9], values=[1.0, 2.0]), "using": "words"}),
    (
        "query_points",
        (),
        {
            "query": vectors(1, 7)[0],
            "query_filter": part("p3"),
            "search_params": models.SearchParams(hnsw_ef=20),
        },
    ),
    (
        "query_points",
        (),
        {
            "prefetch": [
                models.Prefetch(query=vectors(1, 8)[0], limit=20),
                models.Prefetch(query=vectors(1, 9)[0], using="other", limit=20),
            ],
            "query": models.FusionQuery(fusion=models.Fusion.RRF),
        },
    ),
    ("query_points", (), {"query": models.OrderByQuery(order_by=models.OrderBy(key="n", direction="desc"))}),
    (
        "query_batch_points",
        ([models.QueryRequest(query=row, limit=9, with_payload=True) for row in vectors(5, 10)],),
        {},
    ),
    ("query_points_groups", ("part",), {"query": vectors(1, 11)[0], "limit": 3, "group_size": 2}),
    ("facet", ("part",), {"exact": True}),
    ("count", (), {"count_filter": models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=90))])}),
    ("scroll", (), {"limit": 30, "with_vectors": ["other"]}),
    ("scroll", (), {"limit": 30, "order_by": "n"}),
]


@pytest.mark.parametrize(("method", "arguments", "options"), CALLS)
def test_a_reader_answers_what_this_process_answers(unchanged, method, arguments, options):
    by_reader = getattr(ByReader(unchanged), method)(NAME, *arguments, **options)
    assert by_reader == getattr(InProcess(unchanged), method)(NAME, *arguments, **options)
    assert by_reader == getattr(unchanged, method)(NAME, *arguments, **options)


def test_rankings_come_from_all_readers_in_the_order_of_the_queries(unchanged):
    queries = np.array(vectors(300, 3), dtype=np.float32)
    limits = [1 + i % 13 for i in range(len(queries))]
    rankings = unchanged.rankings(NAME, queries, limits)
    for row, limit, (ids, scores) in zip(queries.tolist(), limits, rankings, strict=True):
        hits = InProcess(unchanged).query_points(NAME, query=row, limit=limit).points
        assert list(ids) == [hit.id for hit in hits]
        assert scores.tolist() == [hit.score for hit in hits]


def test_ids_of_every_kind_travel(client):
    uuids = ["7c7f84b1-cd5c-4beb-8cb4-452eb769ada4", "00000000-0000-0000-0000-000000000000"]
    rows = vectors(3, 20)
    client.upsert(
        NAME, [models.PointStruct(id=i, vector=row) for i, row in zip([*uuids, 2**64 - 1], rows, strict=True)]
    )
    queries = np.array([rows[i % 3] for i in range(200)], dtype=np.float32)
    assert {ids[0] for ids, _ in client.rankings(NAME, queries, [1] * len(queries))} == {*uuids, 2**64 - 1}


WRITES = [
    ("upsert", (points(3, first=1000, seed=30),), {}),
    ("upsert", (models.Batch(ids=[1], vectors={"": vectors(1, 31)}, payloads=[{"n": -1}]),), {}),
    ("set_payload", ({"new": [1, 2.5, None, "ü"]}, [1, 2, 3]), {}),
    ("set_payload", ({"deep": True}, [4]), {"key": "nested"}),
    ("overwrite_payload", ({"only": "this"}, [5]), {}),
    ("delete_payload", (["part"], [6, 7]), {}),
    ("clear_payload", ([8],), {}),
    ("update_vectors", ([models.PointVectors(id=9, vector={"other": vectors(1, 32)[0]})],), {}),
    ("delete_vectors", (["other"], [10]), {}),
    ("delete", ([11, 12],), {}),
    (
        "delete",
        (part("p4"),),
        {},
    ),
    (
        "batch_update_points",
        (
            [
                models.DeleteOperation(delete=models.PointIdsList(points=[13])),
                models.SetPayloadOperation(set_payload=models.SetPayload(payload={"n": 5}, points=[16])),
                models.OverwritePayloadOperation(
                    overwrite_payload=models.SetPayload(payload={"y": 1}, points=[15], key="nested")
                ),
            ],
        ),
        {},
    ),
]


def everything(client) -> list[object]:
    return client.scroll(NAME, limit=10_000, with_vectors=True)[0]


def test_every_kind_of_write_is_in_the_next_search(client):
    for method, arguments, options in WRITES:
        getattr(client, method)(NAME, *arguments, **options)
        by_readers = [everything(ByReader(client)) for _ in range(4)]  # both of them
        assert all(points == everything(InProcess(client)) for points in by_readers), method


def test_a_write_that_fails_leaves_the_readers_as_it_leaves_this_process(client):
    with pytest.raises(InputError):
        client.set_payload(NAME, {"a": 1}, [1, 999_999])
    client.set_payload(NAME, {"b": 1}, [2])
    assert everything(ByReader(client)) == everything(InProcess(client))


def test_random_writes_and_searches_agree(client):
    rng = np.random.default_rng(11)
    for step in range(150):
        one, many = int(rng.integers(POINTS)), rng.integers(POINTS, size=3).tolist()
        match step % 5:
            case 0:
                client.upsert(NAME, points(int(rng.integers(1, 20)), first=one, seed=step))
            case 1:
                client.delete(NAME, many)
            case 2:
                client.overwrite_payload(NAME, {"part": f"p{step % 5}", "n": step}, models.Filter(must=[near(one)]))
            case 3:
                client.clear_payload(NAME, models.Filter(must=[near(one)]))
            case 4:
                client.upsert(NAME, points(1, first=one, seed=step))
        query = rng.normal(size=SIZE).tolist()
        how = {"limit": 20, "with_vectors": True, "query_filter": models.Filter(must_not=[near(one)])}
        assert ByReader(client).query_points(NAME, query, **how) == InProcess(client).query_points(NAME, query, **how)


def near(number: int) -> models.FieldCondition:
    return models.FieldCondition(key="n", range=models.Range(gte=number, lt=number + 9))


def test_errors_are_those_of_this_process(unchanged):
    cases = [
        (VectorError, lambda c: c.query_points(NAME, [1.0, 2.0])),
        (InputError, lambda c: c.query_points(NAME, 12345678)),
        (InputError, lambda c: c.query_points(NAME, vectors(1)[0], limit=0)),
        (InputError, lambda c: c.facet(NAME, "unindexed")),
        (CollectionNotFoundError, lambda c: c.query_points("nothing", vectors(1)[0])),
    ]
    for kind, call in cases:
        with pytest.raises(kind) as by_readers:
            call(unchanged)
        with pytest.raises(kind) as here:
            call(InProcess(unchanged))
        assert str(by_readers.value) == str(here.value)
    assert unchanged.readers_ready(NAME), "a caller's mistake must not cost the readers their copies"


def test_a_lookup_in_another_collection_is_answered(client):
    fill(client, "second")
    lookup = models.LookupLocation(collection="second")
    response = client.query_points(NAME, 3, lookup_from=lookup, limit=4)
    assert response == InProcess(client).query_points(NAME, 3, lookup_from=lookup, limit=4)


def test_an_alias_is_answered_by_readers(unchanged):
    unchanged.update_collection_aliases(
        [models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=NAME, alias_name="current"))]
    )
    assert unchanged.query_points("current", vectors(1, 3)[0]) == InProcess(unchanged).query_points(
        NAME, vectors(1, 3)[0]
    )


CHANGES = {
    "payload index": lambda c: c.create_payload_index(NAME, "nested.flag", models.PayloadSchemaType.BOOL),
    "settings": lambda c: c.update_collection(NAME, hnsw_config=models.HnswConfigDiff(m=20)),
    "index": lambda c: (c.upsert(NAME, points(200, first=5000, seed=4)), c.build_index(NAME)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_journal_cannot_say_gives_new_copies(client, change):
    before = copies_of(client)
    CHANGES[change](client)
    assert client.query_points(NAME, vectors(1)[0]) == InProcess(client).query_points(NAME, vectors(1)[0])
    until_ready(client)
    assert copies_of(client) - before
    assert everything(ByReader(client)) == everything(InProcess(client))
    condition = models.Filter(must=[models.FieldCondition(key="nested.flag", match=models.MatchValue(value=True))])
    assert ByReader(client).count(NAME, count_filter=condition) == InProcess(client).count(NAME, count_filter=condition)


def test_a_collection_made_anew_under_its_old_name_is_another(client):
    client.delete_collection(NAME)
    with pytest.raises(CollectionNotFoundError):
        client.query_points(NAME, vectors(1)[0])
    client.create_collection(NAME, models.VectorParams(size=3, distance=models.Distance.DOT))
    client.upsert(NAME, [models.PointStruct(id=1, vector=[1.0, 0.0, 0.0])])
    assert [hit.id for hit in client.query_points(NAME, [1.0, 1.0, 0.0]).points] == [1]
    until_ready(client)
    assert [hit.id for hit in ByReader(client).query_points(NAME, [1.0, 1.0, 0.0]).points] == [1]
    until(lambda: len(copies_of(client)) == 1)


def test_a_load_larger_than_readers_should_repeat_gives_new_copies(client, monkeypatch):
    monkeypatch.setattr(messages, "LARGEST_LAG", 10_000)
    monkeypatch.setattr(messages, "LARGEST_JOURNAL", 10_000)
    client.upload_points(NAME, points(500, first=2000, seed=40))
    assert client.count(NAME).count == POINTS + 500
    until_ready(client)
    assert everything(ByReader(client)) == everything(InProcess(client))


def test_writes_by_an_alias_never_wait_for_a_change_that_waits_for_them(client):
    """A change of the folder holds its lock while it waits for writes: a write must not wait for that lock."""
    alias = models.CreateAlias(collection_name=NAME, alias_name="current")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])

    def write() -> None:
        for step in range(200):
            client.set_payload("current", {"step": step}, [1])

    def change() -> None:
        for step in range(50):
            client.update_collection(NAME, metadata={"step": step})

    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(write), threads.submit(write), threads.submit(change)]
        assert [call.result(timeout=LONGEST_WAIT) for call in running] == [None] * 3


def test_many_threads_see_what_they_wrote(client):
    def work(thread: int) -> None:
        for step in range(25):
            point_id = 10_000 + 100 * thread + step
            vector = vectors(1, point_id)[0]
            client.upsert(NAME, [models.PointStruct(id=point_id, vector=vector, payload={"step": step})])
            assert client.query_points(NAME, vector, limit=1).points[0].id == point_id
            client.delete(NAME, [point_id])
            assert client.query_points(NAME, vector, limit=1).points[0].id != point_id

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    assert everything(ByReader(client)) == everything(InProcess(client))


def test_searches_go_on_while_a_reader_is_killed_and_it_comes_again(client, caplog):
    query, expected = vectors(1, 3)[0], InProcess(client).query_points(NAME, vectors(1, 3)[0])
    stop = threading.Event()

    def search() -> int:
        count = 0
        while not stop.is_set() or count == 0:
            assert client.query_points(NAME, query) == expected
            count += 1
        return count

    before = processes(client)
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(4) as threads:
        running = [threads.submit(search) for _ in range(4)]
        os.kill(before[0], signal.SIGKILL)
        until(lambda: before[0] not in processes(client))
        until_ready(client)
        stop.set()
        assert all(call.result() for call in running)
    assert processes(client)[1:] == before[1:]
    assert [r.message for r in caplog.records if "a reader ended (signal 9)" in r.message]
    assert len(caplog.records) == 1
    assert ByReader(client).query_points(NAME, query) == expected


def test_a_reader_that_ends_again_and_again_is_given_up(own, caplog, monkeypatch):
    monkeypatch.setattr(pool, "MOST_ENDS", 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            until_ready(own)
            os.kill(processes(own)[0], signal.SIGKILL)
            pid = processes(own)[0]
            until(lambda pid=pid: (own.query_points(NAME, 1), pid not in processes(own))[1])
    until(lambda: "again and again" in caplog.text)
    assert own.query_points(NAME, 1) == InProcess(own).query_points(NAME, 1)


def test_close_ends_the_readers_and_removes_their_files(tmp_path):
    client = connect(tmp_path, readers=2)
    fill(client)
    until_ready(client)
    pids = processes(client)
    assert (tmp_path / READERS_FOLDER).is_dir()
    client.close()
    assert not any(alive(pid) for pid in pids)
    assert not (tmp_path / READERS_FOLDER).exists()
    with closing(connect(tmp_path)) as again:
        assert again.count(NAME).count == POINTS


def test_readers_never_change_the_files_of_a_collection(client):
    """What the readers link to would change under the collection itself."""
    collection = client.engine.collection(NAME)
    client.flush(NAME)
    linked = [path for path in collection.folder.rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    assert linked, "an indexed collection has files that never change"
    before = {path: path.read_bytes() for path in linked}
    for method, arguments, options in WRITES:
        getattr(client, method)(NAME, *arguments, **options)
        everything(ByReader(client))
    assert {path: path.read_bytes() for path in linked} == before


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends a reader with its parent on Linux only")
def test_readers_end_with_a_killed_parent_and_their_files_go_with_the_next_open(tmp_path):
    code = (
        "import sys, time\n"
        "from qdrant_tools.client.connect import connect\n"
        f"client = connect({str(tmp_path)!r}, readers=2)\n"
        "pool = client.engine.readers\n"
        "while len(pool.process_ids) < 2: time.sleep(0.01)\n"
        "print(*pool.process_ids, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
    finally:
        parent.kill()
        parent.communicate()
    assert len(pids) == 2
    until(lambda: not any(alive(pid) for pid in pids))
    assert (tmp_path / READERS_FOLDER).exists()
    with closing(connect(tmp_path)):
        assert not (tmp_path / READERS_FOLDER).exists()


def test_a_folder_that_only_has_the_name_of_ours_is_left_alone(tmp_path):
    connect(tmp_path).close()
    kept = tmp_path / READERS_FOLDER / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    connect(tmp_path).close()
    assert kept.read_text() == "mine"


def test_clients_that_await_are_answered_by_readers(tmp_path):
    async def run() -> None:
        client = aconnect(tmp_path, readers=1)
        await client.create_collection(NAME, models.VectorParams(size=SIZE, distance=models.Distance.COSINE))
        await client.upsert(NAME, [models.PointStruct(id=i, vector=row) for i, row in enumerate(vectors(50))])
        while not await client.readers_ready(NAME):
            await asyncio.sleep(0.01)
        responses = await asyncio.gather(*[client.query_points(NAME, row, limit=1) for row in vectors(50)])
        assert [response.points[0].id for response in responses] == list(range(50))
        await client.close()

    asyncio.run(run())


def test_small_collections_are_answered_here(client, monkeypatch):
    monkeypatch.setattr(pool, "SMALLEST", 1 << 30)
    fill(client, "small")
    assert not client.readers_ready("small")
    assert client.query_points("small", 1).points
    assert not client.readers_ready("small")


@pytest.mark.parametrize("count", [-1, 1.5, True, "2", None, 1000])
def test_a_number_of_readers_that_makes_no_sense_is_refused(tmp_path, count):
    with pytest.raises(InputError, match="readers is"):
        connect(tmp_path, readers=count)
    connect(tmp_path).close()


def test_readers_are_for_folders(tmp_path):
    for location in (":memory:", "http://localhost:1"):
        with pytest.raises(UsageError, match="readers"):
            connect(location, readers=2)


def test_a_disk_without_room_for_copies_costs_nothing_but_the_readers(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pool, "SPARE_DISK", 1 << 60)
    with closing(connect(tmp_path, readers=1)) as client, caplog.at_level(logging.WARNING):
        fill(client)
        client.query_points(NAME, 1)
        until(lambda: "no space left for copies" in caplog.text)
        for _ in range(50):
            assert client.query_points(NAME, 1) == InProcess(client).query_points(NAME, 1)
        assert len(caplog.records) == 1, "it is said once, not at every search"
        assert not client.readers_ready(NAME)


def test_every_error_of_a_pool_is_one_of_ours(own):
    pool_of(own).close()
    assert own.query_points(NAME, 1) == InProcess(own).query_points(NAME, 1)
    with pytest.raises(PlusError):
        own.query_points(NAME, [1.0])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
