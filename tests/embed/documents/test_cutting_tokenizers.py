"""No passage is longer than an encoder reads, whatever kind of tokenizer it has, with its prompt and its frame."""

from __future__ import annotations

import pytest
from counting import Counter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers_of_all_kinds import KINDS, SENTENCES, save_tokenizer

from llama_index_embed_plus.documents.blocks import markdown_blocks, text_blocks
from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.records import CutSettings
from llama_index_embed_plus.encoders.tokens import Tokenizer

WORDS = st.sampled_from(
    [
        "the",
        "museum",
        "Donaudampfschifffahrtsgesellschaft",
        "東京の天気",
        "x" * 90,
        "3.14",
        "é̂",
        "🙂🙂",
        "-",
        "ﬁ",
        "a\u200bb",
    ]
)
ODD = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)
LINES = st.lists(WORDS, max_size=30).map(" ".join) | st.sampled_from(SENTENCES) | ODD | st.just("")
MARKS = st.sampled_from(["", "", "# ", "## ", "- ", "| a | "])
TEXTS = st.lists(st.tuples(MARKS, LINES).map("".join), min_size=1, max_size=14).map("\n".join)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    return {kind: save_tokenizer(folder / kind, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=TEXTS,
    prompt=st.sampled_from(["", "passage: ", "Represent this sentence:"]),
    context=st.sampled_from(["none", "headings"]),
    overlap=st.sampled_from([0, 6]),
    most=st.sampled_from([24, 40, 64]),
)
def test_no_passage_is_longer_than_is_read(folders, kind, text, prompt, context, overlap, most):
    tokenizer = Tokenizer(folders[kind], most + 20)
    counter = Counter(tokenizer, prompt)
    cutter = Cutter(counter, CutSettings(max_tokens=most, context=context, overlap=overlap))
    for read in (text_blocks, markdown_blocks):
        for piece in cutter.cut(read(text.splitlines())):
            (tokens,) = tokenizer.counts([prompt + piece.text])
            assert tokens - counter._lead == piece.tokens
            assert piece.tokens <= cutter.room or len(piece.text) == 1
            assert piece.truncated == 0 or len(piece.text) == 1
            # as the encoder itself reads it: the frame and the prompt included
            assert not tokenizer.cut([piece.text], prompt=prompt).over or len(piece.text) == 1
