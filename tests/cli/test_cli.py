"""The command line as a person meets it: results on stdout, one line for an error, exit codes 0, 1, 2."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import typer
from command_line import error_line

from llama_index_embed_plus.cli import app as app_module
from llama_index_embed_plus.cli.app import COMMANDS, app
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager


@pytest.fixture
def animals(tmp_path) -> Path:
    folder = tmp_path / "animals"
    folder.mkdir()
    (folder / "bees.txt").write_text("Bees fly from flower to flower and make honey in their hive.")
    (folder / "cats.txt").write_text("A cat sleeps most of the day and hunts mice at night.")
    (folder / "whales.md").write_text("Whales are the largest mammals and live in the ocean.")
    return folder


def test_index_then_search_finds_what_a_person_would_expect(run, animals):
    code, out, _ = run("index", "docs", animals)
    assert (code, out.splitlines()) == (
        0,
        [
            "docs: 3 added, 0 updated, 0 refreshed, 0 unchanged, 0 removed",
            "0 of 3 passages longer than the model reads (0.0% of the text)",
            "search is exact, among all 3 vectors: recall@10 1.000 against exact search, 1.000 with HNSW",
        ],
    )
    code, out, _ = run("search", "docs", "which animal produces something sweet?", "--json", "-k", 2)
    hits = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [hit["rank"] for hit in hits] == [1, 2]
    assert hits[0]["id"].startswith("animals/bees.txt#") and hits[0]["metadata"]["source"] == "animals"


def test_hits_are_printed_for_people_too(run, animals):
    run("index", "docs", animals)
    code, out, _ = run("search", "docs", "mammals of the sea")
    assert code == 0
    assert out.splitlines()[0] == "mammals of the sea"
    assert out.splitlines()[1].split()[0] == "1" and "animals/whales.md" in out.splitlines()[1]


def test_words_are_kept_and_searched_if_they_are_asked_for(run, animals):
    words = ("--lexical", "--stemming", "english", "--stop-words", "english")
    for _ in range(2):
        code, out, _ = run("index", "docs", animals, *words)
        assert code == 0 and out.startswith("docs: ")
    assert run("index", "docs", animals)[0] == 0, "it goes on with the words that it has"
    for mode in ("lexical", "hybrid"):
        code, out, _ = run("search", "docs", "the SLEEPING", "--mode", mode, "--json")
        assert code == 0 and json.loads(out.splitlines()[0])["metadata"]["file_name"] == "cats.txt"
    assert run("search", "docs", "of the", "--mode", "lexical", "--json")[0] == 0
    for arguments, message in (
        (("search", "docs", "x", "--mode", "hybrid", "--exact"), "--exact and --no-exact are for --mode dense"),
        (
            ("index", "docs", animals, "--lexical"),
            "was made with stemming english, stop words english, k1 1.2 and b 0.75",
        ),
        (("index", "new", animals, "--stemming", "english"), "give --lexical too"),
        (("index", "docs", animals, "--lexical"), "embed-plus collection add-lexical docs --again"),
        (
            ("index", "new", animals, "--lexical", "--stemming", "xx"),
            "stemming is 'xx', expected one of",
        ),
    ):
        code, _, err = run(*arguments)
        assert code in (1, 2) and message in error_line(err)


def test_indexing_twice_adds_nothing_and_says_so(run, animals):
    run("index", "docs", animals)
    code, out, _ = run("index", "docs", animals)
    assert code == 0
    assert out.splitlines() == [
        "docs: 0 added, 0 updated, 0 refreshed, 3 unchanged, 0 removed",
        "0 of 3 passages longer than the model reads (0.0% of the text)",
        "nothing to do: every passage was already indexed",
        "search is exact, among all 3 vectors: recall@10 1.000 against exact search",
    ]


def test_a_changed_file_is_updated(run, animals):
    run("index", "docs", animals)
    (animals / "cats.txt").write_text("Cats purr.")
    out = run("index", "docs", animals)[1]
    assert out.startswith("docs: 1 added, 0 updated, 0 refreshed, 2 unchanged, 1 removed")


def test_an_unknown_model_is_one_line(run, animals):
    code, _, err = run("index", "docs", animals, "--model", "no/such-model")
    assert code == 1
    assert "no/such-model" in error_line(err)


def test_an_unknown_folder_is_one_line_and_creates_nothing(run, tmp_path):
    code, _, err = run("index", "docs", "nowhere")
    assert code == 1
    assert "nowhere does not exist" in error_line(err)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_not_there_is_named_before_a_model_is_opened(run):
    code, _, err = run("index", "docs", "nowhere", "--model", "no-such-model")
    assert code == 1 and "nowhere does not exist" in error_line(err)


def test_an_empty_folder_is_one_line_and_creates_nothing(run, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = run("index", "docs", "empty")
    assert code == 1
    assert "empty holds no text" in error_line(err)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_searching_a_location_that_is_not_there_creates_nothing(run, tmp_path):
    code, _, err = run("search", "docs", "anything", "--location", "typo")
    assert code == 1
    assert "typo" in error_line(err)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_collection_is_one_line_that_lists_the_known_ones(run, animals):
    run("index", "docs", animals)
    code, _, err = run("search", "dogs", "anything")
    assert code == 1
    assert "'dogs'" in error_line(err) and "docs" in error_line(err)


@pytest.mark.parametrize("question", ["", "   "])
def test_an_empty_question_is_one_line(run, animals, question):
    run("index", "docs", animals)
    code, _, err = run("search", "docs", question)
    assert code == 1
    assert "empty" in error_line(err)


def test_a_row_whose_text_is_not_a_string_is_named_with_its_line(run, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": 3}\n')
    code, _, err = run("index", "docs", "rows.jsonl")
    assert code == 1
    assert "rows.jsonl:1: text is 3" in error_line(err)


class Foreign:
    """An encoder of another space; `dimension` decides whether it is also of another size."""

    def __init__(self, dimension: int) -> None:
        self.dimension, self.space = dimension, f"foreign-{dimension}@000000000000"

    def encode_passages(self, texts):
        return np.eye(self.dimension, dtype=np.float32)[: len(texts)]

    encode_queries = encode_passages


@pytest.mark.parametrize("dimension", [384, 7], ids=["same dimension", "other dimension"])
def test_a_collection_that_another_encoder_filled_is_refused(run, animals, dimension):
    with closing(connect("embed-plus-data")) as client:
        CollectionManager(client).ensure("docs", Foreign(dimension))
    for command in (["index", "docs", animals], ["search", "docs", "honey"]):
        code, _, err = run(*command)
        assert code == 1
        assert f"foreign-{dimension}@000000000000" in error_line(err) and "all-MiniLM-L6-v2@" in error_line(err)


def test_a_location_that_another_process_holds_is_one_line(run, animals, tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from qdrant_tools.client.connect import connect; c = connect('held'); print('held', flush=True); input()",
        ],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        code, _, err = run("index", "docs", animals, "--location", "held")
        holder.kill()
    assert code == 1
    assert "held" in error_line(err) and "another process" in error_line(err)


def test_wrong_usage_exits_with_2(run, animals):
    assert run("index", animals)[0] == 2  # no collection
    assert run("no-such-command")[0] == 2
    code, _, err = run("index", "docs", animals, "--backend", "abacus")
    assert code == 2
    assert "abacus" in err


def test_export_writes_a_folder_that_serves_without_torch(run, animals, tmp_path):
    code, out, _ = run("export", "all-MiniLM-L6-v2", "--out", "exported")
    assert code == 0 and "cosine" in out
    run("index", "docs", animals, "--model", "exported")
    code = (
        "import sys\n"
        "from llama_index_embed_plus import cli\n"
        "sys.argv = ['embed-plus', 'search', 'docs', 'honey', '--model', 'exported', '--json']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[0])["place"] == "animals/bees.txt"


def test_describe_says_where_each_fact_comes_from(run):
    code, out, _ = run("describe", "all-MiniLM-L6-v2", "--json")
    row = json.loads(out)
    assert code == 0
    assert row["space"].startswith("all-MiniLM-L6-v2@") and row["build"] == "torch-fp32"
    assert row["facts"]["pooling"]["value"] == ["mean"] and "1_Pooling" in row["facts"]["pooling"]["source"]
    code, out, _ = run("describe", "all-MiniLM-L6-v2")
    assert code == 0
    assert all(name in out for name in row["facts"])


def test_exporting_over_something_is_refused(run, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").touch()
    code, _, err = run("export", "all-MiniLM-L6-v2", "--out", "taken")
    assert code in (1, 2)
    assert "taken" in error_line(err)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["precious"]


def test_ctrl_c_keeps_what_was_reported(tmp_path):
    rows = [{"id": f"row {i}", "text": f"passage number {i}"} for i in range(60_000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    script = (
        "import qdrant_tools.sources.in_step as c\nindex = c.store_passages\n"
        "def telling(*a, progress, **k):\n"
        "    return index(*a, progress=lambda n: (progress(n), print('batch', flush=True)), **k)\n"
        "c.store_passages = telling\nfrom llama_index_embed_plus.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "index", "docs", "rows.jsonl"]
    indexing = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(2):  # of more than 200
        assert indexing.stdout.readline() == "batch\n"
    indexing.send_signal(signal.SIGINT)
    _, err = indexing.communicate(timeout=300)
    assert indexing.returncode == 130, err
    message = next(line for line in err.splitlines() if line.startswith("interrupted: "))
    reported = int(message.split()[1])
    with closing(connect(tmp_path / "embed-plus-data")) as client:
        assert client.count("docs").count >= reported > 0


def test_every_line_of_the_table_of_commands_belongs_to_a_command():
    group = typer.main.get_command(app)
    for name in COMMANDS:
        command = group.get_command(typer.Context(group), name)
        assert command.name == name and command.help, name
    folder = Path(app_module.__file__).parent
    modules = {".".join(file.relative_to(folder).with_suffix("").parts): file for file in folder.rglob("*.py")}
    with_commands = {module for module, file in modules.items() if "Typer(" in file.read_text()}
    assert {module for module, _ in COMMANDS.values()} == with_commands - {"app"}


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(command in out for command in ("demo", "index", "search", "export"))


def test_every_command_shows_its_help_where_no_extra_is_installed():
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'sentence_transformers', 'onnx', 'peft', 'datasets', 'accelerate',\n"
        "             'matplotlib', 'mteb', 'scipy', 'sklearn', 'llama_index.vector_stores.qdrant'):\n"
        "    sys.modules[name] = None\n"
        "import typer\n"
        "from llama_index_embed_plus.cli.app import COMMANDS, app\n"
        "group = typer.main.get_group(app)\n"
        "for name in COMMANDS:\n"
        "    assert group.get_command(None, name).help, name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
