"""Two encoders and held-out queries -> whether the second one may take the place of the first.

Measured are nDCG@k, MRR and recall of both over the same passages by exact search, with paired bootstrap intervals,
and what the second has forgotten on a general set (`forgetting`). Harmless, and so promotable, is an encoder if both
hold; a reason for each that does not is in `refusals`:

1. On the held-out queries, the 95 % interval of the difference in nDCG@k lies above `-margin`. With the default
   margin of 0 the gain has to be proved: a change that is not proved better can only cost. A margin above 0 accepts
   what is proved not to be worse by more than that, as for a smaller or faster model. One metric decides, named
   beforehand: to accept any of three would triple the false alarms. MRR and recall are only reported.
2. On the general set, the interval of the difference lies above `-forgetting_margin`. Nothing has to be gained there,
   but a loss of 2 points or more must be excluded.

An interval that is wide because there is little data excludes nothing: too little evidence is a refusal, never a pass.
Below `min_queries` queries no interval is believed, since a bootstrap over a handful of values is too narrow.

Guarantees: queries without a relevant passage are left out and counted; the same inputs and seed give the same proof.
Does not know: how either encoder was made, and nothing that the held-out queries do not ask about.
"""

from __future__ import annotations

from collections.abc import Collection as Container
from collections.abc import Iterator
from dataclasses import dataclass, replace

from llama_index_embed_plus.evaluate.retrieval.comparison import (
    Change,
    QueryChange,
    improved,
    mean_change,
    query_changes,
    worsened,
)
from llama_index_embed_plus.evaluate.retrieval.exact import PassageVectors
from llama_index_embed_plus.training.limits import LARGEST_SEED, check_number, check_whole
from llama_index_embed_plus.training.proof.corpus import SearchCorpus, general_passages
from llama_index_embed_plus.training.proof.forgetting import (
    Forgetting,
    General,
    KnownItems,
    known_items,
    measure_forgetting,
)
from llama_index_embed_plus.training.proof.plot_data import PlotData, QueryPassageVectors, plot_data
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import UsageError
from qdrant_tools.metrics import ndcg, recall, reciprocal_rank
from qdrant_tools.records import Encoder, HeldOut, Qrels, Run

__all__ = ["HeldOut", "Proof", "ProofSettings", "QueryChange", "prove"]


@dataclass(frozen=True)
class ProofSettings:
    """What to measure and what to ask for; margins are differences of means, 0.02 is 2 points."""

    k: int = 10
    margin: float = 0.0
    forgetting_margin: float = 0.02
    min_queries: int = 20
    """Held-out queries, and items of the general set, below which no interval is believed."""
    max_passages: int = 50_000
    known_items: int = 700
    """Size of the general set where none is given; 0: what was forgotten is not measured and not asked for. With 700
    items the interval reaches about 1 point to each side, as the default margin needs: few items exclude nothing."""
    seed: int = 0
    texts: bool = False
    """Whether `wins` and `losses` hold the queries' texts beside their ids. A report is copied with its model, and
    queries are often private."""

    def __post_init__(self) -> None:
        check_whole("k", self.k, most=10_000)
        for name in ("min_queries", "max_passages"):
            check_whole(name, getattr(self, name), most=1_000_000_000)
        check_whole("known_items", self.known_items, least=0)
        check_whole("seed", self.seed, least=0, most=LARGEST_SEED)
        for name in ("margin", "forgetting_margin"):
            check_number(name, getattr(self, name), above_zero=False)


@dataclass(frozen=True)
class Proof:
    """What was measured and what follows. `changes` are nDCG@k, MRR and recall@k, in this order."""

    before_space: str
    after_space: str
    k: int
    queries: int
    unanswerable: int
    """Held-out queries without a relevant passage: they can show nothing and are not in `queries`."""
    passages: int
    """How many were searched, of `passages_in_all`."""
    passages_in_all: int
    changes: tuple[Change, ...]
    wins: tuple[QueryChange, ...]
    """Queries whose nDCG@k rose, the largest gain first."""
    losses: tuple[QueryChange, ...]
    """Queries whose nDCG@k fell, the largest loss first."""
    same: int
    forgetting: Forgetting | None
    refusals: tuple[str, ...]
    plot_data: PlotData

    @property
    def harmless(self) -> bool:
        """Whether harm is excluded, so that the encoder may be promoted."""
        return not self.refusals

    @property
    def verdict(self) -> str:
        """One line: why it may be promoted, or why not."""
        if self.refusals:
            return "; ".join(self.refusals)
        general = f"; {self.forgetting.kind} {self.forgetting.change}" if self.forgetting else ""
        return f"{self.queries} held-out queries: {self.changes[0]}{general}"


def prove(
    before: Encoder,
    after: Encoder,
    held_out: HeldOut,
    settings: ProofSettings | None = None,
    *,
    general: General | None = None,
    collection: Collection | None = None,
    trained: Container[str] = (),
) -> Proof:
    """Measure both encoders on the held-out queries and on a general set, and decide.

    collection: what is searched if `held_out` holds no passages. Its stored vectors serve the encoders of its space;
        for another space the stored texts are embedded.
    general: a `SimilaritySet`, or a `HeldOut` of another topic; None: known items, see `forgetting`.
    trained: ids of the passages that were trained on, to prefer others for the known items.

    Raises:
        UsageError: there are neither passages nor a collection.
        InputError: no passage that answers a query is among those searched.
    """
    settings = settings or ProofSettings()
    if not held_out.passages and collection is None:
        raise UsageError("the held-out set has no passages to search: give them, or a collection")
    corpus = SearchCorpus(held_out, collection, most=settings.max_passages, seed=settings.seed)
    queries = held_out.answerable
    ids, qrels = [query.id for query in queries], {query.id: corpus.qrels[query.id] for query in queries}
    systems = tuple(
        QueryPassageVectors(encoder.encode_queries([query.text for query in queries]), corpus.vectors(encoder))
        for encoder in (before, after)
    )
    first, second = (
        PassageVectors(corpus.ids, each.passages).search(ids, each.queries, k=settings.k) for each in systems
    )
    changes = _changes(qrels, first, second, settings)
    values = (ndcg(qrels, run, k=settings.k) for run in (first, second))
    texts = {query.id: query.text for query in queries} if settings.texts else {}
    moved = query_changes(*values, texts=texts)
    wins, losses = improved(moved), worsened(moved)
    forgetting = _forgetting(before, after, general or _default(corpus, trained, settings), trained, settings)
    return Proof(
        before_space=before.space,
        after_space=after.space,
        k=settings.k,
        queries=len(queries),
        unanswerable=len(held_out.queries) - len(queries),
        passages=len(corpus.ids),
        passages_in_all=corpus.total,
        changes=changes,
        wins=wins,
        losses=losses,
        same=len(moved) - len(wins) - len(losses),
        forgetting=forgetting,
        refusals=tuple(_refusals(changes[0], len(queries), forgetting, settings)),
        plot_data=plot_data(qrels, ids, corpus.ids, (systems[0], systems[1]), seed=settings.seed),
    )


def _changes(qrels: Qrels, before: Run, after: Run, settings: ProofSettings) -> tuple[Change, ...]:
    metrics = {f"ndcg@{settings.k}": ndcg, "mrr": reciprocal_rank, f"recall@{settings.k}": recall}
    return tuple(
        mean_change(name, metric(qrels, before, k=settings.k), metric(qrels, after, k=settings.k), seed=settings.seed)
        for name, metric in metrics.items()
    )


def _default(corpus: SearchCorpus, trained: Container[str], settings: ProofSettings) -> KnownItems | None:
    if not settings.known_items:
        return None
    return known_items(general_passages(corpus, trained, seed=settings.seed), most=settings.known_items)


def _forgetting(
    before: Encoder, after: Encoder, general: General | None, trained: Container[str], settings: ProofSettings
) -> Forgetting | None:
    if general is None:
        return None
    forgetting = measure_forgetting(before, after, general, k=settings.k, seed=settings.seed)
    if not isinstance(general, KnownItems):
        return forgetting
    return replace(forgetting, trained=sum(passage.id in trained for passage in general.held_out.passages))


def _refusals(change: Change, queries: int, forgetting: Forgetting | None, settings: ProofSettings) -> Iterator[str]:
    """The reasons why harm is not excluded, as the module's docstring defines it."""
    least, margin = settings.min_queries, settings.margin
    if queries < least:
        yield f"{queries} held-out queries are too few to exclude harm, expected at least {least}"
    if not change.excludes_loss_of(margin):
        # as of an adapter that stayed the identity
        if change.low == change.high == 0:
            yield f"nothing changed on {queries} held-out queries"
        elif change.high < 0:
            yield f"worse on {queries} held-out queries: {change}"
        elif margin:
            yield f"a loss of more than {margin:g} is not excluded by {queries} held-out queries: {change}"
        else:
            yield f"not proved better on {queries} held-out queries: {change}"
    if forgetting is None:
        if settings.known_items:  # none of the passages could be split into a query and a rest
            yield "nothing to measure forgetting on: give a general set, or known_items=0 to do without"
        return
    if forgetting.items < least:
        yield f"a general set of {forgetting.items} is too small to exclude forgetting, expected at least {least}"
    if not forgetting.change.excludes_loss_of(settings.forgetting_margin):
        yield (
            f"forgetting of more than {settings.forgetting_margin:g} is not excluded by {forgetting.items} "
            f"{forgetting.kind}: {forgetting.change}"
        )
