"""What a file can do to the one who reads it: bounds of memory and time, damage, and what goes on beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import psutil
import pytest
from folder import bomb, docx, epub, pdf, xlsx, zipped

from llama_index_embed_plus.documents.files import process
from llama_index_embed_plus.documents.files.process import ReaderProcess
from llama_index_embed_plus.documents.reading import Source
from llama_index_embed_plus.documents.records import Block, ReadSettings
from llama_index_embed_plus.errors import UnreadFileError

TEXTS = ("Bees", "They make honey.", "In the hive.")
ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def reasons(folder, **options):
    source = Source(folder, ReadSettings(**options))
    names = [document.file for document in source]
    return names, {os.path.relpath(each.path, folder): each.reason for each in source.skipped}


def replaced(content: bytes, part: str, text: bytes) -> bytes:
    """A zip file with other content in one of its parts."""
    import io

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return zipped({**parts, part: text})


def endless_pdf() -> bytes:
    """A PDF whose list of pages is its own parent and child."""
    return (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Kids[2 0 R 2 0 R]/Count 99999999/Parent 2 0 R>>endobj\n"
        b"trailer<</Root 1 0 R>>\n%%EOF"
    )


HOSTILE = {
    "bomb.docx": lambda: bomb("word/document.xml"),
    "bomb.xlsx": lambda: bomb("xl/worksheets/sheet1.xml"),
    "bomb.epub": lambda: replaced(epub(TEXTS), "OEBPS/text/a.xhtml", bytes(1 << 24)),
    "entities.docx": lambda: replaced(docx(TEXTS), "word/document.xml", f"{ENTITIES}]><x>&i;</x>".encode()),
    "entities.xlsx": lambda: replaced(
        xlsx(TEXTS[:2]), "xl/sharedStrings.xml", f"{ENTITIES}]><sst><si><t>&i;</t></si></sst>".encode()
    ),
    "entities.epub": lambda: replaced(epub(TEXTS), "OEBPS/content.opf", f"{ENTITIES}]><package>&i;</package>".encode()),
    "endless.pdf": endless_pdf,
    "cut.pdf": lambda: pdf(["a text"])[:300],
    "cut.epub": lambda: epub(TEXTS)[:500],
    "nul.html": lambda: b"\0" * 5000,
    "deep.ipynb": lambda: b"[" * 100_000,
    "digits.ipynb": lambda: b'{"cells": ' + b"9" * 100_000 + b"}",
}


def test_hostile_files_are_named_and_the_others_are_read(tmp_path):
    for name, content in HOSTILE.items():
        (tmp_path / name).write_bytes(content())
    for name in ("a", "e", "z"):
        (tmp_path / f"{name}.docx").write_bytes(docx(TEXTS))
    names, skipped = reasons(tmp_path, patience=20.0)
    assert set(names) - set(HOSTILE) == {"a.docx", "e.docx", "z.docx"}
    # XML whose entities no library expands has no text, and is no error to some of them
    assert set(names) & set(HOSTILE) <= {"entities.xlsx"}
    assert {name for name, reason in skipped.items() if reason == "too large"} >= {
        "bomb.docx",
        "bomb.xlsx",
        "bomb.epub",
    }
    assert set(skipped.values()) <= {"too large", "damaged", "no reader", "empty", "no text", "too slow"}


TRAPS = """
import os, sys, time
sys.modules["docx"] = None
import llama_index_embed_plus.documents.readers.html as html
read = html.read_html
def trapped(path, encoding):
    if path.name.startswith("slow"):
        time.sleep(60)
    if path.name.startswith("deadly"):
        os.abort()
    return read(path, encoding)
html.read_html = trapped
"""


def test_a_file_that_takes_too_long_or_kills_its_reader_is_left_and_the_next_one_is_read(tmp_path, monkeypatch):
    folder, programs = tmp_path / "folder", tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()
    for name in ("a", "deadly", "e", "slow", "z"):
        (folder / f"{name}.html").write_text("<p>text")
    (folder / "needs.docx").write_bytes(docx(TEXTS))
    (programs / "sitecustomize.py").write_text(TRAPS)
    monkeypatch.setattr(sys, "path", [str(programs), *sys.path])
    names, skipped = reasons(folder, patience=10.0)
    assert names == ["a.html", "e.html", "z.html"]
    assert skipped == {"deadly.html": "damaged", "needs.docx": "needs an extra", "slow.html": "too slow"}


def test_a_process_that_was_killed_is_replaced_and_none_is_left_behind(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.html").write_text(f"<p>{name}")
    source = iter(Source(tmp_path))
    assert next(source).file == "a.html"
    (child,) = readers()
    child.kill()
    # until all its threads have ended, and without taking its exit code from whoever started it
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert next(source).file == "b.html"
    # whoever stops in the middle
    source.close()
    assert readers() == []


def readers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if process.CHILD in child.cmdline()]


def test_more_memory_than_a_file_may_take_is_refused(tmp_path, monkeypatch):
    if sys.platform != "linux":
        pytest.skip("the limit is Linux's")
    monkeypatch.setattr(process, "MEMORY", 1 << 27)
    (tmp_path / "a.html").write_text("<p>" + "many words " * 3_000_000)
    (tmp_path / "b.html").write_text("<p>few words")
    names, skipped = reasons(tmp_path)
    assert (names, skipped) == (["b.html"], {"a.html": "too large"})


def test_blocks_come_from_the_other_process_as_they_were_made(tmp_path):
    path = tmp_path / "a.html"
    path.write_text("<h1>Bees &amp; <i>hives</i></h1><p>x\0y \ud83d</p>".encode("utf-8", "replace").decode())
    with ReaderProcess(60.0) as reader:
        items = list(reader.read("html", path))
        assert items == [Block("Bees & hives", "heading", ("Bees & hives",)), Block("xy ?", "text", ("Bees & hives",))]
        with pytest.raises(UnreadFileError, match="it is gone"):
            list(reader.read("html", tmp_path / "nowhere.html"))
        # the same process goes on
        assert list(reader.read("html", path)) == items


MEASURE = """
import sys
from pathlib import Path
from llama_index_embed_plus.documents import reading
from llama_index_embed_plus.documents.reading import Source
reading.AT_ONCE = 1 << 18
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) << 10
list(list(document.blocks) for document in Source(Path(sys.argv[1])))
before, size, longest = peak(), 0, 0
for document in Source(Path(sys.argv[2])):
    for block in document.blocks:
        size += len(block.text)
        longest = max(longest, len(block.text))
print(peak() - before, size, longest)
"""


@pytest.mark.parametrize(
    ("ending", "line"),
    [
        (".txt", "bees make honey\n\n"),
        (".log", "bees make honey\n"),
        (".txt", "bees make honey "),
        (".md", "bees make honey\n"),
        (".rst", "bees make honey\n"),
        (".py", "honey = bees * flowers * 0.1\n"),
    ],
)
def test_a_text_of_any_size_takes_constant_memory(tmp_path, line, ending):
    if sys.platform != "linux":
        pytest.skip("the peak is read as Linux says it")
    small, large = tmp_path / f"small{ending}", tmp_path / f"large{ending}"
    small.write_text(line)
    size = 8_000_000
    large.write_text(line * (size // len(line)))
    done = subprocess.run([sys.executable, "-c", MEASURE, small, large], capture_output=True, text=True, check=True)
    more, characters, longest = map(int, done.stdout.split())
    # line ends are not part of a block
    assert characters > size * 0.7
    assert more < 5_000_000 and longest <= 1_000_000
