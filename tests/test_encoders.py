"""Encoders: the vectors sentence-transformers gives, in any company, from torch and from ONNX."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from models import CONFIGS, DECODERS, TEXTS, save_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import LayerNorm

from llama_index_embed_plus.encoders import identify, open_encoder
from llama_index_embed_plus.errors import ModelNotFoundError, TextError, UsageError
from llama_index_embed_plus.export import export_onnx
from qdrant_tools.records import Encoder

PROMPTS = {"query": "query : ", "document": "a "}
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean")]
REAL = ["How do I sort a list?", "The cat sat on the mat. " * 40, "x", "emoji 😀 and a NUL \x00 inside", "Zürich 東京"]


def alone(encode, texts=TEXTS):
    """What sentence-transformers gives for each text on its own: with left padding its vectors depend on the batch."""
    return np.concatenate([encode([text], normalize_embeddings=True) for text in texts])


@pytest.fixture(scope="module")
def real(minilm):
    return open_encoder(minilm, device="cpu")


@pytest.fixture(scope="module")
def exported(minilm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact") / "minilm"
    return folder, export_onnx(minilm, folder)


def test_the_real_checkpoint_gives_the_vectors_of_sentence_transformers(real, minilm):
    theirs = SentenceTransformer(str(minilm), device="cpu")

    np.testing.assert_allclose(real.encode_queries(REAL), theirs.encode_query(REAL), atol=1e-6)
    np.testing.assert_allclose(real.encode_passages(REAL), theirs.encode_document(REAL), atol=1e-6)


@pytest.mark.parametrize("include_prompt", [True, False], ids=["with_prompt", "prompt_left_out"])
@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("pooling", MODES, ids=str)
def test_every_pooling_padding_and_prompt_equals_sentence_transformers(tmp_path, pooling, padding_side, include_prompt):
    theirs = save_model(
        tmp_path / "model",
        pooling=pooling,
        padding_side=padding_side,
        include_prompt=include_prompt,
        prompts=PROMPTS,
        extra=[Normalize()],
    )
    ours = open_encoder(tmp_path / "model", device="cpu")

    np.testing.assert_allclose(ours.encode_queries(TEXTS), alone(theirs.encode_query), atol=1e-6)
    np.testing.assert_allclose(ours.encode_passages(TEXTS), alone(theirs.encode_document), atol=1e-6)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_equals_sentence_transformers(tmp_path, family):
    pooling = "lasttoken" if family in DECODERS else "mean"
    side = "left" if family in DECODERS else "right"
    theirs = save_model(tmp_path / "model", family=family, pooling=pooling, padding_side=side, prompts=PROMPTS)
    ours = open_encoder(tmp_path / "model", device="cpu")

    np.testing.assert_allclose(ours.encode_queries(TEXTS), alone(theirs.encode_query), atol=1e-6)
    np.testing.assert_allclose(ours.encode_passages(TEXTS), alone(theirs.encode_document), atol=1e-6)


def test_layers_on_top_of_the_pooling_are_computed(tmp_path):
    extra = [
        Dense(32, 16),
        LayerNorm(16),
        Normalize(),
        Dense(16, 12, activation_function=None, bias=False, use_residual=True),
    ]
    theirs = save_model(tmp_path / "model", extra=extra)
    ours = open_encoder(tmp_path / "model", device="cpu")

    assert ours.dimension == 12
    np.testing.assert_allclose(ours.encode_passages(TEXTS), alone(theirs.encode_document), atol=1e-6)


def test_a_text_gets_one_vector_alone_in_a_batch_in_another_order_and_twice(real):
    texts = REAL + ["a long neighbour " * 80] * 3

    together = real.encode_passages(texts)

    np.testing.assert_allclose(np.concatenate([real.encode_passages([text]) for text in texts]), together, atol=1e-6)
    np.testing.assert_allclose(real.encode_passages(texts[::-1])[::-1], together, atol=1e-6)
    assert (together[-1] == together[-2]).all()


def test_no_texts_are_no_vectors(real):
    assert real.encode_queries([]).shape == (0, 384)


def test_progress_counts_every_text_once_also_equal_ones(real):
    seen: list[int] = []

    real.encode_passages([*REAL, *REAL], progress=seen.append)

    assert sum(seen) == 2 * len(REAL)


def test_threads_get_their_own_vectors(exported):
    encoder = open_encoder(exported[0])
    expected = encoder.encode_queries(REAL)
    barrier = threading.Barrier(8)

    def ask(i: int) -> np.ndarray:
        barrier.wait()
        return encoder.encode_queries([REAL[i % len(REAL)]])[0]

    with ThreadPoolExecutor(8) as pool:
        for i, vector in enumerate(pool.map(ask, range(8))):
            np.testing.assert_allclose(vector, expected[i % len(REAL)], atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["fine", 7], "text 1 is 7, a int"),
        (["fine", None], "text 1 is None, a NoneType"),
        ([""], "text 0 is ''"),
        (["fine", " \n\t"], "text 1 is ' \\\\n\\\\t'"),
        (["half a pair \ud83d"], "text 0 holds half a surrogate pair at position 12"),
        ("one string", "a single string was given, 'one string'"),
    ],
)
def test_a_text_that_cannot_be_embedded_is_named(real, texts, said):
    with pytest.raises(TextError, match=said):
        real.encode_passages(texts)


def test_cut_texts_are_counted_and_told_once(minilm, caplog):
    encoder = open_encoder(minilm, device="cpu")

    encoder.encode_passages(["word " * 300, "short"])
    encoder.encode_passages(["word " * 400, "words " * 500])

    assert encoder.truncated == 3
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "1 of 2 texts have more than the 254 tokens that fit (the longest at least 300) and were cut"
    ]


def test_an_encoder_is_what_qdrant_tools_expects(real):
    assert isinstance(real, Encoder)


def test_the_space_is_the_same_for_every_build_and_copy(real, exported):
    artifact = open_encoder(exported[0])

    assert (real.build, artifact.build) == ("torch-fp32", "onnx-fp32")
    assert real.space == artifact.space == identify("all-MiniLM-L6-v2").space
    assert real.space.startswith("all-MiniLM-L6-v2@")


def test_the_exported_graph_agrees_with_torch(real, exported):
    folder, report = exported

    np.testing.assert_allclose(open_encoder(folder).encode_queries(REAL), real.encode_queries(REAL), atol=1e-4)
    assert report.within
    assert report.max_abs_difference < 1e-4


def test_an_artifact_serves_without_importing_torch(exported):
    code = (
        "import sys\n"
        "from llama_index_embed_plus.encoders import open_encoder\n"
        f"encoder = open_encoder({str(exported[0])!r})\n"
        "vectors = encoder.encode_queries(['a question', 'another one'])\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'onnx', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert vectors.shape == (2, 384)\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_model_is_one_error_with_the_way_out(tmp_path):
    with pytest.raises(ModelNotFoundError, match="'nobody/nothing' is not on this machine"):
        open_encoder("nobody/nothing")
    with pytest.raises(ModelNotFoundError, match="no folder '.*missing'"):
        open_encoder(tmp_path / "missing")


def test_an_onnx_build_that_is_not_there_is_not_replaced_by_another(minilm):
    with pytest.raises(UsageError, match="has no ONNX build"):
        open_encoder(minilm, backend="onnx")


def test_an_unknown_backend_and_device_are_refused(minilm, exported):
    with pytest.raises(UsageError, match="'tensorflow', expected one of auto, torch, onnx"):
        open_encoder(minilm, backend="tensorflow")
    with pytest.raises(UsageError, match="'abacus' is not available"):
        open_encoder(minilm, device="abacus")
    with pytest.raises(UsageError, match="needs CUDAExecutionProvider, which this onnxruntime does not have"):
        open_encoder(exported[0], device="cuda")
