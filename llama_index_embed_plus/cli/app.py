"""The command line's table of contents: each command's name, and the module that holds it.

A command's module is imported when the command is called: no command waits for the libraries of another one, and
`--help` for none.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from qdrant_tools.errors import PlusError, UsageError

COMMANDS = {
    "index": ("search", "Embed passages and add them to a collection."),
    "search": ("search", "Search a collection and print the hits."),
    "collection": ("collections", "Look at collections, copy them, adopt them."),
    "tune": ("search", "Measure recall and latency of index settings, and name the cheapest that finds enough."),
    "promote": ("promote", "Change the encoder of an alias without downtime."),
    "describe": ("models", "Show everything that decides a model's vectors."),
    "export": ("models", "Write a model folder with an ONNX build, which serves without torch."),
    "log": ("log", "Look into a retrieval log, fill it, empty it."),
    "mine": ("mine", "Make training examples with hard negatives of a log and its collection."),
    "audit": ("mine", "Say how many mined negatives are probably answers."),
    "train": ("train", "Train a query adapter, LoRA or the whole encoder."),
    "merge": ("train", "Average a model with the one it was trained from."),
    "prove": ("train", "Measure a trained model on held-out queries."),
    "evaluate": ("evaluate", "Measure retrieval on judged queries, and whether another system is better."),
    "benchmark": ("benchmark", "Run every task that a folder of data holds."),
    "monitor": ("monitor", "Compare the last days of a retrieval log with the weeks before."),
    "canary": ("monitor", "Ask queries whose answers are known."),
    "demo": ("demo", "Run the whole loop on Python's own documentation."),
}
"""Command -> the module of this folder whose `app` holds it, or is a group of this name; and one line of help."""


class LazyCommands(TyperGroup):
    """Commands that are imported when they are called, as in click's "lazily loading subcommands"."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"llama_index_embed_plus.cli.{COMMANDS[cmd_name][0]}")
        # not `get_command`, which makes no group of an app with one command
        group = typer.main.get_group(module.app)
        # a module's app is the group of this name, or holds the command
        return group if group.name == cmd_name else group.commands[cmd_name]

    # the inherited one takes the help from the commands, and would import every module
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(
    cls=LazyCommands,
    help="Index, search and improve text retrieval with LlamaIndex and Qdrant.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # usage errors as plain lines
)


# an app without commands of its own is a group only if it has a callback
@app.callback()
def commands() -> None:
    """Index, search and improve text retrieval with LlamaIndex and Qdrant."""


def main() -> None:
    """Run the command line. Exit code 0, 1 for an error, 2 for wrong usage."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bars a person sees are ours, one per step
    try:
        app()
    except UsageError as error:
        _fail(error, 2)
    except (PlusError, OSError) as error:
        _fail(error, 1)


def _fail(error: Exception, code: int) -> None:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    raise SystemExit(code)
