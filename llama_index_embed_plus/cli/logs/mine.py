"""`embed-plus mine`: a log and its collection -> labels -> training examples with hard negatives.

Does not know: how negatives are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, note, resumable, say
from llama_index_embed_plus.cli.logs.answers import (
    Ambiguous,
    AnswerRules,
    SupportBy,
    SupportFrom,
    answer_settings,
    labels_of_answers,
    support_by,
)
from llama_index_embed_plus.cli.logs.judge import JudgeModel, Threshold, cross_encoder
from llama_index_embed_plus.cli.logs.log import open_log
from llama_index_embed_plus.cli.logs.mine_options import (
    Calibrate,
    Depth,
    DocumentKey,
    DuplicateSimilarity,
    Examples,
    LogFile,
    Margin,
    MaxShare,
    Mined,
    Minimum,
    Negatives,
    PromoteFound,
    RelevantFrom,
    Rule,
    Sampling,
    Seed,
    Several,
    Skip,
    Source,
    Top,
    Weights,
)
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    Location,
    Model,
    command_of,
    opened,
)
from qdrant_tools.collections.collection import Collection
from qdrant_tools.debias.click_rules import (
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
from qdrant_tools.errors import UsageError, listed
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.mining.calibration import calibrate
from qdrant_tools.mining.file import MiningReport, mine_to_jsonl
from qdrant_tools.mining.looks import fit_looks, with_debiased
from qdrant_tools.mining.miner import positives_by_query
from qdrant_tools.mining.rules import MiningSettings
from qdrant_tools.records import Encoder, Label

app = typer.Typer()

MakeLabels = Callable[[Sequence[LoggedSearch]], list[Label]]


@app.command("mine")
def mine_command(
    collection: Mined,
    log: LogFile,
    out: Examples,
    rule: Rule = "click",
    top: Top = None,
    relevant_from: RelevantFrom = None,
    answer_rules: AnswerRules = None,
    weights: Weights = None,
    support: SupportBy = "words",
    support_from: SupportFrom = None,
    ambiguous: Ambiguous = False,
    negatives: Negatives = 4,
    depth: Depth = 200,
    skip: Skip = 0,
    minimum: Minimum = 0,
    max_share: MaxShare = 0.95,
    margin: Margin = None,
    several: Several = "min",
    duplicate_similarity: DuplicateSimilarity = 0.95,
    document_key: DocumentKey = None,
    pick: Calibrate = False,
    source: Source = "dense",
    sampling: Sampling = "random",
    seed: Seed = 0,
    judge: JudgeModel = None,
    threshold: Threshold = 0.5,
    promote: PromoteFound = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Make training examples with hard negatives of a log and the collection that it searched. Can be interrupted."""
    if promote and judge is None:
        raise UsageError("--promote is about what a judge finds: give --judge too")
    if rule != "answers" and (answer_rules or weights or ambiguous or support != "words" or support_from is not None):
        raise UsageError(
            "--answer-rule, --weights, --support, --support-from and --ambiguous are about answers: give --rule answers"
        )
    make = None if rule == "answers" else _made_by(rule, top, relevant_from)
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
    steps = ConsoleReporter()
    with opened(collection, location, model, backend) as (docs, encoder):
        # a search may be logged under the alias or under the collection it named
        judging = cross_encoder(judge, threshold, promote=promote)
        if make is None:
            by = support_by(support, support_from, encoder, judging)
            answers = answer_settings(
                by, answer_rules, weights, ambiguous=ambiguous, top=top, relevant_from=relevant_from
            )
            make = partial(labels_of_answers, docs=docs, settings=answers)
        labels = labels_of(log, (collection, docs.name), rule, make)
        if pick:
            settings = _calibrated(docs, labels, encoder, settings, steps)
        with (
            resumable(f"run the same command again to go on with {out}"),
            steps.step(f"mine {collection}", len(positives_by_query(labels)), "queries") as advance,
        ):
            report = mine_to_jsonl(docs, labels, encoder, path=out, settings=settings, judge=judging, progress=advance)
    _tell(out, report)
    held_out = ("--examples", out, "--heldout-share", 0.2, "--out", "adapted")
    next_step(command_of("train", collection, *held_out, location=location, model=model))


def _calibrated(
    docs: Collection, labels: Sequence[Label], encoder: Encoder, settings: MiningSettings, steps: ConsoleReporter
) -> MiningSettings:
    with steps.step("calibrate", None) as advance:
        found = calibrate(docs, labels, encoder, settings=settings, progress=advance)
    chosen = found.settings
    limit = f"max_share {chosen.max_share}" if chosen.margin is None else f"margin {chosen.margin}"
    if found.chosen is not None:
        limit += (
            f", depth {chosen.depth}, sampling {chosen.sampling}: {found.chosen.negatives:.1f} of {chosen.negatives} "
            f"negatives drawn, {found.chosen.false_negatives:.1%} of them hidden answers"
        )
    say(f"calibrated ({found.method}, {found.queries} queries): {limit}")
    if not found.reaches:
        note("no share spares the answers and leaves half of the negatives: a --judge may tell them apart")
    return chosen


def _tell(out: Path, report: MiningReport) -> None:
    counts = report.stats.counts
    say(
        f"wrote {out}: {counts['examples']} examples with {counts['negatives']} negatives from {report.queries} queries"
    )
    if counts["with_negatives"]:
        say(
            f"  {counts['candidates'] / counts['queries']:.0f} candidates per query; the last negative of an example "
            f"stands at rank {counts['deepest_ranks'] / counts['with_negatives']:.0f} in the mean"
        )
    for name, count in report.stats.discarded().items():
        say(f"  {name:<20}{count:>9}")
    for line in report.notes:
        say(line)


def _propensity(searches: Iterable[LoggedSearch]) -> list[Label]:
    listed = list(searches)  # gone through twice
    return inverse_propensity(listed, fit_click_model(listed))


_RULES: Mapping[str, MakeLabels] = {
    "click": clicked_as_positive,
    "skip-above": click_over_skip_above,
    "last-click": last_click_over_skip_above,
    "next": click_over_no_click_next,
    "dwell": long_dwell_as_positive,
    "propensity": _propensity,
}


def _made_by(rule: str, top: float | None, relevant_from: float | None) -> MakeLabels:
    """The function of a rule.

    Raises:
        UsageError: the options say something about ratings, and this rule looks at none.
    """
    if rule == "rated":
        return partial(rated, top=1.0 if top is None else top, relevant_from=relevant_from)
    if (top, relevant_from) != (None, None):
        raise UsageError(f"--top and --relevant-from are about ratings, and --rule {rule} looks at none")
    return _RULES[rule]


def labels_of(log: Path, collections: tuple[str, ...], rule: str, make: MakeLabels) -> list[Label]:
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
        searches = [search for search in retrievals.searches() if search.collection in names]
        labels = aggregate(make(searches))
        looks = None if rule in ("rated", "answers") else fit_looks(searches)
        if looks is not None:
            labels = with_debiased(labels, searches, looks)
            note(
                f"clicks are held out with how likely their rank is looked at, by {looks.clicks} clicks on passages "
                f"that changed places: {', '.join(f'{look:.2f}' for look in looks.likely)}"
            )
    if not any(label.weight > 0 for label in labels):
        raise UsageError(f"the rule {rule!r} finds no positive in {log}: it has not the feedback that the rule needs")
    return labels
