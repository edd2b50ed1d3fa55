"""`embed-plus log audit`, `unanswered` and `taught`, and the options of `mine --rule answers`.

Guarantees: nothing is called measured that nobody judged. Does not know: the rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, note, print_json, say, shortened
from llama_index_embed_plus.cli.logs.audit import read_judgements
from llama_index_embed_plus.cli.logs.judge import JudgeModel, Threshold, cross_encoder
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Location,
    Model,
    Overwrite,
    check_outputs,
    command_of,
    managed,
    opened_with,
)
from llama_index_embed_plus.encoders.open import open_encoder
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import texts_of
from qdrant_tools.debias.answer_labels import AnswerCounts, labels_from_answers
from qdrant_tools.debias.answer_rules import RULES, AnswerSettings, votes_from_answers
from qdrant_tools.debias.rule_audit import LEAST, RuleAudit, audit_rules, read_weights, write_rule_sheet
from qdrant_tools.debias.support import NGRAMS, Support, encoder_support
from qdrant_tools.debias.teachers import lists_of_rerankers
from qdrant_tools.debias.unanswered import queries_without_answer
from qdrant_tools.errors import UsageError
from qdrant_tools.files.written import write_rows, write_text
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.mining.rules import Judge
from qdrant_tools.records import Encoder, Label

Log = Annotated[Path, typer.Argument(metavar="LOG", help="The log file.")]
InCollection = Annotated[str, typer.Option("--collection", help="The collection whose passages were shown.")]
SupportBy = Annotated[
    Literal["words", "encoder", "judge"],
    typer.Option(
        help="How it is checked that a passage supports an answer: by words and pairs of words, by the similarity of "
        "the collection's encoder, or by the cross-encoder of --judge."
    ),
]
SupportFrom = Annotated[
    float | None,
    typer.Option(help="From this score of the check on, a passage supports an answer; that of the check if not given."),
]
AnswerRules = Annotated[
    list[str] | None,
    typer.Option("--answer-rule", help=f"A rule for answers; may be repeated. All of {', '.join(RULES)} but the last."),
]
Ambiguous = Annotated[bool, typer.Option("--ambiguous", help="Also take answers that were made of several searches.")]

WIDTH = 100
"""Characters of a query that are printed."""


def support_by(kind: str, least: float | None, encoder: Encoder | None, judge: Judge | None) -> Support:
    """The check of support that the options name.

    Raises:
        UsageError: it needs a model that was not given.
    """
    if kind == "judge":
        if judge is None:
            raise UsageError("--support judge asks a cross-encoder: name it with --judge")
        score = judge.score

        def judged(answer: str, passages: Sequence[str]) -> Sequence[float]:
            return score([(answer, passage) for passage in passages])

        return Support(judged, judge.threshold if least is None else least, margin=0.1, name="cross-encoder")
    if kind == "encoder":
        if encoder is None:
            raise UsageError("--support encoder asks the encoder of the collection: name it with --model")
        return encoder_support(encoder) if least is None else encoder_support(encoder, threshold=least)
    return NGRAMS if least is None else Support(NGRAMS.judge, least, NGRAMS.margin, name=NGRAMS.name)


def answer_settings(
    support: Support,
    rules: Sequence[str] | None,
    weights: Path | None,
    *,
    ambiguous: bool,
    top: float | None = None,
    relevant_from: float | None = None,
) -> AnswerSettings:
    """The settings of the rules, as the options say them."""
    measured = {} if weights is None else read_weights(weights)
    return AnswerSettings(
        rules=tuple(rules) if rules else AnswerSettings.rules,
        weights=measured,
        support=support,
        ambiguous=ambiguous,
        top=1.0 if top is None else top,
        relevant_from=relevant_from,
    )


def tell(counts: AnswerCounts, settings: AnswerSettings) -> None:
    """Say on stderr what became of the searches, and which weights are guesses."""
    note(f"{counts.labelled:,} of {counts.searches:,} searches give labels: {_counted(counts.rules) or 'none'}")
    if counts.reasons:
        note(f"the others give none: {_counted(counts.reasons)}")
    guessed = [rule for rule in counts.rules if rule not in settings.weights and rule != "labelled"]
    if guessed:
        note(f"the weights of {', '.join(guessed)} are guesses: `embed-plus log audit` measures them")


def audit_log(
    log: Log,
    collection: InCollection,
    qrels: Annotated[Path | None, typer.Option(help="Judgements, BEIR's TSV; needs --queries.")] = None,
    queries: Annotated[Path | None, typer.Option(help="The texts of their queries: .jsonl rows with _id and text.")] = (
        None
    ),
    new_sheet: Annotated[
        Path | None, typer.Option("--write-sheet", help="Write a sample of each rule's passages as CSV, to fill in.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Such a CSV, filled in.")] = None,
    size: Annotated[int, typer.Option(min=1, help="How many passages of each rule are drawn for a new sheet.")] = 100,
    seed: Annotated[int, typer.Option(help="The seed of what is drawn: the same seed gives the same result.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The .json file of measured weights to write.")] = None,
    rules: AnswerRules = None,
    support: SupportBy = "words",
    support_from: SupportFrom = None,
    judge: JudgeModel = None,
    threshold: Threshold = 0.5,
    ambiguous: Ambiguous = False,
    overwrite: Overwrite = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
) -> None:
    """Say how often each rule for answers is right, by a sheet that a person fills in or by judgements."""
    if (qrels is None) != (queries is None):
        raise UsageError("--qrels and --queries go together: the log knows the texts of queries, qrels their ids")
    if qrels is not None and sheet is not None:
        raise UsageError("--sheet and --qrels both say what is relevant: give one of them")
    check_outputs(out, new_sheet, overwrite=overwrite, inputs=[log, qrels, queries, sheet])
    judgements = None if qrels is None or queries is None else read_judgements(qrels, queries)
    with _opened(collection, location, model if support == "encoder" else None) as (docs, encoder):
        by = support_by(support, support_from, encoder, cross_encoder(judge, threshold))
        settings = answer_settings(by, rules, None, ambiguous=ambiguous)
        with ConsoleReporter().step(f"audit {log}", None), _open(log) as retrievals:
            names = {collection, docs.name, ""}
            searches = (search for search in retrievals.searches() if search.collection in names)
            votes = list(votes_from_answers(searches, texts_of(docs), settings))
        report = audit_rules(votes, judgements=judgements, sheet=sheet)
        if new_sheet is not None:
            rows = write_rule_sheet(votes, texts_of(docs), new_sheet, size=size, seed=seed, overwrite=overwrite)
            say(f"wrote {new_sheet}: {rows} passages to fill in (relevant: 1 or 0)")
    _show_audit(report, settings)
    if out is not None:
        write_text(out, json.dumps(report.as_row(), indent=2), overwrite=overwrite)
        say(f"wrote {out}")
    by_encoder = model if support == "encoder" else None
    if new_sheet is not None:
        filled = ("--collection", collection, "--sheet", new_sheet, "--out", "weights.json")
        next_step(command_of("log audit", log, *filled, location=location, model=by_encoder))
    elif not report.source and report.rules:
        sampled = ("--collection", collection, "--write-sheet", "rules.csv")
        next_step(command_of("log audit", log, *sampled, location=location, model=by_encoder))
    elif out is not None and report.weights:
        measured = ("--rule", "answers", "--weights", out, "--out", "mined.jsonl")
        next_step(command_of("mine", collection, log, *measured, location=location, model=by_encoder))


def unanswered(
    log: Log,
    collection: Annotated[str | None, typer.Option(help="Only searches in this collection.")] = None,
    out: Annotated[Path | None, typer.Option(help="The .jsonl file of queries to write, with id and text.")] = None,
    top: Annotated[int, typer.Option(min=0, help="How many queries are printed, the most frequent first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """List the queries that got no answer: nothing found, a refusal, a thumb down. They are no labels."""
    check_outputs(out, overwrite=overwrite, inputs=[log])
    with _open(log) as retrievals:
        found = queries_without_answer(retrievals.searches(collection=collection))
    if out is not None:
        rows = ({"id": f"unanswered-{number}", "text": one.query} for number, one in enumerate(found))
        write_rows(out, rows, overwrite=overwrite)
    for one in found[:top]:
        if as_json:
            print_json(one.as_row())
        else:
            say(f"{one.times:>7}  {shortened(one.query, WIDTH)}  ({_counted(one.reasons)})")
    if not as_json:
        say(f"{len(found):,} queries without an answer" + ("" if out is None else f", written to {out}"))


def taught(
    log: Log,
    collection: InCollection,
    out: Annotated[Path, typer.Option(help="The .jsonl file of queries, passages and margins to write.")],
    negatives: Annotated[int, typer.Option(min=1, help="The most negatives of a query.")] = 7,
    overwrite: Overwrite = False,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Write what a reranker has said of logged hits as margins, which `train --loss margin_mse` learns."""
    check_outputs(out, overwrite=overwrite, inputs=[log])
    with managed(location) as manager, _open(log) as retrievals:
        docs = manager.open(collection)
        names = {collection, docs.name, ""}
        searches = (search for search in retrievals.searches() if search.collection in names)
        lists = lists_of_rerankers(searches, texts_of(docs), negatives=negatives)
        count = write_rows(out, (one.as_row() for one in lists), overwrite=overwrite)
    if not count:
        raise UsageError(f"{log} has no search in {collection!r} whose hits a reranker has scored")
    say(f"wrote {out}: {count:,} queries with the margins of a reranker")
    next_step(command_of("train", collection, "--examples", out, "--loss", "margin_mse", location=location))


def labels_of_answers(searches: Sequence[LoggedSearch], docs: Collection, settings: AnswerSettings) -> list[Label]:
    """The labels of the rules for answers; what became of the searches is said on stderr."""
    labels, counts = labels_from_answers(searches, texts_of(docs), settings)
    tell(counts, settings)
    return labels


@contextmanager
def _opened(name: str, location: str, model: str | None) -> Iterator[tuple[Collection, Encoder | None]]:
    """A collection, and its encoder if a model is named."""
    with managed(location) as manager:
        yield (manager.open(name), None) if model is None else opened_with(manager, name, open_encoder(model))


@contextmanager
def _open(log: Path) -> Iterator[RetrievalLog]:
    from llama_index_embed_plus.cli.logs.log import open_log  # the group that these commands belong to

    with open_log(log) as opened:
        yield opened


def _show_audit(report: RuleAudit, settings: AnswerSettings) -> None:
    for found in report.rules:
        guess = f"{found.rule}: {found.pairs:,} passages, weight {settings.weight(found.rule):g}"
        say(found.sentence if report.source else guess)
    if not report.rules:
        say("no rule finds anything in this log: it has no answers with a thumb, citation or grade")
    elif not report.source:
        say("the weights are guesses: nobody said which passages are relevant; give --write-sheet, --sheet or --qrels")
    else:
        few = [found.rule for found in report.rules if found.looked_at < LEAST]
        if few:
            say(f"of {', '.join(few)} fewer than {LEAST} were looked at: the weight stays a guess")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
