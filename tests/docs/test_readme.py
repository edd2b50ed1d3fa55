"""The README cannot lie: its Python runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import contextmanager

import pytest
from pages import run_page
from paths import ROOT

from llama_index_embed_plus.demo.pipeline import Demo

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.S | re.M)


class Silent:
    @contextmanager
    def step(self, name, total):
        yield lambda done: None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder in which `make demo` has run, on a slice of the corpus."""
    folder = tmp_path_factory.mktemp("readme")
    Demo(folder / "demo", Silent(), limit=200).run()
    return folder


@pytest.mark.parametrize(
    ("block", "printed"),
    [
        (BLOCKS[0], "Bees turn nectar into honey."),
        (
            BLOCKS[1],
            "IndexReport(added=2, updated=0, refreshed=0, unchanged=0, merged=0, deleted=0, failed=0, truncated=0, "
            "duplicates=0)\n"
            "Bees turn",
        ),
        (BLOCKS[2], "of queries that were left out: ndcg@10 "),
    ],
    ids=["llama-index", "qdrant", "fine-tune"],
)
def test_each_snippet_runs_as_it_stands(folder, block, printed):
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(printed)


def test_the_first_snippet_may_run_again_and_doubles_nothing(tmp_path):
    count = "\nprint(len(store.get_nodes()))"
    for _ in range(2):
        command = [sys.executable, "-c", BLOCKS[0] + count]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.splitlines() == ["Bees turn nectar into honey.", "2"], done.stderr


def test_the_first_snippet_cuts_long_texts_also_in_a_process_that_has_made_an_index_before(tmp_path):
    before = """
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
VectorStoreIndex.from_documents([Document(text="Cut by LlamaIndex itself.")], embed_model=MockEmbedding(4))
"""
    after = """
index.insert(Document(text="Herons wade in shallow water. " * 300))
print(len(store.get_nodes()) > 5, Settings.embed_model.encoder.count_overlong([n.text for n in store.get_nodes()]))
"""
    command = [sys.executable, "-c", before + BLOCKS[0] + after]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["Bees turn nectar into honey.", "True 0"], done.stderr


def test_the_first_snippet_needs_neither_torch_nor_the_store_of_llamaindex(tmp_path):
    absent = "import sys\nfor name in ('torch', 'llama_index.vector_stores'):\n    sys.modules[name] = None\n"
    done = subprocess.run([sys.executable, "-c", absent + BLOCKS[0]], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["Bees turn nectar into honey."], done.stderr


def test_there_are_three_snippets():
    assert len(BLOCKS) == 3


def test_every_make_target_and_command_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"make ([a-z-]+)`", README)) <= targets
    commands = set(re.findall(r"embed-plus ([a-z]+)", README))
    help_text = subprocess.run(
        [sys.executable, "-c", "from llama_index_embed_plus.cli import main; main()", "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert commands and all(f"  {command} " in help_text for command in commands)


def test_every_local_link_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links and all((ROOT / link).exists() for link in links)


def test_the_road_from_traces_runs_on_what_an_exporter_wrote_and_prints_what_is_shown(traced, onnx_minilm):
    section = README[README.index("**You have the log of a running system.**") :]
    (block,) = re.findall(r"^```console\n\$ embed-plus improve docs .*?^```$", section, flags=re.S | re.M)
    (traced / "section.md").write_text(block)
    run_page(traced / "section.md", traced, model=onnx_minilm, EMBED_PLUS_LOCATION="qdrant", EMBED_PLUS_MODEL="model")
    assert (traced / "better" / "model").is_dir()
