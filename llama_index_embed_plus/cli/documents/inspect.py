"""`embed-plus inspect`: what indexing a source would do, before a single vector is computed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, print_json, say
from llama_index_embed_plus.cli.documents.options import (
    AsJson,
    ChunkTokens,
    ContextOption,
    Encoding,
    Exclude,
    FollowLinks,
    IdField,
    Include,
    MinTokens,
    Overlap,
    SourceName,
    SourcePath,
    TextField,
    Whole,
    settings_of,
)
from llama_index_embed_plus.cli.opened import DEFAULT_MODEL, Model, command_of
from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.cutting.tokens import token_counter
from llama_index_embed_plus.documents.inspect import FRAGMENT_WORDS, Inspection, inspect_source
from llama_index_embed_plus.documents.reading import Source
from llama_index_embed_plus.documents.records import SkippedFile
from llama_index_embed_plus.encoders.open import open_tokenizer
from qdrant_tools.errors import InputError

app = typer.Typer()

NAMED = 5
"""Skipped files that are named for each reason; JSON names all."""
LISTED = 12
"""Kinds and languages that are told one by one."""


@app.command("inspect")
def inspect_command(
    source: SourcePath,
    model: Model = DEFAULT_MODEL,
    name: SourceName = None,
    include: Include = None,
    exclude: Exclude = None,
    follow_links: FollowLinks = False,
    encoding: Encoding = None,
    id_field: IdField = None,
    text_field: TextField = None,
    chunk_tokens: ChunkTokens = None,
    min_tokens: MinTokens = None,
    overlap: Overlap = 0,
    context: ContextOption = "none",
    whole: Whole = False,
    as_json: AsJson = False,
) -> None:
    """Say what indexing would do: files, passages, tokens, languages, and what is skipped. Nothing is embedded."""
    read, cut = settings_of(
        source=name,
        include=include,
        exclude=exclude,
        follow_links=follow_links,
        encoding=encoding,
        id_field=id_field,
        text_field=text_field,
        chunk_tokens=chunk_tokens,
        min_tokens=min_tokens,
        overlap=overlap,
        context=context,
        whole=whole,
    )
    documents = Source(source, read)
    tokens = open_tokenizer(model)
    cutter = Cutter(token_counter(tokens), cut)
    with ConsoleReporter().step(f"read {source}", None, "passages") as advance:
        report = inspect_source(documents, cutter, model=tokens.folder, progress=advance)
    if as_json:
        print_json(report.as_row())
    else:
        show(report, source)
    if not report.cut.passages:
        raise InputError(f"{source} holds no text to index")
    if not as_json:
        next_step(command_of("index", "docs", source, model=model))


def show(report: Inspection, root: Path) -> None:
    """Print a report: a line for each thing that there is to say."""
    cut = report.cut
    say(
        f"{report.source}: {_many(report.files, 'file')}, {_many(cut.documents, 'document')}, "
        f"{_many(cut.passages, 'passage')}"
    )
    _line("files", _counted(report.kinds))
    if cut.passages:
        room = f"of {report.most} that a passage may have" if report.most <= report.room else f"of {report.room} read"
        lengths = f"p50 {cut.quantile(0.5)}, p95 {cut.quantile(0.95)}, longest {cut.longest} {room}"
        _line("tokens", f"{cut.total:,} to embed; {lengths}")
        truncated = (
            f"{_many(cut.truncated, 'passage')}, {cut.lost_share:.1%} of the text" if cut.truncated else "nothing"
        )
        _line("truncated", truncated)
    if report.fragments:
        _line("fragments", f"{_many(report.fragments, 'passage')} of fewer than {FRAGMENT_WORDS} words")
    if report.short:
        _line("short", f"{_many(report.short, 'document')} of fewer than {FRAGMENT_WORDS} words")
    if report.repeated:
        _line("repeated", f"{_many(report.repeated, 'passage')} with the text of another one")
    _line("languages", _counted(report.languages))
    _line("encodings", _counted(report.encodings))
    _line("pages", _counted(report.unread_pages))
    _line("left out", _counted(report.left_out))
    if report.skipped:
        _line("skipped", ", ".join(f"{len(files):,} {reason}" for reason, files in report.skipped_by_reason().items()))
    for reason, files in report.skipped_by_reason().items():
        for line in _reasons(reason, files, root):
            say(f"    {line}")
    for suggestion in report.suggestions():
        _line("advice", suggestion)


def _line(what: str, text: str) -> None:
    if text:
        say(f"  {what:<11}{text}")


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def _counted(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} {count:,}" for name, count in ranked[:LISTED]]
    rest = sum(count for _, count in ranked[LISTED:])
    return ", ".join(shown) + (f", others {rest:,}" if rest else "")


def _reasons(reason: str, files: Sequence[SkippedFile], root: Path) -> Iterator[str]:
    """Lines with a reason and the names of its files, those that have it in the same words together."""
    names: dict[str, list[str]] = {}
    for each in files:
        path = each.path.removeprefix(f"{root}/")
        # what is said of a row begins with its file
        detail = each.detail.removeprefix(each.path).removeprefix(f"{root}/").removeprefix(path)
        detail = re.sub(r"^:(?:[0-9]+:)? ", "", detail)
        names.setdefault(detail, []).append(path)
    ranked = sorted(names.items(), key=lambda item: -len(item[1]))
    # one more takes no more room than to say so
    told = NAMED + (len(ranked) == NAMED + 1)
    for detail, paths in ranked[:told]:
        more = f" and {len(paths) - NAMED:,} more" if len(paths) > NAMED else ""
        yield f"{reason}: {', '.join(paths[:NAMED])}{more}" + (f" ({detail})" if detail else "")
    if rest := sum(len(paths) for _, paths in ranked[told:]):
        yield f"{reason}: {rest:,} more, each in its own words (--json names all)"
