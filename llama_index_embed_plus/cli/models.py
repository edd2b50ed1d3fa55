"""`embed-plus describe` and `embed-plus export`: what a model is, and a build of it that serves without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, print_json, say, show_table
from llama_index_embed_plus.cli.opened import command_of
from llama_index_embed_plus.encoders.open import ModelDescription, describe
from llama_index_embed_plus.export.export import export_onnx

app = typer.Typer()

Precision = Annotated[Literal["fp32", "int8"], typer.Option(help="The precision of the ONNX build.")]


@app.command("describe")
def describe_command(
    model: Annotated[str, typer.Argument(help="A model folder, or a name; name@revision demands a revision.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show everything that decides a model's vectors, and where each fact comes from."""
    description = describe(model)
    if as_json:
        print_json(_row(description))
        return
    say(f"{description.space}  ({description.build}), {description.folder}")
    rows = [[fact.name, _plain(fact.value), fact.source] for fact in description.facts]
    show_table(["fact", "value", "from"], rows)
    for build, report in description.builds.items():
        parity = report.get("parity")
        parity = parity if isinstance(parity, dict) else {}
        mean, worst = parity.get("cosine_mean"), parity.get("cosine_min")
        # the report may be somebody else's
        if isinstance(mean, float) and isinstance(worst, float):
            against = f"against {parity.get('reference')}"
            say(f"build {build}: cosine {mean:.5f} in the mean, {worst:.5f} at worst, {against}")
    if description.source:
        say(f"made from {description.source.get('name')} at revision {description.source.get('revision')}")
    for note in description.notes:
        say(f"note: {note}")
    if not description.builds:
        next_step(command_of("export", model, "--out", f"{Path(model).name.partition('@')[0]}-onnx"))


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model folder, or a name; name@revision demands a revision.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not exist.")],
    precision: Precision = "fp32",
    force: Annotated[bool, typer.Option(help="Write the model even if it does not agree with its original.")] = False,
) -> None:
    """Write a model folder with an ONNX build, which serves without torch, and print how well it agrees."""
    with ConsoleReporter().step(f"export {model}", None):
        parity = export_onnx(model, out, precision=precision, force=force)
    say(f"wrote {out} ({precision})")
    say(parity.summary())
    next_step(command_of("index", "docs", "FOLDER", "--model", out))


def _row(description: ModelDescription) -> dict[str, Any]:
    facts = {fact.name: {"value": fact.value, "source": fact.source} for fact in description.facts}
    return {
        "space": description.space,
        "build": description.build,
        "folder": str(description.folder),
        "facts": facts,
        "builds": {name: dict(report) for name, report in description.builds.items()},
        "source": dict(description.source),
        "notes": list(description.notes),
    }


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in ("", None) else repr(value) if isinstance(value, str) else str(value)
