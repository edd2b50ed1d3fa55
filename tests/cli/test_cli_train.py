"""Training on the command line: what is written, what is said, and that an interrupted run goes on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from contextlib import closing, suppress

import numpy as np
import pytest
from models import SENTENCE, save_model

from llama_index_embed_plus import cli, open_encoder
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.training.proof.report import read_report
from llama_index_embed_plus.training.trainer.checkpoint import Checkpoints
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Example, Passage, ScoredText

WORDS = SENTENCE.split()[9:26]
TRAIN, HELDOUT = (list(itertools.combinations(words, 2)) for words in (WORDS[:9], WORDS[9:16]))
PAIRS = TRAIN + HELDOUT
PASSAGES = [Passage(f"p{i}", f"the {a} and the {b}") for i, (a, b) in enumerate(PAIRS)]
QUESTIONS = [f"{b} {a} {b} {a}" for a, b in PAIRS]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    save_model(folder)
    return folder


@pytest.fixture
def place(base, tmp_path, monkeypatch):
    """A working folder with a collection `docs`, examples, and held-out queries with their judgements."""
    monkeypatch.chdir(tmp_path)
    encoder = open_encoder(base, device="cpu")
    with closing(connect(tmp_path / "here")) as client:
        index_passages(CollectionManager(client).ensure("docs", encoder), PASSAGES, encoder)
    rows = [
        Example(QUESTIONS[i], (ScoredText(f"p{i}", PASSAGES[i].text),), (ScoredText("p0", PASSAGES[0].text, 0.5),))
        for i in range(1, len(TRAIN))
    ]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row.as_row()) + "\n" for row in rows))
    held_out = range(len(TRAIN), len(PAIRS))
    queries = [{"_id": f"q{i}", "text": QUESTIONS[i]} for i in held_out]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    qrels = "".join(f"q{i}\tp{i}\t1\n" for i in held_out)
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    return tmp_path


@pytest.fixture
def run(run, place, base):
    """Run `embed-plus train BASE --examples examples.jsonl ARGS`; returns (exit code, stdout, stderr)."""

    def run_training(*args: object, examples: str = "examples.jsonl") -> tuple[int, str, str]:
        return run("train", "--model", base, "--examples", examples, "--no-plot", *args)

    return run_training


IN_DOCS = ("docs", "--location", "here")
MEASURED = ("--queries", "queries.jsonl", "--qrels", "qrels.tsv", *IN_DOCS)


def error_of(found: tuple[int, str, str]) -> tuple[int, str]:
    """The exit code, and the one line that says why."""
    code, _, stderr = found
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in stderr, stderr
    return code, lines[0]


def test_an_adapter_is_written_measured_and_judged(run, place, base):
    code, out, _ = run("--out", "adapted", *MEASURED)
    assert code == 0
    report = read_report(place / "adapted")
    assert report.method == "adapter" and report.proof.queries == 21
    lines = out.splitlines()
    assert (
        lines[0].startswith("wrote adapted: adapter, 35 rows, ")
        and lines[1].startswith("  ndcg@10 ")
        and "  note: chosen of 12 maps: " in out
    )
    judged = "may be promoted" if report.promotable else "not to be promoted"
    assert lines[-1] == f"{judged}: {report.verdict}"
    adapted, plain = open_encoder(place / "adapted"), open_encoder(base, device="cpu")
    assert adapted.space == plain.space and adapted.adapter.kind == "full"
    assert artifact.verify(place / "adapted")


def test_without_examples_an_adapter_is_made_of_the_passages_and_is_unproved(bare, place, base):
    """On the day of installation: nothing is measured without judged queries, so nothing may be promoted."""
    encoder = open_encoder(base, device="cpu")
    with closing(connect(place / "here")) as client:
        longer = [Passage(passage.id, f"{passage.text}, {passage.text}") for passage in PASSAGES]
        index_passages(CollectionManager(client).ensure("longer", encoder), longer, encoder)
    adapter = ("longer", "--location", "here", "--model", base, "--method", "adapter", "--no-plot")
    code, out, err = bare(*adapter, "--out", "adapted")
    assert code == 0, err
    report = read_report(place / "adapted")
    assert report.proof is None and not report.promotable and report.losses == ()
    # of 57 passages a third is spared
    assert "  note: made without labels: pseudo, of 38 pseudo-queries" in out
    assert "not to be promoted: not measured on held-out queries" in out
    assert open_encoder(place / "adapted").adapter.map.weight.any()
    code, out, _ = bare(*adapter, "--out", "measured", "--queries", "queries.jsonl", "--qrels", "qrels.tsv")
    assert code == 0 and read_report(place / "measured").proof.queries == 21
    code, line = error_of(bare("docs", "--location", "here", "--model", base, "--out", "short"))
    assert code == 1 and "no passage of 'docs' is long enough to make a query of" in line


def test_only_an_adapter_can_do_without_examples(bare, place, base):
    code, line = error_of(bare("--model", base, "--method", "lora", "--out", "out"))
    assert code == 2 and "give --examples, or a --recipe" in line
    code, line = error_of(bare("--model", base, "--out", "out", "--heldout-share", 0.2, *IN_DOCS))
    assert code == 2 and "--heldout-share and --cross-fit prove by examples: give some" in line
    assert not (place / "out").exists()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_encoder_is_trained_into_a_space_of_its_own(run, place, base, method):
    code, out, _ = run("--method", method, "--out", "tuned", "--batch-size", 8, "--max-tokens", 16, *MEASURED, "--json")
    assert code == 0
    row = json.loads(out)
    report = read_report(place / "tuned")
    assert (row["method"], row["promotable"], row["verdict"]) == (method, report.promotable, report.verdict)
    assert row["steps"] == len(report.losses) == 5 and row["last_loss"] == report.losses[-1]
    assert [change["metric"] for change in row["changes"]] == ["ndcg@10", "mrr", "recall@10"]
    assert row["space"] == open_encoder(place / "tuned", device="cpu").space != open_encoder(base, device="cpu").space


def synthetic(place, share):
    """The examples in a file of their own, where only every so many are real."""
    rows = [json.loads(line) for line in (place / "examples.jsonl").read_text().splitlines()]
    rows = [row | ({"synthetic": True} if i % share else {}) for i, row in enumerate(rows, start=1)]
    (place / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "made.jsonl"


def test_synthetic_queries_alone_are_held_out_and_what_they_prove_is_labelled(run, place):
    made = synthetic(place, 100)
    share = ("--heldout-share", 0.3, "--shared-passages")
    code, out, err = run("--out", "adapted", *share, *IN_DOCS, examples=made)
    assert code == 0 and "no real queries to hold out: synthetic ones decide" in err
    report = read_report(place / "adapted")
    assert report.proof.synthetic and "synthetic held-out queries" in report.verdict
    assert f"  0 real and {report.data['synthetic']} synthetic examples" in out.splitlines()
    assert out.splitlines()[-1].startswith("not to be promoted: ")
    code, out, _ = run("--out", "again", *share, *IN_DOCS, "--json", examples=made)
    assert json.loads(out)["proved_on"] == "synthetic queries"


def test_real_queries_are_held_out_beside_synthetic_ones_which_count_by_their_weight(run, place):
    made = synthetic(place, 2)
    share = ("--heldout-share", 0.3, "--shared-passages")
    code, out, err = run("--out", "adapted", "--synthetic-weight", 0.25, *share, *IN_DOCS, examples=made)
    report = read_report(place / "adapted")
    assert code == 0 and not report.proof.synthetic and report.proof.queries + report.data["real"] == 17, err
    assert f"  {report.data['real']} real and {report.data['synthetic']} synthetic examples (each counts 0.25)" in out
    assert report.settings["synthetic_weight"] == 0.25
    code, message = error_of(run("--out", "none", "--synthetic-weight", -1, *IN_DOCS, examples=made))
    assert code == 2 and "synthetic_weight is -1" in message


def test_what_was_not_measured_is_not_to_be_promoted(run, place):
    code, out, _ = run("--out", "adapted", *IN_DOCS)
    assert code == 0 and out.splitlines()[-1] == "not to be promoted: not measured on held-out queries"


def test_a_share_of_the_examples_can_be_held_out(run, place):
    assert run("--out", "adapted", "--heldout-share", 0.3, "--shared-passages", *IN_DOCS)[0] == 0
    report = read_report(place / "adapted")
    assert report.proof.queries + report.data["examples"] == 35 and report.proof.queries >= 5


def test_with_cross_fitting_every_query_decides_by_an_adapter_that_did_not_see_it(run, place):
    code, out, _ = run("--out", "adapted", "--cross-fit", 5, "--shared-passages", *IN_DOCS)
    report = read_report(place / "adapted")
    assert code == 0 and (report.proof.queries, report.proof.folds, report.data["examples"]) == (35, 5, 35)
    assert "  cross-fitted: each query was ranked by one of 5 adapters that did not see it. What serves was" in out
    assert "nothing to measure forgetting on" in report.verdict  # passages of five words are no known items
    card = (place / "adapted" / "README.md").read_text()
    assert "On 35 queries that were each held out of a fit" in card and "proved is the procedure" in card
    code, out, _ = run("--out", "again", "--cross-fit", 5, "--shared-passages", *IN_DOCS, "--json")
    assert json.loads(out)["folds"] == 5
    assert (place / "again" / "heldout" / "trained.jsonl").is_file()
    assert not (place / "again" / "heldout" / "queries.jsonl").exists(), "what serves has seen them all"


def test_cross_fitting_parts_queries_that_all_hang_together_by_shared_answers(run, place):
    """As where passages are few and answers many: what would be told of a fold is hidden from the others."""
    answers = [ScoredText(passage.id, passage.text) for passage in PASSAGES]
    rows = [Example(QUESTIONS[i], (answers[i], answers[i + 1])) for i in range(1, len(TRAIN))]
    (place / "chain.jsonl").write_text("".join(json.dumps(row.as_row()) + "\n" for row in rows))
    code, _, err = run("--out", "adapted", "--cross-fit", 5, *IN_DOCS, examples="chain.jsonl")
    assert code == 0, err
    assert (read_report(place / "adapted").proof.queries, read_report(place / "adapted").proof.folds) == (35, 5)
    one = [Example(row.query, (answers[1],)) for row in rows]
    (place / "one.jsonl").write_text("".join(json.dumps(row.as_row()) + "\n" for row in one))
    code, message = error_of(run("--out", "none", "--cross-fit", 5, *IN_DOCS, examples="one.jsonl"))
    assert code == 1 and "no example is left" in message and "--shared-passages" in message


def test_cross_fitting_stands_beside_no_other_proof_and_is_for_adapters(run, place):
    for given in (MEASURED, ("--heldout-share", 0.3, *IN_DOCS)):
        code, message = error_of(run("--out", "none", "--cross-fit", 5, *given))
        assert code == 2 and "--cross-fit lets all examples decide" in message
    code, message = error_of(run("--out", "none", "--cross-fit", 5, "--method", "full", *IN_DOCS))
    assert code == 2 and "cross_fit fits 5 times, which only the method 'adapter'" in message
    code, message = error_of(run("--out", "none", "--cross-fit", 1, *IN_DOCS))
    assert code == 2 and "cross_fit is 1" in message


def test_few_held_out_queries_are_told_of_cross_fitting(run, place):
    _, _, err = run("--out", "adapted", "--heldout-share", 0.3, "--shared-passages", *IN_DOCS)
    assert "queries decide; --cross-fit 5 instead of --heldout-share lets all of them decide" in err


def judged(place, *grades):
    """A file of judged pairs: of each query one right passage and one wrong, graded like this."""
    rows = [
        {"query": QUESTIONS[i], "pid": f"p{p}", "passage": PASSAGES[p].text, "label": grade, "source": "people"}
        for i in range(1, len(TRAIN))
        for p, grade in zip((i, 0), grades)
    ]
    (place / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_row_that_says_wrong_is_no_positive(run, place):
    judged(place, 1, 0)
    code, _, stderr = run("--out", "adapted", *IN_DOCS, examples="judged.jsonl")
    report = read_report(place / "adapted")
    assert code == 0 and (report.data["positives"], report.data["negatives"], report.data["rows"]) == (35, 35, 35)
    assert "judged.jsonl: judged pairs by `label` of judged.jsonl, 35 rows to train on, 0 left out" in stderr
    held = run("--out", "held", "--heldout-share", 0.3, "--shared-passages", *IN_DOCS,
               examples="judged.jsonl")  # fmt: skip
    proof = read_report(place / "held").proof
    assert held[0] == 0 and proof.queries >= 5 and read_report(place / "held").data["positives"] == 35 - proof.queries


def test_ids_are_looked_up_in_the_passages_that_are_given(run, place):
    rows = [{"query": QUESTIONS[i], "positives": [f"p{i}"], "negatives": ["p0"]} for i in range(1, len(TRAIN))]
    (place / "ids.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "texts.jsonl").write_text("".join(json.dumps(passage.as_row()) + "\n" for passage in PASSAGES))
    code, line = error_of(run("--out", "adapted", *IN_DOCS, examples="ids.jsonl"))
    assert code == 1 and "ids.jsonl:1: 'positives' holds 'p1'" in line and "--passages FILE" in line
    given = ("--passages", "texts.jsonl")
    assert run("--out", "adapted", *given, *IN_DOCS, examples="ids.jsonl")[0] == 0
    assert read_report(place / "adapted").data["positives"] == 35
    (place / "texts.jsonl").write_text(json.dumps({"id": "p0", "text": "the one"}) + "\n")
    code, line = error_of(run("--out", "other", *given, *IN_DOCS, examples="ids.jsonl"))
    assert code == 1 and "'positives' names the passage 'p1', which is not among the passages given" in line


def test_grades_need_a_threshold_before_the_model_is_opened(run, place):
    judged(place, 3, 1)
    code, line = error_of(run("--out", "adapted", *IN_DOCS, examples="judged.jsonl"))
    assert code == 2 and "`label` of judged.jsonl goes from 1 to 3" in line and "(--relevant-from)" in line
    told = ("--relevant-from", 2, "--ignore", "source")
    assert run("--out", "adapted", *told, *IN_DOCS, examples="judged.jsonl")[0] == 0
    assert read_report(place / "adapted").data["positives"] == 35


def test_a_field_that_judges_can_only_be_left_unread_on_purpose(run, place):
    (place / "pairs.jsonl").write_text(json.dumps({"query": "q", "positive": "p", "instruction": "find"}) + "\n")
    code, line = error_of(run("--out", "adapted", *IN_DOCS, examples="pairs.jsonl"))
    assert code == 1 and "pairs.jsonl:1: the field 'instruction' says what the row means" in line
    code, line = error_of(run("--out", "adapted", "--examples-kind", "couples", *IN_DOCS, examples="pairs.jsonl"))
    assert code == 2 and "kind is 'couples', expected one of examples, pairs" in line


def test_progress_tells_the_fits_and_the_time_left_in_a_log_file(run):
    _, _, stderr = run("--out", "adapted", *IN_DOCS)
    lines = [line for line in stderr.splitlines() if line.startswith("train adapter")]
    assert lines[0].startswith("train adapter  step 1/10") and lines[0].endswith(" left")


def test_without_matplotlib_the_result_is_printed_all_the_same(place, base, monkeypatch, capsys):
    """The result of minutes of work, or of hours, must not be lost for want of a picture."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    argv = ["embed-plus", "train", "--model", base, "--examples", "examples.jsonl", "--out", "adapted"]
    monkeypatch.setattr(sys, "argv", list(map(str, [*argv, *MEASURED])))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 0 and "promoted: " in out.splitlines()[-1], err
    assert "no picture is drawn: that needs the extra 'plot'" in err and not (place / "adapted.png").exists()


def test_the_page_is_drawn_beside_the_model(place, base, monkeypatch, capsys):
    argv = [
        "embed-plus",
        "train",
        "--model",
        base,
        "--examples",
        "examples.jsonl",
        "--out",
        "adapted",
        *MEASURED,
    ]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    with suppress(SystemExit):
        cli.main()
    assert capsys.readouterr().out.splitlines()[-1] == "wrote adapted.png"
    assert (place / "adapted.png").read_bytes()[:4] == b"\x89PNG"


def test_an_interrupted_run_keeps_a_checkpoint_and_the_same_command_goes_on(run, place, monkeypatch):
    command = ("--method", "full", "--batch-size", 4, "--epochs", 3, "--max-tokens", 16, "--checkpoint-every", 1)
    assert run(*command, "--out", "whole")[0] == 0

    keep = Checkpoints.keep

    def interrupt_after_keeping(self, written) -> None:
        keep(self, written)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "keep", interrupt_after_keeping)
        code, out, stderr = run(*command, "--out", "tuned")
    assert code == 130 and out == "" and not (place / "tuned").exists()
    assert "steps are kept in " in stderr and stderr.rstrip().endswith("run the same command again to go on from there")

    code, out, _ = run(*command, "--out", "tuned")
    assert code == 0 and not list(place.glob(".tuned-training"))
    whole, resumed = read_report(place / "whole"), read_report(place / "tuned")
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    assert resumed.lineage.space == whole.lineage.space


def test_an_option_that_means_nothing_to_the_method_is_refused(run, place):
    code, line = error_of(run("--loss", "infonce", "--epochs", 9, "--out", "out", *IN_DOCS))
    assert code == 2 and "--epochs, --loss means nothing to the method 'adapter'" in line
    assert not (place / "out").exists()


def test_what_is_missing_is_one_line_and_an_exit_code(run, place):
    code, line = error_of(run("--out", "out"))
    assert code == 2 and "give the COLLECTION" in line
    code, line = error_of(run("--out", "out", "--queries", "queries.jsonl", *IN_DOCS))
    assert code == 2 and "--queries and --qrels go together" in line
    code, line = error_of(run("--out", "out", *IN_DOCS, examples="nowhere.jsonl"))
    assert code == 1 and "nowhere.jsonl" in line
    code, line = error_of(run("--out", "out", "elsewhere", "--location", "here"))
    assert code == 1 and "'elsewhere'" in line
    code, line = error_of(run("--out", "out", "--learning-rate", 0, *IN_DOCS))
    assert code == 2 and "learning_rate is 0" in line
    (place / "out").mkdir()
    (place / "out" / "mine.txt").write_text("not a model")
    code, line = error_of(run("--out", "out", *IN_DOCS))
    assert code == 2 and "is no artifact" in line and (place / "out" / "mine.txt").exists()


def test_examples_that_know_a_heldout_query_are_refused(run, place):
    (place / "queries.jsonl").write_text(json.dumps({"_id": "q40", "text": QUESTIONS[5]}) + "\n")
    code, line = error_of(run("--out", "out", *MEASURED))
    assert code == 1 and "give held-out queries away" in line and not (place / "out").exists()


def test_pairs_of_a_table_are_trained_on_too(run, place):
    rows = [f"{QUESTIONS[i]}\t{PASSAGES[i].text}" for i in range(12)]
    (place / "pairs.tsv").write_text("\n".join(["query\tpositive", *rows]) + "\n")
    code, out, _ = run("--method", "full", "--out", "tuned", "--batch-size", 4, "--json", examples="pairs.tsv")
    assert code == 0 and json.loads(out)["data"]["rows"] == 12


@pytest.fixture
def recipe(place):
    """Two stages, the second on negatives that the first one's model finds."""
    rows = [{"id": passage.id, "text": passage.text} for passage in PASSAGES]
    (place / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "recipe.toml").write_text("""
passages = "passages.jsonl"
batch_size = 8
max_tokens = 16

[heldout]
queries = "queries.jsonl"
qrels = "qrels.tsv"

[[stage]]
name = "pairs"
data = "examples.jsonl"

[[stage]]
name = "hard"
data = "examples.jsonl"
mine = { negatives = 2, depth = 10 }
""")
    return place / "recipe.toml"


@pytest.fixture
def bare(place, monkeypatch, capsys):
    """Run `embed-plus train ARGS`."""

    def bare(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["embed-plus", "train", *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return bare


def test_a_recipe_trains_its_stages_and_keeps_the_best(bare, recipe, base, place):
    code, out, stderr = bare("--model", base, "--recipe", recipe, "--out", "tuned", "--no-plot")
    assert code == 0, stderr
    report = read_report(place / "tuned")
    assert [stage.name for stage in report.stages][-2:] == ["pairs", "hard-1"]
    assert out.splitlines()[-1].endswith(report.verdict)
    assert "train pairs" in stderr and "mine hard" in stderr


def test_what_a_recipe_has_to_say_cannot_be_said_twice(bare, recipe, base):
    found = bare("--model", base, "--recipe", recipe, "--out", "tuned", "--epochs", 2, "--examples", "examples.jsonl")
    assert error_of(found) == (
        2,
        f"error: --epochs, --examples cannot be given with a recipe: write it into {recipe} "
        "(see embed-plus train --help)",
    )
    code, line = error_of(
        bare("--model", base, "--recipe", recipe, "--out", "tuned", "--method", "adapter", "--seed", 3)
    )
    assert code == 2 and line.startswith("error: --method, --seed cannot be given with a recipe")
    code, line = error_of(bare("--recipe", recipe, "--out", "tuned"))
    assert code == 2 and "base" in line
    code, line = error_of(bare("--out", "tuned"))
    assert code == 2 and "give the COLLECTION" in line
