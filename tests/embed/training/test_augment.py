"""Changed copies of texts: what is kept, what is changed, and that chance is the seed's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_embed_plus.training import CropWords, DeleteWords, QueryAugmentation
from llama_index_embed_plus.training.data.augmentation import augment
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.records import Example, ScoredText

LONG = " ".join(f"word{i}" for i in range(2000))
words = st.lists(st.sampled_from(["quick", "brown", "Fox,", "a", "ß"]), min_size=1, max_size=12).map(" ".join)


@pytest.mark.parametrize("augmentation", [DeleteWords(), CropWords()])
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


def test_an_augmentation_of_ones_own_has_to_give_a_text():
    assert augment(["a cat"], lambda text, random: text.replace("cat", "kitty")) == ["a kitty"]
    with pytest.raises(InputError, match="made '' of 'a cat', expected a text"):
        augment(["a cat"], lambda text, random: "")
    with pytest.raises(InputError, match="made None of"):
        augment(["a cat"], lambda text, random: None)


@pytest.mark.parametrize("change", ["delete", "crop"])
def test_further_queries_share_the_weight_of_their_example(change):
    example = Example("what is a quick fox", (ScoredText("p", "a fox"),), (ScoredText("n", "a dog"),), 3.0)
    found = QueryAugmentation(change, 0.5, copies=3).apply([example])
    assert found[0].query == example.query and 2 <= len(found) <= 4
    assert len({e.query for e in found}) == len(found)
    assert sum(e.weight for e in found) == pytest.approx(3.0)
    assert all((e.positives, e.negatives) == (example.positives, example.negatives) for e in found)
    alone = Example("fox", example.positives)
    assert QueryAugmentation(change, 0.5, copies=3).apply([alone]) == [alone], "nothing new, nothing added"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeleteWords(1.0), "share is 1.0, expected a share"),
        (lambda: CropWords(-0.1), "least is -0.1"),
        (lambda: QueryAugmentation("replace"), "words is 'replace', expected one of delete, crop"),
        (lambda: QueryAugmentation(share=0.0), "share is 0.0, expected a share between 0 and 1"),
        (lambda: QueryAugmentation(copies=0), "copies is 0, expected at least 1"),
    ],
)
def test_shares_and_counts_are_checked(make, message):
    with pytest.raises(UsageError, match=message):
        make()
