"""mkdocs's hooks: the public names -> pages of the reference; files beside docs/ -> pages, so that links to them hold.

Guarantees: each name of each `__init__.pyi`, and of each module that is public as it is, has its entry on one page, and
a line with a link on every other namespace that has it. Links to `../FILE` lead to a page with that file.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("llama_index_embed_plus", "qdrant_tools")
MODULES = (
    *(f"qdrant_tools.{name}" for name in ("errors", "indexing", "metrics", "records", "statistics", "tuning")),
    "llama_index_embed_plus.errors",
)
"""Modules that are public as they are; every folder with an `__init__.pyi` is public too."""


def namespaces() -> list[str]:
    """What may be imported from, as README, docs and examples do."""
    stubs = sorted(stub for package in PACKAGES for stub in ROOT.glob(f"{package}/**/__init__.pyi"))
    return sorted([".".join(stub.parent.relative_to(ROOT).parts) for stub in stubs] + list(MODULES))


@cache
def _code() -> griffe.ModulesCollection:
    loader = griffe.GriffeLoader(search_paths=[ROOT])
    for package in PACKAGES:
        loader.load(package)
    return loader.modules_collection


def names(namespace: str) -> dict[str, str]:
    """Each public name of a namespace, and the full path of where it is defined. Read, not imported: no torch here."""
    stub = ROOT / namespace.replace(".", "/") / "__init__.pyi"
    file = stub if stub.exists() else ROOT / f"{namespace.replace('.', '/')}.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    listed = next(node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
    return {name: _home(_code()[f"{namespace}.{name}"]) for name in sorted(ast.literal_eval(listed))}


def _home(member: griffe.Object | griffe.Alias) -> str:
    return str(member.final_target.path if isinstance(member, griffe.Alias) else member.path)


@cache
def reference() -> dict[str, str]:
    """Each page of the reference, by its path in the site."""
    pages, first = {}, {}
    for namespace in namespaces():
        entries, elsewhere = [], []
        for name, path in names(namespace).items():
            if path in first:
                elsewhere.append(f"- [`{name}`]({first[path]}.md#{path})")
            else:
                first[path] = namespace
                entries.append(f"::: {path}\n")
        docstring = _code()[namespace].docstring
        about = docstring.value if docstring else ""
        pages[f"reference/{namespace}.md"] = "\n".join(
            [f"# `{namespace}`\n", about + "\n", *entries, *(["## Also here\n", *elsewhere] if elsewhere else []), ""]
        )
    links = "\n".join(f"- [`{namespace}`]({namespace}.md)" for namespace in namespaces())
    pages["reference/index.md"] = f"# API reference\n\nThe public names, by what they are imported from.\n\n{links}\n"
    return pages


def beside() -> dict[str, str]:
    """The pages of files outside docs/ that pages of docs/ link to."""
    pages = {f"{name}.md": (ROOT / f"{name}.md").read_text(encoding="utf-8") for name in ("CHANGELOG", "SECURITY")}
    for example in sorted((ROOT / "examples").glob("*.py")):
        code = example.read_text(encoding="utf-8")
        pages[f"examples/{example.stem}.md"] = f"# examples/{example.name}\n\n```python\n{code}```\n"
    links = "\n".join(f"- [{name}]({Path(name).name})" for name in pages if name.startswith("examples/"))
    pages["examples/index.md"] = f"# Examples\n\n{links}\n"
    # these link to docs/ and to the folder they lie in
    return {name: re.sub(r"\]\((?:docs/)([^)]+)\)", r"](\1)", text) for name, text in pages.items()}


def on_config(config: Any) -> Any:
    config.nav.append({"Reference": ["reference/index.md", *sorted(set(reference()) - {"reference/index.md"})]})
    config.nav.append({"Examples": sorted(name for name in beside() if name.startswith("examples/"))})
    config.nav.append({"Changes": "CHANGELOG.md"})
    config.nav.append({"Reporting a vulnerability": "SECURITY.md"})
    return config


def on_files(files: Files, config: Any) -> Files:
    for path, text in (reference() | beside()).items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links out of docs/ lead to the pages that stand for those files."""
    up = "../" * page.file.src_uri.count("/")
    leaves = re.escape(up) + r"\.\./"
    markdown = re.sub(rf"\]\({leaves}examples/(\w+)\.py\)", rf"]({up}examples/\1.md)", markdown)
    return re.sub(rf"\]\({leaves}((?:CHANGELOG|SECURITY)\.md)", rf"]({up}\1", markdown)
