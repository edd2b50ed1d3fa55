"""Recipes and training files that somebody else wrote: what is odd in them is one error, before a model is opened."""

from __future__ import annotations

import json
import os

import pytest
import recipes
import rows
from models import save_model

from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.losses.catalogue import LossOptions
from llama_index_embed_plus.training.recipe import read_recipe
from llama_index_embed_plus.training.settings import AdapterSettings, LoraSettings, TrainSettings
from llama_index_embed_plus.training.stages import run_recipe
from qdrant_tools.errors import InputError, PlusError, UsageError

GONE = ("train", "--recipe", "gone.toml", "--out", "tuned")
PAIR = '{"query": "a question", "positive": "an answer"}\n'


@pytest.fixture
def place(tmp_path):
    """A folder with a recipe's data."""
    (tmp_path / "pairs.jsonl").write_text(PAIR)
    return tmp_path


def require_brief(error: Exception, file: object) -> None:
    assert str(file) in str(error) and len(str(error)) < 1000 and "\n" not in str(error)


def test_the_recipe_that_the_others_are_made_of_is_read(place):
    (place / "recipe.toml").write_text(recipes.GOOD)
    assert read_recipe(place / "recipe.toml").stages[0].name == "a"


@pytest.mark.parametrize("text", recipes.TEXTS.values(), ids=recipes.TEXTS)
def test_an_odd_recipe_is_one_error_with_the_file(place, text):
    file = place / "recipe.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as refusal:
        read_recipe(file)
    require_brief(refusal.value, file)


FILES = {
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "four gigabytes": rows.sparse(4 << 30),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "no text": rows.data(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_a_recipe_is_a_small_file(place, make):
    make(place / "recipe.toml")
    with pytest.raises(UsageError) as refusal:
        read_recipe(place / "recipe.toml")
    require_brief(refusal.value, place / "recipe.toml")


HUGE = 10**400
SETTINGS = {
    "epochs": lambda: TrainSettings(epochs=HUGE),
    "a rate": lambda: TrainSettings(learning_rate=HUGE),
    "a rate as text": lambda: TrainSettings(learning_rate="1"),
    "a decay": lambda: TrainSettings(weight_decay=HUGE),
    "a seed": lambda: TrainSettings(seed=HUGE),
    "steps": lambda: AdapterSettings(steps=(HUGE,)),
    "a temperature": lambda: AdapterSettings(temperature=HUGE),
    "a similarity": lambda: AdapterSettings(same_passage_similarity=float("nan")),
    "negatives": lambda: AdapterSettings(negatives=2**70),
    "a rank": lambda: LoraSettings(rank=2**70),
    "a dropout": lambda: LoraSettings(dropout=float("nan")),
    "a scale": lambda: LossOptions(scale=HUGE),
    "tokens": lambda: LossOptions(tokens_at_once=HUGE),
    "weights of dimensions": lambda: LossOptions(dims=(8,), dim_weights=(HUGE,)),
    "a flag": lambda: LossOptions(symmetric="yes"),
}


@pytest.mark.parametrize("make", SETTINGS.values(), ids=SETTINGS)
def test_settings_that_no_run_has_are_refused_when_they_are_made(make):
    with pytest.raises(UsageError) as refusal:
        make()
    assert len(str(refusal.value)) < 300


def line(**fields: object) -> str:
    return json.dumps(fields) + "\n"


GOOD_ROW = {"query": "q", "positives": [{"id": "p", "text": "a"}]}
ROWS = {
    "a weight beyond floats": '{"query": "q", "positive": "p", "weight": 1' + "0" * 400 + "}\n",
    "a weight without end": '{"query": "q", "positive": "p", "weight": Infinity}\n',
    "a weight that is no number": '{"query": "q", "positive": "p", "weight": NaN}\n',
    "a weight that is true": line(query="q", positive="p", weight=True),
    "a weight in other digits": line(query="q", positive="p", weight="\u0661"),
    "an id of 5,000 digits": '{"query": "q", "positives": [{"id": ' + "9" * 5000 + ', "text": "a"}]}\n',
    "an id that is a list": line(query="q", positives=[{"id": ["p"], "text": "a"}]),
    "positives that are a text": line(query="q", positives="p"),
    "positives that are numbers": line(query="q", positives=[1, 2]),
    "a million negatives": '{"query": "q", "positives": [], "negatives": [' + "{}," * 1_000_000 + "{}]}\n",
    "a text of 100 megabytes": '{"query": "q", "positive": "' + "x" * 100_000_000 + '"}\n',
    "a text of 2 megabytes": line(query="q", positive="x" * 2_000_000),
    "half a character in a text": line(query="q", positive="a\ud800b"),
    "half a character in an example": line(query="q\udfff", positives=[{"id": "p", "text": "a"}]),
    "half a character in an id": line(query="q", positives=[{"id": "p\ud800", "text": "a"}]),
    "a query that is an object": line(query={"a": 1}, positive="p"),
    "a label that is a list": line(text="a", label=[[1]]),
    "a label of inference that is an object": line(premise="a", hypothesis="b", label={"x": 1}),
    "a score beyond floats": '{"sentence1": "a", "sentence2": "b", "score": 1' + "0" * 400 + "}\n",
    "a margin that is no number": '{"query": "q", "positive": "p", "negative": "n", "margin": NaN}\n',
    "scores whose difference is none": line(
        query="q", positive="p", negative="n", positive_score=1e308, negative_score=-1e308
    ),
    "deep lists": "[" * 100_000 + "\n",
    "names by the thousand": line(**{f"field{i}": 1 for i in range(5000)}),
}


@pytest.mark.parametrize("text", ROWS.values(), ids=ROWS)
def test_an_odd_row_is_one_error_with_file_and_line(place, text):
    file = place / "examples.jsonl"
    first = "" if "positives" not in text else json.dumps(GOOD_ROW) + "\n"
    file.write_text(first + text)
    with pytest.raises(InputError) as refusal:
        read_training_data(file)
    require_brief(refusal.value, f"{file}:{2 if first else 1}")


WHOLE = {
    "deep lists": rows.text("[" * 100_000),
    "closed deep lists": rows.text("[" * 100 + "]" * 100),
    "an integer of 5,000 digits": rows.text("9" * 5000),
    "millions of values": rows.text("[" + "{}," * 2_000_000 + "{}]"),
    "four gigabytes": rows.sparse(4 << 30, b"["),
    "no list": rows.text('"a"'),
    "a row that is a number": rows.text("[7]"),
    "a data set without its fields": rows.text('{"queries": 1, "corpus": [], "relevant_docs": {}}'),
    "a data set with half a character": rows.text(
        '{"queries": {"q": "a\\ud800"}, "corpus": {"p": "b"}, "relevant_docs": {"q": ["p"]}}'
    ),
    "a data set with a long wrong id": rows.text(
        '{"queries": {"q": "a"}, "corpus": {"p": "b"}, "relevant_docs": {"' + "x" * 100_000 + '": ["p"]}}'
    ),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_an_odd_json_file_is_one_error(place, make):
    make(place / "examples.json")
    with pytest.raises(InputError) as refusal:
        read_training_data(place / "examples.json")
    require_brief(refusal.value, place / "examples.json")


@pytest.mark.parametrize("name", ["deep lists", "a million negatives", "half a character in a text"])
def test_the_command_refuses_odd_rows_before_it_opens_a_model(place, refused, name):
    (place / "examples.jsonl").write_text(ROWS[name])
    like = ("train", "--model", "model", "--examples", "gone.jsonl", "--out", "tuned")
    said = refused("train", "--model", "no/such model", "--examples", "examples.jsonl", "--out", "tuned", like=like)
    assert "examples.jsonl:1" in said
    assert not (place / "tuned").exists()


@pytest.mark.parametrize("name", ["a pipe", "four gigabytes"])
def test_the_command_refuses_a_recipe_that_is_none(place, refused, name):
    FILES[name](place / "recipe.toml")
    said = refused(
        "train", "--recipe", "recipe.toml", "--out", "tuned", like=("train", "--recipe", "gone.toml", "--out", "t")
    )
    assert "recipe.toml" in said


@pytest.mark.parametrize("name", ["deep lists", "keys of many parts", "a stage with an escape", "a batch of 10**18"])
def test_the_command_refuses_an_odd_recipe(place, refused, name):
    (place / "recipe.toml").write_text(recipes.TEXTS[name])
    assert "recipe.toml" in refused("train", "--recipe", "recipe.toml", "--out", "tuned", like=GONE)


@pytest.fixture
def recipe(place):
    """A recipe that runs, and the folder of its stages."""
    save_model(place / "model")
    words = ("cat", "dog", "bird", "tree")
    lines = [line(query=f"what is the {word}", positive=f"the {word} runs") for word in words]
    (place / "pairs.jsonl").write_text("".join(lines))
    text = recipes.GOOD.replace('"model"', json.dumps(str(place / "model"))) + "batch_size = 2\n"
    (place / "recipe.toml").write_text(text)
    return place / "recipe.toml", place / ".tuned-stages"


LINKS = {
    "the folder": lambda work, outside: work.symlink_to(outside.folder),
    "a stage": lambda work, outside: (made(work) / f"a-{'0' * 12}").symlink_to(outside.folder),
    "a file of a stage": lambda work, outside: (made(work) / f"a-{'0' * 12}.jsonl").symlink_to(outside.secret),
    "a mark of a stage": lambda work, outside: (made(work) / f"a-{'0' * 12}.done").symlink_to(outside.folder / "new"),
    "an index of a stage": lambda work, outside: (made(work) / f"a-{'0' * 12}.index").symlink_to(outside.folder),
    "metrics": lambda work, outside: (made(work) / "base.metrics.json").symlink_to(outside.secret),
    "the output": lambda work, outside: (work.parent / "tuned").symlink_to(outside.folder),
}


def made(work):
    work.mkdir()
    return work


@pytest.mark.parametrize("make", LINKS.values(), ids=LINKS)
def test_nothing_is_written_or_removed_through_a_link_of_received_stages(recipe, outside, make):
    file, work = recipe
    make(work, outside)
    with pytest.raises(PlusError, match="link"):
        run_recipe(file, file.parent / "tuned")


def test_stages_that_no_recipe_made_are_left_alone(recipe):
    file, work = recipe
    (made(work) / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"'thesis.txt', which no recipe made"):
        run_recipe(file, file.parent / "tuned")
    assert (work / "thesis.txt").read_text() == "mine"


def test_a_picture_beside_the_output_is_not_replaced_unless_a_model_is(recipe, refused):
    (recipe[0].parent / "tuned.png").write_text("a holiday")
    said = refused(
        "train", "--recipe", "recipe.toml", "--out", "tuned", like=("train", "--recipe", "gone.toml", "--out", "t")
    )
    assert "tuned.png exists already" in said
    assert (recipe[0].parent / "tuned.png").read_text() == "a holiday"
