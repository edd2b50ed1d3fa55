"""Every protocol by both roads: the files of a benchmark folder by our tasks, and the same rows by mteb's own classes.

The rows are adversarial: equal texts, grades of every kind, queries nobody judged, passages nobody has, labels that are
rare, scores below 0. What is ours and not mteb's stands in the table of docs/tasks.md, and is held here too.
"""

from __future__ import annotations

import json
import random
import zlib

import numpy as np
import pytest
from datasets import Dataset
from mteb._evaluators.text.summarization_evaluator import DeprecatedSummarizationEvaluator
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining
from mteb.abstasks.text.reranking import AbsTaskReranking
from mteb.abstasks.text.summarization import AbsTaskSummarization
from mteb_tasks import local_task, scores, sentences, splits, unit
from tiny import DirectionEncoder

from llama_index_embed_plus.documents.reading import read_passages
from llama_index_embed_plus.evaluate.retrieval.exact import embed_passages
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.evaluate.tasks.labels import (
    ClassificationSettings,
    ClusteringSettings,
    classification,
    clustering,
)
from llama_index_embed_plus.evaluate.tasks.layouts import find_tasks
from llama_index_embed_plus.evaluate.tasks.pairs import bitext_mining
from llama_index_embed_plus.evaluate.tasks.run import TaskOptions, read_task, run_task
from llama_index_embed_plus.integrations.mteb import mteb_encoder

CLOSE = 1e-6
CUTOFFS = (1, 3, 5, 10, 20, 100, 1000)
NAMES = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:Precision is ill-defined"),
]


class SignedEncoder(DirectionEncoder):
    """Cosines of both signs, all different for different texts; queries and passages are told apart."""

    def encode_queries(self, texts):
        return self._mixed(texts, "query")

    def encode_passages(self, texts):
        return self._mixed(texts, "passage")

    def _mixed(self, texts, role):
        own = np.array([np.random.default_rng(zlib.crc32(text.encode())).normal(size=64) for text in texts])
        vectors = DirectionEncoder.encode_queries(self, [f"{role} {text}" for text in texts])
        lengths = np.array([[1 + zlib.crc32(text.encode()) % 1000 / 1000] for text in texts])
        return unit(vectors + 0.03 * own) * lengths.astype(np.float32)


@pytest.fixture
def encoder():
    return SignedEncoder()


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def ours(folder, encoder, kind=None, **options):
    """What `embed-plus benchmark` measures of the one task in a folder, or of the one of that kind."""
    (task,) = [task for task in find_tasks(folder)[0] if kind in (None, task.kind)]
    return run_task(task, read_task(task, TaskOptions(**options)), encoder)


class Search:
    """Passages (title and text), queries and grades, as a folder and as mteb's rows."""

    def __init__(self, folder, passages, queries, qrels):
        self.folder, self.passages, self.queries, self.qrels = folder, passages, queries, qrels
        jsonl(
            folder / "corpus.jsonl", ({"_id": p, "title": title, "text": text} for p, (title, text) in passages.items())
        )
        jsonl(folder / "queries.jsonl", ({"_id": query, "text": text} for query, text in queries.items()))
        lines = [f"{query}\t{p}\t{grade}" for query, own in qrels.items() for p, grade in own.items()]
        (folder / "qrels").mkdir()
        (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines, ""]))

    def report(self, encoder):
        vectors = embed_passages(read_passages(self.folder / "corpus.jsonl"), encoder)
        asked, judged = read_queries(self.folder / "queries.jsonl"), read_qrels(self.folder / "qrels" / "test.tsv")
        return evaluate_retrieval(vectors, asked, judged, encoder, k=CUTOFFS)

    def theirs(self, encoder, **settings):
        """(mteb's means, its values per query before they are rounded)."""
        values = {}

        def keep(self, scores, qrels, results, hf_split, hf_subset):
            values.update(scores)
            return {}

        data = RetrievalSplitData(
            corpus=Dataset.from_list([{"id": p, "title": a, "text": b} for p, (a, b) in self.passages.items()]),
            queries=Dataset.from_list([{"id": query, "text": text} for query, text in self.queries.items()]),
            relevant_docs={query: dict(own) for query, own in self.qrels.items() if query in self.queries},
            top_ranked=None,
        )
        members = {"task_specific_scores": keep, **settings}
        task = local_task(AbsTaskRetrieval, "Retrieval", "ndcg_at_10", {"default": {"test": data}}, **members)
        return scores(mteb_encoder(encoder, empty="zero"), task), values

    def agree(self, encoder, **settings):
        means, values = self.theirs(encoder, **settings)
        report, figure = self.report(encoder), ours(self.folder, encoder)
        assert report.ndcg.keys() == values.keys()
        for name, other in NAMES.items():
            for k in CUTOFFS:
                for query, value in report.values[f"{name}@{k}"].items():
                    assert value == pytest.approx(values[query][f"{other}_{k}"], abs=CLOSE), (name, k, query)
        for k in CUTOFFS:
            assert report.means()[f"mrr@{k}"] == pytest.approx(means[f"mrr_at_{k}"], abs=CLOSE), k
        assert figure.value == pytest.approx(np.mean([own["ndcg_cut_10"] for own in values.values()]), abs=CLOSE)
        recalls = [own["recall_100"] for own in values.values()]
        assert figure.details["recall"] == pytest.approx(np.mean(recalls), abs=CLOSE)
        assert figure.details["mrr"] == pytest.approx(means["mrr_at_10"], abs=CLOSE)
        return figure.details


def searched(folder, count):
    """Titles on some passages, equal texts of equal grade, grades from -1 to 3, and judgements of what is not there."""
    texts, topics = sentences(count, seed=21)
    passages = {f"p{n}": ("", "title", f"about {topic}")[n % 3] for n, topic in enumerate(topics)}
    passages = {p: (title, text) for (p, title), text in zip(passages.items(), texts)}
    passages |= {"twin-a": ("", texts[0]), "twin-b": ("", texts[0])}  # of p0, and nobody judged them
    asked, about = sentences(9, seed=22)
    queries = {f"q{n}": text for n, text in enumerate(asked)} | {"unjudged": "who asks this"}
    qrels = {
        f"q{n}": {p: (1, 2, 3, 0, -1)[i % 5] for i, (p, topic) in enumerate(zip(list(passages)[1:count], topics[1:]))
                  if topic == about[n]}
        for n in range(9)
    }  # fmt: skip
    qrels["q1"]["gone"] = 2
    qrels["q2"] = {"gone": 1, "lost": 3}
    qrels["q3"] = {"p1": 0, "p2": 0}
    qrels["q4"] = {"p1": -1, "p3": 0}
    qrels["nobody-asked"] = {"p1": 1}
    return Search(folder, passages, queries, {query: own for query, own in qrels.items() if own})


@pytest.mark.parametrize("count", [40, 5])
def test_retrieval(tmp_path, encoder, count):
    details = searched(tmp_path / "search", count).agree(encoder)
    assert (details["unknown_queries"], details["without_relevant"]) == (1, 2)


def test_the_place_of_the_query_itself_is_filled_where_mteb_leaves_it_empty(tmp_path, encoder):
    texts, _ = sentences(1003, seed=30)
    passages = {f"p{n}": ("", text) for n, text in enumerate(texts)}
    search = Search(tmp_path / "own", passages, {"p0": texts[0]}, {"p0": {f"p{n}": 1 for n in range(1, 1003)}})
    _, values = search.theirs(encoder, ignore_identical_ids=True)
    means = search.report(encoder).means()
    assert (values["p0"]["recall_1000"], means["recall@1000"]) == pytest.approx((999 / 1002, 1000 / 1002))
    assert (values["p0"]["recall_100"], means["recall@100"]) == pytest.approx((100 / 1002, 100 / 1002))


def pairs():
    """Pairs that are equal, pairs the other way round, a pair twice, and pairs with half of their words in common."""
    texts, _ = sentences(60, seed=23)
    draw = random.Random(5)
    left = [*texts, texts[1]]
    right = [text if n % 3 == 0 else " ".join(draw.sample(text.split(), 5)) for n, text in enumerate(texts)]
    return [*left, right[4], left[7]], [*right, right[1], left[4], right[7]]


def test_similarity_with_scores_of_any_scale_and_pairs_of_equal_texts(tmp_path, encoder):
    left, right = pairs()
    draw = random.Random(6)
    gold = [draw.choice([-2.5, -0.5, 0.0, 1.25, 3.0, 80.0]) for _ in left]
    rows = zip(left, right, gold)
    jsonl(tmp_path / "sts" / "test.jsonl", ({"sentence1": a, "sentence2": b, "score": score} for a, b, score in rows))
    data = splits(test={"sentence1": left, "sentence2": right, "score": gold})
    theirs = scores(mteb_encoder(encoder), local_task(AbsTaskSTS, "STS", "cosine_spearman", data))
    details = ours(tmp_path, encoder).details
    assert details["spearman"] == pytest.approx(theirs["main_score"], abs=CLOSE)
    assert details["pearson"] == pytest.approx(theirs["cosine_pearson"], abs=CLOSE)
    asked = scores(mteb_encoder(encoder, role="query"), local_task(AbsTaskSTS, "STS", "cosine_spearman", data))
    assert ours(tmp_path, encoder, role="query").value == pytest.approx(asked["main_score"], abs=CLOSE)
    assert asked["main_score"] != pytest.approx(theirs["main_score"], abs=CLOSE)


def test_pair_classification_with_pairs_of_equal_texts(tmp_path, encoder):
    left, right = pairs()
    draw = random.Random(6)
    labels = [draw.choice([0, 0, 1]) for _ in left]
    rows = zip(left, right, labels)
    jsonl(tmp_path / "same" / "test.jsonl", ({"sentence1": a, "sentence2": b, "label": label} for a, b, label in rows))
    data = splits(test={"sentence1": left, "sentence2": right, "labels": labels})
    theirs = scores(mteb_encoder(encoder), local_task(AbsTaskPairClassification, "PairClassification", "max_ap", data))
    details = ours(tmp_path, encoder).details
    for name in ("ap", "f1", "precision", "recall", "accuracy"):
        assert details[name] == pytest.approx(theirs[f"cosine_{name}"], abs=CLOSE), name
    # the one that is left out rounds the product of equal vectors
    others = [theirs[f"{name}_ap"] for name in ("cosine", "dot", "manhattan", "euclidean")]
    assert details["max_ap"] == pytest.approx(max(others), abs=CLOSE)


CODED = {
    "rare": [lambda n, code: 7 if n < 3 else code, lambda n, code: 7 if n < 2 else code],
    "two": [lambda n, code: int(code > 0), lambda n, code: int(code > 0)],
}


@pytest.mark.parametrize("name", CODED)
def test_classification_with_rare_labels(tmp_path, encoder, name):
    train, topics = sentences(70, seed=25)
    test, wanted = sentences(30, seed=26)
    names = sorted(set(topics))
    coded, expected = (
        [code(n, names.index(topic)) for n, topic in enumerate(of)] for code, of in zip(CODED[name], (topics, wanted))
    )
    for split, texts, labels in (("train", train, coded), ("test", test, expected)):
        rows = zip(texts, labels)
        jsonl(tmp_path / "c" / f"{split}.jsonl", ({"text": text, "label": label} for text, label in rows))
    data = splits(train={"text": train, "label": coded}, test={"text": test, "label": expected})
    theirs = scores(mteb_encoder(encoder), local_task(AbsTaskClassification, "Classification", "accuracy", data))
    details = ours(tmp_path, encoder, kind="classification").details
    assert list(details["accuracies"]) == [each["accuracy"] for each in theirs["scores_per_experiment"]]
    for metric in ("accuracy", "f1", "f1_weighted") + (("ap",) if name == "two" else ()):
        assert details[metric] == pytest.approx(theirs[metric], abs=CLOSE), metric
    # the other numbers that mteb's tasks set
    members = {"samples_per_label": 3, "n_experiments": 2}
    few = local_task(AbsTaskClassification, "Classification", "f1", data, **members)
    settings = ClassificationSettings(samples_per_label=3, experiments=2)
    found = classification(encoder, (train, coded), (test, expected), settings=settings)
    assert found.f1 == pytest.approx(scores(mteb_encoder(encoder), few)["main_score"], abs=CLOSE)


def test_clustering_leaves_out_what_has_no_label(encoder):
    texts, topics = sentences(90, seed=24)
    names = sorted(set(topics))
    codes = [-1 if n % 7 == 0 else names.index(topic) for n, topic in enumerate(topics)]
    data = splits(test={"sentences": texts, "labels": codes})
    members = {"max_fraction_of_documents_to_embed": None, "max_documents_per_cluster": 200, "n_clusters": 3}
    theirs = scores(mteb_encoder(encoder), local_task(AbsTaskClustering, "Clustering", "v_measure", data, **members))
    settings = ClusteringSettings(experiments=3, sample=200)
    found = clustering(encoder, texts, codes, settings=settings)
    assert list(found.v_measures) == pytest.approx(theirs["v_measures"]["Level 0"], abs=CLOSE)
    assert (found.labels, found.texts, found.unlabelled) == (5, 77, 13)
    assert clustering(encoder, texts, list(map(str, codes)), settings=settings) == found


def test_each_level_of_mtebs_hierarchies_is_a_clustering_of_its_own(encoder):
    texts, topics = sentences(60, seed=27)
    levels = [[topic, f"{topic} {n % 2}"] for n, topic in enumerate(topics)]
    data = splits(test={"sentences": texts, "labels": levels})
    members = {"max_fraction_of_documents_to_embed": None, "max_documents_per_cluster": 200, "n_clusters": 2}
    theirs = scores(mteb_encoder(encoder), local_task(AbsTaskClustering, "Clustering", "v_measure", data, **members))
    settings = ClusteringSettings(experiments=2, sample=200)
    found = clustering(encoder, texts, topics, settings=settings)
    assert list(found.v_measures) == pytest.approx(theirs["v_measures"]["Level 0"], abs=CLOSE)


def test_bitext_mining_goes_from_the_first_text_to_the_second(tmp_path, encoder):
    left, right = pairs()
    left, right = left[:60], right[:60]
    jsonl(tmp_path / "bi" / "test.jsonl", ({"sentence1": a, "sentence2": b} for a, b in zip(left, right)))
    data = splits(test={"sentence1": left, "sentence2": right})
    theirs = scores(mteb_encoder(encoder), local_task(AbsTaskBitextMining, "BitextMining", "f1", data))
    details = ours(tmp_path, encoder).details
    assert 0 < details["accuracy"] < 1
    for name in ("f1", "precision", "recall", "accuracy"):
        assert details[name] == pytest.approx(theirs[name], abs=CLOSE), name


def test_of_equal_translations_the_first_is_taken(encoder):
    texts, _ = sentences(40, seed=31)
    found = bitext_mining(encoder, texts[:20], [*texts[:20], *texts, *texts[:20]], gold=range(20))
    assert found.accuracy == 1.0


def test_reranking(tmp_path, encoder, monkeypatch):
    texts, _ = sentences(90, seed=28)
    rows = [
        {"query": f"{texts[n]} {texts[n + 1]}", "positive": texts[n : n + 1 + n % 3], "negative": texts[n + 3 : n + 15]}
        for n in range(0, 60, 6)
    ]
    rows.append({"query": rows[0]["query"], "positive": rows[1]["positive"], "negative": texts[70:74]})  # a query twice
    rows.append({"query": "one word of it", "positive": texts[80:81], "negative": [texts[81], *texts[80:82]]})  # a tie
    rows += [{"query": "w1", "positive": texts[:2], "negative": []}, {"query": "w2", "positive": [], "negative": texts}]
    jsonl(tmp_path / "rerank" / "test.jsonl", rows)
    monkeypatch.setattr("mteb.abstasks.text.reranking.OLD_FORMAT_RERANKING_TASKS", ["LocalReranking"])
    task = local_task(AbsTaskReranking, "Reranking", "map_at_1000", None)
    task.transform_old_dataset_format({"default": {"test": Dataset.from_list(rows)}})
    theirs = scores(mteb_encoder(encoder), task)
    details = ours(tmp_path, encoder).details
    assert (details["queries"], details["skipped"]) == (12, 2)
    for name, other in (("map", "map_at_1000"), ("mrr", "mrr_at_10"), ("ndcg", "ndcg_at_10")):
        assert details[name] == pytest.approx(theirs[other], abs=1e-5), name  # mteb rounds to five digits


def test_summarisation(tmp_path, encoder):
    texts, _ = sentences(80, seed=29)
    draw = random.Random(7)
    rows = [
        {"human_summaries": texts[n : n + 3], "machine_summaries": texts[n + 3 : n + 8],
         "relevance": [draw.choice([-1.0, 0.0, 1.5, 90.0, float(n)]) for _ in range(5)]}
        for n in range(0, 60, 5)
    ]  # fmt: skip
    rows.append({"human_summaries": texts[:1], "machine_summaries": texts[1:3], "relevance": [2.0, 2.0]})
    rows.append({"human_summaries": texts[:1], "machine_summaries": texts[1:2] * 3, "relevance": [1.0, 2.0, 3.0]})
    rows.append({"human_summaries": texts[:1], "machine_summaries": texts[1:2], "relevance": [2.0]})
    jsonl(tmp_path / "summaries" / "test.jsonl", rows)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    data = splits(test={"text": ["source"] * len(rows), **columns})

    def measured(**members):
        task = local_task(
            AbsTaskSummarization, "Summarization", "cosine_spearman", data, min_score=0, max_score=5, **members
        )
        return scores(mteb_encoder(encoder), task)

    theirs, details = measured(), ours(tmp_path, encoder).details
    assert details["spearman"] == pytest.approx(theirs["main_score"], abs=CLOSE)
    assert details["pearson"] == pytest.approx(theirs["cosine_pearson"], abs=CLOSE)
    assert (details["texts"], details["skipped"]) == (12, 3)
    # mteb's first SummEval, in which p-values are averaged with the correlations
    first = measured(evaluator=DeprecatedSummarizationEvaluator)
    assert first["main_score"] != pytest.approx(details["spearman"], abs=0.01)
