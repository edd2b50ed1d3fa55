"""How commands are shown: their arguments in capitals, their options with what they take, as plain text.

Guarantees: the same form for every command, whatever typer makes of its types. Does not know: what a command does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TAKES = {"integer": "N", "int": "N", "float": "NUMBER", "path": "PATH", "file": "PATH", "directory": "PATH"}
"""typer's name of a type -> what stands behind the option."""
NAMED = {"location": "PLACE", **dict.fromkeys(("model", "base", "before", "candidate", "judge"), "MODEL")}
"""Options that take a text of some kind."""


def plain(command: Any) -> Any:
    """The command, or group with all below it, that shows its help as plain text without the names of types."""
    command.rich_markup_mode = None
    for each in getattr(command, "commands", {}).values():
        plain(each)
    for each in command.params:
        if each.param_type_name == "argument":
            each.metavar = each.metavar or each.name.upper()
            shown = name_of(each)
            # the attributes of two versions of typer
            each.display_type_rich = each.display_type = lambda ctx=None: ""
            each._usage_display_name = lambda each=each, shown=shown: shown if each.required else f"[{shown}]"
        elif not getattr(each, "is_flag", False):
            each.metavar = each.metavar or _taken(each)
    return command


def name_of(parameter: Any) -> str:
    """The name of an argument, or of what an option takes, in capitals."""
    default = parameter.name if parameter.param_type_name == "argument" else parameter.opts[-1].strip("-")
    name = str(parameter.metavar or default.upper()).strip("[].")
    return f"{name}..." if parameter.nargs == -1 else name


def synopsis(command: Any) -> str:
    """The arguments of a command, and the options that it cannot do without: `COLLECTION LOG --out PATH`."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.required]
    parts = [name_of(each) if each.required else f"[{name_of(each)}]" for each in arguments]
    return " ".join(parts + [f"{max(each.opts, key=len)} {name_of(each)}" for each in options])


def commands_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command with its whole name, those of groups too."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from commands_of(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def _taken(option: Any) -> str:
    descriptor = getattr(option, "type_descriptor", None)
    choices = getattr(descriptor, "choices", None) or getattr(getattr(option, "type", None), "choices", None)
    if choices:
        return "|".join(str(getattr(each, "value", each)) for each in choices)
    shown = str(option.display_type(None)) if hasattr(option, "display_type") else str(option.type.name)
    for name, taken in TAKES.items():
        if name in shown.lower():
            return taken
    return NAMED.get(option.name, "TEXT")
