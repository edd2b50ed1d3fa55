"""`embed-plus push`: a trained model -> a repository of a model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_index_embed_plus.cli.console import ConsoleReporter, next_step, note, print_json, say
from llama_index_embed_plus.cli.vectors.options import AsJson
from llama_index_embed_plus.sharing.hub import push_to_hub

app = typer.Typer()


@app.command("push")
def push_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A folder that train, merge or export wrote.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the hub; made if it is new.")],
    private: Annotated[
        bool, typer.Option("--private", help="Let nobody else see a repository that is made now.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Also a model that was not proved better.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and their sizes; send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a model to a model hub: the verified files of its artifact and its card, without the held-out queries, which
    users typed. The token is HF_TOKEN, or that of `hf auth login`."""
    with ConsoleReporter().step(f"{'check' if dry_run else 'push'} {model}", None):
        pushed = push_to_hub(model, repo, private=private, force=force, dry_run=dry_run)
    if as_json:
        print_json(pushed.as_row() | {"dry_run": dry_run})
        return
    for name, size in pushed.files.items():
        say(f"{size:>14,}  {name}")
    would = "would be sent" if dry_run else "sent"
    say(f"{pushed.size:>14,}  bytes {would} to {repo} ({pushed.space})")
    if not pushed.has_card:
        note("there is no README.md: visitors of the hub see no model card")
    if dry_run:
        forced = [word for word, given in (("--private", private), ("--force", force)) if given]
        next_step(" ".join(["push", str(model), repo, *forced]))
    else:
        say(f"{pushed.url} at {pushed.commit}")
        next_step(f"describe {repo}")
