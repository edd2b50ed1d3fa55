"""Training with what a stranger made: the folder of an interrupted run, a base, a guide, a judge, a recipe, rows."""

from __future__ import annotations

import json
import os
import shutil
import stat
from contextlib import suppress

import pytest
import torch
from models import save_cross_encoder, save_model
from runs import STATE, pickles, to_file, to_folder
from safetensors.torch import load_file, save_file

from llama_index_embed_plus.encoders.cross_encoder import cross_encoder_judge
from llama_index_embed_plus.errors import DamagedModelError, TrainingError
from llama_index_embed_plus.training import train
from llama_index_embed_plus.training.losses.build import build_loss
from llama_index_embed_plus.training.losses.catalogue import LossOptions
from llama_index_embed_plus.training.merge import interpolate
from llama_index_embed_plus.training.proof.model_card import record_proof
from llama_index_embed_plus.training.settings import TrainSettings
from llama_index_embed_plus.training.trainer.setup import open_trainable
from qdrant_tools.errors import InputError, NotSupportedError, PlusError, UsageError
from qdrant_tools.records import Example, ScoredText

WORDS = ("cat", "dog", "bird", "tree")
EXAMPLES = [Example(f"what is the {word}", (ScoredText(word, f"the {word} runs and sleeps"),)) for word in WORDS]
SETTINGS = TrainSettings(epochs=2, batch_size=2, max_tokens=16, learning_rate=1e-3, checkpoint_every=1, device="cpu")


class Killed(BaseException):
    """Ends a run in the middle."""


def kill(steps):
    raise Killed


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(folder)
    return folder


@pytest.fixture(scope="module")
def interrupted(base, tmp_path_factory):
    """A run that was killed after its second step, and the result of one that was not."""
    place = tmp_path_factory.mktemp("interrupted")
    whole = train(base, EXAMPLES, place / "whole", SETTINGS)
    with pytest.raises(Killed):
        train(base, EXAMPLES, place / "tuned", SETTINGS, progress=_killed_at_third())
    return place / ".tuned-training", whole.losses


def _killed_at_third():
    seen = []

    def progress(steps):
        seen.append(steps)
        if len(seen) == 3:
            raise Killed

    return progress


@pytest.fixture
def run(interrupted, base, tmp_path):
    """The folder of the interrupted run in a fresh place, and the call that goes on with it."""
    folder = tmp_path / "work" / ".tuned-training"
    shutil.copytree(interrupted[0], folder)
    return folder, lambda: train(base, EXAMPLES, folder.parent / "tuned", SETTINGS)


def test_a_run_keeps_its_checkpoints_to_its_owner(interrupted):
    folder, _ = interrupted
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and modes == {0o600}
    # nothing in it is a pickle
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {"", ".json", ".safetensors"}


PICKLED = (
    *("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth", "training_args.bin"),
    *("pytorch_model.bin", "adapter_model.bin", "rng_state_0.pth", "custom_checkpoint_0.pkl"),
)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_pickles_beside_the_state_of_a_run_are_not_opened(run, interrupted, tmp_path, form):
    folder, go_on = run
    payload = pickles(tmp_path / "mark")[form]
    for name in PICKLED:
        (folder / "checkpoint-2" / name).write_bytes(payload)
    assert go_on().losses == interrupted[1]
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_pickles_in_place_of_the_state_of_a_run_are_refused(run, tmp_path, form):
    folder, go_on = run
    for path in (folder / "checkpoint-2").iterdir():
        path.write_bytes(pickles(tmp_path / "mark")[form])
    with pytest.raises(
        TrainingError, match=r"checkpoint-2 is no checkpoint .* remove .*\.tuned-training to start anew"
    ):
        go_on()
    assert not (tmp_path / "mark").exists() and not (folder.parent / "tuned").exists()


@pytest.mark.parametrize("change", STATE.values(), ids=STATE)
def test_a_checkpoint_that_no_run_wrote_is_one_error(run, change):
    folder, go_on = run
    change(folder / "checkpoint-2")
    with pytest.raises(TrainingError, match=r"checkpoint-2 is no checkpoint .* start anew") as refusal:
        go_on()
    assert len(str(refusal.value).splitlines()) == 1 and len(str(refusal.value)) < 600
    assert not (folder.parent / "tuned").exists()


LINKS = {
    "the folder": lambda folder, outside: to_folder(folder, outside.folder),
    "the lock": lambda folder, outside: to_file(folder / ".lock", outside.secret),
    "what the run is": lambda folder, outside: to_file(folder / "run.json", outside.folder / "below" / "config.json"),
    "the draft": lambda folder, outside: to_folder(folder / "draft", outside.folder),
    "a draft that nobody made yet": lambda folder, outside: to_folder(folder / "draft", outside.folder / "new"),
    "the checkpoint": lambda folder, outside: to_folder(folder / "checkpoint-2", outside.folder),
    "an older checkpoint": lambda folder, outside: (folder / "checkpoint-1").symlink_to(outside.folder),
    "the next checkpoint": lambda folder, outside: (folder / "checkpoint-3").symlink_to(outside.folder),
    "weights": lambda folder, outside: to_file(folder / "checkpoint-2" / "weights.safetensors", outside.secret),
    "the best one": lambda folder, outside: (folder / "best").symlink_to(outside.folder),
    "the output": lambda folder, outside: (folder.parent / "tuned").symlink_to(outside.folder),
    "an output that nobody made yet": lambda folder, outside: (folder.parent / "tuned").symlink_to(
        outside.folder / "new"
    ),
}


@pytest.mark.parametrize("make", LINKS.values(), ids=LINKS)
def test_nothing_is_written_or_removed_through_a_link_of_a_received_run(run, outside, make):
    folder, go_on = run
    make(folder, outside)
    with pytest.raises((InputError, TrainingError), match=r"link|cannot be used"):
        go_on()


def test_an_interrupted_run_of_pipes_and_odd_names_does_not_hang(run):
    folder, go_on = run
    os.mkfifo(folder / "checkpoint-2" / "more")
    with pytest.raises(UsageError, match="no regular file"):
        go_on()
    (folder / "checkpoint-2" / "more").unlink()
    for name in ("checkpoint-²", "checkpoint-", "checkpoint--1", "checkpoint-" + "9" * 200, "checkpoint-3.part"):
        (folder / name).mkdir()
    go_on()


def test_a_folder_that_no_run_made_is_left_alone(base, tmp_path):
    folder = tmp_path / ".tuned-training"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"'thesis.txt' and no run.json"):
        train(base, EXAMPLES, tmp_path / "tuned", SETTINGS)
    assert (folder / "thesis.txt").read_text() == "mine"


@pytest.fixture
def received(base, tmp_path):
    """A base from somebody else, to be changed."""
    shutil.copytree(base, tmp_path / "received")
    return tmp_path / "received"


def opened(folder, tmp_path):
    (tmp_path / "copy").mkdir()
    return open_trainable(folder, tmp_path / "copy", SETTINGS, device="cpu").model[0].auto_model.state_dict()


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), **values}))


LOADING = {
    "arguments of the loader": {
        "model_args": {"use_safetensors": False, "weights_only": False, "variant": "fp16", "subfolder": "other"},
        "config_args": {"transformers_weights": "pytorch_model.bin"},
    },
    "arguments of the loader, as of version 6": {
        "model_kwargs": {"use_safetensors": False, "weights_only": False, "gguf_file": "x", "state_dict": {}},
        "processor_kwargs": {"vocab_file": "/etc/passwd", "trust_remote_code": True},
    },
    "another backend": {"backend": "onnx", "tokenizer_name_or_path": "evil/model"},
}


@pytest.mark.parametrize("asks", LOADING.values(), ids=LOADING)
def test_what_is_trained_are_the_weights_that_are_hashed(received, tmp_path, asks):
    expected = load_file(received / "model.safetensors")
    for name, payload in {"pytorch_model.bin": "zip", "pytorch_model.fp16.bin": "legacy", "x.txt": "plain"}.items():
        (received / name).write_bytes(pickles(tmp_path / "mark")[payload])
    other = {name: tensor + 1 for name, tensor in expected.items()}
    for name in ("model.fp16.safetensors", "other.safetensors", "adapter_model.safetensors"):
        save_file(other, received / name)
    index = {"weight_map": dict.fromkeys(expected, "other.safetensors")}
    (received / "model.safetensors.index.json").write_text(json.dumps(index))
    change(received, "sentence_bert_config.json", **asks)
    change(received, "sentence_roberta_config.json", **asks)
    held = opened(received, tmp_path)
    for name, tensor in expected.items():
        if name in held:
            torch.testing.assert_close(held[name], tensor, rtol=0, atol=0)
    assert set(held) & set(expected) and not (tmp_path / "mark").exists()


def test_a_folder_without_safetensors_is_refused_and_its_pickles_stay_closed(received, tmp_path):
    (received / "model.safetensors").unlink()
    (received / "pytorch_model.bin").write_bytes(pickles(tmp_path / "mark")["zip"])
    with pytest.raises(DamagedModelError, match="safetensors"):
        train(received, EXAMPLES, tmp_path / "tuned", SETTINGS)
    assert not (tmp_path / "mark").exists() and not (tmp_path / "tuned").exists()
    assert not (tmp_path / ".tuned-training").exists()


SHARDS = ("../secret.safetensors", "/tmp/x.safetensors", "pytorch_model.bin", "notes.txt", "link.safetensors")


@pytest.mark.parametrize("shard", SHARDS)
def test_shards_are_safetensors_of_the_folder(received, outside, tmp_path, shard):
    (received / "model.safetensors").rename(received / "all.safetensors")
    for name in ("pytorch_model.bin", "notes.txt"):
        (received / name).write_bytes(pickles(tmp_path / "mark")["zip"])
    (received / "link.safetensors").symlink_to(outside.secret)
    names = load_file(received / "all.safetensors")
    index = {"weight_map": {**dict.fromkeys(names, "all.safetensors"), sorted(names)[0]: shard}}
    (received / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PlusError):
        train(received, EXAMPLES, tmp_path / "tuned", SETTINGS)
    with pytest.raises(PlusError):
        build_loss("guided", None, LossOptions(guide=str(received)))
    assert not (tmp_path / "mark").exists() and not (tmp_path / "tuned").exists()


def test_a_vocabulary_elsewhere_is_not_read_into_what_is_trained(received, outside, tmp_path):
    change(
        received,
        "tokenizer_config.json",
        **dict.fromkeys(("vocab_file", "tokenizer_file", "merges_file", "added_tokens_file"), str(outside.secret)),
        name_or_path=str(outside.folder),
    )
    train(received, EXAMPLES, tmp_path / "tuned", SETTINGS)
    outside.require_not_copied_into(tmp_path / "tuned")


def guide_of(folder, tmp_path):
    model = save_model(tmp_path / "student", seed=5)
    return build_loss("guided", model, LossOptions(guide=str(folder))).guide.encode(["the cat"])


@pytest.mark.parametrize("asks", LOADING.values(), ids=LOADING)
def test_a_guide_judges_by_its_safetensors(received, base, tmp_path, asks):
    (received / "pytorch_model.bin").write_bytes(pickles(tmp_path / "mark")["zip"])
    change(received, "sentence_bert_config.json", **asks)
    change(received, "config_sentence_transformers.json", requirements=["evil>=1"])
    (tmp_path / "other").mkdir()
    with suppress(PlusError):  # to refuse it is as good
        assert (guide_of(received, tmp_path) == guide_of(base, tmp_path / "other")).all()
    assert not (tmp_path / "mark").exists()


@pytest.fixture
def judge(tmp_path):
    return save_cross_encoder(tmp_path / "judge")


def scores(folder):
    return cross_encoder_judge(folder, threshold=0.5, device="cpu").score([("the cat", "a dog"), ("red", "blue")])


QUIET = {
    "other weights": {"transformers_weights": "pytorch_model.bin"},
    "code": {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}},
    "kernels": {"_attn_implementation": "evil/kernels", "attn_implementation": "evil/kernels"},
    "a quantizer": {"quantization_config": {"quant_method": "gptq"}},
}


@pytest.mark.parametrize("asks", QUIET.values(), ids=QUIET)
def test_a_judge_that_asks_for_more_than_its_weights_gets_no_more(judge, tmp_path, asks):
    expected = scores(judge)
    (judge / "pytorch_model.bin").write_bytes(pickles(tmp_path / "mark")["zip"])
    (judge / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'mark')!r})\n")
    change(judge, "config.json", **asks)
    change(judge, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    with suppress(PlusError):  # to refuse it is as good
        assert scores(judge) == expected
    assert not (tmp_path / "mark").exists()


CALLS = {
    "a function of torch": ("config.json", {"sentence_transformers": {"activation_fn": "torch.distributed.run.main"}}),
    "a function of os": ("config.json", {"sbert_ce_default_activation_function": "torch.hub.os.getcwd"}),
    "an activation that is a list": ("config.json", {"sentence_transformers": {"activation_fn": ["torch.nn.Tanh"]}}),
    "a LoRA": ("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "evil/model"}),
}


@pytest.mark.parametrize(("name", "asks"), CALLS.values(), ids=CALLS)
def test_a_judge_that_names_functions_or_another_base_is_refused(judge, name, asks):
    change(judge, name, **asks)
    with pytest.raises((NotSupportedError, DamagedModelError)):
        scores(judge)


MODULES = {
    "a function of torch": "sentence_transformers.util.misc.torch.load",
    "its own code": "evil.Module",
    "another class": "sentence_transformers.sentence_transformer.modules.WordEmbeddings",
    "a number": 7,
}


@pytest.mark.parametrize("kind", MODULES.values(), ids=MODULES)
def test_a_judge_or_guide_of_other_modules_is_refused(judge, received, tmp_path, kind):
    for folder in (judge, received):
        (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    with pytest.raises((NotSupportedError, DamagedModelError)):
        scores(judge)
    with pytest.raises((NotSupportedError, DamagedModelError)):
        guide_of(received, tmp_path)


@pytest.mark.parametrize("place", ["judge", "guide"])
def test_links_out_of_a_judge_or_guide_are_refused(judge, received, outside, tmp_path, place):
    folder = judge if place == "judge" else received
    (folder / "vocab.txt").symlink_to(outside.secret)
    with pytest.raises(DamagedModelError, match="link"):
        scores(judge) if place == "judge" else guide_of(received, tmp_path)


MERGED = {
    "a text elsewhere": lambda folder, outside: (folder / "notes.txt").symlink_to(outside.secret),
    "weights elsewhere": lambda folder, outside: (folder / "1_Pooling" / "x.safetensors").symlink_to(outside.secret),
    "a report that is a pipe": lambda folder, outside: os.mkfifo(folder / "train_report.json"),
    "a report of other kinds": lambda folder, outside: (folder / "train_report.json").write_text(
        '{"format": 2, "losses": ["x"]}'
    ),
    "weights that are a pickle": lambda folder, outside: (folder / "model.safetensors").write_bytes(b"\x80\x02." * 20),
    "an output elsewhere": lambda folder, outside: (folder.parent / "between").symlink_to(outside.folder),
}


@pytest.mark.parametrize("make", MERGED.values(), ids=MERGED)
def test_a_received_model_is_merged_from_its_own_files_only(base, received, outside, tmp_path, make):
    make(received, outside)
    with pytest.raises(PlusError):
        interpolate(base, received, 0.5, tmp_path / "between")
    assert not (tmp_path / "between").exists() or (tmp_path / "between").is_symlink()


def test_a_proof_is_not_put_into_a_model_behind_a_link(received, outside, tmp_path):
    (tmp_path / "link").symlink_to(received)
    with pytest.raises(UsageError, match="is a link"):
        record_proof(tmp_path / "link", None)
