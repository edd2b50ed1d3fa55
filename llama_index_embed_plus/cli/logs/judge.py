"""The options that name a cross-encoder -> the judge of what is an answer. Does not know: what it is asked."""

from __future__ import annotations

from typing import Annotated

import typer

from qdrant_tools.mining.rules import Judge

JudgeModel = Annotated[str | None, typer.Option("--judge", help="A cross-encoder (folder or name) that has a say.")]
Threshold = Annotated[float, typer.Option(help="From this score of the judge on, a passage counts as an answer.")]


def cross_encoder(judge: str | None, threshold: float, *, promote: bool = False) -> Judge | None:
    """The judge of this name; None without one. `promote`: what it finds becomes a positive."""
    if judge is None:
        return None
    # loads sentence-transformers, which only a judge needs
    from llama_index_embed_plus.encoders.cross_encoder import cross_encoder_judge

    return cross_encoder_judge(judge, threshold=threshold, promote=promote)
