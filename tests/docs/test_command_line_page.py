"""The page on the command line cannot lie: its table is that of the program, its options and variables exist.

`python tests/docs/test_command_line_page.py` writes the table anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import typer

from llama_index_embed_plus.cli.app import app
from llama_index_embed_plus.cli.shell.forms import commands_of, synopsis

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
BEGIN, END = "<!-- commands -->\n", "<!-- end of commands -->"
COMMANDS = dict(commands_of(typer.main.get_command(app)))


def table() -> str:
    rows = ["| command | what it does |", "|---|---|"]
    for name, command in COMMANDS.items():
        help_text = " ".join(command.help.partition("\n\n")[0].split()).replace("|", "\\|")
        rows.append(f"| `{' '.join(filter(None, [name, synopsis(command)]))}` | {help_text} |")
    return "\n".join(rows) + "\n"


def test_the_table_is_that_of_the_program():
    assert PAGE.read_text().partition(BEGIN)[2].partition(END)[0] == table()


def test_the_options_that_are_named_are_those_of_commands():
    known = {option for command in COMMANDS.values() for each in command.params for option in each.opts}
    known |= {option for command in COMMANDS.values() for each in command.params for option in each.secondary_opts}
    named = set(re.findall(r"`(--?[a-z][a-z-]*)`", PAGE.read_text())) - {"--install-completion", "--show-completion"}
    assert named and named <= known


def test_the_variables_are_those_that_the_program_reads():
    sources = "".join(
        file.read_text()
        for package in ("llama_index_embed_plus", "qdrant_tools")
        for file in (PAGE.parents[1] / package).rglob("*.py")
    )
    listed = set(re.findall(r"^\| `([A-Z_]+)`", PAGE.read_text(), flags=re.M))
    assert set(re.findall(r"EMBED_PLUS_[A-Z_]+", sources)) | {"QDRANT_API_KEY"} <= listed
    assert all(name in sources for name in listed)


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}")
