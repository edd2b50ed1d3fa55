"""Every picture shows the numbers that it was given, says what they are, and can be read in grey."""

from __future__ import annotations

import io
from contextlib import closing

import numpy as np
import pytest
from matplotlib import image
from tiny import WordEncoder, numbered

from llama_index_embed_plus.errors import MissingExtraError
from llama_index_embed_plus.evaluate.plots import pages, style
from llama_index_embed_plus.evaluate.plots.pages import (
    before_after,
    query_differences,
    score_histograms,
    scores_by_relevance,
)
from llama_index_embed_plus.evaluate.plots.vectors import (
    MapSettings,
    distinctive_words,
    map_collection,
    map_vectors,
    similarity_heatmap,
    vector_map,
)
from llama_index_embed_plus.evaluate.retrieval.comparison import compare
from llama_index_embed_plus.evaluate.retrieval.report import score_run
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError, UsageError, VectorError
from qdrant_tools.indexing import index_passages
from qdrant_tools.monitor.signals import Share
from qdrant_tools.records import Query


def opened(data) -> np.ndarray:
    """The pixels (height, width, 4) of a PNG, which is not one colour."""
    pixels = image.imread(data if isinstance(data, io.BytesIO) else str(data))
    assert pixels.ndim == 3 and pixels[..., :3].std() > 0.01
    return pixels


def bars(axis) -> list[float]:
    return [patch.get_height() for patch in axis.patches]


def labelled(axis) -> None:
    assert axis.get_xlabel() and axis.get_ylabel()


def lightness(colour) -> float:
    return float(np.dot(colour[:3], (0.2126, 0.7152, 0.0722)))


def reports():
    qrels = {f"q{i}": {"right": 1} for i in range(6)}
    queries = [Query(f"q{i}", f"what is ${i}") for i in range(6)]
    ranks = ([1, 2, 3, 0, 1, 1], [1, 1, 1, 0, 2, 1])
    runs = [
        {
            f"q{i}": {("right" if at == rank else f"w{at}"): 1 - at / 10 for at in range(1, 5)}
            for i, rank in enumerate(each)
        }
        for each in ranks
    ]
    return [score_run(run, qrels, queries=queries, name=name) for run, name in zip(runs, ("old", "new"))], qrels


def test_the_difference_plot_shows_every_query_and_names_the_extreme_ones(tmp_path):
    (old, new), _ = reports()
    found = compare(old, new)
    figure = query_differences(tmp_path / "d.png", found)
    left, right = figure.axes
    assert bars(left) == [change.difference for change in found.changes]
    assert sorted(bars(left), reverse=True) == bars(left) and "ndcg@10" in left.get_ylabel()
    assert "2 better, 3 same, 1 worse" in left.get_xlabel()
    shown = "\n".join(text.get_text() for text in left.texts)
    assert "+ what is \\$2" in shown and "\N{MINUS SIGN} what is \\$4" in shown and "what is \\$0" not in shown
    places = {tuple(np.round(place, 3)) for place in right.collections[0].get_offsets()}
    assert places == {(round(change.before, 3), round(change.after, 3)) for change in found.changes}
    assert "old" in right.get_xlabel() and "new" in right.get_ylabel() and "p " in figure.get_suptitle()
    opened(tmp_path / "d.png")


def test_the_score_histograms_show_shares_of_each_kind(tmp_path):
    random = np.random.default_rng(0)
    relevant, others = random.normal(0.6, 0.1, 200), random.normal(0.2, 0.1, 1000)
    figure = score_histograms(tmp_path / "s.png", relevant, others)
    (axis,) = figure.axes
    labelled(axis)
    edges = np.histogram_bin_edges(np.concatenate([others, relevant]), 40)
    expected = [*np.histogram(others, edges)[0] / 1000, *np.histogram(relevant, edges)[0] / 200]
    assert bars(axis) == pytest.approx(expected)
    legend = {text.get_text() for text in axis.get_legend().get_texts()}
    assert {"others (1000)", "relevant (200)", f"median of the others, {np.median(others):.2f}"} < legend
    medians = [line.get_xdata()[0] for line in axis.lines]
    assert medians == [np.median(others), np.median(relevant)]
    hatches = {container.patches[0].get_hatch() for container in axis.containers}
    assert len(hatches) == 2, "the two kinds differ in grey by their hatch too"
    opened(tmp_path / "s.png")


def test_scores_are_split_by_what_the_judgements_say():
    (old, _), qrels = reports()
    relevant, others = scores_by_relevance(old.run, qrels)
    assert len(relevant) == 5 and len(relevant) + len(others) == 24
    with pytest.raises(InputError, match="0 scores"):
        score_histograms(None, [], [])
    with pytest.raises(InputError, match="finite"):
        score_histograms(None, [float("nan")], [0.1])
    assert score_histograms(None, [], [0.1]).axes


def three_groups(count=40):
    random = np.random.default_rng(2)
    centres = np.eye(3, 12)
    groups = np.repeat(np.arange(3), count)
    words = ("bees make honey", "cats sleep long", "whales swim deep")
    return (
        (centres[groups] + random.normal(0, 0.05, (3 * count, 12))).astype(np.float32),
        [f"the {words[group]} today" for group in groups],
        groups,
    )


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_map_finds_the_groups_and_names_them(tmp_path, method):
    vectors, texts, groups = three_groups()
    found = map_vectors(vectors, texts=texts, settings=MapSettings(method, clusters=3))
    assert all(len(set(found.clusters[groups == group])) == 1 for group in range(3))
    assert set(found.names) == {"bees, honey, make", "cats, long, sleep", "deep, swim, whales"}
    own = [found.points[groups == group] for group in range(3)]
    spread = max(float(points.std(axis=0).max()) for points in own)
    assert min(float(np.linalg.norm(a.mean(0) - b.mean(0))) for a, b in zip(own, own[1:])) > 3 * spread
    figure = vector_map(tmp_path / "m.png", found, title="animals")
    (axis,) = figure.axes
    labelled(axis)
    assert ("of the variance" if method == "pca" else "no unit") in axis.get_xlabel()
    assert len(axis.collections) == 3
    for cluster, drawn in enumerate(axis.collections):
        assert np.array_equal(drawn.get_offsets(), found.points[found.clusters == cluster])
    lights = [lightness(drawn.get_facecolor()[0]) for drawn in axis.collections]
    assert lights == sorted(lights) and min(np.diff(lights)) > 0.1
    shapes = {drawn.get_paths()[0].vertices.tobytes() for drawn in axis.collections}
    assert len(shapes) == 3
    opened(tmp_path / "m.png")


def test_the_plane_of_pca_is_that_of_the_singular_values():
    vectors, _, _ = three_groups()
    found = map_vectors(vectors)
    rows = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    centred = rows - rows.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    assert np.abs(found.points) == pytest.approx(np.abs(centred @ axes[:2].T), abs=1e-6)
    assert found.explained == pytest.approx((sizes**2 / (sizes**2).sum())[:2], abs=1e-6)


def test_a_map_is_bounded_seeded_and_named_by_labels_too():
    vectors, _, groups = three_groups()
    labels = [f"group {group}" for group in groups]
    settings = MapSettings(clusters=3, sample=30, seed=5)
    first, again = (map_vectors(vectors, labels=labels, settings=settings) for _ in range(2))
    assert len(first.points) == 30 and first.total == 120
    assert np.array_equal(first.points, again.points) and set(first.names) == {"group 0", "group 1", "group 2"}
    assert map_vectors(vectors[[0, 0, 0, 40]]).names == ("cluster 1", "cluster 2")  # only two different vectors


def test_a_collection_is_mapped_by_a_sample_of_it(tmp_path):
    with closing(connect(":memory:")) as client:
        collection = CollectionManager(client).ensure("c", WordEncoder())
        index_passages(collection, numbered(700), WordEncoder())
        whole = map_collection(collection, label="topic", settings=MapSettings(clusters=7))
        some = map_collection(collection, settings=MapSettings(clusters=7, sample=100))
        empty = CollectionManager(client).ensure("empty", WordEncoder())
        with pytest.raises(InputError, match="'empty' holds 0 vectors"):
            map_collection(empty)
    assert len(whole.points) == whole.total == some.total == 700 and len(some.points) == 100
    assert set(whole.names) <= {str(topic) for topic in range(7)}
    assert "100 of 700 vectors" in vector_map(None, some).get_suptitle()


def test_distinctive_words_are_those_that_others_do_not_have():
    texts = ["the red tea", "the red cup", "the blue sea", "the blue sky"]
    assert distinctive_words(texts, np.array([0, 0, 1, 1])) == ["red, cup, tea", "blue, sea, sky"]
    assert distinctive_words(["a", "b"], np.array([0, 1])) == ["cluster 1", "cluster 2"]


def test_the_heat_map_shows_every_cosine(tmp_path):
    texts = ["bees make honey", "honey of bees", "cats sleep"]
    vectors = WordEncoder().encode_passages(texts)
    figure = similarity_heatmap(tmp_path / "h.png", texts, vectors)
    axis, bar = figure.axes
    cosines = vectors.astype(np.float64) @ vectors.T
    assert np.asarray(axis.images[0].get_array()) == pytest.approx(cosines, abs=1e-6)
    assert [text.get_text() for text in axis.texts] == [f"{abs(value):.2f}" for value in cosines.ravel()]
    assert [label.get_text() for label in axis.get_yticklabels()] == texts
    assert "cosine" in bar.get_ylabel()
    opened(tmp_path / "h.png")


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="31 texts"):
        similarity_heatmap(None, ["x"] * 31, np.eye(31))
    with pytest.raises(VectorError, match="NaN"):
        similarity_heatmap(None, ["x"], [[float("nan")]])
    with pytest.raises(InputError, match="shape"):
        map_vectors(np.eye(3))
    with pytest.raises(InputError, match="1 labels for 4 vectors"):
        map_vectors(np.eye(4), labels=["x"])
    with pytest.raises(VectorError, match="row 1 holds NaN"):
        map_vectors(np.where(np.eye(4) * [0, 1, 0, 0] == 1, np.nan, 1.0))
    for wrong in ({"method": "umap"}, {"clusters": 0}, {"sample": 3}):
        with pytest.raises(UsageError):
            MapSettings(**wrong)


def test_a_figure_shows_itself_in_a_notebook_and_a_failed_one_leaves_no_file(tmp_path):
    figure = before_after(None, {"a": {"ndcg@10": 0.4}, "b": {"ndcg@10": 0.5}}, differences=[0.1, -0.2], title="t")
    assert bars(figure.axes[0]) == [0.4, 0.5] and bars(figure.axes[1]) == [0.1, -0.2]
    opened(io.BytesIO(figure._repr_png_()))
    with pytest.raises(OSError):
        style.finish(figure, tmp_path / "missing" / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_shares_of_nothing_have_no_interval_and_say_so():
    nothing, some = Share.from_counts(0, 0), Share.from_counts(3, 12)
    axis = style.page(1, "shares")[1]
    pages._bars(axis, [(nothing, some), (some, some)])
    ends = [line.get_ydata() for line in axis.lines if len(line.get_ydata())]
    drawn = sorted({round(float(end), 6) for line in ends for end in line})
    assert drawn == sorted({round(some.low, 6), round(some.high, 6)}), "no bar from 0 to 1"
    assert [text.get_text() for text in axis.texts] == ["not measurable"]


def test_a_missing_library_is_named_by_its_extra(monkeypatch):
    monkeypatch.setattr(style, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[plot\]"):
        score_histograms(None, [0.1], [0.2])
