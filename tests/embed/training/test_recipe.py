"""Recipes: read strictly, run stage by stage, mined with the model as it then is, resumed where they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from models import save_model

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import LeakError
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.training import QueryAugmentation, read_recipe, run_recipe, stages
from llama_index_embed_plus.training.proof.report import read_report
from qdrant_tools.errors import UsageError
from qdrant_tools.mining.file import mine_to_jsonl

WORDS = ("cat", "dog", "bird", "tree", "river", "stone", "red", "blue", "slow", "fast", "one", "two")
RECIPE = """
base = "model"
passages = "passages.jsonl"
batch_size = 4
max_tokens = 16
learning_rate = 1e-3
checkpoint_every = 1
leak_similarity = "off"

[heldout]
queries = "queries.jsonl"
qrels = "qrels.tsv"

[[stage]]
name = "similarity"
data = "sts.csv"
score_range = [0, 5]
loss = "cosent"

[[stage]]
name = "pairs"
data = "pairs.jsonl"
epochs = 2

[[stage]]
name = "hard"
data = "pairs.jsonl"
rounds = 2
mine = { negatives = 2, depth = 8 }
lora = { rank = 2 }
method = "lora"
"""


def rows(path: Path, *values: dict) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, passages, pairs to train on, scored pairs, and held-out queries; the recipe lies beside them."""
    folder = tmp_path_factory.mktemp("recipe")
    save_model(folder / "model")
    rows(folder / "passages.jsonl", *({"id": f"p-{word}", "text": f"the {word} runs and sleeps"} for word in WORDS))
    train, held = WORDS[:8], WORDS[8:]
    rows(
        folder / "pairs.jsonl",
        *({"query": f"what is the {word}", "positive": f"the {word} runs and sleeps"} for word in train),
    )
    (folder / "sts.csv").write_text(
        "sentence1,sentence2,score\n" + "".join(f"the {word},a {word},{i % 6}\n" for i, word in enumerate(train))
    )
    rows(folder / "queries.jsonl", *({"id": f"q-{word}", "text": f"search for {word}"} for word in held))
    qrels = "".join(f"q-{word}\tp-{word}\t1\n" for word in held)
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")
    (folder / "recipe.toml").write_text(RECIPE.replace('leak_similarity = "off"\n', "leak_similarity = 1.0\n"))
    return folder


def run(folder: Path, out: Path, text: str | None = None, **given):
    recipe = folder / "recipe.toml"
    if text is not None:
        recipe = folder / "other.toml"
        recipe.write_text(text)
    return run_recipe(recipe, out, base=str(folder / "model"), **given)


def test_every_stage_is_trained_in_order_measured_and_the_best_is_kept(folder, tmp_path, monkeypatch):
    told: list[str] = []
    steps: list[int] = []
    spaces: list[tuple[str, str]] = []

    def mined(collection, labels, encoder, **given):
        spaces.append((collection.space, encoder.space))
        return mine_to_jsonl(collection, labels, encoder, **given)

    monkeypatch.setattr(stages, "mine_to_jsonl", mined)
    report = run(folder, tmp_path / "tuned", announce=told.append, progress=steps.append)
    assert told == [
        "measure base", "train similarity", "measure similarity", "train pairs", "measure pairs", "mine hard-1",
        "train hard-1", "measure hard-1", "mine hard-2", "train hard-2", "measure hard-2",
    ]  # fmt: skip
    assert [stage.name for stage in report.stages] == ["similarity", "pairs", "hard-1", "hard-2"]
    assert sum(steps) == sum(stage.steps for stage in report.stages)
    assert [stage.steps for stage in report.stages[:2]] == [2, 4]
    assert all(set(stage.metrics) == {"ndcg@10", "mrr", "recall@10"} for stage in report.stages)
    # Each round is mined in the space of the model that the stage before it made.
    (first, first_encoder), (second, second_encoder) = spaces
    assert first == first_encoder and second == second_encoder and first != second
    best = max(report.stages, key=lambda stage: stage.metrics["ndcg@10"])
    assert any(f"the best of 4 trainings is {best.name}" in note for note in report.notes)
    assert stages.CHOSEN_ON_HELD_OUT in report.notes
    assert report.lineage.base_space == open_encoder(folder / "model").space == report.proof.before_space
    assert report.proof.changes[0].after == pytest.approx(best.metrics["ndcg@10"])
    artifact.verify(tmp_path / "tuned")
    assert read_report(tmp_path / "tuned") == report
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The report of a run that nobody interrupts."""
    return run(folder, tmp_path_factory.mktemp("whole") / "tuned")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", ["train pairs", "mine hard-1", "train hard-2"])
def test_an_interrupted_recipe_goes_on_in_the_stage_where_it_was(folder, whole, tmp_path, at):
    def killed(what: str) -> None:
        if what == at:
            raise Killed

    with pytest.raises(Killed):
        run(folder, tmp_path / "tuned", announce=killed)
    assert not (tmp_path / "tuned").exists()
    told: list[str] = []
    run(folder, tmp_path / "tuned", announce=told.append)
    assert told[0] == at  # nothing before it is done again
    again = read_report(tmp_path / "tuned")
    assert again.losses == whole.losses and again.lineage.space == whole.lineage.space


def test_an_interruption_in_the_middle_of_a_stage_costs_no_finished_step(folder, tmp_path):
    seen = 0

    def killed(count: int) -> None:
        nonlocal seen
        seen += count
        if seen == 5:  # the third of four steps of the second stage
            raise Killed

    with pytest.raises(Killed):
        run(folder, tmp_path / "tuned", progress=killed)
    steps: list[int] = []
    report = run(folder, tmp_path / "tuned", progress=steps.append)
    assert steps[0] == 2  # of the second stage, from its checkpoint
    assert sum(steps) == sum(stage.steps for stage in report.stages) - 2


def test_a_changed_stage_repeats_only_itself_and_what_follows(folder, tmp_path):
    def killed(what: str) -> None:
        if what == "train hard-1":
            raise Killed

    with pytest.raises(Killed):
        run(folder, tmp_path / "tuned", announce=killed)
    told: list[str] = []
    changed = (
        (folder / "recipe.toml").read_text().replace("epochs = 2", "epochs = 1").replace("rounds = 2", "rounds = 1")
    )
    run(folder, tmp_path / "tuned", changed, announce=told.append)
    assert told[0] == "train pairs"


@pytest.mark.parametrize("other", [False, True])
def test_the_figures_of_another_base_are_not_taken_for_its_own(folder, tmp_path, other):
    save_model(tmp_path / "other", pooling="cls")
    announced: list[str] = []

    def killed(what: str) -> None:
        announced.append(what)
        if what == "train similarity":
            raise Killed

    for base in (folder / "model", tmp_path / "other" if other else folder / "model"):
        with pytest.raises(Killed):
            run_recipe(folder / "recipe.toml", tmp_path / "tuned", base=str(base), announce=killed)
    again = ["measure base"] if other else []
    assert announced == ["measure base", "train similarity", *again, "train similarity"]


def test_a_stage_adds_queries_of_other_words(folder, tmp_path):
    text = (
        (folder / "recipe.toml")
        .read_text()
        .replace("epochs = 2", 'augment = { words = "crop", share = 0.5, copies = 2 }')
    )
    text = text.replace("rounds = 2", "rounds = 1")
    (folder / "augmented.toml").write_text(text)
    plain, augmented, mined = read_recipe(folder / "augmented.toml").stages
    assert augmented.augmentation == QueryAugmentation("crop", 0.5, copies=2) and mined.augmentation is None
    report = run(folder, tmp_path / "tuned", text)
    steps = {stage.name: stage.steps for stage in report.stages}
    assert steps["pairs"] > 2, "8 pairs alone are 2 batches of 4"


def test_scored_pairs_have_no_queries_to_change(folder, tmp_path):
    text = (folder / "recipe.toml").read_text().replace('loss = "cosent"', 'loss = "cosent"\naugment = {}')
    with pytest.raises(UsageError, match="the data is scored pairs, expected queries with positives"):
        run(folder, tmp_path / "tuned", text)


def test_without_held_out_queries_the_last_stage_is_kept_and_nothing_is_claimed(folder, tmp_path):
    text = (folder / "recipe.toml").read_text().replace("[heldout]\n", "").replace('queries = "queries.jsonl"\n', "")
    text = text.replace('qrels = "qrels.tsv"\n', "").replace("rounds = 2", "rounds = 1")
    report = run(folder, tmp_path / "tuned", text)
    assert [stage.metrics for stage in report.stages] == [{}, {}, {}]
    assert (
        len(report.losses) == sum(stage.steps for stage in report.stages)
        and not report.promotable
        and "not measured" in report.verdict
    )


def test_held_out_queries_in_a_stages_data_are_refused_before_anything_is_trained(folder, tmp_path):
    rows(folder / "leaking.jsonl", {"query": "search for one", "positive": "the one runs and sleeps"})
    text = (
        (folder / "recipe.toml").read_text().replace('data = "pairs.jsonl"\nepochs', 'data = "leaking.jsonl"\nepochs')
    )
    with pytest.raises(LeakError, match="search for one"):
        run(folder, tmp_path / "tuned", text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('name = "pairs"', 'name = "pairs"\nepoch = 2', "stage 2 has an unknown key 'epoch', expected one of"),
        ("batch_size = 4", "batchsize = 4", "the recipe has an unknown key 'batchsize'"),
        ("batch_size = 4", 'batch_size = "four"', "stage 1: batch_size is 'four', expected int"),
        ("batch_size = 4", "batch_size = 0", "stage 1: batch_size of training is 0, expected at least 1"),
        ("epochs = 2", "augment = { least = 1 }", "stage 2: augment has an unknown key 'least'"),
        ("epochs = 2", "augment = { share = 2.0 }", "stage 2: augment: share is 2.0, expected a share between 0 and 1"),
        ("depth = 8", "deep = 8", "stage 3: mine has an unknown key 'deep'"),
        ("depth = 8", "depth = 0", "stage 3: mine: depth is 0, expected a whole number of at least 1"),
        ("rank = 2", "rang = 2", "stage 3: lora has an unknown key 'rang'"),
        ("rank = 2", "merge = false", "a LoRA that is kept apart cannot be trained further"),
        ('loss = "cosent"', 'loss = "cosine"', "stage 1: loss is 'cosine', expected one of"),
        ('data = "sts.csv"', 'data = "gone.csv"', "stage 1: data names .*gone.csv, which does not exist"),
        ("score_range = [0, 5]", "score_range = 5", "stage 1: score_range is 5, expected two numbers"),
        ("epochs = 2", 'relevant_from = "2"', "stage 2: relevant_from is '2', expected a number"),
        ("epochs = 2", "split = 1", "stage 2: split is 1, expected a text"),
        ("epochs = 2", 'passages = "no.jsonl"', "stage 2: passages names .*no.jsonl, which does not exist"),
        ("epochs = 2", 'ignore = "label"', "stage 2: ignore is 'label', expected a list of names of fields"),
        ("rounds = 2", "rounds = 0", "stage 3: rounds is 0"),
        ("epochs = 2", "rounds = 2", "stage 2: rounds is 2, expected at least 1, and more only with mine"),
        ('name = "pairs"', 'name = "similarity"', "each with a name of its own"),
        ('name = "pairs"', 'name = "../pairs"', "expected letters, digits"),
        ('method = "lora"', 'method = "adapter"', "trains no encoder"),
        ('qrels = "qrels.tsv"', "", "heldout: qrels is None, expected a text"),
        ('passages = "passages.jsonl"', "", "held-out queries need passages to search"),
        ("[[stage]]", "[[stage", "cannot be read"),
        (
            'loss = "cosent"',
            'loss = "cosent"\nloss_options = { margin = 1 }',
            "stage 1: the loss 'cosent' takes no option",
        ),
    ],
)
def test_whatever_is_wrong_in_a_recipe_is_an_error_with_the_file_and_the_place(folder, before, after, message):
    text = (folder / "recipe.toml").read_text()
    assert before in text
    (folder / "wrong.toml").write_text(text.replace(before, after, 1))
    with pytest.raises(UsageError, match=message) as error:
        read_recipe(folder / "wrong.toml")
    assert "wrong.toml" in str(error.value)


def test_a_stage_says_how_its_file_is_to_be_understood(folder):
    judged = [("a cat", "the cat", 2), ("a cat", "the dog", 1), ("a dog", "the dog", 2), ("a dog", "the cat", 0)]
    rows(
        folder / "judged.jsonl",
        *({"query": q, "passage": p, "grade": g, "set_by": "x", "split": "a"} for q, p, g in judged),
        {"query": "a bird", "passage": "the bird", "grade": 2, "set_by": "x", "split": "b"},
    )
    told = 'data = "judged.jsonl"\nrelevant_from = 2\nsplit = "a"\nignore = ["set_by"]'
    text = (folder / "recipe.toml").read_text().replace('data = "pairs.jsonl"', told, 1)
    (folder / "judged.toml").write_text(text)
    plan = read_recipe(folder / "judged.toml").stages[1]
    assert (plan.relevant_from, plan.split, plan.ignore) == (2.0, "a", ("set_by",))
    data = stages._data(plan, None)
    assert [[p.text for p in e.positives] for e in data.examples] == [["the cat"], ["the dog"]]
    assert [[n.text for n in e.negatives] for e in data.examples] == [["the dog"], ["the cat"]]


def test_a_recipe_is_read_into_settings(folder):
    recipe = read_recipe(folder / "recipe.toml")
    similarity, pairs, hard = recipe.stages
    assert similarity.score_range == (0.0, 5.0) and similarity.settings.loss == "cosent"
    assert pairs.settings.epochs == 2 and pairs.settings.batch_size == 4 and pairs.mining is None
    assert (hard.rounds, hard.mining.negatives, hard.settings.method, hard.settings.lora.rank) == (2, 2, "lora", 2)
    assert recipe.base == "model" and recipe.dev is None
    assert stages.recipe_steps(recipe) == 2 + 4 + 2 * 2


def test_a_recipe_without_a_base_needs_one(folder, tmp_path):
    text = (folder / "recipe.toml").read_text().replace('base = "model"\n', "")
    (folder / "baseless.toml").write_text(text)
    with pytest.raises(UsageError, match="names no base"):
        run_recipe(folder / "baseless.toml", tmp_path / "tuned")


def test_a_stage_may_name_the_passages_of_its_own_ids(tmp_path):
    rows(tmp_path / "ids.jsonl", {"query": "who runs", "positives": ["d1"], "negatives": ["d2"]})
    rows(tmp_path / "texts.jsonl", {"id": "d1", "text": "dogs run"}, {"id": "d2", "text": "trees stand"})
    (tmp_path / "recipe.toml").write_text(
        '[[stage]]\nname = "ids"\ndata = "ids.jsonl"\npassages = "texts.jsonl"\nkind = "examples"\n'
    )
    (plan,) = read_recipe(tmp_path / "recipe.toml").stages
    assert plan.passages == tmp_path / "texts.jsonl"
    (example,) = stages._data(plan, {"d1": "other", "d2": "others"}).examples
    assert (example.positives[0].text, example.negatives[0].text) == ("dogs run", "trees stand")
