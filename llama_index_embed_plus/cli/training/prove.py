"""`embed-plus prove`: a trained model and queries it never saw -> whether it may be promoted, written into the model.

The queries are two files, or those that lie beside the model; or passages that a person judges, in a sheet.

Guarantees: everything is checked and measured first, and the model is written only then. Does not know: how a model is
trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_embed_plus.cli.console import next_step, note, print_json, say
from llama_index_embed_plus.cli.opened import DEFAULT_LOCATION, Location, Overwrite, check_outputs, command_of, managed
from llama_index_embed_plus.cli.training.held_out import QrelsFile, Queries, held_out_named, queries_of_log
from llama_index_embed_plus.cli.training.options import (
    AsJson,
    ExampleFile,
    ExamplesKind,
    Ignored,
    PassagesOfExamples,
    RelevantFrom,
    Split,
    Texts,
    Trained,
)
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.files import read_queries
from llama_index_embed_plus.evaluate.retrieval.held_out import trained_on
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder, Example, HeldOut, Query
from qdrant_tools.same import query_key
from qdrant_tools.search.adapters import without_adapter

if TYPE_CHECKING:
    from llama_index_embed_plus.training.proof.proof import ProofSettings

app = typer.Typer()


@app.command("prove")
def prove_command(
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="Its passages are searched.")],
    model: Trained,
    base: Annotated[
        str | None,
        typer.Option(help="The model that training started from; of a query adapter its own model, by default."),
    ] = None,
    queries: Queries = None,
    qrels: QrelsFile = None,
    new_sheet: Annotated[
        Path | None,
        typer.Option(
            "--write-sheet",
            help="Prove nothing yet: write a CSV of passages to judge, those that decide soonest, for --sheet.",
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=10, help="How many passages to draw for --write-sheet, about.")] = 150,
    log: Annotated[
        Path | None, typer.Option(help="Draw for --write-sheet of all questions in this log too; needs --examples.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Such a CSV, filled in: it decides instead of queries.")] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="What it was trained on, if the model does not know: a query given away is refused."),
    ] = None,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Leave out the queries that training knows, and count them.")
    ] = False,
    examples_kind: ExamplesKind = None,
    relevant_from: RelevantFrom = None,
    split: Split = None,
    ignore: Ignored = None,
    passages: PassagesOfExamples = None,
    shared_passages: Annotated[
        bool, typer.Option(help="Let the queries ask for passages that were trained on.")
    ] = False,
    location: Location = DEFAULT_LOCATION,
    texts: Texts = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure a trained model on held-out queries, and write into it whether it may be promoted."""
    from llama_index_embed_plus.cli.training.verdict import show_next, show_verdict, summary
    from llama_index_embed_plus.training.data.splits import as_questions
    from llama_index_embed_plus.training.proof.model_card import record_proof
    from llama_index_embed_plus.training.proof.proof import ProofSettings, prove
    from llama_index_embed_plus.training.proof.report import read_report

    folder = Path(model)
    if read_report(folder) is None:
        raise UsageError(f"{model} was not trained here: there is no report to put a proof into")
    by = _By(queries, qrels, sheet, new_sheet, log, examples, drop_leaks=drop_leaks, passages=not shared_passages)
    if examples is not None:
        rows_of = ExampleFile(examples, examples_kind, relevant_from, split, ignore, passages)
        trained = as_questions(rows_of.read().rows)
    else:
        trained = trained_on(folder)
    before, after = _models(base, model)
    settings = ProofSettings(texts=texts)
    with managed(location) as manager:
        docs = manager.open(collection).with_encoder(before)  # by the base alone, whatever serves there
        if new_sheet is not None:
            check_outputs(new_sheet, overwrite=overwrite, inputs=[queries, log, examples])
            asked = unseen(by.questions(folder, (collection, docs.name)), trained, before)
            _write_sheet(before, after, asked, docs, new_sheet, rows, settings, overwrite)
            based = () if base is None else ("--base", base)
            next_step(
                command_of("prove", collection, "--model", model, *based, "--sheet", new_sheet, location=location)
            )
            return
        held_out = by.held_out(folder, trained, before, after)
        report = record_proof(folder, prove(before, after, held_out, settings, collection=docs), held_out=held_out)
    if as_json:
        print_json(summary(folder, report))
        return
    show_verdict(report)
    show_next(report, folder, collection, location)


@dataclass(frozen=True)
class _By:
    """What decides, as the options say it: queries of two files or beside the model, or a sheet, filled in or to be."""

    queries: Path | None
    qrels: Path | None
    sheet: Path | None
    new_sheet: Path | None
    log: Path | None
    examples: Path | None
    drop_leaks: bool
    passages: bool

    def __post_init__(self) -> None:
        if self.sheet is not None and (self.queries or self.qrels or self.new_sheet):
            raise UsageError("--sheet decides by itself: leave out --queries, --qrels and --write-sheet")
        if self.new_sheet is not None and self.qrels is not None:
            raise UsageError("--write-sheet is for queries that nobody judged: leave out --qrels")
        if self.log is not None and self.new_sheet is None:
            raise UsageError("--log is about whose questions a sheet is drawn of: give --write-sheet")
        if self.log is not None and self.examples is None:
            raise UsageError("some questions of --log were trained on: give the --examples, so that these are left out")

    def questions(self, model: Path, collections: tuple[str, str]) -> list[Query]:
        """The questions that a sheet is drawn of: those of a file or beside the model, and those of a log."""
        held_out = None if self.queries is not None else held_out_named(None, None, model)
        asked = read_queries(self.queries) if self.queries is not None else list(held_out.queries if held_out else ())
        known = {query_key(query.text) for query in asked}
        if self.log is not None:
            asked += [query for query in queries_of_log(self.log, collections) if query_key(query.text) not in known]
        if not asked:
            raise UsageError("no questions to draw a sheet of: give --queries, or --log and --examples")
        return asked

    def held_out(self, model: Path, trained: list[Example], before: Encoder, after: Encoder) -> HeldOut:
        """What the two models are measured on, with nothing in it that training knows."""
        from llama_index_embed_plus.training.proof.sheet import read_sheet

        if self.sheet is not None:
            return read_sheet(self.sheet, before, after)
        found = held_out_named(self.queries, self.qrels, model)
        if found is None:
            raise UsageError(f"{model} has no held-out queries beside it: give --queries and --qrels, or --write-sheet")
        if self.examples is None and self.queries is None:
            return found  # what lies beside the model was held out of its training
        if not trained:
            if self.drop_leaks:
                raise UsageError("--drop-leaks is about what the --examples give away: name them")
            note("whether training knew these queries is not looked at: --examples EXAMPLES.jsonl does")
            return found
        return _apart(trained, found, before, drop_leaks=self.drop_leaks, passages=self.passages)


def _models(base: str | None, model: str) -> tuple[Encoder, Encoder]:
    """The model that training started from, and the one that it made."""
    after = open_encoder(model)
    before = without_adapter(after) if base is None else open_encoder(base)
    if base is None and before is after:
        raise UsageError(f"{model} is no query adapter: name the model that training started from with --base")
    return before, after


def unseen(asked: list[Query], trained: list[Example], encoder: Encoder) -> list[Query]:
    """The questions that no training example asks, in the same or in other words; how many others is said."""
    from llama_index_embed_plus.training.data.splits import without_leaked_queries

    if not trained:
        return asked
    # as if each had an answer: which one it is, nobody has judged yet
    everything = HeldOut(tuple(asked), {query.id: {"?": 1} for query in asked})
    left, dropped = without_leaked_queries(trained, everything, encoder=encoder, passages=False)
    if dropped:
        note(f"{dropped} of {len(asked)} questions were trained on, and are left out")
    return list(left.queries)


def _write_sheet(
    before: Encoder,
    after: Encoder,
    asked: list[Query],
    docs: Collection,
    path: Path,
    rows: int,
    settings: ProofSettings,
    overwrite: bool,
) -> None:
    from llama_index_embed_plus.training.proof.sheet import draw_sheet, write_sheet

    sheet = draw_sheet(before, after, asked, docs, rows=rows, settings=settings)
    write_sheet(sheet, path, docs, overwrite=overwrite)
    say(
        f"wrote {path}: {len(sheet.rows)} of {sheet.candidates} passages that the two models rank differently, "
        f"for {sheet.differing} of {len(asked)} questions"
    )
    say("write 1 (the passage answers the question) or 0 into the column relevant; the order is random: stop anywhere")


def _apart(trained: list[Example], held_out: HeldOut, encoder: Encoder, *, drop_leaks: bool, passages: bool) -> HeldOut:
    """The held-out queries, none of which training knows.

    Raises:
        LeakError: it knows some, and they may not be dropped; or it knows all.
    """
    from llama_index_embed_plus.training.data.splits import check_leak, without_leaked_queries

    if not drop_leaks:
        check_leak(trained, held_out, encoder=encoder, passages=passages)
        return held_out
    left, dropped = without_leaked_queries(trained, held_out, encoder=encoder, passages=passages)
    if dropped:
        note(f"{dropped} of {len(held_out.measured)} held-out queries were known to training, and are left out")
    return left
