"""Tokens: every sequence once, little padding, the same tokens in any company."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st
from models import TEXTS, VOCABULARY, save_transformer

from llama_index_embed_plus.encoders.tokens import Tokenizer, plan_batches
from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.export.export import sample_texts
from qdrant_tools.errors import NotSupportedError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_transformer(tmp_path_factory.mktemp("model"))


def tokens_of(tokenizer, texts, **settings):
    return [ids.tolist() for ids in tokenizer.cut(texts, **settings).ids]


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
    sequences = Tokenizer(folder, 8).cut(["a dog", "the cat " * 10])

    assert [len(ids) for ids in sequences.ids] == [4, 8]
    assert sequences.over == {1: 20}
    assert sequences.ids[1][-1] == 3, "the closing token is kept"


def test_a_batch_is_padded_on_the_right_and_masked(folder):
    tokenizer = Tokenizer(folder, 24)

    batch = tokenizer.batch(tokenizer.cut(["a dog", "the"]).ids)

    assert batch.ids[1, -1] == 0
    assert batch.mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_truncation_and_padding_written_in_the_tokenizer_file_are_ignored(minilm):
    """The file of all-MiniLM-L6-v2 says: cut and pad to 128. Its other files say 256."""
    short, long = Tokenizer(minilm, 256).cut(["hello", "word " * 300]).ids

    assert (len(short), len(long)) == (3, 256)


def test_many_threads_get_the_tokens_one_thread_gets(folder):
    tokenizer = Tokenizer(folder, 24)
    alone = tokens_of(tokenizer, TEXTS)

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: tokens_of(tokenizer, TEXTS), range(64)))

    assert all(result == alone for result in results)


def test_a_prompts_length_does_not_count_the_closing_token(folder):
    tokenizer = Tokenizer(folder, 24)

    assert tokenizer.prompt_length("query : ") == 3  # [CLS] query :
    assert tokenizer.prompt_length("") == 0


@pytest.mark.parametrize("max_tokens", [5, 8, 24])
def test_tokens_are_those_of_transformers(folder, max_tokens):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)(
        ["query : " + text for text in TEXTS], truncation=True, max_length=max_tokens
    )["input_ids"]

    assert tokens_of(Tokenizer(folder, max_tokens), TEXTS, prompt="query : ") == theirs


def test_windows_cover_the_text_share_an_eighth_and_carry_the_prompt(folder):
    tokenizer = Tokenizer(folder, 20)
    words = [f"{word}" for word in ("one two three red blue fast slow cat dog bird " * 5).split()]

    sequences = tokenizer.windows(["a dog", " ".join(words)], prompt="query : ")

    query, colon = tokenizer.cut(["query :"]).ids[0][1:3].tolist()
    body = tokenizer.cut([" ".join(words)]).ids[0]
    long = [ids.tolist() for ids, owner in zip(sequences.ids, sequences.owner) if owner == 1]
    assert sequences.owner.tolist() == [0, 1, 1, 1, 1]
    assert all(len(ids) == 20 and ids[:3] == [2, query, colon] and ids[-1] == 3 for ids in long)
    starts = [0, 14, 28, 34]  # 16 of the text fit beside the prompt; 2 are shared; the last window ends with the text
    whole = Tokenizer(folder, 60).cut([" ".join(words)]).ids[0][1:-1].tolist()
    assert [ids[3:-1] for ids in long] == [whole[start : start + 16] for start in starts]
    assert sequences.over == {1: 52}
    assert len(body) == 20


def test_a_text_of_many_pieces_has_the_tokens_of_the_whole(minilm, monkeypatch):
    text = "the quick brown fox, naïve and 42 years old, said: hello-world! " * 200
    whole = Tokenizer(minilm, 10_000).cut([text]).ids[0]
    monkeypatch.setattr("llama_index_embed_plus.encoders.tokens._PIECE", 100)

    np.testing.assert_array_equal(Tokenizer(minilm, 10_000).cut([text]).ids[0], whole)
    np.testing.assert_array_equal(Tokenizer(minilm, 256).cut([text]).ids[0][:-1], whole[:255])


def test_ten_megabytes_of_text_are_not_tokenised_to_the_end(minilm):
    sequences = Tokenizer(minilm, 256).cut(["the quick brown fox " * 500_000])

    assert len(sequences.ids[0]) == 256
    assert sequences.over[0] < 20_000


def test_ten_megabytes_without_a_space_are_tokenised_too(minilm):
    assert len(Tokenizer(minilm, 256).cut(["漢" * 3_000_000]).ids[0]) == 256


def test_a_decoder_gets_the_closing_token_its_settings_ask_for(tmp_path):
    folder = save_transformer(tmp_path / "model", family="qwen2")
    backend = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**backend, "post_processor": None}))
    assert tokens_of(Tokenizer(folder, 24), ["a dog"]) == [[VOCABULARY["a"], VOCABULARY["dog"]]]

    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"add_eos_token": True, "eos_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    assert tokens_of(Tokenizer(folder, 24), ["a dog"]) == [[VOCABULARY["a"], VOCABULARY["dog"], 3]]


def test_an_old_bert_folder_without_tokenizer_json_is_read_from_its_vocabulary(minilm, tmp_path):
    for name in ("vocab.txt", "config.json", "tokenizer_config.json"):
        shutil.copy(minilm / name, tmp_path)
    texts = ["Hello, World! It's 東京 and naïve", "unaffable"]

    assert tokens_of(Tokenizer(tmp_path, 256), texts) == tokens_of(Tokenizer(minilm, 256), texts)


def test_no_room_for_a_text_is_refused(folder):
    with pytest.raises(UsageError, match="max_tokens is 2, which leaves no room: this model adds 2 to every text"):
        Tokenizer(folder, 2)


def test_a_missing_or_damaged_tokenizer_is_named(folder, tmp_path):
    with pytest.raises(DamagedModelError, match="tokenizer.json is missing"):
        Tokenizer(tmp_path, 24)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DamagedModelError, match="tokenizer.json cannot be read"):
        Tokenizer(tmp_path, 24)


def test_token_types_other_than_zero_are_not_silently_dropped(folder, tmp_path):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"]["single"][0]["SpecialToken"]["type_id"] = 2
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))

    with pytest.raises(NotSupportedError, match=r"gives token types \[2, 0, 0\], expected 0 for a single text"):
        Tokenizer(tmp_path, 24)


SENTENCES = [
    "Hello  World!\tTabs\n\nnewlines",
    "naïve cafe\u0301 😀 東京",
    "   leading and trailing   ",
    "it's 3.14 (don't)",
    "<s> [SEP] </s> [CLS]",
    "a" * 300,
    "\u200bzero\u00a0width",
]
MARKS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def byte_pairs():
    """(vocabulary, merges) of a small byte-level BPE, trained on real text."""
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, initial_alphabet=letters, special_tokens=MARKS)
    learner.train_from_iterator(sample_texts(), trainer)
    model = json.loads(learner.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


def pieces():
    """The vocabulary of a small unigram model with its scores, trained on real text."""
    learner = tokenizers.Tokenizer(tokenizers.models.Unigram())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(vocab_size=400, special_tokens=MARKS, unk_token="<unk>")
    learner.train_from_iterator(sample_texts(), trainer)
    return {"vocab": [tuple(piece) for piece in json.loads(learner.to_str())["model"]["vocab"]]}


@pytest.mark.parametrize(
    ("kind", "vocabulary"),
    [
        (transformers.RobertaTokenizer, byte_pairs),
        (transformers.GPT2Tokenizer, byte_pairs),
        (transformers.LlamaTokenizer, lambda: {**byte_pairs(), "add_eos_token": True}),
        (transformers.XLMRobertaTokenizer, pieces),
        (transformers.T5Tokenizer, pieces),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_tokenizers_of_other_families_give_the_tokens_of_transformers(tmp_path, kind, vocabulary):
    kind(**vocabulary()).save_pretrained(tmp_path)
    theirs = kind.from_pretrained(tmp_path)(SENTENCES, truncation=True, max_length=40)["input_ids"]

    assert tokens_of(Tokenizer(tmp_path, 40), SENTENCES) == theirs
