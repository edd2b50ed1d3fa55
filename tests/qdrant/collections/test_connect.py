"""One location string becomes one client, or one clear error."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import subprocess
import sys
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from qdrant_client import QdrantClient, models

from qdrant_tools.client import connect as connect_module
from qdrant_tools.client.connect import API_KEY_VARIABLE, Secret, ServerOptions, aconnect, connect, engine_of
from qdrant_tools.errors import LocationBusyError, LocationError, UnreachableError, UsageError

VECTOR = models.VectorParams(size=2, distance=models.Distance.COSINE)


class TinyServer(BaseHTTPRequestHandler):
    """Answers as Qdrant does to `GET /collections`, if the key is `right-key`."""

    def do_GET(self):
        allowed = self.headers.get("api-key") == "right-key"
        body = json.dumps({"result": {"collections": []}, "status": "ok", "time": 0.0} if allowed else {"status": "no"})
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    httpd = HTTPServer(("127.0.0.1", 0), TinyServer)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_folder_gets_the_embedded_engine(tmp_path):
    client = connect(tmp_path / "here")
    assert isinstance(client, QdrantClient)
    assert engine_of(client) == "qdrant-edge"
    assert client.info().title == "qdrant-edge"
    client.close()


def test_memory_gets_qdrant_clients_local_mode():
    assert engine_of(connect(":memory:")) == "memory"


def test_a_server_is_reached_with_the_key_given_or_from_the_environment(server, monkeypatch):
    assert engine_of(connect(server, api_key="right-key")) == "server"
    monkeypatch.setenv(API_KEY_VARIABLE, "right-key")
    assert engine_of(connect(server)) == "server"


def test_a_wrong_key_is_refused_without_showing_it(server):
    with pytest.raises(UnreachableError, match="refuses access") as caught:
        connect(server, api_key="secret-key")
    assert "secret-key" not in str(caught.value)


def test_the_key_is_masked_in_the_clients_options(server):
    client = connect(server, api_key="right-key")
    assert "right-key" not in repr(client.init_options)
    assert "right-key" not in repr(vars(client._client))
    assert "right-key" not in str(client.init_options) + f"{client.init_options['api_key']}"


def test_a_secret_is_given_by_its_method_alone():
    secret = Secret("hunter2")
    options = ServerOptions(secret, 5, prefer_grpc=False)
    shown = [
        *(str(secret), repr(secret), f"{secret}", f"{secret!s:>20}", f"{secret:>9}", "" + secret),
        *(json.dumps({"key": secret}), json.dumps(asdict(options)), repr(options), str(options.__dict__)),
        *(str(copy.copy(secret)), str(copy.deepcopy(options)), secret.encode().decode(), "".join(secret), secret[:]),
        *(repr(pickle.dumps(secret, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
        *(repr(pickle.dumps(options)), repr(getattr(secret, "__dict__", {})), io.StringIO(secret).getvalue()),
        repr(secret.__getstate__()),
    ]  # fmt: skip
    assert [text for text in shown if "hunter2" in text] == []
    assert secret.reveal() == "hunter2" and type(secret.reveal()) is str
    assert copy.deepcopy(options).api_key.reveal() == "hunter2" == Secret(secret).reveal()
    assert secret == Secret("hunter2") and secret != Secret("other") and secret != "***" and len({secret, "***"}) == 2


def test_a_key_that_was_pickled_is_asked_for_again():
    unpickled = pickle.loads(pickle.dumps(Secret("hunter2")))
    assert str(unpickled) == "***"
    with pytest.raises(UsageError, match="give it again"):
        unpickled.reveal()


@pytest.mark.parametrize("location", ["http://user:hunter2@127.0.0.1:1", "http://hunter2@127.0.0.1:1/x",
    "https://127.0.0.1:1/?api_key=hunter2", "HTTP://127.0.0.1:1#hunter2", "http://u:hun/ter2@127.0.0.1:1",
    "http://u:hun'te r2@127.0.0.1:1", "user:hunter2@127.0.0.1:6333", "127.0.0.1:6333?api_key=hunter2", "grpc://hunter2@host",
    "u:p@h:1/?hunter2"])  # fmt: skip
@pytest.mark.parametrize("open_", [connect, aconnect])
def test_a_key_in_a_url_is_refused_and_not_shown(location, open_, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for options in ({}, {"readers": 2}):
        with pytest.raises(UsageError) as refusal:
            open_(location, **options)
        assert not re.search("hun|ter2", str(refusal.value))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["http://[::1", "http://h:99999999", "http://h:x", "http://", "http://a b", "http://\x1b]0;x",
    "http://\ud800", "http://" + "a" * 300, "http://a\x00b", "http://..", "https://[x]:1", "http:///x"])  # fmt: skip
def test_a_url_that_is_none_is_refused(location):
    with pytest.raises((UsageError, UnreachableError)) as refusal:
        connect(location, timeout=2)
    assert len(str(refusal.value).splitlines()) == 1 and len(str(refusal.value)) < 600


def test_a_server_that_does_not_answer_is_unreachable():
    with pytest.raises(UnreachableError, match="does not answer"):
        connect("http://127.0.0.1:1")


@pytest.mark.parametrize("location", ["localhost:6333", "grpc://localhost:6334"])
def test_an_address_that_is_no_url_is_not_taken_for_a_folder(location, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="http://host:port"):
        connect(location)
    assert list(tmp_path.iterdir()) == []


def test_server_options_on_a_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match="are for a server"):
        connect(tmp_path, api_key="key")


def test_reading_a_folder_that_is_not_there_leaves_nothing_behind(tmp_path):
    with pytest.raises(LocationError, match="no collections at"):
        connect(tmp_path / "mistyped", create=False)
    assert list(tmp_path.iterdir()) == []


def test_reading_an_empty_folder_leaves_it_empty(tmp_path):
    with pytest.raises(LocationError, match="no collections at"):
        connect(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_location_is_refused():
    with pytest.raises(LocationError, match="empty"):
        connect("  ")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(LocationError, match="thesis.txt"):
        connect(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_local_mode_folder_is_recognised(tmp_path):
    local = QdrantClient(path=str(tmp_path / "local"))
    local.close()
    with pytest.raises(LocationError, match="local-mode folder of qdrant-client"):
        connect(tmp_path / "local")


def test_a_file_is_no_location(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(LocationError, match="is a file"):
        connect(tmp_path / "file")


def test_a_second_process_is_refused_at_once(tmp_path):
    client = connect(tmp_path)
    program = f"from qdrant_tools.client.connect import connect; connect({str(tmp_path)!r})"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert other.returncode != 0
    assert LocationBusyError.__name__ in other.stderr and "in use by another process" in other.stderr
    client.close()
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_two_clients_of_one_process_share_the_engine_until_both_are_closed(tmp_path):
    first, second = connect(tmp_path), connect(str(tmp_path))
    first.create_collection("docs", VECTOR)
    assert second.collection_exists("docs")
    first.close()
    second.upsert("docs", [models.PointStruct(id=1, vector=[1.0, 0.0])])
    assert second.count("docs").count == 1
    second.close()
    with pytest.raises(LocationError, match="was closed"):
        second.count("docs")


def test_a_client_forgotten_without_close_lets_the_folder_go(tmp_path):
    connect(tmp_path).create_collection("docs", VECTOR)
    program = f"from qdrant_tools.client.connect import connect; print(connect({str(tmp_path)!r}).get_collections())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "docs" in other.stdout, other.stderr


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("http://qdrant.example:6333", "qdrant.example"),
        ("HTTP://10.0.0.7", "10.0.0.7"),
        ("http://[2001:db8::1]:6333/x", "2001:db8::1"),
        ("http://localhost.example:6333", "localhost.example"),
        ("https://qdrant.example:6333", None),
        ("http://localhost:6333", None),
        ("http://LOCALHOST.:6333", None),
        ("http://127.0.0.1:6333", None),
        ("http://127.9.9.9", None),
        ("http://[::1]:6333", None),
    ],
)
def test_a_key_over_plain_http_to_another_machine_is_warned_of_once(location, host, caplog, monkeypatch):
    connect_module._warn_of_plain_http.cache_clear()
    monkeypatch.setenv("QDRANT_API_KEY", "sekret")
    for _ in range(2):
        connect_module.server_options(location, None, None, False)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (host is not None)
    assert all(f"the key is sent to {host} over plain http" in text and "sekret" not in text for text in told)
    monkeypatch.delenv("QDRANT_API_KEY")
    connect_module._warn_of_plain_http.cache_clear()
    connect_module.server_options(location, None, None, False)
    assert len(caplog.records) == len(told), "without a key there is nothing to read"
