"""The command line's table of contents, and how every command ends: in an exit code, and in one line for an error.

A command's module is imported when the command is called: no command waits for the libraries of another one, and
`--help` for none.

Guarantees: no traceback, whatever is given; stdout and stderr take any text, and none of it steers the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from llama_index_embed_plus.cli.shell import mistakes
from llama_index_embed_plus.cli.shell.forms import plain
from qdrant_tools.errors import PlusError, UsageError, first_line, visible, without_keys

TRACEBACK_VARIABLE = "EMBED_PLUS_TRACEBACK"
"""Set, an error that nobody foresaw is raised instead of told in one line."""
LONGEST_ERROR = 2000

COMMANDS = {
    "index": ("documents.index", "Embed passages and add them to a collection."),
    "inspect": ("documents.inspect", "Say what indexing a folder would do, before anything is embedded."),
    "search": ("search", "Search a collection and print the hits."),
    "passages": ("documents.passages", "Look at the passages of a collection, and delete them."),
    "collection": ("collections", "Look at collections, copy them, adopt them."),
    "similar": ("vectors.similar", "Find passages that are like some stored ones, and unlike others."),
    "duplicates": ("vectors.duplicates", "Find groups of passages that say nearly the same, and delete all but one."),
    "cluster": ("vectors.cluster", "Part a collection into groups about the same, named by their words."),
    "classify": ("vectors.classify", "Label every passage as a few labelled ones are labelled."),
    "tune": ("tune", "Measure settings of an index, or of hybrid search, and name what to choose."),
    "promote": ("training.promote", "Change the encoder of an alias without downtime."),
    "describe": ("models", "Show everything that decides a model's vectors."),
    "export": ("models", "Write a model folder with an ONNX build, which serves without torch."),
    "log": ("logs.log", "Look into a retrieval log, fill it, empty it."),
    "mine": ("logs.mine", "Make training examples with hard negatives of a log and its collection."),
    "synthesize": ("documents.synthesize", "Make training examples of a collection's own documents, without a log."),
    "margins": ("documents.margins", "Let a cross-encoder say how far each positive lies above its negatives."),
    "audit": ("logs.audit", "Say how many mined negatives are probably answers."),
    "train": ("training.train", "Train a query adapter, LoRA or the whole encoder."),
    "merge": ("training.merge", "Average a model with the one it was trained from."),
    "improve": ("training.improve", "Make a better encoder of traces, or a log, and what users said."),
    "prove": ("training.prove", "Measure a trained model on held-out queries."),
    "evaluate": ("evaluate", "Measure retrieval on judged queries, and whether another system is better."),
    "benchmark": ("benchmark", "Run every task that a folder of data holds."),
    "monitor": ("logs.monitor", "Compare the last days of a retrieval log with the weeks before."),
    "canary": ("logs.monitor", "Ask queries whose answers are known."),
    "push": ("sharing.push", "Give a trained model to a model hub."),
    "mcp": ("sharing.mcp", "Offer collections to language models, by the Model Context Protocol."),
    "demo": ("demo", "Run the whole loop on Python's own documentation."),
}
"""Command -> the module of this folder whose `app` holds it, or is a group of this name; and one line of help."""


class LazyCommands(TyperGroup):
    """Commands that are imported when they are called, as in click's "lazily loading subcommands"."""

    _only_named = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if self._only_named:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name][1])
        module = import_module(f"llama_index_embed_plus.cli.{COMMANDS[cmd_name][0]}")
        # not `get_command`, which makes no group of an app with one command
        group = typer.main.get_group(module.app)
        # a module's app is the group of this name, or holds the command
        return plain(group if group.name == cmd_name else group.commands[cmd_name])

    # for the same reason: a person waits for what the tab key finds
    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        self._only_named = True
        return super().shell_complete(ctx, incomplete)

    # the inherited one takes the help from the commands, and would import every module
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(
    cls=LazyCommands,
    help="Index, search and improve text retrieval with LlamaIndex and Qdrant.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # usage errors as plain lines
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"embed-plus {version('llama-index-embed-plus')}")
        raise typer.Exit


# an app without commands of its own is a group only if it has a callback
@app.callback()
def commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Index, search and improve text retrieval with LlamaIndex and Qdrant."""


def main() -> None:
    """Run the command line. Exit code 0, 1 for an error, 2 for wrong usage."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bars a person sees are ours, one per step
    with _shown_streams():
        raise SystemExit(_run())


def _run() -> int:
    try:
        # not standalone: typer would print usage errors on four lines
        code = app(prog_name="embed-plus", standalone_mode=False)
        sys.stdout.flush()  # here, where an error of writing is told
    except KeyboardInterrupt:
        return 130
    except typer.Abort:
        return _failed("nobody answered", 1)
    except PlusError as error:
        root, words = typer.main.get_command(app), sys.argv[1:]
        line = mistakes.swapped(root, words)
        if line:
            return _failed(f"{_told(error)}; the collection comes first: {line}", 2)
        code = 2 if isinstance(error, UsageError) else 1
        return _failed(mistakes.leading_on(_told(error), error, root, words), code)
    except OSError as error:
        return 1 if _reader_has_gone(error) else _failed(error, 1)
    except BaseException as error:
        code = _usage_error(error)
        if code is None and (isinstance(error, SystemExit) or os.environ.get(TRACEBACK_VARIABLE)):
            raise
        return _failed(_unexpected(error), 1) if code is None else code
    return code if isinstance(code, int) else 0


def _usage_error(error: Any) -> int | None:
    """Tell what typer says of the arguments, and give its exit code; None for another error."""
    # by the name and the method: the classes belong to the copy of click inside typer
    if not hasattr(error, "format_message"):
        return None
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        _failed(mistakes.told(error, typer.main.get_command(app), sys.argv[1:]), 2)
    return int(error.exit_code)


def _unexpected(error: BaseException) -> str:
    """What to say of an error that nobody foresaw. Panics of Rust libraries are none of `Exception`."""
    return (
        f"unexpected {type(error).__name__} ({first_line(error)}): a fault of this program or of a library; "
        f"{TRACEBACK_VARIABLE}=1 shows where"
    )


def _told(error: PlusError) -> str:
    # this way out of many errors is an argument in Python, and an option here
    return (error.on_command_line or str(error)).replace("backend='torch'", "--backend torch")


def _failed(error: object, code: int) -> int:
    line = " ".join(without_keys(str(error)).split())
    if len(line) > LONGEST_ERROR:
        # the way out stands at the end
        line = f"{line[: LONGEST_ERROR // 2]} ... {line[-LONGEST_ERROR // 2 :]}"
    print(f"error: {line}", file=sys.stderr)
    return code


def _reader_has_gone(error: OSError) -> bool:
    """Whether the reader of our output closed its end, as in `embed-plus ... | head -1`."""
    if not isinstance(error, BrokenPipeError):
        return False
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


class _ShownStream:
    """A stream whose texts steer no terminal: for the warnings, logs and usage errors that `console` does not print."""

    def __init__(self, stream: Any, shown: Callable[[str], str]) -> None:
        # rich looks for this name and writes past us: its colours are escapes, and `console` has made its texts visible
        self.rich_proxied_file = stream
        self._shown = shown

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(self._shown(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def _shown_streams() -> Iterator[None]:
    before = sys.stdout, sys.stderr
    # None: the shell has closed it
    streams = [stream or open(os.devnull, "w", encoding="utf-8") for stream in before]  # noqa: SIM115
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = _ShownStream(streams[0], lambda text: visible(text, lines=True))
    # results may hold URLs with keys; what goes to stderr is about the run
    sys.stderr = _ShownStream(streams[1], lambda text: without_keys(visible(text, lines=True)))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            _emptied(stream)


def _emptied(stream: Any) -> None:
    """Flush; what cannot be written has been told, and must not be tried again when Python ends."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
