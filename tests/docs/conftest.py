"""A model for pages that open one often, and what the tracing of an application leaves behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from llama_index_embed_plus import export_onnx

TRACED = ("spans.jsonl", "annotations.csv", "queries.jsonl", "qrels.tsv")


@pytest.fixture(scope="session")
def onnx_minilm(minilm, tmp_path_factory) -> Path:
    """all-MiniLM-L6-v2 as an artifact with an ONNX build, exported once."""
    folder = tmp_path_factory.mktemp("onnx") / "all-MiniLM-L6-v2"
    export_onnx(minilm, folder)
    return folder


@pytest.fixture(scope="session")
def _traced_once(onnx_minilm, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("traced")
    (folder / "model").symlink_to(onnx_minilm)
    call = [sys.executable, str(ROOT / "examples" / "traced_pipeline.py"), str(folder), "160"]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def traced(_traced_once, tmp_path) -> Path:
    """A collection, the spans that a real exporter wrote of searches in it, thumbs, and judged queries."""
    for name in TRACED:
        shutil.copy(_traced_once / name, tmp_path)
    shutil.copytree(_traced_once / "qdrant", tmp_path / "qdrant")
    (tmp_path / "model").symlink_to((_traced_once / "model").resolve())
    return tmp_path
