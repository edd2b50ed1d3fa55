"""Margins by a cross-encoder: what a teacher of raw scores says, kept over a kill, and learned by margin_mse."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from models import SENTENCE, save_cross_encoder, save_model
from sentence_transformers import CrossEncoder

from llama_index_embed_plus.encoders.cross_encoder import cross_encoder_judge, cross_encoder_logits
from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.data.margins import write_margins
from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.data.records import Distilled, TrainingData
from llama_index_embed_plus.training.run import train
from llama_index_embed_plus.training.settings import TrainSettings
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Example, ScoredText

WORDS = SENTENCE.split()[9:26]
PAIRS = list(pairwise(WORDS))


def passage(i: int) -> ScoredText:
    first, second = PAIRS[i % len(PAIRS)]
    return ScoredText(f"p{i % len(PAIRS)}", f"the {first} and the {second}")


EXAMPLES = [
    Example(f"{second} {first}", (passage(i),), (passage(i + 3), passage(i + 5)), synthetic=i > 3)
    for i, (first, second) in enumerate(PAIRS)
]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A cross-encoder that was trained until it ranks: it knows which passage has the words of the query."""
    folder = save_cross_encoder(tmp_path_factory.mktemp("judge") / "judge")
    model = CrossEncoder(str(folder), device="cpu")
    torch.manual_seed(0)
    # the weights of a beginner: those that were saved are too large to learn from
    model.model.apply(model.model._init_weights)
    pairs = [
        (e.query, text.text, float(text in e.positives)) for e in EXAMPLES for text in (*e.positives, *e.negatives)
    ]
    optimizer = torch.optim.AdamW(model.model.parameters(), lr=3e-3)
    tokens = model.tokenizer([p[0] for p in pairs], [p[1] for p in pairs], padding=True, return_tensors="pt")
    wanted = torch.tensor([p[2] for p in pairs])
    model.model.eval()  # no dropout: it learns sooner
    for _ in range(200):
        optimizer.zero_grad()
        logits = model.model(**tokens).logits[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted).backward()
        optimizer.step()
    model.save_pretrained(str(folder))
    return folder


def plain_logits(folder, pairs):
    """The formula, without this project: transformers' logits, one pair at a time, in float64 by numpy."""
    model = CrossEncoder(str(folder), device="cpu")
    with torch.no_grad():
        return np.array([float(model.model(**model.tokenizer(*p, return_tensors="pt")).logits) for p in pairs])


def test_raw_scores_are_taken_before_the_sigmoid(judge):
    pairs = [(e.query, text.text) for e in EXAMPLES[:4] for text in (*e.positives, *e.negatives)]
    logits = np.array(cross_encoder_logits(judge)(pairs))
    assert np.allclose(logits, plain_logits(judge, pairs), atol=1e-4) and np.abs(logits).max() > 1
    probabilities = cross_encoder_judge(judge, threshold=0.5).score(pairs)
    assert np.allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_rows_hold_the_margins_of_the_judge_that_ranks_better_than_chance(judge, tmp_path):
    report = write_margins(EXAMPLES, cross_encoder_logits(judge), tmp_path / "rows.jsonl", judge="judge", negatives=2)
    assert (report.rows, report.margins, report.resumed, report.without) == (len(EXAMPLES), 2 * len(EXAMPLES), 0, 0)
    data = read_training_data(tmp_path / "rows.jsonl")
    assert data.kind == "distillation" and [row.synthetic for row in data.rows] == [e.synthetic for e in EXAMPLES]
    for row, example in zip(data.rows, EXAMPLES, strict=True):
        own, *others = plain_logits(judge, [(row.query, text) for text in (row.positive, *row.negatives)])
        assert row.positive == example.positives[0].text and np.allclose(row.margins, own - np.array(others), atol=1e-4)
    assert np.mean([margin > 0 for row in data.rows for margin in row.margins]) > 0.8
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


class Counting:
    """A judge that is killed after so many pairs."""

    def __init__(self, most: int = 10**9) -> None:
        self.most, self.seen = most, 0

    def __call__(self, pairs):
        self.seen += len(pairs)
        if self.seen > self.most:
            raise KeyboardInterrupt
        return [float(len(text)) - len(query) / 7 for query, text in pairs]


MANY = [
    Example(f"query {i}", (ScoredText("a", f"answer {i}"),), (ScoredText("b", "b" * (1 + i % 9)),)) for i in range(100)
]


@pytest.mark.parametrize("torn", [b"", b"[[1.0], [2", b"\n"])
def test_a_kill_costs_what_was_not_scored_and_nothing_else(tmp_path, torn):
    whole = Counting()
    write_margins(MANY, whole, tmp_path / "whole.jsonl", judge="j")
    with pytest.raises(KeyboardInterrupt):
        write_margins(MANY, Counting(110), tmp_path / "rows.jsonl", judge="j")
    assert not (tmp_path / "rows.jsonl").exists()
    with (tmp_path / ".rows.jsonl.scores").open("ab") as file:
        file.write(torn.strip(b"\n"))
    rest = Counting()
    report = write_margins(MANY, rest, tmp_path / "rows.jsonl", judge="j")
    assert report.resumed == 48 and whole.seen == 200 and rest.seen == 104
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_scores_of_something_else_are_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_margins(MANY, Counting(50), tmp_path / "rows.jsonl", judge="j")
    for given in ({"judge": "another"}, {"judge": "j", "negatives": 9}):
        with pytest.raises(UsageError, match="scores of other examples or of another judge: remove it"):
            write_margins(MANY, Counting(), tmp_path / "rows.jsonl", **given)
    with pytest.raises(UsageError, match="scores of other examples"):
        write_margins(MANY[1:], Counting(), tmp_path / "rows.jsonl", judge="j")
    (tmp_path / ".rows.jsonl.scores").write_text("[" * 100_000 + "\n")
    with pytest.raises(UsageError, match="holds no scores"):
        write_margins(MANY, Counting(), tmp_path / "rows.jsonl", judge="j")
    (tmp_path / ".rows.jsonl.scores").unlink()
    with pytest.raises(KeyboardInterrupt):
        write_margins(MANY, Counting(50), tmp_path / "rows.jsonl", judge="j")
    with (tmp_path / ".rows.jsonl.scores").open("a") as file:
        file.write("[[1.0], []]\n")
    with pytest.raises(UsageError, match="holds no scores .*a row of 1 and 0 scores"):
        write_margins(MANY, Counting(), tmp_path / "rows.jsonl", judge="j")
    with pytest.raises(TrainingError, match="scores for 32 pairs, or some that are no numbers"):
        write_margins(MANY, lambda pairs: [float("nan")] * len(pairs), tmp_path / "nan.jsonl", judge="j")
    with pytest.raises(TrainingError, match="none of 1 examples has negatives to score"):
        write_margins([Example("q", (ScoredText("a", "a"),))], Counting(), tmp_path / "none.jsonl", judge="j")


def test_margins_of_logits_get_a_scale_that_unit_vectors_can_reach(judge, tmp_path):
    save_model(tmp_path / "base")
    write_margins(EXAMPLES, cross_encoder_logits(judge), tmp_path / "rows.jsonl", judge="judge")
    data = read_training_data(tmp_path / "rows.jsonl")
    settings = TrainSettings(
        loss="margin_mse", batch_size=8, max_tokens=16, learning_rate=1e-2, epochs=8, synthetic_weight=1.0
    )
    report = train(tmp_path / "base", data, tmp_path / "tuned", settings)
    margins = np.abs([margin for row in data.rows for margin in row.margins])
    scale = round(np.quantile(margins, 0.9) / 0.5, 3)
    assert report.notes == (f"the scale of margin_mse is {scale:g}, by the teacher's margins",)
    small = [Distilled(row.query, row.positive, row.negatives, (0.5,) * 2) for row in data.rows]
    once = TrainSettings(loss="margin_mse", batch_size=16, max_tokens=16)
    assert train(tmp_path / "base", TrainingData.of(small), tmp_path / "small", once).notes == ()


def test_on_the_command_line_a_file_of_examples_becomes_one_of_margins(run, judge, tmp_path):
    (tmp_path / "mined.jsonl").write_text("".join(json.dumps(e.as_row()) + "\n" for e in EXAMPLES))
    code, out, _ = run("margins", "mined.jsonl", "--out", "rows.jsonl", "--judge", judge, "--negatives", 1)
    assert code == 0 and out.splitlines()[0] == f"wrote rows.jsonl: 16 rows with 16 margins by {judge}"
    assert len(read_training_data(tmp_path / "rows.jsonl")) == 16
    code, _, err = run("margins", "mined.jsonl", "--out", "rows.jsonl", "--judge", judge)
    assert code == 2 and "rows.jsonl" in err
