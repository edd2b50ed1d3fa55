"""Averaging a tuned model with its base: the ends are the models themselves, and nothing half is ever left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from models import TEXTS, save_model, save_transformer
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Dense

from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import DamagedModelError, TrainingError
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.training.merge import choose_coefficient, interpolate, interpolated, scale_adapter
from llama_index_embed_plus.training.proof.model_card import record_proof
from llama_index_embed_plus.training.proof.proof import ProofSettings, prove
from llama_index_embed_plus.training.proof.report import read_report
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import HeldOut, Passage, Query
from qdrant_tools.search.adapters import MAPS, FullMap, LowRankMap, MlpMap, OrthogonalMap, QueryMap

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """A base, and a model of the same kind with other weights."""
    folder = tmp_path_factory.mktemp("pair")
    save_model(folder / "base", seed=0)
    save_model(folder / "tuned", seed=1)
    return folder / "base", folder / "tuned"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def edit(folder: Path, change) -> None:
    """Change the weights of a folder: `change` gets the tensors by name."""
    tensors = weights(folder)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(("coefficient", "end"), [(0, 0), (0.0, 0), (1, 1), (1.0, 1)])
def test_the_ends_are_the_two_models_bit_for_bit(pair, tmp_path, coefficient, end):
    interpolate(*pair, coefficient, tmp_path / "out")
    expected, found = weights(pair[end]), weights(tmp_path / "out")
    assert expected.keys() == found.keys()
    assert all(expected[name].numpy().tobytes() == found[name].numpy().tobytes() for name in expected)
    of_end, of_out = (open_encoder(folder, backend="torch") for folder in (pair[end], tmp_path / "out"))
    assert of_end.space == of_out.space
    np.testing.assert_array_equal(of_end.encode_passages(TEXTS), of_out.encode_passages(TEXTS))


def test_the_sign_of_a_zero_survives_at_the_ends(pair, tmp_path):
    base = shutil.copytree(pair[0], tmp_path / "base")
    edit(base, lambda tensors: next(iter(tensors.values())).fill_(-0.0))
    name = next(iter(weights(base)))
    interpolate(base, pair[1], 0, tmp_path / "out")
    assert torch.signbit(weights(tmp_path / "out")[name]).all()


def test_between_the_ends_every_weight_is_the_weighted_mean(pair, tmp_path):
    interpolate(*pair, 0.3, tmp_path / "out")
    base, tuned, found = weights(pair[0]), weights(pair[1]), weights(tmp_path / "out")
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, 0.7 * base[name] + 0.3 * tuned[name], rtol=1e-6, atol=1e-7)
        assert tensor.dtype == tuned[name].dtype


def test_the_result_is_an_artifact_that_says_where_it_comes_from_and_that_nobody_measured_it(pair, tmp_path):
    report = interpolate(*pair, 0.5, tmp_path / "out")
    manifest = artifact.verify(tmp_path / "out")
    assert report == read_report(tmp_path / "out")
    assert report.lineage.space == manifest.space and report.lineage.base == "base"
    assert report.lineage.base_space == open_encoder(pair[0], backend="torch").space
    assert report.settings["coefficient"] == 0.5 and not report.promotable
    assert open_encoder(tmp_path / "out", backend="torch").refusal == "not measured on held-out queries"


def test_the_figures_of_the_tuned_model_are_not_those_of_the_result(pair, tmp_path):
    tuned = shutil.copytree(pair[1], tmp_path / "tuned")
    (tuned / "README.md").write_text("nDCG 0.99")
    interpolate(pair[0], tuned, 0.5, tmp_path / "once")
    assert not (tmp_path / "once" / "README.md").exists()
    again = interpolate(pair[0], tmp_path / "once", 0.5, tmp_path / "twice")
    assert [parent.base for parent in again.lineage.parents] == ["base"]
    assert again.notes == ("weights: 0.5 of the base and 0.5 of the tuned model",)


def test_half_precision_and_shards_are_averaged_in_the_tuned_models_form(pair, tmp_path):
    base, tuned = (shutil.copytree(folder, tmp_path / folder.name) for folder in pair)
    edit(base, lambda tensors: tensors.update({name: t.to(torch.bfloat16) for name, t in tensors.items()}))
    interpolate(base, tuned, 0.5, tmp_path / "out")
    found = weights(tmp_path / "out")
    for name, tensor in weights(base).items():
        torch.testing.assert_close(found[name], (tensor.float() + weights(tuned)[name]) / 2, rtol=1e-6, atol=1e-7)
    tensors = weights(base)
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, base / file)
    (base / WEIGHTS).unlink()
    index = ", ".join(f'"{name}": "{file}"' for file, part in parts.items() for name in part)
    (base / "model.safetensors.index.json").write_text(f'{{"weight_map": {{{index}}}}}')
    interpolate(base, tuned, 0.5, tmp_path / "sharded")
    for name, tensor in weights(tmp_path / "sharded").items():
        assert torch.equal(tensor, found[name])


def test_layers_on_top_are_averaged_too(tmp_path):
    for seed, name in enumerate(("base", "tuned")):
        torch.manual_seed(seed)
        save_model(tmp_path / name, extra=[Dense(32, 16)], seed=seed)
    interpolate(tmp_path / "base", tmp_path / "tuned", 0.25, tmp_path / "out")
    file = "2_Dense/model.safetensors"
    first, second, found = (load_file(tmp_path / name / file) for name in ("base", "tuned", "out"))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, 0.75 * first[name] + 0.25 * second[name])
    assert open_encoder(tmp_path / "out", backend="torch").dimension == 16


def test_models_of_another_kind_are_refused(pair, tmp_path):
    save_model(tmp_path / "other", family="distilbert")
    with pytest.raises(UsageError, match="differ in model_type, config.json"):
        interpolate(tmp_path / "other", pair[1], 0.5, tmp_path / "out")
    save_model(tmp_path / "cls", pooling="cls")
    with pytest.raises(UsageError, match="differ in pooling"):
        interpolate(tmp_path / "cls", pair[1], 0.5, tmp_path / "out")
    vocabulary = shutil.copytree(pair[0], tmp_path / "vocabulary")
    text = (vocabulary / "tokenizer.json").read_text()
    (vocabulary / "tokenizer.json").write_text(text.replace('"cat"', '"cow"'))
    with pytest.raises(UsageError, match="differ in tokenizer"):
        interpolate(vocabulary, pair[1], 0.5, tmp_path / "out")
    with pytest.raises(UsageError, match="coefficient is 1.5"):
        interpolate(*pair, 1.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_match_are_refused_by_name(pair, tmp_path):
    lacking = shutil.copytree(pair[0], tmp_path / "lacking")
    edit(lacking, lambda tensors: tensors.pop("embeddings.LayerNorm.weight"))
    with pytest.raises(UsageError, match="no tensor 'embeddings.LayerNorm.weight'"):
        interpolate(lacking, pair[1], 0.5, tmp_path / "out")
    other = shutil.copytree(pair[0], tmp_path / "other")
    edit(other, lambda tensors: tensors.update({"embeddings.LayerNorm.weight": torch.ones(7)}))
    with pytest.raises(UsageError, match=r"has the shapes \(7,\) and \(32,\)"):
        interpolate(other, pair[1], 0.5, tmp_path / "out")
    broken = shutil.copytree(pair[1], tmp_path / "broken")
    edit(broken, lambda tensors: tensors["embeddings.LayerNorm.weight"].fill_(torch.nan))
    with pytest.raises(DamagedModelError, match="'embeddings.LayerNorm.weight'.*not finite"):
        interpolate(pair[0], broken, 0.5, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "lacking", "other"]


def test_only_safetensors_are_read(pair, tmp_path):
    pickled = shutil.copytree(pair[0], tmp_path / "pickled")
    torch.save(weights(pickled), pickled / "pytorch_model.bin")
    (pickled / WEIGHTS).unlink()
    with pytest.raises(UsageError, match="no weights as safetensors"):
        interpolate(pickled, pair[1], 0.5, tmp_path / "out")
    apart = shutil.copytree(pair[1], tmp_path / "apart")
    save_file({"lora_A": torch.ones(2)}, apart / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="merge a LoRA before"):
        interpolate(pair[0], apart, 0.5, tmp_path / "out")


def test_a_model_with_a_query_adapter_is_refused_rather_than_losing_it(pair, tmp_path):
    carrying = shutil.copytree(pair[1], tmp_path / "carrying")
    QueryAdapter.identity(32, "x@1").save(carrying / artifact.ADAPTER)
    with pytest.raises(UsageError, match="carries a query adapter"):
        interpolate(pair[0], carrying, 0.5, tmp_path / "out")


def test_a_damaged_artifact_is_not_averaged(pair, tmp_path):
    interpolate(*pair, 0.5, tmp_path / "once")
    edit(tmp_path / "once", lambda tensors: tensors["embeddings.LayerNorm.weight"].zero_())
    with pytest.raises(DamagedModelError, match="is not the file that the manifest lists"):
        interpolate(pair[0], tmp_path / "once", 0.5, tmp_path / "out")


def test_a_full_disk_leaves_the_old_artifact_and_nothing_half(pair, tmp_path):
    interpolate(*pair, 0.5, tmp_path / "out")
    before = artifact.verify(tmp_path / "out")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from llama_index_embed_plus.training.merge import interpolate\n"
        "from llama_index_embed_plus.errors import TrainingError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: interpolate(*sys.argv[1:3], 0.9, Path(sys.argv[3]))\n"
        "except TrainingError as error: sys.exit('refused: ' + str(error))"
    )
    command = [sys.executable, "-c", code, *map(str, pair), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr.startswith("refused: ") and "make room" in done.stderr, done.stderr
    assert artifact.verify(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_in_the_middle_there_is_the_old_artifact_or_none(pair, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from llama_index_embed_plus.training import averaging, merge\n"
        "write = averaging.write_between\n"
        "def slow(*arguments):\n"
        "    write(*arguments); print('written', flush=True); time.sleep(60)\n"
        "averaging.write_between = slow\n"
        "merge.interpolate(*sys.argv[1:3], 0.9, Path(sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, *map(str, pair), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "written\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    interpolate(*pair, 0.9, tmp_path / "out")  # what was left beside it is in nobody's way
    artifact.verify(tmp_path / "out")


RANDOM = np.random.default_rng(0)


def some(*shape: int) -> np.ndarray:
    return (0.3 * RANDOM.normal(size=shape)).astype(np.float32)


ADAPTERS: list[QueryMap] = [
    FullMap(some(8, 8)),
    LowRankMap(some(8, 2), some(2, 8)),
    OrthogonalMap(np.linalg.qr(RANDOM.normal(size=(8, 8)))[0].astype(np.float32)),
    MlpMap(some(8, 3), some(3, 8), some(3)),
]


@pytest.mark.parametrize("map", ADAPTERS, ids=lambda map: map.kind)
def test_scaling_an_adapter_scales_what_it_adds_to_a_query(map):
    adapter = QueryAdapter(map, "space@1")
    queries = RANDOM.normal(size=(5, 8)).astype(np.float32)
    for coefficient in (0.0, 0.25, 0.5):
        expected = queries + coefficient * (map(queries) - queries)
        np.testing.assert_allclose(scale_adapter(adapter, coefficient).map(queries), expected, atol=1e-5)
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    np.testing.assert_array_equal(scale_adapter(adapter, 0)(unit), QueryAdapter.identity(8, "space@1")(unit))
    assert scale_adapter(adapter, 1) is adapter and scale_adapter(adapter, 0.5).space == "space@1"
    with pytest.raises(UsageError, match="coefficient is -1"):
        scale_adapter(adapter, -1)


def test_every_kind_of_adapter_can_be_scaled():
    assert {map.kind for map in ADAPTERS} == set(MAPS)


class Line:
    """Queries move along a line between two encoders: towards their answers, and past what they knew before."""

    dimension = 16

    def __init__(self, coefficient: float) -> None:
        self.coefficient, self.space = coefficient, f"line-{coefficient}@000000000000"

    def encode_passages(self, texts):
        return np.stack([self._row(f"{text.split()[0]} passage", 0.0) for text in texts])

    def encode_queries(self, texts):
        return np.stack([self._query(text) for text in texts])

    def _query(self, text: str):
        word = text.split()[0]
        if "asked" in text:  # the answer comes nearer, up to 0.6, and is overshot then
            return self._row(f"{word} passage", 1.6 * abs(self.coefficient - 0.6) + 0.4)
        return self._row(f"{word} passage", 4 * max(0.0, self.coefficient - 0.4))

    def _row(self, name: str, noise: float):
        seed = int.from_bytes(name.encode()[:8].ljust(8), "little")
        row = np.random.default_rng(seed).normal(size=16) + noise * np.random.default_rng(seed + 1).normal(size=16)
        return (row / np.linalg.norm(row)).astype(np.float32)


DEV = HeldOut(
    tuple(Query(f"q{i}", f"{i:03} asked") for i in range(60)),
    {f"q{i}": {f"p{i}": 1} for i in range(60)},
    tuple(Passage(f"p{i}", f"{i:03} begins here. {i:03} goes on with more words") for i in range(120)),
)


def test_the_chosen_coefficient_is_the_best_of_those_that_do_not_forget():
    free = choose_coefficient(Line(0), Line, DEV, ProofSettings(known_items=0))
    assert free.coefficient == 0.6 and [trial.coefficient for trial in free.trials] == [0.2, 0.4, 0.6, 0.8, 1.0]
    best = max(free.trials, key=lambda trial: trial.change.after)
    assert best.coefficient == 0.6 and all(trial.allowed for trial in free.trials)
    bound = choose_coefficient(Line(0), Line, DEV)
    assert bound.coefficient == 0.4
    assert {trial.coefficient: trial.allowed for trial in bound.trials} == {
        0.2: True, 0.4: True, 0.6: False, 0.8: False, 1.0: False
    }  # fmt: skip


def test_if_nothing_allowed_is_better_the_base_is_kept():
    worse = choose_coefficient(Line(0.6), lambda c: Line(0.6 - c / 10), DEV, ProofSettings(known_items=0))
    assert worse.coefficient == 0.0 and len(worse.trials) == 5


def test_a_coefficient_is_chosen_for_an_adapter_on_stored_vectors():
    base = Line(0)
    with closing(connect(":memory:")) as client:
        collection = CollectionManager(client).ensure("c", base)
        index_passages(collection, DEV.passages, base)
        adapter = QueryAdapter((3 * RANDOM.normal(size=(16, 16))).astype(np.float32), base.space)
        choice = choose_coefficient(
            base,
            lambda c: AdaptedEncoder(base, scale_adapter(adapter, c)),
            HeldOut(DEV.queries, DEV.qrels),
            collection=collection,
        )
    assert choice.coefficient == 0.0  # a random map helps nobody


def test_a_deliberately_harmed_model_is_refused_and_its_undoing_is_accepted(minilm, tmp_path):
    """The real checkpoint: noise in its weights is harm, taking the noise away again is a gain."""
    harmed = tmp_path / "harmed"
    artifact.copy_model(minilm, harmed)
    generator = torch.Generator().manual_seed(0)

    def shake(tensors: dict[str, torch.Tensor]) -> None:
        for tensor in tensors.values():
            if tensor.is_floating_point() and tensor.ndim == 2:
                tensor += 1.2 * tensor.std() * torch.randn(tensor.shape, generator=generator)

    edit(harmed, shake)
    held_out = things()
    sound, broken = open_encoder(minilm, backend="torch"), open_encoder(harmed, backend="torch")
    harm = prove(sound, broken, held_out)
    assert not harm.harmless and harm.changes[0].high < 0
    assert any(reason.startswith("worse on 30 held-out queries") for reason in harm.refusals)
    assert any(reason.startswith("forgetting of more than 0.02") for reason in harm.refusals)
    gain = prove(broken, sound, held_out)
    assert gain.harmless and gain.changes[0].low > 0
    # A change too small to matter is not proved to be one.
    report = interpolate(minilm, harmed, 0.0005, tmp_path / "hardly")
    hardly = prove(sound, open_encoder(tmp_path / "hardly", backend="torch"), held_out)
    assert not hardly.harmless and report.lineage.space == hardly.after_space
    assert not record_proof(tmp_path / "hardly", hardly).promotable
    # The way back towards the sound model is found on the same scale.
    candidate = interpolated(harmed, minilm, tmp_path / "scratch")
    choice = choose_coefficient(broken, candidate, held_out, coefficients=(1.0,))
    assert choice.coefficient == 1.0


def things() -> HeldOut:
    """Thirty questions with one answer each."""
    facts = {
        "bees": "make honey", "cows": "give milk", "spiders": "weave webs", "beavers": "build dams",
        "owls": "hunt at night", "camels": "store fat in humps", "whales": "sing under water", "bats": "hear echoes",
        "penguins": "swim but never fly", "moles": "dig tunnels", "snakes": "shed their skin", "frogs": "catch flies",
        "bears": "sleep all winter", "salmon": "return to their river", "ants": "carry leaves", "cats": "purr",
        "wolves": "hunt in packs", "parrots": "imitate speech", "squirrels": "bury nuts", "geese": "fly in formation",
        "sheep": "grow wool", "oysters": "form pearls", "fireflies": "glow in the dark", "sloths": "move slowly",
        "cheetahs": "run fastest", "elephants": "have trunks", "zebras": "wear stripes", "eels": "make electricity",
        "octopuses": "squirt ink", "chameleons": "change colour",
    }  # fmt: skip
    passages = tuple(
        Passage(name, f"This is a short note about {name}. It is well known that {name} {fact}, as every child learns.")
        for name, fact in facts.items()
    )
    queries = tuple(Query(f"q-{name}", f"Which animals {fact}?") for name, fact in facts.items())
    return HeldOut(queries, {f"q-{name}": {name: 1} for name in facts}, passages)


def test_a_checkpoint_of_plain_transformers_can_be_the_base(pair, tmp_path):
    save_transformer(tmp_path / "plain", seed=0)
    interpolate(tmp_path / "plain", pair[1], 0.5, tmp_path / "out")
    assert open_encoder(tmp_path / "out", backend="torch").dimension == 32


def test_an_out_that_is_something_else_is_not_touched(pair, tmp_path):
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(UsageError, match="is no artifact"):
        interpolate(*pair, 0.5, tmp_path / "precious")
    with pytest.raises(TrainingError, match="cannot be written"):
        interpolate(*pair, 0.5, tmp_path / "precious" / "below")
