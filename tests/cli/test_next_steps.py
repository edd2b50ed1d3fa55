"""Commands end with the one that leads on, and errors name commands where the library names Python."""

from __future__ import annotations

import re
import shlex

import pytest
from command_line import error_line

from llama_index_embed_plus.cli import console
from llama_index_embed_plus.cli.opened import command_of
from qdrant_tools.errors import CollectionError


def next_of(stderr: str) -> list[str]:
    """The words of the last line, without `next: embed-plus`."""
    last = stderr.splitlines()[-1]
    assert last.startswith("next: embed-plus "), stderr
    return shlex.split(last)[2:]


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "my notes"
    folder.mkdir()
    (folder / "bees.txt").write_text("Bees fly from flower to flower and make honey in their hive.")
    return folder


def test_each_command_leads_to_one_that_runs(run, notes):
    code, _, err = run("inspect", "my notes")
    assert code == 0 and next_of(err) == ["index", "docs", "my notes"]
    code, _, err = run(*next_of(err), "--location", "else where")
    assert code == 0 and next_of(err) == ["search", "docs", "your question", "--location", "else where"]
    assert run(*next_of(err))[0] == 0
    code, _, err = run("collection", "alias", "live", "docs", "--location", "else where")
    assert code == 0 and run(*next_of(err))[0] == 0
    code, _, err = run("collection", "snapshot", "docs", "--out", "s", "--location", "else where")
    assert next_of(err) == ["collection", "restore", "docs-restored", "s", "--location", "else where"]
    code, _, err = run(*next_of(err))
    assert code == 0 and run(*next_of(err))[0] == 0
    code, out, err = run("index", "docs", "my notes", "--location", "else where", "--json")
    assert code == 0 and "next:" not in err, "JSON is for programs"


def test_a_command_names_location_and_model_only_where_they_are_not_those_taken_without(monkeypatch):
    assert command_of("search", "docs", location="embed-plus-data", model="all-MiniLM-L6-v2") == "search docs"
    assert command_of("log stats", "a b", location="x", model="y") == "log stats 'a b' --location x --model y"
    monkeypatch.setenv("EMBED_PLUS_LOCATION", "x")
    monkeypatch.setenv("EMBED_PLUS_MODEL", "y")
    assert command_of("search", "docs", location="x", model="y") == "search docs"
    assert command_of("search", "docs", location="embed-plus-data").endswith(" --location embed-plus-data")


def test_an_error_carries_both_ways_out(monkeypatch, run):
    error = CollectionError("docs is small").with_way_out(python="call build_index()", command="collection wait docs")
    assert str(error) == "docs is small: call build_index()" and isinstance(error, CollectionError)

    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr("llama_index_embed_plus.cli.collections.managed", fails)
    assert error_line(run("collection", "list")[2]) == "error: docs is small: embed-plus collection wait docs"


def test_no_message_of_the_road_from_a_log_names_python_alone(run, notes):
    run("index", "docs", "my notes")
    for arguments, command in (
        (("search", "docs", "x", "--mode", "lexical"), "embed-plus collection add-lexical docs"),
        (("promote", "run", "docs", "--model", "all-MiniLM-L6-v2"), "say --yes to make the alias"),
    ):
        code, _, err = run(*arguments)
        line = error_line(err)
        assert code in (1, 2) and command in line and not re.search(r"\w\(", line)


def test_a_step_says_how_much_how_fast_and_how_long_yet_also_in_a_log_file(monkeypatch, capsys):
    monkeypatch.setattr(console, "TOLD_EVERY", 0.0)
    with console.ConsoleReporter().step("embed docs", 4000, "passages") as advance:
        advance(1000)
        advance(3000)
    half, whole, done = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"embed docs  1,000 of 4,000 passages, [\d,]+/s, \d+:\d\d left", half)
    assert re.fullmatch(r"embed docs  4,000 of 4,000 passages, [\d,]+/s, 0:00 left", whole)
    assert done.startswith("done embed docs ")
    with console.ConsoleReporter().step("read", None) as advance:
        advance(1)
    assert re.fullmatch(r"read  1, [\d,.]+/s", capsys.readouterr().err.splitlines()[0])


def test_nothing_is_cut_at_the_width_of_a_screen_where_there_is_none(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    console.show_table(["a", "b"], [["x" * 70, "y" * 70]])
    console.paragraph("word " * 35, most=1)
    assert f"{'x' * 70} │ {'y' * 70}" in (shown := capsys.readouterr().out) and "..." not in shown
    monkeypatch.setenv("COLUMNS", "60")
    console.paragraph("word " * 35, most=1)
    assert capsys.readouterr().out.endswith(" ...\n")
