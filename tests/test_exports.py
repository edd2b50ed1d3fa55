"""The public API: what each namespace exports, and that README, docs, examples and benchmarks need nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections import Counter

import pytest
from paths import DOCS, ROOT

STUBS = sorted([*ROOT.glob("qdrant_tools/**/__init__.pyi"), *ROOT.glob("llama_index_embed_plus/**/__init__.pyi")])
LAZY = [".".join(path.relative_to(ROOT).parent.parts) for path in STUBS]
MODULES = ["errors", "indexing", "metrics", "records", "statistics", "tuning"]
NAMESPACES = [*LAZY, *(f"qdrant_tools.{name}" for name in MODULES), "llama_index_embed_plus.errors"]
"""What may be imported from: lazy packages, and the modules that are public as they are."""

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def imports(code):
    """(module, name) of every import of ours; the name is None for `import module`."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            pairs = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            pairs = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        yield from (pair for pair in pairs if pair[0].split(".")[0] in ("qdrant_tools", "llama_index_embed_plus"))


@pytest.mark.parametrize("namespace", LAZY)
def test_every_exported_member_is_there_and_comes_from_this_project(namespace):
    module = importlib.import_module(namespace)
    assert module.__all__ == sorted(module.__all__) == dir(module)
    for name in module.__all__:
        member = getattr(module, name)
        assert not inspect.ismodule(member), f"{namespace}.{name} is a module: one of the two needs another name"
        if inspect.isclass(member) or inspect.isfunction(member):
            assert member.__name__ == name
            assert member.__module__.split(".")[0] in ("qdrant_tools", "llama_index_embed_plus")
            assert inspect.getdoc(member), f"{namespace}.{name} does not say what it is"


@pytest.mark.parametrize("stub", STUBS, ids=LAZY)
def test_the_types_that_editors_see_are_the_names_that_are_exported(stub):
    tree = ast.parse(stub.read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    (exported,) = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    package = importlib.import_module(".".join(stub.relative_to(ROOT).parent.parts))
    assert set(exported) == imported == set(package.__all__)


@pytest.mark.parametrize("namespace", ["qdrant_tools", "llama_index_embed_plus"])
def test_the_top_of_each_package_stays_small(namespace):
    names = importlib.import_module(namespace).__all__
    assert 15 <= len(names) <= 30


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Missing"):
        importlib.import_module("qdrant_tools").Missing  # noqa: B018


def test_no_two_public_classes_share_a_name():
    owners = {}
    for namespace in NAMESPACES:
        module = importlib.import_module(namespace)
        for name in module.__all__:
            member = getattr(module, name)
            if inspect.isclass(member):
                owners.setdefault(name, set()).add(f"{member.__module__}.{member.__qualname__}")
    assert {name: places for name, places in owners.items() if len(places) > 1} == {}


def public(module, name):
    """Is this import one of the public API?"""
    if module not in NAMESPACES:
        return f"{module}.{name}" in NAMESPACES
    return name is None or name in importlib.import_module(module).__all__ or f"{module}.{name}" in NAMESPACES


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_need_nothing_beyond_the_public_api(page):
    deep = [f"{module}: {name}" for code in blocks(page) for module, name in imports(code) if not public(module, name)]
    assert deep == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_need_little_and_nothing_beyond_the_public_api(example):
    code = example.read_text()
    deep = [f"{module}: {name}" for module, name in imports(code) if not public(module, name)]
    modules = [node.module for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    libraries = [module for module in modules if module.split(".")[0] not in sys.stdlib_module_names]
    assert deep == []
    # a whole application with its tracing, which is what it is about
    most = 13 if example.name == "traced_pipeline.py" else 4
    assert len(libraries) <= most, f"{example.name} imports from {libraries}"


def test_the_three_ways_in_are_short():
    for code in blocks(ROOT / "README.md"):
        lines = [line for line in code.splitlines() if line.strip()]
        counts = Counter(line.startswith(("from ", "import ")) for line in lines)
        assert counts[True] <= 3 and counts[False] <= 7, code
