"""Changed copies of texts: what is kept, what is changed, and that chance is the seed's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_embed_plus.training.data.unsupervised import (
    CropWords,
    DeleteWords,
    ReplaceWords,
    Rewrite,
    augment,
    augment_queries,
)
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.records import Example, ScoredText

LONG = " ".join(f"word{i}" for i in range(2000))
SYNONYMS = ReplaceWords({"quick": ["fast", "rapid"], "fox": ["vixen"]}, share=0.9)
words = st.lists(st.sampled_from(["quick", "brown", "Fox,", "a", "ß"]), min_size=1, max_size=12).map(" ".join)


@pytest.mark.parametrize("augmentation", [DeleteWords(), CropWords(), SYNONYMS])
@given(texts=st.lists(words, min_size=1, max_size=5), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_copy_is_never_empty_and_hangs_on_its_text_and_the_seed_alone(augmentation, texts, seed):
    together = augment(texts, augmentation, seed=seed)
    assert all(together)
    assert together == [augment([text], augmentation, seed=seed)[0] for text in texts]


def test_deletion_leaves_out_its_share_and_keeps_the_order():
    (found,) = augment([LONG], DeleteWords(0.6))
    kept = [int(word.removeprefix("word")) for word in found.split()]
    assert kept == sorted(kept) and len(kept) == pytest.approx(800, abs=80)
    assert augment(["alone"], DeleteWords(0.99)) == ["alone"]
    assert augment([LONG], DeleteWords(0.6), seed=1) != [found]
    assert augment([LONG], DeleteWords(0.0)) == [LONG]


def test_cropping_keeps_one_run_of_words():
    for seed in range(20):
        (found,) = augment([LONG], CropWords(0.5), seed=seed)
        assert found in LONG and 1000 <= len(found.split()) <= 2000
    assert len({len(augment([LONG], CropWords(0.1), seed=seed)[0]) for seed in range(20)}) > 10


def test_replacement_puts_a_choice_in_the_place_of_a_word_and_leaves_what_is_around_it():
    found = {augment(["The Quick brown (fox)!"], SYNONYMS, seed=seed)[0] for seed in range(40)}
    assert found >= {"The Fast brown (vixen)!", "The Rapid brown (vixen)!"}
    assert all(text.startswith("The ") and " brown (" in text and text.endswith(")!") for text in found)


def test_any_callable_rewrites_such_as_a_back_translation():
    there, back = {"cat": "Katze"}, {"Katze": "kitty"}
    round_trip = Rewrite(lambda text: " ".join(back[there[word]] if word in there else word for word in text.split()))
    assert augment(["a cat"], round_trip) == ["a kitty"]
    with pytest.raises(InputError, match="made '' of 'a cat', expected a text"):
        augment(["a cat"], Rewrite(lambda text: ""))
    with pytest.raises(InputError, match="made None of"):
        augment(["a cat"], Rewrite(lambda text: None))


def test_further_queries_share_the_weight_of_their_example():
    example = Example("what is a quick fox", (ScoredText("p", "a fox"),), (ScoredText("n", "a dog"),), 3.0)
    found = augment_queries([example], DeleteWords(0.5), copies=3)
    assert found[0].query == example.query and 2 <= len(found) <= 4
    assert len({e.query for e in found}) == len(found)
    assert sum(e.weight for e in found) == pytest.approx(3.0)
    assert all((e.positives, e.negatives) == (example.positives, example.negatives) for e in found)
    assert augment_queries([example], Rewrite(str), copies=3) == [example]  # nothing new, nothing added


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeleteWords(1.0), "share is 1.0, expected a share"),
        (lambda: CropWords(-0.1), "least is -0.1"),
        (lambda: ReplaceWords({}), "choices of ReplaceWords is empty"),
        (lambda: ReplaceWords({"a": []}), "has a word without a choice"),
    ],
)
def test_shares_and_choices_are_checked(make, message):
    with pytest.raises(UsageError, match=message):
        make()
