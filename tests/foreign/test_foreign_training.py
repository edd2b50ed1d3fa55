"""Training rows as strangers write them: each file of `training/` gives its rows, or one refusal that says why."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.data.columns import datasets_for
from llama_index_embed_plus.training.data.fields import spelled
from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.data.records import (
    Distilled,
    JudgedPair,
    LabelledText,
    ScoredPair,
    TrainingData,
    passage_of,
)
from qdrant_tools.errors import InputError, PlusError, UsageError
from qdrant_tools.records import Example

FOLDER = Path(__file__).parent / "training"

Q, R = "who makes honey", "what barks"
BEES, DOGS, CATS, WASPS = (
    "Bees make honey.",
    "Dogs bark at night.",
    "Cats sleep all day.",
    "Wasps build nests of paper.",
)


def row(query: str, positives: list[str], negatives: tuple[str, ...] = (), weight: float = 1.0) -> Any:
    return (query, positives, list(negatives), weight)


def pair(query: str, passage: str, score: float) -> JudgedPair:
    return JudgedPair(query, passage_of(passage), score)


RIGHT = [row(Q, [BEES], (CATS,))]
TWO = [row(Q, [BEES]), row(R, [DOGS])]

READ: list[tuple[str, dict[str, Any], str, list[Any], int, tuple[str, ...]]] = [
    # file, what the caller says, kind, rows, left out, ignored
    ("judged_0_1.jsonl", {}, "judged pairs", RIGHT, 1, ()),
    ("judged_bool.jsonl", {}, "judged pairs", RIGHT, 0, ()),
    ("judged_postgres.csv", {}, "judged pairs", RIGHT, 1, ()),
    ("judged_excel.csv", {}, "judged pairs", RIGHT, 0, ()),
    ("judged_mysql.tsv", {}, "judged pairs", RIGHT, 1, ()),
    ("judged_minus_one.csv", {}, "judged pairs", RIGHT, 0, ()),
    ("judged_words.csv", {}, "judged pairs", RIGHT, 0, ()),
    ("judged_answers.jsonl", {}, "judged pairs", RIGHT, 0, ("document_title",)),
    ("judged_repeated.jsonl", {}, "judged pairs", RIGHT, 1, ()),
    ("judged_with_ids.jsonl", {}, "judged pairs", RIGHT, 0, ("qid",)),
    ("judged_twice.jsonl", {"ignore": ["score"]}, "judged pairs", [row(Q, [BEES])], 0, ()),
    ("judged_weighted.csv", {"ignore": ["Weight"]}, "judged pairs", [row(Q, [BEES])], 0, ()),
    ("labels_pos_neg.jsonl", {}, "judged pairs", RIGHT, 0, ()),
    ("labels_of_one.jsonl", {}, "judged pairs", RIGHT, 0, ()),
    ("unknown_always_yes.jsonl", {}, "pairs", TWO, 0, ("public",)),
    ("label_inside_metadata.jsonl", {"ignore": ["metadata"]}, "pairs", [row(Q, [BEES])], 0, ()),
    ("triplets_that_contradict.jsonl", {}, "triplets", [row(Q, [BEES]), row("Who makes honey?", [WASPS], (CATS,))], 0,
     ()),
    ("nli_contradiction.jsonl", {}, "nli", RIGHT, 0, ()),
    ("negatives_from_row_2.jsonl", {}, "triplets", [row(R, [DOGS]), *RIGHT], 0, ()),
    ("negatives_list_empty_first.jsonl", {}, "examples", [row(R, [DOGS]), *RIGHT], 0, ()),
    ("clicked_false.jsonl", {}, "judged pairs", RIGHT, 0, ()),
    ("judged_graded_late.jsonl", {}, "judged pairs", [pair(Q, WASPS, 1), pair(Q, CATS, 0), pair(Q, BEES, 2)], 0, ()),
    ("judged_graded_late.jsonl", {"relevant_from": 2}, "judged pairs", [row(Q, [BEES], (WASPS, CATS))], 0, ()),
    ("judged_graded_late.jsonl", {"relevant_from": 1}, "judged pairs", [row(Q, [WASPS, BEES], (CATS,))], 0, ()),
    ("semicolons.csv", {}, "judged pairs", [row(Q, [BEES])], 0, ()),
    ("judged_decimal_comma.csv", {}, "judged pairs", [pair(Q, BEES, 0.9)], 0, ()),
    ("judged_stars.csv", {"relevant_from": 4}, "judged pairs", [row(Q, [BEES], (CATS,)), row(R, [DOGS])], 0, ()),
    ("judged_percent.csv", {"score_range": (0, 100)}, "judged pairs", [pair(Q, BEES, 0.965), pair(Q, CATS, 0.03)], 0,
     ()),
    ("judged_percent.csv", {"relevant_from": 50}, "judged pairs", RIGHT, 0, ()),
    ("judged_letters.csv", {"kind": "pairs", "ignore": ["esci_label"]}, "pairs", [row(Q, ["honey jar"])], 0, ()),
    ("pairs_with_source.jsonl", {}, "pairs", TWO, 0, ("lang", "source", "url")),
    ("pairs_with_instruction.jsonl", {"ignore": ["instruction"]}, "pairs", [row(Q, [BEES])], 0, ()),
    ("pairs_sample_weight.csv", {}, "pairs", [row(Q, [BEES], (), 0.5), row(R, [DOGS], (), 2.0)], 0, ()),
    ("pairs_split.csv", {"split": "train"}, "pairs", [row(Q, [BEES])], 1, ()),
    ("pairs_split.csv", {"ignore": ["split"]}, "pairs", TWO, 0, ()),
    ("pairs_split_train.csv", {}, "pairs", TWO, 0, ()),
    ("pairs_split_test.csv", {"split": "test"}, "pairs", [row(Q, [BEES])], 0, ()),
    ("pairs_fold.csv", {"split": "1"}, "pairs", [row(R, [DOGS])], 1, ()),
    ("pairs_answer_beside_passage.csv", {}, "examples", [row(Q, [BEES])], 0, ("answer",)),
    ("pairs_null.jsonl", {"ignore": ["label"]}, "pairs", TWO, 0, ()),
    ("pairs_two_passages.csv", {"ignore": ["passage"]}, "pairs", [row(Q, [BEES])], 0, ()),
    ("query_and_text.csv", {}, "pairs", [row(Q, [BEES])], 0, ()),
    ("no_names.csv", {"kind": "pairs"}, "pairs", [row("Honey", [BEES])], 0, ()),
    ("negatives_from_0.jsonl", {}, "triplets", [row(Q, [BEES], (CATS, WASPS))], 0, ()),
    ("negatives_from_2.jsonl", {}, "triplets", RIGHT, 0, ()),
    ("negatives_with_a_gap.jsonl", {}, "triplets", [row(Q, [BEES], (CATS, WASPS))], 0, ()),
    ("negatives_some_empty.csv", {}, "triplets", [row(Q, [BEES], (CATS, WASPS)), row(R, [DOGS], (CATS,))], 0, ()),
    ("negatives_null.tsv", {}, "triplets", RIGHT, 0, ()),
    ("allnli_columns.csv", {"kind": "triplets"}, "triplets", RIGHT, 0, ()),
    ("teacher_scores.jsonl", {}, "distillation", [Distilled(Q, BEES, (CATS, WASPS), (8.5, 11.5))], 0, ()),
    ("mined_triplet.json", {}, "triplets", [*RIGHT, row(R, [DOGS], (CATS,))], 0, ()),
    ("mined_triplet_scores.json", {}, "distillation",
     [Distilled(Q, BEES, (CATS,), (0.5,)), Distilled(R, DOGS, (CATS,), (0.25,))], 0, ()),
    ("mined_triplet_scores.json", {"kind": "triplets"}, "triplets", [*RIGHT, row(R, [DOGS], (CATS,))], 0, ("scores",)),
    ("mined_triplet_scores.csv", {}, "distillation", [Distilled(Q, BEES, (CATS,), (0.5,))], 0, ()),
    ("mined_tuple.jsonl", {}, "triplets", [row(Q, [BEES], (CATS, WASPS))], 0, ()),
    ("mined_tuple_scores.csv", {}, "distillation", [Distilled(Q, BEES, (CATS, WASPS), (0.5, 0.625))], 0, ()),
    ("mined_labeled_pair.csv", {}, "judged pairs", [*RIGHT, row(R, [DOGS])], 0, ()),
    ("mined_labeled_pair_scores.jsonl", {}, "judged pairs", [pair(Q, BEES, 0.75), pair(Q, CATS, 0.25)], 0, ()),
    ("mined_labeled_pair_scores.jsonl", {"relevant_from": 0.5}, "judged pairs", RIGHT, 0, ()),
    ("mined_labeled_list.jsonl", {}, "judged pairs", [*RIGHT, row(R, [DOGS], (CATS,))], 0, ()),
    ("mined_labeled_list_scores.jsonl", {}, "judged pairs", [pair(Q, BEES, 0.75), pair(Q, CATS, 0.25)], 0, ()),
    ("quora_columns.csv", {}, "scored pairs", [ScoredPair("How old is it?", "What is its age?", 1.0),
     ScoredPair("How old is it?", "Where is it?", 0.0)], 0, ("id",)),
    ("sts_names.tsv", {}, "scored pairs", [ScoredPair("A man runs.", "A person runs.", 4.2),
     ScoredPair("A man runs.", "A cat sleeps.", 0.4)], 0, ()),
    ("sick.tsv", {"ignore": ["entailment_judgment"]}, "scored pairs",
     [ScoredPair("A man runs.", "A person runs.", 4.5)], 0, ("pair_ID",)),
    ("snli.jsonl", {}, "nli", [row("A man runs.", ["A person runs."], ("A man sleeps.",))], 1,
     ("annotator_labels", "captionID", "pairID")),
    ("mnli.tsv", {}, "nli", [row("A man runs.", ["He moves."])], 0, ("genre", "index", "label1", "pairID", "promptID")),
    ("nli_two_labels.csv", {"kind": "nli"}, "nli", [row("A man runs.", ["He moves."])], 1, ()),
    ("sentences_unscored.csv", {"kind": "pairs"}, "pairs", [row("A man runs.", ["A person runs."])], 0, ()),
    ("classes_and_names.csv", {}, "labelled texts", [LabelledText("lost card", 0), LabelledText("new card", 1)], 0,
     ("label_text",)),
]  # fmt: skip

_NOT_READ = "the field '{}' says what the row means"
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("ids_by_name.jsonl", {}, ":1: .* 'doc_id' holds ids, which are no texts: call it 'positive_id'"),
    ("ids_by_name.jsonl", {"kind": "pairs"}, ":1: .* 'doc_id' holds ids, which are no texts: call it 'positive_id'"),
    ("judged_only_wrong.jsonl", {}, r"no query has a passage whose `label` is 1 or more, the highest is 0"),
    ("judged_graded_late.jsonl", {"relevant_from": 0}, "a row judged 0 would be a positive; say a number above 0"),
    ("judged_graded_late.jsonl", {"relevant_from": 3}, "whose `label` is 3 or more, the highest is 2"),
    ("judged_graded_late.jsonl", {"kind": "pairs"}, ":1: " + _NOT_READ.format("label")),
    ("judged_0_1.jsonl", {"kind": "pairs"}, ":1: " + _NOT_READ.format("label")),
    ("judged_0_1.jsonl", {"split": "train"}, "split is 'train', and .* has no column of splits"),
    ("judged_0_1.jsonl", {"ignore": ["lable"]}, "ignore names 'lable', and no row of .* has that field"),
    ("judged_percent.csv", {"score_range": (0, 5)}, ":2: the score 96.5 is outside of 0 .. 5"),
    ("judged_contradiction.jsonl", {}, ":2: the query 'Who makes honey.'.* judged 0 here and 1 in line 1: keep one"),
    ("judged_one_id_two_texts.jsonl", {}, ":2: the passage id 'p1' has another text in line 1"),
    ("judged_twice.jsonl", {}, ":1: has `label`, `score`, and either may be what judges"),
    ("judged_maybe.csv", {}, ":3: the field 'label' is 'maybe', expected a number: a grade, a score, or yes or no"),
    ("judged_letters.csv", {}, "esci_label: no kind of training row has these; pairs have query, positive"),
    ("judged_letters.csv", {"kind": "judged pairs"}, ":2: the field 'esci_label' is 'E', expected a number"),
    ("judged_by_rank.csv", {}, _NOT_READ.format("rank")),
    ("judged_by_distance.csv", {}, _NOT_READ.format("distance")),
    ("judged_weighted.csv", {}, _NOT_READ.format("weight")),
    ("judged_answer_and_context.jsonl", {}, "correct"),
    ("qnli.jsonl", {}, "has the fields question, sentence, label, idx: no kind of training row has these"),
    ("label_in_a_later_row.jsonl", {}, ":2: " + _NOT_READ.format("label")),
    ("label_inside_metadata.jsonl", {}, ":1: the field 'metadata' is {.*'relevance': 0}, and nothing here reads it"),
    ("label_in_french.jsonl", {}, ":1: the field 'étiquette' is 0, and nothing here reads it"),
    ("unknown_yes_and_no.jsonl", {}, "the field 'oracle' says yes in 2 rows and no in 2: call it `label` if"),
    ("negatives_from_row_2.jsonl", {"kind": "pairs"}, ":2: " + _NOT_READ.format("negative")),
    ("negatives_from_row_2.jsonl", {"kind": "triplets"}, ":1: has "),
    ("type_of_a_row.jsonl", {}, ":1: the field 'type' is 'hard negative', and nothing here reads it"),
    ("hard_negative_flag.jsonl", {}, _NOT_READ.format("isHardNegative")),
    ("thumbs.jsonl", {}, "the field 'thumbs' is 'down', and nothing here reads it"),
    ("pairs_with_instruction.jsonl", {}, _NOT_READ.format("instruction")),
    ("pairs_importance.jsonl", {}, _NOT_READ.format("importance")),
    ("pairs_split.csv", {}, "split says that rows belong to train, test: say which to train on, split='train'"),
    ("pairs_split.csv", {"split": "dev"}, "split is 'dev', and .* has the splits train, test"),
    ("pairs_split_test.csv", {}, "split says that rows belong to test: say which to train on"),
    ("pairs_fold.csv", {}, "fold says that rows belong to 0, 1"),
    ("pairs_two_passages.csv", {}, "has `positive`, `passage`, and either may be the positive"),
    ("pairs_null.jsonl", {}, r"none of the 2 rows is judged: `label` is empty; .*\(--ignore\)"),
    ("pairs_na.csv", {}, ":2: the field 'positive' is 'NaN', expected a text"),
    ("pairs_with_source.jsonl", {"relevant_from": 1}, "relevant_from is for judged pairs .*: .* has pairs"),
    ("pairs_with_source.jsonl", {"score_range": (0, 1)}, "score_range is for scored pairs: .* has pairs"),
    ("no_names.csv", {}, "has the fields title, abstract: no kind of training row has these; expected query and pass"),
    ("no_names.csv", {"kind": "triplets"}, "has the fields title, abstract, expected at least 3 texts for triplets"),
    ("text_and_score.csv", {}, _NOT_READ.format("score")),
    ("negative_is_positive.jsonl", {}, "has 'Bees make honey.' as a positive and as a negative"),
    ("negative_ids_only.jsonl", {}, _NOT_READ.format("negative_id")),
    ("allnli_columns.csv", {}, "rename the fields, or say the kind, and they are taken in their order"),
    ("triplet_label.jsonl", {}, "'label' is 1 beside a negative.* a single margin is called `margin`"),
    ("teacher_half.jsonl", {}, "has 2 negatives and 1 scores of them, expected one for each"),
    ("mined_labeled_list.csv", {}, r"the field 'labels' is '\[1 0\]', expected a number"),
    ("sick.tsv", {}, _NOT_READ.format("entailment_judgment")),
    ("nli_two_labels.csv", {}, "the labels are 0, 1, and none is 2: which one says entailment cannot be told"),
    ("sentences_unscored.csv", {}, "has no field 'score' or 'label', only sentence1, sentence2"),
]


def plain(data: TrainingData) -> list[Any]:
    """The rows without the ids of passages, where these are only hashes."""
    return [
        row(r.query, [p.text for p in r.positives], tuple(n.text for n in r.negatives), r.weight)
        if isinstance(r, Example)
        else r
        for r in data.rows
    ]


@pytest.mark.parametrize(("name", "told", "kind", "rows", "left_out", "ignored"), READ)
def test_a_file_is_read_as_its_author_meant_it(name, told, kind, rows, left_out, ignored, caplog):
    with caplog.at_level(logging.WARNING):
        data = read_training_data(FOLDER / name, **told)
    assert (data.kind, plain(data), data.left_out, tuple(sorted(data.ignored))) == (kind, rows, left_out, ignored)
    assert all(f"`{field}`" in caplog.text for field in ignored)


@pytest.mark.parametrize(("name", "told", "message"), REFUSED)
def test_a_file_that_could_be_misread_is_refused(name, told, message):
    with pytest.raises((InputError, UsageError), match=message) as refusal:
        read_training_data(FOLDER / name, **told)
    said = str(refusal.value)
    assert name in said and "\n" not in said and len(said) < 500


def test_every_file_of_the_folder_is_in_the_table():
    assert {name for name, *_ in READ} | {name for name, *_ in REFUSED} == {path.name for path in FOLDER.iterdir()}


def test_what_is_a_positive_in_one_row_is_no_negative_in_another(caplog):
    with caplog.at_level(logging.WARNING):
        read_training_data(FOLDER / "triplets_that_contradict.jsonl")
    assert "1 negatives say what a positive of the same query says, and were left out" in caplog.text


def test_a_passage_keeps_the_id_that_it_came_with():
    (example,) = read_training_data(FOLDER / "judged_with_ids.jsonl").examples
    assert ([p.id for p in example.positives], [n.id for n in example.negatives]) == (["p1"], ["p2"])


def test_grades_without_a_threshold_are_no_positives_anywhere():
    graded = read_training_data(FOLDER / "judged_graded_late.jsonl")
    expected = r"`label` of judged_graded_late.jsonl goes from 0 to 2, .* relevant_from \(--relevant-from\)"
    with pytest.raises(UsageError, match=expected):
        _ = graded.examples
    for loss in ("multiple_negatives", "triplet", "contrastive"):
        with pytest.raises(UsageError, match=expected):
            datasets_for(loss, graded)


def test_judged_pairs_become_what_the_loss_reads():
    graded = read_training_data(FOLDER / "judged_graded_late.jsonl")
    scored = datasets_for("cosent", graded)["labelled_pairs"]
    assert (scored.column_names, scored["label"][:]) == (["anchor", "passage", "label"], [1.0, 0.0, 2.0])
    (margins,) = datasets_for("margin_mse", graded).values()
    assert margins[0] == {
        "anchor": Q, "positive": BEES, "negative_1": WASPS, "negative_2": CATS, "label": [1.0, 2.0],
    }  # fmt: skip
    with pytest.raises(UsageError, match="cosine_similarity wants scores from -1 to 1, these are from 0.0 to 2.0"):
        datasets_for("cosine_similarity", graded)
    yes_or_no = read_training_data(FOLDER / "mined_labeled_pair.csv")
    labelled = datasets_for("contrastive", yes_or_no)["labelled_pairs"]
    assert list(zip(labelled["anchor"][:], labelled["passage"][:], labelled["label"][:])) == [
        (Q, BEES, 1.0), (Q, CATS, 0.0), (R, DOGS, 1.0),
    ]  # fmt: skip
    assert datasets_for("cosent", yes_or_no)["labelled_pairs"]["label"][:] == [1.0, 0.0, 1.0]
    tuples = datasets_for("multiple_negatives", yes_or_no)
    assert tuples["negatives_1"]["negative_1"][:] == [CATS] and tuples["negatives_0"]["anchor"][:] == [R]


def test_pairs_that_are_all_alike_teach_no_margin(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "".join(json.dumps({"query": q, "passage": p, "score": 3}) + "\n" for q, p in [(Q, BEES), (R, DOGS)])
    )
    with pytest.raises(TrainingError, match="no query has passages of different scores"):
        datasets_for("margin_mse", read_training_data(file))


def _written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    return file


YES = st.sampled_from([1, 1.0, True, "1", "1.0", "true", "True", "TRUE", "t", "yes", "Y", "relevant"])
NO = st.sampled_from([0, 0.0, False, "0", "0.0", "false", "False", "f", "no", "N", "off", "irrelevant", "not relevant"])
NOTHING = st.sampled_from([None, "", "NULL", r"\N", "n/a", "-", "NaN"])
NAMES = st.sampled_from(["label", "Label", " LABEL", "score", "isRelevant", "is relevant", "relevance", "rel", "grade"])


@given(name=NAMES, yes=YES, no=NO, nothing=NOTHING, order=st.permutations(range(3)))
def test_a_yes_is_a_positive_a_no_never_is(tmp_path_factory, name, yes, no, nothing, order):
    rows = [{"query": Q, "passage": text, name: value} for text, value in ((BEES, yes), (CATS, no), (WASPS, nothing))]
    file = _written(tmp_path_factory.mktemp("rows"), [rows[place] for place in order])
    data = read_training_data(file)
    assert (plain(data), data.left_out) == (RIGHT, 1)


@given(value=st.one_of(st.text(max_size=12), st.integers(), st.floats(), st.booleans(), st.lists(st.integers())))
def test_whatever_judges_only_a_yes_makes_a_positive(tmp_path_factory, value):
    rows = [{"query": Q, "passage": BEES, "label": 1}, {"query": Q, "passage": CATS, "label": value}]
    file = _written(tmp_path_factory.mktemp("rows"), rows)
    try:
        (example,) = read_training_data(file).examples
    except PlusError as refusal:
        assert "label" in str(refusal) or "lists" in str(refusal) or "passages and" in str(refusal)
        return
    texts = [positive.text for positive in example.positives]
    said = re.fullmatch(r"\s*(\+?0*1(\.0*)?([eE][+-]?0+)?|true|t|yes|y|on|relevant|positive|wahr|vrai|vero|✓|✔)\s*",
                        str(value), re.IGNORECASE)  # fmt: skip
    assert texts == ([BEES, CATS] if said else [BEES])


@given(st.text(max_size=30))
def test_a_name_is_spelled_one_way(name):
    assert spelled(spelled(name)) == spelled(name)
