"""A collection, and training examples or none -> a query adapter, in seconds, by numpy alone.

Without examples the adapter is made of what the collection holds: the shape of its vectors, and pseudo-queries of its
texts. Nothing measures whether that helps; on examples every candidate is measured by queries it was not fitted on.

Guarantees: the identity is a candidate, and is returned where examples say surely enough that no map is better. Queries
that share an answer are apart from each other, unless the settings let them. The same seed gives the same adapter on
the same machine. Does not know: held-out queries. Whether the adapter may serve is decided on those, by the caller.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llama_index_embed_plus.encoders.adapter import QueryAdapter
from llama_index_embed_plus.evaluate.retrieval.comparison import Change, mean_change
from llama_index_embed_plus.training.adapter.fit import Candidate, FittedMap, fit_map
from llama_index_embed_plus.training.adapter.ranking import DEPTH
from llama_index_embed_plus.training.adapter.read import read_data
from llama_index_embed_plus.training.settings import AdapterSettings
from llama_index_embed_plus.training.trainer.progress import report_metric
from qdrant_tools.collections.collection import Collection
from qdrant_tools.records import Encoder, Example, Progress
from qdrant_tools.search.adapters import FullMap, without_adapter

__all__ = ["AdapterReport", "AdapterSettings", "fit_adapter"]


@dataclass(frozen=True)
class AdapterReport:
    """What fitting did.

    chosen: the name of the map, see `AdapterSettings.candidates`; a fitted one with its loss and steps.
    candidates: the name of each map that was tried -> its loss of queries that it was not fitted on; see `choice` for
        how much less it must be than that of the last map that needs no labels.
    validation: nDCG@10 of the queries without the adapter and with it, each by a map that was fitted without its fold,
        and the 95 % interval. None without examples. Of clicks it favours the base, which had ranked what was clicked;
        and the choice was made on the same queries. Held-out queries say more.
    losses: the training loss before each step, as a mean over the folds; () of a map that needs no examples.
    pseudo: the passages that pseudo-queries were made of.
    """

    chosen: str
    candidates: dict[str, float]
    validation: Change | None
    losses: tuple[float, ...]
    train_pairs: int
    validation_queries: int
    skipped_examples: int
    seconds: float
    stored_vectors: int = 0
    pseudo: tuple[str, ...] = field(default=(), repr=False)

    def as_row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "losses": list(self.losses), "pseudo": len(self.pseudo)}


def fit_adapter(
    collection: Collection,
    examples: Sequence[Example] | None = None,
    encoder: Encoder | None = None,
    settings: AdapterSettings | None = None,
    *,
    known_items: Container[str] | None = None,
    hidden: Iterable[str] = (),
    progress: Progress | None = None,
) -> tuple[QueryAdapter, AdapterReport]:
    """Fit an adapter for `encoder`'s queries (the collection's own, if none is given) against the stored vectors.

    If the encoder has an adapter already, the new one is fitted without it and replaces it.

    known_items: the passages that a proof will ask for by their beginnings (`known_item_ids`). No pseudo-query is made
    of them, at most a third of the collection. None: of `AdapterSettings.spared` passages that no example names.

    hidden: passages that are kept from the fit, as `cross_fit` needs it: taken neither as answers nor as negatives.

    `progress` is called after each of `AdapterSettings.fits` fits; one that takes metrics (`TrainingProgress`) gets the
    validation too. In the report `train_pairs` counts (query, positive), and `skipped_examples` have no positive that
    the collection holds.

    Raises:
        SpaceMismatchError: the collection holds vectors of another space.
        TrainingError: there are examples, and fewer than 2 have a positive that the collection holds, or all queries
            are the same; there are none, and no pseudo-query can be made; the collection is empty; a vector or the
            loss is not a number.
    """
    settings = settings or AdapterSettings()
    started = time.perf_counter()
    encoder = encoder or collection.required_encoder()
    collection.check(encoder)
    read = read_data(collection, examples, without_adapter(encoder), settings, known_items, hidden)
    fitted = fit_map(read.data, settings, hidden=read.hidden, progress=progress)
    validation = _validation(fitted, settings.seed)
    if validation is not None:
        report_metric(progress, "loss out of fold", fitted.chosen.loss)
    report = AdapterReport(
        fitted.chosen.name,
        {each.name: each.loss for each in fitted.candidates} if validation is not None else {},
        validation,
        fitted.losses,
        read.pairs,
        len(fitted.judged),
        len(examples or ()) - read.examples,
        time.perf_counter() - started,
        len(read.data.stored),
        read.pseudo,
    )
    return QueryAdapter(FullMap(fitted.weight), encoder.space), report


def _validation(fitted: FittedMap, seed: int) -> Change | None:
    if not len(fitted.judged):
        return None
    before, after = (_by_query(fitted, each) for each in (fitted.candidates[0], fitted.chosen))
    return mean_change(f"ndcg@{DEPTH}", before, after, seed=seed)


def _by_query(fitted: FittedMap, candidate: Candidate) -> dict[str, float]:
    return dict(zip(map(str, fitted.judged.tolist()), candidate.ndcg_of.tolist(), strict=True))
