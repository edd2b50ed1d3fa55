"""`embed-plus mine` and `embed-plus audit`: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from llama_index_embed_plus.cli.options import DEFAULT_LOCATION, DEFAULT_MODEL, Backend, Location, Model
from llama_index_embed_plus.errors import UsageError

app = typer.Typer()

Rule = Annotated[
    Literal["click", "skip-above", "last-click", "next", "dwell", "rated", "propensity"],
    typer.Option(help="How feedback becomes labels; see docs/mining.md."),
]
JudgeModel = Annotated[str | None, typer.Option("--judge", help="A cross-encoder (folder or name) that has a say.")]
Threshold = Annotated[float, typer.Option(help="The judge's score from which on a passage is an answer.")]


@app.command()
def mine(
    collection: Annotated[str, typer.Argument(help="The collection or alias that negatives are taken from.")],
    log: Annotated[Path, typer.Argument(help="The retrieval log of searches in it.")],
    out: Annotated[Path, typer.Argument(help="The .jsonl file of examples to write, or to go on with.")],
    rule: Rule = "click",
    negatives: Annotated[int, typer.Option(help="Per example, at most.")] = 4,
    depth: Annotated[int, typer.Option(help="Candidates looked at per query.")] = 50,
    skip: Annotated[int, typer.Option(help="Candidates passed over at the top of the ranking.")] = 0,
    minimum: Annotated[int, typer.Option(help="Leave out examples with fewer negatives.")] = 0,
    max_share: Annotated[float, typer.Option(help="Share of the positive's score that a negative may reach.")] = 0.95,
    margin: Annotated[
        float | None, typer.Option(help="How far below the positive's score a negative must stay, besides.")
    ] = None,
    several: Annotated[
        Literal["min", "mean", "each"], typer.Option(help="Which of several positives these two rules look at.")
    ] = "min",
    duplicate_similarity: Annotated[
        float, typer.Option(help="Similarity to a positive from which on a candidate is its copy.")
    ] = 0.95,
    document_key: Annotated[
        str | None,
        typer.Option(help="Metadata field that names a passage's document: its other passages are left out."),
    ] = None,
    calibrate: Annotated[bool, typer.Option(help="Pick that share, or a margin, from the labels.")] = False,
    source: Annotated[Literal["dense", "lexical", "both"], typer.Option(help="Nearest vectors, BM25, or both.")] = (
        "dense"
    ),
    sampling: Annotated[Literal["top", "random", "softmax"], typer.Option(help="How negatives are drawn.")] = "top",
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    judge: JudgeModel = None,
    threshold: Threshold = 0.5,
    promote: Annotated[bool, typer.Option(help="Make positives of what the judge finds, instead of dropping it.")] = (
        False
    ),
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Make training examples with hard negatives of a log and the collection that it searched. Can be interrupted."""
    from llama_index_embed_plus.cli.commands import Where
    from llama_index_embed_plus.cli.mine_commands import Plan, mine_log
    from qdrant_tools.mine import MiningSettings

    if promote and judge is None:
        raise UsageError("--promote is about what a judge finds: give --judge too")
    settings = MiningSettings(
        negatives=negatives,
        minimum=minimum,
        source=source,
        depth=depth,
        skip=skip,
        max_share=max_share,
        margin=margin,
        several=several,
        duplicate_similarity=duplicate_similarity,
        document_key=document_key,
        sampling=sampling,
        seed=seed,
    )
    plan = Plan(rule, settings, calibrate, None if judge is None else (judge, threshold, promote))
    mine_log(collection, log, out, plan, Where(location, model, backend))


@app.command()
def audit(
    examples: Annotated[Path, typer.Argument(help="The .jsonl file that `mine` wrote.")],
    qrels: Annotated[Path | None, typer.Option(help="Judgements, BEIR's TSV; needs --queries.")] = None,
    queries: Annotated[Path | None, typer.Option(help="The texts of their queries: .jsonl rows with _id and text.")] = (
        None
    ),
    judge: JudgeModel = None,
    threshold: Threshold = 0.5,
    write_sheet: Annotated[Path | None, typer.Option(help="Write a sample of negatives as CSV, to fill in.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Such a CSV, filled in.")] = None,
    page: Annotated[bool, typer.Option(help="Draw the page; needs the extra 'plot'.")] = True,
) -> None:
    """Say how many negatives are probably answers. Writes EXAMPLES.audit.json and EXAMPLES.audit.png."""
    from llama_index_embed_plus.cli.mine_commands import Sources, audit_examples

    judged = None if judge is None else (judge, threshold, False)
    audit_examples(examples, Sources(qrels, queries, judged, sheet), write_to=write_sheet, page=page)
