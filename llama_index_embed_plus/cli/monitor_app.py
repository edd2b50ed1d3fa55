"""`embed-plus monitor` and `embed-plus canary ...`: their options.

Exit codes: 0 nothing to report, 1 an error, 2 wrong usage, 3 an alarm of the log's tests, 4 a canary failed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.options import DEFAULT_LOCATION, DEFAULT_MODEL, Backend, Location, Model

app = typer.Typer()
canary_app = typer.Typer(help="Ask queries whose answers are known.", no_args_is_help=True, rich_markup_mode=None)

Mean = Annotated[float, typer.Option(help="Mean share of expected passages that must be found, else exit code 4.")]
Each = Annotated[float, typer.Option(help="The same for every single query.")]
First = Annotated[int, typer.Option("-k", min=1, help="Among how many hits.")]


@app.command()
def monitor(
    collection: Annotated[str, typer.Argument(help="The collection or alias that is searched.")],
    log: Annotated[Path, typer.Argument(help="The retrieval log of searches in it.")],
    days: Annotated[float, typer.Option(help="The current window: the last so many days.")] = 7,
    reference_days: Annotated[float, typer.Option(help="The reference window: so many days before that.")] = 28,
    until: Annotated[str | None, typer.Option(help="End of the current window, ISO 8601; now if not given.")] = None,
    alpha: Annotated[float, typer.Option(help="Probability of a false alarm per report.")] = 0.01,
    canaries: Annotated[Path | None, typer.Option(help="Also ask these canaries (see `embed-plus canary`).")] = None,
    candidate: Annotated[str | None, typer.Option(help="A model to be judged by the logged clicks.")] = None,
    out: Annotated[Path, typer.Option(help="Where the report goes: this, with .json and .png.")] = Path("monitor"),
    page: Annotated[bool, typer.Option(help="Draw the page; needs the extra 'plot'.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Compare the last days of a retrieval log with the weeks before. Exit code 3 for an alarm, 4 for a canary."""
    from llama_index_embed_plus.cli.commands import Where
    from llama_index_embed_plus.cli.monitor_commands import Watch, monitor_log

    watch = Watch(days, reference_days, until, alpha, canaries, candidate)
    code = monitor_log(collection, log, watch, Where(location, model, backend), out=out, page=page, as_json=as_json)
    raise typer.Exit(code)


@canary_app.command()
def freeze(
    collection: Annotated[str, typer.Argument(help="The collection or alias to ask.")],
    queries: Annotated[Path, typer.Argument(help="A text file with one query per line, or .jsonl rows with a text.")],
    out: Annotated[Path, typer.Argument(help="The .jsonl file of canaries to write.")],
    k: First = 10,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Write down what queries find now, as what they have to find from now on."""
    from llama_index_embed_plus.cli.commands import Where
    from llama_index_embed_plus.cli.monitor_commands import freeze_queries

    freeze_queries(collection, queries, out, Where(location, model, backend), k=k)


@canary_app.command()
def run(
    collection: Annotated[str, typer.Argument(help="The collection or alias to ask.")],
    canaries: Annotated[Path, typer.Argument(help="The .jsonl file of canaries.")],
    k: First = 10,
    mean: Mean = 0.9,
    each: Each = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Ask the canaries again. Exit code 4 if they do not find enough of what they must."""
    from llama_index_embed_plus.cli.commands import Where
    from llama_index_embed_plus.cli.monitor_commands import CanaryLimits, ask_canaries

    code = ask_canaries(collection, canaries, CanaryLimits(k, mean, each), Where(location, model, backend), as_json)
    raise typer.Exit(code)
