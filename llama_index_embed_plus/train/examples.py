"""Training examples -> the columns that sentence-transformers trains on.

Guarantees: one row per (query, positive), with as many negatives as the example has, at most `negatives`. Rows with
different numbers of negatives land in different data sets, because a column cannot be empty and filling it at random
would train on made-up judgements. Does not know: models, losses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from datasets import Dataset, DatasetDict

from qdrant_tools.records import Example


def to_datasets(examples: Iterable[Example], *, negatives: int = 3) -> DatasetDict:
    """Return data sets named `negatives_N`, columns `anchor`, `positive`, `negative_1` .. `negative_N`."""
    columns: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        chosen = example.negatives[:negatives]
        rows = columns[len(chosen)]
        for positive in example.positives:
            rows["anchor"].append(example.query)
            rows["positive"].append(positive.text)
            for i, negative in enumerate(chosen, start=1):
                rows[f"negative_{i}"].append(negative.text)
    return DatasetDict({f"negatives_{n}": Dataset.from_dict(dict(rows)) for n, rows in sorted(columns.items())})
