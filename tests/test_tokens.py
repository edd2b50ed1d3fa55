"""Tokens: every sequence once, little padding, the same tokens in any company."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import TEXTS, save_transformer

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.tokens import Tokenizer, plan_batches


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_transformer(tmp_path_factory.mktemp("model"))


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 2000))
def test_every_sequence_is_in_one_batch_and_no_batch_is_over_budget(lengths, budget):
    batches = plan_batches(lengths, budget)

    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_batches_go_from_long_to_short():
    lengths = [3, 9, 1, 7, 5]

    order = np.concatenate(plan_batches(lengths, 9))

    assert [lengths[i] for i in order] == [9, 7, 5, 3, 1]


def test_a_text_is_cut_at_the_longest_length_and_its_whole_length_is_known(folder):
    (tokens,) = Tokenizer(folder, 8).encode(["the cat " * 10])

    assert (len(tokens.ids), tokens.length) == (8, 22)
    assert tokens.ids[-1] == 3, "the closing token is kept"


def test_a_batch_is_padded_on_the_right_and_masked(folder):
    tokenizer = Tokenizer(folder, 24)

    batch = tokenizer.batch([tokens.ids for tokens in tokenizer.encode(["a dog", "the"])])

    assert batch.ids[1, -1] == 0
    assert batch.mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_truncation_and_padding_written_in_the_tokenizer_file_are_ignored(minilm):
    """The file of all-MiniLM-L6-v2 says: cut and pad to 128. Its other files say 256."""
    short, long = Tokenizer(minilm, 256).encode(["hello", "word " * 300])

    assert (len(short.ids), len(long.ids)) == (3, 256)


def test_many_threads_get_the_tokens_one_thread_gets(folder):
    tokenizer = Tokenizer(folder, 24)
    alone = [tokens.ids.tolist() for tokens in tokenizer.encode(TEXTS)]

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: [t.ids.tolist() for t in tokenizer.encode(TEXTS)], range(64)))

    assert all(result == alone for result in results)


def test_a_prompts_length_does_not_count_the_closing_token(folder):
    tokenizer = Tokenizer(folder, 24)

    assert tokenizer.prompt_length("query : ") == 3  # [CLS] query :
    assert tokenizer.prompt_length("") == 0


def test_a_missing_or_damaged_tokenizer_is_named(folder, tmp_path):
    with pytest.raises(DamagedModelError, match="tokenizer.json is missing"):
        Tokenizer(tmp_path, 24)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DamagedModelError, match="tokenizer.json cannot be read"):
        Tokenizer(tmp_path, 24)
