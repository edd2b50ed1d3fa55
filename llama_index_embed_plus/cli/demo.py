"""`embed-plus demo`: run the demo with progress bars, then print its answers and one table of before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, say, show_hits, show_table
from llama_index_embed_plus.cli.opened import DEFAULT_MODEL, Model, Overwrite, check_outputs

if TYPE_CHECKING:  # needs the extra `train`: loaded by the commands, so that their help does not wait for it
    from llama_index_embed_plus.demo.pipeline import DemoReport

app = typer.Typer()

REPORT, CHART = Path("demo-report.json"), Path("demo-report.png")


@app.command()
def demo(
    full: Annotated[
        bool, typer.Option(help="Also fine-tune the whole encoder, re-embed and switch the alias.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Where collection, log, runs and model go.")] = Path("demo"),
    model: Model = DEFAULT_MODEL,
    limit: Annotated[int | None, typer.Option(help="Use only so many passages: for a quick look.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Run the whole loop on Python's own documentation and write demo-report.json and demo-report.png."""
    from llama_index_embed_plus.demo.pipeline import Demo, write_report

    check_outputs(REPORT, CHART, overwrite=overwrite)
    report = Demo(folder, ConsoleReporter(), model=model, limit=limit).run(full=full)
    write_report(report.as_row(), report.systems.reports, REPORT, CHART, overwrite=overwrite)
    for answer in report.answers:
        show_hits(answer.question, answer.hits)
        say()
    _show(report)
    say(_verdict(report))
    say(f"wrote {REPORT}, {CHART} and {folder}/")


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
