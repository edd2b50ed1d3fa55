"""Ways on from a log that gave too little -> commands: the one that fits best comes last, as the next step.

Guarantees: options that help are put to the command as it was typed. Does not know: how the ways were found.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index_embed_plus.cli.console import next_step, note
from llama_index_embed_plus.cli.opened import command_of

if TYPE_CHECKING:
    from llama_index_embed_plus.training.improvement.report import ImproveReport
    from llama_index_embed_plus.training.improvement.ways import Way


def again(*options: str) -> str:
    """This command as it was typed, with further options; a sheet is of one call only."""
    words = sys.argv[1:]
    if "--sheet" in words:
        place = words.index("--sheet")
        words = words[:place] + words[place + 2 :]
    return shlex.join([*(word for word in words if not word.startswith("--sheet=")), *options])


@dataclass(frozen=True)
class LearntFrom:
    """What the command read: a log, or files that it put into one."""

    log: Path
    of_files: bool
    match: str

    def command(self, way: Way, collection: str, location: str) -> tuple[str, str]:
        """What a way is, and the command that takes it."""
        from llama_index_embed_plus.training.improvement import ways

        count = f"{way.count:,}"
        match way.name:
            case ways.AMBIGUOUS:
                return f"{count} answers were made of several searches: take them too", again("--ambiguous")
            case ways.SUPPORT:
                why = f"{count} answers have words of no passage alone: compare them by the encoder"
                return why, again("--support", "encoder")
            case ways.MATCH:
                why = f"{count} times the collection has no passage of this id: find them by their text"
                return why, self._imported("--match", "text", collection=collection, location=location)
            case ways.RERANKED:
                of = ("--collection", collection, "--out", "margins.jsonl")
                why = "a reranker scored hits: learn its margins"
                return why, command_of("log taught", self.log, *of, location=location)
            case ways.UNANSWERED:
                why = f"{count} thumbs down are no labels; whoever writes the documents can use the questions"
                return why, command_of("log unanswered", self.log, "--out", "unanswered.jsonl")
            case ways.DOCUMENTS:
                command = command_of("synthesize", collection, "--out", "examples.jsonl", location=location)
                return "begin with the documents alone", command
            case _:
                why = "bring what people said, or clicked on"
                return why, self._imported("--annotations", "ANNOTATIONS.csv", collection=collection, location=location)

    def more(self, collection: str, location: str) -> str:
        """The command that learns from more searches."""
        files = ("--traces", "SPANS.jsonl", "--annotations", "ANNOTATIONS.csv") if self.of_files else ()
        return self._imported(*files, collection=collection, location=location)

    def _imported(self, *options: str, collection: str, location: str) -> str:
        """The command that reads more, or otherwise: a log is not read again by this one."""
        if self.of_files:
            return again(*options)
        given = [word for word in options if word != "--annotations"]
        named = ("log import", self.log, "FILES...", *given, "--collection", collection)
        return command_of(*map(str, named), location=location)


def show_ways(report: ImproveReport, learnt: LearntFrom, collection: str, location: str) -> None:
    """Print the ways on, and the first one as the next step."""
    if not report.ways:  # something could be learnt, and nothing is left to decide by, or to learn from
        next_step(again("--queries", "QUERIES.jsonl", "--qrels", "QRELS.tsv"))
        return
    known = [way for way in report.ways if way.name != "match" or learnt.match != "text"]
    first, *others = [learnt.command(way, collection, location) for way in known]
    note("ways on:")
    for why, command in others:
        note(f"  {why}: embed-plus {command}")
    note(f"  {first[0]}:")
    next_step(first[1])
