"""A collection -> synthetic examples: filtered, mined, marked; and the command."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from tiny import WordEncoder

from llama_index_embed_plus.training import SynthesisSettings, read_training_data, synthesize, write_synthesis
from qdrant_tools import CollectionManager, MiningSettings, Passage, connect
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.mining import read_examples

TOPICS = [
    *("bees honey hive flower nectar wax", "cats mice night sleep whisker purr", "whales ocean mammal sing deep blue"),
    *("rivers water delta bank flood silt", "stars light night dust giant dwarf", "bread flour yeast oven crust dough"),
    *("trains rail station ticket timetable coach", "clocks hand hour minute spring wheel"),
]


def sections(topics=TOPICS):
    """One document per topic, with two passages of one heading each."""
    for number, topic in enumerate(topics):
        words = topic.split()
        for part in (0, 1):
            noun = words[part + 1]
            text = (
                f"{words[0].title()} and their {noun}\n\n{words[0].title()} are known for {noun} and {words[part + 3]} "
                f"everywhere. Much about {words[0]} and {noun} was written in book {number} on {words[part + 2]} too."
            )
            place = {"document": f"docs/{number}.md", "file_path": f"{number}.md", "source": "docs", "part": part}
            yield Passage(
                f"docs/{number}.md#{part}",
                text,
                place | {"header_path": f"Nature > {words[0].title()} and their {noun}"},
            )


@pytest.fixture
def collection(tmp_path):
    with closing(connect(tmp_path / "data", create=True)) as client:
        opened = CollectionManager(client).ensure("nature", WordEncoder())
        opened.index(sections())
        yield opened


def test_examples_are_synthetic_have_negatives_of_other_documents_and_can_be_read_for_training(collection, tmp_path):
    result = synthesize(collection)
    assert {made.rule for made in result.made} == {"headings", "first-sentences"}
    assert result.report.kept["headings"] >= 10 and result.report.documents == len(TOPICS)
    for example, made in zip(result.examples, result.made, strict=True):
        assert example.synthetic and example.query == made.query
        assert [positive.id for positive in example.positives] == [made.passage_id]
        assert made.rank is not None and 1 <= made.rank <= 20
        assert not {negative.id.partition("#")[0] for negative in example.negatives} & {made.document}
    assert sum(len(example.negatives) for example in result.examples) == result.report.negatives > 0
    written = write_synthesis(result, tmp_path / "examples.jsonl")
    assert list(read_examples(written[0]))[0].synthetic
    assert len(read_training_data(written[0]).examples) == len(result.examples)
    origins = [json.loads(line) for line in written[1].read_text().splitlines()]
    assert [row["query"] for row in origins] == [example.query for example in result.examples]
    assert json.loads(written[2].read_text())["kept"] == dict(result.report.kept)
    with pytest.raises(UsageError, match="exists already"):
        write_synthesis(result, tmp_path / "examples.jsonl")


def test_the_same_collection_and_seed_give_the_same_examples_and_another_seed_draws_others(collection):
    first = synthesize(collection, settings=SynthesisSettings(limit=5))
    assert first == synthesize(collection, settings=SynthesisSettings(limit=5))
    drawn = [synthesize(collection, settings=SynthesisSettings(limit=5, seed=seed)) for seed in (1, 2, 3)]
    assert any({e.query for e in other.examples} != {e.query for e in first.examples} for other in drawn)


def test_a_limit_spreads_over_the_documents(collection):
    result = synthesize(collection, settings=SynthesisSettings(limit=len(TOPICS)))
    assert len(result.examples) == len({made.document for made in result.made}) == len(TOPICS)
    one_each = synthesize(collection, settings=SynthesisSettings(per_document=1))
    assert len(one_each.examples) == len(TOPICS) and one_each.report.dropped["enough of its document"] > 0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_words_of_a_query_are_taken_out_of_its_passage_unless_they_are_to_stay(collection, share):
    result = synthesize(collection, settings=SynthesisSettings(keep_quoted=share))
    stored = collection.fetch([made.passage_id for made in result.made])
    for example, made in zip(result.examples, result.made, strict=True):
        text = example.positives[0].text
        assert bool(made.positive) is (share == 0.0) is (text != stored[made.passage_id].text)
        if made.rule == "first-sentences":
            assert (made.query in text) is (share == 1.0)


def test_without_mining_there_are_no_negatives(collection):
    result = synthesize(collection, settings=SynthesisSettings(mining=None))
    assert result.examples and not any(example.negatives for example in result.examples)


def test_a_query_that_the_search_does_not_bring_to_its_passage_is_dropped(tmp_path):
    with closing(connect(tmp_path / "data", create=True)) as client:
        opened = CollectionManager(client).ensure("odd", WordEncoder())
        odd = Passage(
            "odd", "apple pear plum grape melon lemon fig nut", {"title": "Purring cats sleep mostly at night"}
        )
        opened.index([*sections(), Passage("odd2", "apple pear plum grape melon lemon fig date"), odd])
        kept = synthesize(opened, settings=SynthesisSettings(rules=("titles",), within=None))
        assert "odd" in {made.passage_id for made in kept.made} and kept.made[0].rank is None
        found = synthesize(opened, settings=SynthesisSettings(within=2))
        assert "odd" not in {made.passage_id for made in found.made}
        assert found.report.dropped["not found by search"] >= 1


def test_one_query_of_several_documents_asks_for_none(tmp_path):
    with closing(connect(tmp_path / "data", create=True)) as client:
        opened = CollectionManager(client).ensure("same", WordEncoder())
        twice = [
            Passage(name, f"{name} one two three four five six seven eight nine", {"title": "Of bees and honey"})
            for name in ("a", "b")
        ]
        opened.index([*sections(), *twice])
        result = synthesize(opened)
        assert not {"a", "b"} & {made.passage_id for made in result.made}
        assert result.report.dropped["several documents"] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"rules": ("clicks",)},
        {"limit": 0},
        {"per_document": -1},
        {"min_words": 9, "max_words": 3},
        {"keep_quoted": 2},
        {"within": 0},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises((UsageError, InputError), match="|".join(wrong).replace("rules", "rule")):
        SynthesisSettings(**wrong)


def test_a_collection_of_which_nothing_can_be_asked_says_so(tmp_path):
    with closing(connect(tmp_path / "data", create=True)) as client:
        empty = CollectionManager(client).ensure("empty", WordEncoder())
        with pytest.raises(InputError, match="holds no text"):
            synthesize(empty)
        empty.index([Passage("a", "one two"), Passage("b", "three")])
        with pytest.raises(InputError, match="no query could be made of the 2 passages"):
            synthesize(empty)
        journal = tmp_path / "asked.jsonl"
        with pytest.raises(InputError, match=r"give another prompt, or rules too; .*asked.jsonl: remove that file"):
            synthesize(empty, settings=SynthesisSettings(rules=()), llm=lambda prompt: [], journal=journal)


def test_mining_settings_are_the_miners_own(collection):
    settings = SynthesisSettings(mining=MiningSettings(negatives=1, document_key="source"))
    result = synthesize(collection, settings=settings)
    assert all(not example.negatives for example in result.examples), "every passage is of one source"


def test_the_command_makes_examples_of_a_folder(run, tmp_path):
    folder = tmp_path / "handbook"
    folder.mkdir()
    for topic in ("Holidays", "Travel expenses", "Working from home"):
        text = f"{topic} are agreed upon with the head of the department in writing, two weeks before they begin."
        (folder / f"{topic.split()[0].lower()}.md").write_text(
            f"# {topic} of the staff\n\n{text} Ask the office for a form.\n"
        )
    assert run("index", "handbook", folder)[0] == 0
    code, out, _ = run(
        "synthesize", "handbook", "--out", "examples.jsonl", "--show", "2", "--rules", "headings,titles,first-sentences"
    )
    assert code == 0 and "examples with" in out and "wrote examples.jsonl" in out
    examples = list(read_examples(tmp_path / "examples.jsonl"))
    assert {example.synthetic for example in examples} == {True}
    code, _, err = run("synthesize", "handbook", "--out", "examples.jsonl")
    assert code == 2 and "exists already" in err
    code, _, err = run("synthesize", "handbook", "--out", "other.jsonl", "--rules", "clicks")
    assert code == 2 and "expected some of faq, titles" in err
