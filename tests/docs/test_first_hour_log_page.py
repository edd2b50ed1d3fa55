"""The page for who has a log: its commands run on a log of its shape, and whatever the verdict is, it leads on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pages import run_page
from paths import DOCS, ROOT

PAGE = DOCS / "first-hour" / "logs.md"
PROMOTE = "embed-plus promote"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, onnx_minilm):
    """The reader's folder, with the passages and the log that the example of the page writes."""
    folder = tmp_path_factory.mktemp("log")
    (folder / "all-MiniLM-L6-v2").symlink_to(onnx_minilm)
    call = [sys.executable, str(ROOT / "examples" / "sample_log.py"), "60"]
    subprocess.run(call, cwd=folder, check=True, capture_output=True)
    (folder / "all-MiniLM-L6-v2").unlink()
    return folder


def test_its_commands_run_and_a_refusal_to_promote_names_a_command(folder, onnx_minilm):
    printed = run_page(PAGE, folder, model=onnx_minilm, skip=(PROMOTE,))
    assert "60 added" in printed and (folder / "adapted" / "heldout" / "queries.jsonl").exists()
    # a dozen held-out queries prove nothing, so that the promotion may be refused
    promoted = subprocess.run(
        [folder / ".bin" / "embed-plus", "promote", "run", "entries", "--model", "adapted", "--yes"],
        cwd=folder, env=os.environ | {"COLUMNS": "120"}, capture_output=True, text=True,
    )  # fmt: skip
    assert promoted.returncode in (0, 1)
    assert "embed-plus " in (promoted.stderr if promoted.returncode else promoted.stdout)


def test_from_the_log_to_serving_it_has_six_commands():
    road = PAGE.read_text().partition("## From a log")[2].partition("## If the verdict")[0]
    assert road.count("$ embed-plus ") == 6
