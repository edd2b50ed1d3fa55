"""What a collection keeps about itself, as JSON in Qdrant's collection metadata: its encoder's space and its layout.

A layout says where the vector, the passage id, the text and the metadata of a point are. Known layouts: our own,
LlamaIndex's `QdrantVectorStore` (the text lies in a JSON string `_node_content`), LangChain's (`page_content`), and
plain payloads with the text in some field. `detect` tells them apart by a few payloads.

Guarantees: metadata goes to JSON and back; a newer format is refused, not misread. Both may be anybody's: metadata of
other types or sizes than ours is a `CollectionError`, and a payload without a text or an id of ours has none. A
template is filled in, never interpreted, and makes no text many times as long as its payload. Only this module reads
payloads, so that search, indexing and mining agree on what a passage is. Does not know: clients, encoders.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from string import Formatter
from typing import Any

from qdrant_client import models

from qdrant_tools.client.gateway import metadata_in
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.errors import CollectionError, InputError, first_line, listed
from qdrant_tools.fields import Field, payload_path, steps_in, steps_of
from qdrant_tools.records import Passage
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.fusion import Fusion
from qdrant_tools.validation import brief, checked_count, checked_number, checked_text

PayloadFields = Mapping[str, Any]

NODE = "_node_content"
"""Where LlamaIndex keeps a node as a JSON string."""
TEXT_FIELDS = ("text", "content", "page_content", "document", "body", "chunk", "passage")
"""Where plain payloads usually have their text, in the order in which they are tried."""
LONGEST_NAME = 1000
"""Characters of a space, an adapter's build, or the name of a vector or a field, in metadata."""
LARGEST_DIMENSION = 65_536
"""What a server accepts."""
LARGEST_EF = 2**31 - 1
MADE_OF_TEXT = "embed_plus_vectors"
"""The field of a payload that says which vectors were made of its text; no metadata. See `promotion.made_of`."""
MOST_EMBEDDED = 100_000
"""Characters of metadata before a node's text, or as many as the node itself has."""


@dataclass(frozen=True)
class Layout:
    """Names of the dense vector ("" is the unnamed one) and of the payload fields.

    `id` "" stands for the point's own id. `metadata` "" stands for all fields of the payload but those of `hidden`.
    With `embedded_metadata` a LlamaIndex node's text is what LlamaIndex embeds: the node's metadata, then its text.
    """

    name: str = "embed-plus"
    vector: str = ""
    id: str = "passage_id"
    text: str = "text"
    metadata: str = "metadata"
    hidden: tuple[str, ...] = ()
    embedded_metadata: bool = False

    def passage(self, payload: PayloadFields | None, *, point_id: str | int) -> Passage:
        """Read a payload as a passage; a point without a passage id goes by its point id."""
        values = payload or {}
        passage_id = values.get(self.id) if self.id else None
        if not isinstance(passage_id, (str, int)) or isinstance(passage_id, bool):
            passage_id = point_id
        return Passage(str(passage_id), self._text(values), self._metadata(values))

    def dense(self, vector: Any) -> list[float]:
        """The dense vector of a record, whose vectors come as one list or by name."""
        values: list[float] = vector[self.vector] if isinstance(vector, Mapping) else vector
        return values

    def has_dense(self, vector: Any) -> bool:
        """Whether a record has the dense vector."""
        return self.vector in vector if isinstance(vector, Mapping) else vector is not None

    def metadata_field(self, field: Field) -> str:
        """The path to a metadata field in a payload. Raises `InputError` for what no engine can be asked for."""
        steps = steps_of(field, "metadata field")
        return payload_path((self.metadata, *steps) if self.metadata else steps)

    def field_at(self, path: str) -> Field | None:
        """The metadata field at a path of the payload; None for a path to anything else."""
        steps = steps_in(path)
        if steps is None or (self.metadata and steps[0] != self.metadata):
            return None
        inside = steps[1:] if self.metadata else steps
        # a list in place of the metadata has no fields
        if not inside or not isinstance(inside[0], str):
            return None
        return inside[0] if len(inside) == 1 else inside

    def as_row(self) -> dict[str, Any]:
        return asdict(self) | {"hidden": list(self.hidden)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Layout:
        """Read what `as_row` wrote. Raises `InputError` for anything else."""
        values = _of_ours(cls, row, "layout")
        hidden, embedded = values.pop("hidden", ()), values.pop("embedded_metadata", False)
        if not isinstance(hidden, (list, tuple)) or len(hidden) > LONGEST_NAME or not isinstance(embedded, bool):
            raise InputError(f"layout hides {brief(hidden)} and embeds metadata {brief(embedded)}")
        names = {name: _name(f"layout field {name!r}", value) for name, value in values.items()}
        # JSON has no tuples, and with a list in it a layout would equal no other
        return cls(**names, hidden=tuple(_name("a hidden field", name) for name in hidden), embedded_metadata=embedded)

    def _text(self, fields: PayloadFields) -> str:
        if self.text == NODE:
            return _node_text(fields.get(NODE), with_metadata=self.embedded_metadata)
        value = fields.get(self.text)
        return value if isinstance(value, str) else ""

    def _metadata(self, fields: PayloadFields) -> Mapping[str, Any]:
        if not self.metadata:
            hidden = (self.id, self.text, MADE_OF_TEXT, *self.hidden)
            return {name: value for name, value in fields.items() if name not in hidden}
        value = fields.get(self.metadata)
        return value if isinstance(value, Mapping) else {}


OURS = Layout()
"""What `qdrant_tools.indexing` writes."""
LLAMA_INDEX = Layout(
    "llama-index",
    id="",
    text=NODE,
    metadata="",
    hidden=("_node_type", "document_id", "ref_doc_id"),
    embedded_metadata=True,
)
LANGCHAIN = Layout("langchain", id="", text="page_content")


def detect(payloads: Sequence[PayloadFields], *, vector: str = "") -> Layout:
    """Tell the layout by sample payloads; `vector` is the name of the dense vector.

    Raises:
        CollectionError: no field of the payloads looks like a text, or there are no payloads.
    """
    occurrences = Counter(name for payload in payloads for name in payload)

    def in_all(*names: str) -> bool:
        return bool(payloads) and all(occurrences[name] == len(payloads) for name in names)

    # the hash tells ours from other payloads that have these two fields
    if in_all(OURS.id, OURS.text, "content_hash"):
        return _named(OURS, vector)
    if in_all(NODE):
        return _named(LLAMA_INDEX, vector)
    if in_all(LANGCHAIN.text) and all(isinstance(p.get("metadata") or {}, Mapping) for p in payloads):
        return _named(LANGCHAIN, vector)
    text = _text_field(payloads)
    if text is None:
        raise CollectionError(
            f"none of the payload fields ({listed(sorted(occurrences)) or 'there are none'}) looks like a text: "
            "give a Layout that says where it is"
        )
    return Layout("plain", vector, id="", text=text, metadata="")


def _named(layout: Layout, vector: str) -> Layout:
    return Layout(**(asdict(layout) | {"vector": vector}))


def _text_field(payloads: Sequence[PayloadFields]) -> str | None:
    """A field with a usual name, or else the one with the longest strings, if they have several words."""
    characters: Counter[str] = Counter()
    spaces: Counter[str] = Counter()
    for payload in payloads:
        for name, value in payload.items():
            if isinstance(value, str):
                characters[name] += len(value)
                spaces[name] += value.count(" ")
    for name in TEXT_FIELDS:
        if characters[name]:
            return name
    for name, _ in characters.most_common(1):
        # two spaces on average: titles, paths and ids have fewer
        if spaces[name] >= 2 * len(payloads):
            return name
    return None


def _node_text(content: Any, *, with_metadata: bool) -> str:
    """The text of a LlamaIndex node, or what LlamaIndex embeds of it (`MetadataMode.EMBED`)."""
    if not isinstance(content, str):
        return ""
    try:
        node = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    text = node.get("text") if isinstance(node, dict) else None
    if not isinstance(text, str):
        return ""
    try:
        return _with_metadata(node, text, most=max(MOST_EMBEDDED, len(content))) if with_metadata else text
    except (TypeError, ValueError, RecursionError):  # values and templates that LlamaIndex does not write
        return text


def _with_metadata(node: Mapping[str, Any], text: str, *, most: int) -> str:
    """Raises ValueError for a template that names anything but its fields, and for a header longer than `most`."""
    metadata, excluded = node.get("metadata") or {}, node.get("excluded_embed_metadata_keys") or ()
    template, separator = node.get("metadata_template", "{key}: {value}"), node.get("metadata_separator", "\n")
    whole = node.get("text_template", "{metadata_str}\n\n{content}")
    if not isinstance(metadata, dict) or not isinstance(separator, str) or not isinstance(excluded, (list, tuple)):
        raise TypeError("no LlamaIndex node")
    hidden, parts = set(excluded), list(_parts(template, ("key", "value")))
    pieces: list[str] = []
    for key, value in metadata.items():
        if key in hidden:
            continue
        filling = {"key": key, "value": str(value)}
        filled = [separator, *(filling.get(field, literal) for literal, field in parts)]
        # added up before anything is joined: a short template and a long value can ask for gigabytes
        most -= sum(map(len, filled))
        if most < 0:
            raise ValueError("longer than the node")
        pieces += filled
    header = "".join(pieces[1:])
    if not header:
        return text
    filling = {"content": text, "metadata_str": header}
    last = [filling.get(field, literal) for literal, field in _parts(whole, ("content", "metadata_str"))]
    # each of the two once, and twice for those who like it
    if sum(map(len, last)) > 2 * (len(header) + len(text)) + len(whole):
        raise ValueError("longer than the node")
    return "".join(last).strip()


def _parts(template: Any, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(literal, "") and ("", name of a field), as `str.format` reads a template. `parse` fills nothing in."""
    if not isinstance(template, str):
        raise TypeError("no template")
    for literal, field, spec, conversion in Formatter().parse(template):
        if literal:
            yield literal, ""
        if field is None:
            continue
        # a width in a specification could be any number of characters
        if field not in names or spec or conversion:
            raise ValueError("a field that LlamaIndex does not write")
        yield "", field


@dataclass(frozen=True)
class SearchChoice:
    """How a search that says nothing is made: with the graph, or `exact`; and what was measured when it was chosen."""

    exact: bool = False
    told: bool = False
    """A person has said so, and it is not chosen again."""
    points: int = 0
    """How many there were when it was chosen."""
    recall: float | None = None
    """Share of the ten nearest that it found then; see `choosing`."""

    def as_row(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_row(cls, row: Any) -> SearchChoice:
        """Read what `as_row` wrote. Raises `InputError` for anything else."""
        choice = cls(**_of_ours(cls, row, "search"))
        if not isinstance(choice.exact, bool) or not isinstance(choice.told, bool):
            raise InputError(f"search is {brief(row)}, expected exact and told to be true or false")
        checked_count("points of search", choice.points, least=0)
        if choice.recall is not None:
            checked_number("recall of search", choice.recall, least=0, most=1)
        return choice


METADATA_KEY = "embed_plus"
METADATA_FORMAT = 1
UNKNOWN_SPACE = ""
"""The space of a collection that was made for a dimension, until its first encoder comes."""


@dataclass(frozen=True)
class CollectionMetadata:
    """Which encoder filled a collection, and how it is read and searched. `space` is "" until that is known."""

    space: str
    dimension: int
    hnsw_ef: int | None = None
    layout: Layout = OURS
    lexical: Bm25 | None = None
    quantization: Quantization | None = None
    """How a search uses the compressed vectors, if there are any."""
    adapter: str | None = None
    """The build of the query adapter that serves here, if one does."""
    search: SearchChoice | None = None
    """None: nothing was chosen, and a search walks the graph."""
    fusion: Fusion | None = None
    """How a hybrid search that says nothing fuses; None: as usual, see `fusion.USUAL`."""
    words_due: Bm25 | None = None
    """Words that are being counted anew; set until that is done, so that whoever goes on knows which."""

    def as_row(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "format": METADATA_FORMAT,
            "space": self.space,
            "dimension": self.dimension,
            "hnsw_ef": self.hnsw_ef,
        }
        if self.layout != OURS:
            row["layout"] = self.layout.as_row()
        if self.lexical is not None:
            row["lexical"] = self.lexical.as_row()
        if self.quantization is not None:
            row["quantization"] = self.quantization.as_row()
        if self.adapter is not None:
            row["adapter"] = self.adapter
        if self.search is not None:
            row["search"] = self.search.as_row()
        if self.fusion is not None:
            row["fusion"] = self.fusion.as_row()
        if self.words_due is not None:
            row["words_due"] = self.words_due.as_row()
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> CollectionMetadata:
        """Read what `as_row` wrote.

        Raises:
            CollectionError: it has a format that this version does not read.
        """
        if not isinstance(row, Mapping) or row.get("format") != METADATA_FORMAT:
            found = brief(row.get("format")) if isinstance(row, Mapping) else brief(row)
            raise CollectionError(
                f"collection metadata has format {found}, this version reads {METADATA_FORMAT}: upgrade"
            )
        hnsw_ef, adapter = row.get("hnsw_ef"), row.get("adapter")
        try:
            metadata = cls(
                _name("space", row.get("space")),
                checked_count("dimension", row.get("dimension")),
                None if hnsw_ef is None else checked_count("hnsw_ef", hnsw_ef),
                Layout.from_row(row["layout"]) if "layout" in row else OURS,
                _words(row, "lexical"),
                Quantization(**_of_ours(Quantization, row["quantization"], "quantization"))
                if "quantization" in row
                else None,
                None if adapter is None else _name("adapter", adapter),
                SearchChoice.from_row(row["search"]) if "search" in row else None,
                Fusion(**_of_ours(Fusion, row["fusion"], "fusion")) if "fusion" in row else None,
                _words(row, "words_due"),
            )
        except (InputError, TypeError) as error:
            raise CollectionError(
                f"collection metadata {METADATA_KEY!r} was not written by this program: {first_line(error)}; correct "
                "it there, or drop the collection"
            ) from error
        if metadata.dimension > LARGEST_DIMENSION or (hnsw_ef or 0) > LARGEST_EF:
            raise CollectionError(
                f"collection metadata has dimension {brief(metadata.dimension)} and hnsw_ef {brief(hnsw_ef)}, expected "
                f"at most {LARGEST_DIMENSION:,} and {LARGEST_EF:,}"
            )
        return metadata

    def for_qdrant(self) -> dict[str, Any]:
        """The `metadata` argument of `create_collection` and `update_collection`, which merges it by key."""
        return {METADATA_KEY: self.as_row()}


def _of_ours(kind: type[Any], row: Any, what: str) -> dict[str, Any]:
    """The fields of a row, which are those of a dataclass. Raises `InputError` for others."""
    known = {item.name for item in fields(kind)}
    if not isinstance(row, Mapping) or not row.keys() <= known:
        raise InputError(f"{what} is {brief(row)}, expected an object with {', '.join(sorted(known))}")
    return dict(row)


def _words(row: Mapping[str, Any], what: str) -> Bm25 | None:
    return Bm25.from_row(_of_ours(Bm25, row[what], what)) if what in row else None


def _name(what: str, value: Any) -> str:
    name = checked_text(what, value)
    if len(name) > LONGEST_NAME:
        raise InputError(f"{what} {brief(name)} has {len(name):,} characters, expected at most {LONGEST_NAME:,}")
    return name


def metadata_of(info: models.CollectionInfo) -> CollectionMetadata | None:
    """Our part of a collection's metadata; None if it was made by another program.

    Raises:
        CollectionError: it has a format that this version does not read.
    """
    row: Mapping[str, Any] | None = metadata_in(info).get(METADATA_KEY)
    return None if row is None else CollectionMetadata.from_row(row)
