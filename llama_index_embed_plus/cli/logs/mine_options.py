"""The options of `embed-plus mine`: what feedback says, which candidates are looked at, which of them are negatives.

Does not know: what they mean together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Rule = Annotated[
    Literal["click", "skip-above", "last-click", "next", "dwell", "rated", "propensity", "answers"],
    typer.Option(
        help="How feedback becomes labels: a click is a positive (click), so is one on a hit below others without "
        "(skip-above), the last one of a search (last-click), one before a hit without (next), a long stay "
        "(dwell), a high grade (rated), or a click weighted by how often its rank is looked at (propensity); or what "
        "was said of answers and passages (answers)."
    ),
]
Mined = Annotated[str, typer.Argument(help="The collection or alias that negatives are taken from.")]
LogFile = Annotated[Path, typer.Argument(help="The retrieval log of searches in it.")]
Examples = Annotated[Path, typer.Option(help="The .jsonl file of examples to write, or to go on with.")]
Top = Annotated[
    float | None, typer.Option(help="For --rule rated and answers, the highest grade of ratings; 1 if not given.")
]
RelevantFrom = Annotated[
    float | None,
    typer.Option(help="For them, the lowest grade of a relevant passage; any above 0 if not given."),
]
Weights = Annotated[
    Path | None, typer.Option(help="For --rule answers, the measured weights that `log audit --out` wrote.")
]
Negatives = Annotated[int, typer.Option(help="The most negatives of an example.")]
Depth = Annotated[int, typer.Option(help="How many candidates are looked at for each query.")]
Skip = Annotated[int, typer.Option(help="How many candidates at the top of the ranking are passed over.")]
Minimum = Annotated[int, typer.Option(help="Examples with fewer negatives are left out.")]
MaxShare = Annotated[float, typer.Option(help="The share of the positive's score that a negative may reach.")]
Margin = Annotated[
    float | None,
    typer.Option(help="How far below the positive's score a negative must stay, besides; no limit if not given."),
]
Several = Annotated[
    Literal["min", "mean", "each"],
    typer.Option(
        help="Which of several positives --max-share and --margin compare with: the weakest, their mean, or each."
    ),
]
DuplicateSimilarity = Annotated[
    float, typer.Option(help="From this similarity to a positive on, a candidate counts as its copy.")
]
DocumentKey = Annotated[
    list[str] | None,
    typer.Option(
        help="Metadata field that names a passage's document: its other passages are left out. Several are the way "
        "to a field inside others."
    ),
]
Calibrate = Annotated[
    bool, typer.Option("--calibrate/--no-calibrate", help="Pick that share, or a margin, from the labels.")
]
Source = Annotated[
    Literal["dense", "lexical", "both"],
    typer.Option(help="Where candidates come from: the nearest vectors, BM25, or both."),
]
Sampling = Annotated[
    Literal["top", "random", "softmax"],
    typer.Option(help="How negatives are drawn of what is left: the nearest, any, or near ones more often."),
]
Seed = Annotated[int, typer.Option(help="The seed of what is drawn: the same seed gives the same result.")]
PromoteFound = Annotated[bool, typer.Option(help="Make positives of what the judge finds, instead of dropping it.")]
