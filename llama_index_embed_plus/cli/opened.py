"""The options that say where collections live, which encoder serves and what may be written, and what they open.

Guarantees: every client that is opened is closed; a file that is there is replaced on request only. Does not know: what
a command does with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import UsageError
from qdrant_tools.files import is_same_file, require_writable

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

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")]

DEFAULT_LOCATION = "embed-plus-data"
DEFAULT_MODEL = "all-MiniLM-L6-v2"


def check_outputs(*paths: Path | None, overwrite: bool, inputs: Sequence[Path | None] = ()) -> None:
    """See that the files of these options can be written, before the work for them begins.

    `inputs`: What the command reads, which it never replaces.

    Raises:
        UsageError: one is there already, without `overwrite`; is no file, or one of `inputs`; lies in no folder; or is
            named twice.
    """
    named = [path for path in paths if path is not None]
    for path in named:
        require_writable(path, overwrite=overwrite)
        if named.count(path) > 1:
            raise UsageError(f"{path} is to be written twice: give each option a file of its own")
        if any(is_same_file(path, given) for given in inputs if given is not None):
            raise UsageError(f"{path} is to be read and to be written: give what is written another name")


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
