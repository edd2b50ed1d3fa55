"""The pages for new users run as they stand: each command, each block of Python, and what is shown is printed."""

from __future__ import annotations

import pytest
from pages import run_page
from paths import DOCS

PAGES = [
    *("hybrid-search", "deployment", "first-hour/llamaindex", "first-hour/documents"),
    *("migration/qdrant", "migration/langchain", "migration/sentence-transformers"),
]


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs_from_top_to_bottom(page, tmp_path, onnx_minilm):
    run_page(DOCS / f"{page}.md", tmp_path, model=onnx_minilm)
