"""A model in training and some of the held-out queries -> a first look at the held-out metric while training runs.

Up to 100 queries are searched in their answers and a sample of 400 other passages: at the start, at every quarter of
the run and at the end of every epoch. A search among so few is easier than the real one. The figure shows whether
training goes the right way; `proof` says whether it arrived.

Guarantees: the model's state and every random state are as before, so that training goes on as if nobody had looked;
nothing is computed unless the progress takes metrics. Does not know: when to stop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback

from llama_index_embed_plus.models.spec import EncoderSpec
from llama_index_embed_plus.training.proof.corpus import SearchCorpus
from llama_index_embed_plus.training.trainer.progress import TrainingProgress
from qdrant_tools.collections.collection import Collection
from qdrant_tools.metrics import mean, ndcg
from qdrant_tools.records import HeldOut, Progress, Vectors

METRIC = "sampled ndcg@10"
_QUERIES, _OTHER_PASSAGES, _LOOKS = 100, 400, 4


class SampledEvaluator:
    """Some held-out queries and passages, embedded anew each time it is called with a model."""

    def __init__(
        self, held_out: HeldOut, spec: EncoderSpec, *, collection: Collection | None = None, seed: int = 0
    ) -> None:
        answerable = held_out.answerable
        drawn = np.sort(np.random.default_rng(seed).permutation(len(answerable))[:_QUERIES])
        queries = tuple(answerable[int(i)] for i in drawn)
        sample = HeldOut(queries, {query.id: held_out.qrels[query.id] for query in queries}, held_out.passages)
        corpus = SearchCorpus(sample, collection, most=len(sample.relevant) + _OTHER_PASSAGES, seed=seed)
        self._spec, self._qrels, self._corpus = spec, corpus.qrels, corpus
        self._queries = {query.id: query.text for query in queries}
        self._passages = [passage.text for passage in corpus.passages(corpus.ids)]

    def __call__(self, model: SentenceTransformer) -> float:
        """nDCG@10 over the sample."""
        training = model.training
        model.eval()  # no dropout: nothing is drawn
        try:
            queries = self._embedded(model, list(self._queries.values()), self._spec.query_prompt)
            passages = self._embedded(model, self._passages, self._spec.passage_prompt)
        finally:
            model.train(training)
        run = self._corpus.run(passages, list(self._queries), queries, k=10)
        return mean(ndcg(self._qrels, run, k=10))

    def _embedded(self, model: SentenceTransformer, texts: list[str], prompt: str) -> Vectors:
        rows = model.encode(texts, prompt=prompt or None, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(rows, np.float32)


class EvaluationCallback(TrainerCallback):  # type: ignore[misc]
    """Measures `model` while it is trained and reports the figures to a progress."""

    def __init__(self, model: SentenceTransformer, probe: SampledEvaluator, progress: TrainingProgress) -> None:
        self._model, self._probe, self._progress = model, probe, progress
        self._last = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._look(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % max(1, state.max_steps // _LOOKS) == 0:
            self._look(state.global_step)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._look(state.global_step)

    def _look(self, step: int) -> None:
        # the end of an epoch is also the end of a step
        if step != self._last:
            self._last = step
            self._progress.measured(METRIC, self._probe(self._model))


def evaluation_callbacks(
    model: SentenceTransformer,
    held_out: HeldOut | None,
    spec: EncoderSpec,
    progress: Progress | None,
    *,
    collection: Collection | None = None,
) -> list[EvaluationCallback]:
    """Return the callbacks that a trainer needs to show a held-out metric: none unless somebody watches."""
    if held_out is None or not isinstance(progress, TrainingProgress) or not (held_out.passages or collection):
        return []
    return [EvaluationCallback(model, SampledEvaluator(held_out, spec, collection=collection), progress)]
