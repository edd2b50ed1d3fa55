"""The options that say which files are read and how they are cut -> the settings of both.

`index` and `inspect` share them, so that what is inspected is what would be indexed; behind them stand those of `index`
alone. Does not know: what a command does with the passages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.documents.records import Context, CutSettings, ReadSettings

SourcePath = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="A folder, a file, or rows (.jsonl, .csv, .parquet).")
]
SourceName = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="NAME", help="The name its ids begin with; else the folder's. Two sources never share ids."
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(help="Read only paths like this, as in .gitignore ('*.md', 'docs/**'); may be given again."),
]
Exclude = Annotated[list[str] | None, typer.Option(help="Leave out paths like this; may be given again.")]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Also read what links in the folder lead to outside it.")
]
Encoding = Annotated[
    str | None,
    typer.Option(help="The encoding of all text files, such as latin-1; without it, it is found out for each file."),
]
IdField = Annotated[str | None, typer.Option(help="The field of rows that holds their id; else id or _id.")]
TextField = Annotated[str | None, typer.Option(help="The field of rows that holds their text; else text.")]
ChunkTokens = Annotated[
    int | None, typer.Option(min=1, help="The most tokens of a passage; else all that the model reads.")
]
MinTokens = Annotated[
    int | None, typer.Option(min=1, help="What is shorter is joined with a neighbour; else a quarter of the most.")
]
Overlap = Annotated[
    int,
    typer.Option(min=0, help="Up to so many tokens of whole sentences stand again at the start of the next."),
]
ContextOption = Annotated[
    Context, typer.Option("--context", help="'headings': the headings above a passage are embedded with it.")
]
Whole = Annotated[bool, typer.Option("--whole", help="Cut nothing: the model reads the beginning of each document.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

Filled = Annotated[str, typer.Argument(help="The collection to fill; it is made if it is not there.")]
Moved = Annotated[bool, typer.Option("--moved", help="The source of this name lies here now.")]
DeleteMissing = Annotated[
    bool, typer.Option("--delete-missing", help="Also remove what this source has of files that are gone.")
]
Watch = Annotated[
    bool, typer.Option("--watch", help="Go on with every change of the folder; also removes what is gone.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; embed and write nothing.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything was skipped.")]
Lexical = Annotated[
    bool,
    typer.Option(
        "--lexical",
        help="Keep the words of passages too, for --mode lexical and hybrid; when the collection is made. "
        "--stemming, --stop-words, --k1, --b and --fusion say how.",
    ),
]
Late = Annotated[
    bool, typer.Option("--late", help="Read passages with those around them (late chunking), when it is made.")
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Let every search compare with all vectors, however many there are.")
]
HnswEf = Annotated[
    int | None,
    typer.Option(min=1, help="Let every search use this beam width in the HNSW graph, instead of a chosen one."),
]
Tuned = Annotated[
    bool,
    typer.Option(
        "--tune/--no-tune",
        help="Measure what a search finds of what exact search finds, and choose how later searches are made.",
    ),
]
SkipDuplicates = Annotated[
    bool,
    typer.Option("--skip-duplicates", help="Do not add what says nearly the same as a stored passage."),
]
Above = Annotated[
    float, typer.Option(help="With --skip-duplicates: how near that is, as a cosine above 0 and at most 1.")
]
AsJsonWithSkipped = Annotated[bool, typer.Option("--json", help="Print JSON, with every skipped file.")]


def settings_of(
    *,
    source: str | None,
    include: list[str] | None,
    exclude: list[str] | None,
    follow_links: bool,
    encoding: str | None,
    id_field: str | None,
    text_field: str | None,
    chunk_tokens: int | None,
    min_tokens: int | None,
    overlap: int,
    context: Context,
    whole: bool,
) -> tuple[ReadSettings, CutSettings]:
    """The settings that the options say.

    Raises:
        UsageError: they contradict each other.
    """
    read = ReadSettings(
        name=source,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        follow_links=follow_links,
        encoding=encoding,
        id_field=id_field,
        text_field=text_field,
    )
    cut = CutSettings(max_tokens=chunk_tokens, min_tokens=min_tokens, overlap=overlap, context=context, whole=whole)
    return read, cut
