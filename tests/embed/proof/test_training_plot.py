"""The training plot: six panels that show what the report holds, and say so where it holds nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from tiny import NoisyEncoder

from llama_index_embed_plus.errors import MissingExtraError
from llama_index_embed_plus.training.proof.plot_data import BIN_EDGES
from llama_index_embed_plus.training.proof.plots import training_plot
from llama_index_embed_plus.training.proof.proof import prove
from llama_index_embed_plus.training.proof.report import Lineage, Stage, TrainReport
from qdrant_tools.records import HeldOut, Passage, Query

TITLES = {
    "training loss", "metrics on held-out data", "scores before", "scores after", "queries and passages before",
    "queries and passages after",
}  # fmt: skip


HELDOUT = HeldOut(
    tuple(Query(f"q{i}", f"w{i} asked") for i in range(40)),
    {f"q{i}": {f"p{i}": 1} for i in range(40)},
    tuple(Passage(f"p{i}", f"w{i} begins this. w{i} goes on with a few more words") for i in range(80)),
)


@pytest.fixture(scope="module")
def report() -> TrainReport:
    losses = tuple((2.0 * np.exp(-np.arange(100) / 30)).tolist())
    stages = (Stage("warm-up", 40, {"ndcg@10": 0.5}), Stage("pairs", 60, {"ndcg@10": 0.75, "mrr": 0.7}))
    lineage = Lineage("all-MiniLM-L6-v2", "base@1", "torch-fp32", "tuned@2")
    proof = prove(NoisyEncoder(1.5), NoisyEncoder(0.5), HELDOUT)
    return TrainReport("lora", {}, {}, losses, 12.0, 0, lineage, stages, proof)


def axes_of(figure):
    return {axis.get_title(): axis for axis in figure.axes}


def test_the_page_is_written_and_has_all_panels(report, tmp_path):
    figure = training_plot(tmp_path / "page.png", report)
    image = imread(tmp_path / "page.png")
    assert image.shape[0] > 600 and image.shape[1] > 1200 and image[..., :3].std() > 0.05
    assert set(axes_of(figure)) == TITLES
    for title, axis in axes_of(figure).items():
        assert axis.get_ylabel() and (axis.get_xlabel() or title == "metrics on held-out data")
    assert [path.name for path in tmp_path.iterdir()] == ["page.png"]
    assert "may be promoted" in figure._suptitle.get_text()


def test_the_loss_curve_is_the_losses_with_the_stages_marked(report):
    axis = axes_of(training_plot(None, report))["training loss"]
    raw = next(line for line in axis.lines if line.get_label() == "every step")
    np.testing.assert_allclose(raw.get_ydata(), report.losses)
    smooth = next(line for line in axis.lines if line.get_label() == "mean of 5 steps")
    np.testing.assert_allclose(smooth.get_ydata()[0], np.mean(report.losses[:5]))
    assert smooth.get_xdata()[-1] == raw.get_xdata()[-1] == 100
    assert [text.get_text() for text in axis.texts] == ["warm-up"] and 40 in axis.lines[-1].get_xdata()


def test_the_metrics_go_from_the_base_over_the_stages_to_the_result(report):
    axis = axes_of(training_plot(None, report))["metrics on held-out data"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["base", "warm-up", "pairs", "result"]
    drawn = {line.get_label(): line.get_ydata() for line in axis.lines}
    change, gap = report.proof.changes[0], np.nan
    # Stages are measured on dev queries, the proof on others: two lines. What was not measured is a gap, not a zero.
    np.testing.assert_allclose(drawn["ndcg@10, proof"], [change.before, gap, gap, change.after])
    np.testing.assert_allclose(drawn["ndcg@10"], [gap, 0.5, 0.75, gap])
    np.testing.assert_allclose(drawn["mrr"], [gap, gap, 0.7, gap])
    assert len({(line.get_linestyle(), line.get_marker()) for line in axis.lines}) == len(axis.lines)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_histograms_are_those_of_the_proof_on_shared_axes(report, when):
    axes = axes_of(training_plot(None, report))
    view = getattr(report.proof.plot_data, when)
    bars = {container.get_label(): container for container in axes[f"scores {when}"].containers}
    for name, counts in (("relevant", view.relevant), ("irrelevant", view.irrelevant)):
        heights = [bar.get_height() for bar in bars[f"{name} ({sum(counts)})"]]
        np.testing.assert_allclose(heights, np.array(counts) / sum(counts))
        assert sum(heights) == pytest.approx(1)
    assert axes["scores before"].get_xlim() == axes["scores after"].get_xlim()
    assert axes["scores before"].get_ylim() == axes["scores after"].get_ylim()
    low, high = axes["scores before"].get_xlim()
    shown = (BIN_EDGES[:-1] >= low - 1e-9) & (BIN_EDGES[1:] <= high + 1e-9)
    assert not np.array(view.relevant)[~shown].any() and not np.array(view.irrelevant)[~shown].any()


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_planes_show_queries_and_passages_by_different_marks(report, when):
    axis = axes_of(training_plot(None, report))[f"queries and passages {when}"]
    view = getattr(report.proof.plot_data, when)
    passages, queries = axis.collections
    np.testing.assert_allclose(passages.get_offsets(), view.passages)
    np.testing.assert_allclose(queries.get_offsets(), view.queries)
    assert f"{view.explained:.0%} of the variance" in axis.get_xlabel()
    assert {text.get_text() for text in axis.get_legend().get_texts()} == {"passages (80)", "queries (40)"}
    assert len(passages.get_paths()[0]) != len(queries.get_paths()[0])


def test_in_grey_relevant_and_irrelevant_still_differ(report):
    axis = axes_of(training_plot(None, report))["scores before"]
    shades = [np.dot(to_rgb(container[0].get_facecolor()[:3]), (0.3, 0.59, 0.11)) for container in axis.containers]
    assert abs(shades[0] - shades[1]) > 0.4


def test_what_was_not_measured_says_so(report, tmp_path):
    figure = training_plot(tmp_path / "page.png", replace(report, proof=None, stages=(), losses=(1.0,)))
    silent = [
        title for title, axis in axes_of(figure).items() if [t.get_text() for t in axis.texts] == ["not measured"]
    ]
    assert set(silent) == TITLES - {"training loss"}
    assert "not to be promoted: not measured on held-out queries" in figure._suptitle.get_text()
    empty = axes_of(training_plot(None, replace(report, losses=())))["training loss"]
    assert [text.get_text() for text in empty.texts] == ["no steps"]


def test_names_are_shown_as_they_are(report, tmp_path):
    odd = replace(report, lineage=replace(report.lineage, base="$\\frac{"), stages=(Stage("a$b", 50, {"$x": 0.1}),) * 2)
    assert "frac" in training_plot(tmp_path / "page.png", odd)._suptitle.get_text()


def test_a_page_that_cannot_be_written_leaves_the_old_one(report, tmp_path, monkeypatch):
    (tmp_path / "page.png").write_bytes(b"old")

    def fails(*arguments, **options):
        raise OSError("no space left")

    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", fails)
    with pytest.raises(OSError, match="no space left"):
        training_plot(tmp_path / "page.png", report)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("page.png", b"old")]


def test_without_matplotlib_the_error_names_the_extra(report, monkeypatch):
    monkeypatch.setattr("llama_index_embed_plus.evaluate.plots.style.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"llama-index-embed-plus\[plot\]"):
        training_plot(None, report)


def test_reports_and_pages_are_made_without_importing_matplotlib():
    code = "import llama_index_embed_plus.training.proof.plots, sys; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
