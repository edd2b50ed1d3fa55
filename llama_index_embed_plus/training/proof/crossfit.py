"""Examples, and a way to fit an encoder on some of them -> one encoder that embeds each of their queries unseen.

The queries are parted into folds. For each fold an encoder is fitted without it, and embeds its queries; every other
text is embedded by the encoder that was fitted on all, the one that would serve. To a proof this is one encoder, and
all queries decide instead of the few that could be held out. This is cross-fitting (Stone, "Cross-validatory choice and
assessment of statistical predictions", JRSS B 1974). What is proved is the procedure: the encoder that serves was
fitted in the same way, on some more queries.

Guarantees: queries that are one question are in one fold; those that share an answer too, as far as such groups are
smaller than a fold. Larger ones are cut, and what answers a query of the fold is kept from the fit on the others, as in
the folds of the fit itself (`adapter.folds`). So no fit sees what gives a query of its fold away. The same examples and
seed give the same folds. Does not know: how an encoder is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.training.data.splits import SplitSettings, fold_queries, shared_answers, without_leaks
from qdrant_tools.records import Encoder, Example, HeldOut, Vectors

Fit = Callable[[Sequence[Example], frozenset[str]], Encoder]
"""What makes an encoder of examples, and of the ids of passages that are neither answers nor negatives to it."""


class CrossFitted:
    """An encoder whose queries are embedded each by the one that did not see it; `folds` are how many there are."""

    def __init__(self, served: Encoder, unseen: Mapping[str, Encoder], folds: int) -> None:
        """unseen: text of a query -> the encoder that was fitted without it."""
        self.served, self.folds = served, folds
        self._unseen = dict(unseen)

    @property
    def dimension(self) -> int:
        return self.served.dimension

    @property
    def space(self) -> str:
        return self.served.space

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self.served.encode_passages(texts)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        rows: dict[int, list[int]] = {}
        encoders = [self._unseen.get(text, self.served) for text in texts]
        for row, encoder in enumerate(encoders):
            rows.setdefault(id(encoder), []).append(row)
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for of_one in rows.values():
            vectors[of_one] = encoders[of_one[0]].encode_queries([texts[row] for row in of_one])
        return vectors


def cross_fit(
    examples: Sequence[Example],
    fit: Fit,
    *,
    folds: int = 5,
    settings: SplitSettings | None = None,
    encoder: Encoder | None = None,
) -> CrossFitted:
    """Fit once on all examples, and once without each fold. Synthetic examples are only fitted on, if any is real.

    fit: gets examples, and the ids of passages that it must not use (`fit_adapter(..., hidden=ids)`): the answers that
    queries of the fold share with others, where these are not all in the fold.
    settings: what is one question, as in `split_queries`; its shares are not used. encoder: finds near-duplicates.

    Raises:
        InputError: the queries are too few, or too much alike, for so many folds.
        TrainingError: a fit without a fold has nothing to learn from.
    """
    settings = settings or SplitSettings()
    judged = [example for example in examples if not example.synthetic] or list(examples)
    others = [example for example in examples if example.synthetic] if len(judged) < len(examples) else []
    fold = fold_queries(judged, folds, settings, encoder=encoder, cut=True)
    served, unseen = fit(examples, frozenset()), dict[str, Encoder]()
    for number in range(folds):
        left_out = [example for example, where in zip(judged, fold) if where == number]
        rest, hidden = [example for example, where in zip(judged, fold) if where != number], frozenset[str]()
        if settings.by_passage:
            rest, hidden = shared_answers(rest, left_out)
        if not rest:
            raise _all_shared(number, folds)
        known, _ = without_leaks(
            others,
            HeldOut.of_examples(left_out),
            encoder=encoder,
            similarity=settings.similarity,
            passages=settings.by_passage,
        )
        try:
            fitted = fit([*rest, *known], hidden)
        except TrainingError as error:
            raise TrainingError(
                f"without fold {number + 1} of {folds}, {len(rest)} examples are left: {error}"
            ) from error
        unseen |= {example.query: fitted for example in left_out}
    return CrossFitted(served, unseen, folds)


def _all_shared(number: int, folds: int) -> TrainingError:
    problem = (
        f"without fold {number + 1} of {folds} no example is left: all of their answers also answer queries of the fold"
    )
    return TrainingError(problem).with_way_out(
        python="let queries that share an answer be apart, by_passage=False",
        command="train --cross-fit N --shared-passages lets queries that share an answer be apart",
    )
