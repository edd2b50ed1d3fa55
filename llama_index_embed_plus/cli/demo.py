"""`embed-plus demo`: run the demo with progress bars, then print its answers and one table of before and after."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, note, say, show_table
from llama_index_embed_plus.cli.documents.hits import show_hits
from llama_index_embed_plus.cli.opened import DEFAULT_MODEL, Model, Overwrite, check_outputs
from llama_index_embed_plus.errors import MissingExtraError

if TYPE_CHECKING:  # loaded by the command, so that its help does not wait for it
    from llama_index_embed_plus.demo.pipeline import DemoReport

app = typer.Typer()

REPORT, CHART = Path("demo-report.json"), Path("demo-report.png")


@app.command()
def demo(
    full: Annotated[
        bool, typer.Option(help="Also fine-tune the whole encoder, re-embed and switch the alias.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The folder for collection, log, runs and model.")] = Path("demo"),
    model: Model = DEFAULT_MODEL,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only so many passages: for a quick look.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Run the whole loop on Python's own documentation, and write demo-report.json and a chart of it."""
    from llama_index_embed_plus.demo.pipeline import ALIAS, Demo, write_report

    check_outputs(REPORT, CHART, overwrite=overwrite)
    report = Demo(out, ConsoleReporter(), model=model, limit=limit).run(full=full)
    write_report(report.as_row(), REPORT, overwrite=overwrite)
    for answer in report.answers:
        show_hits(answer.question, answer.hits)
        say()
    _show(report)
    say(_verdict(report))
    say(f"wrote {REPORT}{_chart(report, overwrite=overwrite)} and {out}/")
    kept = {"adapter": "model", "full": "model-full", "base": "base-model"}[report.kept]
    options = shlex.join(["--location", str(out / "qdrant"), "--model", str(out / kept)])
    next_step(f"search {ALIAS} 'how do I parse command line arguments?' {options}")


def _chart(report: DemoReport, *, overwrite: bool) -> str:
    """Draw it where it can be drawn; returns what to say of it."""
    from llama_index_embed_plus.demo.pipeline import draw_report

    try:
        draw_report(report.systems.reports, CHART, overwrite=overwrite)
    except MissingExtraError:
        note(f"{CHART} is not drawn without matplotlib: pip install 'llama-index-embed-plus[plot]'")
        return ""
    return f", {CHART}"


def _show(report: DemoReport) -> None:
    row = report.as_row()
    metrics = list(row["before"])
    rows = []
    for name, means in row["systems"].items():
        difference = row["differences"].get(name)
        gain = (
            f"{difference['ndcg@10']:+.3f}  [{difference['low']:+.3f}, {difference['high']:+.3f}]" if difference else ""
        )
        rows.append([name, *(f"{means[metric]:.3f}" for metric in metrics), gain])
    show_table(
        ["system", *metrics, "nDCG@10 gain, 95 % interval"],
        rows,
        title=f"{row['heldout_queries']} held-out queries, {row['documents']} documents",
        numbers=range(1, len(metrics) + 2),
    )


def _verdict(report: DemoReport) -> str:
    return {
        "adapter": "The adapter is better on queries it never saw: it is kept for serving, no passage embedded again.",
        "full": "The fine-tuned encoder is better on queries it never saw: the alias now points at its collection.",
        "base": "No system is proved better on held-out queries: the base model keeps serving.",
    }[report.kept]
