"""A query adapter: residual, saved with its space, refused in another."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index_embed_plus.adapter import AdaptedEncoder, QueryAdapter
from llama_index_embed_plus.errors import DamagedModelError, UsageError


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


def test_an_unfitted_adapter_changes_nothing():
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(QueryAdapter.identity(3, "s")(vectors), vectors, atol=1e-7)


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
    (tmp_path / "adapter.npz").write_bytes(b"not an archive")
    with pytest.raises(DamagedModelError, match="cannot be read"):
        QueryAdapter.load(tmp_path)
