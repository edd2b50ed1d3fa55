"""`embed-plus mcp`: the collections of a location, for language models, by the Model Context Protocol."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import note
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    Location,
    Model,
    managed,
    opened_with,
)
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.errors import MissingExtraError
from llama_index_embed_plus.integrations.spans import SearchSpans
from llama_index_embed_plus.sharing.tools import CollectionTools
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import UsageError
from qdrant_tools.log.retrieval_log import RetrievalLog

app = typer.Typer()

LOCAL = ("127.0.0.1", "localhost", "::1")


@app.command("mcp")
def mcp_command(
    collections: Annotated[
        list[str] | None, typer.Argument(metavar="COLLECTION...", help="The collections to offer; else all.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Offer no tool that adds texts.")] = False,
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep searches and feedback in this retrieval log; else none is kept."),
    ] = None,
    spans: Annotated[
        bool,
        typer.Option(
            "--spans",
            help="With --log: write each search as a span of OpenTelemetry too, where opentelemetry-instrument says.",
        ),
    ] = False,
    http: Annotated[
        bool, typer.Option("--http", help="Answer over http (at /mcp) instead of stdin and stdout.")
    ] = False,
    host: Annotated[str, typer.Option(help="With --http: the address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="With --http: the port.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="With --http: a name that clients reach this machine by; may be given again."),
    ] = None,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Offer collections to language models: tools to search, to add texts, and to say what was of use. Ends when its
    client goes. An assistant starts it itself: give it this command."""
    if find_spec("mcp") is None:
        raise MissingExtraError("the server for language models", extra="mcp")
    allowed = (*LOCAL, *(allow_host or ()))
    if spans and log is None:
        raise UsageError("--spans writes the searches that are logged: give --log too")
    if not http and (allow_host or host != LOCAL[0]):
        raise UsageError("--host and --allow-host are for a server: give --http too")
    if host not in LOCAL and not allow_host:
        raise UsageError(
            f"--host {host} lets others in, and everybody who comes may search: name with --allow-host by which name "
            "they come, and put what checks who they are in front of it"
        )
    # at once, and not when the first tool is called
    from llama_index_embed_plus.sharing.mcp_server import make_server, serve_http, serve_stdio

    with ExitStack() as stack:
        manager = stack.enter_context(managed(location))
        for name in collections or ():
            manager.open(name)
        if not http and not (sys.stdin is not None and sys.stdin.readable()):
            raise UsageError(
                "nothing can be read from stdin, through which a program speaks to this command: or give --http"
            )

        @cache
        def encoder() -> TextEncoder:
            return open_encoder(model, backend=backend)

        def opener(name: str) -> Collection:
            return opened_with(manager, name, encoder())[0]

        kept = None if log is None else stack.enter_context(RetrievalLog(log))
        tools = CollectionTools(
            manager, opener, tuple(collections or ()), read_only, kept, SearchSpans() if spans else None
        )
        server = make_server(tools, version=version("llama-index-embed-plus"))
        note(f"offering {', '.join(collections or manager.names()) or 'no collection yet'} of {location}")
        if http:
            note(f"http://{host}:{port}/mcp")
            serve_http(server, host=host, port=port, allowed=allowed)
        else:
            serve_stdio(server)
