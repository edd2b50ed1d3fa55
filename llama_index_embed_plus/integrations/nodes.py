"""LlamaIndex's nodes <-> the points of a collection.

In a collection of ours a node is a passage: its id is the node's, its text is what LlamaIndex embeds of the node (the
text behind the metadata), and its metadata name the node's document as `document`. The node itself stands beside it as
LlamaIndex writes nodes, so that it comes back as it was. In a collection that LlamaIndex filled, nodes are written as
its own store writes them. Passages that were never nodes are read as nodes of their text and metadata.

Guarantees: what is written is what is read; what cannot be read as the node that it claims to be is read as a passage.
Does not know: vectors, engines.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from qdrant_tools.collections.metadata import LLAMA_INDEX, NODE, OURS, Layout
from qdrant_tools.errors import InputError, NotSupportedError, brief
from qdrant_tools.records import Passage
from qdrant_tools.search.around import DOCUMENT, PART
from qdrant_tools.validation import checked_text

NODE_TYPE, REF_DOC_ID = "_node_type", "ref_doc_id"
"""Fields of a payload, as LlamaIndex names them."""
FILE_FACTS = ("source", "file_name", "file_type", "file_size", "last_modified_date", "encoding", DOCUMENT, PART)
"""Metadata that are no part of what a passage says; its path, page and headings are."""


def checked_nodes(nodes: Sequence[BaseNode]) -> Sequence[BaseNode]:
    """The nodes. Raises `InputError` for anything else, and for a node without a text that can be embedded."""
    for node in nodes:
        if not isinstance(node, BaseNode):
            raise InputError(f"node is {brief(node)}, expected a node of LlamaIndex")
        text = node.get_content()
        if not text.strip():
            of = f" of document {brief(node.ref_doc_id)}" if node.ref_doc_id else ""
            raise InputError(
                f"node {brief(node.node_id)}{of} has no text: leave pictures and empty nodes out, as "
                "plus_node_parser(embedding) does with empty documents"
            )
        checked_text(f"text of node {brief(node.node_id)}", text)
    return nodes


def embedded_text(node: BaseNode, layout: Layout) -> str:
    """The text of a node that its vector is of."""
    alone = layout.name == LLAMA_INDEX.name and not layout.embedded_metadata
    return node.get_content(MetadataMode.NONE if alone else MetadataMode.EMBED)


def passage_of_node(node: BaseNode) -> Passage:
    """A node as a passage of ours."""
    metadata = dict(node.metadata)
    if node.ref_doc_id:
        metadata.setdefault(DOCUMENT, node.ref_doc_id)
    return Passage(node.node_id, node.get_content(MetadataMode.EMBED), metadata)


def beside_passage(node: BaseNode) -> dict[str, Any]:
    """The fields of a payload that say which node a passage of ours is."""
    # the text is not written twice
    written = _written(node, remove_text=node.get_content() == node.get_content(MetadataMode.EMBED))
    return {name: written[name] for name in (NODE, NODE_TYPE, REF_DOC_ID)}


def llamaindex_payload(node: BaseNode) -> dict[str, Any]:
    """A node as LlamaIndex's own store writes it. Raises `InputError` for metadata that JSON cannot hold."""
    return _written(node, remove_text=False)


def _written(node: BaseNode, *, remove_text: bool) -> dict[str, Any]:
    try:
        return node_to_metadata_dict(node, remove_text=remove_text, flat_metadata=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"metadata of node {brief(node.node_id)} cannot be written as JSON ({brief(str(error))}): make them texts, "
            "numbers, and lists or dicts of those; value.item() makes one of numpy a number"
        ) from error


def llamaindex_point_id(node: BaseNode) -> str | int:
    """The id of the node's point, which is its own there. Raises `InputError` for an id that points cannot have."""
    try:
        return str(uuid.UUID(node.node_id))
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"node {brief(node.node_id)}: ids in a collection that LlamaIndex filled are UUIDs, as plus_node_parser "
            "and LlamaIndex's parsers give them; a collection that ensure() makes takes any id"
        ) from error


def node_of(payload: Mapping[str, Any] | None, layout: Layout, *, point: str | int) -> BaseNode:
    """The node that a point holds."""
    values = dict(payload or {})
    passage = layout.passage(values, point_id=point)
    if NODE in values:
        try:
            node = metadata_dict_to_node(values)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return _node_of_passage(passage)
        if layout.name == OURS.name and not node.get_content():
            node.set_content(passage.text)
        return node
    return _node_of_passage(passage)


def _node_of_passage(passage: Passage) -> TextNode:
    document = passage.metadata.get(DOCUMENT)
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)} if isinstance(document, str) else {}
    # as LlamaIndex's reader of folders has it: facts of files are neither for the model nor for a reranker
    facts = [name for name in FILE_FACTS if name in passage.metadata]
    return TextNode(
        id_=passage.id,
        text=passage.text,
        metadata=dict(passage.metadata),
        relationships=source,
        excluded_llm_metadata_keys=facts,
        excluded_embed_metadata_keys=facts,
    )


def refuse_foreign_layout(layout: Layout, name: str) -> None:
    """Raise `NotSupportedError` for a collection of another program, among whose points nodes would be lost."""
    if layout.name not in (OURS.name, LLAMA_INDEX.name):
        raise NotSupportedError(
            f"collection {name!r} has the layout of {layout.name!r}, which holds no nodes: it can be read; fill it "
            "with the program that made it, or write nodes to a new collection"
        )


def ids_of(nodes: Sequence[BaseNode]) -> list[str]:
    return [node.node_id for node in nodes]
