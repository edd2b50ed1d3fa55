"""`embed-plus synthesize`: a collection -> training examples of its own documents."""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, resumable, say, shortened
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    DEFAULT_MODEL,
    Backend,
    Location,
    Model,
    Overwrite,
    check_outputs,
    command_of,
    opened,
)
from qdrant_tools.errors import UsageError, brief, first_line
from qdrant_tools.files.json_files import read_text
from qdrant_tools.mining.rules import MiningSettings

if TYPE_CHECKING:
    from llama_index_embed_plus.training.synthesis.generate import LanguageModel
    from llama_index_embed_plus.training.synthesis.records import Made, Rule, SynthesisReport

app = typer.Typer()

LONGEST_PROMPT = 100_000
"""Bytes of a file with a prompt."""


@app.command("synthesize")
def synthesize_command(
    collection: Annotated[str, typer.Argument(help="The collection or alias whose documents are asked about.")],
    out: Annotated[Path | None, typer.Option(help="The .jsonl file of examples to write.")] = None,
    rules: Annotated[
        str | None, typer.Option(help="Which kinds of queries are made, with commas; all if not given.")
    ] = (None),
    limit: Annotated[int, typer.Option(help="The most examples in all, spread over the documents.")] = 10_000,
    per_document: Annotated[
        int | None, typer.Option(help="The most examples of one document; no limit if not given.")
    ] = None,
    within: Annotated[
        int, typer.Option(help="Keep a query if the search has its passage among so many hits; 0: do not search.")
    ] = 20,
    keep_quoted: Annotated[
        float, typer.Option(help="The share of the passages that keep the words that their query was taken from.")
    ] = 0.1,
    negatives: Annotated[
        int, typer.Option(help="The most negatives of an example, mined from the collection; 0 mines none.")
    ] = 4,
    document_key: Annotated[
        str | None, typer.Option(help="Metadata field that names a passage's document; found out if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of what is drawn: the same seed gives the same result.")] = 0,
    llm: Annotated[
        str | None,
        typer.Option(
            help="A language model that asks questions too: MODULE:NAME of one of LlamaIndex's LLMs, or of a function "
            "that takes a prompt. The module may lie in this folder; it is imported, so it can do whatever you can."
        ),
    ] = None,
    prompt: Annotated[Path | None, typer.Option(help="What --llm is asked: a text file with {passage} in it.")] = None,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Print what --llm is asked, and end.")] = False,
    questions: Annotated[int, typer.Option(help="How many questions --llm is to ask for each passage.")] = 3,
    passages: Annotated[int, typer.Option(help="The most passages that --llm is asked about.")] = 1000,
    workers: Annotated[int, typer.Option(help="How many calls of --llm run at a time.")] = 1,
    show: Annotated[int, typer.Option(help="Print so many examples of each rule.")] = 0,
    overwrite: Overwrite = False,
    location: Location = DEFAULT_LOCATION,
    model: Model = DEFAULT_MODEL,
    backend: Backend = "auto",
) -> None:
    """Make training examples of the documents of a collection, where there is no log yet.

    Writes OUT, where each query comes from (.origins.jsonl), what was counted (.synthesis.json), and what a language
    model answered (.generated.jsonl), so that the same command goes on where it was stopped.
    """
    # the package of training asks for its extra when it is imported, and help needs none
    from llama_index_embed_plus.training.synthesis.generate import PROMPT, GenerationSettings
    from llama_index_embed_plus.training.synthesis.records import SynthesisSettings
    from llama_index_embed_plus.training.synthesis.run import synthesize, write_synthesis

    asked = PROMPT if prompt is None else read_text(prompt, most=LONGEST_PROMPT)
    if show_prompt:
        say(asked)
        return
    if out is None:
        raise UsageError("nothing says where the examples are to be written: give --out FILE.jsonl")
    if llm is None and prompt is not None:
        raise UsageError("--prompt is what a language model is asked: give --llm too")
    mining = MiningSettings(negatives=negatives, document_key=document_key, seed=seed) if negatives else None
    settings = SynthesisSettings(
        rules=_chosen(rules, needed=llm is None),
        limit=limit,
        per_document=per_document,
        within=within or None,
        keep_quoted=keep_quoted,
        seed=seed,
        mining=mining,
    )
    journal = _checked_journal(out, prompt, overwrite=overwrite)
    language_model = None if llm is None else _imported(llm)
    with opened(collection, location, model, backend) as (docs, encoder), _goes_on(journal if llm else None):
        result = synthesize(
            docs,
            encoder,
            settings=settings,
            llm=language_model,
            prompt=asked,
            generation=GenerationSettings(questions=questions, passages=passages, workers=workers),
            journal=journal,
            reporter=ConsoleReporter(),
        )
        written = write_synthesis(result, out, overwrite=overwrite)
    _show(result.made, show)
    _tell(result.report)
    say(f"wrote {', '.join(map(str, written))}")
    held_out = ("--examples", out, "--heldout-share", 0.2, "--out", "adapted")
    next_step(command_of("train", collection, *held_out, location=location, model=model))


def _checked_journal(out: Path, prompt: Path | None, *, overwrite: bool) -> Path:
    """Where the answers of a language model are kept, after a look at whether all that is written can be."""
    from llama_index_embed_plus.training.synthesis.run import journal_of, outputs

    # by itself first: only a name of a file has others beside it
    check_outputs(out, overwrite=overwrite, inputs=[prompt])
    check_outputs(*outputs(out), overwrite=overwrite, inputs=[prompt])
    return journal_of(out)


def _goes_on(journal: Path | None) -> AbstractContextManager[None]:
    if journal is None:
        return nullcontext()
    return resumable(f"run the same command again to go on; what the language model answered is in {journal}")


def _chosen(rules: str | None, *, needed: bool) -> tuple[Rule, ...]:
    """The rules that a list with commas names, or all. Raises `UsageError` for none, where they are `needed`."""
    from llama_index_embed_plus.training.synthesis.records import RULES

    if rules is None:
        return RULES
    chosen = _known([rule.strip() for rule in rules.split(",") if rule.strip()])
    if needed and not chosen:
        raise UsageError("--rules names none, expected some of " + ", ".join(RULES) + ", or --llm")
    return chosen


def _known(names: Sequence[str]) -> tuple[Rule, ...]:
    from llama_index_embed_plus.training.synthesis.records import RULES

    unknown = [name for name in names if name not in RULES]
    if unknown:
        raise UsageError(f"--rules has {brief(unknown[0])}, expected some of {', '.join(RULES)}")
    return tuple(rule for rule in RULES if rule in names)


def _imported(name: str) -> LanguageModel:
    """The object MODULE:NAME; a class is called for one.

    Raises:
        UsageError: there is no such module or name, or importing it fails.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise UsageError(f"--llm is {brief(name)}, expected MODULE:NAME, such as my_models:llm")
    # as python -m does: the folder that the command is called in
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found() if inspect.isclass(found) else found
    except Exception as error:  # a module of the caller's may raise anything
        raise UsageError(f"--llm {brief(name)} cannot be imported: {first_line(error)}") from error


def _show(made: Sequence[Made], count: int) -> None:
    """Some queries of each rule, with what they are to find."""
    shown: Counter[str] = Counter()
    for one in sorted(made, key=lambda one: one.rule):
        shown[one.rule] += 1
        if shown[one.rule] <= count:
            say(f"{one.rule:<16} {shortened(one.query, 100)}")
            say(f"{'':<16}   -> {one.passage_id}" + ("" if one.rank is None else f" (rank {one.rank})"))


def _tell(report: SynthesisReport) -> None:
    total = sum(report.kept.values())
    say(
        f"{total} examples with {report.negatives} negatives from {report.passages} passages of {report.documents} "
        "documents"
    )
    say(f"  {'rule':<20}{'made':>9}{'kept':>9}  words that the passage repeats")
    for rule, count in sorted(report.made.items(), key=lambda item: -item[1]):
        share = f"{report.overlap[rule]:.0%}" if rule in report.overlap else "-"
        say(f"  {rule:<20}{count:>9}{report.kept.get(rule, 0):>9}  {share}")
    for name, count in sorted(report.dropped.items(), key=lambda item: -item[1]):
        say(f"  dropped: {name:<22}{count:>9}")
    if report.cost:
        cost = report.cost
        tokens = f", {cost['prompt_tokens']:,} + {cost['completion_tokens']:,} tokens" if cost["prompt_tokens"] else ""
        say(
            f"  language model: {cost['calls']:,} calls ({cost['failed']:,} failed), {cost['prompt_characters']:,} + "
            f"{cost['completion_characters']:,} characters of prompts and answers{tokens}"
        )
    for name, count in report.mining.items():
        say(f"  mining: {name:<23}{count:>9}")
