"""`embed-plus audit`: mined examples -> how many of their negatives are probably answers.

Guarantees: the figures are written before the picture is drawn. Does not know: how negatives were chosen.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, say
from llama_index_embed_plus.cli.logs.judge import JudgeModel, Threshold, cross_encoder
from llama_index_embed_plus.cli.opened import DrawnBesideOut, Overwrite, check_outputs, draws
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries
from qdrant_tools.errors import InputError, UsageError, brief
from qdrant_tools.files.written import write_text
from qdrant_tools.mining.false_negatives import Audit, audit, write_sheet
from qdrant_tools.mining.file import read_examples, read_stats
from qdrant_tools.records import Example, Label

app = typer.Typer()


@app.command("audit")
def audit_command(
    examples: Annotated[Path, typer.Argument(help="The .jsonl file that `mine` wrote.")],
    qrels: Annotated[Path | None, typer.Option(help="Judgements, BEIR's TSV; needs --queries.")] = None,
    queries: Annotated[Path | None, typer.Option(help="The texts of their queries: .jsonl rows with _id and text.")] = (
        None
    ),
    judge: JudgeModel = None,
    threshold: Threshold = 0.5,
    new_sheet: Annotated[
        Path | None, typer.Option("--write-sheet", help="Write a sample of negatives as CSV, to fill in.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Such a CSV, filled in.")] = None,
    plot: DrawnBesideOut = None,
    overwrite: Overwrite = False,
) -> None:
    """Say how many negatives are probably answers. Writes EXAMPLES.audit.json and EXAMPLES.audit.png."""
    if (qrels is None) != (queries is None):
        raise UsageError("--qrels and --queries go together: examples know the texts of queries, qrels their ids")
    if not examples.is_file():
        raise InputError(f"{examples} is not a file: expected the examples that `mine` wrote")
    figures, picture = examples.with_suffix(".audit.json"), examples.with_suffix(".audit.png")
    read = [examples, qrels, queries, sheet]
    drawn = draws(plot)
    check_outputs(figures, new_sheet, picture if drawn else None, overwrite=overwrite, inputs=read)
    judgements = None if qrels is None or queries is None else read_judgements(qrels, queries)
    stats = read_stats(examples)
    with ConsoleReporter().step(f"audit {examples}", None):
        report = audit(
            _mined(examples),
            judgements=judgements,
            judge=cross_encoder(judge, threshold),
            sheet=sheet,
            stats=stats,
        )
    _show(report)
    written = [figures]
    write_text(figures, json.dumps(report.as_row(), indent=2), overwrite=overwrite)
    if new_sheet is not None:
        write_sheet(read_examples(examples), new_sheet, overwrite=overwrite)  # read again: examples are streamed
        written.append(new_sheet)
    if drawn:
        from llama_index_embed_plus.evaluate.plots.pages import audit_page
        from llama_index_embed_plus.evaluate.plots.style import finish

        finish(audit_page(None, report, title=examples.name), picture, overwrite=overwrite)
        written.append(picture)
    say(f"wrote {', '.join(map(str, written))}")
    quoted = shlex.quote(str(examples))
    if new_sheet is not None:
        next_step(f"audit {quoted} --sheet {shlex.quote(str(new_sheet))} --overwrite")
    elif not report.false_negatives:
        next_step(f"audit {quoted} --write-sheet {shlex.quote(str(examples.with_suffix('.sheet.csv')))} --overwrite")
    else:
        next_step(f"train COLLECTION --examples {quoted} --heldout-share 0.2 --out adapted")


def _mined(path: Path) -> Iterator[Example]:
    """The examples of a file that can be audited.

    Raises:
        InputError: there are none, or a row has neither positives nor negatives, as rows of other files have.
    """
    number = 0
    for number, found in enumerate(read_examples(path), start=1):
        if not found.positives and not found.negatives:
            raise InputError(
                f"{path}: example {number} ({brief(found.query)}) has neither positives nor negatives, expected what "
                "`embed-plus mine` wrote"
            )
        yield found
    if not number:
        raise InputError(f"{path} holds no examples, expected what `embed-plus mine` wrote")


def read_judgements(qrels: Path, queries: Path) -> list[Label]:
    """Judgements by the text of their query.

    Raises:
        InputError: a file cannot be read, or has not the columns.
    """
    try:
        texts = {query.id: query.text for query in read_queries(queries)}
        return [
            Label(texts[query], passage, float(grade), "judged")
            for query, grades in read_qrels(qrels).items()
            if query in texts
            for passage, grade in grades.items()
        ]
    except InputError as error:
        raise InputError(f"{qrels} and {queries} are no judgements with their queries: {error}") from error


def _show(report: Audit) -> None:
    say(f"{report.examples} examples, {report.negatives} negatives, {report.distinct_negatives} distinct ones")
    say(f"{report.without_negatives} examples lost all their negatives")
    for finding in report.false_negatives:
        say(finding.sentence)
    if not report.false_negatives:
        say("nobody said which negatives are answers: give --qrels, --judge or --sheet")
    for rule, removed in report.removed.items():
        say(f"  {rule:<20}{removed:>9}  {report.removed_share[rule]:6.1%} of the candidates")
