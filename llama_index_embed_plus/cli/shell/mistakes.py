"""What was typed and is no command of ours -> one line that says what is wrong, and the line that was meant.

Guarantees: a line is proposed only if the program would take it, and never run.
Does not know: what the commands do.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llama_index_embed_plus.cli.shell.forms import name_of, synopsis
from qdrant_tools.errors import CollectionNotFoundError, PlusError

MEANT = {
    **dict.fromkeys(("add", "ingest", "upsert", "embed", "sync", "create"), "index"),
    **dict.fromkeys(("query", "ask", "find", "retrieve"), "search"),
    **dict.fromkeys(("list", "ls", "collections", "status", "info"), "collection list"),
    **dict.fromkeys(("drop", "rm", "remove", "delete"), "collection drop"),
    **dict.fromkeys(("import", "logs"), "log import"),
    **dict.fromkeys(("stats", "statistics"), "log stats"),
    **dict.fromkeys(("snapshot", "backup"), "collection snapshot"),
    **dict.fromkeys(("finetune", "fine-tune", "fit", "adapt"), "train"),
    **dict.fromkeys(("eval", "measure", "compare"), "evaluate"),
    **dict.fromkeys(("switch", "deploy", "serve", "rollback"), "promote"),
    **dict.fromkeys(("convert", "onnx", "quantize"), "export"),
    **dict.fromkeys(("check", "test", "verify"), "prove"),
    **dict.fromkeys(("upload", "publish"), "push"),
    "version": "--version",
    "help": "--help",
}
"""What people may call it -> what it is called here."""
RENAMED = {"--page": "--plot", "--no-page": "--no-plot", "--force": "--yes", "--folder": "--out", "--output": "--out"}
"""Options of earlier releases and of other programs -> ours, where the command has that and not the other."""
NAMES_A_COMMAND = re.compile(r"embed-plus [a-z-]|pip install|docker ")
FILES = ("SOURCE", "LOG", "QUERIES", "FILE", "CANARIES")
"""Arguments behind COLLECTION that name something on the disk."""


@dataclass
class _Typed:
    """What was typed behind the name of a command."""

    positionals: list[str]
    options: list[list[str]]
    """Each with its value, if it has one."""

    def take(self, name: str) -> str | None:
        """The value of an option, which goes."""
        for option in self.options:
            if option[0] == name and len(option) == 2:
                self.options.remove(option)
                return option[1]
        return None

    def words(self) -> list[str]:
        return [*self.positionals, *(word for option in self.options for word in option)]


def told(error: Any, root: Any, words: Sequence[str]) -> str:
    """The line for an error of typer, whose words are `words`; `root` is the command that has all others."""
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None:
        return str(message)
    way_out = f"see {context.command_path} --help"
    if message.startswith("No such command") and "Did you mean" not in message:
        return f"{message}{_named_like(context, words)} ({way_out})"
    line = meant(root, words)
    if line is not None:
        return f"{message}; write: {line}"
    if message.startswith(("Missing", "Got unexpected")):
        way_out = f"usage: {context.command_path} {synopsis(context.command)}; {way_out}"
    return f"{message} ({way_out})"


def leading_on(message: str, error: PlusError, root: Any, words: Sequence[str]) -> str:
    """The line of an error, with a command that leads on, if the line names none."""
    if NAMES_A_COMMAND.search(message):
        return message
    found = _command(root, words)
    if found is None:
        return message
    path, command, rest = found
    typed = _typed(command, rest)
    if typed is not None and "--yes " in message:
        line = _accepted(path, command, _Typed(typed.positionals, [*typed.options, ["--yes"]]))
        if line is not None:
            return f"{message}; write: {line}"
    if isinstance(error, CollectionNotFoundError):
        there = [option for option in (typed.options if typed else []) if option[0] == "--location"]
        listing = shlex.join(["embed-plus", "collection", "list", *(word for option in there for word in option)])
        return f"{message} ({listing} shows them)"
    return f"{message} (see embed-plus {' '.join(path)} --help)"


def swapped(root: Any, words: Sequence[str]) -> str | None:
    """The line that was meant, if what stands in the place of the collection is a file, and the other way round."""
    found = _command(root, words)
    if found is None:
        return None
    path, command, rest = found
    names = [name_of(each) for each in command.params if each.param_type_name == "argument"]
    typed = _typed(command, rest)
    if typed is None or len(typed.positionals) < 2 or names[:1] != ["COLLECTION"] or names[1] not in FILES:
        return None
    first, second = typed.positionals[:2]
    if not Path(first).exists() or Path(second).exists() or "/" in second:
        return None
    typed.positionals[:2] = [second, first]
    return _accepted(path, command, typed)


def meant(root: Any, words: Sequence[str]) -> str | None:
    """The line that was meant by one in the form of an earlier release, if this release takes it so."""
    found = _command(root, words)
    if found is None:
        return None
    path, command, rest = found
    typed = _typed(command, rest)
    if typed is None:
        return None
    before = typed.words()
    arguments = [name_of(each) for each in command.params if each.param_type_name == "argument"]
    named = [each for each in command.params if each.param_type_name == "option"]
    options = {name for each in named for name in (*each.opts, *each.secondary_opts)}
    if "COLLECTION" in arguments and "--collection" not in options:
        _collection_first(typed, options)
    if "--out" in options and not _has(typed, "--out") and len(typed.positionals) > len(arguments):
        typed.options.append(["--out", typed.positionals.pop()])
    if path == ["merge"] and len(typed.positionals) == 2 and not _has(typed, "--base"):
        typed.options += [["--base", typed.positionals[0]], ["--model", typed.positionals[1]]]
        typed.positionals.clear()
    for option in typed.options:
        new = RENAMED.get(option[0])
        if new in options and option[0] not in options:
            option[0] = str(new)
    typed.options = [option for place, option in enumerate(typed.options) if option not in typed.options[:place]]
    return None if typed.words() == before else _accepted(path, command, typed)


def _collection_first(typed: _Typed, options: set[str]) -> None:
    collection = typed.take("--collection")
    if collection is None:
        return
    # what stood first was the model, or the two of a merge
    if "--base" in options and len(typed.positionals) == 2:
        typed.options.append(["--base", typed.positionals.pop(0)])
    if "--examples" in options or "--base" in options:
        typed.options += [["--model", model] for model in typed.positionals]
        typed.positionals.clear()
    typed.positionals.insert(0, collection)


def _has(typed: _Typed, name: str) -> bool:
    return any(option[0] == name for option in typed.options)


def _named_like(context: Any, words: Sequence[str]) -> str:
    """The command of a similar name, or of one that other programs use."""
    path = context.command_path.split()[1:]
    rest = list(words)
    if path and path[0] in rest:
        rest = rest[rest.index(path[0]) + len(path) :]
    typo = next((word for word in rest if not word.startswith("-")), "")
    known = list(context.command.list_commands(context))
    near = get_close_matches(typo, known, n=1)
    named = (MEANT.get(typo, "") if not path else "") or next(iter(near), "")
    if not named or (not named.startswith("--") and named.split()[0] not in known):
        return ""
    return f": did you mean `{' '.join([context.command_path, named])}`?"


def _command(root: Any, words: Sequence[str]) -> tuple[list[str], Any, list[str]] | None:
    """The command that is called, by which names, and the words behind it."""
    command, path, rest = root, [], list(words)
    while hasattr(command, "list_commands"):
        if not rest or rest[0] not in command.list_commands(None):
            return None
        path.append(rest.pop(0))
        command = command.get_command(None, path[-1])
    return path, command, rest


def _typed(command: Any, rest: Sequence[str]) -> _Typed | None:
    """Words -> positionals and options. None: an option without its value."""
    flags = {name for each in command.params if getattr(each, "is_flag", False) for name in each.opts}
    flags |= {name for each in command.params for name in each.secondary_opts}
    typed, left = _Typed([], []), list(rest)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            typed.positionals.append(word)
        elif equals:
            typed.options.append([name, value])
        elif name in flags or name in ("--page", "--no-page", "--force", "--help", "-h"):
            typed.options.append([name])
        elif not left:
            return None
        else:
            typed.options.append([name, left.pop(0)])
    return typed


def _accepted(path: list[str], command: Any, typed: _Typed) -> str | None:
    """The line, if the command takes it."""
    try:
        command.make_context(path[-1], typed.words(), resilient_parsing=False)
    except Exception:  # whatever is wrong with it, it is no help
        return None
    return f"embed-plus {shlex.join([*path, *typed.words()])}"
