"""Splits that keep near-duplicates together, and a refusal of training data that knows held-out queries."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import WordEncoder

from llama_index_embed_plus.errors import LeakError, TrainingError
from llama_index_embed_plus.training.data.groups import Groups, group_texts, near_pairs
from llama_index_embed_plus.training.data.records import Distilled, LabelledText, ScoredPair
from llama_index_embed_plus.training.data.splits import (
    Asked,
    SplitSettings,
    as_questions,
    check_leak,
    find_leaks,
    fold_queries,
    split_queries,
    without_leaks,
)
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.records import Example, HeldOut, Passage, Query, ScoredText
from qdrant_tools.same import query_key


def example(query: str, *positives: str) -> Example:
    return Example(query, tuple(ScoredText(each, f"text of {each}") for each in positives))


def numbered(count: int) -> list[Query]:
    return [Query(f"q{i}", f"question number {i}") for i in range(count)]


HELDOUT = HeldOut(
    (Query("h1", "How do bees make honey?"), Query("h2", "Where do whales sleep?")),
    {"h1": {"bees": 1, "wasps": 0}, "h2": {"whales": 2}},
    (Passage("bees", "Bees make honey from nectar."), Passage("whales", "Whales sleep near the surface.")),
)


def test_the_shares_are_those_asked_for_and_every_query_has_one_part():
    split = split_queries(numbered(200), SplitSettings(dev=0.1, test=0.2))
    assert (len(split.train), len(split.dev), len(split.test), split.groups) == (140, 20, 40, 200)
    assert sorted(q.id for part in (split.train, split.dev, split.test) for q in part) == sorted(
        q.id for q in numbered(200)
    )


def test_another_seed_gives_another_split_and_the_same_seed_the_same():
    first, again, other = (split_queries(numbered(100), SplitSettings(seed=seed)).test for seed in (1, 1, 2))
    assert first == again != other


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_with_times_the_later_queries_are_held_out():
    items = numbered(100)
    order = random.Random(3).sample(range(100), 100)
    split = split_queries(items, SplitSettings(0.1, 0.2), asked=[Asked(NOON + timedelta(days=day)) for day in order])
    days = {part: [order[items.index(item)] for item in getattr(split, part)] for part in ("train", "dev", "test")}
    assert (len(days["train"]), len(days["dev"]), len(days["test"])) == (70, 10, 20)
    assert max(days["train"]) < min(days["dev"]) <= max(days["dev"]) < min(days["test"])


@settings(max_examples=50, deadline=None)
@given(
    where=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 8), st.integers(0, 90)), min_size=20, max_size=60),
    by_user=st.booleans(),
)
def test_no_session_and_no_user_is_on_both_sides(where, by_user):
    items = numbered(len(where))
    asked = [
        Asked(NOON + timedelta(days=day), f"s{session}" if session else "", f"u{user}" if user and by_user else "")
        for session, user, day in where
    ]
    try:
        split = split_queries(items, SplitSettings(0.0, 0.3), asked=asked)
    except InputError:  # one group of everything cannot be split
        return
    sides = [{items.index(item) for item in part} for part in (split.train, split.test)]
    for kind in ("session", "user"):
        train, test = ({getattr(asked[place], kind) for place in side} - {""} for side in sides)
        assert not train & test


def test_a_question_that_was_asked_before_is_trained_on_and_not_held_out():
    items = [*numbered(9), Query("again", "Question NUMBER 0?")]
    asked = [Asked(NOON + timedelta(days=day)) for day in range(10)]
    split = split_queries(items, SplitSettings(0.0, 0.2), asked=asked)
    assert [query.id for query in split.test] == ["q7", "q8"] and items[-1] in split.train
    with pytest.raises(InputError, match="expected one for each"):
        split_queries(items, asked=asked[:3])


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.sampled_from([f"Word{i}{end}" for i in range(12) for end in ("", "?", " !")]), min_size=30),
    seed=st.integers(0, 5),
)
def test_no_group_is_cut_and_the_order_of_the_rows_does_not_matter(texts, seed):
    items = [Query(str(i), text) for i, text in enumerate(texts)]
    wanted = SplitSettings(dev=0.2, test=0.2, seed=seed)
    try:
        split = split_queries(items, wanted)
    except InputError as error:
        assert "groups of near-duplicates" in str(error)
        return
    words = [{query_key(item.text) for item in part} for part in (split.train, split.dev, split.test)]
    assert not words[0] & words[1] and not words[0] & words[2] and not words[1] & words[2]
    shuffled = random.Random(seed).sample(items, len(items))
    assert set(split_queries(shuffled, wanted).test) == set(split.test)
    assert len(split.test) <= round(0.2 * len(items)) and split.train


def test_case_punctuation_and_spelling_of_unicode_make_no_new_question():
    assert query_key("  How do BEES\tmake honey?! ") == query_key("how do bees make honey")
    assert query_key("ﬁle ①") == query_key("file 1") and query_key("Café") == query_key("Café")
    assert query_key("??") != query_key("!!")  # without words the signs are all there is
    assert query_key("make honey do bees") != query_key("do bees make honey")


def test_what_an_encoder_puts_close_stays_together_also_over_several_steps():
    # a ~ b and b ~ c, but a and c have less in common: still one group.
    texts = ["one two three four", "one two three four five", "one two three four five six", "other words only"]
    queries = [Query(str(i), text) for i, text in enumerate(texts)] + [
        Query(f"n{i}", f"alone{i} thing{i}") for i in range(20)
    ]
    encoder = WordEncoder(dimension=512)
    split = split_queries(queries, SplitSettings(similarity=0.88), encoder=encoder)
    assert split.groups == len(queries) - 2
    vectors = encoder.encode_queries(texts)
    assert float(vectors[0] @ vectors[2]) < 0.88 < float(vectors[0] @ vectors[1])
    for part in (split.train, split.dev, split.test):
        assert {q.id for q in part} & {"0", "1", "2"} in ({"0", "1", "2"}, set())


def test_near_pairs_are_those_of_the_whole_matrix(monkeypatch):
    random = np.random.default_rng(0)
    rows = random.normal(size=(50, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    monkeypatch.setattr("llama_index_embed_plus.training.data.groups._BLOCK", 7)
    found = {(i, j) for i, j, _ in near_pairs(rows, rows, similarity=0.9)}
    assert found == set(zip(*(axis.tolist() for axis in np.nonzero(rows @ rows.T >= 0.9))))


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=40))
def test_groups_are_the_connected_components(pairs):
    groups = Groups(16)
    reach = np.eye(16, dtype=int)
    for first, second in pairs:
        groups.join(first, second)
        reach[first, second] = reach[second, first] = 1
    for _ in range(4):
        reach = (reach @ reach > 0).astype(int)
    components = {tuple(np.nonzero(row)[0].tolist()) for row in reach}
    assert sorted(groups.members()) == sorted(map(list, components))


def test_queries_that_share_a_positive_stay_together_unless_told_otherwise():
    items = [example(f"question {i}", f"passage {i // 2}") for i in range(100)]
    split = split_queries(items)
    parts = [{p.id for item in part for p in item.positives} for part in (split.train, split.dev, split.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2]
    assert split.groups == 50
    assert split_queries(items, SplitSettings(by_passage=False)).groups == 100
    queries = [Query(str(i), f"question {i}") for i in range(100)]
    qrels = {str(i): {f"passage {i // 2}": 1, "everybody's": 0} for i in range(100)}
    assert split_queries(queries, qrels=qrels).groups == 50


def test_folds_keep_groups_together_and_are_equally_large():
    items = [Example(f"question {i}", (ScoredText(f"passage {i // 3}", ""),)) for i in range(75)]
    fold = fold_queries(items, 5)
    assert [fold.count(number) for number in range(5)] == [15] * 5
    assert all(len({fold[i], fold[i + 1], fold[i + 2]}) == 1 for i in range(0, 75, 3))
    assert fold_queries(items, 5) == fold
    with pytest.raises(InputError, match="75 queries make no 5 folds: they are 1 groups") as refused:
        fold_queries([replace(item, positives=items[0].positives) for item in items], 5)
    assert "--shared-passages makes 74 more" in refused.value.on_command_line
    with pytest.raises(InputError, match="3 queries make no 5 folds: they are 3 groups .* expected at least 5") as few:
        fold_queries([Query(str(i), f"question {i}") for i in range(3)], 5)
    assert "shared" not in str(few.value)


def test_data_that_cannot_be_split_is_an_error_and_not_an_empty_part():
    with pytest.raises(InputError, match="no query for the test part: 10 queries are 1 groups"):
        split_queries([Query(str(i), "the same") for i in range(10)])
    shared = {str(i): {"p": 1} for i in range(10)}
    with pytest.raises(InputError, match="are 1 groups .*; 9 more groups without by_passage, which joins") as refused:
        split_queries([Query(str(i), f"question {i}") for i in range(10)], qrels=shared)
    assert "--shared-passages makes 9 more" in refused.value.on_command_line
    with pytest.raises(InputError, match="1 queries"):
        split_queries([Query("1", "alone")])
    with pytest.raises(InputError, match="0 queries"):
        split_queries([])
    with pytest.raises(UsageError, match="leave some for training"):
        SplitSettings(dev=0.5, test=0.5)
    everything = split_queries(numbered(5), SplitSettings(dev=0, test=0))
    assert len(everything.train) == 5 and not everything.dev and not everything.test


@pytest.mark.parametrize("by_passage", [True, False])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_split_passes_the_leak_check_with_its_own_settings(by_passage, data):
    words = st.sampled_from(["bee", "cat", "whale", "Bee", "bee?", "tree", "snow"])
    rows = data.draw(st.lists(st.tuples(words, words, st.integers(0, 20)), min_size=20, max_size=40))
    items = [example(f"{a} {b} {i}" if i > 5 else f"{a} {b}", f"p{i}") for a, b, i in rows]
    encoder = WordEncoder(dimension=128)
    wanted = SplitSettings(dev=0.2, test=0.2, similarity=0.9, by_passage=by_passage)
    try:
        split = split_queries(items, wanted, encoder=encoder)
    except InputError:
        return
    check_leak(split.train, HeldOut.of_examples(split.test), encoder=encoder, similarity=0.9, passages=by_passage)


def test_the_same_query_in_other_spelling_is_a_leak():
    train = [example("what do cats eat?", "cats"), example("HOW do bees make honey", "other")]
    with pytest.raises(LeakError, match=r"1 of 2 training examples .* \(1 by same query\).*'HOW do bees make honey'"):
        check_leak(train, HELDOUT)
    assert issubclass(LeakError, TrainingError)


def test_a_near_query_is_a_leak_if_an_encoder_says_so():
    train = [example("how do bees make honey? quickly", "other")]
    check_leak(train, HELDOUT)
    encoder = WordEncoder(dimension=512)
    with pytest.raises(LeakError, match="1 by near query"):
        check_leak(train, HELDOUT, encoder=encoder, similarity=0.85)
    check_leak(train, HELDOUT, encoder=encoder, similarity=0.99)


def test_a_question_about_a_held_out_passage_is_a_leak_by_id_or_by_words():
    by_id, by_words = (
        example("who makes honey", "bees"),
        Example("who naps at sea", (ScoredText("copy", "whales sleep near the SURFACE"),)),
    )
    judged_irrelevant = example("which insects sting", "wasps")
    leaks = find_leaks([by_id, judged_irrelevant, by_words], HELDOUT)
    assert [(leak.kind, leak.row, leak.held_out_query) for leak in leaks] == [
        ("same passage", 0, "How do bees make honey?"),
        ("same passage", 2, "Where do whales sleep?"),
    ]
    with pytest.raises(LeakError, match="--shared-passages"):
        check_leak([by_id], HELDOUT)
    check_leak([by_id, by_words], HELDOUT, passages=False)


def test_the_way_out_drops_the_leaks_and_keeps_the_rest():
    train = [example("where do whales sleep", "x"), example("fine", "cats"), example("who makes honey", "bees")]
    kept, leaks = without_leaks(train, HELDOUT)
    assert [each.query for each in kept] == ["fine"] and {leak.row for leak in leaks} == {0, 2}
    check_leak(kept, HELDOUT)
    check_leak([], HELDOUT, encoder=WordEncoder())


@pytest.mark.parametrize(
    "row",
    [
        Distilled("how do bees make honey", "from nectar", ("of sugar",), (1.0,)),
        Distilled("who naps at sea", "Whales sleep near the surface!", ("cats",), (1.0,)),
        ScoredPair("anything", "Where do WHALES sleep", 0.0),
        ScoredPair("whales sleep near the surface", "a question about whales", 0.8),
        LabelledText("where do whales sleep", 3),
        "How do bees make honey?",
    ],
    ids=lambda row: type(row).__name__,
)
def test_rows_of_every_kind_are_looked_at(row):
    with pytest.raises(LeakError):
        check_leak(as_questions([example("fine", "cats"), row]), HELDOUT)


def test_texts_and_pairs_that_only_mention_a_held_out_passage_are_no_leak():
    fine = ["Bees make honey from nectar.", ScoredPair("Bees make honey from nectar.", "nonsense", 0.0)]
    check_leak(as_questions(fine), HELDOUT)


def test_the_message_shows_one_leak_of_every_kind_and_is_one_line():
    train = [example(f"Where do whales sleep{'?' * i}", "x") for i in range(5)] + [example("who makes honey", "bees")]
    with pytest.raises(LeakError, match="6 of 6.*5 by same query, 1 by same passage.*who makes honey") as caught:
        check_leak(train, HELDOUT)
    assert "\n" not in str(caught.value)


def test_a_held_out_set_that_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="none of the 1 held-out queries has a relevant passage"):
        HeldOut((Query("a", "text"),), {"b": {"p": 1}, "a": {"p": 0}})
    with pytest.raises(InputError, match="contain the id 'a' twice"):
        HeldOut((Query("a", "text"), Query("a", "other")), {"a": {"p": 1}})


def test_examples_can_be_held_out_and_equal_queries_become_one():
    held_out = HeldOut.of_examples([example("same", "a"), example("same", "b"), example("other", "c")])
    assert [query.text for query in held_out.queries] == ["same", "other"]
    assert held_out.relevant == {"a", "b", "c"} and held_out.passages == ()
    with_others = HeldOut.of_examples([example("same", "a")], passages=[Passage("x", "something else")])
    assert {passage.id for passage in with_others.passages} == {"a", "x"}


def test_grouping_needs_no_encoder():
    assert group_texts(["a b", "A, b!", "c"]).members() == [[0, 1], [2]]


def test_spellings_of_a_query_are_held_out_as_one():
    held_out = HeldOut.of_examples([example("How do I reset it?", "a"), example("how do i reset it", "b")])
    (query,) = held_out.queries
    assert query.text == "How do I reset it?" and held_out.qrels == {query.id: {"a": 1, "b": 1}}
    assert len(HeldOut.of_examples([example("C++", "a"), example("C#", "b")]).queries) == 2


def test_a_passage_is_the_same_by_either_spelling_of_its_id():
    composed, decomposed = "caf\u00e9.md", "cafe\u0301.md"
    held_out = HeldOut((Query("h", "where is it"),), {"h": {composed: 1}})
    (leak,) = find_leaks([example("where else", decomposed)], held_out)
    assert leak.kind == "same passage"
    items = [example("one", composed), example("two", decomposed), example("three", "other")]
    assert split_queries(items, SplitSettings(dev=0, test=0)).groups == 2
