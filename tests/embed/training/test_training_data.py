"""Files of training rows are read whole or refused with their line, and become the columns that a loss wants."""

from __future__ import annotations

import json

import pytest

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.models.spec import EncoderSpec
from llama_index_embed_plus.training.data.columns import ColumnSettings, column_prompt, datasets_for
from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.data.records import Distilled, LabelledText, ScoredPair, TrainingData
from llama_index_embed_plus.training.data.unsupervised import NoiseSettings
from llama_index_embed_plus.training.losses.catalogue import LOSSES
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.records import Example, ScoredText


def example(number, *, negatives=1, weight=1.0):
    return Example(
        f"query {number}",
        (ScoredText(f"p{number}", f"positive {number}"),),
        tuple(ScoredText(f"n{number}-{i}", f"negative {number}-{i}", 0.5) for i in range(negatives)),
        weight,
    )


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        file = tmp_path / name
        lines = content if isinstance(content, str) else "\n".join(map(json.dumps, content))
        file.write_text(lines, encoding="utf-8", newline="")
        return file

    return write


def test_mined_examples_come_back_as_they_were_written(write):
    mined = [example(1, weight=0.5), example(2, negatives=0)]
    data = read_training_data(write("mined.jsonl", [e.as_row() for e in mined]))
    assert (data.kind, data.examples) == ("examples", tuple(mined))
    assert data.passage_ids()["positive 1"] == "p1" and data.positives_by_query()["query 2"] == ["positive 2"]


@pytest.mark.parametrize("query", ["query", "anchor", "question"])
@pytest.mark.parametrize("positive", ["positive", "passage", "answer"])
def test_pairs_by_their_usual_names(write, query, positive):
    data = read_training_data(write("pairs.jsonl", [{query: "q", positive: "p"}, {query: "q2", positive: "p"}]))
    assert data.kind == "pairs"
    first, second = data.examples
    assert (first.query, first.positives[0].text, first.negatives, first.weight) == ("q", "p", (), 1.0)
    assert first.positives[0].id == second.positives[0].id  # equal texts are one passage


def test_triplets_with_one_negative_or_several_and_weights(write):
    rows = 'query,positive,negative_1,negative_2,weight\nq,p,n,m,2\n"with, comma",p,n,,0.5\n'
    data = read_training_data(write("triplets.csv", rows))
    assert data.kind == "triplets"
    assert [[n.text for n in e.negatives] for e in data.examples] == [["n", "m"], ["n"]]
    assert [(e.query, e.weight) for e in data.examples] == [("q", 2.0), ("with, comma", 0.5)]


def test_scored_pairs_are_brought_to_0_to_1_where_their_range_is_told(write):
    file = write("sts.tsv", 'sentence1\tsentence2\tscore\nA "plane"\tAn air plane\t5.0\nA man\tA dog\t1\n')
    assert read_training_data(file).rows == (
        ScoredPair('A "plane"', "An air plane", 5.0), ScoredPair("A man", "A dog", 1.0),
    )  # fmt: skip
    assert [row.score for row in read_training_data(file, score_range=(0, 5)).rows] == [1.0, 0.2]
    with pytest.raises(InputError, match=r"sts\.tsv:2: the score 5.0 is outside of 0 .. 4"):
        read_training_data(file, score_range=(0, 4))


@pytest.mark.parametrize("names", [("entailment", "neutral", "contradiction", "-"), (0, 1, 2, -1)])
def test_nli_gives_entailments_as_positives_and_contradictions_as_hard_negatives(write, names):
    entailed, neutral, contradicted, unlabelled = names
    rows = [
        ("a man plays", "a person plays", entailed), ("a man plays", "he sleeps", contradicted),
        ("a man plays", "he is old", neutral), ("a man plays", "a human plays", entailed),
        ("a man plays", "what", unlabelled), ("rain", "sun", contradicted),
    ]  # fmt: skip
    data = read_training_data(
        write("nli.jsonl", [{"premise": p, "hypothesis": h, "label": label} for p, h, label in rows])
    )
    (found,) = data.examples
    assert (data.kind, data.left_out) == ("nli", 3)
    assert [text.text for text in found.positives] == ["a person plays", "a human plays"]
    assert [text.text for text in found.negatives] == ["he sleeps"]
    tuples = datasets_for("multiple_negatives", data)["negatives_1"]
    assert tuples["positive"][:] == ["a person plays", "a human plays"] and tuples["negative_1"][:] == ["he sleeps"] * 2


def test_the_other_kinds_of_files(write):
    labelled = read_training_data(write("classes.csv", "text,label\nred,colour\ncat,animal\nblue,colour\n"))
    assert labelled.rows == (LabelledText("red", 0), LabelledText("cat", 1), LabelledText("blue", 0))
    assert read_training_data(write("raw.txt", "one line\n\n another \n")).rows == ("one line", "another")
    assert read_training_data(write("raw.jsonl", [{"text": "one"}, {"text": "two"}])).rows == ("one", "two")
    taught = [
        {"query": "q", "positive": "p", "negative": "n", "positive_score": 3.5, "negative_score": 1.0},
        {"query": "q", "positive": "p", "negative_1": "n", "negative_2": "m", "margin_1": 2, "margin_2": -1.5},
    ]
    data = read_training_data(write("taught.jsonl", taught))
    assert data.rows == (Distilled("q", "p", ("n",), (2.5,)), Distilled("q", "p", ("n", "m"), (2.0, -1.5)))
    listed = write("list.json", json.dumps([{"query": "q", "positive": "p"}]))
    assert read_training_data(listed).kind == "pairs"
    assert read_training_data(write("bom.csv", "\ufefftext\nhello\n")).rows == ("hello",)


def test_a_llamaindex_question_answer_data_set_is_read_as_examples(write):
    content = {"queries": {"q": "Tea?"}, "corpus": {"a": "Tea."}, "relevant_docs": {"q": ["a"]}, "mode": "text"}
    data = read_training_data(write("qa.json", json.dumps(content)))
    assert data.examples == (Example("Tea?", (ScoredText("a", "Tea."),)),)
    broken = write("broken.json", json.dumps(content | {"corpus": {}}))
    with pytest.raises(InputError, match=r"broken.json .*'q' is answered by 'a', which is not in the corpus"):
        read_training_data(broken)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"query": "q", "positive": "p"}\n{"query": "q"\n', "a.jsonl:2: not JSON"),
        ("a.jsonl", '{"query": "q", "positive": "p"}\n\n{"query": "q"}\n', ":3: has no field 'positive'"),
        ("a.jsonl", '{"query": "q", "positive": ""}\n', ":1: has the fields query, positive: no kind"),
        ("a.jsonl", '{"query": "q", "positive": "p"}\n{"query": 7, "positive": "p"}\n', ":2: the field 'query'"),
        ("a.jsonl", '{"query": "q", "positive": "p", "weight": 0}\n', ":1: the weight is 0.0, expected a"),
        ("a.jsonl", '{"query": "q", "positive": "p", "weight": "x"}\n', ":1: the field 'weight' is 'x'"),
        ("a.jsonl", '7\n["q", "p"]\n', r"a.jsonl:1: a int, expected an object"),
        ("a.jsonl", '{"query": "q", "positives": [{"id": "p", "text": " "}]}\n', ":1: the field 'text' is ' '"),
        ("a.jsonl", '{"query": "q", "positives": [{"id": 1, "text": "x"}]}\n', ":1: row field 'id' is 1"),
        ("a.jsonl", "", "a.jsonl holds no rows"),
        ("a.csv", "query,positive\nq,p\nq\n", "a.csv:3: 1 columns, the header has 2"),
        ("a.csv", "query,positive\nq,p,r\n", "a.csv:2: 3 columns, the header has 2"),
        ("a.csv", 'query,positive\nq,"p\n', "a.csv:2: not a row of the table: unexpected end of data"),
        ("a.csv", "this,that\n1,2\n", ":2: has the fields this, that: no kind of training row has these"),
        ("a.tsv", "sentence1\tsentence2\tscore\na\tb\tnan\n", ":2: the field 'score' is 'nan', expected a number"),
        ("a.tsv", "premise\thypothesis\tlabel\na\tb\tmaybe\n", ":2: the label is 'maybe', expected one"),
        ("a.json", "{}", "holds no list of rows and no EmbeddingQAFinetuneDataset"),
        ("a.json", '{"queries": {"q": "t"}, "corpus": {}, "relevant_docs": {"q": ["p"]}}', "not an EmbeddingQAFin"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_with_its_name_and_line(write, name, content, message):
    with pytest.raises(InputError, match=message) as raised:
        read_training_data(write(name, content))
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read_at_all(tmp_path):
    with pytest.raises(InputError, match="cannot read .*none.jsonl: No such file"):
        read_training_data(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match=r"ends in '\.feather', expected one of \.json, \.jsonl"):
        read_training_data(tmp_path / "rows.feather")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_training_data(tmp_path / "latin.txt")
    with pytest.raises(UsageError, match="kind is 'tuples', expected one of examples"):
        read_training_data(tmp_path / "latin.txt", kind="tuples")


PAIRS_AND_MORE = [
    [{"sentence1": "a b", "sentence2": "c d", "score": score} for score in (0.25, 1.0, 0.5)],
    [{"query": f"q {i}", "positive": f"p {i}", "negative_1": f"n {i}", "negative_2": None} for i in range(70)],
    [{"query": "what stings", "pos": ["a bee stings"], "neg": ["a cow eats", "a sea is wet"]}],
]


@pytest.mark.parametrize("rows", PAIRS_AND_MORE, ids=["scored", "wide", "lists"])
def test_parquet_says_what_the_same_rows_say_as_jsonl(write, tmp_path, rows):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pandas.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    assert read_training_data(tmp_path / "rows.parquet") == read_training_data(write("rows.jsonl", rows))


def test_passages_and_queries_of_ids_may_be_parquet_and_what_is_none_is_said_with_its_name(write, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table
    parquet.write_table(table({"id": ["p1", "p2"], "text": ["one", "two"]}), tmp_path / "passages.parquet")
    rows = write("ids.jsonl", [{"query": "which one", "positive_id": "p1", "negative_id": "p2"}])
    (example,) = read_training_data(rows, passages=tmp_path / "passages.parquet").examples
    assert (example.positives[0].text, example.negatives[0].text) == ("one", "two")
    with pytest.raises(InputError, match=r"broken.parquet is no Parquet file that can be read"):
        read_training_data(write("broken.parquet", "PAR1 and no more"))
    parquet.write_table(
        table({"query": ["what stings"], "positive": ["a bee"], "raw": [b"x"]}), tmp_path / "bytes.parquet"
    )
    assert read_training_data(tmp_path / "bytes.parquet").examples[0].query == "what stings"


def test_a_kind_may_be_told(write):
    file = write("pairs.jsonl", [{"sentence1": "a", "sentence2": "b", "label": 0}] * 2)
    assert read_training_data(file).rows[0] == ScoredPair("a", "b", 0.0)
    assert read_training_data(file, kind="nli").examples[0].positives[0].text == "b"


EXAMPLES = TrainingData.of([example(i, negatives=1 + i % 2) for i in range(4)])
PAIRS = TrainingData.of([ScoredPair("a", "b", 1.0), ScoredPair("c", "d", 0.0)])
GRADED = TrainingData.of([ScoredPair("a", "b", 4.5), ScoredPair("c", "d", 1.0)])
CLASSES = TrainingData.of([LabelledText(f"t{i}", i % 2) for i in range(8)])
TEXTS = TrainingData.of([f"text number {i}" for i in range(12)])
TAUGHT = TrainingData.of([Distilled("q", "p", ("n",), (0.5,)), Distilled("q", "p", ("n", "m"), (0.5, 1.0))])


def columns(loss, data, **settings):
    return {name: rows.column_names for name, rows in datasets_for(loss, data, ColumnSettings(**settings)).items()}


def test_each_loss_gets_its_columns():
    assert columns("multiple_negatives", EXAMPLES) == {
        "negatives_1": ["anchor", "positive", "negative_1"],
        "negatives_2": ["anchor", "positive", "negative_1", "negative_2"],
    }
    assert columns("multiple_negatives", EXAMPLES, negatives=0) == {"negatives_0": ["anchor", "positive"]}
    assert columns("triplet", EXAMPLES) == {"triplets": ["anchor", "positive", "negative"]}
    assert columns("contrastive", PAIRS) == {"scored_pairs": ["sentence_1", "sentence_2", "label"]}
    assert columns("contrastive", EXAMPLES) == {"labelled_pairs": ["anchor", "passage", "label"]}
    assert columns("cosent", GRADED) == {"scored_pairs": ["sentence_1", "sentence_2", "label"]}
    assert columns("margin_mse", TAUGHT)["negatives_2"] == ["anchor", "positive", "negative_1", "negative_2", "label"]
    assert columns("batch_hard_triplet", CLASSES) == {"texts": ["text", "label"]}
    assert columns("simcse", TEXTS) == {"texts": ["text", "other_view"]}
    assert columns("contrastive_tension", TEXTS) == {"texts": ["text_1", "text_2", "label"]}
    assert columns("contrastive_tension_in_batch", TEXTS) == {"texts": ["text"]}
    assert columns("tsdae", TEXTS) == {"texts": ["damaged", "text"]}


def test_weights_that_differ_are_the_label_of_the_losses_that_take_them():
    data = TrainingData.of([example(i, weight=0.5 + i) for i in range(3)])
    for loss, facts in LOSSES.items():
        if facts.weighted and loss != "ntxent":
            (dataset,) = datasets_for(loss, data).values()
            assert dataset["label"][:] == [0.5, 1.5, 2.5]
    assert datasets_for("ntxent", data, ColumnSettings(negatives=0))["negatives_0"]["label"][:] == [0.5, 1.5, 2.5]
    equal = TrainingData.of([example(i, weight=0.5) for i in range(3)])
    assert "label" not in datasets_for("multiple_negatives", equal)["negatives_1"].column_names


def test_a_teacher_scores_what_the_data_does_not():
    asked = []

    def teacher(pairs):
        asked.append(list(pairs))
        return [float(len(passage)) for _, passage in pairs]

    dataset = datasets_for("margin_mse", EXAMPLES, ColumnSettings(teacher=teacher))["negatives_2"]
    assert dataset["label"][0] == [-2.0, -2.0]  # "positive 1" has two letters less than "negative 1-0"
    assert [len(pairs) for pairs in asked] == [10]  # few large calls, not one per example
    assert asked[0][2:5] == [("query 1", text) for text in ("positive 1", "negative 1-0", "negative 1-1")]
    with pytest.raises(TrainingError, match="gave 1 scores for 10 pairs"):
        datasets_for("margin_mse", EXAMPLES, ColumnSettings(teacher=lambda pairs: [1.0]))


MIXED = TrainingData.of([example(1), example(2, negatives=0)])
WEIGHTED = TrainingData.of([example(1), example(2, weight=2.0)])


@pytest.mark.parametrize(
    ("loss", "data", "message"),
    [
        ("multiple_negatives", PAIRS, "wants examples, pairs, triplets or nli, the data is scored pairs"),
        ("cosine_similarity", EXAMPLES, "wants scored pairs or judged pairs, the data is examples"),
        ("cosine_similarity", GRADED, "from -1 to 1, these are from 1.0 to 4.5: read them with a score_range"),
        ("contrastive", GRADED, "wants labels 0 or 1, the scores are others: use cosent"),
        ("triplet", MIXED, "1 of 2 examples have no negatives, and the loss 'triplet' needs them"),
        ("contrastive", MIXED, "1 of 2 examples have no negatives"),
        ("margin_mse", EXAMPLES, "learns a teacher's scores, and these examples have none"),
        ("margin_mse", WEIGHTED, "takes no weights, and these examples have some: use data.unweighted"),
        ("contrastive", WEIGHTED, "takes no weights"),
        ("ntxent", EXAMPLES, "'ntxent' takes at most 0 negatives per row: set negatives, or use multiple_negatives"),
        ("guided", EXAMPLES, "'guided' takes at most 1 negatives per row: set negatives, or use cached_guided"),
        ("batch_hard_triplet", TEXTS, "wants labelled texts, the data is texts"),
        ("tsdae", EXAMPLES, "wants texts, the data is examples"),
        ("mnrl", EXAMPLES, "loss is 'mnrl', expected one of"),
    ],
)  # fmt: skip
def test_data_that_a_loss_cannot_use_is_refused_with_what_it_wants(loss, data, message):
    with pytest.raises(UsageError, match=message):
        datasets_for(loss, data)


@pytest.mark.parametrize(("loss", "data"), [("triplet", MIXED), ("contrastive", WEIGHTED)])
def test_the_command_line_is_told_commands_and_no_python(loss, data):
    with pytest.raises(UsageError) as refused:
        datasets_for(loss, data)
    told = refused.value.on_command_line or ""
    assert "embed-plus train COLLECTION --examples EXAMPLES.jsonl" in told and "()" not in told
    assert datasets_for("multiple_negatives", data)


def test_the_ways_out_that_the_errors_name_lead_out():
    assert len(datasets_for("triplet", MIXED.with_negatives())["triplets"]) == 1
    assert MIXED.with_negatives().left_out == 1
    assert len(datasets_for("contrastive", WEIGHTED.unweighted())["labelled_pairs"]) == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there are no rows"),
        ([Example("q", ())], "none of the 1 examples has a positive"),
        ([example(1, negatives=0)], "no two of the 1 rows may share a batch"),
        ([Example("q", (ScoredText(f"p{i}", f"text {i}"),)) for i in range(5)], "no two of the 5 rows may share a"),
        ([Example(f"q{i}", (ScoredText("p", "text"),)) for i in range(5)], "no two of the 5 rows may share a batch"),
    ],
)  # fmt: skip
def test_nothing_to_tell_apart_is_an_error_before_training(rows, message):
    with pytest.raises(TrainingError, match=message):
        datasets_for("cached_multiple_negatives", TrainingData.of(rows))


def test_one_example_with_a_negative_is_enough():
    assert len(datasets_for("cached_multiple_negatives", TrainingData.of([example(1)]))["negatives_1"]) == 1


def test_rows_of_several_kinds_do_not_mix():
    with pytest.raises(UsageError, match="rows are of several kinds: examples, texts"):
        TrainingData.of([example(1), "text"])
    with pytest.raises(UsageError, match="the data is texts, expected queries with positives"):
        _ = TEXTS.examples


def test_columns_get_the_prompt_that_inference_puts_before_such_texts():
    compared = {"similarity": "same: ", "classification": "kind: "}
    spec = EncoderSpec("a", "bert", 8, 8, query_prompt="ask: ", passage_prompt="read: ", compared=compared)

    ranking = {name: column_prompt("multiple_negatives", name, spec) for name in ("anchor", "positive", "negative_12")}
    assert ranking == {"anchor": "ask: ", "positive": "read: ", "negative_12": "read: "}
    assert {column_prompt("cosent", name, spec) for name in ("sentence_1", "sentence_2")} == {"same: "}
    assert {column_prompt("contrastive", name, spec) for name in ("sentence_1", "sentence_2")} == {"read: "}
    assert column_prompt("batch_hard_triplet", "text", spec) == "kind: "
    raw = [column_prompt("tsdae", name, spec) for name in ("text", "other_view", "text_1", "text_2", "damaged")]
    assert set(raw) == {"read: "}


def test_contrastive_tension_pairs_each_text_once_and_one_pair_in_eight_with_itself():
    texts = [f"text {i}" for i in range(100)]
    dataset = datasets_for("contrastive_tension", TrainingData.of(texts))["texts"]
    rows = list(zip(dataset["text_1"][:], dataset["text_2"][:], dataset["label"][:], strict=True))
    assert all((first == second) == bool(label) for first, second, label in rows)
    assert [label for *_, label in rows][:9] == [1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert {text for first, second, _ in rows for text in (first, second)} == set(texts)
    with pytest.raises(TrainingError, match="needs at least 3"):
        datasets_for("contrastive_tension", TrainingData.of(["a", "b"]))


def test_tsdae_rebuilds_each_text_from_several_damages():
    settings = ColumnSettings(noise=NoiseSettings(copies=3, seed=1))
    texts = [" ".join(f"word{i}" for i in range(20))] * 2
    rows = datasets_for("tsdae", TrainingData.of(texts), settings)["texts"]
    assert len(rows) == 6 and rows["text"][:] == texts * 3
    assert len(set(rows["damaged"][:])) == 3 and all(0 < len(text.split()) < 20 for text in rows["damaged"][:])
