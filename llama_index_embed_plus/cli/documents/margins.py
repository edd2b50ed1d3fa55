"""`embed-plus margins`: examples with negatives and a cross-encoder -> rows for `train --loss margin_mse`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, note, resumable, say
from llama_index_embed_plus.cli.opened import Overwrite, check_outputs

app = typer.Typer()


@app.command("margins")
def margins_command(
    examples: Annotated[Path, typer.Argument(help="The .jsonl file that `mine` or `synthesize` wrote.")],
    out: Annotated[Path, typer.Option(help="The .jsonl file of rows with margins to write.")],
    judge: Annotated[str, typer.Option(help="A cross-encoder (folder or name); its raw scores are taken.")],
    negatives: Annotated[int, typer.Option(min=1, help="The most negatives of an example.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="How many pairs are scored at a time.")] = 32,
    overwrite: Overwrite = False,
) -> None:
    """Let a cross-encoder say how far each positive lies above its negatives. Can be interrupted."""
    # loads sentence-transformers
    from llama_index_embed_plus.encoders.cross_encoder import cross_encoder_logits
    from llama_index_embed_plus.training.data.margins import write_margins
    from llama_index_embed_plus.training.data.reading import read_training_data

    check_outputs(out, overwrite=overwrite, inputs=[examples])
    rows = read_training_data(examples).examples
    if len({row.weight for row in rows}) > 1:
        note("the weights of the examples are left out: a margin has none")
    score = cross_encoder_logits(judge, batch_size=batch_size)
    with (
        resumable("what is scored is kept; run the same command again to go on"),
        ConsoleReporter().step("score", len(rows), "examples") as advance,
    ):
        report = write_margins(rows, score, out, judge=judge, negatives=negatives, progress=advance)
    said = f"; {report.without} examples have no negatives and were left out" if report.without else ""
    say(f"wrote {out}: {report.rows} rows with {report.margins} margins by {judge}{said}")
    next_step(f"train --examples {shlex.quote(str(out))} --method lora --loss margin_mse --out tuned")
