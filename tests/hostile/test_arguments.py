"""Every parameter of every command gets what nobody would type: one line and 1 or 2, or a result; never a traceback."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest
import typer
from texts import STEERING, steers

from llama_index_embed_plus.cli.app import app
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.log.records import LoggedHit, LoggedSearch
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.records import Passage

HOSTILE = [
    *("", "/", "~nobody/x", "-", "x" * 300, "a\x00b", "%s{0}[/nope]", STEERING["title"], STEERING["surrogate"]),
    *("/dev/zero", "pipe", "folder", "link", "log.sqlite", "-1", "1e400", "9" * 5000, "1" * 30, "nan"),
    *('{"a":' * 2000, "a,b,,", "0001-01-01T00:00:00+00:00", "http://user:hunter2@127.0.0.1:1", "http://[::1"),
]
VALUES = {
    "location": "data",
    "collection": "docs",
    "name": "docs",
    "alias": "docs",
    "new_name": "new",
    "model": "no/such",
    "log": "log.sqlite",
    "queries": "queries.jsonl",
    "qrels": "qrels.tsv",
    "question": "x",
    "source": "texts",
    "examples": "examples.jsonl",
    "out": "out",
    "target": "target",
    "base": "no/such",
    "tuned": "no/such",
    "canaries": "canaries.jsonl",
    "folder": "folder",
    "days": "7",
}
"""What the other parameters are. The model is none, so that no command gets as far as work."""
TOO_MUCH = {("demo",)}
"""Commands that work without a model."""


def commands(group, path=()):
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        elif (*path, name) not in TOO_MUCH:
            yield (*path, name), [each for each in command.params if not getattr(each, "is_flag", False)]


COMMANDS = dict(commands(typer.main.get_command(app)))


class Encoder:
    dimension, space = 2, "two@000000000000"

    def encode_passages(self, texts):
        return np.tile(np.float32([1, 0]), (len(texts), 1))

    encode_queries = encode_passages


@pytest.fixture
def workplace(tmp_path):
    with closing(connect(tmp_path / "data")) as client:
        CollectionManager(client).ensure("docs", Encoder()).index([Passage("a", "text")])
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        hits = (LoggedHit("a", 1, 0.5),)
        log.extend([LoggedSearch("s", datetime.now(UTC), "q", "docs", "two@000000000000", hits, ())])
    os.mkfifo(tmp_path / "pipe")
    for folder in ("folder", "texts"):
        (tmp_path / folder).mkdir()
    (tmp_path / "texts" / "a.txt").write_text("hello")
    (tmp_path / "link").symlink_to("texts/a.txt")
    (tmp_path / "queries.jsonl").write_text('{"id": "q", "text": "hello"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    (tmp_path / "examples.jsonl").write_text(
        '{"query": "q", "positives": [{"id": "a", "text": "t", "score": 1.0}], "negatives": [], "weight": 1.0}\n'
    )
    (tmp_path / "canaries.jsonl").write_text("{}\n")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_argument_ends_in_a_traceback(run, workplace, outside, command):
    # EMBED_PLUS_TRACEBACK is set here: an error that nobody foresaw fails the test
    for place, hostile in enumerate(COMMANDS[command]):
        # a third of them each, others for the next parameter: a command has many, and meets every text
        for text in HOSTILE[place % 3 :: 3]:
            if hostile.name == "source" and text in ("/", "..", ".", "  "):
                continue  # honest folders, and the first has every file of the machine
            arguments = []
            for each in COMMANDS[command]:
                value = text if each is hostile else VALUES.get(each.name)
                if value is None or (
                    each is not hostile and not each.required and each.name not in ("location", "model")
                ):
                    continue
                if each.param_type_name == "argument":
                    arguments.append(value)
                else:
                    option = max(each.opts, key=len)
                    arguments += [f"{option}={value}"] if option.startswith("--") else [option, value]
            code, out, err = run(*command, *arguments)
            shown = (hostile.name, text[:40], err)
            assert code in (0, 1, 2, 3, 4), shown
            assert not steers(out) and not steers(err), shown
            assert "hunter2" not in err, shown
            lines = [line for line in err.splitlines() if line.strip() and not line.startswith("done ")]
            if code in (1, 2):
                assert len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) < 2100, shown
