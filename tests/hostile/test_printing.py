"""Nothing that is printed steers the terminal, whoever wrote it: passages, ids, queries, names, paths, arguments."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import MARKUP, STEERING, steers

from llama_index_embed_plus.cli import console
from llama_index_embed_plus.cli.app import _shown_streams, main
from llama_index_embed_plus.cli.documents.hits import EXCERPT_LINES, Shown, show_hits, show_stretches
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import visible, without_keys
from qdrant_tools.log.records import LoggedHit, LoggedSearch
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.records import Hit, Passage
from qdrant_tools.search.around import Stretch

ALL = "".join(text for name, text in STEERING.items())
STORABLE = "".join(text for name, text in STEERING.items() if name != "surrogate")


@given(st.text(st.characters(codec=None), max_size=50))
def test_a_line_is_visible_and_the_rest_stays(text):
    line = visible(text)
    assert not steers(line.replace("\u200c", "").replace("\u200d", ""), lines=False)
    if not steers(text, lines=False):
        assert line == text


def test_what_people_write_stays_as_it_is():
    for text in ("naïve Ångström 漢字", "می‌خواهم", "क्‍ष", "👩‍💻 🏳️‍🌈", "a\u00a0b"):
        assert visible(text) == text
    assert visible("a\tb\nc", lines=True) == "a\tb\nc"
    assert visible("a\tb\nc\x1b") == r"a\tb\nc\x1b"


@pytest.fixture
def printed(monkeypatch):
    """Run `call()` between the streams of a terminal of some encoding; returns what was written to each."""

    def printed(call, encoding="utf-8"):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        call()
        monkeypatch.undo()
        return tuple(stream.buffer.getvalue().decode(encoding) for stream in streams)

    return printed


@given(st.dictionaries(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)), max_size=3))
def test_a_line_of_json_is_visible_and_holds_the_same_values(row):
    before, sys.stdout = sys.stdout, io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    try:
        console.print_json(row)
        line = sys.stdout.buffer.getvalue().decode()
    finally:
        sys.stdout = before
    assert not steers(line)
    # a pair of surrogates is one character of JSON
    assert json.loads(line) == json.loads(json.dumps(row))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
def test_json_is_json_in_every_encoding(printed, encoding):
    row = {"text": f"naïve 漢字 👩 {STORABLE}"}
    out, _ = printed(lambda: console.print_json(row), encoding)
    assert not steers(out)
    assert json.loads(out) == row


@pytest.mark.parametrize("text", [*STEERING.values(), *MARKUP])
def test_every_way_to_print_shows_escapes_and_no_markup(printed, text):
    def call():
        console.say(text)
        console.note(text)
        hits = [Hit(text, 1.0, 1, text, {"file_path": text, "header_path": text, "page_label": text})]
        show_hits(text, hits)
        show_hits(text, hits, full=True)
        show_stretches(text, [Stretch(tuple(hits), (Passage(text, text),))], [Shown(hit) for hit in hits])
        console.show_table([text], [[text]], title=text)
        with console.ConsoleReporter().step(text, None):
            pass
        with console.changing_line(text) as change:
            change(text)

    out, err = printed(call)
    assert not steers(out) and not steers(err)
    line = visible(text)
    assert out.splitlines()[0] == line == err.splitlines()[0]
    assert f"done {line} 0.0 s" in err


@pytest.mark.parametrize("text", [*STEERING.values(), *MARKUP])
def test_a_bar_on_a_terminal_shows_escapes_and_no_markup(monkeypatch, text):
    written = io.StringIO()
    monkeypatch.setattr(console.err, "_file", written)
    monkeypatch.setattr(console.err, "_force_terminal", True)
    with console.ConsoleReporter().step(text, 3) as advance:
        advance(1)
    shown = visible(text)
    # its own colours are escapes
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue()).replace("\r", "")
    assert not steers(plain)
    assert shown.split()[0][:10] in plain


@pytest.mark.parametrize("arguments", [["NAME"], ["search", "NAME"], ["index", "NAME", "NAME"],
    ["describe", "NAME"], ["search", "docs", "x", "--NAME"], ["search", "docs", "x", "-k", "NAME"],
    ["search", "docs", "x", "--backend", "NAME"], ["log", "NAME"], ["log", "show", "NAME"],
    ["search", "a", "b", "NAME"], ["collection", "list", "--location", "NAME"],
    ["search", "NAME", "x", "--location", "NAME"]],
    ids=" ".join)  # fmt: skip
def test_an_argument_that_is_repeated_in_an_error_is_one_visible_line(monkeypatch, printed, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    for text in (ALL.replace("\x00", ""), *MARKUP):
        monkeypatch.setattr(sys, "argv", ["embed-plus", *(part.replace("NAME", text) for part in arguments)])
        monkeypatch.delenv("EMBED_PLUS_TRACEBACK", raising=False)

        def call():
            with pytest.raises(SystemExit) as stop:
                main()
            assert stop.value.code in (1, 2)

        out, err = printed(call)
        assert out == ""
        assert not steers(err)
        assert err.startswith("error: ") and err.count("\n") == 1 and "error: unexpected" not in err


def test_warnings_and_logs_of_libraries_are_visible_and_hold_no_keys(printed):
    def call():
        with _shown_streams():
            message = f"see http://user:hunter2@host/?api_key=hunter2 {ALL}"
            # as `warnings.warn` does, which pytest takes over
            sys.stderr.write(warnings.formatwarning(message, UserWarning, "x.py", 1))
            handler = logging.StreamHandler()
            handler.emit(logging.LogRecord("x", 30, "x", 1, f"http://hunter2@host {ALL}", (), None))

    out, err = printed(call)
    assert not steers(err) and out == ""
    assert "hunter2" not in err and "***@host" in err


class Encoder:
    dimension, space = 2, "two@000000000000"

    def encode_passages(self, texts):
        return np.tile(np.float32([1, 0]), (len(texts), 1))

    encode_queries = encode_passages


@pytest.fixture
def hostile_location(tmp_path):
    """A collection and a log whose names, ids, texts and queries are hostile."""
    with closing(connect(tmp_path / "data")) as client:
        manager = CollectionManager(client)
        docs = manager.ensure("docs", Encoder())
        docs.index([Passage(f"id{STORABLE}", f"text {STORABLE}", {"source": STORABLE})])
        manager.switch_alias(f"alias{STEERING['title']}{STEERING['right to left']}", "docs")
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        search = LoggedSearch(
            "s", datetime.now(UTC), f"query {STORABLE} [/nope]", f"docs{STORABLE}", f"space{STORABLE}",
            (LoggedHit(f"id{STORABLE}", 1, 0.5),), (),
        )  # fmt: skip
        log.extend([search])
    return tmp_path


COMMANDS = {
    "list": ["collection", "list", "--location", "data"],
    "describe": ["collection", "describe", "docs", "--location", "data"],
    "log show": ["log", "show", "log.sqlite"],
    "log stats": ["log", "stats", "log.sqlite"],
}


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_stored_is_shown_visibly(run, hostile_location, command, as_json):
    code, out, err = run(*COMMANDS[command], *(["--json"] if as_json else []))
    assert code == 0
    assert not steers(out) and not steers(err)
    if as_json:
        for line in out.splitlines():
            json.loads(line)


def test_hits_are_shown_visibly(printed):
    hit = Hit(f"id{ALL}", 0.5, 1, f"text {ALL} [/nope]", {})
    out, _ = printed(lambda: show_hits("q", [hit]))
    assert not steers(out)
    assert out.count("\n") == 2 + EXCERPT_LINES


def embed_plus(folder, *args, shell="", **environment):
    words = " ".join(args)
    code = "from llama_index_embed_plus.cli import main; import sys; sys.argv[0] = 'embed-plus'; main()"
    return subprocess.run(
        ["sh", "-c", f"{sys.executable} -c \"{code}\" {words} {shell}"],
        cwd=folder, capture_output=True, text=True, errors="surrogateescape", env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"},
     {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["ascii", "latin-1", "C"],
)  # fmt: skip
def test_a_terminal_without_unicode_gets_escapes(hostile_location, environment):
    done = embed_plus(hostile_location, "log", "show", "log.sqlite", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert not steers(done.stdout)


def test_output_that_cannot_be_written_is_one_line(hostile_location):
    done = embed_plus(hostile_location, "log", "show", "log.sqlite", shell="> /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(hostile_location):
    with RetrievalLog(hostile_location / "log.sqlite") as log:
        (search,) = log.searches()
        log.extend(replace(search, id=f"s{number}") for number in range(2000))
    done = embed_plus(hostile_location, "log", "show", "log.sqlite", "-n", "2000", shell="| head -c 10")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(hostile_location, closed):
    assert embed_plus(hostile_location, "log", "show", "log.sqlite", shell=closed).returncode == 0


def test_without_keys_takes_what_stands_for_a_key_out_of_every_url():
    text = "http://user:PA/S@S@host:1/x?api_key=KEY&b=2 then https://TOKEN@host, 'http://host/?k=KEY#KEY' mail@host"
    assert without_keys(text) == "http://***@host:1/x?*** then https://***@host, 'http://host/?***' mail@host"
    assert without_keys(str(Path("http://user:PASS@host/x"))) == "http:/***@host/x"
    assert without_keys("'http://user:it's@host'") == "'http://***@host'"
    assert without_keys("://'" * 100_000 + "a" * 100_000)
