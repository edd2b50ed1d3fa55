"""A model for pages that open one often."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_embed_plus import export_onnx


@pytest.fixture(scope="session")
def onnx_minilm(minilm, tmp_path_factory) -> Path:
    """all-MiniLM-L6-v2 as an artifact with an ONNX build, exported once."""
    folder = tmp_path_factory.mktemp("onnx") / "all-MiniLM-L6-v2"
    export_onnx(minilm, folder)
    return folder
