"""`embed-plus benchmark`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from llama_index_embed_plus.cli.options import DEFAULT_MODEL, Backend, Model

app = typer.Typer()


@app.command()
def benchmark(
    folder: Annotated[Path, typer.Argument(help="A folder of data, or of folders of data; see docs/tasks.md.")],
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
    task: Annotated[
        list[str] | None, typer.Option(help="Only this task, folder or kind of task; may be given several times.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which part of the data is measured.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Only so many rows of each task: for a quick look.")] = None,
    role: Annotated[
        Literal["query", "passage"], typer.Option(help="The prompt for texts that are compared with their like.")
    ] = "passage",
    titles: Annotated[bool, typer.Option(help="Embed passages with their titles.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per task.")] = False,
) -> None:
    """Run every task that a folder of data holds and print one figure for each."""
    from llama_index_embed_plus.cli.benchmark_commands import Wanted, run_benchmark
    from llama_index_embed_plus.evaluate.tasks import TaskOptions

    wanted = Wanted(folder, split, tuple(task or ()), TaskOptions(limit, role, titles))
    run_benchmark(wanted, model, backend, as_json=as_json)
