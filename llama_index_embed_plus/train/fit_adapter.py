"""Training examples + the vectors a collection already holds -> a query adapter, in seconds.

Guarantees: starts at the identity; stops early on a slice of the training queries, and returns the best state seen
there, which may be the identity itself; the same seed gives the same adapter on the same machine; memory does not
grow with queries times stored vectors (see `adapter_data` and `adapter_loop`). Does not know: held-out queries.
Whether the adapter may serve is for the caller to decide on those.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llama_index_embed_plus.adapter import QueryAdapter, without_adapter
from llama_index_embed_plus.adapter.maps import unfitted
from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.train.adapter_data import read_pairs
from llama_index_embed_plus.train.adapter_loop import Fit
from llama_index_embed_plus.train.adapter_settings import AdapterSettings
from qdrant_tools.handle import Collection
from qdrant_tools.records import Encoder, Example, Progress

__all__ = ["AdapterReport", "AdapterSettings", "fit_adapter"]


@dataclass(frozen=True)
class AdapterReport:
    """What fitting did. `validation_mrr[0]` is the identity's; entry i belongs to the state after epoch i."""

    losses: tuple[float, ...]
    validation_mrr: tuple[float, ...]
    best_epoch: int
    train_pairs: int
    validation_queries: int
    skipped_examples: int
    seconds: float
    stored_vectors: int = 0

    def as_row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "losses": list(self.losses), "validation_mrr": list(self.validation_mrr)}


def fit_adapter(
    collection: Collection,
    examples: Sequence[Example],
    encoder: Encoder,
    settings: AdapterSettings | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[QueryAdapter, AdapterReport]:
    """Fit an adapter for `encoder`'s queries against the vectors stored in `collection`.

    An adapter that the encoder carries already counts for nothing: the new one takes its place.

    `progress` is called once an epoch; one that takes losses and metrics (`train.progress`) is told those too. In the
    report `train_pairs` counts (query, positive), those of validation among them; `skipped_examples` have no positive
    that the collection holds.

    Raises:
        SpaceMismatchError: the collection holds vectors of another space.
        TrainingError: fewer than 2 examples have a positive that the collection holds, all queries are the same, a
            vector or the loss is not a number, or no example has the negatives that alone are asked for.
    """
    settings = settings or AdapterSettings()
    started = time.perf_counter()
    collection.check(encoder)
    encoder = without_adapter(encoder)
    pairs = read_pairs(collection, examples, encoder, most=settings.max_stored_vectors, seed=settings.seed)
    if settings.negatives == ("mined",) and not any(pairs.mined):
        raise TrainingError("negatives is 'mined' alone, and no example has any: mine some, or add 'collection'")

    start = unfitted(settings.kind, pairs.queries.shape[1], width=settings.width, seed=settings.seed)
    fitted, course = Fit(pairs, settings).run(start, progress=progress)
    report = AdapterReport(
        course.losses,
        course.mrr,
        course.best,
        len(pairs.query),
        course.validation_queries,
        len(examples) - len(pairs.group),
        time.perf_counter() - started,
        len(pairs.stored),
    )
    return QueryAdapter(fitted, encoder.space), report
