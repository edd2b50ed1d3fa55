"""`embed-plus improve`: traces or a log, and what users said -> an adapter that is proved better, or why it is not.

Guarantees: options and files are checked before a model is opened. Does not know: how anything is read, learnt or
proved.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, note, print_json, resumable, say
from llama_index_embed_plus.cli.grouped import with_groups
from llama_index_embed_plus.cli.logs.answers import Ambiguous, AnswerRules, answer_settings, support_by
from llama_index_embed_plus.cli.logs.log import open_log
from llama_index_embed_plus.cli.logs.reading import ReadingOptions
from llama_index_embed_plus.cli.logs.sources import Asked, named_files, source_of
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    Location,
    Model,
    opened,
)
from llama_index_embed_plus.cli.training.options import AsJson, Texts
from llama_index_embed_plus.cli.training.ways import LearntFrom, again, show_ways
from llama_index_embed_plus.evaluate.retrieval.held_out import read_held_out_files
from qdrant_tools.errors import LogError, UsageError
from qdrant_tools.files.written import is_same_file
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.records import HeldOut
from qdrant_tools.traces.said.late import Late

if TYPE_CHECKING:
    from llama_index_embed_plus.training.improvement.folder import ImproveFolder
    from llama_index_embed_plus.training.improvement.report import ImproveReport
    from llama_index_embed_plus.training.improvement.settings import ImproveSettings

app = typer.Typer()


@app.command("improve")
@with_groups
def improve_command(
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="Its passages were found.")],
    out: Annotated[Path, typer.Option(help="The folder for the log, the examples, the model and the report.")],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILES]...", help="Further files, as --traces takes them.")
    ] = None,
    traces: Annotated[
        list[Path] | None,
        typer.Option(help="Spans that a tracing tool exported, or a click log; may be repeated."),
    ] = None,
    annotations: Annotated[
        list[Path] | None, typer.Option(help="What was said of them: annotations, scores, feedback; may be repeated.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="A retrieval log, instead of files.")] = None,
    reading: ReadingOptions = ReadingOptions(),
    answer_rules: AnswerRules = None,
    weights: Annotated[
        Path | None, typer.Option(help="Measured weights of the rules for answers, which `log audit --out` wrote.")
    ] = None,
    support: Annotated[
        Literal["words", "encoder"],
        typer.Option(help="How it is checked that a passage supports an answer: by words, or by the encoder."),
    ] = "words",
    ambiguous: Ambiguous = False,
    queries: Annotated[
        Path | None, typer.Option(help="Judged queries that decide instead of the last sessions; needs --qrels.")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="Their judgements, BEIR's TSV or TREC's qrels.")] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="The CSV that an earlier call drew, filled in: it decides about the model of that call."),
    ] = None,
    heldout_share: Annotated[
        float, typer.Option(help="The share of the labelled queries that decides, from the last sessions.")
    ] = 0.2,
    shared_passages: Annotated[
        bool, typer.Option(help="Let the queries that decide ask for passages that are trained on.")
    ] = False,
    sheet_rows: Annotated[
        int, typer.Option(min=10, help="About how many passages to draw for a person, where the log proves nothing.")
    ] = 200,
    seed: Annotated[int, typer.Option(help="The seed of what is drawn: the same seed gives the same result.")] = 0,
    texts: Texts = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Make a better encoder of traces and of what users said: import, rules, negatives, adapter, proof.

    A thumb on an answer is no label of its passages: rules ask for a second sign. Run it again with more files, or
    after an interruption: nothing stands twice. Exit code 0 whatever the verdict, which is "promotable" in
    improve.json; 1 for an error, 2 for wrong usage.

    \b
    embed-plus improve docs --traces spans.parquet --annotations annotations.csv --thumb user_feedback --out better
    embed-plus improve docs --log log.sqlite --out better
    """
    from llama_index_embed_plus.training.improvement.folder import ImproveFolder
    from llama_index_embed_plus.training.improvement.run import improve

    files = [*(traces or ()), *(more or ()), *(annotations or ())]
    held_out = _held_out(queries, qrels, sheet)
    # before anything is written
    settings = _settings(heldout_share, sheet_rows, seed, shared_passages=shared_passages, texts=texts)
    folder = ImproveFolder(out)
    asked = Asked.of(folder.log, files, reading, collection=collection, location=location)
    source = _log_of(log, folder.log, files)
    if not files and reading != ReadingOptions():
        raise UsageError("options such as --format and --thumb say how files are read, and none is given")
    folder.begin()
    if files:
        folder.without_report()
        _import(asked)
    with (
        opened(collection, location, model, backend) as (docs, encoder),
        open_log(source) as retrievals,
        resumable(f"run the same command again to go on in {out}"),
    ):
        by = support_by(support, None, encoder, None)
        answers = answer_settings(by, answer_rules, weights, ambiguous=ambiguous)
        report = improve(
            docs,
            retrievals,
            out,
            base=model,
            settings=replace(settings, answers=answers),
            held_out=held_out,
            sheet=sheet,
            names=(collection,),
            steps=ConsoleReporter(),
        )
    if as_json:
        print_json(report.as_row())
        return
    _show(report, LearntFrom(source, log is None, reading.match), folder, collection, location)


def _held_out(queries: Path | None, qrels: Path | None, sheet: Path | None) -> HeldOut | None:
    from llama_index_embed_plus.training.proof.sheet import checked_sheet

    if sheet is not None:
        if queries or qrels:
            raise UsageError("--sheet decides by itself: leave out --queries and --qrels")
        checked_sheet(sheet)
    if (queries is None) != (qrels is None):
        raise UsageError("--queries and --qrels go together: the first has the texts, the second the answers")
    return None if queries is None or qrels is None else read_held_out_files(queries, qrels)


def _log_of(log: Path | None, made: Path, files: Sequence[Path]) -> Path:
    """The log that is learnt from: the one that was named, or that of the folder.

    Raises:
        UsageError: nothing to learn from was named, or twice.
        LogError: a file is not there.
    """
    if log is not None and files:
        raise UsageError(
            "--log is learnt from as it is: add the files to it with `log import`, or leave one of them out"
        )
    for path in files:
        if not path.is_file():
            raise LogError(f"cannot read {path}: there is no such file")
        if is_same_file(path, made):
            raise UsageError(f"{path} is to be read and to be written: give it as --log, or another --out")
    if log is None and not files and not made.is_file():
        raise UsageError("nothing says what to learn from: give --traces, with --annotations, or a --log")
    return made if log is None else log


def _settings(
    heldout_share: float, sheet_rows: int, seed: int, *, shared_passages: bool, texts: bool
) -> ImproveSettings:
    from llama_index_embed_plus.training.improvement.settings import ImproveSettings
    from llama_index_embed_plus.training.proof.proof import ProofSettings
    from llama_index_embed_plus.training.settings import AdapterSettings, TrainSettings

    training = TrainSettings(
        method="adapter",
        drop_leaks=True,
        passages_apart=not shared_passages,
        seed=seed,
        adapter=AdapterSettings(seed=seed),
        proof=ProofSettings(texts=texts),
    )
    return ImproveSettings(heldout_share=heldout_share, sheet_rows=sheet_rows, training=training)


def _import(asked: Asked) -> None:
    """Add the searches of the files to the log of the folder; what was understood and left out is said on stderr."""
    named = named_files(asked.files)
    with ExitStack() as stack:
        source = source_of(asked, stack)
        for told in source.told:
            note(told)
        with ConsoleReporter().step(f"import {named}", None), RetrievalLog(asked.log) as log:
            added = log.add(source.searches())
            late = source.add_late(log) if source.add_late is not None else Late()
            total = len(log)
        if not total and (why := source.why_nothing()):
            raise LogError(f"{named} gives no search: {why}")
        note(f"{added.searches} searches added, {total} in all")
        if added.to_known:
            note(f"new of searches that were there: {', '.join(added.to_known)}")
        if late.joined:
            note(f"{late.joined} annotations without their spans here found the searches of an earlier import")
        for told in source.notes():
            note(f"  {told}")


def _show(report: ImproveReport, learnt: LearntFrom, folder: ImproveFolder, collection: str, location: str) -> None:
    from llama_index_embed_plus.cli.training.verdict import show_verdict

    say(f"{report.searches:,} searches, {report.answers:,} answers; said of them: {_counted(report.said) or 'nothing'}")
    say(f"learnt: {report.train_queries:,} queries with a label")
    for rule, count in report.rules.items():
        sure = report.weights.get(rule, 1.0)
        kind = "measured" if rule in report.measured else "a guess, log audit measures it"
        say(f"  {rule:<16}{count:>7,}  weight {sure:g}" + ("" if sure == 1 else f" ({kind})"))
    if report.refused:
        say("not learnt from:")
    for reason, count in report.refused.items():
        say(f"  {count:>7,}  {reason}")
    if report.trained is None:
        say(f"not to be promoted: {report.verdict}")
        show_ways(report, learnt, collection, location)
        return
    since = "" if report.since is None else f", from {report.since:%Y-%m-%d %H:%M} UTC on"
    say(f"decided by {report.decide_queries:,} queries of {report.decided_by}{since}")
    if both := report.users_on_both_sides:
        say(
            f"{both} of {report.users} users stand on both sides, as one is most of the log: for others the gain may "
            "be smaller"
        )
    leaks = report.trained.data.get("leaks", 0)
    known = f"; {leaks} examples know a query that decides, and were left out" if leaks else ""
    negatives = report.trained.data.get("negatives", 0)
    say(f"trained on {report.examples - leaks:,} examples with {negatives:,} mined negatives{known}")
    show_verdict(report.trained)
    _lead_on(report, learnt, folder, collection, location)


def _lead_on(report: ImproveReport, learnt: LearntFrom, folder: ImproveFolder, collection: str, location: str) -> None:
    """The command that promotes, or what would have to be done before."""
    from llama_index_embed_plus.cli.training.verdict import show_next

    assert report.trained is not None
    for line in report.missing:
        note(line)
    if report.promotable or not (report.sheet or report.is_judged):
        show_next(report.trained, folder.model, collection, location)
        return
    proof = report.trained.proof
    if proof is not None and proof.needed is not None and proof.needed > proof.queries:
        note(f"about {proof.needed} such queries show a gain of {proof.worth:.3f} four times in five: collect more")
    if report.is_judged:
        next_step(learnt.more(collection, location))
        return
    sheet = folder.path / report.sheet
    note("A log knows answers that were shown, none of those that are found only now: it may refuse what is better.")
    note(f"{shlex.quote(str(sheet))} has passages that tell the two apart, of all questions of the last sessions:")
    note("write 1 (it answers the question) or 0 into the column relevant; the order is random, stop anywhere.")
    next_step(again("--sheet", str(sheet)))


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
