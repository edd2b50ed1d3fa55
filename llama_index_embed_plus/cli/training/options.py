"""The options that the commands of training share, and the file of examples that some of them name.

Does not know: what a command does with the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from llama_index_embed_plus.cli.console import note

if TYPE_CHECKING:  # needs the extra `train`: loaded by the commands, so that their help does not wait for it
    from llama_index_embed_plus.training.data.records import TrainingData

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Texts = Annotated[
    bool, typer.Option(help="Keep the held-out queries' texts in the report, which is copied with the model.")
]

Trained = Annotated[str, typer.Option("--model", help="The trained model, a folder.")]
Base = Annotated[str, typer.Option(help="The model that training started from, a name or a folder.")]
RelevantFrom = Annotated[
    float | None, typer.Option(help="Judged pairs: from which grade or score on a passage answers its query.")
]
Split = Annotated[str | None, typer.Option(help="The split to read, where the examples have a column of splits.")]
Ignored = Annotated[
    list[str] | None, typer.Option("--ignore", help="A field of the examples to leave unread; may be repeated.")
]
PassagesOfExamples = Annotated[
    Path | None, typer.Option("--passages", help="Id and text of passages, for examples that name them by their ids.")
]
ExamplesKind = Annotated[
    str | None,
    typer.Option(help="What the examples are (pairs, triplets, judged pairs, ...), where their fields do not tell."),
]


@dataclass(frozen=True)
class ExampleFile:
    """A file of examples, and what the options say of how it is read."""

    path: Path
    kind: str | None
    relevant_from: float | None
    split: str | None
    ignore: list[str] | None
    passages: Path | None

    def read(self) -> TrainingData:
        """Its rows; what was left out of them is said on stderr."""
        from llama_index_embed_plus.training.data.reading import read_training_data

        data = read_training_data(
            self.path,
            kind=cast(Any, self.kind),  # an unknown one is refused there
            relevant_from=self.relevant_from,
            split=self.split,
            ignore=self.ignore or (),
            passages=self.passages,
        )
        if data.left_out or data.judged_by:
            by = f" by {data.judged_by}" if data.judged_by else ""
            note(f"{self.path}: {data.kind}{by}, {len(data)} rows to train on, {data.left_out} left out")
        return data
