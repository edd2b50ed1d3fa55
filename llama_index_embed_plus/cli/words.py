"""The options that say which words a collection keeps and how a hybrid search fuses -> `Bm25` and `Fusion`.

Guarantees: what is not given is told apart from what is, so that a collection that is there keeps its own. Does not
know: a command.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.search.fusion import Fusion

Stemming = Annotated[
    str | None, typer.Option(help="Language whose endings make no difference to words; none if not given.")
]
StopWords = Annotated[
    str | None, typer.Option(help="Language whose frequent words no query asks for; none if not given.")
]
K1 = Annotated[
    float | None,
    typer.Option("--k1", help="How much a word counts that is repeated in a passage; 1.2 if not given."),
]
B = Annotated[
    float | None,
    typer.Option("--b", help="How much less a word counts in long passages, from 0 to 1; 0.75 if not given."),
]
FusionOption = Annotated[
    str | None,
    typer.Option(
        "--fusion",
        metavar="FUSION",
        help="How a hybrid search fuses: rrf (ranks), rrf:2 (ranks, words count twice as much), dbsf (scaled scores). "
        "Without it, as the collection keeps it; dbsf if it keeps none.",
    ),
]


@dataclass(frozen=True)
class Words:
    """What the options say of the words of a collection; None where they say nothing."""

    stemming: str | None = None
    stop_words: str | None = None
    k1: float | None = None
    b: float | None = None

    def __post_init__(self) -> None:
        _ = self.bm25  # refuses what cannot be, before anything is opened

    @property
    def bm25(self) -> Bm25:
        return Bm25(**self.given)

    @property
    def given(self) -> dict[str, Any]:
        """What was given, by its name in `Bm25`."""
        named = {"stemming": self.stemming, "stop_words": self.stop_words, "k1": self.k1, "b": self.b}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def asked(self) -> list[str]:
        """The options, as they are written on the command line."""
        return [word for name, value in self.given.items() for word in ("--" + name.replace("_", "-"), f"{value}")]

    def differ_from(self, has: Bm25) -> bool:
        """Whether they are other words than those. A language that is not given is none; a number is any."""
        languages = (has.stemming, has.stop_words) != (self.stemming, self.stop_words)
        return languages or self.k1 not in (None, has.k1) or self.b not in (None, has.b)


def fusion_of(text: str | None, where: str = "--fusion") -> Fusion | None:
    """The fusion that an option says. Raises `UsageError` if it is none."""
    if text is None:
        return None
    try:
        return Fusion.read(text, name=where)
    except InputError as error:
        raise UsageError(str(error)) from error
