"""The commands' bodies: open the model and the location, call the library, print what came back."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, err, out
from llama_index_embed_plus.documents import read_passages
from llama_index_embed_plus.encoders import BackendName, open_encoder
from qdrant_tools.collection import CollectionManager, build_index
from qdrant_tools.connect import connect
from qdrant_tools.index import index_passages
from qdrant_tools.records import Hit
from qdrant_tools.search import search


@dataclass(frozen=True)
class Where:
    """Which collections, and which encoder."""

    location: str
    model: str
    backend: BackendName


def index_source(source: Path, collection: str, where: Where) -> None:
    """Index a folder or file. Ctrl-C keeps everything that was counted; the same command goes on from there."""
    passages = read_passages(source)
    encoder = open_encoder(where.model, backend=where.backend)
    reporter = ConsoleReporter()
    safe = 0
    with closing(connect(where.location)) as client:
        target = CollectionManager(client).ensure(collection, encoder)

        try:
            with reporter.step(f"index {source}", None) as advance:

                def progress(done: int) -> None:
                    nonlocal safe
                    safe += done
                    advance(done)

                report = index_passages(target, passages, encoder, progress=progress)
        except KeyboardInterrupt:
            err.print(f"interrupted: {safe} passages are indexed; run the same command again to go on")
            raise typer.Exit(130) from None
        with reporter.step("build hnsw", None):
            build_index(target)
    out.print(f"{collection}: {report.added} added, {report.updated} updated, {report.unchanged} unchanged")
    if not report.added and not report.updated:
        out.print("nothing to do: every passage was already indexed")


def find(collection: str, question: str, where: Where, *, k: int, exact: bool) -> list[Hit]:
    """Search one collection that must already be there."""
    with closing(connect(where.location, create=False)) as client:
        encoder = open_encoder(where.model, backend=where.backend)
        return search(CollectionManager(client).open(collection, encoder), question, encoder, k=k, exact=exact)


def export_model(model: str, folder: Path, *, precision: Literal["fp32", "int8"], force: bool) -> None:
    """Export and print the parity report."""
    from llama_index_embed_plus.export import export_onnx

    with ConsoleReporter().step(f"export {model}", None):
        parity = export_onnx(model, folder, precision=precision, force=force)
    out.print(f"wrote {folder} ({precision})")
    out.print(parity.summary())
