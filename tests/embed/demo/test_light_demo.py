"""`embed-plus demo` where torch and matplotlib cannot be imported: from the weights to a proved adapter."""

from __future__ import annotations

import json

import pytest
from light import run_light

RUN = """
import sys
from llama_index_embed_plus.cli import main
sys.argv = ["embed-plus", {arguments}]
main()
"""


def command(folder, *arguments):
    return run_light(RUN.format(arguments=", ".join(map(repr, arguments))), folder=folder)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("light")
    return folder, command(folder, "demo", "--limit", "150")


def test_the_whole_loop_runs_and_ends_in_a_table_and_the_next_command(shown):
    folder, done = shown
    assert done.returncode == 0, done.stderr
    assert "held-out queries, 150 documents" in done.stdout and "wrote demo-report.json and demo/" in done.stdout
    row = json.loads((folder / "demo-report.json").read_text())
    assert row["adapter"]["train_pairs"] > 50 and set(row["systems"]) == {"base", "adapter"}
    assert done.stderr.rstrip().splitlines()[-1].startswith("next: embed-plus search docstrings ")


def test_what_is_not_drawn_is_said_in_one_line(shown):
    folder, done = shown
    (line,) = [line for line in done.stderr.splitlines() if "demo-report.png" in line]
    assert line.endswith("pip install 'llama-index-embed-plus[plot]'")
    assert not (folder / "demo-report.png").exists()


def test_the_export_says_that_numpy_was_what_it_was_compared_with(shown):
    folder, _ = shown
    done = command(folder, "describe", "demo/base-model")
    assert "against numpy-fp32" in done.stdout


def test_an_adapter_is_trained_and_proved_on_the_command_line_and_weights_name_their_extra(shown):
    folder, _ = shown
    asked = ("--location", "demo/qdrant")
    mined = command(folder, "mine", "docstrings-base", "demo/log.sqlite", "--out", "examples.jsonl", *asked)
    assert mined.returncode == 0, mined.stderr
    fitted = command(
        *(folder, "train", "docstrings-base", "--method", "adapter", "--examples", "examples.jsonl"),
        *("--heldout-share", "0.3", "--out", "adapted", "--model", "demo/base-model", *asked),
    )
    assert fitted.returncode == 0, fitted.stderr
    assert (folder / "adapted" / "adapter" / "adapter.npz").is_file()
    full = command(
        *(folder, "train", "--method", "full", "--examples", "examples.jsonl", "--out", "full"),
        *("--model", "all-MiniLM-L6-v2"),
    )
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith("error: method 'full' needs the extra 'train': pip install ")
