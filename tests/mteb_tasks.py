"""Small local tasks of mteb, made of rows, and an encoder whose cosines are all different."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from tiny import WordEncoder

TOPICS = ("rivers", "engines", "bread", "music", "winter")


class MixedEncoder(WordEncoder):
    """Bags of words, a little different for every text and for queries: no ties, and roles that can be told apart."""

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        return super().encode_queries([f"query {text}" for text in texts]) + self._own(texts)

    def encode_passages(self, texts: Sequence[str]) -> np.ndarray:
        return WordEncoder.encode_queries(self, texts) + self._own(texts)

    def _own(self, texts: Sequence[str]) -> np.ndarray:
        seeds = [zlib.crc32(text.encode()) for text in texts]
        return np.array([np.random.default_rng(seed).normal(0, 0.02, self.dimension) for seed in seeds], np.float32)


class UnitEncoder(MixedEncoder):
    """The same with length 1, as collections want it."""

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        return unit(super().encode_queries(texts))

    def encode_passages(self, texts: Sequence[str]) -> np.ndarray:
        return unit(super().encode_passages(texts))


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def sentences(count: int, *, seed: int = 0) -> tuple[list[str], list[str]]:
    """Made-up sentences and the topic of each; about half of the words of a sentence are of its topic."""
    draw = random.Random(seed)
    texts, topics = [], []
    for number in range(count):
        topic = draw.choice(TOPICS)
        words = [f"{topic}{draw.randrange(4)}" if draw.random() < 0.5 else f"w{draw.randrange(30)}" for _ in range(9)]
        texts.append(" ".join([*words, f"n{number}"]))
        topics.append(topic)
    return texts, topics


def metadata(name: str, kind: str, main: str) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        type=kind,
        main_score=main,
        description="made up",
        reference="https://example.org",
        dataset={"path": "local", "revision": "1"},
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        date=("2020-01-01", "2020-01-01"),
        domains=[],
        task_subtypes=[],
        license="cc-by-4.0",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )


def local_task(base: type, kind: str, main: str, data: Any, **settings: Any) -> Any:
    """A task of mteb over data that is here already."""

    def load_data(self: Any, num_proc: int | None = None, **unused: Any) -> None:
        self.dataset, self.data_loaded = data, True

    members = {"metadata": metadata(f"Local{kind}", kind, main), "load_data": load_data, **settings}
    return type(f"Local{kind}", (base,), members)()


def splits(**columns_by_split: Mapping[str, Sequence[Any]]) -> DatasetDict:
    return DatasetDict({name: Dataset.from_dict(dict(columns)) for name, columns in columns_by_split.items()})


def retrieval_data(
    passages: Mapping[str, str],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    top_ranked: Mapping[str, list[str]] | None = None,
) -> dict[str, dict[str, RetrievalSplitData]]:
    corpus = [{"id": name, "text": text, "title": ""} for name, text in passages.items()]
    asked = [{"id": name, "text": text} for name, text in queries.items()]
    grades = {query: dict(judged) for query, judged in qrels.items()}
    ranked = None if top_ranked is None else dict(top_ranked)
    data = RetrievalSplitData(
        corpus=Dataset.from_list(corpus), queries=Dataset.from_list(asked), relevant_docs=grades, top_ranked=ranked
    )
    return {"default": {"test": data}}


def scores(model: Any, task: Any) -> dict[str, Any]:
    """What mteb says of a model on a task, without its cache."""
    done = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
    return done.task_results[0].scores["test"][0]
