"""Pooling: one definition for numpy and torch, equal to sentence-transformers, blind to padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling

from llama_index_embed_plus.models.pooling import ATTENTION, POOLING_MODES, pool, unit
from qdrant_tools.errors import UsageError

SAINTS = tuple(mode for mode in POOLING_MODES if mode != ATTENTION)
LENGTHS = (7, 4, 1)


def batch(*, side: str = "right", extra: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """States (3, 7 + extra, 5) of texts with 7, 4 and 1 tokens; what lies under padding is not even a number."""
    generator = np.random.default_rng(0)
    longest = max(LENGTHS) + extra
    states = np.full((3, longest, 5), np.nan, np.float32)
    mask = np.zeros((3, longest), np.int64)
    for row, length in enumerate(LENGTHS):
        where = slice(longest - length, longest) if side == "left" else slice(0, length)
        states[row, where] = generator.normal(size=(length, 5))
        mask[row, where] = 1
    return states, mask


@pytest.mark.parametrize("prompt_tokens", [0, 2])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", SAINTS)
def test_each_mode_equals_sentence_transformers(mode, side, prompt_tokens):
    states, mask = (array[:2] for array in batch(side=side))  # both texts are longer than the prompt
    states = np.nan_to_num(states, nan=3.0)
    theirs = Pooling(5, mode, include_prompt=prompt_tokens == 0)(
        {
            "token_embeddings": torch.from_numpy(states),
            "attention_mask": torch.from_numpy(mask),
            "prompt_length": prompt_tokens,
        }
    )["sentence_embedding"]

    np.testing.assert_allclose(pool(states, mask, (mode,), prompt_tokens=prompt_tokens), theirs, atol=1e-6)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_numpy_and_torch_give_the_same(mode):
    states, mask = batch()
    attention = np.full((3, 2, 7, 7), 1 / 7, np.float32)

    ours = pool(states, mask, (mode,), attention=attention)
    theirs = pool(torch.from_numpy(states), torch.from_numpy(mask), (mode,), attention=torch.from_numpy(attention))

    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)
    assert ours.dtype == np.float32


@pytest.mark.parametrize("mode", SAINTS)
def test_the_side_and_amount_of_padding_and_what_lies_under_it_change_nothing(mode):
    plain = pool(*batch(), (mode,))

    np.testing.assert_allclose(pool(*batch(side="left", extra=3), (mode,)), plain, atol=1e-6)
    np.testing.assert_allclose(pool(*batch(extra=9), (mode,)), plain, atol=1e-6)
    assert np.isfinite(plain).all()


def test_several_modes_are_joined_in_the_order_given():
    states, mask = batch()

    joined = pool(states, mask, ("max", "cls"))

    np.testing.assert_array_equal(
        joined, np.concatenate([pool(states, mask, ("max",)), pool(states, mask, ("cls",))], 1)
    )


def test_a_token_that_gets_all_the_attention_is_the_whole_vector():
    states, mask = batch()
    attention = np.zeros((3, 2, 7, 7), np.float32)
    attention[..., 0] = 1.0  # every token, padding too, attends to the first only

    np.testing.assert_allclose(pool(states, mask, (ATTENTION,), attention=attention), states[:, 0], atol=1e-6)


def test_uniform_attention_is_the_mean():
    states, mask = batch()
    attention = mask[:, None, None, :] / mask.sum(1)[:, None, None, None] * np.ones((3, 2, 7, 1), np.float32)

    pooled = pool(states, mask, (ATTENTION,), attention=attention.astype(np.float32))

    np.testing.assert_allclose(pooled, pool(states, mask, ("mean",)), atol=1e-6)


def test_attention_pooling_without_attention_is_refused():
    with pytest.raises(UsageError, match="backend='torch'"):
        pool(*batch(), (ATTENTION,))


def test_an_unknown_mode_is_refused_with_the_modes_there_are():
    with pytest.raises(UsageError, match="'average', expected one of cls, max, mean"):
        pool(*batch(), ("average",))


def test_a_zero_vector_stays_zero_and_others_get_length_one():
    vectors = unit(np.array([[0.0, 0.0], [3.0, 4.0]], np.float32))

    np.testing.assert_allclose(vectors, [[0, 0], [0.6, 0.8]], atol=1e-7)
