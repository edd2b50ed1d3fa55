"""`embed-plus duplicates`: a collection -> groups of passages that say nearly the same; all but one may go."""

from __future__ import annotations

from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import (
    ConsoleReporter,
    ask,
    heading,
    next_step,
    note,
    print_json,
    say,
    shortened,
)
from llama_index_embed_plus.cli.opened import (
    DEFAULT_LOCATION,
    CollectionName,
    Location,
    changing_step,
    command_of,
    is_read_only,
    managed,
)
from llama_index_embed_plus.cli.vectors.options import TEXT, AsJson, Conditions
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import UsageError
from qdrant_tools.search.written import written_filter
from qdrant_tools.sources.stored import delete_ids
from qdrant_tools.vectors.near import DuplicateReport

app = typer.Typer()

OTHERS = 5
"""Passages of a group that are named."""
AT_ONCE = 1000


@app.command("duplicates")
def duplicates_command(
    collection: CollectionName,
    above: Annotated[
        float, typer.Option(help="How near passages are duplicates: the least cosine, above 0 and at most 1.")
    ] = 0.95,
    conditions: Conditions = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Compare each with every other one, also in a collection of over 50,000 passages."
        ),
    ] = False,
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, help="The most groups to print.")] = 10,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete all but one passage of each group, after asking.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --delete: do not ask.")] = False,
    as_json: AsJson = False,
    location: Location = DEFAULT_LOCATION,
) -> None:
    """Find groups of passages that say nearly the same. Each is near the one that is named first, which may stand for
    all of them."""
    if yes and not delete:
        raise UsageError("--yes says not to ask before deleting: give --delete too")
    with managed(location) as manager:
        docs, read_only = manager.open(collection), is_read_only(manager)
        wanted = written_filter(conditions or (), docs)
        with ConsoleReporter().step(f"compare {collection}", docs.gateway.count(wanted)) as advance:
            report = docs.duplicates(above=above, filter=wanted, exact=exact or None, progress=advance)
        if not as_json:
            _show(docs, report, limit)
        deleted = _delete(docs, report, yes=yes) if delete and report.groups else 0
    if as_json:
        print_json(report.as_row() | {"deleted": deleted})
    elif deleted:
        say(f"{collection}: {deleted:,} passages deleted")
        note("indexing their source again brings them back; with --skip-duplicates it does not")
    elif report.groups:
        options = [f"--above={above:g}", *(f"--filter={condition}" for condition in conditions or ())]
        command = command_of("duplicates", collection, *options, "--delete", location=location)
        next_step(changing_step(command, collection, location, read_only=read_only))


def _show(docs: Collection, report: DuplicateReport, limit: int) -> None:
    redundant = len(report.redundant)
    how = "each compared with every other" if report.exact else "neighbours found by the index"
    share = redundant / report.passages if report.passages else 0.0
    say(
        f"{docs.name}: {len(report.groups):,} groups of near-duplicates among {report.passages:,} passages (cosine of "
        f"at least {report.above:g}, {how}); {redundant:,} passages ({share:.1%}) say nothing new"
    )
    if not report.exact:
        say(f"of a sample's near pairs the index found {report.found_share:.1%}; --exact finds all")
    for group in report.groups[:limit]:
        texts = docs.fetch([group.kept, *(name for name, _ in group.others[:OTHERS])])
        heading(f"{group.size:>5} passages like ", group.kept)
        _line("", texts[group.kept].text if group.kept in texts else "")
        for name, cosine in group.others[:OTHERS]:
            _line(f"{cosine:.3f}  {name}  ", texts[name].text if name in texts else "")
        if len(group.others) > OTHERS:
            say(f"        ... and {len(group.others) - OTHERS:,} more")
    if len(report.groups) > limit:
        note(f"{limit:,} of {len(report.groups):,} groups: --limit prints more, --json all")


def _line(before: str, text: str) -> None:
    say(f"        {shortened(f'{before}{text}', TEXT)}")


def _delete(docs: Collection, report: DuplicateReport, *, yes: bool) -> int:
    names = report.redundant
    if not yes and not ask(f"delete {len(names):,} passages of {docs.name}, and keep one of each group?"):
        raise UsageError(f"{len(names):,} passages of {docs.name!r} would be deleted: --yes does it unasked")
    deleted = sum(delete_ids(docs, names[start : start + AT_ONCE]) for start in range(0, len(names), AT_ONCE))
    docs.build_index()
    return deleted
