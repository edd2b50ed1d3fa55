"""The same files by both roads: our tasks, and mteb's own classes with our encoder; every figure is the same.

The data is what strangers have: queries that are passages, equal texts, grades of all kinds, titles, empty texts, more
cutoffs than passages.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb_tasks import MixedEncoder, UnitEncoder, local_task, scores, sentences
from tiny import client_of

from llama_index_embed_plus.documents.reading import read_passages
from llama_index_embed_plus.evaluate.retrieval.exact import embed_passages
from llama_index_embed_plus.evaluate.retrieval.files import read_qrels, read_queries
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval
from llama_index_embed_plus.evaluate.tasks.layouts import find_tasks
from llama_index_embed_plus.evaluate.tasks.run import TaskOptions, read_task, run_task
from llama_index_embed_plus.integrations.mteb import mteb_encoder, mteb_search
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import UsageError

ROUNDED = 1e-5 + 1e-9
"""mteb rounds to five digits."""
CUTOFFS = (1, 3, 5, 10, 20, 100, 1000)
METRICS = ("ndcg", "map", "recall", "precision", "mrr", "hit_rate")


class Files:
    """A folder in BEIR's layout, and the same rows as mteb's loader gives them."""

    def __init__(self, folder: Path, passages, queries, qrels) -> None:
        self.folder, self.passages, self.queries, self.qrels = folder, passages, queries, qrels
        (folder / "qrels").mkdir(parents=True)
        rows = [{"_id": name, "title": title, "text": text} for name, (title, text) in passages.items()]
        self._jsonl("corpus.jsonl", rows)
        self._jsonl("queries.jsonl", [{"_id": name, "text": text} for name, text in queries.items()])
        lines = [f"{query}\t{passage}\t{grade}" for query, own in qrels.items() for passage, grade in own.items()]
        (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines, ""]))

    def _jsonl(self, name: str, rows) -> None:
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def ours(self, encoder, **options):
        (task,) = find_tasks(self.folder)[0]
        return run_task(task, read_task(task, TaskOptions(**options)), encoder).details

    def evaluated(self, encoder, **options):
        vectors = embed_passages(read_passages(self.folder / "corpus.jsonl"), encoder)
        asked = read_queries(self.folder / "queries.jsonl")
        judged = read_qrels(self.folder / "qrels" / "test.tsv")
        return evaluate_retrieval(vectors, asked, judged, encoder, k=CUTOFFS, **options)

    def mtebs(self, model, **settings):
        corpus = [{"id": name, "title": title, "text": text} for name, (title, text) in self.passages.items()]
        asked = [{"id": name, "text": text} for name, text in self.queries.items()]
        data = RetrievalSplitData(
            corpus=Dataset.from_list(corpus),
            queries=Dataset.from_list(asked),
            relevant_docs={query: dict(own) for query, own in self.qrels.items()},
            top_ranked=None,
        )
        task = local_task(AbsTaskRetrieval, "Retrieval", "ndcg_at_10", {"default": {"test": data}}, **settings)
        return scores(model, task)

    def agree(self, encoder, *, rule="auto", **settings) -> None:
        """All figures of the three roads are one."""
        theirs = self.mtebs(mteb_encoder(encoder, empty="zero"), **settings)
        ours, report = self.ours(encoder, identical_ids=rule), self.evaluated(encoder, identical_ids=rule)
        means = report.means()
        for metric in METRICS:
            for k in CUTOFFS:
                assert means[f"{metric}@{k}"] == pytest.approx(theirs[f"{metric}_at_{k}"], abs=ROUNDED), (metric, k)
        assert ours["ndcg"] == pytest.approx(theirs["ndcg_at_10"], abs=ROUNDED)
        assert ours["mrr"] == pytest.approx(theirs["mrr_at_10"], abs=ROUNDED)
        assert ours["recall"] == pytest.approx(theirs["recall_at_100"], abs=ROUNDED)


SWIM = {"1": ("", "How do I learn to swim?"), "2": ("", "What is the best way to learn swimming?")}


def test_a_query_that_is_a_passage_does_not_find_itself(tmp_path):
    files = Files(tmp_path / "quora", SWIM, {"1": SWIM["1"][1]}, {"1": {"2": 1}})
    files.agree(MixedEncoder(), ignore_identical_ids=True)
    details = files.ours(MixedEncoder())
    assert details["ndcg"] == 1.0 and (details["own_passages_ignored"], details["identical_ids_kept"]) == (1, 0)
    files.agree(MixedEncoder(), rule="keep")
    kept = files.ours(MixedEncoder(), identical_ids="keep")
    assert kept["ndcg"] == pytest.approx(0.63093, abs=ROUNDED)
    assert (kept["own_passages_ignored"], kept["identical_ids_kept"]) == (0, 1)
    with pytest.raises(UsageError, match="identical_ids is 'drop', expected one of auto, ignore, keep"):
        TaskOptions(identical_ids="drop")


def duplicates(folder: Path) -> Files:
    """Like Quora: every query is a passage, and its answers are other ways to say it. More than any cutoff but one."""
    texts, topics = sentences(130, seed=11)
    passages = {str(n): ("", text) for n, text in enumerate(texts)}
    queries = {str(n): texts[n] for n in range(0, 130, 7)}
    qrels = {
        q: {str(n): 1 for n, topic in enumerate(topics) if topic == topics[int(q)] and str(n) != q} for q in queries
    }
    return Files(folder, passages, queries, qrels)


def test_queries_drawn_from_the_corpus_are_as_mteb_has_them_at_every_cutoff(tmp_path):
    files = duplicates(tmp_path / "quora")
    files.agree(MixedEncoder(), ignore_identical_ids=True)
    files.agree(MixedEncoder(), rule="ignore", ignore_identical_ids=True)
    files.agree(MixedEncoder(), rule="keep", ignore_identical_ids=False)
    assert files.ours(MixedEncoder())["own_passages_ignored"] == 19


def test_a_title_before_the_querys_own_text_hides_nothing(tmp_path):
    # ArguAna: the passage has a title, the query is the text alone
    text = "Being vegetarian helps the environment, because farming pollutes rivers and clears forests everywhere."
    passages = {
        "pro02a": ("animals health philosophy", text),
        "pro02b": ("animals health philosophy", "You need not be vegetarian to be green; farming can keep the rivers."),
        "con01a": ("sports", "Collisions at home plate are a part of the game."),
    }
    files = Files(tmp_path / "arguana", passages, {"pro02a": text}, {"pro02a": {"pro02b": 1}})
    files.agree(MixedEncoder(), ignore_identical_ids=True)
    assert files.ours(MixedEncoder())["own_passages_ignored"] == 1


def test_an_id_that_is_the_same_by_chance_stays_unless_beirs_rule_is_asked_for(tmp_path):
    texts, topics = sentences(40, seed=12)
    asked, about = sentences(12, seed=13)
    passages = {str(n): ("", text) for n, text in enumerate(texts)}
    qrels = {str(n): {str(p): 1 for p, topic in enumerate(topics) if topic == about[n]} for n in range(12)}
    files = Files(tmp_path / "fiqa", passages, {str(n): text for n, text in enumerate(asked)}, qrels)
    files.agree(MixedEncoder())  # mteb's default too
    files.agree(MixedEncoder(), rule="ignore", ignore_identical_ids=True)
    details = files.ours(MixedEncoder())
    unjudged = sum(n not in map(int, qrels[str(n)]) for n in range(12))
    assert details["own_passages_ignored"] == 0 and 0 < details["identical_ids_kept"] <= unjudged < 12


def test_a_passage_that_is_judged_relevant_for_its_own_query_is_an_answer(tmp_path):
    # question 7 is answered by passage 7, in a file that somebody made by hand
    passages = {str(n): ("", f"answer{n} w{n} because of reason{n}") for n in range(8)}
    queries = {str(n): f"answer{n} w{n} because of reason{n}" if n == 3 else f"why w{n}" for n in range(8)}
    files = Files(tmp_path / "faq", passages, queries, {str(n): {str(n): 1} for n in range(8)})
    files.agree(MixedEncoder())
    details = files.ours(MixedEncoder())
    assert details["recall"] == 1.0 and (details["own_passages_ignored"], details["identical_ids_kept"]) == (0, 0)


@pytest.mark.parametrize("engine", ["memory", "edge"])
def test_a_collection_leaves_the_query_itself_out_like_mtebs_search_of_it(engine, tmp_path):
    encoder, files = UnitEncoder(), duplicates(tmp_path / "quora")
    for client in client_of(engine, tmp_path):
        collection = CollectionManager(client).ensure("c", encoder)
        theirs = files.mtebs(mteb_search(collection, encoder, exact=True), ignore_identical_ids=True)
        asked, judged = read_queries(files.folder / "queries.jsonl"), read_qrels(files.folder / "qrels" / "test.tsv")
        report = evaluate_retrieval(collection, asked, judged, k=CUTOFFS, exact=True)
        for metric in METRICS:
            for k in CUTOFFS:
                assert report.means()[f"{metric}@{k}"] == pytest.approx(theirs[f"{metric}_at_{k}"], abs=ROUNDED)
        assert report.coverage.own_passages_ignored == len(asked) == 19
        assert all(query not in found and len(found) == 129 for query, found in report.run.items())
        kept = evaluate_retrieval(collection, asked, judged, k=10, exact=True, identical_ids="keep")
        assert kept.coverage.identical_ids_kept == 19 and kept.means()["mrr@10"] <= 0.5
