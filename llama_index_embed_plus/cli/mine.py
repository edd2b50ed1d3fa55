"""`embed-plus mine` and `embed-plus audit`: a log and its collection -> training examples, and how good they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, resumable, say
from llama_index_embed_plus.cli.log import open_log
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    Location,
    Model,
    Overwrite,
    check_outputs,
    opened,
)
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries
from qdrant_tools.debias import (
    aggregate,
    click_over_no_click_next,
    click_over_skip_above,
    clicked_as_positive,
    fit_click_model,
    inverse_propensity,
    last_click_over_skip_above,
    long_dwell_as_positive,
    rated,
)
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.files import listed, write_text
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.mining.calibration import calibrate
from qdrant_tools.mining.false_negatives import Audit, audit, write_sheet
from qdrant_tools.mining.file import mine_to_jsonl, read_examples, read_stats
from qdrant_tools.mining.miner import positives_by_query
from qdrant_tools.mining.rules import Judge, MiningSettings
from qdrant_tools.records import Label

app = typer.Typer()

Rule = Annotated[
    Literal["click", "skip-above", "last-click", "next", "dwell", "rated", "propensity"],
    typer.Option(help="How feedback becomes labels; see docs/mining.md."),
]
JudgeModel = Annotated[str | None, typer.Option("--judge", help="A cross-encoder (folder or name) that has a say.")]
Threshold = Annotated[float, typer.Option(help="The judge's score from which on a passage is an answer.")]


@app.command("mine")
def mine_command(
    collection: Annotated[str, typer.Argument(help="The collection or alias that negatives are taken from.")],
    log: Annotated[Path, typer.Argument(help="The retrieval log of searches in it.")],
    out: Annotated[Path, typer.Argument(help="The .jsonl file of examples to write, or to go on with.")],
    rule: Rule = "click",
    top: Annotated[
        float | None, typer.Option(help="Of --rule rated: the highest grade of the ratings; 1 if not given.")
    ] = None,
    relevant_from: Annotated[
        float | None,
        typer.Option(help="Of --rule rated: the lowest grade of a relevant passage; any above 0 if not given."),
    ] = None,
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
        list[str] | None,
        typer.Option(
            help="Metadata field that names a passage's document: its other passages are left out. Several are the way "
            "to a field inside others."
        ),
    ] = None,
    pick: Annotated[
        bool, typer.Option("--calibrate/--no-calibrate", help="Pick that share, or a margin, from the labels.")
    ] = False,
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
    if promote and judge is None:
        raise UsageError("--promote is about what a judge finds: give --judge too")
    if rule != "rated" and (top, relevant_from) != (None, None):
        raise UsageError(f"--top and --relevant-from are about ratings, and --rule {rule} looks at none")
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
        document_key=tuple(document_key) if document_key else None,
        sampling=sampling,
        seed=seed,
    )
    reporter = ConsoleReporter()
    with opened(collection, location, model, backend) as (docs, encoder):
        # a search may be logged under the alias or under the collection it named
        chosen = partial(rated, top=1.0 if top is None else top, relevant_from=relevant_from)
        labels = labels_of(log, (collection, docs.name), rule, chosen if rule == "rated" else _RULES[rule])
        if pick:
            with reporter.step("calibrate", None) as advance:
                calibration = calibrate(docs, labels, encoder, settings=settings, progress=advance)
            settings = calibration.settings
            limit = f"max_share {settings.max_share}" if settings.margin is None else f"margin {settings.margin}"
            say(f"calibrated ({calibration.method}, {calibration.queries} queries): {limit}")
        with (
            resumable(f"run the same command again to go on with {out}"),
            reporter.step(f"mine {collection}", len(positives_by_query(labels))) as advance,
        ):
            report = mine_to_jsonl(
                docs,
                labels,
                encoder,
                path=out,
                settings=settings,
                judge=_cross_encoder(judge, threshold, promote=promote),
                progress=advance,
            )
    counts = report.stats.counts
    say(
        f"wrote {out}: {counts['examples']} examples with {counts['negatives']} negatives from {report.queries} queries"
    )
    for name, count in report.stats.discarded().items():
        say(f"  {name:<20}{count:>9}")
    for line in report.notes:
        say(line)


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
    page: Annotated[bool, typer.Option(help="Draw the page; needs the extra 'plot'.")] = True,
    overwrite: Overwrite = False,
) -> None:
    """Say how many negatives are probably answers. Writes EXAMPLES.audit.json and EXAMPLES.audit.png."""
    if (qrels is None) != (queries is None):
        raise UsageError("--qrels and --queries go together: examples know the texts of queries, qrels their ids")
    if not examples.is_file():
        raise InputError(f"{examples} is not a file: expected the examples that `mine` wrote")
    figures, picture = examples.with_suffix(".audit.json"), examples.with_suffix(".audit.png")
    read = [examples, qrels, queries, sheet]
    check_outputs(figures, new_sheet, picture if page else None, overwrite=overwrite, inputs=read)
    judgements = None if qrels is None or queries is None else read_judgements(qrels, queries)
    stats = read_stats(examples)
    with ConsoleReporter().step(f"audit {examples}", None):
        report = audit(
            read_examples(examples),
            judgements=judgements,
            judge=_cross_encoder(judge, threshold),
            sheet=sheet,
            stats=stats,
        )
    _show(report)
    # before the page, which needs an extra: without it the figures are kept all the same
    written = [figures]
    write_text(figures, json.dumps(report.as_row(), indent=2), overwrite=overwrite)
    if new_sheet is not None:
        write_sheet(read_examples(examples), new_sheet, overwrite=overwrite)  # read again: examples are streamed
        written.append(new_sheet)
    if page:
        from llama_index_embed_plus.evaluate.plots.pages import audit_page
        from llama_index_embed_plus.evaluate.plots.style import finish

        finish(audit_page(None, report, title=examples.name), picture, overwrite=overwrite)
        written.append(picture)
    say(f"wrote {', '.join(map(str, written))}")


def _propensity(searches: Iterable[LoggedSearch]) -> list[Label]:
    listed = list(searches)  # gone through twice
    return inverse_propensity(listed, fit_click_model(listed))


_RULES: Mapping[str, Callable[[Iterable[LoggedSearch]], list[Label]]] = {
    "click": clicked_as_positive,
    "skip-above": click_over_skip_above,
    "last-click": last_click_over_skip_above,
    "next": click_over_no_click_next,
    "dwell": long_dwell_as_positive,
    "propensity": _propensity,
}


def labels_of(
    log: Path, collections: tuple[str, ...], rule: str, make: Callable[[Iterable[LoggedSearch]], list[Label]]
) -> list[Label]:
    """The labels that a rule, whose function is `make`, makes of the searches in one collection.

    The collection may be known by several names. Searches that name no collection, as in logs of other systems, count
    too.

    Raises:
        UsageError: the log has no such search, or the rule finds no positive.
    """
    names = {*collections, ""}
    with open_log(log) as retrievals:
        if all(next(retrievals.searches(collection=name), None) is None for name in names):
            logged = retrievals.stats(top=0).collections
            raise UsageError(f"{log} has no searches in {collections[0]!r}, but in {listed(logged) or 'none at all'}")
        labels = aggregate(make(search for search in retrievals.searches() if search.collection in names))
    if not any(label.weight > 0 for label in labels):
        raise UsageError(f"the rule {rule!r} finds no positive in {log}: it has not the feedback that the rule needs")
    return labels


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
        share = f"{finding.rate:.1%}, 95 % interval {finding.low:.1%} to {finding.high:.1%}"
        say(f"{finding.relevant} of {finding.looked_at} negatives are answers by {finding.source} ({share})")
    if not report.false_negatives:
        say("nobody said which negatives are answers: give --qrels, --judge or --sheet")
    for rule, removed in report.removed.items():
        say(f"  {rule:<20}{removed:>9}  {report.removed_share[rule]:6.1%} of the candidates")


def _cross_encoder(judge: str | None, threshold: float, *, promote: bool = False) -> Judge | None:
    if judge is None:
        return None
    # loads sentence-transformers, which only a judge needs
    from llama_index_embed_plus.encoders.cross_encoder import cross_encoder_judge

    return cross_encoder_judge(judge, threshold=threshold, promote=promote)
