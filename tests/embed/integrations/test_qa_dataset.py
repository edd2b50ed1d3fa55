"""LlamaIndex's evaluator and ours agree on a retriever over our store, and its data sets go both ways."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.evaluation import RetrieverEvaluator
from tiny import DirectionEncoder, numbered

from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.integrations.qa_dataset import (
    QADataset,
    evaluate_retriever,
    from_qa_dataset,
    read_qa_dataset,
    write_qa_dataset,
)
from llama_index_embed_plus.integrations.vector_store import PlusVectorStore
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.status import build_index
from qdrant_tools.debias import rated
from qdrant_tools.errors import InputError
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Example, Passage, Query, ScoredText


class Words(BaseEmbedding):
    """The bag of words as LlamaIndex wants it; without ties, which the two orders break differently."""

    def _get_query_embedding(self, query: str) -> list[float]:
        return DirectionEncoder().encode_queries([query])[0].tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_query_embedding(text)


QUERIES = [Query(f"q{i}", f"thing{i} topic{(i + 1) % 7} passage") for i in range(0, 80, 4)]
QRELS = {f"q{i}": {f"p{i}": 1, f"p{i + 1}": 2, f"p{i + 2}": 0} for i in range(0, 80, 4)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture(scope="module")
def collection(folder):
    with closing(connect(folder)) as client:
        collection = CollectionManager(client).ensure("nodes", DirectionEncoder())
        index_passages(collection, numbered(80), DirectionEncoder())
        build_index(collection)
        yield collection


@pytest.mark.parametrize("k", [1, 3, 10])
def test_hit_rate_and_mrr_are_those_of_its_evaluator_query_by_query(collection, k):
    store = PlusVectorStore(collection)  # the evaluator asks asynchronously
    index = VectorStoreIndex.from_vector_store(store, embed_model=Words())
    retriever = index.as_retriever(similarity_top_k=k)
    evaluator = RetrieverEvaluator.from_metric_names(["hit_rate", "mrr", "precision"], retriever=retriever)
    report = evaluate_retriever(retriever, QUERIES, QRELS, k=k)
    for query in QUERIES:
        relevant = [passage for passage, grade in QRELS[query.id].items() if grade > 0]
        theirs = evaluator.evaluate(query.text, relevant).metric_vals_dict
        assert report.values[f"hit_rate@{k}"][query.id] == theirs["hit_rate"]
        assert report.values[f"mrr@{k}"][query.id] == pytest.approx(theirs["mrr"], abs=1e-12)
        assert report.values[f"precision@{k}"][query.id] == pytest.approx(theirs["precision"], abs=1e-12)
    assert 0 < np.mean(list(report.values[f"mrr@{k}"].values())) < 1


def test_a_retriever_over_the_store_scores_as_the_collection_does(collection):
    index = VectorStoreIndex.from_vector_store(PlusVectorStore(collection), embed_model=Words())
    ours = evaluate_retrieval(collection, QUERIES, QRELS, DirectionEncoder(), k=10)
    theirs = evaluate_retriever(index.as_retriever(similarity_top_k=10), QUERIES, QRELS, k=10)
    for name in ("recall@10", "hit_rate@10", "judged@10"):
        assert theirs.means()[name] == pytest.approx(ours.means()[name], abs=1e-12)


def test_a_retriever_that_finds_nothing_scores_0_and_odd_queries_are_counted():
    silent = SimpleNamespace(retrieve=lambda text: [])
    report = evaluate_retriever(silent, [Query("q", "?"), Query("r", "?")], {"q": {"a": 1}, "s": {"a": 1}})
    assert report.means()["ndcg@10"] == 0.0
    assert report.coverage.without_results == report.coverage.without_judgement == report.coverage.unknown_queries == 1
    with pytest.raises(InputError, match="none of the 0 queries"):
        evaluate_retriever(silent, [], {"q": {"a": 1}})


def test_a_data_set_goes_to_its_file_and_back(tmp_path):
    passages = [Passage("a", "Bees make honey."), Passage("b", "Cats sleep.", {"lost": True})]
    qrels = {"q": {"a": 2, "b": 0}}
    write_qa_dataset(tmp_path / "qa.json", [Query("q", "Who makes honey?")], qrels, passages)
    assert json.loads((tmp_path / "qa.json").read_text()) == {
        "queries": {"q": "Who makes honey?"},
        "corpus": {"a": "Bees make honey.", "b": "Cats sleep."},
        "relevant_docs": {"q": ["a"]},
        "mode": "text",
    }
    data = read_qa_dataset(tmp_path / "qa.json")
    assert data.queries == (Query("q", "Who makes honey?"),) and data.qrels == {"q": {"a": 1}}
    assert data.passages == (Passage("a", "Bees make honey."), Passage("b", "Cats sleep."))
    assert [file.name for file in tmp_path.iterdir()] == ["qa.json"]


def test_a_data_set_becomes_searches_whose_relevant_passages_are_rated():
    qrels = {"q1": {"a": 1, "b": 1, "c": 0}}
    data = QADataset((Query("q1", "tea?"), Query("q2", "coffee?")), qrels, (Passage("a", "Tea."), Passage("b", "Pot.")))
    searches = list(data.searches(datetime.now(UTC)))
    labels = rated(searches)
    assert [search.query for search in searches] == ["tea?", "coffee?"]
    assert [(label.query, label.passage_id, label.weight) for label in labels] == [("tea?", "a", 1), ("tea?", "b", 1)]


def test_a_data_set_becomes_examples_of_the_queries_that_have_an_answer():
    qrels = {"q1": {"a": 1, "b": 2}}
    data = QADataset((Query("q1", "tea?"), Query("q2", "coffee?")), qrels, (Passage("a", "Tea."), Passage("b", "Pot.")))
    assert list(data.examples()) == [Example("tea?", (ScoredText("a", "Tea."), ScoredText("b", "Pot.")))]
    with pytest.raises(InputError, match="'q1' is answered by 'a', which is not in the corpus"):
        list(replace(data, passages=()).examples())


def test_the_object_itself_is_read_too_and_unknown_ids_are_counted():
    dataset = SimpleNamespace(queries={"q": "?"}, corpus={"a": "A"}, relevant_docs={"q": ["a", "gone"]}, mode="text")
    data = from_qa_dataset(dataset)
    assert data.unknown_passages == 1 and data.qrels == {"q": {"a": 1, "gone": 1}}
    assert data.as_row() == vars(dataset)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"queries": {}, "corpus": {}}, "relevant_docs is None"),
        ({"queries": {"q": " "}, "corpus": {}, "relevant_docs": {}}, r"queries\['q'\] is ' '"),
        ({"queries": {"q": "?"}, "corpus": {}, "relevant_docs": {"r": []}}, "relevant_docs has the query 'r'"),
        ({"queries": {"q": "?"}, "corpus": {}, "relevant_docs": {"q": "a"}}, r"relevant_docs\['q'\] is 'a'"),
        ([], "not an EmbeddingQAFinetuneDataset"),
    ],
)
def test_what_is_no_such_file_is_named(tmp_path, row, message):
    (tmp_path / "qa.json").write_text(json.dumps(row))
    with pytest.raises(InputError, match=message) as error:
        read_qa_dataset(tmp_path / "qa.json")
    assert "qa.json" in str(error.value)
