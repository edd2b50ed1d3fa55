"""The options that say where collections live and which encoder serves, and what they open.

Guarantees: every client that is opened is closed. Does not know: what a command does with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

import typer

from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager

Location = Annotated[
    str,
    typer.Option(
        envvar="EMBED_PLUS_LOCATION",
        help="Where collections live: a folder, a server URL (key from QDRANT_API_KEY), or ':memory:'.",
    ),
]
Model = Annotated[
    str, typer.Option(envvar="EMBED_PLUS_MODEL", help="A model folder, or a name (name@revision demands one).")
]
Backend = Annotated[
    BackendName,
    typer.Option(help="What computes the vectors; auto takes ONNX where there is one."),
]

DEFAULT_LOCATION = "embed-plus-data"
DEFAULT_MODEL = "all-MiniLM-L6-v2"


@contextmanager
def managed(location: str, *, create: bool = False) -> Iterator[CollectionManager]:
    """The collections of a location. It must be there, unless `create`."""
    with closing(connect(location, create=create)) as client:
        yield CollectionManager(client)


@contextmanager
def opened(
    name: str, location: str, model: str, backend: BackendName = "auto"
) -> Iterator[tuple[Collection, TextEncoder]]:
    """A collection or alias that must be there, and the encoder that filled it."""
    # first the location: if it is missing, no model is opened for nothing
    with managed(location) as manager:
        encoder = open_encoder(model, backend=backend)
        yield manager.open(name, encoder), encoder
