"""A training run that is killed, starved of disk or memory: it goes on, or says why not."""

from __future__ import annotations

import logging
import resource
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models import save_model
from paths import TESTS
from safetensors.torch import load_file

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training import run, train
from llama_index_embed_plus.training.data.records import TrainingData
from llama_index_embed_plus.training.proof.report import read_report
from llama_index_embed_plus.training.settings import TrainSettings
from llama_index_embed_plus.training.trainer import loop
from llama_index_embed_plus.training.trainer.checkpoint import Checkpoints
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Example, HeldOut, Passage, Query, ScoredText

WORDS = ("cat", "dog", "bird", "tree", "river", "stone", "red", "blue")
SETTINGS = TrainSettings(epochs=3, batch_size=2, max_tokens=16, learning_rate=1e-3, checkpoint_every=2)
STEPS = 12


def examples() -> list[Example]:
    return [
        Example(
            f"what is the {word}",
            (ScoredText(word, f"the {word} runs and sleeps"),),
            (ScoredText(f"not-{word}", f"not the {word} slow"),),
        )
        for word in WORDS
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(folder)
    return folder


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """The run that nobody interrupts: its report and its weights."""
    out = tmp_path_factory.mktemp("whole") / "tuned"
    return train(base, examples(), out, SETTINGS), load_file(out / "model.safetensors")


class Killed(BaseException):
    """What ends a run here without anything of it being allowed to tidy up but what a real end would run too."""


def killed_at(step: int):
    """A progress callback that ends the run in the middle of a step."""
    seen = 0

    def progress(count: int) -> None:
        nonlocal seen
        seen += count
        if seen == step:
            raise Killed

    return progress


def same_weights(out: Path, expected) -> None:
    found = load_file(out / "model.safetensors")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("step", [3, 5, 8, 11])  # inside the first epoch, at its end, in the second, at the very end
def test_a_run_interrupted_at_any_step_ends_as_if_it_had_not_been(base, whole, tmp_path, step):
    report, weights = whole
    assert len(report.losses) == STEPS
    with pytest.raises(Killed):
        train(base, examples(), tmp_path / "tuned", SETTINGS, progress=killed_at(step))
    assert [path.name for path in tmp_path.iterdir()] == [".tuned-training"]
    steps: list[int] = []
    again = train(base, examples(), tmp_path / "tuned", SETTINGS, progress=steps.append)
    assert again.losses == report.losses  # to the bit
    assert steps == [(step - 1) // 2 * 2, *[1] * (STEPS - (step - 1) // 2 * 2)]
    same_weights(tmp_path / "tuned", weights)
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


@pytest.mark.parametrize("change", [{"method": "lora"}, {"accumulation": 2}, {"loss": "tsdae"}])
def test_lora_accumulated_gradients_and_a_loss_with_weights_of_its_own_go_on_exactly_too(base, tmp_path, change):
    settings = replace(SETTINGS, **change)
    data = TrainingData.of(e.query for e in examples()) if "loss" in change else examples()
    report = train(base, data, tmp_path / "whole", settings)
    with pytest.raises(Killed):
        train(base, data, tmp_path / "tuned", settings, progress=killed_at(5))
    assert train(base, data, tmp_path / "tuned", settings).losses == report.losses
    same_weights(tmp_path / "tuned", load_file(tmp_path / "whole" / "model.safetensors"))


def test_kill_9_in_the_middle_of_a_checkpoint_leaves_the_one_before_it(base, whole, tmp_path):
    """A real process, a real SIGKILL, sent while the third checkpoint is being written."""
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(TESTS)!r})
        from pathlib import Path
        from llama_index_embed_plus.training.trainer import loop
        from llama_index_embed_plus.training import train
        from test_train_resume import SETTINGS, examples

        real = loop.save_model
        def save_model(state, path):
            if "checkpoint-6" in path:
                Path(path).write_bytes(b"half of the weights")
                os.kill(os.getpid(), signal.SIGKILL)
            real(state, path)
        loop.save_model = save_model
        train({str(base)!r}, examples(), Path({str(tmp_path / "tuned")!r}), SETTINGS)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "tuned").exists()
    assert Checkpoints(tmp_path / ".tuned-training", {}).latest().name == "checkpoint-4"
    report, weights = whole
    assert train(base, examples(), tmp_path / "tuned", SETTINGS).losses == report.losses
    same_weights(tmp_path / "tuned", weights)
    assert [path.name for path in tmp_path.iterdir() if "embed-plus" not in path.name] == ["tuned"]


def test_a_full_disk_during_a_checkpoint_is_one_error_and_the_last_good_one_stays(base, whole, tmp_path, monkeypatch):
    """The operating system itself refuses the write: a limit on the size of files, as small as a disk with no room."""
    keep, limits = Checkpoints.keep, resource.getrlimit(resource.RLIMIT_FSIZE)

    def keep_then_fill_the_disk(self, written):
        keep(self, written)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    monkeypatch.setattr(Checkpoints, "keep", keep_then_fill_the_disk)
    try:
        with pytest.raises(
            TrainingError, match=r"cannot be written .*last good one is .*checkpoint-2: free some space"
        ):
            train(base, examples(), tmp_path / "tuned", SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / ".tuned-training").iterdir()) == [
        ".lock",
        "checkpoint-2",
        "run.json",
    ]
    assert train(base, examples(), tmp_path / "tuned", SETTINGS).losses == whole[0].losses


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"settings": replace(SETTINGS, learning_rate=2e-3)}, "another settings.learning_rate (0.001, now 0.002)"),
        ({"examples": examples()[1:]}, "another data"),
        ({"base": "other"}, "another base"),
    ],
)
def test_an_interrupted_run_is_not_continued_as_another_one(base, tmp_path, changed, named):
    with pytest.raises(Killed):
        train(base, examples(), tmp_path / "tuned", SETTINGS, progress=killed_at(3))
    if "base" in changed:
        save_model(tmp_path / "other", seed=7)
    arguments = {"base": base, "examples": examples(), "settings": SETTINGS} | changed
    if "base" in changed:
        arguments["base"] = tmp_path / "other"
    with pytest.raises(UsageError) as error:
        train(arguments["base"], arguments["examples"], tmp_path / "tuned", arguments["settings"])
    assert named in str(error.value) and "remove that folder to start anew" in str(error.value)
    assert (tmp_path / ".tuned-training" / "checkpoint-2").is_dir()  # still there for the one who can go on


def test_two_processes_do_not_train_into_one_folder(base, tmp_path):
    holder = Checkpoints(tmp_path / ".tuned-training", {})
    holder.open()
    with pytest.raises(UsageError, match="another process trains in"):
        train(base, examples(), tmp_path / "tuned", SETTINGS)
    holder.close(done=True)
    train(base, examples(), tmp_path / "tuned", replace(SETTINGS, epochs=1))


def starving(monkeypatch, *, above: int, failures: list[int]) -> None:
    """The transformer refuses a batch of more than `above` texts, with torch's own error, as a full GPU does."""
    from sentence_transformers.base.modules import Transformer

    forward = Transformer.forward

    def starved(self, features, **kwargs):
        texts = features["input_ids"].shape[0]
        if texts > above and torch.is_grad_enabled():
            failures.append(texts)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, features, **kwargs)

    monkeypatch.setattr(Transformer, "forward", starved)


def test_out_of_memory_halves_the_mini_batch_goes_on_and_says_so(base, tmp_path, monkeypatch, caplog):
    failures: list[int] = []
    starving(monkeypatch, above=1, failures=failures)
    with caplog.at_level(logging.WARNING):
        report = train(base, examples(), tmp_path / "tuned", replace(SETTINGS, tokens_at_once=64))
    assert failures and max(failures) == 2
    assert any("out of memory at step 1: mini-batches of 32 instead of 64 tokens" in note for note in report.notes)
    assert any("out of memory" in record.message for record in caplog.records)
    assert len(report.losses) == STEPS
    assert read_report(tmp_path / "tuned").notes == report.notes


def test_memory_that_is_not_enough_for_one_text_or_for_a_loss_without_mini_batches_is_an_error(
    base, tmp_path, monkeypatch
):
    starving(monkeypatch, above=0, failures=[])
    with pytest.raises(
        TrainingError, match="out of memory at step 1 with one text at a time: use a smaller max_tokens"
    ):
        train(base, examples(), tmp_path / "tuned", SETTINGS)
    with pytest.raises(TrainingError, match="this loss takes its batch at once: use a cached loss"):
        train(base, examples(), tmp_path / "tuned", replace(SETTINGS, loss="multiple_negatives"))
    assert list(tmp_path.iterdir()) == []  # nothing to go on from, nothing left behind


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_that_ran_out_of_memory_moves_the_weights_as_the_step_itself_would_have(
    base, tmp_path, monkeypatch, accumulation
):
    """Without dropout the two are equal, with gradients accumulated over earlier batches too."""
    for name, folder in (("plain", tmp_path / "plain"), ("starved", tmp_path / "starved")):
        undropped(monkeypatch)
        failures: list[int] = []
        if name == "starved":
            starving_once(monkeypatch, at=2 * accumulation, failures=failures)
        settings = replace(SETTINGS, accumulation=accumulation, tokens_at_once=256, epochs=1)
        train(base, examples(), folder, settings)
        monkeypatch.undo()
    assert failures
    for name, tensor in load_file(tmp_path / "plain" / "model.safetensors").items():
        torch.testing.assert_close(load_file(tmp_path / "starved" / "model.safetensors")[name], tensor)


def undropped(monkeypatch) -> None:
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, tensor: tensor)
    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **kwargs: attention(*args, **kwargs | {"dropout_p": 0.0}),
    )


def starving_once(monkeypatch, *, at: int, failures: list[int]) -> None:
    """The `at`-th micro-batch fails in the middle of its backward pass, when some gradients were added already."""
    attempt, count = loop._Trainer._attempt, 0

    def attempted(self, model, inputs, items):
        nonlocal count
        count += 1
        loss = attempt(self, model, inputs, items)
        if count == at:
            failures.append(count)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss

    monkeypatch.setattr(loop._Trainer, "_attempt", attempted)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_no_number_names_the_step_and_the_way_out(base, tmp_path, monkeypatch, where):
    attempt, count = loop._Trainer._attempt, 0

    def poisoned(self, model, inputs, items):
        nonlocal count
        count += 1
        loss = attempt(self, model, inputs, items)
        if count == 6 and where == "gradient":
            next(p for p in self.model.parameters() if p.grad is not None).grad.fill_(torch.nan)
        return loss * torch.nan if count == 6 and where == "loss" else loss

    monkeypatch.setattr(loop._Trainer, "_attempt", poisoned)
    with pytest.raises(TrainingError, match=rf"the {where} became nan at step 6: lower learning_rate .*checkpoint-4"):
        train(base, examples(), tmp_path / "tuned", SETTINGS)
    kept = load_file(tmp_path / ".tuned-training" / "checkpoint-4" / "weights.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())
    assert not (tmp_path / "tuned").exists()


def test_numbers_that_explode_by_themselves_are_found(base, tmp_path):
    with pytest.raises(TrainingError, match="became nan at step"):
        train(base, examples(), tmp_path / "tuned", replace(SETTINGS, learning_rate=1e9, max_gradient=0.0, epochs=5))


def test_ctrl_c_ends_the_step_and_leaves_a_checkpoint_of_it(base, whole, tmp_path):
    def progress(count: int, seen=[0]) -> None:  # noqa: B006  a counter
        seen[0] += count
        if seen[0] == 5:
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(base, examples(), tmp_path / "tuned", SETTINGS, progress=progress)
    assert signal.getsignal(signal.SIGINT) is handler
    assert Checkpoints(tmp_path / ".tuned-training", {}).latest().name == "checkpoint-5"
    assert train(base, examples(), tmp_path / "tuned", SETTINGS).losses == whole[0].losses


def test_a_run_killed_while_it_is_proved_trains_nothing_again_and_leaves_nothing(base, whole, tmp_path, monkeypatch):
    """Fewer steps than between two checkpoints: the one after the last step is there all the same."""
    settings = replace(SETTINGS, checkpoint_every=200, leak_similarity=None)  # a tiny base puts all texts close
    held_out = HeldOut((Query("q", "what is the sun"),), {"q": {"sun": 1}}, (Passage("sun", "the sun"),))

    def killed(*args, **named):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(run, "prove", killed)
        with pytest.raises(Killed):
            train(base, examples(), tmp_path / "tuned", settings, held_out=held_out)
    steps: list[int] = []
    again = train(base, examples(), tmp_path / "tuned", settings, held_out=held_out, progress=steps.append)
    assert steps == [STEPS] and again.losses == whole[0].losses
    same_weights(tmp_path / "tuned", whole[1])
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


def test_what_a_killed_run_had_open_goes_with_the_next_one(base, tmp_path):
    place = tmp_path / ".tuned-training"
    for name in ("work-abc", "work-of-a-proof"):
        (place / name).mkdir(parents=True)
        (place / name / "model.safetensors").write_bytes(b"left")
    (place / "run.json").write_text("{}")
    train(base, examples(), tmp_path / "tuned", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]
