"""A folder and patterns -> the files that are read."""

from __future__ import annotations

import os

import pytest

from llama_index_embed_plus.documents.files.walking import Walk
from llama_index_embed_plus.documents.reading import Source
from llama_index_embed_plus.documents.records import ReadSettings
from qdrant_tools.errors import UsageError

NAMES = (
    "a.txt", "b.md", "docs/c.md", "docs/deep/d.md", "docs/draft/e.md", "src/f.py", ".github/g.md", ".env", ".git/h.md",
    "node_modules/i/README.md", "src/__pycache__/j.txt", "Z.md", "ä.md",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    return tmp_path


def walked(folder, **options):
    walk = Walk(folder, ReadSettings(**options))
    return [file.name for file in walk.files()], walk


def test_files_come_in_the_order_of_their_paths_and_kinds_are_counted(folder):
    names, walk = walked(folder)
    assert names == ["Z.md", "a.txt", "b.md", "docs/c.md", "docs/deep/d.md", "docs/draft/e.md", "src/f.py", "ä.md"]
    assert walk.skipped == []
    assert walk.left_out == {"hidden": 3, "node_modules": 1, "__pycache__": 1}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include": ("*.py",)}, ["src/f.py"]),
        ({"include": ("docs/**",)}, ["docs/c.md", "docs/deep/d.md", "docs/draft/e.md"]),
        ({"include": ("/*.md",)}, ["Z.md", "b.md", "ä.md"]),
        (
            {"include": ("*.md", "!draft/"), "exclude": ("deep",)},
            ["Z.md", "b.md", "docs/c.md", "docs/draft/e.md", "ä.md"],
        ),
        ({"exclude": ("*.md", "!c.md")}, ["a.txt", "docs/c.md", "src/f.py"]),
        ({"exclude": ("docs/", "*.txt")}, ["Z.md", "b.md", "src/f.py", "ä.md"]),
        ({"include": (".github/**", "*.txt")}, [".github/g.md", "a.txt"]),
        ({"include": (".env",)}, [".env"]),
        ({"include": ("node_modules/**",)}, ["node_modules/i/README.md"]),
        ({"include": (".*", "**/.*/**"), "exclude": (".git",)}, [".env", ".github/g.md"]),
    ],
)
def test_patterns_are_those_of_gitignore(folder, options, expected):
    assert walked(folder, **options)[0] == expected


def test_what_patterns_leave_out_is_counted(folder):
    _, walk = walked(folder, include=("*.md",), exclude=("docs/",))
    assert walk.left_out == {"excluded": 1, "not included": 2, "hidden": 3, "node_modules": 1, "__pycache__": 1}


@pytest.mark.parametrize("options", [{"include": "*.md"}, {"exclude": (3,)}, {"exclude": ("!",)}])
def test_patterns_that_are_none_are_refused(folder, options):
    with pytest.raises(UsageError, match="pattern"):
        walked(folder, **options)


def test_environments_of_python_are_left_out_whatever_their_name(folder):
    (folder / "my python").mkdir()
    (folder / "my python" / "pyvenv.cfg").write_text("home = x")
    (folder / "my python" / "x.py").write_text("x")
    names, walk = walked(folder)
    assert not any("my python" in name for name in names) and walk.left_out["virtual environments"] == 1


def test_what_editors_keep_beside_a_file_is_left_out(folder):
    for name in ("a.txt~", "#b.md#", ".#b.md", ".a.txt.swp", "~$c.docx", ".~lock.c.odt#"):
        (folder / name).write_text("an older text")
    (folder / "#tags.md").write_text("text")
    names, walk = walked(folder, include=["/*.md", "/*~", "/#*"])
    assert names == ["#tags.md", "Z.md", "b.md", "ä.md"]
    assert walk.left_out["files of programs"] == 3


def test_a_name_that_is_not_utf8_is_skipped_and_shown_safely(folder):
    with open(os.fsencode(folder) + b"/caf\xe9.txt", "w") as file:
        file.write("text")
    os.mkdir(os.fsencode(folder) + b"/d\xe9")
    source = Source(folder)
    assert len(list(source)) == 8
    assert {(each.path.removeprefix(f"{folder}/"), each.reason) for each in source.skipped} == {
        ("caf\\xe9.txt", "name"),
        ("d\\xe9", "name"),
    }


def test_a_folder_of_many_levels_is_walked(tmp_path):
    deep = tmp_path
    for _ in range(150):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "x.txt").write_text("text")
    assert walked(tmp_path)[0] == ["d/" * 150 + "x.txt"]
