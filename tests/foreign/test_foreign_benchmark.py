"""Files of a benchmark folder as other tools write them: the task they are and what its rows say, or one refusal."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny import DirectionEncoder

from llama_index_embed_plus.evaluate.tasks.layouts import find_tasks
from llama_index_embed_plus.evaluate.tasks.run import read_task, run_task
from qdrant_tools.errors import InputError

FOLDER = Path(__file__).parent / "benchmark"

READ = {
    "pairs_mteb_labels.jsonl": ("pair_classification", {"pairs": 3, "positives": 2, "left_out": 0}),
    "pairs_bool.jsonl": ("pair_classification", {"pairs": 2, "positives": 1, "left_out": 0}),
    "pairs_pandas.csv": ("pair_classification", {"pairs": 3, "positives": 1, "left_out": 0}),
    "pairs_postgres.tsv": ("pair_classification", {"pairs": 2, "positives": 1, "left_out": 0}),
    "pairs_capitals.tsv": ("pair_classification", {"pairs": 2, "positives": 1, "left_out": 1}),
    "pairs_mnli.tsv": ("pair_classification", {"pairs": 2, "positives": 1, "left_out": 1}),
    "pairs_rte.jsonl": ("pair_classification", {"pairs": 2, "positives": 1, "left_out": 0}),
    "scores_sick.csv": ("similarity", {"pairs": 3, "spearman": 1.0}),
    "scores_comma.csv": ("similarity", {"pairs": 3, "spearman": 1.0}),
    "scores_negative.jsonl": ("similarity", {"pairs": 3, "spearman": 1.0}),
    "scores_three.jsonl": ("similarity", {"pairs": 3, "spearman": 1.0}),
    "scores_stsb.tsv": ("similarity", {"pairs": 3, "spearman": 1.0}),
    "bitext_languages.tsv": ("bitext_mining", {"pairs": 2}),
    "bitext_numbered.csv": ("bitext_mining", {"pairs": 2}),
    "clusters_names.jsonl": ("clustering", {"texts": 3, "labels": 2, "unlabelled": 0}),
    "clusters_no_label.csv": ("clustering", {"texts": 3, "labels": 2, "unlabelled": 1}),
}
NO_TASK = "two texts, and '.*' may say what a pair means: --task .*; or call it 'score' or 'label'"
REFUSED = {
    "pairs_glue_numbers.jsonl": r":1: label is 0, expected one of entailment, .* 0 is entailment in some files and its",
    "pairs_hidden.jsonl": r":2: label is -1, expected 1 or 0, or one of entailment",
    "pairs_stars.csv": r":3: label is '3.8', expected 1 or 0, .*; a score is a column 'score'",
    "pairs_empty_label.tsv": r":3: label is '', expected 1 or 0",
    "pairs_score_and_label.jsonl": NO_TASK,
    "pairs_distance.csv": NO_TASK,
    "pairs_no_label.tsv": "two texts of one language, and nothing that says what a pair means: a 'score' or a 'label'",
    "pairs_german.csv": NO_TASK,
    "pairs_quality.tsv": NO_TASK,
    "pairs_same_meaning.jsonl": NO_TASK,
    "pairs_later_score.jsonl": r":2: the field 'score' says what the row means, .* are to be a task of bitext_mining",
    "pairs_later_label.jsonl": r":2: the field 'label' says what the row means",
    "scores_hidden.tsv": r":3: a score of -1, while all others lie between 3.5 and 5: it marks pairs without a score",
    "scores_percent.csv": r":2: similarity is '85%', expected a finite number",
    "scores_thousands.csv": r":2: score is '1,234', in which the comma may part thousands or decimals",
    "scores_train.csv": r":3: split is 'train', expected 'test' alone",
    "rerank_second_negative.jsonl": r":1: the field 'negative_2' says what the row means",
    "clusters_category.jsonl": r":1: the field 'category' says what the row means",
    "clusters_levels.jsonl": r":1: label is \['cards', 'lost'\], expected a label: a text or a whole number",
    "groups_weight.csv": r":2: the field 'weight' says what the row means",
}


def loaded(name: str, folder: Path):
    """The one task that the file is, and its data."""
    shutil.copy(FOLDER / name, folder / f"{Path(name).stem}_test{Path(name).suffix}")
    tasks, skipped = find_tasks(folder)
    if not tasks:
        raise InputError(skipped[0].reason)
    (task,) = tasks
    return task, read_task(task)


@pytest.mark.parametrize("name", READ)
def test_a_file_is_the_task_that_its_author_meant(name, tmp_path):
    kind, expected = READ[name]
    task, data = loaded(name, tmp_path)
    details = run_task(task, data, DirectionEncoder()).details
    assert task.kind == kind
    assert {field: pytest.approx(details[field]) for field in expected} == expected


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_read_rightly_is_refused_with_its_line(name, tmp_path):
    with pytest.raises(InputError, match=REFUSED[name]):
        loaded(name, tmp_path)


def test_fields_that_are_not_read_are_named(caplog, tmp_path):
    loaded("scores_stsb.tsv", tmp_path)
    assert "fields that are not read: `genre`, `dataset`, `year`, `sid`" in caplog.text


def test_every_file_is_in_the_table():
    assert {path.name for path in FOLDER.iterdir()} == READ.keys() | REFUSED.keys()
