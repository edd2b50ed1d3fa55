"""Every loss trains: two steps of the trainer on a tiny real encoder, from data to changed weights."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from models import SENTENCE, save_cross_encoder, save_model
from paths import TESTS
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from llama_index_embed_plus.encoders.cross_encoder import cross_encoder_judge
from llama_index_embed_plus.training import train
from llama_index_embed_plus.training.data.augmentation import DeleteWords
from llama_index_embed_plus.training.data.columns import ColumnSettings, datasets_for
from llama_index_embed_plus.training.data.records import Distilled, LabelledText, ScoredPair, TrainingData
from llama_index_embed_plus.training.data.unsupervised import NoiseSettings
from llama_index_embed_plus.training.losses.build import build_loss
from llama_index_embed_plus.training.losses.catalogue import LOSSES, LossOptions
from llama_index_embed_plus.training.settings import TrainSettings
from llama_index_embed_plus.training.trainer.batches import batch_sampler
from qdrant_tools.records import Example, ScoredText

WORDS = SENTENCE.split()[:30]


def text(number, length=4):
    return " ".join(WORDS[(number * 7 + i * 3) % 30] for i in range(length))


EXAMPLES = [
    Example(text(i), (ScoredText(f"p{i}", text(i + 1, 6)),), (ScoredText(f"n{i}", text(i + 2, 5)),), 1.0 + i % 3)
    for i in range(16)
]
DATA = {
    "ranking": TrainingData.of(EXAMPLES),
    "triplets": TrainingData.of(EXAMPLES),
    "labelled pairs": TrainingData.of([ScoredPair(text(i), text(i + 1), float(i % 2)) for i in range(16)]),
    "scored pairs": TrainingData.of([ScoredPair(text(i), text(i + 1), i / 16) for i in range(16)]),
    "distillation": TrainingData.of([Distilled(text(i), text(i + 1), (text(i + 2),), (i / 8,)) for i in range(16)]),
    "labelled texts": TrainingData.of([LabelledText(text(i), i % 4) for i in range(16)]),
    "texts": TrainingData.of([text(i, 6) for i in range(32)]),
}


def trained(model, loss, datasets, folder, *, sampler, batch_size=8):
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder), max_steps=2, per_device_train_batch_size=batch_size, batch_sampler=sampler,
        learning_rate=1e-2, use_cpu=True, report_to="none", disable_tqdm=True, logging_steps=1, save_strategy="no",
        dataloader_pin_memory=False, log_level="error", logging_nan_inf_filter=False,
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=datasets, loss=dict.fromkeys(datasets, loss)
    )
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_trains_from_its_data_with_its_batches(name, tmp_path, capsys):
    facts = LOSSES[name]
    model = save_model(tmp_path / "model")
    guide = save_model(tmp_path / "guide", seed=7) if "guide" in facts.takes else None
    options = LossOptions.of(name, {"guide": guide} if guide else {}, tokens_at_once=40)
    if facts.matryoshka:
        options = replace(options, dims=(8, 32))
    noise = NoiseSettings(damage=DeleteWords(0.5), ratio=4)
    data = DATA[facts.shape]
    datasets = datasets_for(name, data, ColumnSettings(negatives=0 if name == "ntxent" else 1, noise=noise))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    judge = [] if guide is None else [parameter.detach().clone() for parameter in guide.parameters()]
    capsys.readouterr()
    sampler = batch_sampler(name, known=data.positives_by_query(), ids=data.passage_ids())
    losses = trained(model, build_loss(name, model, options), datasets, tmp_path / "run", sampler=sampler)
    assert len(losses) == 2 and all(math.isfinite(loss) and loss > 0 for loss in losses)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2
    assert all(torch.equal(a, b) for a, b in zip(judge, guide.parameters() if guide else (), strict=True))
    assert "LOAD REPORT" not in "".join(capsys.readouterr())


def test_a_row_of_more_weight_is_learned_first(tmp_path):
    """Two rows contradict each other; the one that a click model is surer of wins."""

    def preference(weight):
        model = save_model(tmp_path / f"model-{weight}").eval()
        question, first, second = "what is the cat ?", "red stone", "blue tree"
        rows = [
            Example(question, (ScoredText("a", first),), (ScoredText("b", second),), weight),
            Example(question + " ?", (ScoredText("b", second),), (ScoredText("a", first),), 1.0),
        ]
        (dataset,) = datasets_for("triplet", TrainingData.of(rows)).values()
        labels = torch.tensor(dataset["label"][:]) if "label" in dataset.column_names else None
        loss = build_loss("triplet", model, LossOptions(margin=1.0))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            columns = [model.preprocess(dataset[name][:]) for name in ("anchor", "positive", "negative")]
            loss(columns, labels).backward()
            optimizer.step()
        vectors = model.encode([question, first, second], normalize_embeddings=True)
        return float(vectors[0] @ vectors[1] - vectors[0] @ vectors[2])

    assert preference(9.0) > preference(1.0) > preference(0.1)


def test_weights_of_examples_reach_the_loss_through_train(tmp_path):
    save_model(tmp_path / "base")
    settings = TrainSettings(loss="multiple_negatives", batch_size=16, max_tokens=16, negatives=1)

    def first_loss(name, data):
        return train(tmp_path / "base", data, tmp_path / name, settings).losses[0]

    weighted, equal = TrainingData.of(EXAMPLES), TrainingData.of(EXAMPLES).unweighted()
    tripled = TrainingData.of([replace(example, weight=3 * example.weight) for example in EXAMPLES])
    found = first_loss("weighted", weighted)
    assert abs(found - first_loss("equal", equal)) > 1e-3
    assert found == pytest.approx(first_loss("tripled", tripled), abs=1e-4)  # the scale of weights means nothing


def test_a_cross_encoder_teaches_through_its_folder(tmp_path):
    save_model(tmp_path / "base")
    teacher = save_cross_encoder(tmp_path / "teacher")
    data = TrainingData.of(EXAMPLES).unweighted()
    score = cross_encoder_judge(teacher, threshold=0.0).score
    margins = datasets_for("margin_mse", data, ColumnSettings(teacher=score))["negatives_1"]["label"][:]
    positive, negative = score([(EXAMPLES[0].query, EXAMPLES[0].positives[0].text), (EXAMPLES[0].query, text(2, 5))])
    assert margins[0] == [pytest.approx(positive - negative, abs=1e-5)] and len({margin for [margin] in margins}) > 3
    settings = TrainSettings(
        loss="margin_mse",
        loss_options={"teacher": str(teacher)},
        batch_size=8,
        max_tokens=16,
        learning_rate=1e-2,
        epochs=8,
    )
    report = train(tmp_path / "base", data, tmp_path / "tuned", settings)
    assert sum(report.losses[-2:]) < sum(report.losses[:2]) / 2


GATHERED = """
import os, sys
import torch
import torch.distributed as dist
sys.path.insert(0, {tests!r})
from sentence_transformers import SentenceTransformer
from llama_index_embed_plus.training.losses.catalogue import LossOptions
from llama_index_embed_plus.training.losses.build import build_loss

rank = int(os.environ["RANK"])
dist.init_process_group("gloo")
model = SentenceTransformer({model!r}, device="cpu").double().eval()
columns = [[t.split("|")[i] for t in {texts!r}] for i in range(3)]
weights = torch.tensor({weights!r})
for name in ("multiple_negatives", "cached_multiple_negatives", "ntxent"):
    used = columns[:2] if name == "ntxent" else columns
    half = [column[rank * 3 : rank * 3 + 3] for column in used]
    loss = build_loss(name, model, LossOptions(gather_across_devices=True))
    value = loss([model.preprocess(column) for column in half], weights[rank * 3 : rank * 3 + 3]).detach()
    dist.all_reduce(value)
    whole = build_loss(name, model)
    wanted = whole([model.preprocess(column) for column in used], weights).detach()
    if rank == 0:
        print(name, float(value / 2), float(wanted))
dist.destroy_process_group()
"""


def test_weights_and_negatives_are_those_of_the_batch_of_all_devices(tmp_path):
    save_model(tmp_path / "model")
    texts = [f"{text(i)}|{text(i + 1, 6)}|{text(i + 2, 5)}" for i in range(6)]
    code = GATHERED.format(
        tests=str(TESTS),
        model=str(tmp_path / "model"),
        texts=texts,
        weights=[1.0, 1.0, 1.0, 2.0, 0.5, 3.0],
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    (printed, errors), _ = [process.communicate(timeout=300) for process in processes]
    rows = [line.split() for line in printed.splitlines()]
    assert [row[0] for row in rows] == ["multiple_negatives", "cached_multiple_negatives", "ntxent"], errors
    for name, found, wanted in rows:
        assert float(found) == pytest.approx(float(wanted), abs=1e-5), name
