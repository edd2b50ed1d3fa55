"""mteb takes our encoders and collections for models, and its figures are ours."""

from __future__ import annotations

import random

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining
from mteb.abstasks.text.summarization import AbsTaskSummarization
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol
from mteb.types import PromptType
from mteb_tasks import MixedEncoder, UnitEncoder, local_task, retrieval_data, scores, sentences, splits
from tiny import client_of

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import TextError
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.evaluate.tasks.labels import (
    ClassificationSettings,
    ClusteringSettings,
    classification,
    clustering,
)
from llama_index_embed_plus.evaluate.tasks.pairs import bitext_mining, pair_classification
from llama_index_embed_plus.evaluate.tasks.retrieval import RetrievalSet, exact_retrieval
from llama_index_embed_plus.evaluate.tasks.scores import (
    RerankingQuery,
    Summaries,
    reranking,
    semantic_similarity,
    summarisation,
)
from llama_index_embed_plus.integrations.mteb import mteb_encoder, mteb_search
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.collections.settings import CollectionSettings
from qdrant_tools.errors import NotSupportedError, UsageError, VectorError
from qdrant_tools.records import Query
from qdrant_tools.search.dense import search_batch

CLOSE = 1e-6
"""mteb's cosines are in single precision, ours in double."""

mteb_copies_its_tensors = pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")


@pytest.fixture
def encoder():
    return MixedEncoder()


@pytest.fixture
def model(encoder):
    return mteb_encoder(encoder)


def pairs(count):
    left, _ = sentences(count, seed=1)
    draw = random.Random(2)
    right = [" ".join(draw.sample(text.split(), 7) + ["x"] * draw.randrange(3)) for text in left]
    return left, right


def few_passages():
    texts, topics = sentences(60, seed=5)
    passages = {f"p{n}": text for n, text in enumerate(texts)}
    asked, about = sentences(15, seed=6)
    queries = {f"q{n}": text for n, text in enumerate(asked)}
    qrels = {
        query: {p: 1 + n % 2 for n, (p, of) in enumerate(zip(passages, topics)) if of == topic}
        for query, topic in zip(queries, about)
    }
    return passages, queries, qrels


def test_both_satisfy_the_protocols_of_mteb(model, tmp_path):
    assert isinstance(model, EncoderProtocol)
    encoder = UnitEncoder()
    for client in client_of("memory", tmp_path):
        search = mteb_search(CollectionManager(client).ensure("c", encoder), encoder)
        assert isinstance(search, SearchProtocol) and not isinstance(search, EncoderProtocol)


def test_similarity_is_mtebs(encoder, model):
    left, right = pairs(40)
    gold = [float(n % 6) for n in range(40)]
    theirs = scores(
        model,
        local_task(
            AbsTaskSTS, "STS", "cosine_spearman", splits(test={"sentence1": left, "sentence2": right, "score": gold})
        ),
    )
    ours = semantic_similarity(encoder, left, right, gold)
    assert ours.spearman == pytest.approx(theirs["main_score"], abs=CLOSE)
    assert ours.pearson == pytest.approx(theirs["cosine_pearson"], abs=CLOSE)


def test_pair_classification_is_mtebs(encoder, model):
    left, right = pairs(50)
    labels = [int(random.Random(n).random() < 0.4) for n in range(50)]
    data = splits(test={"sentence1": left, "sentence2": right, "labels": labels})
    theirs = scores(model, local_task(AbsTaskPairClassification, "PairClassification", "cosine_ap", data))
    ours = pair_classification(encoder, left, right, labels)
    for name in ("ap", "f1", "precision", "recall", "accuracy"):
        assert getattr(ours, name) == pytest.approx(theirs[f"cosine_{name}"], abs=CLOSE), name


@pytest.mark.parametrize("labels", [5, 2])
def test_classification_is_mtebs_experiment_by_experiment(encoder, model, labels):
    train, topics = sentences(120, seed=3)
    test, wanted = sentences(40, seed=4)
    names = sorted(set(topics))
    coded = [names.index(topic) % labels for topic in topics]
    expected = [names.index(topic) % labels for topic in wanted]
    data = splits(train={"text": train, "label": coded}, test={"text": test, "label": expected})
    task = local_task(AbsTaskClassification, "Classification", "accuracy", data, samples_per_label=4, n_experiments=5)
    theirs = scores(model, task)
    settings = ClassificationSettings(samples_per_label=4, experiments=5)
    ours = classification(encoder, (train, coded), (test, expected), settings=settings)
    assert list(ours.accuracies) == [each["accuracy"] for each in theirs["scores_per_experiment"]]
    assert ours.accuracy == pytest.approx(theirs["main_score"])
    assert ours.f1 == pytest.approx(theirs["f1"]) and ours.f1_weighted == pytest.approx(theirs["f1_weighted"])
    assert ours.ap is None if labels > 2 else ours.ap == pytest.approx(theirs["ap"])


def test_clustering_is_mtebs(encoder, model):
    texts, topics = sentences(150, seed=7)
    data = splits(test={"sentences": texts, "labels": topics})
    task = local_task(
        AbsTaskClustering,
        "Clustering",
        "v_measure",
        data,
        max_fraction_of_documents_to_embed=None,
        max_documents_per_cluster=300,
        n_clusters=4,
    )
    theirs = scores(model, task)
    ours = clustering(encoder, texts, topics, settings=ClusteringSettings(experiments=4, sample=300))
    assert list(ours.v_measures) == pytest.approx(theirs["v_measures"]["Level 0"])
    assert ours.v_measure == pytest.approx(theirs["main_score"])
    assert ours.deviation == pytest.approx(theirs["v_measure_std"])


@mteb_copies_its_tensors
def test_bitext_mining_is_mtebs(encoder, model):
    left, right = pairs(60)
    data = splits(test={"sentence1": left, "sentence2": right})
    theirs = scores(model, local_task(AbsTaskBitextMining, "BitextMining", "f1", data))
    ours = bitext_mining(encoder, left, right)
    assert 0 < ours.accuracy < 1
    for name in ("f1", "precision", "recall", "accuracy"):
        assert getattr(ours, name) == pytest.approx(theirs[name]), name


def test_summarisation_is_mtebs_and_counts_what_has_no_correlation(encoder, model):
    texts, _ = sentences(60, seed=8)
    rows = [
        Summaries(tuple(texts[n : n + 2]), tuple(texts[n + 2 : n + 6]), (1.0, 2.0, 2.0, float(n % 5)))
        for n in range(20)
    ]
    rows.append(Summaries(("one",), ("two", "three"), (3.0, 3.0)))
    data = splits(
        test={
            "text": ["source"] * len(rows),
            "human_summaries": [list(row.human) for row in rows],
            "machine_summaries": [list(row.machine) for row in rows],
            "relevance": [list(row.scores) for row in rows],
        }
    )
    task = local_task(AbsTaskSummarization, "Summarization", "cosine_spearman", data, min_score=0, max_score=5)
    theirs = scores(model, task)
    ours = summarisation(encoder, rows)
    assert ours.spearman == pytest.approx(theirs["main_score"], abs=CLOSE)
    assert ours.pearson == pytest.approx(theirs["cosine_pearson"], abs=CLOSE)
    assert (ours.texts, ours.skipped) == (20, 1)


def test_retrieval_is_mtebs_with_the_prompt_of_each_role(encoder, model):
    passages, queries, qrels = few_passages()
    theirs = scores(model, local_task(AbsTaskRetrieval, "Retrieval", "ndcg_at_10", retrieval_data(*few_passages())))
    ours = exact_retrieval(encoder, RetrievalSet(passages, queries, qrels))
    assert ours.ndcg == pytest.approx(theirs["main_score"], abs=1e-5)  # mteb rounds to five digits
    assert ours.mrr == pytest.approx(theirs["mrr_at_10"], abs=1e-5)
    assert ours.recall == pytest.approx(theirs["recall_at_100"], abs=1e-5)


def test_reranking_is_mtebs(encoder, model):
    texts, topics = sentences(80, seed=9)
    rows = [RerankingQuery(texts[n], tuple(texts[n + 1 : n + 3]), tuple(texts[n + 3 : n + 9])) for n in range(0, 70, 9)]
    names = {f"{n}-{'a' if i < 2 else 'n'}{i}": text for n, row in enumerate(rows) for i, text in
             enumerate((*row.positives, *row.negatives))}  # fmt: skip
    ranked = {str(n): [name for name in names if name.startswith(f"{n}-")] for n in range(len(rows))}
    qrels = {query: {name: int("a" in name) for name in own} for query, own in ranked.items()}
    queries = {str(n): row.query for n, row in enumerate(rows)}
    data = retrieval_data(names, queries, qrels, ranked)
    theirs = scores(model, local_task(AbsTaskRetrieval, "Reranking", "map_at_1000", data))
    ours = reranking(encoder, rows)
    assert 0 < ours.map < 1
    assert ours.map == pytest.approx(theirs["main_score"], abs=1e-5)
    assert ours.mrr == pytest.approx(theirs["mrr_at_10"], abs=1e-5)
    assert ours.ndcg == pytest.approx(theirs["ndcg_at_10"], abs=1e-5)


@pytest.mark.parametrize("engine", ["memory", "edge"])
def test_mteb_evaluates_a_collection_and_finds_what_its_search_finds(engine, tmp_path):
    encoder = UnitEncoder()
    passages, queries, qrels = few_passages()
    for client in client_of(engine, tmp_path):
        collection = CollectionManager(client).ensure("mteb", encoder)
        search = mteb_search(collection, encoder, hnsw_ef=64)
        data = retrieval_data(*few_passages())
        theirs = scores(search, local_task(AbsTaskRetrieval, "Retrieval", "ndcg_at_10", data))
        ours = exact_retrieval(encoder, RetrievalSet(passages, queries, qrels))
        assert theirs["main_score"] == pytest.approx(ours.ndcg, abs=1e-5)
        assert theirs["recall_at_100"] == pytest.approx(ours.recall, abs=1e-5)
        asked = [Query(name, text) for name, text in queries.items()]
        means = evaluate_retrieval(collection, asked, qrels, encoder, k=10, hnsw_ef=64).means()
        for name in ("ndcg", "mrr", "map", "recall", "precision"):
            assert theirs[f"{name}_at_10"] == pytest.approx(means[f"{name}@10"], abs=1e-5), name
        assert client.count("mteb").count == len(passages)
        if engine == "edge":
            assert client.get_collection("mteb").indexed_vectors_count == len(passages)


def test_what_mteb_sees_is_the_graph_and_not_a_comparison_with_every_vector(tmp_path):
    encoder = UnitEncoder(dimension=32)
    generator = np.random.default_rng(0)
    texts = [f"w{a} w{b} n{n}" for n, (a, b) in enumerate(generator.integers(0, 400, (3000, 2)))]
    corpus = Dataset.from_list([{"id": str(n), "text": text, "title": ""} for n, text in enumerate(texts)])
    queries = Dataset.from_list([{"id": f"q{n}", "text": texts[n] + " w1"} for n in range(40)])
    about = {"task_metadata": None, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}, "num_proc": None}
    for client in client_of("edge", tmp_path):
        settings = CollectionSettings(m=4, ef_construct=8, full_scan_threshold=10)
        collection = CollectionManager(client).ensure("c", encoder, settings=settings)
        narrow = mteb_search(collection, encoder, hnsw_ef=1)
        narrow.index(corpus, **about)
        found = narrow.search(queries, top_k=10, **about)
        exact = mteb_search(collection, encoder, exact=True).search(queries, top_k=10, **about)
        same = search_batch(collection, queries["text"][:], encoder, k=10, hnsw_ef=1)
        assert [set(hits) for hits in found.values()] == [{hit.id for hit in hits} for hits in same]
        shares = [len(found[query].keys() & exact[query].keys()) / 10 for query in exact]
        assert np.mean(shares) < 1
        assert narrow.mteb_model_meta.experiment_kwargs["hnsw_ef"] == 1


@pytest.mark.parametrize("engine", ["memory", "edge"])
def test_reranking_scores_the_given_passages_alone(engine, tmp_path):
    encoder = UnitEncoder()
    passages, queries, qrels = few_passages()
    ranked = {query: random.Random(query).sample(sorted(passages), 12) for query in queries}
    for client in client_of(engine, tmp_path):
        search = mteb_search(CollectionManager(client).ensure("mteb", encoder), encoder)
        data = retrieval_data(passages, queries, qrels, ranked)
        ours = scores(search, local_task(AbsTaskRetrieval, "Reranking", "map_at_1000", data))
        data = retrieval_data(passages, queries, qrels, ranked)
        brute = scores(mteb_encoder(encoder), local_task(AbsTaskRetrieval, "Reranking", "map_at_1000", data))
        assert ours["main_score"] == pytest.approx(brute["main_score"], abs=1e-5)
        assert ours["ndcg_at_10"] == pytest.approx(brute["ndcg_at_10"], abs=1e-5)


def corpus_of(*rows):
    return Dataset.from_list([{"id": name, "text": text, "title": title} for name, title, text in rows])


ABOUT = {"task_metadata": None, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}, "num_proc": None}


def test_the_next_task_replaces_the_corpus_of_the_last(tmp_path):
    encoder = UnitEncoder()
    for client in client_of("memory", tmp_path):
        search = mteb_search(CollectionManager(client).ensure("c", encoder), encoder)
        search.index(corpus_of(("a", "", "one"), ("b", "A title", "two")), **ABOUT)
        queries = Dataset.from_list([{"id": "q", "text": "A title", "instruction": "two"}])
        assert list(search.search(queries, top_k=1, **ABOUT)["q"]) == ["b"]
        search.index(corpus_of(("c", "", "three"), ("d", "", " ")), **ABOUT)
        assert client.count("c").count == 1 and search.skipped == 1
        assert search.search(queries, top_k=5, **ABOUT)["q"].keys() == {"c"}
        with pytest.raises(TextError, match=r"query 'q' is ''"):
            search.search(Dataset.from_list([{"id": "q", "text": ""}]), top_k=5, **ABOUT)


def test_a_collection_with_passages_of_somebody_else_is_not_emptied(tmp_path):
    encoder = UnitEncoder()
    for client in client_of("memory", tmp_path):
        collection = CollectionManager(client).ensure("c", encoder)
        mteb_search(collection, encoder).index(corpus_of(("mine", "", "one")), **ABOUT)
        with pytest.raises(UsageError, match="holds 'mine', which is not of the task's corpus"):
            mteb_search(collection, encoder).index(corpus_of(("a", "", "one")), **ABOUT)
        mteb_search(collection, encoder).index(corpus_of(("mine", "", "one"), ("a", "", "x")), **ABOUT)
        assert client.count("c").count == 2


def test_each_role_of_mteb_gets_its_prompt(encoder):
    def encoded(role, prompt_type):
        about = {"task_metadata": None, "hf_split": "test", "hf_subset": "default", "prompt_type": prompt_type}
        return mteb_encoder(encoder, role=role).encode([{"text": ["a", "b"]}, {"text": ["c"]}], **about)

    texts = ["a", "b", "c"]
    for role, prompt_type, wanted in (
        ("passage", PromptType.query, encoder.encode_queries(texts)),
        ("query", PromptType.document, encoder.encode_passages(texts)),
        ("passage", None, encoder.encode_passages(texts)),
        ("query", None, encoder.encode_queries(texts)),
    ):
        np.testing.assert_array_equal(encoded(role, prompt_type), wanted)


def test_a_text_without_content_is_refused_or_counted(encoder):
    about = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    with pytest.raises(TextError, match=r"text 1 is ' '"):
        mteb_encoder(encoder).encode([{"text": ["a", " "]}], **about)
    lenient = mteb_encoder(encoder, empty="zero")
    vectors = lenient.encode([{"text": ["a", " "]}], **about)
    assert lenient.empty_texts == 1 and not vectors[1].any() and vectors[0].any()


def test_what_cannot_be_done_is_refused(encoder, model):
    about = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    with pytest.raises(NotSupportedError, match="reads text only"):
        model.encode([{"image": [1]}], **about)
    with pytest.raises(NotSupportedError, match="precision"):
        model.encode([{"text": ["a"]}], precision="int8", **about)
    with pytest.raises(UsageError, match="empty is 'drop'"):
        mteb_encoder(encoder, empty="drop")


def test_a_vector_with_nan_ends_the_run(encoder, monkeypatch):
    model = mteb_encoder(encoder)
    nan = np.full((1, encoder.dimension), np.nan, np.float32)
    monkeypatch.setattr(encoder, "encode_passages", lambda texts: nan)
    with pytest.raises(VectorError, match="row 0 holds NaN"):
        model.encode([{"text": ["a"]}], task_metadata=None, hf_split="test", hf_subset="default")


def test_mtebs_cache_keeps_builds_and_searches_apart(encoder, minilm, tmp_path):
    def key(model):
        meta = model.mteb_model_meta
        return meta.model_name_as_path(), meta.revision, meta.experiment_name

    assert key(mteb_encoder(encoder)) == key(mteb_encoder(MixedEncoder()))
    assert key(mteb_encoder(encoder)) != key(mteb_encoder(encoder, role="query"))

    class Adapted(MixedEncoder):
        def encode_queries(self, texts):
            return super().encode_queries(texts)[:, ::-1]

    assert key(mteb_encoder(encoder)) != key(mteb_encoder(Adapted()))
    unit = UnitEncoder()
    for client in client_of("memory", tmp_path):
        collection = CollectionManager(client).ensure("c", unit)
        searches = [mteb_search(collection, unit, **how) for how in ({}, {"hnsw_ef": 32}, {"exact": True})]
        assert len({key(each) for each in [*searches, mteb_encoder(unit)]}) == 4
    real = mteb_encoder(open_encoder(minilm, backend="torch", device="cpu"))
    assert real.mteb_model_meta.name == "llama-index-embed-plus/all-MiniLM-L6-v2"


def test_the_real_model_gives_mteb_what_it_gives_us(minilm):
    encoder = open_encoder(minilm, backend="torch", device="cpu")
    left = ["A man plays the guitar.", "Rain falls on the sea.", "Bread is baked at night.", "The train is late."]
    right = ["Someone makes music.", "Water drops onto water.", "A cat sleeps.", "The train has a delay."]
    gold = [3.0, 3.5, 0.0, 5.0]
    data = splits(test={"sentence1": left, "sentence2": right, "score": gold})
    theirs = scores(mteb_encoder(encoder), local_task(AbsTaskSTS, "STS", "cosine_spearman", data))
    ours = semantic_similarity(encoder, left, right, gold)
    assert ours.spearman == pytest.approx(theirs["main_score"], abs=CLOSE)
    assert ours.pearson == pytest.approx(theirs["cosine_pearson"], abs=CLOSE)


@mteb_copies_its_tensors
def test_mteb_runs_its_own_mock_of_every_text_task(encoder):
    from mteb.mocks import (
        MockBitextMiningTask,
        MockClassificationTask,
        MockPairClassificationTask,
        MockRerankingTask,
        MockRetrievalTask,
        MockSTSTask,
    )

    kinds = (MockBitextMiningTask, MockClassificationTask, MockPairClassificationTask, MockRerankingTask,
             MockRetrievalTask, MockSTSTask)  # fmt: skip
    tasks = [kind() for kind in kinds]
    done = mteb.evaluate(mteb_encoder(encoder), tasks, cache=None, show_progress_bar=False, co2_tracker=False)
    assert [each.task_name for each in done.task_results] == [task.metadata.name for task in tasks]
    assert all(np.isfinite(each.scores["test"][0]["main_score"]) for each in done.task_results)
