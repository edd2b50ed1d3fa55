"""A query adapter: residual, saved with its space, refused in another."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter
from llama_index_embed_plus.errors import DamagedModelError
from qdrant_tools.errors import UsageError
from qdrant_tools.search.adapters import MAPS, FullMap, LowRankMap, MlpMap, OrthogonalMap, unfitted


class Directions:
    """Encodes 'x', 'y' and 'z' as the three axes."""

    dimension = 3
    space = "directions@000000000000"

    def encode_queries(self, texts):
        return np.eye(3, dtype=np.float32)[["xyz".index(text) for text in texts]]

    encode_passages = encode_queries


def rotation() -> QueryAdapter:
    """Sends x to y, and leaves the rest."""
    return QueryAdapter(np.array([[-1, 1, 0], [0, 0, 0], [0, 0, 0]], np.float32), Directions.space)


def fitted(kind: str, dimension: int = 8) -> QueryAdapter:
    """An adapter of a kind with weights that do something."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    maps = {
        "full": lambda: FullMap(normal(dimension, dimension)),
        "low_rank": lambda: LowRankMap(normal(dimension, 2), normal(2, dimension)),
        "orthogonal": lambda: OrthogonalMap(np.linalg.qr(normal(dimension, dimension))[0]),
        "mlp": lambda: MlpMap(normal(dimension, 3), normal(3, dimension), normal(3)),
    }
    return QueryAdapter(maps[kind](), "s@1")


def unit_vectors(count: int, dimension: int) -> np.ndarray:
    vectors = np.random.default_rng(1).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", MAPS)
def test_an_unfitted_adapter_of_any_kind_changes_nothing(kind):
    vectors = unit_vectors(50, 8)
    np.testing.assert_allclose(QueryAdapter.identity(8, "s", kind=kind)(vectors), vectors, atol=1e-6)


def test_each_kind_maps_as_its_formula_says():
    q = unit_vectors(5, 8)
    low, mlp, turn = (fitted(kind).map for kind in ("low_rank", "mlp", "orthogonal"))
    np.testing.assert_allclose(low(q), q @ (np.eye(8) + low.down @ low.up), atol=1e-5)
    np.testing.assert_allclose(mlp(q), q + np.tanh(q @ mlp.down + mlp.bias) @ mlp.up, atol=1e-6)
    np.testing.assert_allclose(turn(q) @ turn(q).T, q @ q.T, atol=1e-5, err_msg="a rotation keeps angles")


@pytest.mark.parametrize("kind", MAPS)
def test_an_adapter_of_any_kind_comes_back_as_it_was_saved(tmp_path, kind):
    adapter = fitted(kind)
    adapter.save(tmp_path)
    loaded = QueryAdapter.load(tmp_path)
    assert (loaded.kind, loaded.space, loaded.build) == (kind, "s@1", adapter.build)
    np.testing.assert_array_equal(loaded(unit_vectors(9, 8)), adapter(unit_vectors(9, 8)))
    assert len({fitted(each).build for each in MAPS}) == len(MAPS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter.json", "adapter.npz"]


def test_an_adapter_of_an_earlier_version_is_a_full_one(tmp_path):
    rotation().save(tmp_path)
    config = json.loads((tmp_path / "adapter.json").read_text())
    (tmp_path / "adapter.json").write_text(json.dumps({**config, "kind": "residual-linear"}))
    loaded = QueryAdapter.load(tmp_path)
    assert (loaded.kind, loaded.build) == ("full", rotation().build)


def test_a_kind_that_this_version_does_not_know_is_named(tmp_path):
    rotation().save(tmp_path)
    config = json.loads((tmp_path / "adapter.json").read_text())
    (tmp_path / "adapter.json").write_text(json.dumps({**config, "kind": "attention"}))
    with pytest.raises(DamagedModelError, match="kind 'attention', this version knows full, low_rank, orthogonal, mlp"):
        QueryAdapter.load(tmp_path)


def test_weights_that_cannot_be_a_map_are_refused():
    square = np.ones((3, 3), np.float32)
    with pytest.raises(UsageError, match=r"rotation times its transpose is 3.0e\+00 away from 1"):
        OrthogonalMap(square)
    with pytest.raises(UsageError, match=r"shape \(3, 2\), expected a square"):
        FullMap(square[:, :2])
    with pytest.raises(UsageError, match=r"shapes \(3, 2\) and \(3, 3\)"):
        LowRankMap(square[:, :2], square)
    with pytest.raises(UsageError, match=r"bias of a mlp map has shape \(3,\), expected \(2,\)"):
        MlpMap(square[:, :2], square[:2], square[0])
    with pytest.raises(UsageError, match="weight of a full map is not all finite"):
        FullMap(square * np.float32("nan"))
    with pytest.raises(UsageError, match="kind is 'quadratic'"):
        unfitted("quadratic", 3)
    with pytest.raises(UsageError, match="a low_rank adapter has down, up, no weight"):
        _ = fitted("low_rank").weight


def test_only_queries_pass_through_the_adapter():
    encoder = AdaptedEncoder(Directions(), rotation())
    np.testing.assert_array_equal(encoder.encode_queries(["x"]), [[0, 1, 0]])
    np.testing.assert_array_equal(encoder.encode_passages(["x"]), [[1, 0, 0]])
    assert encoder.space == Directions.space


def test_output_is_unit_length_and_float32():
    out = rotation()(np.full((1, 3), 1 / np.sqrt(3), np.float32))
    assert out.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-6)


def test_a_saved_adapter_comes_back_with_its_space_and_build(tmp_path):
    rotation().save(tmp_path / "adapter")
    loaded = QueryAdapter.load(tmp_path / "adapter")
    np.testing.assert_array_equal(loaded.weight, rotation().weight)
    assert (loaded.space, loaded.build) == (rotation().space, rotation().build)


def test_an_adapter_of_another_space_or_size_is_refused():
    with pytest.raises(UsageError, match=r"fitted in space other@1.*directions@000000000000"):
        AdaptedEncoder(Directions(), QueryAdapter.identity(3, "other@1"))
    with pytest.raises(UsageError, match=r"shape \(4, 4\)"):
        AdaptedEncoder(Directions(), QueryAdapter.identity(4, Directions.space))


def test_damaged_weights_are_noticed_on_load(tmp_path):
    rotation().save(tmp_path)
    np.savez(tmp_path / "adapter.npz", weight=np.zeros((3, 3), np.float32))
    with pytest.raises(DamagedModelError, match=r"adapter\.npz holds"):
        QueryAdapter.load(tmp_path)
    whole = (tmp_path / "adapter.npz").read_bytes()
    for damaged in (b"not an archive", b"", whole[: len(whole) // 2], whole[:-30]):
        (tmp_path / "adapter.npz").write_bytes(damaged)
        with pytest.raises(DamagedModelError, match=r"adapter\.npz cannot be read"):
            QueryAdapter.load(tmp_path)
    (tmp_path / "adapter.json").write_text("[]")
    with pytest.raises(DamagedModelError, match=r"adapter\.json holds a list"):
        QueryAdapter.load(tmp_path)


def test_half_an_adapter_is_refused(tmp_path):
    """What a kill between the two files of a second save leaves."""
    rotation().save(tmp_path)
    weights = (tmp_path / "adapter.npz").read_bytes()
    fitted("mlp", 3).save(tmp_path)
    (tmp_path / "adapter.npz").write_bytes(weights)
    with pytest.raises(DamagedModelError, match=r"adapter\.npz cannot be read"):
        QueryAdapter.load(tmp_path)
