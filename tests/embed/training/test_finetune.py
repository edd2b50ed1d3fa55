"""Fine-tuning the whole encoder: real checkpoint, few examples."""

from __future__ import annotations

import numpy as np
import pytest

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training import ColumnSettings, TrainingData, TrainSettings, datasets_for, train
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Example, ScoredText

TOPICS = ("bees", "cats", "whales", "trains", "bread", "snow", "violins", "volcanoes")


def examples(negatives: int = 1) -> list[Example]:
    return [
        Example(
            f"tell me about {topic}",
            (ScoredText(topic, f"Here is what is known about {topic}."),),
            tuple(ScoredText(f"not-{topic}-{i}", f"Nothing about {topic}, number {i}.") for i in range(negatives)),
        )
        for topic in TOPICS
    ]


def test_rows_with_different_numbers_of_negatives_become_different_data_sets():
    mixed = [*examples(2)[:3], *examples(0)[:1], *examples(5)[:1]]
    datasets = datasets_for("multiple_negatives", TrainingData.of(mixed), ColumnSettings(negatives=3))
    assert {name: len(rows) for name, rows in datasets.items()} == {
        "negatives_0": 1,
        "negatives_2": 3,
        "negatives_3": 1,
    }
    assert datasets["negatives_2"].column_names == ["anchor", "positive", "negative_1", "negative_2"]


def test_a_query_with_two_positives_becomes_two_rows():
    two = Example("q", (ScoredText("a", "first"), ScoredText("b", "second")))
    assert datasets_for("multiple_negatives", TrainingData.of([two, *examples()]))["negatives_0"]["positive"][:] == [
        "first",
        "second",
    ]


def test_fine_tuning_moves_queries_towards_their_positives_and_prints_nothing(minilm, tmp_path, capsys):
    steps: list[int] = []
    settings = TrainSettings(batch_size=4, epochs=2, max_tokens=32)
    report = train(minilm, examples(), tmp_path / "tuned", settings, progress=steps.append)
    assert (report.data["rows"], len(report.losses), sum(steps)) == (8, 4, 4)
    assert capsys.readouterr().out == ""
    before, after = open_encoder(minilm), open_encoder(tmp_path / "tuned")
    assert before.space != after.space
    assert after.spec.max_tokens == before.spec.max_tokens  # the short training window does not leak into serving

    def margin(encoder) -> float:
        queries = encoder.encode_queries([e.query for e in examples()])
        positives = encoder.encode_passages([e.positives[0].text for e in examples()])
        negatives = encoder.encode_passages([e.negatives[0].text for e in examples()])
        return float(np.mean((queries * positives).sum(1) - (queries * negatives).sum(1)))

    assert margin(after) > margin(before)
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]  # no scratch left behind


def test_the_loss_does_not_depend_on_how_many_texts_fit_in_memory_at_once(minilm, tmp_path):
    first, second = (
        train(minilm, examples(), tmp_path / str(tokens), TrainSettings(batch_size=4, tokens_at_once=tokens))
        for tokens in (40, 4000)
    )
    np.testing.assert_allclose(first.losses[0], second.losses[0], atol=0.02)  # dropout draws differ, the batch does not


def test_nothing_to_train_on_and_an_existing_folder_are_errors(minilm, tmp_path):
    with pytest.raises(TrainingError, match="none of the 1 examples has a positive"):
        train(minilm, [Example("q", ())], tmp_path / "tuned")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "precious").touch()
    with pytest.raises(UsageError, match="is no artifact"):
        train(minilm, examples(), tmp_path / "there")
    with pytest.raises(UsageError, match="epochs of training is 0"):
        TrainSettings(epochs=0)
