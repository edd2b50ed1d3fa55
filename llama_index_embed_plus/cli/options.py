"""Options that several commands share: where collections live, and which encoder. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Location = Annotated[
    str,
    typer.Option(
        envvar="EMBED_PLUS_LOCATION",
        help="Where collections live: a folder, a server URL (key from QDRANT_API_KEY), or ':memory:'.",
    ),
]
Model = Annotated[str, typer.Option(envvar="EMBED_PLUS_MODEL", help="A model name or folder.")]
Backend = Annotated[
    Literal["auto", "torch", "onnx", "onnx-fp32", "onnx-int8"],
    typer.Option(help="What computes the vectors; auto takes ONNX where there is one."),
]

DEFAULT_LOCATION = "embed-plus-data"
DEFAULT_MODEL = "all-MiniLM-L6-v2"
