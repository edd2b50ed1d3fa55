"""The options that say where collections live, which encoder serves and what may be written, and what they open.

Guarantees: every client that is opened is closed; a file that is there is replaced on request only. Does not know: what
a command does with it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, cast

import typer

from llama_index_embed_plus.cli.console import note
from llama_index_embed_plus.encoders.late import suited
from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.evaluate.plots.style import can_draw, require_drawing
from qdrant_tools.client.connect import connect, refuse_read_only
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import LocationError, SpaceMismatchError, UsageError, brief
from qdrant_tools.files.written import is_same_file, require_writable

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

CollectionName = Annotated[str, typer.Argument(metavar="COLLECTION", help="A collection or alias.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
DrawnBesideOut = Annotated[
    bool | None,
    typer.Option(
        "--plot/--no-plot",
        help="Draw a picture beside what is written. By default where the extra 'plot' is installed.",
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")]

DEFAULT_LOCATION = "embed-plus-data"
DEFAULT_MODEL = "all-MiniLM-L6-v2"


def draws(plot: bool | None) -> bool:
    """Whether a picture is to be drawn. One that nobody asked for is left out where none can be drawn: a note says so.

    Raises:
        MissingExtraError: it was asked for, and cannot be drawn.
    """
    if plot:
        require_drawing()
    drawn = can_draw() if plot is None else plot
    if plot is None and not drawn:
        note("no picture is drawn: that needs the extra 'plot' (pip install 'llama-index-embed-plus[plot]')")
    return drawn


def check_picture(path: Path | None) -> None:
    """See that the picture of an option can be drawn, before the work for it begins.

    Raises:
        MissingExtraError: nothing can be drawn here.
        UsageError: its name promises another format than PNG.
    """
    if path is None:
        return
    require_drawing()
    if path.suffix.lower() not in ("", ".png"):
        raise UsageError(f"--plot is {brief(str(path))}, expected the name of a PNG, such as {path.stem}.png")


def command_of(command: str, *arguments: object, location: str | None = None, model: str | None = None) -> str:
    """A command that can be pasted into a shell, with location and model where they are not those taken without."""
    words = [*command.split(), *map(str, arguments)]
    if location is not None and location != os.environ.get("EMBED_PLUS_LOCATION", DEFAULT_LOCATION):
        words += ["--location", location]
    if model is not None and model != os.environ.get("EMBED_PLUS_MODEL", DEFAULT_MODEL):
        words += ["--model", model]
    return shlex.join(words)


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
    """The collections of a location. It must be there, unless `create`, with which it must be writable too."""
    with closing(connect(location, create=create)) as client:
        if create:
            refuse_read_only(client)
        yield CollectionManager(client)


def is_read_only(manager: CollectionManager) -> bool:
    """Whether the collections lie in a folder that can only be read here."""
    try:
        refuse_read_only(manager.client)
    except LocationError:
        return True
    return False


def changing_step(command: str, collection: str, location: str, *, read_only: bool) -> str:
    """The command that leads on by changing a collection; where it can only be read, the copy that can be changed."""
    return command_of("collection copy", collection, "--to", "FOLDER", location=location) if read_only else command


@contextmanager
def opened(
    name: str, location: str, model: str, backend: BackendName = "auto"
) -> Iterator[tuple[Collection, TextEncoder]]:
    """A collection or alias that must be there, and the encoder that filled it, with the adapter that serves there."""
    # first the location: if it is missing, no model is opened for nothing
    with managed(location) as manager:
        yield opened_with(manager, name, open_encoder(model, backend=backend))


def opened_with(
    manager: CollectionManager, name: str, encoder: TextEncoder, *, exactly: bool = False
) -> tuple[Collection, TextEncoder]:
    """A collection or alias that must be there, with its encoder: with late chunking, if that filled it, and with the
    query adapter that was promoted, unless `exactly` this model is asked for."""
    unopened = manager.open(name)
    try:
        unopened.check(encoder)
    except SpaceMismatchError:
        late = suited(encoder, unopened.space)
        if late is encoder:
            raise
        encoder = late
    collection = unopened.with_encoder(encoder) if exactly else manager.open(name, encoder)
    return collection, cast(TextEncoder, collection.encoder)
