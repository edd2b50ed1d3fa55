"""A collection, read once -> what a single passage does not say: how common a heading is, where a section begins, what
a link leads to, and which field names a passage's document.

Guarantees: memory is some hundred bytes per passage. Passages may come in any order. Does not know: rules.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote

import regex

from llama_index_embed_plus.documents.cutting.stretches import PATH_SEPARATOR
from llama_index_embed_plus.training.synthesis.generic import GENERIC
from llama_index_embed_plus.training.synthesis.texts import LONGEST_TEXT, bare, is_wordy, without_code
from qdrant_tools.records import Passage
from qdrant_tools.same import query_key

DOCUMENT_KEYS = ("document", "doc_id", "ref_doc_id", "document_id", "file_path", "source", "url", "uri")
"""Fields that name a passage's document: ours, LlamaIndex's, LangChain's and plain ones."""
COMMON_DOCUMENTS, COMMON_SHARE = 3, 0.02
"""A heading of so many documents, and of this share of them, says nothing of any."""
MOST_PARTS = 1 << 31
_FRONT_MATTER = regex.compile(r"\A---[ \t]*\n((?:[^\n]*\n){1,40}?)---[ \t]*(?:\n|\Z)")


@dataclass(frozen=True)
class Seen:
    """A passage and where it stands."""

    id: str
    text: str
    document: str
    part: int = 0
    headings: tuple[str, ...] = ()
    title: str = ""
    source: str = ""
    path: str = ""
    """Below the source, with slashes."""
    description: str = ""
    front_matter: tuple[str, ...] = ()
    """The lines of what Markdown has between `---` before its text, in the passage that begins with it."""


@dataclass
class Overview:
    """What `add` was told of all passages."""

    passages: int = 0
    _documents: set[bytes] = field(default_factory=set)
    _keys: Counter[str] = field(default_factory=Counter)
    _headed: set[bytes] = field(default_factory=set)
    _headings: Counter[bytes] = field(default_factory=Counter)
    _begins: dict[bytes, tuple[int, str]] = field(default_factory=dict)

    @property
    def documents(self) -> int:
        return len(self._documents)

    @property
    def document_key(self) -> str | None:
        """The metadata field that names the document of most passages that have several."""
        named = [key for key in DOCUMENT_KEYS if self._keys[key]]
        return "document" if "document" in named else max(named, key=self._keys.__getitem__, default=None)

    def add(self, passage: Passage) -> None:
        """Count one passage."""
        seen = read(passage)
        self.passages += 1
        self._documents.add(_hash(seen.document))
        self._keys.update(key for key in DOCUMENT_KEYS if isinstance(passage.metadata.get(key), str))
        for heading in {*seen.headings[-1:], *headings_in(seen.text)}:
            key = query_key(heading)
            if (pair := _hash(seen.document, key)) not in self._headed:
                self._headed.add(pair)
                self._headings[_hash(key)] += 1
        # where a section begins: the passage that has its heading, else its first part
        for depth in range(len(seen.headings) + 1):
            path = seen.headings[:depth]
            here = not path or any(query_key(bare(line)) == query_key(path[-1]) for line in _first_lines(seen.text))
            self._begin(_hash("section", seen.document, *path), seen, here)
            if path:
                self._begin(_hash("anchor", seen.source, seen.path, slug(path[-1])), seen, here)
        if seen.path:
            self._begin(_hash("file", seen.source, seen.path), seen, True)

    def is_generic(self, heading: str) -> bool:
        """Whether a heading is one of those that stand above anything, in any of several languages or by its number."""
        key = query_key(bare(heading))
        if not key or key in GENERIC or not regex.search(r"\p{L}{2}|[\p{Han}\p{Hangul}]", key):
            return True
        count = self._headings[_hash(key)]
        return count >= COMMON_DOCUMENTS and count >= COMMON_SHARE * len(self._documents)

    def begins_section(self, seen: Seen) -> bool:
        """Whether the section that a passage stands in begins with it."""
        return self._begins[_hash("section", seen.document, *seen.headings)][1] == seen.id

    def begins_document(self, seen: Seen) -> bool:
        return self._begins[_hash("section", seen.document)][1] == seen.id

    def target(self, seen: Seen, link: str) -> str | None:
        """The passage that a link in another one leads to; None where that is outside the collection."""
        address, _, fragment = link.partition("#")
        if regex.match(r"[a-zA-Z][\w+.-]*:|//", link) or not seen.path:
            return None
        address = unquote(address.partition("?")[0])
        base = posixpath.dirname(seen.path)
        path = posixpath.normpath(posixpath.join("" if address.startswith("/") else base, address.lstrip("/")))
        path = path if address else seen.path
        for name in (path, f"{path}.md", f"{path}/README.md", f"{path}/index.md", regex.sub(r"\.html?$", ".md", path)):
            found = self._begins.get(_hash("anchor", seen.source, name, slug(unquote(fragment)))) if fragment else None
            found = found or self._begins.get(_hash("file", seen.source, name))
            if found is not None:
                return found[1]
        return None

    def _begin(self, place: bytes, seen: Seen, here: bool) -> None:
        """Remember the passage at the lowest part, those that have the heading itself before all others."""
        rank = seen.part if here else MOST_PARTS + seen.part
        if place not in self._begins or (rank, seen.id) < self._begins[place]:
            self._begins[place] = rank, seen.id


def read(passage: Passage) -> Seen:
    """A passage with its place, as this project, LlamaIndex and LangChain write it into the metadata."""
    metadata = passage.metadata
    document = next((value for key in DOCUMENT_KEYS if (value := _text(metadata, key))), passage.id)
    if not _text(metadata, "document") and "part" not in metadata and _text(metadata, "file_path") == "":
        document = document if _names_document(metadata) else passage.id
    front = _FRONT_MATTER.match(passage.text[:LONGEST_TEXT])
    lines = tuple(front[1].splitlines()) if front else ()
    part = metadata.get("part", metadata.get("chunk", metadata.get("start_index", 0)))
    return Seen(
        passage.id,
        passage.text[:LONGEST_TEXT],
        document,
        part if isinstance(part, int) and 0 <= part < MOST_PARTS else 0,
        _headings(metadata),
        _text(metadata, "title") or _text(metadata, "Title") or _named("title", lines),
        _text(metadata, "source"),
        _text(metadata, "file_path") or (_text(metadata, "source") if "part" in metadata else ""),
        _text(metadata, "description") or _named("description", lines),
        lines,
    )


def headings_in(text: str) -> list[str]:
    """The headings that a text has itself: Markdown's, and underlined ones. A `#` in code begins a comment."""
    text = _FRONT_MATTER.sub("", without_code(text))
    found: list[str] = regex.findall(r"^ {0,3}#{1,6}[ \t]+(\S.*?)[ \t]*#*[ \t]*$", text, regex.MULTILINE)
    found += [title for title, _ in regex.findall(r"^(\S.{2,80})\n([=\-~^*+#])\2{2,}[ \t]*$", text, regex.MULTILINE)]
    return [heading for heading in found if is_wordy(heading)]


def slug(heading: str) -> str:
    """How links name a heading, as GitHub does it."""
    return str(regex.sub(r"[\s-]+", "-", regex.sub(r"[^\w\s-]", "", heading.casefold()).strip()))


def _named(name: str, lines: tuple[str, ...]) -> str:
    found = (line.partition(":")[2].strip(" \"'") for line in lines if line.lower().startswith(f"{name}:"))
    return next(found, "")


def _headings(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    path = _text(metadata, "header_path")
    if path.startswith("/"):  # LlamaIndex's MarkdownNodeParser
        return tuple(part.strip() for part in path.split("/") if part.strip())
    if path:
        return tuple(part.strip() for part in path.split(PATH_SEPARATOR) if part.strip())
    levels = (_text(metadata, f"Header {level}") for level in range(1, 7))  # LangChain's MarkdownHeaderTextSplitter
    return tuple(level for level in levels if level)


def _names_document(metadata: Mapping[str, Any]) -> bool:
    """Whether one of the fields is surely a document's name; `source` alone may be the name of a whole collection."""
    return any(_text(metadata, key) for key in DOCUMENT_KEYS if key != "source") or "/" in _text(metadata, "source")


def _first_lines(text: str) -> list[str]:
    return text[:2000].splitlines()[:6]


def _text(metadata: Mapping[str, Any], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""


def _hash(*parts: str) -> bytes:
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.digest()
