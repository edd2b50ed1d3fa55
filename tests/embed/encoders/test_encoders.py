"""Encoders: the vectors sentence-transformers gives, in any company, from torch and from ONNX."""

from __future__ import annotations

import gc
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import safetensors.torch
import torch
import transformers
from models import CONFIGS, DECODERS, TEXTS, VOCABULARY, save_model, save_transformer
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import LayerNorm

from llama_index_embed_plus.encoders.open import identify, open_encoder
from llama_index_embed_plus.encoders.text_encoder import Runtime
from llama_index_embed_plus.errors import ModelError, ModelNotFoundError, TextError
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.models.spec import Overrides
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Encoder

PROMPTS = {"query": "query : ", "document": "a "}
WORD_OF = {i: word for word, i in VOCABULARY.items()}
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
        "from llama_index_embed_plus.encoders.open import open_encoder\n"
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
    with pytest.raises(UsageError, match="has no ONNX build: `embed-plus export .* --out FOLDER` makes one"):
        open_encoder(minilm, backend="onnx")


def test_an_unknown_backend_and_device_are_refused(minilm, exported):
    with pytest.raises(UsageError, match="'tensorflow', expected one of auto, torch, onnx"):
        open_encoder(minilm, backend="tensorflow")
    with pytest.raises(UsageError, match="'abacus' is not available"):
        open_encoder(minilm, device="abacus")
    with pytest.raises(UsageError, match="needs CUDAExecutionProvider, which this onnxruntime does not have"):
        open_encoder(exported[0], device="cuda")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_model(folder, prompts=PROMPTS)
    return folder


@pytest.fixture(scope="module")
def tiny_artifact(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-artifact") / "sealed"
    export_onnx(tiny, folder)
    return folder


LONG = " ".join(TEXTS * 3)


def test_attention_pooling_weights_tokens_by_the_attention_they_get(tiny):
    encoder = open_encoder(tiny, device="cpu", overrides=Overrides(pooling="attention", passage_prompt=""))
    model = transformers.AutoModel.from_pretrained(tiny, attn_implementation="eager").eval()
    inputs = transformers.AutoTokenizer.from_pretrained(tiny)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs, output_attentions=True)
    weights = output.attentions[-1][0].mean(0).sum(0)
    expected = (weights / weights.sum()) @ output.last_hidden_state[0]

    vectors = encoder.encode_passages([TEXTS[0], LONG])

    np.testing.assert_allclose(vectors[0], expected / expected.norm(), atol=1e-6)


def test_a_long_text_can_be_averaged_over_windows_weighted_by_their_tokens(tiny):
    encoder = open_encoder(tiny, device="cpu", overrides=Overrides(long_text="mean"))
    windows = encoder.tokenizer.windows([LONG], prompt="a ")
    texts = [" ".join(WORD_OF[i] for i in ids[1:-1]) for ids in windows.ids]  # each with its prompt
    parts = open_encoder(tiny, device="cpu", overrides=Overrides(passage_prompt="")).encode_passages(texts)
    expected = (parts * windows.weight[:, None]).sum(0)

    vectors = encoder.encode_passages(["a dog", LONG, "the cat"])

    assert len(texts) > 2
    np.testing.assert_allclose(vectors[1], expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(vectors[[0, 2]], open_encoder(tiny).encode_passages(["a dog", "the cat"]), atol=1e-6)
    assert encoder.truncated == 0


def test_progress_over_windows_counts_texts(tiny):
    encoder = open_encoder(tiny, device="cpu", overrides=Overrides(long_text="mean"), runtime=Runtime(batch_tokens=48))
    seen: list[int] = []

    encoder.encode_passages([LONG, "a dog", LONG, LONG + " cat"], progress=seen.append)

    assert sum(seen) == 4
    assert 0 not in seen


def test_a_long_text_can_be_refused_by_name(tiny):
    encoder = open_encoder(tiny, device="cpu", overrides=Overrides(long_text="error"))

    with pytest.raises(TextError, match=r"text 2 .* has at least 1\d\d tokens with its prompt, 22 fit; split it"):
        encoder.encode_passages(["a dog", "a dog", LONG])


def test_a_shorter_vector_is_the_start_of_the_long_one_at_unit_length(tiny):
    long = open_encoder(tiny, device="cpu").encode_passages(TEXTS)
    short = open_encoder(tiny, device="cpu", overrides=Overrides(truncate_dim=8))

    assert short.dimension == 8
    expected = long[:, :8] / np.linalg.norm(long[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short.encode_passages(TEXTS), expected, atol=1e-6)


def test_without_normalisation_vectors_are_what_the_modules_give(tiny):
    theirs = SentenceTransformer(str(tiny), device="cpu").encode_document(TEXTS)

    ours = open_encoder(tiny, device="cpu", overrides=Overrides(normalize=False)).encode_passages(TEXTS)

    assert np.linalg.norm(theirs, axis=1).min() > 1.1
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_a_model_that_needs_its_own_code_is_not_computed_by_another(tmp_path):
    folder = save_transformer(tmp_path / "jina-embeddings-v2-base-en")

    with pytest.raises(UsageError, match=r"architecture is code in its own repository .*jina-embeddings-v2-base-en"):
        open_encoder(folder)


def test_code_in_a_model_folder_is_not_run(tmp_path):
    folder = save_transformer(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}})
    )
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: ...\nclass M: ...\n")

    with pytest.raises(ModelError, match="cannot be opened by transformers"):
        open_encoder(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_that_lack_a_layer_are_not_filled_with_random_numbers(tmp_path):
    folder = save_transformer(tmp_path / "model")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.attention.self.key.weight"]
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match="the weights lack 'encoder.layer.1.attention.self.key.weight'"):
        open_encoder(folder)


def test_one_core_or_small_batches_change_no_vector(exported):
    expected = open_encoder(exported[0]).encode_passages(REAL)

    for runtime in (Runtime(threads=1), Runtime(batch_tokens=16), Runtime(threads=3, batch_tokens=64)):
        vectors = open_encoder(exported[0], runtime=runtime).encode_passages(REAL)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threads": 0}, "threads is 0, expected at least 1"),
        ({"batch_tokens": -1}, "batch_tokens is -1, expected at least 1"),
        ({"on_mismatch": "shrug"}, "on_mismatch is 'shrug', expected one of fallback, error"),
    ],
)
def test_a_runtime_setting_that_makes_no_sense_is_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        Runtime(**settings)


def test_threads_are_not_silently_ignored_by_torch(tiny):
    with pytest.raises(UsageError, match=r"threads is a setting of ONNX builds.*torch.set_num_threads"):
        open_encoder(tiny, runtime=Runtime(threads=1))


def test_bad_input_fails_before_anything_is_computed(real, monkeypatch):
    monkeypatch.setattr(real, "backend", None)

    with pytest.raises(TextError, match="text 3000 is"):
        real.encode_passages([*["fine"] * 3000, object()])


def test_memory_does_not_grow_with_the_calls(tiny_artifact):
    encoder = open_encoder(tiny_artifact)
    process = psutil.Process()

    def megabytes_after(calls: int) -> float:
        for i in range(calls):
            encoder.encode_queries([f"{TEXTS[0]} {i % 7}"])
        gc.collect()
        return process.memory_info().rss / 1e6

    found = [megabytes_after(400) for _ in range(6)]

    # what a call keeps is added in every round, what the allocator happens to take is not
    assert min(after - before for before, after in zip(found, found[1:])) < 0.4


def test_a_revision_of_a_folder_is_refused(tiny):
    with pytest.raises(UsageError, match="revision 'main' was given for the folder"):
        open_encoder(tiny, revision="main")


def test_a_model_in_the_hubs_cache_is_opened_offline_by_name_and_revision(tiny, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--somebody--tiny"
    shutil.copytree(tiny, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    expected = open_encoder(tiny, device="cpu")

    by_name = open_encoder("somebody/tiny", cache_folder=tmp_path / "cache", device="cpu")
    by_commit = open_encoder("somebody/tiny", revision=commit, cache_folder=tmp_path / "cache", device="cpu")

    assert by_name.space == by_commit.space == expected.space
    with pytest.raises(ModelNotFoundError, match="model 'somebody/tiny' at revision 'v9' is not on this machine"):
        open_encoder("somebody/tiny", revision="v9", cache_folder=tmp_path / "cache")


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_no_memory_is_one_line_with_the_way_out(backend, minilm, exported):
    """A batch of 750,000 tokens where two gigabytes are left to this process."""
    model = exported[0] if backend == "onnx" else minilm
    code = (
        "import resource\n"
        "from llama_index_embed_plus.encoders.open import open_encoder, Runtime\n"
        "from llama_index_embed_plus.errors import ModelError\n"
        f"encoder = open_encoder({str(model)!r}, backend={backend!r}, runtime=Runtime(batch_tokens=4_000_000))\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2_000_000_000,) * 2)\n"
        "try:\n    encoder.encode_passages(['word ' * 250 + str(i) for i in range(3000)])\n"
        "except ModelError as error:\n    print(error)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert re.match(r"no memory on .* for a batch of 3000 texts of 25\d tokens; use smaller batches", done.stdout)
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(("dtype", "build"), [("bfloat16", "torch-bf16"), ("float16", "torch-fp16")])
def test_shorter_numbers_are_another_build_of_the_same_space(tiny, dtype, build):
    exact, short = open_encoder(tiny, device="cpu"), open_encoder(tiny, device="cpu", runtime=Runtime(dtype=dtype))

    vectors = short.encode_passages(TEXTS)

    assert (short.build, short.space) == (build, exact.space)
    assert vectors.dtype == np.float32
    assert np.sum(vectors * exact.encode_passages(TEXTS), axis=1).min() > 0.999


def test_two_hundred_threads_get_what_one_gets(tiny_artifact):
    encoder = open_encoder(tiny_artifact)
    expected = encoder.encode_queries(TEXTS)

    with ThreadPoolExecutor(200) as pool:
        results = list(pool.map(lambda i: encoder.encode_queries([TEXTS[i % len(TEXTS)]])[0], range(2000)))

    for i, vector in enumerate(results):
        np.testing.assert_allclose(vector, expected[i % len(TEXTS)], atol=1e-5)


def test_after_an_interruption_nothing_more_is_computed(tiny_artifact):
    encoder = open_encoder(tiny_artifact, runtime=Runtime(batch_tokens=8, threads=4))
    computed = []
    run = encoder.backend

    class Counting:
        build, workers, budget = run.build, run.workers, run.budget

        def __call__(self, batch, *, alone):
            computed.append(batch)
            if len(computed) > 1:  # the first one is done; the others are under way when the interruption comes
                interrupted.wait(300)
                time.sleep(0.2)  # 100 batches would take as long as no thread waits for its turn
            return run(batch, alone=alone)

    interrupted = threading.Event()

    def interrupt(_: int) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    encoder.backend = Counting()
    with pytest.raises(KeyboardInterrupt):
        encoder.encode_passages([f"text number {i}" for i in range(500)], progress=interrupt)

    assert len(computed) < 100


def test_a_tokenizer_of_another_model_is_found_before_it_indexes_beyond_the_embeddings(tmp_path):
    folder = save_transformer(tmp_path / "model")
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokenizer.replace('"dog": 15', '"dog": 999'))

    with pytest.raises(ModelError, match="the tokenizer gives word 999, the model has 42: it belongs to another model"):
        open_encoder(folder, device="cpu").encode_passages(["a dog"])


def test_a_text_of_which_no_token_is_left_gets_the_vector_of_the_frame_or_is_refused(tmp_path, real, minilm):
    theirs = SentenceTransformer(str(minilm), device="cpu")
    np.testing.assert_allclose(real.encode_passages(["\x00\x01"]), theirs.encode(["\x00\x01"]), atol=1e-6)

    folder = save_transformer(tmp_path / "model", family="qwen2")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    with pytest.raises(TextError, match=r"text 1 is '\\x00\\x01', which has no token this model knows"):
        open_encoder(folder, device="cpu").encode_passages(["a dog", "\x00\x01"])


def test_the_folder_layout_of_the_first_versions_is_read_exported_and_read_again(tiny, tmp_path):
    """The transformer used to lie in a folder of its own."""
    old = shutil.copytree(tiny, tmp_path / "old")
    (old / "0_BERT").mkdir()
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
    ):
        shutil.move(old / name, old / "0_BERT")
    modules = json.loads((old / "modules.json").read_text())
    modules[0] |= {"path": "0_BERT", "type": "sentence_transformers.models.Transformer"}
    (old / "modules.json").write_text(json.dumps(modules))
    expected = open_encoder(tiny, device="cpu")

    encoder = open_encoder(old, device="cpu")
    export_onnx(old, tmp_path / "out")

    assert encoder.space == expected.space == identify(tmp_path / "out").space
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected.encode_queries(TEXTS), atol=1e-6)
    exported = open_encoder(tmp_path / "out")
    np.testing.assert_allclose(exported.encode_queries(TEXTS), expected.encode_queries(TEXTS), atol=1e-5)
