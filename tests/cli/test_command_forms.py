"""All commands are formed alike, and one that is typed otherwise is answered with the line that was meant."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import version

import pytest
import typer
from command_line import error_line

from llama_index_embed_plus.cli.app import COMMANDS, app
from llama_index_embed_plus.cli.shell.forms import commands_of

CALL = "from llama_index_embed_plus.cli import main; main()"


ALL = dict(commands_of(typer.main.get_command(app)))
SUBJECTS = {"COLLECTION", "ALIAS", "LOG", "EXAMPLES", "MODEL", "SOURCE", "DATA"}
"""What commands may be about, and is their first argument then."""


def of(command, kind: str) -> list:
    return [each for each in command.params if each.param_type_name == kind and not getattr(each, "hidden", False)]


def called(parameter) -> str:
    return (parameter.metavar or parameter.name.upper()).strip("[].")


def names(parameter) -> tuple[str, ...]:
    return (*parameter.opts, *parameter.secondary_opts)


@pytest.mark.parametrize("name", ALL)
def test_the_subject_of_a_command_comes_first(name):
    arguments = [called(each) for each in of(ALL[name], "argument")]
    options = {option for each in of(ALL[name], "option") for option in names(each)}
    assert not arguments or arguments[0] in SUBJECTS
    assert "--collection" not in options or arguments[0] == "LOG", "a collection is the first argument"
    assert "OUT" not in arguments and not options & {"--page", "--no-page", "--output", "--folder"}
    if "MODEL" in arguments:
        assert arguments[0] == "MODEL" and "--model" not in options
    if "--model" in options and arguments[:1] == ["COLLECTION"] and "--base" not in options:
        assert "--location" in options


@pytest.mark.parametrize("name", ALL)
def test_every_help_text_is_a_sentence(name):
    command = ALL[name]
    texts = {name: command.help.partition("\n\n")[0]} | {" ".join(names(each)): each.help for each in command.params}
    for where, text in texts.items():
        assert text, where
        assert re.match(r"""["'A-Z`]""", text) and text.endswith((".", ".)")), f"{where}: {text!r}"
        assert not re.match(r"(Of|Or|The same|Those|Among)\b", text), f"{where}: {text!r}"
        assert ".md" not in text.replace("*.md", "").replace("docs/guide.md", ""), (
            f"{where}: who used pip has no {text!r}"
        )


def test_options_of_one_name_mean_the_same():
    helps = defaultdict(set)
    for command in ALL.values():
        for each in of(command, "option"):
            helps["/".join(names(each))].add(each.help)
    for option in ("--location", "--backend", "--overwrite", "--seed", "--plot/--no-plot"):
        assert len(helps[option]) == 1, (option, helps[option])
    assert all(text.startswith("Print ") for text in helps["--json"])


@pytest.mark.parametrize("name", ALL)
def test_help_shows_what_is_taken_if_nothing_is_said_and_no_noise_of_types(name):
    out = ALL[name].make_context(name, [], resilient_parsing=True).get_help()
    assert not re.search(r"<\w|list\[", out)
    shown = "".join(out.split())
    for each in of(ALL[name], "option"):
        if isinstance(each.default, int | float | str) and not isinstance(each.default, bool) and each.default != "":
            assert f"default:{each.default}".replace(" ", "") in shown, each.opts


MEANT = {
    "index notes --collection docs": "index docs notes",
    "index --collection docs notes --late": "index docs notes --late",
    "mine docs log.sqlite out.jsonl": "mine docs log.sqlite --out out.jsonl",
    "margins e.jsonl out.jsonl --judge j": "margins e.jsonl --judge j --out out.jsonl",
    "train base --examples e.jsonl --collection docs --out o --no-page": (
        "train docs --examples e.jsonl --out o --no-plot --model base"
    ),
    "merge base tuned --out o --coefficient 0.5": "merge --out o --coefficient 0.5 --base base --model tuned",
    "merge base tuned --out o --queries q --qrels r --collection docs": (
        "merge docs --out o --queries q --qrels r --base base --model tuned"
    ),
    "export m out": "export m --out out",
    "log export log.sqlite out.jsonl": "log export log.sqlite --out out.jsonl",
    "canary freeze docs q.txt out.jsonl": "canary freeze docs q.txt --out out.jsonl",
    "collection snapshot docs x.snap": "collection snapshot docs --out x.snap",
    "collection drop docs --force": "collection drop docs --yes",
    "monitor docs log.sqlite --no-page": "monitor docs log.sqlite --no-plot",
}


@pytest.mark.parametrize("typed", MEANT)
def test_an_earlier_form_is_answered_with_the_line_that_was_meant(run, tmp_path, typed):
    code, out, err = run(*typed.split())
    assert (code, out) == (2, "") and error_line(err).endswith(f"; write: embed-plus {MEANT[typed]}")
    assert list(tmp_path.iterdir()) == []


def test_no_line_is_proposed_that_the_program_would_not_take(run):
    code, _, err = run("index", "notes", "--collection", "docs", "--overlap", "many")
    assert code == 2 and "write:" not in err and "see embed-plus index --help" in error_line(err)


@pytest.mark.parametrize(
    "typed", ["index notes docs", "mine notes docs --out x", "monitor notes docs", "canary run notes docs"]
)
def test_swapped_arguments_are_answered_with_the_right_order(run, tmp_path, typed):
    (tmp_path / "notes").mkdir()
    code, _, err = run(*typed.split())
    first, second = typed.split(" notes docs")
    assert code == 2
    assert error_line(err).endswith(f"the collection comes first: embed-plus {first} docs notes{second}")


@pytest.mark.parametrize(
    ("typed", "named"),
    [("serch", "search"), ("ingest x", "index"), ("finetune", "train"), ("ls", "collection list")],
)
def test_a_misspelt_command_names_the_nearest(run, typed, named):
    code, _, err = run(*typed.split())
    assert code == 2 and f"did you mean `embed-plus {named}`?" in error_line(err)
    assert "Did you mean 'list'" in error_line(run("collection", "lst")[2])


def test_what_is_missing_is_told_with_the_whole_form(run):
    assert error_line(run("index", "docs")[2]).endswith(
        "(usage: embed-plus index COLLECTION SOURCE; see embed-plus index --help)"
    )


def test_the_version_is_printed_and_h_is_help(run):
    assert run("--version")[:2] == (0, f"embed-plus {version('llama-index-embed-plus')}\n")
    for words in ((), ("index",), ("collection",), ("collection", "list")):
        assert run(*words, "-h")[:2] == run(*words, "--help")[:2]


def completed(line: str, shell: str) -> str:
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    told = {
        "_EMBED_PLUS_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    heavy = "import sys; sys.modules |= dict.fromkeys(('numpy', 'qdrant_client', 'llama_index.core'))\n"
    call = (heavy if len(words) == 2 else "") + CALL
    return subprocess.run([sys.executable, "-c", call], env=os.environ | told, capture_output=True, text=True).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_tab_key_finds_commands_without_loading_them_and_what_they_take(shell):
    found = completed("embed-plus ", shell)
    assert all(name in found for name in COMMANDS)
    assert "snapshot" in completed("embed-plus collection sn", shell)
    assert "--mode" in completed("embed-plus search --mo", shell)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown_for_each_shell(shell):
    env = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-c", CALL, "--show-completion", shell]
    assert f"complete_{shell}" in subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
