"""Kills at any moment, a disk that is full at the moment of writing, servers that fall silent or turn away."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from moments import dying  # noqa: F401  for the scripts
from paths import TESTS
from qdrant_client import models
from tiny import WordEncoder, numbered

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.points import stored_vectors
from qdrant_tools.errors import InputError, LocationError, PlusError, UnreachableError, VectorError
from qdrant_tools.indexing import IndexReport, index_passages
from qdrant_tools.promotion.promotion import Promotion
from qdrant_tools.promotion.switch import cleanup
from qdrant_tools.promotion.verify import Gates
from qdrant_tools.records import Passage
from qdrant_tools.search.dense import search

OLD, NEW = WordEncoder("old", dimension=256), WordEncoder("new", dimension=384)

INDEXING = """
import sys
sys.path.insert(0, sys.argv[1])
from test_robustness import *
client = connect(sys.argv[2])
docs = CollectionManager(client).ensure("docs", OLD)
print("begun", flush=True)
index_passages(docs, numbered(6000), OLD, batch_size=64, progress=lambda done: print(done, flush=True))
"""

# A graph over bags of words finds more or less, by luck: how much is no matter here.
PROMOTING = """
import sys
sys.path.insert(0, sys.argv[1])
from test_robustness import *
client = connect(sys.argv[2])
dying(client, METHODS, int(sys.argv[4]), sys.argv[5])
manager = CollectionManager(client)
promotion = Promotion(manager, "live", NEW, in_place=sys.argv[3] == "in-place")
promotion.build(batch_size=16)
if promotion.plan().kind != "nothing":
    promotion.verify(Gates(samples=10, recall=0.0))
promotion.switch()
print("switched", flush=True)
"""


METHODS = ["scroll", "retrieve", "upsert", "update_vectors", "get_collection", "update_collection", "count"]
METHODS += ["create_collection", "create_vector_name", "build_index", "update_collection_aliases"]
"""What a promotion calls: it is killed at the nth call of any of these."""


def command_of(script, *arguments):
    return [sys.executable, "-c", script, str(TESTS), *map(str, arguments)]


def test_an_index_run_that_is_killed_again_and_again_has_what_it_reported(tmp_path):
    for batches in (0, 2, 12, 40):  # of 94; each time it goes on with another one, and is killed somewhere in that
        running = subprocess.Popen(command_of(INDEXING, tmp_path / "data"), stdout=subprocess.PIPE, text=True)
        lines = [running.stdout.readline() for _ in range(1 + batches)]
        assert lines[0] == "begun\n" and all(lines)
        running.send_signal(signal.SIGKILL)
        lines += running.communicate()[0].splitlines()
        reported = sum(int(line) for line in lines[1:])
        with closing(connect(tmp_path / "data")) as client:
            assert client.count("docs").count >= reported
    with closing(connect(tmp_path / "data")) as client:
        docs = CollectionManager(client).ensure("docs", OLD)
        before = client.count("docs").count
        report = index_passages(docs, numbered(6000), OLD)
        assert (report.added, report.unchanged, report.updated) == (6000 - before, before, 0)
        assert sum(len(ids) for ids, _ in stored_vectors(docs)) == 6000


@pytest.mark.parametrize("how", ["beside", "in-place"])
def test_a_promotion_that_is_killed_again_and_again_serves_all_along(tmp_path, how):
    with closing(connect(tmp_path / "data")) as client:
        manager = CollectionManager(client)
        index_passages(manager.ensure("docs", OLD), numbered(800), OLD)
        manager.switch_alias("live", "docs")
    switched = False
    for nth, moment in ((3, "after"), (60, "before"), (71, "after"), (100, "before"), (130, "after"), (23, "before")):
        command = command_of(PROMOTING, tmp_path / "data", how, nth, moment)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        assert done.returncode == -signal.SIGKILL or done.stdout == "switched\n"
        assert nth > 60 or switched or done.returncode == -signal.SIGKILL, "the first kills come before the end"
        switched = switched or done.returncode == 0
        with closing(connect(tmp_path / "data")) as client:
            serving = CollectionManager(client).open("live")
            encoder = NEW if serving.space == NEW.space else OLD
            assert encoder is NEW or not switched, "what was switched stays switched"
            assert search(serving, numbered(18)[17].text, encoder, k=1, exact=True)[0].id == "p17"
            assert sum(len(ids) for ids, _ in stored_vectors(serving)) == 800
    with closing(connect(tmp_path / "data")) as client:
        manager = CollectionManager(client)
        promotion = Promotion(manager, "live", NEW, in_place=how == "in-place")
        promotion.build()
        if promotion.plan().kind != "nothing":
            promotion.verify(Gates(samples=10, recall=0.0))
        promotion.switch()
        cleanup(manager, "live")
        assert index_passages(manager.open("live", NEW), numbered(800), NEW) == IndexReport(unchanged=800)


def test_a_disk_that_is_full_at_the_moment_of_writing_is_an_error_and_loses_nothing(tmp_path):
    wide = WordEncoder("wide", dimension=4096)
    with closing(connect(tmp_path / "data")) as client:
        index_passages(CollectionManager(client).ensure("docs", wide), numbered(500), wide)
    child = os.fork()
    if child == 0:  # a process of its own, whose files cannot grow any more: the engine's own write fails
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (33_000_000, 33_000_000))
        stored = 500
        try:
            with closing(connect(tmp_path / "data")) as client:
                docs = CollectionManager(client).open("docs", wide)
                while stored < 8000:
                    index_passages(docs, numbered(250, start=stored), wide)
                    stored += 250
        except PlusError as error:
            (tmp_path / "error").write_text(f"{stored} {type(error).__name__}: {error}")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    stored, error, said = (tmp_path / "error").read_text().split(maxsplit=2)
    assert error == "LocationError:" and "'docs' cannot be written: no space left on the disk" in said
    assert 500 < int(stored) < 8000
    with closing(connect(tmp_path / "data")) as client:
        docs = CollectionManager(client).open("docs", wide)
        assert client.count("docs").count >= int(stored)
        assert search(docs, numbered(18)[17].text, wide, k=1)[0].id == "p17"
        assert index_passages(docs, numbered(int(stored)), wide) == IndexReport(unchanged=int(stored))


class MoodyServer(BaseHTTPRequestHandler):
    """Answers `GET /collections`, until its mood is a status or silence."""

    mood: int | None = 200
    released = threading.Event()

    def do_GET(self):
        if self.mood is None:
            self.released.wait(300)
            return
        body = b'{"result": {"collections": [], "aliases": []}, "status": "ok", "time": 0.0}'
        self.send_response(self.mood)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body if self.mood == 200 else b'{"status": {"error": "no"}}')

    def log_message(self, *_):
        pass


@pytest.fixture
def moody(monkeypatch):
    monkeypatch.setattr(MoodyServer, "mood", 200)
    monkeypatch.setattr(MoodyServer, "released", threading.Event())
    httpd = HTTPServer(("127.0.0.1", 0), MoodyServer)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    MoodyServer.released.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.mark.parametrize(
    ("mood", "message"),
    [(401, "refuses the API key"), (403, "refuses the API key"), (503, "is not ready"), (None, "does not answer")],
)
def test_a_server_that_changes_its_mind_is_an_error_of_ours_without_the_key(moody, monkeypatch, mood, message):
    manager = CollectionManager(connect(moody, api_key="secret-key", timeout=5 if mood is None else 60))
    assert manager.names() == []
    monkeypatch.setattr(MoodyServer, "mood", mood)
    with pytest.raises(UnreachableError, match=f"cannot list collections: .*{message}") as caught:
        manager.names()
    told = f"{caught.value}{caught.value!r}{caught.value.__cause__!r}{manager.client!r}{vars(manager.client)!r}"
    assert "secret-key" not in told


def test_a_server_that_never_answers_is_given_up_after_the_timeout():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with pytest.raises(UnreachableError, match="does not answer"):
            connect(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=1)


@pytest.fixture
def docs(tmp_path):
    with closing(connect(tmp_path / "data")) as client:
        yield CollectionManager(client).ensure("docs", OLD)


def test_a_payload_of_many_megabytes_is_stored_or_refused_by_name(docs):
    long = Passage("long", "word " * 2_000_000)
    assert index_passages(docs, [long], OLD) == IndexReport(added=1)
    assert len(search(docs, "word", OLD, k=1)[0].text) == len(long.text)


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        ({"topic": {"$gt": 3}}, r"\$gt"),
        ({"topic": [1, {"gt": 2}]}, "gt"),
        ({"topic": object()}, "object"),
        ({3: "x"}, "3"),
    ],
)
def test_a_filter_operator_that_nobody_knows_is_an_input_error(docs, filter_, message):
    index_passages(docs, numbered(5), OLD)
    with pytest.raises(InputError, match=message):
        search(docs, "thing1", OLD, filter=filter_)
    with pytest.raises(InputError, match="is not a filter"):
        docs.client.scroll("docs", {"must": [{"key": "topic", "matches": {"value": 3}}]})


@pytest.mark.parametrize("bad", [[1.0] * 255, [float("nan")] * 256, [float("inf")] + [0.0] * 255])
def test_a_vector_that_is_none_keeps_everything_else_as_it_was(docs, bad):
    index_passages(docs, numbered(5), OLD)
    points = [models.PointStruct(id=1, vector=[1.0] * 256), models.PointStruct(id=2, vector=bad)]
    with pytest.raises((VectorError, InputError)):
        docs.client.upsert("docs", points)
    assert docs.client.count("docs").count == 5


def test_a_location_that_cannot_be_written_names_itself(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LocationError, match="file"):
        connect(tmp_path / "file" / "inside")
