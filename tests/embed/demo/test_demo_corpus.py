"""The standard library as a retrieval data set."""

from __future__ import annotations

import pytest

from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.training.data.splits import find_leaks
from qdrant_tools.errors import InputError
from qdrant_tools.records import Example, HeldOut, ScoredText


@pytest.fixture(scope="module")
def corpus():
    return load_docstrings()


def test_the_running_interpreter_gives_a_usable_amount_of_real_text(corpus):
    assert len(corpus.passages) > 1500
    assert {"argparse.ArgumentParser", "asyncio.runners.run"} & {p.id for p in corpus.passages}


def test_ids_and_texts_are_unique(corpus):
    assert len({p.id for p in corpus.passages}) == len(corpus.passages)
    assert len({p.text.split("\n", 1)[1] for p in corpus.passages}) == len(corpus.passages)


def test_no_query_text_stands_on_both_sides_of_the_split(corpus):
    train, held_out = ({q.text for q in split.queries} for split in (corpus.train, corpus.held_out))
    assert not train & held_out
    assert 0.75 < len(train) / (len(train) + len(held_out)) < 0.85


def test_training_gives_no_held_out_query_away(corpus):
    held_out = HeldOut(corpus.held_out.queries, corpus.held_out.qrels)
    rows = [
        Example(query.text, tuple(ScoredText(passage, "") for passage in corpus.train.qrels[query.id]))
        for query in corpus.train.queries
    ]
    assert find_leaks(rows, held_out) == []


def test_every_query_has_a_judgement_and_every_judgement_names_a_passage(corpus):
    texts = {p.id: p.text for p in corpus.passages}
    for split in (corpus.train, corpus.held_out):
        assert {q.id for q in split.queries} == set(split.qrels)
        for query in split.queries:
            answers = split.qrels[query.id]
            assert answers and answers.keys() <= texts.keys()


def test_the_same_interpreter_gives_the_same_data_set(corpus):
    assert load_docstrings() == corpus


def test_docstrings_are_split_after_the_first_sentence_and_duplicates_merged(tmp_path):
    rest = "It does so slowly and carefully. " * 6
    source = f'''
def first():
    """Open the big door. {rest}"""

def twin():
    """Close the big door. {rest}"""

def _private():
    """Open no door at all. {rest}"""

def short():
    """Too short. x"""
'''
    (tmp_path / "queue.py").write_text(source)
    corpus = load_docstrings(library=tmp_path)
    assert [p.id for p in corpus.passages] == ["queue.first"]
    queries = {q.text for split in (corpus.train, corpus.held_out) for q in split.queries}
    assert queries == {"Open the big door.", "Close the big door."}


def test_a_library_without_sources_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no usable docstrings"):
        load_docstrings(library=tmp_path)


def test_too_few_passages_to_train_and_to_measure_are_refused_with_a_better_limit():
    with pytest.raises(InputError, match=r"1 passages have .* give a larger limit \(--limit\), such as 500"):
        load_docstrings(limit=1)
    assert load_docstrings(limit=500).passages
