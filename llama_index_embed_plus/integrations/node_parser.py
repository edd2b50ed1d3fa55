"""LlamaIndex documents -> nodes that an embedding reads whole, cut as this project cuts.

What LlamaIndex embeds of a node is its text behind its metadata, without the excluded keys: together they never have
more tokens than the embedding reads, by its own tokenizer. The headings above a node are metadata that is not embedded,
unless the settings put them in front of the text.

Guarantees: equal documents give nodes with equal ids, which are UUIDs that follow from the id of the document and the
text of the node: an edit keeps the ids of what it does not touch. Nodes know their document, and their neighbours.
Does not know: vectors, stores.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.bridge.pydantic import Field, SerializeAsAny
from llama_index.core.node_parser import NodeParser
from llama_index.core.node_parser.node_utils import build_nodes_from_splits
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.utils import get_tqdm_iterable

from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.cutting.tokens import TokenCounter, token_counter
from llama_index_embed_plus.documents.passages import document_of_text, passages_of
from llama_index_embed_plus.documents.records import Context, CutSettings
from llama_index_embed_plus.serving.embedding import PlusEmbedding
from qdrant_tools.collections.points import point_id
from qdrant_tools.errors import InputError, brief
from qdrant_tools.records import Passage

logger = logging.getLogger(__name__)

LEAST_TEXT = 16
"""Tokens that the metadata must leave for the text of a node."""
_NAMED = 3
"""Documents without text that a warning names."""
_OF_PLACE = ("header_path", "page_label")


class PlusNodeParser(NodeParser):
    """Cuts documents by the tokens of an embedding; made by `plus_node_parser`. Lengths count the metadata too."""

    embedding: SerializeAsAny[PlusEmbedding] = Field(description="Whose tokens are counted.")
    max_tokens: int | None = Field(default=None, description="Of a node with its metadata; None: all that is read.")
    min_tokens: int | None = Field(default=None, description="A shorter node is joined with a neighbour.")
    overlap: int = Field(default=0, description="Tokens at the end of a node that the next begins with, at most.")
    context: Context = Field(default="none", description="headings: their path stands in front of the text.")

    @classmethod
    def class_name(cls) -> str:
        return "PlusNodeParser"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> PlusNodeParser:
        """Make the parser that `to_dict` described."""
        # the base class writes the name of a function there, and cannot read it
        fields = {name: value for name, value in data.items() if name != "id_func"}
        if isinstance(fields.get("embedding"), dict):
            fields["embedding"] = PlusEmbedding.from_dict(fields["embedding"])
        parser: PlusNodeParser = super().from_dict(fields, **kwargs)
        return parser

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any) -> list[BaseNode]:
        counter = token_counter(self.embedding.encoder)
        settings = CutSettings(self.max_tokens, self.min_tokens, self.overlap, self.context)
        Cutter(counter, settings)  # says at once if the settings do not fit the embedding
        parsed: list[BaseNode] = []
        empty: list[str] = []
        for node in get_tqdm_iterable(nodes, show_progress, "Parsing nodes"):
            if node.get_content().strip():
                parsed += self._nodes_of(node, counter, settings)
            else:
                empty.append(brief(node.node_id))
        if empty:
            named = ", ".join(empty[:_NAMED]) + (", ..." if len(empty) > _NAMED else "")
            logger.warning("%d of %d documents have no text and give no nodes: %s", len(empty), len(nodes), named)
        return parsed

    async def _aparse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        # opening the model and counting tokens would hold up the event loop
        return await asyncio.to_thread(self._parse_nodes, nodes, show_progress, **kwargs)

    def _nodes_of(self, document: BaseNode, counter: TokenCounter, settings: CutSettings) -> list[TextNode]:
        most = min(counter.room, settings.max_tokens or counter.room)
        room = most - self._front(document, counter)
        while room >= LEAST_TEXT:
            parts = list(passages_of([_document(document)], Cutter(counter, _within(settings, room, most))))
            nodes = self._built(document, parts)
            longest = max(counter.count([node.get_content(MetadataMode.EMBED) for node in nodes]))
            if longest <= most:
                return nodes
            # a tokenizer may join what stands at the border of metadata and text
            room -= longest - most
        raise InputError(
            f"document {brief(document.node_id)}: its metadata, which LlamaIndex embeds in front of every node, leaves "
            f"{max(0, room)} of {most} tokens for the text: name what is not to be embedded in "
            "excluded_embed_metadata_keys"
        )

    def _front(self, document: BaseNode, counter: TokenCounter) -> int:
        """The tokens of the metadata in front of a node."""
        (node,) = self._built(document, [Passage("", "x")])
        with_front, alone = counter.count([node.get_content(MetadataMode.EMBED), "x"])
        return with_front - alone

    def _built(self, document: BaseNode, parts: Sequence[Passage]) -> list[TextNode]:
        nodes = build_nodes_from_splits(
            [part.text for part in parts], document, id_func=lambda i, _: point_id(parts[i].id)
        )
        for node, part in zip(nodes, parts, strict=True):
            place = {name: part.metadata[name] for name in _OF_PLACE if name in part.metadata}
            node.metadata = {**(document.metadata if self.include_metadata else {}), **place}
            node.excluded_embed_metadata_keys = [*document.excluded_embed_metadata_keys, *place]
            node.excluded_llm_metadata_keys = list(document.excluded_llm_metadata_keys)
        return nodes


def plus_node_parser(embedding: PlusEmbedding, settings: CutSettings | None = None) -> PlusNodeParser:
    """A node parser for `Settings.transformations` or an `IngestionPipeline`, whose nodes `embedding` reads whole.

    The model is opened when the first documents are parsed.
    """
    chosen = settings or CutSettings()
    return PlusNodeParser(
        embedding=embedding,
        max_tokens=chosen.max_tokens,
        min_tokens=chosen.min_tokens,
        overlap=chosen.overlap,
        context=chosen.context,
    )


def _document(node: BaseNode) -> Any:
    return document_of_text(Passage(node.node_id, node.get_content(), node.metadata))


def _within(settings: CutSettings, room: int, most: int) -> CutSettings:
    """The settings for a text behind metadata, which takes its share of what they ask for."""
    if room == most:
        return replace(settings, max_tokens=room)
    least = None if settings.min_tokens is None else min(settings.min_tokens, room // 8)
    return replace(settings, max_tokens=room, min_tokens=least, overlap=min(settings.overlap, room // 3))
