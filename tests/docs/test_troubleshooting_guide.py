"""The page of errors quotes what the program says: each heading is looked up in the messages of the code."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from paths import DOCS, ROOT

from llama_index_embed_plus.cli.app import COMMANDS

GUIDE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", GUIDE, flags=re.M)


def written(node):
    """A text of the code, with … where it puts a value."""
    if isinstance(node, ast.Constant):
        return re.sub(r"%[ds]", "…", node.value) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(written(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


@cache
def texts():
    files = [path for package in ("qdrant_tools", "llama_index_embed_plus") for path in (ROOT / package).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    return [re.sub(r"['\"]?…['\"]?", "…", written(node)) for node in nodes]


@pytest.mark.parametrize("quoted", QUOTED)
def test_each_quoted_message_is_one_of_the_program(quoted):
    parts = [part for part in quoted.split("…") if part.strip()]
    pattern = re.compile(".*?".join(map(re.escape, parts)), flags=re.S)
    assert any(pattern.search(text) for text in texts())


def test_there_are_many():
    assert len(QUOTED) >= 12


def test_the_commands_that_lead_on_exist():
    named = set(re.findall(r"embed-plus ([a-z]+)", GUIDE)) - {"data"}
    assert named and named <= set(COMMANDS)
