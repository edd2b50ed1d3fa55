"""A collection and the log of its searches -> an adapter that was trained on what users said, and its proof.

The log is parted by sessions, users and time. Labels are made of either part by itself, negatives are mined and an
adapter is fitted on the earlier one, and the later one decides, unless judged queries are given. Whatever knows a query
that decides is left out of the training and counted.

Labels of a log are about what was shown, and so cannot see a passage that is only found now: a gain on them is a proof,
and a missing gain is none of the opposite. Where they prove nothing, passages of all questions of the later part are
drawn for a person to judge, of those too that nobody said anything about.

Guarantees: the same log, settings and folder go on where an interrupted call stopped, nothing stands twice, and a
verdict that a person's judgements gave stays; where there is too little to learn from or to decide by, the report says
how much is missing, and nothing is promotable. Does not know: where the log comes from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import LeakError, TrainingError
from llama_index_embed_plus.evaluate.retrieval.held_out import trained_on
from llama_index_embed_plus.training.data.records import TrainingData
from llama_index_embed_plus.training.data.splits import without_leaked_queries
from llama_index_embed_plus.training.improvement.evidence import Learnt, learn
from llama_index_embed_plus.training.improvement.folder import ImproveFolder, key_of
from llama_index_embed_plus.training.improvement.held_out import Apart, by_time, held_out_of, questions_of
from llama_index_embed_plus.training.improvement.report import GIVEN, JUDGED, LATER, NONE, ImproveReport
from llama_index_embed_plus.training.improvement.settings import ImproveSettings
from llama_index_embed_plus.training.improvement.ways import ways_on
from llama_index_embed_plus.training.proof.model_card import record_proof
from llama_index_embed_plus.training.proof.proof import prove
from llama_index_embed_plus.training.proof.report import TrainReport, read_report
from llama_index_embed_plus.training.proof.sheet import checked_sheet, draw_sheet, is_sheet, read_sheet, write_sheet
from llama_index_embed_plus.training.run import train
from qdrant_tools.collections.collection import Collection
from qdrant_tools.debias.answer_rules import RULES
from qdrant_tools.errors import UsageError, listed
from qdrant_tools.files.written import write_text
from qdrant_tools.log.records import LoggedSearch
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.mining.file import MiningReport, mine_to_jsonl, read_examples
from qdrant_tools.mining.miner import positives_by_query
from qdrant_tools.records import SAMPLE, HeldOut, Label, Progress
from qdrant_tools.same import query_key
from qdrant_tools.search.adapters import without_adapter


class Steps(Protocol):
    """Shows what is going on: `with steps.step(name, total) as progress: ... progress(1)`."""

    def step(self, name: str, total: int | None) -> AbstractContextManager[Progress]: ...


class _Silent:
    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[Progress]:
        yield lambda done: None


def improve(
    collection: Collection,
    log: RetrievalLog,
    out: str | Path,
    *,
    base: str | Path,
    settings: ImproveSettings | None = None,
    held_out: HeldOut | None = None,
    sheet: str | Path | None = None,
    names: Sequence[str] = (),
    steps: Steps | None = None,
) -> ImproveReport:
    """Learn from a log, and write an adapter of `base`, its report and its proof into the folder `out`.

    collection: its passages were found, opened with the encoder that filled it. names: others under which its searches
        are logged, as aliases; searches that name no collection count too.
    base: the model that filled it, a name or a folder.
    held_out: judged queries that decide instead of the last sessions of the log.
    sheet: what an earlier call drew, filled in by a person: it decides about the model that this call made. Nothing is
        trained then.

    Raises:
        UsageError: `out` holds something else, or the log has no searches in the collection; the sheet is about another
            model than the one that follows from this log and these settings.
        InputError: the sheet is not there, or too few of its rows are judged.
    """
    settings = settings or ImproveSettings()
    if sheet is not None and held_out is not None:
        raise UsageError("a sheet decides by itself: give either held-out queries or a sheet")
    drawn = None if sheet is None else checked_sheet(Path(sheet))
    run = _Run(collection, ImproveFolder(Path(out)), base, settings, steps or _Silent(), drawn)
    run.folder.begin()
    searches = searches_of(log, (collection.name, *names))
    run.folder.without_report()
    with run.steps.step("make labels", None):
        apart, learnt, decide = _labels(searches, collection, settings, held_out)
    report = _counted(searches, apart, learnt, decide, held_out, settings)
    if learnt.queries < settings.least_queries:
        report = _without_model(run, report, learnt, apart)
    else:
        report = replace(report, **_of_mining(_mined(run, learnt.labels)))
        report = _trained(run, report, decide)
    if report.trained is not None:
        report = _judged(run, report)
        report = replace(report, sheet="") if report.promotable else _with_sheet(run, report, apart.decide)
    write_text(run.folder.report, json.dumps(report.as_row(), indent=2) + "\n", overwrite=True)
    return report


@dataclass(frozen=True)
class _Run:
    """One call, with its arguments resolved."""

    collection: Collection
    folder: ImproveFolder
    base: str | Path
    settings: ImproveSettings
    steps: Steps
    sheet: Path | None = None

    def refuse_training(self) -> None:
        """Nothing is trained while a sheet decides: it is about the model that lies here.

        Raises:
            UsageError: something else would have to be.
        """
        if self.sheet is not None:
            raise UsageError(
                f"{self.sheet} cannot be about the model of this log and these settings, which is not in "
                f"{self.folder.path}: leave the sheet out to make that, or give what the model there was made of"
            )


def searches_of(log: RetrievalLog, collections: Sequence[str]) -> list[LoggedSearch]:
    """The searches in a collection that can be read, and those that name no collection.

    Raises:
        UsageError: there are none.
    """
    names = {*collections, ""}
    found = [search for search in log.searches() if search.collection in names and not search.redacted]
    if not found:
        logged = log.stats(top=0).collections
        raise UsageError(
            f"the log has no readable searches in {collections[0]!r}, but in {listed(logged) or 'none at all'}"
        )
    return found


def _labels(
    searches: list[LoggedSearch], collection: Collection, settings: ImproveSettings, held_out: HeldOut | None
) -> tuple[Apart, Learnt, HeldOut | None]:
    """The parts, what the earlier one teaches, and what decides."""
    if held_out is not None:
        return Apart(tuple(searches), (), None), learn(searches, collection, settings), held_out
    known = {query_key(label.query) for label in learn(searches, collection, settings).positives}
    apart = by_time(searches, settings.heldout_share, counts=lambda search: query_key(search.query) in known)
    learnt, later = (learn(part, collection, settings) for part in (apart.train, apart.decide))
    return apart, learnt, held_out_of(later.labels)


def _counted(
    searches: Sequence[LoggedSearch],
    apart: Apart,
    learnt: Learnt,
    decide: HeldOut | None,
    given: HeldOut | None,
    settings: ImproveSettings,
) -> ImproveReport:
    answers = {search.answer.id: search.answer for search in searches if search.answer is not None}
    said: Counter[str] = Counter()
    for answer in answers.values():
        for verdict in answer.verdicts:
            thumb = "thumb up" if verdict.value > 0 else "thumb down"
            said[thumb if verdict.kind == "thumb" else f"{verdict.kind} by a {verdict.by}"] += 1
    said.update(event.kind for search in searches for event in search.feedback)
    return ImproveReport(
        searches=len(searches),
        sessions=len({search.session for search in searches if search.session}),
        answers=len(answers),
        said=dict(said.most_common()),
        rules=learnt.rules,
        refused=learnt.refused,
        train_queries=learnt.queries,
        decided_by=GIVEN if given is not None else NONE if decide is None else LATER,
        decide_queries=0 if decide is None else len(decide.measured),
        since=apart.since,
        users=apart.users,
        users_on_both_sides=apart.on_both_sides,
        weights={name: settings.answers.weight(name) if name in RULES else 1.0 for name in learnt.rules},
        measured=tuple(name for name in learnt.rules if name in settings.answers.weights),
    )


def _without_model(run: _Run, report: ImproveReport, learnt: Learnt, apart: Apart) -> ImproveReport:
    """The report of too little to learn from: what is missing, and the ways on."""
    run.refuse_training()
    answers = run.settings.answers
    if not apart.train:
        return replace(report, missing=tuple(_one_session(report)))
    lacking = tuple(_lacking(report, learnt, run.settings))
    return replace(report, missing=lacking, ways=ways_on(report.said, report.refused, answers))


def _lacking(report: ImproveReport, learnt: Learnt, settings: ImproveSettings) -> Iterator[str]:
    """What is missing, and how to get it."""
    least = settings.least_queries
    yield f"{learnt.queries} queries have a label to train on, expected at least {least}"
    if not report.said:
        yield (
            f"nobody said anything of {report.searches} searches and {report.answers} answers: import thumbs, clicks "
            "or labels with them"
        )
    elif learnt.queries:
        share = learnt.queries / report.searches
        thumbs = sum(report.said.get(f"thumb {way}", 0) for way in ("up", "down"))
        rate = f"{thumbs} thumbs on {report.answers} answers" if thumbs else f"{report.searches} searches"
        more = round((least - learnt.queries) / share)
        yield f"at this rate ({rate}) about {more} more searches give as many, or what people say of more of these"
    elif report.said:
        yield "nothing of what was said makes a passage an answer"


def _one_session(report: ImproveReport) -> Iterator[str]:
    yield (
        f"the first of {report.sessions} sessions has most of the labelled queries, and a session is not parted: "
        "nothing is left that could train; let the application name one session per conversation, or give judged "
        "queries that decide"
    )


def _mined(run: _Run, labels: Sequence[Label]) -> MiningReport:
    collection, mining = run.collection, run.settings.mining
    rows = [[label.query, label.passage_id, label.weight, label.evidence] for label in labels]
    key = key_of(rows, collection.name, collection.space, mining.as_row())
    if not run.folder.is_mined(key):
        run.refuse_training()
    path = run.folder.examples_for(key)
    with run.steps.step("mine hard negatives", len(positives_by_query(labels))) as progress:
        encoder = collection.required_encoder()
        return mine_to_jsonl(collection, labels, encoder, path=path, settings=mining, progress=progress)


def _of_mining(mined: MiningReport) -> dict[str, Any]:
    counts = mined.stats.counts
    discarded = dict(mined.stats.discarded())
    return {"examples": counts["examples"], "negatives": counts["negatives"], "discarded": discarded}


def _trained(run: _Run, report: ImproveReport, decide: HeldOut | None) -> ImproveReport:
    """Train and prove, or take what an earlier call has trained; what leaves nothing to train on says so."""
    training, folder = run.settings.training, run.folder
    examples = list(read_examples(folder.examples))
    asked = None if decide is None else [[query.text, dict(decide.qrels.get(query.id, {}))] for query in decide.queries]
    rows = [example.as_row() for example in examples]
    key = key_of(rows, asked, training.as_dict(), str(run.base), run.collection.space)
    trained = read_report(folder.model) if folder.is_trained(key) else None
    if trained is None:
        run.refuse_training()
        total = training.adapter.fits if training.method == "adapter" else None
        try:
            with run.steps.step(f"train {training.method}", total) as progress:
                trained = train(
                    run.base,
                    TrainingData.of(examples),
                    folder.model,
                    training,
                    held_out=decide,
                    collection=run.collection,
                    keep_held_out=True,
                    progress=progress,
                )
        except LeakError as error:
            return replace(report, missing=(str(error),))
        folder.trained(key)
    least, missing = training.proof.min_queries, tuple[str, ...]()
    if decide is None:
        missing = ("no query of the last sessions has a label: nothing could be proved",)
    elif report.decide_queries < least:
        missing = (f"{report.decide_queries} queries decide, expected at least {least}",)
    report = replace(report, trained=trained, missing=missing, sheet=folder.sheet_of(key).name)
    return _decided_by_sheet(report, trained)


def _decided_by_sheet(report: ImproveReport, trained: TrainReport) -> ImproveReport:
    """The report, where a person's judgements decided, in this call or in an earlier one."""
    proof = trained.proof
    if proof is None or proof.evidence != SAMPLE:
        return replace(report, trained=trained)
    return replace(report, trained=trained, missing=(), decided_by=JUDGED, decide_queries=proof.queries)


def _judged(run: _Run, report: ImproveReport) -> ImproveReport:
    """Let a sheet decide, if there is one."""
    if run.sheet is None:
        return report
    after = open_encoder(run.folder.model)
    before = without_adapter(after)
    held_out = read_sheet(run.sheet, before, after)
    with run.steps.step(f"prove by {run.sheet.name}", None):
        docs = run.collection.with_encoder(before)
        proof = prove(before, after, held_out, run.settings.training.proof, collection=docs)
        return _decided_by_sheet(report, record_proof(run.folder.model, proof, held_out=held_out))


def _with_sheet(run: _Run, report: ImproveReport, searches: Sequence[LoggedSearch]) -> ImproveReport:
    """Draw passages for a person to judge, of all questions of the later part that training does not know.

    A sheet that is there stays as it is: somebody may be at work on it.
    """
    path = run.folder.path / report.sheet
    if is_sheet(path):
        return report
    trained, collection = trained_on(run.folder.model), run.collection
    after = open_encoder(run.folder.model)
    before = without_adapter(after)
    if before is after or not searches:
        return replace(report, sheet="")
    asked = questions_of(searches)
    everything = HeldOut(tuple(asked), {query.id: {"?": 1} for query in asked})
    try:
        left, _ = without_leaked_queries(trained, everything, encoder=before, passages=False)
        with run.steps.step("draw passages to judge", None):
            proof = run.settings.training.proof
            sheet = draw_sheet(before, after, left.queries, collection, rows=run.settings.sheet_rows, settings=proof)
            write_sheet(sheet, path, collection, overwrite=True)
    except (LeakError, TrainingError) as error:  # training knows all, or both rank them alike
        return replace(report, sheet="", missing=(*report.missing, str(error)))
    return replace(report, sheet_rows=len(sheet.rows), sheet_questions=len(left.queries))
