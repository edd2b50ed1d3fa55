"""Payloads and collection metadata that another program wrote into a collection, with no good in mind."""

from __future__ import annotations

import json
from typing import Any

TEXT = "the text of the node"


def node(**fields: Any) -> str:
    return json.dumps({"text": TEXT, "metadata": {"title": "Letters", "year": 1890}} | fields)


LONG = "x" * 1_000_000
NODES: dict[str, Any] = {
    "a width of 800 million": node(metadata_template="{key:>800000000}"),
    "a width from a field": node(metadata_template="{key:{value}}", metadata={"a": 800_000_000}),
    "a precision": node(metadata_template="{value:.800000000f}", metadata={"a": 1}),
    "attributes": node(metadata_template="{key.__class__.__mro__}{value.__init__}"),
    "items": node(metadata_template="{key[0]}{value[0]}"),
    "a conversion": node(metadata_template="{key!r:>800000000}"),
    "an unknown field": node(metadata_template="{secret}"),
    "a number": node(metadata_template="{0}{}"),
    "open braces": node(metadata_template="{key"),
    "a width around the text": node(text_template="{content:>800000000}"),
    "attributes of the text": node(text_template="{content.__class__}{metadata_str}"),
    "a value named a thousand times": node(metadata_template="{value}" * 1000, metadata={"a": LONG}),
    "the text named a thousand times": node(text_template="{content}{metadata_str}" * 1000, text=LONG),
    "a long separator": node(metadata_separator=LONG, metadata={str(i): i for i in range(10_000)}),
    "a long template": node(metadata_template=LONG + "{key}", metadata={str(i): i for i in range(10_000)}),
    "templates that are no texts": node(metadata_template=["{key}"], text_template=3, metadata_separator=None),
    "metadata that is a list": node(metadata=[1, 2]),
    "metadata that is a text": node(metadata="{key}"),
    "excluded keys that cannot be": node(excluded_embed_metadata_keys=[{"a": 1}]),
    "excluded keys that are one": node(excluded_embed_metadata_keys=7),
    "no text": json.dumps({"metadata": {"a": 1}}),
    "a text that is a list": node(text=["a"]),
    "a text that is a number": node(text=7),
    "a list": "[1, 2]",
    "no JSON": "{",
    "deep": "[" * 100_000,
    "deep and closed": '{"text": ' + "[" * 900 + "]" * 900 + "}",
    "a number of 5,000 digits": '{"text": ' + "9" * 5000 + "}",
    "a number itself": 7,
    "a list itself": [node()],
    "nothing": None,
}
IDS: dict[str, Any] = {
    "a list": ["a"] * 100_000,
    "an object": {"a": 1},
    "nothing": None,
    "true": True,
    "a float": 1e308,
}
"""What an id of a passage is no text and no whole number in."""

_METADATA: dict[str, Any] = {"format": 1, "space": "words@000000000000", "dimension": 8, "hnsw_ef": 64}
_LAYOUT = {"name": "plain", "vector": "", "id": "", "text": "text", "metadata": "", "hidden": []}
_BM25 = {"k1": 1.2, "b": 0.75, "average_length": 100.0}
_INT8 = {"kind": "int8", "bits": 8.0}


def changed(**fields: Any) -> dict[str, Any]:
    return _METADATA | fields


METADATA: dict[str, Any] = {
    "a text": "format 1",
    "a list": [1],
    "nothing in it": {"format": 1},
    "a format that is long": {"format": LONG},
    "a space that is a number": changed(space=1),
    "a space of a megabyte": changed(space=LONG),
    "a dimension that is a text": changed(dimension="8"),
    "a dimension of 0": changed(dimension=0),
    "a dimension of 2**62": changed(dimension=2**62),
    "a dimension that is true": changed(dimension=True),
    "a beam width that is a text": changed(hnsw_ef="64"),
    "a beam width of 2**40": changed(hnsw_ef=2**40),
    "an adapter that is a list": changed(adapter=[1]),
    "an adapter of a megabyte": changed(adapter=LONG),
    "a layout that is a list": changed(layout=[1]),
    "a layout with another field": changed(layout=_LAYOUT | {"__class__": "x"}),
    "a layout whose text is a list": changed(layout=_LAYOUT | {"text": ["a"]}),
    "a layout of a megabyte": changed(layout=_LAYOUT | {"id": LONG}),
    "a layout that hides a number": changed(layout=_LAYOUT | {"hidden": [1]}),
    "a layout that hides a text": changed(layout=_LAYOUT | {"hidden": "abc"}),
    "a layout that embeds a list": changed(layout=_LAYOUT | {"embedded_metadata": [1]}),
    "words that are a list": changed(lexical=[1]),
    "words with a text": changed(lexical=_BM25 | {"k1": "1"}),
    "words with another field": changed(lexical=_BM25 | {"k2": 1}),
    "words of no length": changed(lexical=_BM25 | {"average_length": 0}),
    "words to come that are a text": changed(words_due="bm25"),
    "a fusion that is a text": changed(fusion="dbsf"),
    "a fusion of another method": changed(fusion={"method": LONG}),
    "a fusion of a text": changed(fusion={"depth": "100"}),
    "a fusion of 2**40 hits": changed(fusion={"depth": 2**40}),
    "a quantization that is a text": changed(quantization="int8"),
    "a quantization of nothing": changed(quantization={}),
    "a quantization of a list": changed(quantization=_INT8 | {"kind": ["int8"]}),
    "a quantization of odd bits": changed(quantization=_INT8 | {"bits": [8]}),
    "an oversampling of 1e300": changed(quantization=_INT8 | {"oversampling": 1e300}),
    "a quantization that rescores a text": changed(quantization=_INT8 | {"rescore": "no"}),
}
STATE = {"alias": "live", "source": "docs", "target": "docs", "kind": "adapter", "phase": "built"}
STATES: dict[str, Any] = {
    "a text": "built",
    "a field missing": {"alias": "live"},
    "another field": STATE | {"__class__": "x"},
    "a kind that is none": STATE | {"kind": "delete everything"},
    "a phase that is a number": STATE | {"phase": 1},
    "an alias that is a list": STATE | {"alias": ["live"]},
    "a source of a megabyte that is a list": STATE | {"source": [LONG]},
    "checks that are a text": STATE | {"verification": {"checks": "passed"}},
    "a check whose value is a text": STATE | {"verification": {"checks": [{"name": "a", "value": "1"}]}},
    "a check without a name": STATE | {"verification": {"checks": [{"value": 1}]}},
    "a verification that is a list": STATE | {"verification": [1]},
    "a former that is a list": STATE | {"former": [1]},
}
