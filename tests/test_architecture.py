"""The import graph is the architecture: these rules keep both packages light and one-directional."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from paths import ROOT

PACKAGES = ("llama_index_embed_plus", "qdrant_tools")

# Library -> the only places (file or folder prefix) that may import it.
DOORS = {
    "torch": (
        "llama_index_embed_plus/encoders/torch_",
        "llama_index_embed_plus/encoders/cross_encoder.py",
        "llama_index_embed_plus/export/trace.py",
        "llama_index_embed_plus/training/averaging.py",
        "llama_index_embed_plus/training/losses/",
        "llama_index_embed_plus/training/trainer/",
    ),
    "transformers": (
        "llama_index_embed_plus/encoders/torch_",
        "llama_index_embed_plus/export/trace.py",
        "llama_index_embed_plus/training/losses/",
        "llama_index_embed_plus/training/trainer/",
    ),
    "sentence_transformers": (
        "llama_index_embed_plus/encoders/cross_encoder.py",
        "llama_index_embed_plus/training/losses/",
        "llama_index_embed_plus/training/trainer/",
    ),
    "datasets": (
        "llama_index_embed_plus/training/data/",
        "llama_index_embed_plus/training/trainer/",
        "llama_index_embed_plus/training/weights.py",
    ),
    "peft": ("llama_index_embed_plus/encoders/torch_", "llama_index_embed_plus/training/trainer/"),
    "onnxruntime": ("llama_index_embed_plus/encoders/onnx_", "llama_index_embed_plus/export/"),
    "onnx": ("llama_index_embed_plus/export/",),
    "llama_index": (
        "llama_index_embed_plus/serving/embedding.py",
        "llama_index_embed_plus/integrations/",
        "llama_index_embed_plus/documents/readers/foreign.py",
    ),
    "pypdf": ("llama_index_embed_plus/documents/readers/pdf.py",),
    "docx": ("llama_index_embed_plus/documents/readers/word.py",),
    "pptx": ("llama_index_embed_plus/documents/readers/slides.py",),
    "openpyxl": ("llama_index_embed_plus/documents/readers/sheets.py",),
    "striprtf": ("llama_index_embed_plus/documents/readers/foreign.py",),
    "qdrant_edge": ("qdrant_tools/edge/",),
    "matplotlib": ("llama_index_embed_plus/evaluate/plots/picture.py",),
    "mcp": ("llama_index_embed_plus/sharing/mcp_server.py",),
    "mteb": ("llama_index_embed_plus/integrations/mteb.py",),
    "opentelemetry": ("llama_index_embed_plus/integrations/spans.py",),
    "py3langid": ("llama_index_embed_plus/documents/languages.py",),
    "typer": ("llama_index_embed_plus/cli/",),
    "rich": ("llama_index_embed_plus/cli/console.py",),
}
NOT_IN_QDRANT_TOOLS = {
    "torch", "transformers", "sentence_transformers", "onnxruntime", "onnx", "llama_index", "llama_index_embed_plus",
    "tokenizers", "datasets",
}  # fmt: skip
HEAVY = (
    *("torch", "transformers", "sentence_transformers", "onnxruntime", "llama_index.core", "matplotlib", "onnx"),
    *("mteb", "sklearn", "scipy", "mcp"),
)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    """Every module name a file imports, wherever in the file the import stands."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_heavy_libraries_only_behind_their_door(path):
    name = path.relative_to(ROOT).as_posix()
    for module in imports(path):
        library = module.split(".")[0]
        assert name.startswith(DOORS.get(library, ("",))), f"{name} imports {module}; its door is {DOORS[library]}"


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if "qdrant_tools" in p.parts], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_qdrant_tools_knows_no_encoder_library(path):
    assert not {module.split(".")[0] for module in imports(path)} & NOT_IN_QDRANT_TOOLS


def test_no_module_imports_relatively():
    for path in SOURCES:
        relative = [n for n in ast.walk(parsed(path)) if isinstance(n, ast.ImportFrom) and n.level]
        assert not relative, f"{path.relative_to(ROOT)} imports relatively: the rules above would not see it"


@pytest.mark.parametrize(
    "statement",
    [
        "import llama_index_embed_plus",
        "import qdrant_tools",
        "import llama_index_embed_plus.cli",
        "from qdrant_tools import CollectionManager, connect, mine",
        "from llama_index_embed_plus.training import AdapterSettings, fit_adapter, prove, split_queries, train",
    ],
)
def test_importing_stays_light(statement):
    code = f"{statement}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_opens_by_saying_what_it_does():
    silent = [path.relative_to(ROOT).as_posix() for path in SOURCES if not ast.get_docstring(parsed(path))]
    assert silent == []


def test_only_the_door_of_the_command_line_prints():
    """What reaches the terminal past `console.py` may hold escapes; `app.py` puts its streams in place for the rest."""
    # the last writes a number to the process that started it
    doors = {
        *(f"llama_index_embed_plus/cli/{name}.py" for name in ("console", "app")),
        "qdrant_tools/edge/storage/worker.py",
    }
    printing = {"print", "pprint", "input", "echo", "secho", "confirm", "prompt"}
    found = []
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(parsed(path)) if name not in doors else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in printing:
                found.append(f"{name}:{node.lineno}")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
                found += [f"{name}:{node.lineno}"] if node.attr.strip("_") in ("stdout", "stderr") else []
    assert found == []


def test_no_module_imports_itself_through_others():
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES}
    known = set(names.values())
    graph = {}
    for path, name in names.items():
        pairs = [
            (node.module, alias.name)
            for node in parsed(path).body
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        ]
        graph[name] = {f"{module}.{member}" if f"{module}.{member}" in known else module for module, member in pairs}
    sorted_names = TopologicalSorter({name: needs & known for name, needs in graph.items()})
    sorted_names.prepare()  # raises CycleError, which names the circle


def test_the_architecture_page_is_short_and_names_every_folder():
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert len(page.splitlines()) <= 150
    folders = {path.parent.relative_to(ROOT) for path in SOURCES} - {Path(package) for package in PACKAGES}
    missing = [folder.as_posix() for folder in folders if f"{folder.name}/" not in page]
    assert missing == []


def test_the_tree_can_be_taken_in_at_a_glance():
    folders = Counter(path.parent for path in SOURCES)
    assert max(folders.values()) <= 15
    assert len(SOURCES) <= 495
