"""What a training run tells while it runs -> one line for whoever watches: steps, loss, held-out metric, time left.

`train` takes any `Progress`, a callable for the number of finished steps. One that also has `loss` and `measured` is
told more: `tell_loss` and `tell_metric` find out. `Meter` is such a one.

Guarantees: a plain `Progress` works everywhere; nothing is printed. Does not know: terminals.

A model in training and some of the held-out queries -> a first look at the held-out metric, for whoever watches.

Up to 100 queries are asked over their answers and a sample of 400 other passages, at the start, at every quarter of the
run and at the end of every epoch. A search among so few is easier than the real one: the figure says whether training
goes the right way, `proof` says whether it arrived.

Guarantees: the model's state and every random state are as before, so that training goes on as if nobody had looked;
nothing is computed unless the progress takes metrics. Does not know: when to stop.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback

from llama_index_embed_plus.evaluate.retrieval.exact import PassageVectors
from llama_index_embed_plus.models.spec import EncoderSpec
from llama_index_embed_plus.training.proof.proof import Searched
from qdrant_tools.collections.collection import Collection
from qdrant_tools.metrics import mean, ndcg
from qdrant_tools.records import HeldOut, Progress, Vectors

_LOSSES_AVERAGED = 20
_STEPS_TIMED = 50


@runtime_checkable
class TrainingProgress(Protocol):
    """A `Progress` that also takes losses and held-out metrics."""

    def __call__(self, steps: int, /) -> None: ...

    def loss(self, value: float) -> None: ...

    def measured(self, name: str, value: float) -> None: ...


def tell_loss(progress: Progress | None, value: float) -> None:
    """Pass on the loss of the last step, if `progress` takes losses."""
    if isinstance(progress, TrainingProgress):
        progress.loss(value)


def tell_metric(progress: Progress | None, name: str, value: float) -> None:
    """Pass on a metric on held-out data, if `progress` takes metrics."""
    if isinstance(progress, TrainingProgress):
        progress.measured(name, value)


class Meter:
    """Collects what a run tells. `total` is the number of planned steps; 0 or less: not known.

    `show` is called after each change, with this meter. Time left is judged by the last steps, so that steps that were
    done before an interruption, which arrive all at once, do not make it look fast.
    """

    def __init__(
        self, total: int, *, show: Callable[[Meter], None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.steps = total, 0
        self.metrics: dict[str, float] = {}
        self._losses: deque[float] = deque(maxlen=_LOSSES_AVERAGED)
        self._times: deque[tuple[int, float]] = deque([(0, clock())], maxlen=_STEPS_TIMED)
        self._show, self._clock = show, clock

    def __call__(self, steps: int, /) -> None:
        if steps > 1:  # a resumed run starts where it stopped
            self._times.clear()
        self.steps += steps
        self._times.append((self.steps, self._clock()))
        self._changed()

    def loss(self, value: float) -> None:
        self._losses.append(value)
        self._changed()

    def measured(self, name: str, value: float) -> None:
        self.metrics[name] = value
        self._changed()

    @property
    def mean_loss(self) -> float | None:
        """Mean loss of the last steps; a single one says little. None before the first."""
        return sum(self._losses) / len(self._losses) if self._losses else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last planned step, judged by the steps just done; None if that cannot be told."""
        (first, began), (last, now) = self._times[0], self._times[-1]
        if self.total <= 0 or last <= first:
            return None
        return max(0, self.total - self.steps) * (now - began) / (last - first)

    def line(self) -> str:
        """All of it in one line, such as `step 120/400  loss 0.312  ndcg@10 0.842  1:23 left`."""
        parts = [f"step {self.steps}" + (f"/{self.total}" if self.total > 0 else "")]
        if self.mean_loss is not None:
            parts.append(f"loss {self.mean_loss:.3f}")
        parts += [f"{name} {value:.3f}" for name, value in self.metrics.items()]
        if (left := self.seconds_left) is not None:
            parts.append(f"{clock_time(left)} left")
        return "  ".join(parts)

    def _changed(self) -> None:
        if self._show is not None:
            self._show(self)


def clock_time(seconds: float) -> str:
    """Write a duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


METRIC = "sampled ndcg@10"
_QUERIES, _OTHER_PASSAGES, _LOOKS = 100, 400, 4


class Probe:
    """Some held-out queries and passages, embedded anew each time it is called with a model."""

    def __init__(
        self, held_out: HeldOut, spec: EncoderSpec, *, collection: Collection | None = None, seed: int = 0
    ) -> None:
        answerable = held_out.answerable
        drawn = np.sort(np.random.default_rng(seed).permutation(len(answerable))[:_QUERIES])
        queries = tuple(answerable[int(i)] for i in drawn)
        asked = HeldOut(queries, {query.id: held_out.qrels[query.id] for query in queries}, held_out.passages)
        searched = Searched(asked, collection, most=len(asked.relevant) + _OTHER_PASSAGES, seed=seed)
        self._spec, self._qrels, self._ids = spec, asked.qrels, searched.ids
        self._queries = {query.id: query.text for query in queries}
        self._passages = [passage.text for passage in searched.passages(searched.ids)]

    def __call__(self, model: SentenceTransformer) -> float:
        """nDCG@10 over the sample."""
        training = model.training
        model.eval()  # no dropout: nothing is drawn
        try:
            queries = self._embedded(model, list(self._queries.values()), self._spec.query_prompt)
            passages = self._embedded(model, self._passages, self._spec.passage_prompt)
        finally:
            model.train(training)
        run = PassageVectors(self._ids, passages).search(list(self._queries), queries, k=10)
        return mean(ndcg(self._qrels, run, k=10))

    def _embedded(self, model: SentenceTransformer, texts: list[str], prompt: str) -> Vectors:
        rows = model.encode(texts, prompt=prompt or None, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(rows, np.float32)


class Looks(TrainerCallback):  # type: ignore[misc]
    """Tells a progress what a probe finds while `model` is trained."""

    def __init__(self, model: SentenceTransformer, probe: Probe, progress: TrainingProgress) -> None:
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
        if step != self._last:
            self._last = step
            self._progress.measured(METRIC, self._probe(self._model))


def looks(
    model: SentenceTransformer,
    held_out: HeldOut | None,
    spec: EncoderSpec,
    progress: Progress | None,
    *,
    collection: Collection | None = None,
) -> list[Looks]:
    """Return the callbacks that a trainer needs to show a held-out metric: none unless somebody watches."""
    if held_out is None or not isinstance(progress, TrainingProgress) or not (held_out.passages or collection):
        return []
    return [Looks(model, Probe(held_out, spec, collection=collection), progress)]
