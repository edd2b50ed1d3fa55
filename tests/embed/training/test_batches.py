"""Batches: no row's answer is another row's negative, every row once per epoch, and the same order after a resume."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from models import save_model
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from llama_index_embed_plus.training.data.columns import datasets_for
from llama_index_embed_plus.training.data.records import TrainingData
from llama_index_embed_plus.training.losses.build import build_loss
from llama_index_embed_plus.training.trainer.batches import batch_sampler
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Example, ScoredText

LOSS = "multiple_negatives"
names = st.sampled_from([f"t{i}" for i in range(12)])


def dataset_of(rows):
    """(query, positive, negative...) rows of equal length as a data set."""
    columns = ["anchor", "positive", *(f"negative_{i}" for i in range(1, len(rows[0]) - 1))]
    return Dataset.from_dict({name: [row[i] for row in rows] for i, name in enumerate(columns)})


def sampler_of(dataset, *, batch_size=4, drop_last=False, seed=0, loss=LOSS, **known):
    return batch_sampler(loss, **known)(
        dataset, batch_size=batch_size, drop_last=drop_last, seed=seed, generator=None, valid_label_columns=["label"]
    )


def epochs(sampler, count=3):
    found = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        found.append(list(sampler))
    return found


def clash(first, second, answers):
    """The rule, by its words: a row brings a text that answers the other row's query, or is that query."""
    return any(set(a) & ({b[0]} | answers[b[0]]) for a, b in ((first, second), (second, first)))


@given(
    rows=st.integers(0, 2).flatmap(
        lambda negatives: st.lists(st.tuples(*[names] * (2 + negatives)), min_size=1, max_size=25)
    ),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_rows_that_answer_each_other_never_meet_and_every_row_comes_once_per_epoch(rows, batch_size, seed):
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(row[0], set()).add(row[1])
    sampler = sampler_of(dataset_of(rows), batch_size=batch_size, seed=seed)
    for batches in epochs(sampler, 4):
        assert len(batches) == len(sampler)
        assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
        for batch in batches:
            assert 1 <= len(batch) <= batch_size
            assert not any(clash(rows[a], rows[b], answers) for a, b in combinations(batch, 2))


@given(
    rows=st.lists(st.tuples(names, names), min_size=1, max_size=25),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_full_batches_only_are_full_and_as_many_in_every_epoch(rows, batch_size, seed):
    sampler = sampler_of(dataset_of(rows), batch_size=batch_size, seed=seed, drop_last=True)
    for batches in epochs(sampler, 4):
        assert len(batches) == len(sampler) and all(len(batch) == batch_size for batch in batches)
        seen = [row for batch in batches for row in batch]
        assert len(seen) == len(set(seen))


def plain(count):
    return dataset_of([(f"question {i}", f"answer {i} " + "and more " * (i % 5)) for i in range(count)])


def test_without_conflicts_there_are_as_few_batches_as_can_be_all_about_as_large():
    sampler = sampler_of(plain(33), batch_size=32)
    assert [sorted(map(len, batches)) for batches in epochs(sampler)] == [[16, 17]] * 3
    assert len(sampler_of(plain(33), batch_size=32, drop_last=True)) == 1


def test_orders_differ_between_epochs_and_seeds_and_are_equal_for_equal_ones():
    first, second, third = epochs(sampler_of(plain(40)))
    assert first != second != third != first
    assert epochs(sampler_of(plain(40))) == [first, second, third]
    assert epochs(sampler_of(plain(40), seed=1))[0] != first


def test_rows_of_a_batch_are_sorted_by_length():
    dataset = plain(40)
    for batch in sampler_of(dataset):
        lengths = [len(dataset[row]["anchor"]) + len(dataset[row]["positive"]) for row in batch]
        assert lengths == sorted(lengths)


def test_the_same_question_in_other_spelling_is_the_same():
    rows = [("What is love?", "baby"), ("what  is LOVE?", "do not hurt me"), ("else", "other")]
    batches = list(sampler_of(dataset_of(rows), batch_size=3))
    assert [0, 1] not in [sorted(batch)[:2] for batch in batches] and len(batches) == 2


def test_a_positive_that_no_row_of_this_data_set_shows_is_known_all_the_same():
    rows = [("q1", "a"), ("q2", "b")]  # b answers q1 too, says another data set
    assert len(sampler_of(dataset_of(rows))) == 1
    assert len(sampler_of(dataset_of(rows), known={"q1": ["a", "b"]})) == 2


def test_two_texts_of_one_passage_are_one_passage():
    rows = [("q1", "the text"), ("q2", "the text, as it was last year")]
    assert len(sampler_of(dataset_of(rows))) == 1
    assert len(sampler_of(dataset_of(rows), ids={"the text": "p", "the text, as it was last year": "p"})) == 2


def test_rows_may_share_a_negative_but_not_hold_anothers_query():
    assert len(sampler_of(dataset_of([("q1", "a", "n"), ("q2", "b", "n")]))) == 1
    assert len(sampler_of(dataset_of([("q1", "a", "n"), ("q2", "q1", "m")]))) == 2


def test_labels_weights_and_the_name_of_the_data_set_are_no_texts():
    dataset = (
        dataset_of([("q1", "a"), ("q2", "b")]).add_column("label", [1.0, 1.0]).add_column("dataset_name", ["x"] * 2)
    )
    assert len(sampler_of(dataset)) == 1


def test_identical_queries_are_alone_each():
    assert [len(b) for b in sampler_of(dataset_of([("q", f"answer {i}") for i in range(6)]))] == [1] * 6


def test_losses_without_in_batch_negatives_get_a_shuffled_order():
    dataset = dataset_of([("q", "a", "n")] * 10)
    (first, second) = epochs(sampler_of(dataset, loss="triplet"), 2)
    assert sorted(map(len, first)) == [3, 3, 4]
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(10))


def test_batch_hard_triplets_get_several_texts_of_several_classes():
    labels = [i % 3 for i in range(24)]
    dataset = Dataset.from_dict({"text": [f"text {i}" for i in range(24)], "label": labels})
    for batch in sampler_of(dataset, batch_size=6, loss="batch_hard_triplet"):
        of_class = [[labels[row] for row in batch].count(label) for label in range(3)]
        assert sum(count >= 2 for count in of_class) >= 2
    alone = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    with pytest.raises(UsageError, match="classes with several texts each"):
        sampler_of(alone, loss="batch_hard_triplet")


def test_the_order_does_not_hang_on_the_process():
    code = (
        "from llama_index_embed_plus.training.trainer.batches import batch_sampler; from datasets import Dataset\n"
        "queries, passages = [f'q{i % 9}' for i in range(30)], [f'p{i % 11}' for i in range(30)]\n"
        "d = Dataset.from_dict({'anchor': queries, 'positive': passages})\n"
        "s = batch_sampler('infonce')(d, batch_size=4, drop_last=False, seed=5); s.set_epoch(2); print(list(s))"
    )
    dataset = dataset_of([(f"q{i % 9}", f"p{i % 11}") for i in range(30)])
    here = sampler_of(dataset, seed=5)
    here.set_epoch(2)
    environment = os.environ | {"PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str(list(here))


class Recording:
    """The trainer's collator, which also writes down the queries of each batch."""

    def __init__(self, collator):
        self.collator, self.valid_label_columns, self.batches = collator, collator.valid_label_columns, []

    def __call__(self, rows):
        self.batches.append(tuple(row["anchor"] for row in rows))
        return self.collator(rows)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_run_sees_the_batches_that_the_interrupted_one_had_not_over_several_data_sets(tmp_path, accumulation):
    examples = [
        Example(
            f"query {i % 11}",
            (ScoredText(f"p{i}", f"document {i}"),),
            tuple(ScoredText(f"n{i}-{j}", f"tree {i} {j}") for j in range(i % 3)),
            1.0 + i % 2,
        )
        for i in range(22)
    ]
    data = TrainingData.of(examples)
    datasets = datasets_for(LOSS, data)
    assert isinstance(datasets, DatasetDict) and len(datasets) == 3

    def run(folder, *, resume=None):
        model = save_model(tmp_path / f"model-{folder}")
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / folder), num_train_epochs=2, per_device_train_batch_size=4,
            batch_sampler=batch_sampler(LOSS, known=data.positives_by_query(), ids=data.passage_ids()),
            seed=3, save_steps=1,
            gradient_accumulation_steps=accumulation, use_cpu=True, report_to="none", disable_tqdm=True,
            logging_strategy="no", dataloader_pin_memory=False, log_level="error",
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=datasets, loss=build_loss(LOSS, model)
        )
        trainer.data_collator = Recording(trainer.data_collator)
        trainer.train(resume_from_checkpoint=resume)
        return trainer.data_collator.batches, trainer.state.global_step

    whole, steps = run("whole")
    half = len(whole) // 2
    assert sorted(sum(whole[:half], ())) == sorted(sum(whole[half:], ())) == sorted(e.query for e in examples)
    assert whole[:half] != whole[half:]
    per_epoch = -(-half // accumulation)
    assert steps == 2 * per_epoch
    for step in (2, per_epoch + 1):  # in the first epoch, in the second
        resumed, last = run(f"resumed-{step}", resume=str(tmp_path / "whole" / f"checkpoint-{step}"))
        done = step * accumulation if step < per_epoch else half + (step - per_epoch) * accumulation
        # What a skipping loader reads ahead it also collates: only the end of the story must agree.
        assert resumed[-(len(whole) - done) :] == whole[done:] and last == steps


def test_texts_are_one_by_their_words_and_by_their_ids_at_once():
    # the first two rows have one question; b and c are one passage, of which c is another edition
    rows = [("Reset it?", "a"), ("“reset it”", "b"), ("other", "c"), ("third", "d")]
    sampler = sampler_of(dataset_of(rows), batch_size=4, ids={"b": "caf\u00e9", "c": "cafe\u0301", "a": "x"})
    for batches in epochs(sampler):
        assert not any({0, 1} <= set(batch) or {1, 2} <= set(batch) or {0, 2} <= set(batch) for batch in batches)
    assert len(sampler_of(dataset_of([("c++", "a"), ("c#", "b")]))) == 1
