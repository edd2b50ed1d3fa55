"""A model to a hub: what is sent is a verified artifact without users' queries; a real server plays the hub."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from command_line import error_line
from models import save_model

from llama_index_embed_plus import export_onnx, open_encoder
from llama_index_embed_plus.errors import DamagedModelError, ModelError
from llama_index_embed_plus.models.artifact import verify, write_manifest
from llama_index_embed_plus.sharing.hub import push_to_hub
from qdrant_tools.errors import UsageError

COMMAND = "from llama_index_embed_plus.cli import main; main()"
REPORT = {
    "promotable": False,
    "verdict": "not better on 59 queries",
    "proof": {"wins": [{"query_id": "q1", "text": "my private question"}], "losses": []},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push")
    save_model(folder / "checkpoint")
    export_onnx(folder / "checkpoint", folder / "model")
    (folder / "model" / "README.md").write_text("---\nlibrary_name: sentence-transformers\n---\n# A model\n")
    write_manifest(folder / "model")
    return folder / "model"


@pytest.fixture
def trained(exported, tmp_path):
    """The same, as if training had found it not better."""
    import shutil

    folder = tmp_path / "trained"
    shutil.copytree(exported, folder)
    (folder / "train_report.json").write_text(json.dumps(REPORT))
    (folder / "heldout").mkdir()
    (folder / "heldout" / "queries.jsonl").write_text('{"id": "q1", "text": "my private question"}\n')
    write_manifest(folder)
    return folder


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub for one commit, with LFS for large and binary files."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        host = f"http://{self.headers['Host']}"
        if self.server.refuses:
            return self.answer({"error": "no"}, 403)
        if self.path == "/api/repos/create":
            return self.answer({"url": f"{host}/ann/tuned", "private": json.loads(body).get("private")})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            return self.answer({"files": [{**f, "uploadMode": mode(f["path"]), "shouldIgnore": False} for f in files]})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            upload = [{**o, "actions": {"upload": {"href": f"{host}/lfs/{o['oid']}"}}} for o in objects]
            return self.answer({"transfer": "basic", "objects": upload})
        if self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.blobs[value["oid"]]
            return self.answer({"commitUrl": f"{host}/ann/tuned/commit/abc", "commitOid": "abc", "success": True})
        return self.answer({"error": self.path}, 404)

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.blobs[hashlib.sha256(content).hexdigest()] = content
        self.answer({})

    def answer(self, row, status=200):
        content = json.dumps(row).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def mode(path):
    return "lfs" if path.endswith((".safetensors", ".onnx", ".npz")) else "regular"


@contextmanager
def hub(*, refuses=False):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.blobs, server.seen, server.refuses = {}, {}, [], refuses
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def push(server, *arguments):
    # the library reads its variables when it is imported
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_TOKEN": "hf_ours", "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **own, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", COMMAND, "push", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_what_arrives_is_a_model_that_serves_the_same_vectors(exported, tmp_path):
    with hub() as server:
        done = push(server, exported, "ann/tuned", "--private")
    assert done.returncode == 0, done.stderr
    assert {token for _, token in server.seen} == {"Bearer hf_ours"} and "hf_ours" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == "next: embed-plus describe ann/tuned"
    for name, content in server.files.items():
        path = tmp_path / "arrived" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    verify(tmp_path / "arrived")
    assert {"README.md", "embed_plus.json", "onnx/model.onnx"} <= set(server.files)
    here, there = (open_encoder(folder, backend="onnx") for folder in (exported, tmp_path / "arrived"))
    assert here.space == there.space
    assert (here.encode_queries(["the bee"]) == there.encode_queries(["the bee"])).all()


def test_what_users_typed_stays_here(trained):
    with hub() as server:
        done = push(server, trained, "ann/tuned", "--force")
    assert done.returncode == 0, done.stderr
    assert not [name for name in server.files if name.startswith("heldout")]
    assert not [name for name, content in server.files.items() if b"my private question" in content]


def test_a_model_that_was_not_proved_better_is_refused_with_the_way_out(trained, run):
    code, _, err = run("push", trained, "ann/tuned")
    assert code == 1 and "not better on 59 queries" in err and "--force" in err and "embed-plus prove" in err
    with pytest.raises(ModelError, match="not better on 59 queries"):
        open_encoder(trained, backend="onnx").push_to_hub("ann/tuned")


def test_a_dry_run_lists_all_files_and_asks_nobody(exported, run):
    code, out, err = run("push", exported, "ann/tuned", "--dry-run")
    assert code == 0 and "embed_plus.json" in out and "would be sent to ann/tuned" in out
    assert err.splitlines()[-1] == f"next: embed-plus push {exported} ann/tuned"
    row = json.loads(run("push", exported, "ann/tuned", "--dry-run", "--json")[1])
    assert row["bytes"] == sum(row["files"].values()) and row["dry_run"] and row["url"] == row["commit"] == ""
    pushed = open_encoder(exported, backend="onnx").push_to_hub("ann/tuned", dry_run=True)
    assert set(pushed.files) == set(row["files"])


def test_a_hub_that_refuses_and_one_that_is_not_there_are_one_line(exported):
    with hub(refuses=True) as server:
        done = push(server, exported, "ann/tuned")
    assert done.returncode == 1 and "hf auth login" in error_line(done.stderr)
    done = push(server, exported, "ann/tuned")
    assert done.returncode == 1 and "ann/tuned" in error_line(done.stderr)


@pytest.mark.parametrize("repo", ["tuned", "a/b/c", "../x", "ann/", "ann/tu ned", "https://x/y"])
def test_a_name_that_no_hub_has_is_refused(exported, repo):
    with pytest.raises(UsageError, match="owner/name"):
        push_to_hub(exported, repo, dry_run=True)


def test_only_whole_artifacts_are_sent(exported, tmp_path):
    import shutil

    with pytest.raises(UsageError, match="embed-plus export"):
        push_to_hub(tmp_path, "ann/tuned", dry_run=True)
    damaged = tmp_path / "damaged"
    shutil.copytree(exported, damaged)
    (damaged / "README.md").write_text("another")
    with pytest.raises(DamagedModelError, match=r"README\.md"):
        push_to_hub(damaged, "ann/tuned", dry_run=True)
    assert Path(exported).is_dir()
