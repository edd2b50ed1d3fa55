"""Late chunking: every token belongs to one passage, and a passage is the mean of its own token states."""

from __future__ import annotations

import itertools
import logging
import shutil

import numpy as np
import onnx
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import DECODERS, save_model
from sentence_transformers.base.modules import Dense, Normalize
from tokenizers_of_all_kinds import KINDS, SENTENCES, save_tokenizer

from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.cutting.tokens import token_counter
from llama_index_embed_plus.documents.records import CutSettings
from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter
from llama_index_embed_plus.encoders.late import LateEncoder, with_late_chunking
from llama_index_embed_plus.encoders.open import describe, identify, open_encoder
from llama_index_embed_plus.encoders.tokens import BETWEEN, Tokenizer
from llama_index_embed_plus.errors import TextError
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.models.spec import Overrides, late_space, read_spec
from qdrant_tools.errors import NotSupportedError, UsageError
from qdrant_tools.search.adapters import unfitted

LATE = Overrides(late=True)
BERLIN = [
    "Berlin is the capital and largest city of Germany, both by area and by population.",
    "Its more than 3.85 million inhabitants make it the European Union's most populous city.",
    "The city is also one of the states of Germany, and is the third smallest state in the country in terms of area.",
]
MUSEUM = [
    "The Museum of Tides\n\nOpening hours",
    "It opens at nine -- on Mondays at noon -- and closes at six.",
    "Tickets: 12 €, children half; naïve visitors pay thrice.",
    "東京の天気は明日から雨になるでしょう。",
    "It was founded in 1901 by sailors who had nothing else to do in the winter, or so the founding charter says.",
]
SMALL = ["the cat sleeps under the tree .", "a dog", "what is the river ?", "red and blue birds"]


@pytest.fixture(scope="module")
def real(minilm):
    return open_encoder(minilm, device="cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An artifact of a small random model with all three builds."""
    folder = tmp_path_factory.mktemp("late")
    save_model(folder / "model")
    export_onnx(folder / "model", folder / "artifact", precision="int8", force=True)
    return folder / "artifact"


def reference(folder, texts, *, prompt=""):
    """Late chunking written down naively: the states of one pass, and the mean over each passage's tokens.

    The first passage begins with what comes before it, and the last ends with what comes after it, as in the code of
    the paper's authors.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer(prompt + BETWEEN.join(texts), return_tensors="pt", return_offsets_mapping=True)
    offsets = inputs.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        states = model(**inputs).last_hidden_state[0]
    starts = list(itertools.accumulate((len(text) + len(BETWEEN) for text in texts[:-1]), initial=len(prompt)))
    rows: list[list[int]] = [[] for _ in texts]
    for token, (_, stop) in enumerate(offsets):
        if token in (0, len(offsets) - 1):  # [CLS] and [SEP]
            rows[0 if token == 0 else -1].append(token)
        else:
            rows[max(0, sum(start < stop for start in starts) - 1)].append(token)
    means = torch.stack([states[row].mean(0) for row in rows])
    return torch.nn.functional.normalize(means, dim=1).numpy()


@pytest.mark.parametrize("texts", [BERLIN, MUSEUM, ["alone in the world"], [*BERLIN, *MUSEUM]])
def test_vectors_are_those_of_a_naive_reference_on_the_real_checkpoint(real, minilm, texts):
    late = with_late_chunking(real)

    windows = list(late.windows(texts))
    assert [text for window in windows for text in window] == texts and len(windows) == 1

    np.testing.assert_allclose(late.encode_windows(windows), reference(minilm, texts), atol=2e-6)


def test_passages_of_one_window_know_of_each_other(real):
    late, plain = with_late_chunking(real), real.encode_passages(BERLIN)
    question = real.encode_queries(["Berlin"])[0]

    vectors = late.encode_windows([BERLIN])

    # the example of the paper: "Its" and "the city" are Berlin
    assert (vectors[1:] @ question > plain[1:] @ question + 0.1).all()


def test_a_window_of_one_passage_is_the_passage_without_late_chunking(real, small):
    late = with_late_chunking(real)
    assert np.array_equal(late.encode_windows([[text] for text in BERLIN]), real.encode_passages(BERLIN))
    for backend in ("torch", "onnx-fp32", "onnx-int8"):
        plain = open_encoder(small, backend=backend)
        late = with_late_chunking(plain)
        sequence, borders = late.tokenizer.together(SMALL[:1])
        pooled = plain.backend.stretches(late.tokenizer.batch([sequence]), [(0, *borders)], alone=True)
        np.testing.assert_allclose(pooled, plain.encode_passages(SMALL[:1]), atol=1e-6)


def test_builds_agree_as_they_do_without_late_chunking(small):
    vectors = {
        backend: open_encoder(small, backend=backend, overrides=LATE).encode_windows([SMALL, SMALL[:2], SMALL[2:]])
        for backend in ("torch", "onnx-fp32", "onnx-int8")
    }
    np.testing.assert_allclose(vectors["onnx-fp32"], vectors["torch"], atol=1e-5)
    assert (vectors["onnx-int8"] * vectors["torch"]).sum(1).min() > 0.99


@pytest.mark.parametrize("family", ["modernbert", "t5"])
def test_a_traced_graph_gives_token_states_too(family, tmp_path):
    save_model(tmp_path / "model", family=family)
    export_onnx(tmp_path / "model", tmp_path / "artifact", precision="int8", force=True)
    torch_vectors, fp32, int8 = (
        open_encoder(tmp_path / "artifact", backend=backend, overrides=LATE).encode_windows([SMALL])
        for backend in ("torch", "onnx-fp32", "onnx-int8")
    )
    np.testing.assert_allclose(fp32, torch_vectors, atol=1e-5)
    assert (int8 * torch_vectors).sum(1).min() > 0.98


def test_an_int8_window_has_the_same_bits_alone_and_in_any_batch(small):
    late = open_encoder(small, backend="onnx-int8", overrides=LATE)
    windows = [SMALL, SMALL[1:3], ["fast dog", "slow cat runs over the stone"], [SMALL[0], SMALL[0]], ["red"]]

    together = late.encode_windows(windows * 20)
    alone = np.concatenate([late.encode_windows([window]) for window in windows])

    assert np.array_equal(together, np.concatenate([alone] * 20))


@pytest.mark.parametrize("include_prompt", [True, False])
def test_a_prompt_is_read_once_and_pooled_as_the_model_says(include_prompt, tmp_path):
    save_model(tmp_path / "model", prompts={"document": "passage : "}, include_prompt=include_prompt)
    late = open_encoder(tmp_path / "model", device="cpu", overrides=LATE)
    expected = reference(tmp_path / "model", SMALL, prompt="passage : ")

    vectors = late.encode_windows([SMALL])

    np.testing.assert_allclose(vectors[1:], expected[1:], atol=1e-6)
    plain = open_encoder(tmp_path / "model", device="cpu")
    assert np.array_equal(late.encode_windows([SMALL[:1]]), plain.encode_passages(SMALL[:1]))
    if include_prompt:
        np.testing.assert_allclose(vectors[0], expected[0], atol=1e-6)
    else:
        assert np.abs(vectors[0] - expected[0]).max() > 1e-3
        ids, borders = late.tokenizer.together(SMALL, prompt="passage : ")
        first = late.backend.stretches(late.tokenizer.batch([ids]), [(0, 3, borders[1])], alone=True)
        np.testing.assert_allclose(vectors[0], first[0], atol=1e-6)


def test_layers_on_top_are_applied_to_each_passage(tmp_path):
    save_model(tmp_path / "model", extra=[Dense(32, 16), Normalize()])
    late = open_encoder(tmp_path / "model", device="cpu", overrides=Overrides(late=True, truncate_dim=8))
    plain = open_encoder(tmp_path / "model", device="cpu", overrides=Overrides(truncate_dim=8))
    ids, borders = late.tokenizer.together(SMALL)

    vectors = late.encode_windows([SMALL])

    assert vectors.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    # the whole window as one stretch is the plain vector of its text
    whole = late.backend.stretches(late.tokenizer.batch([ids]), [(0, 0, borders[-1])], alone=True)
    np.testing.assert_allclose(whole, plain.encode_passages([BETWEEN.join(SMALL)]), atol=1e-6)


PLAIN_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
PASSAGES = st.lists(st.sampled_from([*SENTENCES, *BERLIN]) | PLAIN_TEXT, min_size=1, max_size=6)


@pytest.fixture(scope="module")
def tokenizers_by_kind(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    return {kind: Tokenizer(save_tokenizer(folder / kind, kind), 512) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=PASSAGES, prompt=st.sampled_from(["", "passage: "]))
def test_every_token_belongs_to_one_passage(tokenizers_by_kind, kind, texts, prompt):
    tokenizer = tokenizers_by_kind[kind]

    ids, borders = tokenizer.together(texts, prompt=prompt)

    assert len(borders) == len(texts) + 1 and borders[0] == 0 and borders[-1] == len(ids)
    assert borders == sorted(borders)
    whole = tokenizer.cut([BETWEEN.join(texts)], prompt=prompt)
    if not whole.over:
        assert np.array_equal(ids, whole.ids[0])
    encoding = tokenizer._tokenizer.encode(prompt + BETWEEN.join(texts), add_special_tokens=False)
    position = len(prompt)
    for number, text in enumerate(texts):
        behind = position + len(text) + (len(BETWEEN) if number + 1 < len(texts) else 0)
        for token in range(borders[number], borders[number + 1]):
            if 1 <= token < len(ids) - 1:
                start, stop = encoding.offsets[token - 1]
                # a token without a place of its own stands where the one before it stands
                assert stop == start or (position < stop or number == 0) and stop <= behind
        position = behind


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(st.sampled_from([*SENTENCES, *BERLIN, *MUSEUM, "x " * 400, "\u200b", "🙂" * 3]), max_size=40))
def test_windows_hold_every_passage_once_in_order_and_fit(real, texts):
    late = with_late_chunking(real)

    windows = list(late.windows(iter(texts)))

    assert [text for window in windows for text in window] == texts
    for window in windows:
        ids, _ = late.tokenizer.together(window)
        assert len(window) == 1 or len(ids) <= late.spec.max_tokens


def test_what_fits_into_no_window_with_others_is_embedded_as_without_late_chunking(real, caplog):
    late = with_late_chunking(real)
    texts = [BERLIN[0], "word " * 300, "\u200b", BERLIN[1], "  y " * 13_000, BERLIN[2]]

    windows = list(late.windows(texts))

    assert [len(window) for window in windows] == [1] * 6
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(late.encode_windows(windows), real.encode_passages(texts))
    assert "were cut" in caplog.text


def test_windows_are_read_as_a_stream(real):
    late, read = with_late_chunking(real), []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield f"passage {number}: {BERLIN[number % 3]}"

    windows = list(itertools.islice(late.windows(endless()), 5))

    assert len(read) <= sum(map(len, windows)) + 20


def test_an_edit_changes_the_windows_around_it_only(real):
    late = with_late_chunking(real)
    texts = [f"Paragraph {number} says that {BERLIN[number % 3]}" for number in range(300)]
    before = {tuple(window) for window in late.windows(texts)}
    changed = []
    for place in range(5, 300, 20):
        edited = [*texts[:place], f"Inserted at {place}: the harbour freezes.", *texts[place:]]
        windows = [tuple(window) for window in late.windows(edited)]
        changed.append(sum(window not in before for window in windows))

    assert len(before) > 25
    # most edits change one or two windows; where the hashes are unlucky a few more pass until borders meet again
    assert np.median(changed) <= 2 and max(changed) <= 8


def test_late_chunking_is_a_space_of_its_own_that_is_found_out_from_files(real, minilm, small):
    late = open_encoder(minilm, device="cpu", overrides=LATE)
    assert late.space != real.space and late.space.partition("@")[0] == real.space.partition("@")[0]
    assert late.space == late_space(real.space) == identify(minilm, overrides=LATE).space
    assert with_late_chunking(real).space == late.space and isinstance(late, LateEncoder)
    assert not isinstance(real, LateEncoder) and real.space == identify(minilm).space
    fact = next(fact for fact in describe(minilm, overrides=LATE).facts if fact.name == "late")
    assert fact.value is True and fact.source == "asked for by the caller"


def test_an_artifact_made_with_late_chunking_opens_with_it(tmp_path):
    save_model(tmp_path / "model")
    export_onnx(tmp_path / "model", tmp_path / "artifact", precision="int8", force=True, overrides=LATE)

    late = open_encoder(tmp_path / "artifact")

    assert isinstance(late, LateEncoder) and late.build == "onnx-int8"
    assert read_spec(tmp_path / "artifact").late
    assert late.space == late_space(open_encoder(tmp_path / "model").space)
    plain = open_encoder(tmp_path / "artifact", overrides=Overrides(late=False))
    assert not isinstance(plain, LateEncoder) and plain.space == open_encoder(tmp_path / "model").space
    # and again: a copy that is exported from an artifact with late chunking
    export_onnx(tmp_path / "artifact", tmp_path / "again", force=True)
    assert open_encoder(tmp_path / "again").space == late.space


def test_queries_are_embedded_as_before_and_an_adapter_is_kept(real):
    late = with_late_chunking(real)
    questions = ["Which city is the capital?", "who founded the museum"]
    assert np.array_equal(late.encode_queries(questions), real.encode_queries(questions))
    adapted = AdaptedEncoder(late, QueryAdapter(unfitted("full", 384, width=4, seed=0), late.space))
    np.testing.assert_allclose(adapted.encode_queries(questions), real.encode_queries(questions), atol=1e-6)
    with pytest.raises(UsageError, match="fitted in space"):
        AdaptedEncoder(late, QueryAdapter(unfitted("full", 384, width=4, seed=0), real.space))


def test_a_passage_alone_is_refused(real):
    late = with_late_chunking(real)
    with pytest.raises(NotSupportedError, match="index the documents again, or open the model without"):
        late.encode_passages(BERLIN)
    with pytest.raises(TextError, match="text 1 is ' '"):
        late.encode_windows([["a", " "]])
    with pytest.raises(UsageError, match="a window has 402 tokens"):
        late.encode_windows([["a " * 200, "b " * 200]])


def test_passages_are_cut_so_that_several_fit_and_overlap_is_refused(real):
    late = with_late_chunking(real)
    assert (token_counter(late).room, Cutter(token_counter(late)).room) == (254, 63)
    assert Cutter(token_counter(late), CutSettings(max_tokens=200)).room == 200
    assert Cutter(token_counter(real)).room == 254
    with pytest.raises(UsageError, match="leave the overlap out"):
        Cutter(token_counter(late), CutSettings(overlap=8))


@pytest.mark.parametrize("pooling", ["cls", "max", "lasttoken", ("cls", "mean")])
def test_other_poolings_are_refused(pooling, tmp_path):
    save_model(tmp_path / "model", pooling=pooling)
    with pytest.raises(NotSupportedError, match="not the mean: index without late chunking"):
        open_encoder(tmp_path / "model", device="cpu", overrides=LATE)


@pytest.mark.parametrize("family", DECODERS)
def test_decoders_are_refused_because_they_do_not_look_ahead(family, tmp_path):
    save_model(tmp_path / "model", family=family)
    with pytest.raises(NotSupportedError, match="only what comes before"):
        open_encoder(tmp_path / "model", device="cpu", overrides=LATE)


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "distilbert", "modernbert", "gemma3_text", "t5"])
def test_encoders_of_every_family_look_ahead(family, tmp_path):
    save_model(tmp_path / "model", family=family)
    late = open_encoder(tmp_path / "model", device="cpu", overrides=LATE)
    assert len(late.encode_windows([SMALL[:2]])) == 2


def test_a_build_of_an_earlier_version_says_that_it_has_no_token_states(small, tmp_path):
    graph = onnx.load(small / "onnx" / "model.onnx")
    del graph.graph.output[1:]
    (tmp_path / "hub").mkdir()
    for file in small.glob("*.json"):
        if file.name != "embed_plus.json":
            shutil.copy(file, tmp_path / "hub")
    shutil.copytree(small / "1_Pooling", tmp_path / "hub" / "1_Pooling")
    onnx.save(graph, tmp_path / "hub" / "model.onnx")
    with pytest.raises(NotSupportedError, match="has no token states.*: export it again, or use backend='torch'"):
        open_encoder(tmp_path / "hub", backend="onnx", overrides=LATE)
