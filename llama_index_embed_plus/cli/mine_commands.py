"""The bodies of `embed-plus mine` and `embed-plus audit`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import typer

from llama_index_embed_plus.cli.commands import Where
from llama_index_embed_plus.cli.console import ConsoleReporter, err, say
from llama_index_embed_plus.cli.log_commands import open_log
from llama_index_embed_plus.encoders import open_encoder
from llama_index_embed_plus.errors import InputError, UsageError
from qdrant_tools.collection import CollectionManager
from qdrant_tools.connect import connect
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
from qdrant_tools.log import LoggedSearch
from qdrant_tools.mine import Judge, MiningSettings, positives_by_query
from qdrant_tools.mine.audit import Audit, audit, write_sheet
from qdrant_tools.mine.calibrate import calibrate
from qdrant_tools.mine.file import mine_to_jsonl, read_examples, read_tally
from qdrant_tools.records import Label

JudgeModel = tuple[str, float, bool]
"""Folder or name of a cross-encoder, its threshold, and whether what it finds becomes a positive."""


def _propensity(searches: Iterable[LoggedSearch]) -> list[Label]:
    seen = list(searches)
    return inverse_propensity(seen, fit_click_model(seen))


RULES: Mapping[str, Callable[[Iterable[LoggedSearch]], list[Label]]] = {
    "click": clicked_as_positive,
    "skip-above": click_over_skip_above,
    "last-click": last_click_over_skip_above,
    "next": click_over_no_click_next,
    "dwell": long_dwell_as_positive,
    "rated": rated,
    "propensity": _propensity,
}


@dataclass(frozen=True)
class Plan:
    """How labels are made of the log, and negatives of the collection."""

    rule: str
    settings: MiningSettings
    calibrate: bool = False
    judge: JudgeModel | None = None


def mine_log(collection: str, log: Path, target: Path, plan: Plan, where: Where) -> None:
    """Mine into a file and print the account. The same command goes on with an interrupted file."""
    with closing(connect(where.location, create=False)) as client:
        encoder = open_encoder(where.model, backend=where.backend)
        source = CollectionManager(client).open(collection, encoder)
        labels = labels_of(log, (collection, source.name), plan.rule)
        reporter = ConsoleReporter()
        settings = plan.settings
        if plan.calibrate:
            with reporter.step("calibrate", None) as advance:
                found = calibrate(source, labels, encoder, settings=settings, progress=advance)
            settings = found.settings
            limit = f"max_share {settings.max_share}" if settings.margin is None else f"margin {settings.margin}"
            say(f"calibrated ({found.method}, {found.queries} queries): {limit}")
        try:
            with reporter.step(f"mine {collection}", len(positives_by_query(labels))) as advance:
                report = mine_to_jsonl(
                    source, labels, encoder, path=target, settings=settings, judge=_opened(plan.judge), progress=advance
                )
        except KeyboardInterrupt:
            err.print(f"interrupted: run the same command again to go on with {target}", markup=False, soft_wrap=True)
            raise typer.Exit(130) from None
    counts = report.tally.counts
    made = f"{counts['examples']} examples with {counts['negatives']} negatives from {report.queries} queries"
    say(f"wrote {target}: {made}")
    for name, count in report.tally.discarded().items():
        say(f"  {name:<20}{count:>9}")


def labels_of(log: Path, collections: tuple[str, ...], rule: str) -> list[Label]:
    """The labels that a rule makes of the searches in one collection, which may be known by several names.

    Searches that name no collection, as in logs of other systems, count too.

    Raises:
        UsageError: the log has no such search, or the rule finds no positive.
    """
    with open_log(log) as opened:
        known = opened.stats(top=0).collections
        if not {*collections, ""} & known.keys():
            raise UsageError(f"{log} has no searches in {collections[0]!r}, but in {', '.join(known) or 'none at all'}")
        wanted = {*collections, ""}
        labels = aggregate(RULES[rule](search for search in opened.searches() if search.collection in wanted))
    if not any(label.weight > 0 for label in labels):
        raise UsageError(f"the rule {rule!r} finds no positive in {log}: it has not the feedback that the rule needs")
    return labels


@dataclass(frozen=True)
class Sources:
    """Who may say that a negative is an answer."""

    qrels: Path | None = None
    queries: Path | None = None
    judge: JudgeModel | None = None
    sheet: Path | None = None


def audit_examples(examples: Path, sources: Sources, *, write_to: Path | None, page: bool) -> None:
    """Audit, print, and write the findings beside the examples as JSON and as a page."""
    if (sources.qrels is None) != (sources.queries is None):
        raise UsageError("--qrels and --queries go together: examples know the texts of queries, qrels their ids")
    judgements = None
    if sources.qrels is not None and sources.queries is not None:
        judgements = read_judgements(sources.qrels, sources.queries)
    tally = read_tally(examples)
    with ConsoleReporter().step(f"audit {examples}", None):
        found = audit(
            read_examples(examples),
            judgements=judgements,
            judge=_opened(sources.judge),
            sheet=sources.sheet,
            tally=tally,
        )
    _show(found)
    report = examples.with_suffix(".audit.json")
    report.write_text(json.dumps(found.as_row(), indent=2), encoding="utf-8")
    written = [report]
    if write_to is not None:
        write_sheet(read_examples(examples), write_to)
        written.append(write_to)
    if page:
        from llama_index_embed_plus.evaluate.plots import audit_page

        written.append(examples.with_suffix(".audit.png"))
        audit_page(written[-1], found, title=examples.name)
    say(f"wrote {', '.join(map(str, written))}")


def read_judgements(qrels: Path, queries: Path) -> list[Label]:
    """Judgements by the text of their query.

    Raises:
        InputError: a file cannot be read, or has not the columns.
    """
    try:
        with queries.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
        texts = {row["_id"]: row["text"] for row in rows}
        with qrels.open(encoding="utf-8", newline="") as file:
            judged = list(csv.DictReader(file, delimiter="\t"))
        return [
            Label(texts[row["query-id"]], row["corpus-id"], float(row["score"]), "judged")
            for row in judged
            if row["query-id"] in texts
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{qrels} and {queries} are no judgements with their queries: {error!r}") from error


def _show(found: Audit) -> None:
    say(f"{found.examples} examples, {found.negatives} negatives, {found.distinct_negatives} distinct ones")
    say(f"{found.without_negatives} examples lost all their negatives")
    for finding in found.false_negatives:
        share = f"{finding.rate:.1%}, 95 % interval {finding.low:.1%} to {finding.high:.1%}"
        say(f"{finding.relevant} of {finding.looked_at} negatives are answers by {finding.source} ({share})")
    if not found.false_negatives:
        say("nobody said which negatives are answers: give --qrels, --judge or --sheet")
    for rule, removed in found.removed.items():
        say(f"  {rule:<20}{removed:>9}  {found.removed_share[rule]:6.1%} of the candidates")


def _opened(judge: JudgeModel | None) -> Judge | None:
    if judge is None:
        return None
    from llama_index_embed_plus.train.judge import cross_encoder_judge

    model, threshold, promote = judge
    return cross_encoder_judge(model, threshold=threshold, promote=promote)
