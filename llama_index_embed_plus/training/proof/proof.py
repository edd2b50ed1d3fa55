"""Two encoders and held-out queries -> whether the second one may take the place of the first.

Measured are nDCG@k, MRR and recall of both over the same passages by exact search, with 95 % intervals
(`metrics.paired_interval`), and what the second has forgotten on a general set (`forgetting`). Harmless, and so
promotable, is an encoder if both hold; a reason for each that does not is in `refusals`:

1. On the held-out queries, the 95 % interval of the difference in nDCG@k lies above `-margin`. With the default
   margin of 0 the gain has to be proved: a change that is not proved better can only cost. A margin above 0 accepts
   what is proved not to be worse by more than that, as for a smaller or faster model. One metric decides, named
   beforehand: to accept any of three would triple the false alarms. MRR and recall are only reported.
2. On the general set, the interval of the difference lies above `-forgetting_margin`. Nothing has to be gained there,
   but a loss of 2 points or more must be excluded.

An interval that is wide because there is little data excludes nothing: too little evidence is a refusal, never a pass.
Below `min_queries` queries no interval is believed, since what decides is then known of a handful of values.

Answers that are clicks (`HeldOut.evidence`) are about what a search had shown, and favour what ranked it: the proof
says so. Where the log tells how likely each rank was looked at (`HeldOut.weights`), clicks count by the inverse of that
(`corrected`), and this decides. Passages that nobody was shown count as no answers even so: that is against whatever is
new, so that a proof on clicks can be trusted, and a refusal need not be right. Passages that were drawn for judging
(`SAMPLE`) count by the inverse of how likely they were drawn; their mean over all queries has no bias.

Queries that were each held out of one of several fits (`crossfit`) prove the procedure, and the proof says so.

Queries that nobody asked (`HeldOut.synthetic`) prove a gain on such queries, not on those that people ask: the proof is
labelled so and promotes nothing by itself. Where nothing else is against it (`only_synthetic`), a person may accept it.

Guarantees: queries without a relevant passage are left out and counted; the same inputs and seed give the same proof.
Does not know: how either encoder was made, and nothing that the held-out queries do not ask about.
"""

from __future__ import annotations

from collections.abc import Collection as Container
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llama_index_embed_plus.evaluate.retrieval.comparison import (
    Change,
    QueryChange,
    improved,
    mean_change,
    query_changes,
    worsened,
)
from llama_index_embed_plus.training.limits import LARGEST_SEED, check_number, check_whole
from llama_index_embed_plus.training.proof.corpus import SearchCorpus, general_passages
from llama_index_embed_plus.training.proof.crossfit import CrossFitted
from llama_index_embed_plus.training.proof.forgetting import (
    Forgetting,
    General,
    KnownItems,
    known_items,
    measure_forgetting,
)
from llama_index_embed_plus.training.proof.moves import judged_moves
from llama_index_embed_plus.training.proof.plot_data import PlotData, QueryPassageVectors, plot_data
from qdrant_tools.collections.collection import Collection
from qdrant_tools.errors import UsageError
from qdrant_tools.metrics import ndcg, recall, reciprocal_rank, weighted_gain
from qdrant_tools.records import ANSWERS, CLICKS, RATINGS, SAMPLE, Encoder, HeldOut, Qrels, Run

__all__ = ["HeldOut", "Proof", "ProofSettings", "QueryChange", "known_item_ids", "prove"]


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
    synthetic: bool = False
    """Whether nobody asked the queries: they were made from passages."""
    evidence: str = ""
    """Where the answers come from, see `HeldOut`."""
    corrected: Change | None = None
    """Of clicks that count by the inverse of how likely their rank was looked at: the gain of an answer, 1 if all of
    them come first."""
    needed: int | None = None
    """About how many such queries show a gain of `worth` four times in five, by the variance that was observed."""
    worth: float = 0.0
    higher: tuple[int, ...] = ()
    """Of a judged sample: how many of the passages that the second ranks higher answer, and of how many."""
    lower: tuple[int, ...] = ()
    folds: int = 0
    """Of how many fits each query was held out once, where the proof was made by cross-fitting; else 0."""

    @property
    def deciding(self) -> Change:
        """The change that the verdict is about."""
        return self.corrected or self.changes[0]

    @property
    def only_synthetic(self) -> bool:
        """Whether nothing but the lack of real queries stands against it: harm is excluded on synthetic ones."""
        return self.synthetic and not self.refusals

    @property
    def harmless(self) -> bool:
        """Whether harm is excluded, on queries that people asked, so that the encoder may be promoted."""
        return not self.refusals and not self.synthetic

    @property
    def verdict(self) -> str:
        """One line: why it may be promoted, or why not."""
        if self.refusals:
            return "; ".join(self.refusals)
        general = f"; {self.forgetting.kind} {self.forgetting.change}" if self.forgetting else ""
        label = "measured on synthetic queries only, which nobody asked: " if self.synthetic else ""
        figures = self.deciding.figures if self.evidence else str(self.deciding)
        named = _named(self.queries, synthetic=self.synthetic, evidence=self.evidence, folds=self.folds)
        return f"{label}{named}: {figures}{general}"

    @property
    def procedure(self) -> str:
        """Of a proof by cross-fitting, what it says of what serves; else ""."""
        if not self.folds:
            return ""
        return (
            f"cross-fitted: each query was ranked by one of {self.folds} adapters that did not see it. What serves was "
            "fitted in the same way on all of them: proved is the procedure, on somewhat fewer queries each"
        )


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
    after: a `CrossFitted` embeds each query by a map that did not see it; the proof then names its folds.
    general: a `SimilaritySet`, or a `HeldOut` of another topic; None: known items, see `forgetting`.
    trained: ids of the passages that were trained on, to prefer others for the known items.

    Raises:
        UsageError: there are neither passages nor a collection.
        InputError: no passage that answers a query is among those searched.
    """
    settings = settings or ProofSettings()
    folds = after.folds if isinstance(after, CrossFitted) else 0
    if not held_out.passages and collection is None:
        raise UsageError("the held-out set has no passages to search: give them, or a collection")
    corpus = SearchCorpus(held_out, collection, most=settings.max_passages, seed=settings.seed)
    queries = held_out.measured
    ids, qrels = [query.id for query in queries], {query.id: corpus.qrels.get(query.id, {}) for query in queries}
    systems = tuple(
        QueryPassageVectors(encoder.encode_queries([query.text for query in queries]), corpus.vectors(encoder))
        for encoder in (before, after)
    )
    first, second = (corpus.run(each.passages, ids, each.queries, k=settings.k) for each in systems)
    weights = corpus.weights(held_out)
    if held_out.evidence == SAMPLE:
        values = [weighted_gain(weights, run, k=settings.k) for run in (first, second)]
        changes: tuple[Change, ...] = (mean_change(f"dcg@{settings.k}", *values, seed=settings.seed),)
    else:
        values = [ndcg(qrels, run, k=settings.k) for run in (first, second)]
        changes = _changes(qrels, first, second, settings)
    weighed = held_out.evidence == CLICKS and held_out.weights
    corrected = _corrected(weights, first, second, settings) if weighed else None
    higher, lower = judged_moves(qrels, first, second) if held_out.evidence == SAMPLE else ((), ())
    needed, worth = _needed(values, corrected or changes[0], settings.min_queries)
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
        refusals=tuple(_refusals(corrected or changes[0], len(queries), forgetting, settings, held_out, folds)),
        plot_data=plot_data(corpus.of_parts(qrels), ids, corpus.ids, (systems[0], systems[1]), seed=settings.seed),
        synthetic=held_out.synthetic,
        evidence=held_out.evidence,
        corrected=corrected,
        needed=needed,
        worth=worth,
        higher=higher,
        lower=lower,
        folds=folds,
    )


def known_item_ids(
    held_out: HeldOut,
    settings: ProofSettings | None = None,
    *,
    collection: Collection | None = None,
    trained: Container[str] = (),
) -> frozenset[str]:
    """The passages of which `prove`, called alike and without a general set, makes known items.

    A known item is a passage's beginning, to be found by the rest. What is trained on beginnings of passages has to
    leave these out, or it is asked what it was told.

    Raises as `prove`.
    """
    settings = settings or ProofSettings()
    corpus = SearchCorpus(held_out, collection, most=settings.max_passages, seed=settings.seed)
    found = _default(corpus, trained, settings)
    return frozenset() if found is None else frozenset(passage.id for passage in found.held_out.passages)


def _corrected(weights: Mapping[str, Mapping[str, float]], before: Run, after: Run, settings: ProofSettings) -> Change:
    """The mean gain of an answer, each click weighed, normalised by the sum of the weights."""
    scale = len(weights) / sum(weight for of_query in weights.values() for weight in of_query.values())
    gains = [
        {name: scale * gain for name, gain in weighted_gain(weights, run, k=settings.k).items()}
        for run in (before, after)
    ]
    return mean_change(f"gain@{settings.k} by look", *gains, seed=settings.seed)


_WORTH, _LEAST_WORTH = 0.02, 0.005
"""A gain that is worth having where none was seen, and the least that is asked for."""
_POWER = (1.96 + 0.84) ** 2
"""Of a two-sided test at 5 % that finds what is there four times in five, by the normal distribution."""


def _needed(values: Sequence[Mapping[str, float]], change: Change, least: int) -> tuple[int | None, float]:
    """How many queries it takes, and for which gain; None if no query changed."""
    before, after = values
    differences = np.array([after[query] - before[query] for query in sorted(before)])
    if len(differences) < 2 or not differences.any():
        return None, 0.0
    worth = change.difference if change.difference >= _LEAST_WORTH else _WORTH
    return max(least, int(np.ceil(_POWER * differences.var(ddof=1) / worth**2))), worth


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


def _named(queries: int, *, synthetic: bool, evidence: str, folds: int = 0) -> str:
    of_what = {
        CLICKS: ", whose answers are clicks on what a search had shown",
        RATINGS: ", whose answers are ratings of what a search had shown",
        ANSWERS: ", labelled by what was said of answers",
        SAMPLE: ", of which a sample of passages was judged",
    }
    kind = "synthetic " if synthetic else ""
    named = f"{kind}queries, each held out of one of {folds} fits" if folds else f"{kind}held-out queries"
    return f"{queries} {named}{of_what.get(evidence, '')}"


def _refusals(
    change: Change,
    queries: int,
    forgetting: Forgetting | None,
    settings: ProofSettings,
    held_out: HeldOut,
    folds: int,
) -> Iterator[str]:
    """The reasons why harm is not excluded, as the module's docstring defines it."""
    least = settings.min_queries
    named = _named(queries, synthetic=held_out.synthetic, evidence=held_out.evidence, folds=folds)
    if queries < least:
        yield f"{named} are too few to exclude harm, expected at least {least}"
    yield from _of_queries(change, named, settings.margin)
    yield from _of_general(forgetting, settings)


def _of_queries(change: Change, named: str, margin: float) -> Iterator[str]:
    if change.excludes_loss_of(margin):
        return
    # as of an adapter that stayed the identity
    if change.low == change.high == 0:
        yield f"nothing changed on {named}"
    elif change.high < 0:
        yield f"worse on {named}: {change.figures}"
    elif margin:
        yield f"a loss of more than {margin:g} is not excluded by {named}: {change.figures}"
    else:
        yield f"not proved better on {named}: {change.figures}"


def _of_general(forgetting: Forgetting | None, settings: ProofSettings) -> Iterator[str]:
    least = settings.min_queries
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
