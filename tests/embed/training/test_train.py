"""Training the whole encoder or LoRA: tiny random models, few examples, the real library."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import TEXTS, save_model, save_transformer
from published_tokenizers import save_published
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import DamagedModelError, LeakError, ModelNotFoundError, TrainingError
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.training import train
from llama_index_embed_plus.training.data.records import ScoredPair, TrainingData
from llama_index_embed_plus.training.settings import AdapterSettings, LoraSettings, Projection, TrainSettings
from llama_index_embed_plus.training.trainer import setup as arguments
from llama_index_embed_plus.training.trainer.loop import _Trainer
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import NotSupportedError, UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Example, HeldOut, Passage, ScoredText

WORDS = ("cat", "dog", "bird", "tree", "river", "stone", "red", "blue")
QUICK = {"batch_size": 4, "max_tokens": 16, "learning_rate": 1e-3}


def examples(negatives: int = 1) -> list[Example]:
    return [
        Example(
            f"what is the {word}",
            (ScoredText(word, f"the {word} runs and sleeps"),),
            tuple(ScoredText(f"{word}-{i}", f"not the {word} " + "slow " * (i + 1)) for i in range(negatives)),
        )
        for word in WORDS
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(folder, prompts={"query": "query : ", "document": "passage : "})
    return folder


def vectors(folder) -> np.ndarray:
    return open_encoder(folder, backend="torch").encode_passages(TEXTS)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_changes_the_encoder_and_sentence_transformers_reads_the_result(base, tmp_path, method):
    train(base, examples(), tmp_path / "tuned", TrainSettings(method=method, epochs=2, **QUICK))
    tuned = open_encoder(tmp_path / "tuned", backend="torch")
    assert tuned.space != open_encoder(base).space
    assert np.abs(vectors(base) - vectors(tmp_path / "tuned")).max() > 1e-3
    theirs = SentenceTransformer(str(tmp_path / "tuned"), device="cpu").encode_document(TEXTS)
    np.testing.assert_allclose(tuned.encode_passages(TEXTS), theirs, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]  # no checkpoint, no scratch


def test_a_low_rank_change_kept_apart_in_training_is_gone_from_the_saved_names(base, tmp_path):
    settings = TrainSettings(method="lora", lora=LoraSettings(rank=2, alpha=8, targets=("query", "dense")), **QUICK)
    train(base, examples(), tmp_path / "tuned", settings)
    from safetensors.torch import load_file

    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "tuned"))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("query" in name or "dense" in name for name in moved)
    change = (
        after["encoder.layer.0.attention.self.query.weight"] - before["encoder.layer.0.attention.self.query.weight"]
    )
    assert torch.linalg.matrix_rank(change, rtol=1e-3) == 2


@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen3", "t5"])
def test_lora_changes_every_linear_layer_and_nothing_else(tmp_path, family, recwarn):
    save_transformer(tmp_path / "base", family=family)
    train(tmp_path / "base", examples(), tmp_path / "tuned", TrainSettings(method="lora", **QUICK))

    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("base", "tuned"))
    moved = {name for name in after if name in before and not torch.equal(before[name], after[name])}
    others = re.compile("embed|wte|wpe|pooler|shared|bias")
    layers = {name for name, value in after.items() if value.dim() == 2 and not others.search(name)}
    assert moved and moved == layers
    assert not [warning for warning in recwarn if "fan_in_fan_out" in str(warning.message)]


def test_a_prompt_that_leaves_no_token_of_the_training_texts_is_refused(tmp_path):
    save_model(tmp_path / "base", prompts={"query": "search the document : "})
    settings = TrainSettings(**QUICK | {"max_tokens": 6})
    with pytest.raises(
        UsageError, match="the prompt 'search the document : ' has 4 tokens .* max_tokens of training is 6"
    ):
        train(tmp_path / "base", examples(), tmp_path / "tuned", settings)
    assert not (tmp_path / "tuned").exists()


def test_a_plain_gpt2_folder_whose_tokenizer_has_no_padding_is_trained_and_exported(tmp_path):
    folder = save_published(tmp_path / "gpt2", "SGPT (gpt2) saved with left padding")

    train(folder, examples(), tmp_path / "tuned", TrainSettings(**QUICK))
    export_onnx(tmp_path / "tuned", tmp_path / "exported")

    tuned = vectors(tmp_path / "tuned")
    assert np.isfinite(tuned).all() and np.abs(tuned - vectors(folder)).max() > 1e-4
    np.testing.assert_allclose(open_encoder(tmp_path / "exported").encode_passages(TEXTS), tuned, atol=1e-4)
    theirs = SentenceTransformer(str(tmp_path / "tuned"), device="cpu").encode_document(TEXTS)
    np.testing.assert_allclose(tuned, theirs, atol=1e-5)


def test_lora_targets_that_the_model_does_not_have_are_an_error(base, tmp_path):
    settings = TrainSettings(method="lora", lora=LoraSettings(targets=("nowhere",)), **QUICK)
    with pytest.raises(UsageError, match="LoRA cannot be added to .*nowhere"):
        train(base, examples(), tmp_path / "tuned", settings)


@pytest.mark.parametrize("pooling", ["cls", "max", "weightedmean", "lasttoken", ("mean", "max"), "attention"])
def test_any_pooling_is_trained_as_it_is_served(base, tmp_path, pooling):
    train(base, examples(), tmp_path / "tuned", TrainSettings(pooling=pooling, **QUICK))
    tuned = open_encoder(tmp_path / "tuned", backend="torch")
    assert tuned.spec.pooling == ((pooling,) if isinstance(pooling, str) else pooling)
    assert tuned.spec.dimension == 32 * len(tuned.spec.pooling)
    assert np.abs(vectors(tmp_path / "tuned")).max() <= 1


@pytest.mark.parametrize("pooling", ["mean", "attention", ("attention", "cls")])
def test_the_training_forward_gives_the_vectors_of_serving(base, tmp_path, pooling):
    """Also for attention pooling, which sentence-transformers does not have."""
    from llama_index_embed_plus.models.spec import Overrides
    from llama_index_embed_plus.training.trainer.setup import open_trainable

    trained = open_trainable(base, tmp_path / "copy", TrainSettings(pooling=pooling, max_tokens=24), device="cpu")
    ours = open_encoder(base, backend="torch", overrides=Overrides(pooling=pooling)).encode_passages(TEXTS)
    trained.model.eval()
    features = trained.model.preprocess(TEXTS, prompt=trained.spec.passage_prompt)
    with torch.no_grad():
        theirs = trained.model(features)["sentence_embedding"].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("dimension", [32, 8])
def test_a_dense_layer_on_top_is_trained_saved_and_served(base, tmp_path, dimension):
    train(base, examples(), tmp_path / "tuned", TrainSettings(projection=Projection(dimension), **QUICK))
    tuned = open_encoder(tmp_path / "tuned", backend="torch")
    assert tuned.dimension == dimension
    theirs = SentenceTransformer(str(tmp_path / "tuned"), device="cpu").encode_document(TEXTS)
    np.testing.assert_allclose(tuned.encode_passages(TEXTS), theirs, atol=1e-5)


def test_a_projection_of_full_width_starts_as_the_identity(base, tmp_path):
    from llama_index_embed_plus.training.trainer.setup import open_trainable

    settings = TrainSettings(projection=Projection(32))
    model = open_trainable(base, tmp_path / "copy", settings, device="cpu").model.eval()
    np.testing.assert_allclose(model.encode(TEXTS, prompt="passage : "), vectors(base), atol=1e-5)


def test_prompts_are_put_before_the_same_texts_as_at_inference(base, tmp_path, monkeypatch):
    """What the trainer feeds the model, read off its input, is what serving feeds it."""
    seen: set[tuple[int, ...]] = set()
    attempt = _Trainer._attempt

    def watched(self, model, inputs, items):
        for key, ids in inputs.items():
            if key.endswith("input_ids"):
                mask = inputs[key.replace("input_ids", "attention_mask")]
                seen.update(tuple(row[kept.bool()].tolist()) for row, kept in zip(ids, mask))
        return attempt(self, model, inputs, items)

    monkeypatch.setattr(_Trainer, "_attempt", watched)
    train(base, examples(2), tmp_path / "tuned", TrainSettings(**QUICK))
    tokenizer = SentenceTransformer(str(base), device="cpu").tokenizer
    expected = set()
    for example in examples(2):
        texts = [f"query : {example.query}"]
        texts += [f"passage : {text.text}" for text in (*example.positives, *example.negatives)]
        expected |= {tuple(tokenizer(text)["input_ids"]) for text in texts}
    assert seen == expected


def test_a_single_example_trains_and_says_that_there_was_nothing_to_tell_it_from(base, tmp_path):
    report = train(base, examples()[:1], tmp_path / "with", TrainSettings(**QUICK))
    assert len(report.losses) == 1 and report.losses[0] > 0  # its negative
    with pytest.raises(TrainingError, match="nothing to tell apart; give others, or negatives"):
        train(base, examples(0)[:1], tmp_path / "without", TrainSettings(**QUICK))
    assert not (tmp_path / "without").exists()


def test_examples_with_and_without_negatives_are_all_trained_on(base, tmp_path):
    report = train(base, [*examples(2)[:4], *examples(0)[4:]], tmp_path / "tuned", TrainSettings(**QUICK))
    assert report.data["rows"] == 8 and report.data["negatives"] == 8 and len(report.losses) == 2


def test_equal_queries_are_never_each_others_negatives(base, tmp_path):
    same = [Example("what is it", example.positives, example.negatives) for example in examples()]
    report = train(base, same, tmp_path / "tuned", TrainSettings(**QUICK))
    assert len(report.losses) == len(same)  # one at a time, against their own negatives
    with pytest.raises(TrainingError, match="no two of the 8 rows may share a batch"):
        train(base, [Example(e.query, e.positives) for e in same], tmp_path / "other", TrainSettings(**QUICK))


def test_a_text_longer_than_the_window_is_cut_in_training_and_served_with_the_models_own_limit(base, tmp_path):
    long = [Example(f"{example.query} {'slow ' * 500}", example.positives) for example in examples()]
    train(base, long, tmp_path / "tuned", TrainSettings(batch_size=4, max_tokens=8))
    assert open_encoder(tmp_path / "tuned").spec.max_tokens == open_encoder(base).spec.max_tokens


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_precision_that_the_device_does_not_have_is_an_error(base, tmp_path, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(UsageError, match=f"device 'cpu' does not train in {precision}: use precision='float32'"):
        train(base, examples(), tmp_path / "tuned", TrainSettings(precision=precision, device="cpu", **QUICK))


def test_a_cpu_with_instructions_for_bfloat16_trains_in_it_as_in_float32_up_to_rounding(base, tmp_path):
    if not arguments._cpu_has_bfloat16():
        pytest.skip("this CPU has no instructions for bfloat16, so that training in it is refused")
    full, half = (
        train(base, examples(), tmp_path / precision, TrainSettings(precision=precision, device="cpu", **QUICK))
        for precision in ("float32", "bfloat16")
    )
    assert half.losses != full.losses
    np.testing.assert_allclose(half.losses, full.losses, rtol=0.03)
    weights = [tensor.dtype for tensor in load_file(tmp_path / "bfloat16" / "model.safetensors").values()]
    assert torch.bfloat16 not in weights  # the products are rounded, the weights are not


@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradient_checkpointing_saves_memory_and_changes_nothing(base, tmp_path, method):
    plain, thrifty = (
        train(base, examples(), tmp_path / str(on), TrainSettings(method=method, gradient_checkpointing=on, **QUICK))
        for on in (False, True)
    )
    np.testing.assert_allclose(plain.losses, thrifty.losses, rtol=1e-5)


def test_schedule_warm_up_decay_and_accumulation_reach_the_trainer(base, tmp_path, monkeypatch):
    rates: list[float] = []
    groups: list[float] = []
    attempt = _Trainer._attempt

    def watched(self, model, inputs, items):
        rates.append(self.optimizer.param_groups[0]["lr"])
        groups.extend(group["weight_decay"] for group in self.optimizer.param_groups)
        return attempt(self, model, inputs, items)

    monkeypatch.setattr(_Trainer, "_attempt", watched)
    settings = TrainSettings(
        epochs=5, batch_size=2, accumulation=2, learning_rate=1e-3, warmup_share=0.2, schedule="cosine",
        weight_decay=0.1, max_tokens=16,
    )  # fmt: skip
    report = train(base, examples(), tmp_path / "tuned", settings)
    assert len(report.losses) == 10 and len(rates) == 20
    assert rates[0] == rates[1] == 0 and max(rates) == 1e-3 == rates[4]  # two steps of warm-up, two batches each
    assert rates[-1] < rates[12] < rates[8] and {0.0, 0.1} == set(groups)


def test_what_transformers_reports_to_gets_every_loss(base, tmp_path, monkeypatch):
    """By the door through which transformers finds its own integrations, none of which is installed here."""
    told: list[float] = []

    class Listener(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            told.extend([logs["loss"]] if "loss" in logs else [])

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "listener", Listener)
    report = train(base, examples(), tmp_path / "tuned", TrainSettings(report_to=("listener",), **QUICK))
    assert tuple(told) == report.losses


def test_something_to_report_to_that_is_not_installed_is_an_error(base, tmp_path):
    with pytest.raises(UsageError, match="report_to 'clearml'"):
        train(base, examples(), tmp_path / "tuned", TrainSettings(report_to=("clearml",), **QUICK))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "half"}, "method is 'half', expected one of full, lora, adapter"),
        ({"epochs": 0}, "epochs of training is 0, expected at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warmup_share": 1.0}, "warmup_share is 1.0"),
        ({"pooling": "median"}, "pooling is 'median', expected one of cls"),
        ({"weight_decay": -1}, "weight_decay is -1, expected 0 or more"),
        ({"loss": "hinge"}, "loss is 'hinge', expected one of"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused_when_they_are_made(wrong, message):
    with pytest.raises(UsageError, match=message):
        TrainSettings(**wrong)


def test_nothing_is_printed(base, tmp_path, capfd):
    train(base, examples(), tmp_path / "tuned", TrainSettings(**QUICK))
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_without_a_rate_the_method_and_the_loss_decide():
    def rate(**given):
        return TrainSettings(**given).rate

    assert (rate(), rate(loss="simcse"), rate(method="lora")) == (5e-5, 1e-5, 5e-4)
    assert rate(loss="simcse", learning_rate=3e-5) == 3e-5


def test_the_report_in_the_artifact_says_what_was_done(base, tmp_path):
    report = train(base, examples(), tmp_path / "first", TrainSettings(**QUICK))
    saved = json.loads((tmp_path / "first" / artifact.TRAIN_REPORT).read_text())
    assert saved["settings"]["learning_rate"] == 1e-3 and saved["promotable"] is False
    assert report.lineage.base == "model" and report.lineage.base_space == open_encoder(base).space
    again = train(tmp_path / "first", examples(), tmp_path / "second", TrainSettings(**QUICK))
    assert [parent.space for parent in again.lineage.parents] == [report.lineage.space] == [again.lineage.base_space]
    artifact.verify(tmp_path / "second")


@pytest.mark.parametrize("loss", ["triplet", "contrastive", "cosent", "tsdae", "simcse"])
def test_losses_of_every_shape_of_data_train_through_the_same_call(base, tmp_path, loss):
    pairs = [ScoredPair(text, other, i / 9) for i, (text, other) in enumerate(zip(TEXTS[:4], TEXTS[1:]))]
    data = {"cosent": pairs, "tsdae": TEXTS, "simcse": TEXTS}.get(loss) or examples()
    report = train(base, TrainingData.of(data), tmp_path / "tuned", TrainSettings(loss=loss, **QUICK))
    assert len(report.losses) == {"cosent": 1, "contrastive": 4}.get(loss, 2)
    assert np.isfinite(report.losses).all()
    assert open_encoder(tmp_path / "tuned", backend="torch").dimension == 32


def test_weights_of_examples_reach_the_loss(base, tmp_path):
    light, heavy = (
        train(
            base,
            [replace(example, weight=weight if i else 1.0) for i, example in enumerate(examples()[:2])],
            tmp_path / str(weight),
            TrainSettings(**QUICK),
        ).losses[0]
        for weight in (0.5, 4.0)
    )
    assert light != heavy


def test_the_held_out_queries_decide_and_an_example_that_knows_one_is_refused(base, tmp_path):
    held_out = HeldOut.of_examples(examples()[6:], passages=[Passage(f"p{i}", text) for i, text in enumerate(TEXTS)])
    settings = TrainSettings(leak_similarity=None, **QUICK)  # to a random base, every query is like every other
    report = train(base, examples()[:6], tmp_path / "tuned", settings, held_out=held_out)
    assert report.proof.queries == 2 and not report.promotable and "too few" in report.verdict
    assert open_encoder(tmp_path / "tuned").refusal == report.verdict
    assert "Verdict" in (tmp_path / "tuned" / "README.md").read_text()
    with pytest.raises(LeakError, match="blue"):
        train(base, examples(), tmp_path / "leaked", settings, held_out=held_out)
    assert not (tmp_path / "leaked").exists()


def test_an_adapter_is_fitted_through_the_same_call(base, tmp_path):
    settings = TrainSettings(method="adapter")
    with pytest.raises(UsageError, match="give the collection"):
        train(base, examples(), tmp_path / "tuned", settings)
    encoder = open_encoder(base, backend="torch")
    with closing(connect(":memory:")) as client:
        passages = [Passage(p.id, p.text) for e in examples() for p in (*e.positives, *e.negatives)]
        collection = CollectionManager(client).ensure("words", encoder)
        index_passages(collection, passages, encoder)
        report = train(base, examples(), tmp_path / "tuned", settings, collection=collection)
        nothing = TrainSettings(method="adapter", adapter=AdapterSettings(candidates=()))
        plain = train(base, examples(), tmp_path / "plain", nothing, collection=collection)
    assert any("the adapter changes nothing" in note and "without examples" in note for note in plain.notes)
    tuned = open_encoder(tmp_path / "tuned")
    assert report.method == "adapter" and tuned.space == encoder.space and tuned.build.endswith("+adapter")
    artifact.verify(tmp_path / "tuned")


def test_lora_kept_apart_is_a_small_folder_that_we_and_sentence_transformers_read(base, tmp_path):
    lora = LoraSettings(rank=2, merge=False)
    report = train(base, examples(), tmp_path / "apart", TrainSettings(method="lora", lora=lora, **QUICK))
    train(base, examples(), tmp_path / "merged", TrainSettings(method="lora", lora=LoraSettings(rank=2), **QUICK))
    weights = [path.name for path in (tmp_path / "apart").rglob("*.safetensors")]
    assert weights == ["adapter_model.safetensors"]
    np.testing.assert_allclose(vectors(tmp_path / "apart"), vectors(tmp_path / "merged"), atol=1e-5)
    theirs = SentenceTransformer(str(tmp_path / "apart"), device="cpu").encode_document(TEXTS)
    np.testing.assert_allclose(vectors(tmp_path / "apart"), theirs, atol=1e-5)
    assert open_encoder(tmp_path / "apart").space == report.lineage.space != open_encoder(base).space
    artifact.verify(tmp_path / "apart")
    with pytest.raises(NotSupportedError, match="keeps its LoRA apart .* train with the LoRA merged"):
        export_onnx(tmp_path / "apart", tmp_path / "onnx")
    with pytest.raises(UsageError, match="is no base to train from: merge it first"):
        train(tmp_path / "apart", examples(), tmp_path / "further", TrainSettings(**QUICK))


def test_lora_kept_apart_from_a_base_that_changed_or_went_is_refused(base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    settings = TrainSettings(method="lora", lora=LoraSettings(rank=2, merge=False), **QUICK)
    train(tmp_path / "base", examples(), tmp_path / "apart", settings)
    save_model(tmp_path / "other", seed=5)
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "base" / "model.safetensors")
    with pytest.raises(DamagedModelError, match="a file was exchanged"):
        open_encoder(tmp_path / "apart")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ModelNotFoundError, match="its LoRA belongs to"):
        open_encoder(tmp_path / "apart")
