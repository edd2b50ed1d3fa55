"""A server whose collections belong to strangers, and addresses where no Qdrant answers."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

EVIL = "\x1b]52;c;ZXZpbA==\x07[red]x[/nope]\u202e\x9b31m"
OURS = {"format": 1, "space": "words@1", "dimension": 2, "hnsw_ef": None}
COLLECTIONS = {
    "good": OURS,
    f"name {EVIL}": OURS,
    "space": OURS | {"space": EVIL},
    "format": OURS | {"format": EVIL * 1000},
    "newer": OURS | {"format": 2},
    "deep": json.loads("[" * 500 + "]" * 500),
    "long": "x" * 5_000_000,
}
ODD = ("format", "newer", "deep", "long")
ANSWERS = {
    "a page": (200, b"<html>" + EVIL.encode()),
    "no text": (200, b"\xff\xfe" * 10),
    "brackets": (200, b"[" * 1_000_000),
    "another answer": (200, json.dumps({"result": EVIL * 100_000}).encode()),
    "an error of megabytes": (500, b"http://" * 500_000 + EVIL.encode()),
    "a redirect": (307, b""),
}


def described(metadata):
    params = {"vectors": {"size": 2, "distance": "Cosine"}}
    hnsw = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000}
    optimizer = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}
    config = {
        "params": params,
        "hnsw_config": hnsw,
        "optimizer_config": optimizer | {"flush_interval_sec": 5},
        "metadata": {"embed_plus": metadata},
    }
    counts = {"points_count": 3, "segments_count": 1, "payload_schema": {}}
    return {"status": "green", "optimizer_status": "ok", "config": config, **counts}


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("api-key")))
        code, body = self.server.answer or (200, json.dumps({"result": self.result(), "status": "ok"}).encode())
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        if code == 307:
            self.send_header("Location", f"{self.server.elsewhere}{self.path}")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def result(self):
        names = [unquote(part) for part in self.path.split("?")[0].split("/")[1:]]
        if names == ["collections"]:
            return {"collections": [{"name": name} for name in COLLECTIONS]}
        if names == ["aliases"]:
            return {"aliases": [{"alias_name": f"alias {EVIL}", "collection_name": "good"}]}
        return described(COLLECTIONS[names[1]]) if len(names) == 2 else {"count": 3, "exists": True}

    def log_message(self, *_):
        pass


@pytest.fixture
def servers():
    """Two servers; the first redirects to the second, if it redirects."""
    made = [ThreadingHTTPServer(("127.0.0.1", 0), Server) for _ in range(2)]
    for server in made:
        server.asked, server.answer, server.url = [], None, f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
    made[0].elsewhere = made[1].url
    yield made
    for server in made:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_no_qdrant_server_answers_is_one_line_and_the_key_goes_nowhere_else(run, servers, monkeypatch, answer):
    monkeypatch.setenv("QDRANT_API_KEY", "a key of mine")
    servers[0].answer = answer
    code, out, err = run("collection", "list", "--location", servers[0].url)
    assert (code, out, len(err.splitlines())) == (1, "", 1), err
    assert err.startswith("error: ") and "unexpected" not in err and "\x1b" not in err and len(err) < 600
    assert "a key of mine" not in err and not servers[1].asked


def test_collections_that_cannot_be_read_hide_no_other_ones(run, servers):
    code, out, err = run("collection", "list", "--location", servers[0].url)
    assert code == 0 and not err and not any(character in out for character in "\x1b\x07\x9b\u202e")
    lines = out.splitlines()
    assert len(lines) == len(COLLECTIONS) and all(len(line) < 600 for line in lines)
    assert sum("collection metadata has format" in line for line in lines) == len(ODD)
    code, out, _ = run("collection", "list", "--json", "--location", servers[0].url)
    rows = {row["name"]: row for row in json.loads(out)["collections"]}
    assert code == 0 and rows.keys() == COLLECTIONS.keys() and rows["good"]["points"] == 3
    assert {name for name, row in rows.items() if "error" in row} == set(ODD)
