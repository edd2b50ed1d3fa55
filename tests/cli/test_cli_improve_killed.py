"""`embed-plus improve` is killed by SIGKILL at any step: the same command goes on, as if nothing had happened."""

from __future__ import annotations

import importlib
import json
import signal
import sys

import pytest
from moments import dying
from programs import run as run_program
from test_cli_improve import ASKED, asked, model, traced  # noqa: F401

from qdrant_tools.log import RetrievalLog

RUN = "llama_index_embed_plus.training.improvement.run"
TRAIN = "llama_index_embed_plus.training.run"
MOMENTS = {
    "import, in the transaction": ("qdrant_tools.log.retrieval_log:RetrievalLog", "_insert", 20, "after"),
    "labels made": (RUN, "learn", 2, "after"),
    "mining, in a batch": ("qdrant_tools.mining.file:_State", "save", 2, "before"),
    "before the fit": (TRAIN, "fit_adapter", 1, "before"),
    "fitted": (TRAIN, "fit_adapter", 1, "after"),
    "proved": (TRAIN, "prove", 1, "after"),
    "model written": ("llama_index_embed_plus.training.improvement.folder:ImproveFolder", "trained", 1, "before"),
    "before the sheet": (RUN, "write_sheet", 1, "before"),
    "half of the sheet written": ("llama_index_embed_plus.training.proof.sheet", "write_text", 1, "before"),
}


def command(folder, location, model, spans, annotations):  # noqa: F811
    given = (
        "--traces",
        spans,
        "--annotations",
        annotations,
        "--thumb",
        "user_feedback",
        "--heldout-share",
        "0.3",
        "--shared-passages",
    )
    return [
        "embed-plus",
        "improve",
        "docs",
        *map(str, given),
        "--out",
        folder,
        "--location",
        location,
        "--model",
        model,
    ]


def killed(owner: str, name: str, nth: str, moment: str, *arguments: str) -> None:
    """The program: `embed-plus improve`, which kills itself at a moment."""
    from llama_index_embed_plus.cli import main

    module, _, within = owner.partition(":")
    place = importlib.import_module(module)
    dying(getattr(place, within) if within else place, [name], int(nth), moment)
    sys.argv = command(*arguments)
    main()


@pytest.fixture(scope="module")
def given(asked, model, tmp_path_factory):  # noqa: F811
    """A collection, a model, spans, and thumbs on three quarters of the later answers: of the others a sheet asks."""
    files = traced(
        asked,
        tmp_path_factory.mktemp("given"),
        place=asked[3].__getitem__,
        thumbed=lambda number: number < ASKED // 2 or number % 4 > 0,
    )
    return [str(part) for part in (asked[0], model, *files)]


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory):
    """What a run that nobody kills leaves behind."""
    folder = tmp_path_factory.mktemp("whole") / "better"
    done = run_program(finished, folder, *given)
    assert done.returncode == 0, done.stderr
    return left(folder)


def finished(*arguments: str) -> None:
    """The program: `embed-plus improve`."""
    from llama_index_embed_plus.cli import main

    sys.argv = command(*arguments)
    main()


def left(folder):
    """All that a run writes, but for how long it took."""
    report = json.loads((folder / "improve.json").read_text())
    report["trained"].pop("seconds")
    with RetrievalLog(folder / "log.sqlite") as log:
        searches = [search.as_row() for search in log.searches()]
    trained = json.loads((folder / "model" / "train_report.json").read_text())
    files = {path.name: path.read_bytes() for path in (folder / "examples.jsonl", folder / report["sheet"])}
    names = sorted(path.name for path in folder.iterdir())
    return report, searches, trained["verdict"], files, names


@pytest.mark.parametrize("when", MOMENTS)
def test_after_a_kill_the_same_command_gives_the_same_report_and_nothing_twice(when, given, whole, tmp_path):
    first = run_program(killed, *MOMENTS[when], tmp_path / "better", *given)
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert not (tmp_path / "better" / "improve.json").exists()
    second = run_program(finished, tmp_path / "better", *given)
    assert second.returncode == 0, second.stderr
    assert left(tmp_path / "better") == whole


def test_a_kill_leaves_no_report_of_an_earlier_run(given, whole, tmp_path):
    """Of the same folder, before anybody had said anything: nothing was trained then."""
    folder, nothing = tmp_path / "better", tmp_path / "nothing.csv"
    nothing.write_text("span_id,annotation_name,annotator_kind,identifier,result.label,result.score\n")
    assert run_program(finished, folder, *given[:3], nothing).returncode == 0
    assert json.loads((folder / "improve.json").read_text())["said"] == {}
    assert run_program(killed, *MOMENTS["proved"], folder, *given).returncode == -signal.SIGKILL
    assert not (folder / "improve.json").exists()
    assert run_program(finished, folder, *given).returncode == 0
    assert left(folder) == whole
