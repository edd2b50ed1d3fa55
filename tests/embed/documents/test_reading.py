"""A folder, a file or rows -> documents, and what was not read."""

from __future__ import annotations

import os

import pytest
from llama_index.core import SimpleDirectoryReader
from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import Document as LlamaDocument

from llama_index_embed_plus.documents import reading
from llama_index_embed_plus.documents.reading import Source
from llama_index_embed_plus.documents.records import Block, ReadSettings
from qdrant_tools.errors import InputError, UsageError


def read(path, **options):
    source = Source(path, ReadSettings(**options))
    return source, {document.metadata["file_path"]: (document, list(document.blocks)) for document in source}


def test_a_folder_becomes_documents_named_after_it_and_their_files(tmp_path):
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.md").write_text("# Bees\n\nBees make honey.")
    (folder / "deep" / "a.txt").write_text("Ants dig.")
    (folder / "image.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.txt").write_text("not this")
    source, documents = read(folder)
    assert list(documents) == ["b.md", "deep/a.txt"]
    document, blocks = documents["b.md"]
    assert document.id == "notes/b.md" and not document.keeps_id
    assert blocks == [Block("Bees", "heading", ("Bees",)), Block("Bees make honey.", "text", ("Bees",))]
    metadata = documents["deep/a.txt"][0].metadata
    assert metadata.pop("last_modified_date")[:2] == "20"
    assert metadata == {
        "source": "notes",
        "file_path": "deep/a.txt",
        "file_name": "a.txt",
        "file_type": "text/plain",
        "file_size": 9,
    }
    assert (source.files, source.counts(), source.left_out) == (2, {"no reader": 1}, {"hidden": 1})
    assert "OCR" in source.skipped[0].detail


def test_a_path_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Source(tmp_path / "nowhere")


def test_a_single_file_that_is_not_read_is_an_error_that_says_why(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match=r"x\.txt is not read \(no reader\): a picture"):
        list(Source(path))


def test_strict_names_what_was_skipped(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.png").write_bytes(b"\x89PNG")
    (tmp_path / "c.txt").write_text("")
    source, _ = read(tmp_path)
    with pytest.raises(InputError, match=r"2 of .* not read \(1 no reader, 1 empty\), the first .*b\.png"):
        source.require_complete()
    (tmp_path / "b.png").unlink()
    (tmp_path / "c.txt").unlink()
    read(tmp_path)[0].require_complete()


class Growing:
    """Yields a line and appends another to its file, so often as it is asked to."""

    def __init__(self, path, times):
        self.path, self.times, self.calls = path, times, 0

    def __call__(self, path):
        self.calls += 1
        if self.calls <= self.times:
            with self.path.open("a") as file:
                file.write(" and more")
        return path.read_text()


@pytest.mark.parametrize(("times", "calls"), [(0, 1), (1, 2), (9, 2)])
def test_a_file_that_changes_while_it_is_read_is_read_again_once(tmp_path, times, calls):
    path = tmp_path / "x.txt"
    path.write_text("text")
    growing = Growing(path, times)
    source = Source(tmp_path, ReadSettings(readers={".txt": growing}))
    read = [list(document.blocks) for document in source]
    assert growing.calls == calls
    if times < 2:
        assert read == [[Block("text" + " and more" * times)]] and not source.skipped
    else:
        assert read == [] and [each.reason for each in source.skipped] == ["changed"]


def test_a_large_text_that_changes_while_it_is_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "AT_ONCE", 1000)
    path = tmp_path / "x.txt"
    path.write_text("line\n\n" * 1000)
    source = Source(tmp_path)
    (document,) = source
    assert len(list(document.blocks)) == 1000 and not source.skipped
    for document in source:
        blocks = iter(document.blocks)
        next(blocks)
        with path.open("a") as file:
            file.write("more")
        assert len(list(blocks)) >= 999
    assert [each.reason for each in source.skipped] == ["changed"]


def test_files_that_vanish_or_cannot_be_opened_are_named(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("text")
        (tmp_path / f"{name}.html").write_text("<p>text")
    source = Source(tmp_path)
    read = []
    for document in source:
        read.append(document.file)
        for name in ("b.txt", "b.html"):
            (tmp_path / name).unlink(missing_ok=True)
    assert read == ["a.html", "a.txt", "c.html", "c.txt"]
    assert [(each.reason, each.detail) for each in source.skipped] == [("unreadable", "it is gone")] * 2


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the system lets everybody read everything")
def test_folders_and_files_without_permission_are_named(tmp_path):
    (tmp_path / "closed").mkdir()
    (tmp_path / "secret.txt").write_text("x")
    for path in (tmp_path / "closed", tmp_path / "secret.txt"):
        path.chmod(0)
    source, documents = read(tmp_path)
    (tmp_path / "closed").chmod(0o700)
    assert documents == {} and source.counts() == {"unreadable": 2}


class PagesReader(BaseReader):
    """A reader as LlamaIndex's own are: a document for each page."""

    def load_data(self, file, extra_info=None):
        return [
            LlamaDocument(text=text, metadata={"page_label": str(n), "file_name": "x", "header_path": "A > B"})
            for n, text in enumerate(file.read_text().split("\f"), 1)
        ]


def test_readers_of_llamaindex_and_callables_are_used(tmp_path):
    (tmp_path / "a.pages").write_text("one\n\ntwo\fthree")
    (tmp_path / "b.csv").write_text("id,text\n1,x\n")
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    readers = {
        ".pages": PagesReader(),
        ".csv": lambda path: [Block("own", "code")],
        ".png": lambda path: LlamaDocument(text="a bee on a flower", metadata={"width": 3}),
    }
    source, documents = read(tmp_path, readers=readers)
    assert not source.skipped
    assert documents["a.pages"][1] == [
        Block("one", page="1", headings=("A", "B")),
        Block("two", page="1", headings=("A", "B")),
        Block("three", page="2", headings=("A", "B")),
    ]
    assert documents["b.csv"][1] == [Block("own", "code")]
    assert documents["c.png"][1] == [Block("a bee on a flower")] and documents["c.png"][0].metadata["width"] == 3
    assert documents["a.pages"][0].metadata["file_name"] == "a.pages"


def test_a_reader_that_stumbles_ends_nothing_and_one_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.md").write_text("y")
    source, documents = read(tmp_path, readers={".txt": lambda path: 1 / 0})
    assert list(documents) == ["b.md"]
    assert [(each.reason, "division by zero" in each.detail) for each in source.skipped] == [("damaged", True)]
    for reader in (3, lambda path: [3]):
        with pytest.raises(UsageError, match=r"expected"):
            read(tmp_path, readers={".txt": reader})


def test_what_llamaindex_says_of_a_file_is_said_the_same_way(tmp_path):
    for name, content in (("a.txt", "text"), ("b.md", "# x\n\ntext"), ("c.html", "<p>text")):
        (tmp_path / name).write_text(content)
    theirs = {
        document.metadata["file_name"]: document.metadata for document in SimpleDirectoryReader(tmp_path).load_data()
    }
    _, documents = read(tmp_path)
    for name, (document, _) in documents.items():
        for key in ("file_name", "file_type", "file_size", "last_modified_date"):
            assert document.metadata[key] == theirs[name][key], (name, key)


def test_the_encoding_that_is_given_counts(tmp_path):
    (tmp_path / "a.txt").write_bytes("Größe".encode("cp1252"))
    source, documents = read(tmp_path, encoding="cp1252")
    assert documents["a.txt"][1] == [Block("Größe")] and source.encodings == {"cp1252": 1}
    source, documents = read(tmp_path, encoding="utf-8")
    assert documents == {} and source.counts() == {"encoding": 1}
    with pytest.raises(UsageError, match="expected one that Python knows"):
        Source(tmp_path, ReadSettings(encoding="klingon"))


PLAIN_STUB = """Subject: Sale
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="B"

--B
Content-Type: text/plain

Open this mail in a browser.
--B
Content-Type: text/html

<p>{page}</p>
--B--
"""


@pytest.mark.parametrize(
    ("page", "said"), [("Honey is half the price until Friday. " * 9, "Honey"), ("Short.", "Open")]
)
def test_a_mail_whose_plain_text_only_points_to_its_page_is_read_from_the_page(tmp_path, page, said):
    (tmp_path / "sale.eml").write_text(PLAIN_STUB.format(page=page))
    (document,) = read(tmp_path)[1].values()
    assert document[1][-1].text.startswith(said)


def test_a_page_saved_as_a_single_file_is_read_as_a_page(tmp_path):
    (tmp_path / "bees.mhtml").write_text(
        "From: <Saved by Blink>\nSnapshot-Content-Location: https://example.org/\nSubject: Bees\nMIME-Version: 1.0\n"
        'Content-Type: multipart/related; type="text/html"; boundary="B"\n\n--B\nContent-Type: text/html\n'
        "Content-Transfer-Encoding: quoted-printable\n\n<html><body><p>Bees make =\nhoney.</p></body></html>\n--B--\n"
    )
    (document,) = read(tmp_path)[1].values()
    assert [block.text for block in document[1]] == ["Bees", "Bees make honey."]


@pytest.mark.parametrize("cards", ["before", "after"])
def test_articles_that_are_not_most_of_a_page_do_not_hide_the_rest(tmp_path, cards):
    card, text = (
        "<article><p>Read on: wasps.</p></article>",
        "<div><p>Bees turn nectar into honey, and store it.</p></div>",
    )
    (tmp_path / "x.html").write_text("<body>" + (card + text if cards == "before" else text + card) + "</body>")
    (document,) = read(tmp_path)[1].values()
    assert "Bees turn nectar into honey, and store it." in [block.text for block in document[1]]


def test_a_workbook_under_another_name_is_read_as_one(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["hive", "honey"])
    book.active.append([1, "20 kg"])
    book.save(tmp_path / "hives.xlsx")
    (tmp_path / "hives.xlsx").rename(tmp_path / "hives.csv")
    (document,) = read(tmp_path)[1].values()
    assert "20 kg" in document[1][0].text


def test_rows_whose_text_has_another_name_are_no_damaged_file(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1, "body": "Bees make honey."}\n')
    source, documents = read(tmp_path)
    assert documents == {} and source.counts() == {"no field": 1}
    assert "--text-field body" in source.skipped[0].detail
    with pytest.raises(InputError, match=r"^\S*a\.jsonl:1: no field 'text'"):
        list(Source(tmp_path / "a.jsonl"))
    assert read(tmp_path, text_field="nope")[0].counts() == {"no field": 1}


def test_how_much_was_read_is_known_on_the_way(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 100)
    (tmp_path / "b.jsonl").write_text("".join(f'{{"id": "{number}", "text": "text"}}\n' for number in range(4)))
    source = Source(tmp_path)
    assert source.share == 0
    shares = [source.share for _ in source]
    rows = (tmp_path / "b.jsonl").stat().st_size
    assert shares == pytest.approx([0, *((100 + rows * row / 4) / (100 + rows) for row in range(4))])
    assert source.share == 1
