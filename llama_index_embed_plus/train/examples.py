"""Training examples -> the columns that sentence-transformers trains on.

`to_dataset` gives one data set of one shape for a trainer of one's own, as n-tuples or triplets; `to_datasets` keeps
every example, in a data set per number of negatives.

Guarantees: `to_datasets` has one row per (query, positive), with as many negatives as the example has, at most
`negatives`. Rows with different numbers of negatives land in different data sets, because a column cannot be empty and
filling it at random would train on made-up judgements. Does not know: models, losses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from datasets import Dataset, DatasetDict

from llama_index_embed_plus.errors import UsageError
from qdrant_tools.mine import MiningResult
from qdrant_tools.records import Example


def to_dataset(
    mined: MiningResult | Iterable[Example],
    *,
    shape: Literal["tuples", "triplets"] = "tuples",
    negatives: int | None = None,
) -> Dataset:
    """Turn what `mine` returned, or examples from a file, into a data set that `SentenceTransformerTrainer` takes.

    `tuples` are rows (anchor, positive, negative_1 .. negative_N), for MultipleNegativesRankingLoss and its kin; N is
    `negatives`, or as many as the fullest example has; examples with fewer are left out. `triplets` are rows (anchor,
    positive, negative), one per pair of a positive and a negative of an example. Weights have no place in either.

    Raises:
        UsageError: no such shape, or a number of negatives for triplets.
    """
    examples = list(mined.examples if isinstance(mined, MiningResult) else mined)
    if shape == "triplets" and negatives is None:
        return to_triplets(examples)
    if shape != "tuples":
        raise UsageError(f"shape is {shape!r} with negatives {negatives!r}, expected 'tuples', or 'triplets' alone")
    fullest = max((len(example.negatives) for example in examples), default=0)
    return to_tuples(examples, negatives=fullest if negatives is None else negatives)


def to_datasets(examples: Iterable[Example], *, negatives: int = 3, weights: bool = False) -> DatasetDict:
    """Return data sets named `negatives_N`, columns `anchor`, `positive`, `negative_1` .. `negative_N`.

    weights: also a column `label` with the examples' weights, which the ranking losses of `losses` read as such.
    """
    columns: dict[int, dict[str, list[str | float]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        chosen = example.negatives[:negatives]
        rows = columns[len(chosen)]
        for positive in example.positives:
            rows["anchor"].append(example.query)
            rows["positive"].append(positive.text)
            for i, negative in enumerate(chosen, start=1):
                rows[f"negative_{i}"].append(negative.text)
            if weights:
                rows["label"].append(example.weight)
    return DatasetDict({f"negatives_{n}": Dataset.from_dict(dict(rows)) for n, rows in sorted(columns.items())})


def to_tuples(examples: Iterable[Example], *, negatives: int) -> Dataset:
    """Return `anchor`, `positive`, `negative_1` .. `negative_N`: one row per positive of an example.

    Examples with fewer negatives are left out; those with more give the first N.
    """
    complete = [example for example in examples if len(example.negatives) >= negatives]
    names = ["anchor", "positive", *(f"negative_{i}" for i in range(1, negatives + 1))]
    rows = [
        (example.query, positive.text, *(negative.text for negative in example.negatives[:negatives]))
        for example in complete
        for positive in example.positives
    ]
    return Dataset.from_dict({name: [row[i] for row in rows] for i, name in enumerate(names)})


def to_triplets(examples: Iterable[Example]) -> Dataset:
    """Return `anchor`, `positive`, `negative`: one row per pair of a positive and a negative of an example."""
    rows = [
        (example.query, positive.text, negative.text)
        for example in examples
        for positive in example.positives
        for negative in example.negatives
    ]
    return Dataset.from_dict({n: [row[i] for row in rows] for i, n in enumerate(("anchor", "positive", "negative"))})
