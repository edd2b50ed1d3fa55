"""EPUB -> blocks: the chapters in the order of reading, with the book's title and author.

Guarantees: nothing outside the archive is opened; chapter after chapter. Does not know: books that are protected.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from llama_index_embed_plus.documents.files.archives import open_zip, parsed_xml, require_small
from llama_index_embed_plus.documents.files.items import Item, Outline, one_line
from llama_index_embed_plus.documents.readers.html import decoded, html_items
from llama_index_embed_plus.documents.records import Block
from llama_index_embed_plus.errors import UnreadFileError

_DC = "{http://purl.org/dc/elements/1.1/}"


def read_epub(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of an e-book."""
    require_small(path)
    with open_zip(path) as archive:
        try:
            names = set(archive.namelist())
            container = parsed_xml(archive.read("META-INF/container.xml"))
            root = next(element.get("full-path", "") for element in container.iter() if _is(element, "rootfile"))
            package = parsed_xml(archive.read(root))
        except (KeyError, StopIteration) as error:
            raise UnreadFileError("damaged", "it has no list of its chapters") from error
        if "META-INF/encryption.xml" in names and b"EncryptedData" in archive.read("META-INF/encryption.xml"):
            raise UnreadFileError("encrypted", "it is protected: only the program that it was bought for opens it")
        yield _facts(package)
        outline = Outline()
        for name in _chapters(package, posixpath.dirname(root)):
            if name in names:
                yield from _chapter(archive, name, outline)
                yield {}


def _chapter(archive: zipfile.ZipFile, name: str, outline: Outline) -> Iterator[Block]:
    text, _ = decoded(archive.read(name))
    # the title of a chapter's file is not that of the book
    yield from (item for item in html_items(text, outline) if isinstance(item, Block))


def _facts(package: Element) -> dict[str, str]:
    facts = {}
    for name, key in (("title", "title"), ("creator", "author"), ("language", "language")):
        found = package.find(f".//{_DC}{name}")
        if found is not None and (text := one_line("".join(found.itertext()))):
            facts[key] = text
    return facts


def _chapters(package: Element, folder: str) -> Iterator[str]:
    files = {
        element.get("id"): element.get("href", "")
        for element in package.iter()
        if _is(element, "item") and "html" in element.get("media-type", "")
    }
    for element in package.iter():
        if _is(element, "itemref") and (href := files.get(element.get("idref"))):
            yield posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0])))


def _is(element: Element, name: str) -> bool:
    return str(element.tag).rpartition("}")[2] == name
