"""`embed-plus cluster`: a collection -> groups of passages about the same, named by their words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, print_json, say, shortened
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    CollectionName,
    Location,
    Overwrite,
    changing_step,
    check_outputs,
    command_of,
    is_read_only,
    managed,
)
from llama_index_embed_plus.cli.vectors.options import TEXT, AsJson, Out, Seed, Write, next_search, show_written
from qdrant_tools.collections.collection import Collection
from qdrant_tools.files.written import write_rows
from qdrant_tools.vectors.clusters import SAMPLE, Clustering, cluster
from qdrant_tools.vectors.written import check_field

app = typer.Typer()

FEW_CLUSTERS = 8
"""Of more, one passage each is shown."""
FEW = 0.1
"""A silhouette below this says that there are hardly any groups."""


@app.command("cluster")
def cluster_command(
    collection: CollectionName,
    clusters: Annotated[
        int | None,
        typer.Option("--clusters", "-n", min=2, help="How many groups; else the number that parts the vectors best."),
    ] = None,
    sample: Annotated[int, typer.Option(min=4, help="How many vectors say where the groups lie.")] = SAMPLE,
    seed: Seed = 0,
    write: Write = None,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Part the passages of a collection into groups about the same, named by the words that tell them from the others.
    No model is needed."""
    check_outputs(out, overwrite=overwrite)
    reporter = ConsoleReporter()
    with managed(location) as manager:
        docs, read_only = manager.open(collection), is_read_only(manager)
        if write is not None:
            check_field(docs, write)
        count = docs.gateway.count()
        with reporter.step(f"cluster {collection}", count) as advance:
            found = cluster(docs, clusters, sample=sample, seed=seed, progress=advance)
        if not as_json:
            _show(docs, found)
        if out is not None:
            write_rows(out, _rows(found), overwrite=overwrite)
        written = 0
        if write is not None:
            with reporter.step(f"write {write}", count) as advance:
                written = found.write(write, progress=advance)
    if as_json:
        print_json(found.as_row() | {"written": written})
        return
    show_written(collection, out, write, written, "cluster's name")
    if write is not None:
        next_search(collection, write, found.clusters[0].name, location)
    else:
        options = [f"--clusters={len(found.clusters)}", f"--seed={seed}"]
        command = command_of("cluster", collection, *options, "--write", "topic", location=location)
        next_step(changing_step(command, collection, location, read_only=read_only))


def _show(docs: Collection, found: Clustering) -> None:
    sampled = f", by a sample of {found.sampled:,}" if found.sampled < found.total else ""
    say(f"{docs.name}: {found.total:,} passages in {len(found.clusters)} clusters{sampled}")
    for each in found.clusters:
        say(f"{each.number:>3}  {each.size:>7,} passages, mean cosine with the centre {each.cohesion:.3f}  {each.name}")
        shown = each.central if len(found.clusters) <= FEW_CLUSTERS else each.central[:1]
        texts = docs.fetch(shown)
        for name in shown:
            if name in texts:
                say(f"        {shortened(f'{name}  {texts[name].text}', TEXT)}")
    chosen = ", the largest of those tried" if found.tried else ""
    say(f"silhouette {found.silhouette:.3f}{chosen} (1: the groups lie far apart; 0: they run into one another)")
    if found.silhouette < FEW:
        say("there are hardly any groups here: the clusters part what runs into one another")


def _rows(found: Clustering) -> Iterator[dict[str, Any]]:
    for page in found.assigned():
        for name, number, cosine in zip(page.ids, page.numbers.tolist(), page.cosines.tolist(), strict=True):
            yield {"id": name, "cluster": number + 1, "name": found.clusters[number].name, "cosine": round(cosine, 6)}
